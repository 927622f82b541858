"""A prop of its own for a test: the binary that `cargo test` has built, as a process on a port of its own."""

import itertools
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "prop"
STARTS_WITHIN_SECONDS = 60


class Prop:
    """A running prop, and an admin key for it."""

    def __init__(self, url: str, key: str, process: subprocess.Popen):
        self.url, self.key, self.process = url, key, process

    def request(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        """The status of the answer, and its JSON."""
        headers = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, text = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text else None

    def get(self, path: str) -> Any:
        """What is there; anything but 200 is a failure."""
        status, answer = self.request("GET", path)
        assert status == 200, f"GET {path} answered {status}: {answer}"
        return answer

    def post(self, path: str, body: Any, key: str | None = None) -> Any:
        """What was made or done; anything but 200 and 201 is a failure."""
        status, answer = self.request("POST", path, body, key)
        assert status in (200, 201), f"POST {path} answered {status}: {answer}"
        return answer

    def new_key(self, name: str, *scopes: str) -> str:
        """A key with these scopes. While a valid key has the name, it is called `name-2` and so on."""
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        for name in names:
            status, answer = self.request("POST", "/v1/keys", {"name": name, "scopes": list(scopes)})
            if status != 409:
                assert status == 201, f"POST /v1/keys answered {status}: {answer}"
                return answer["key"]


def generate_key() -> str:
    """A key that no ledger knows yet."""
    return subprocess.run([BINARY, "key", "generate"], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def running_prop(directory: Path, port: int = 0, **settings: str) -> Iterator[Prop]:
    """On the SQLite file in `directory`, unless the settings say otherwise; on a port that the system chooses."""
    key = settings.pop("PROP_BOOTSTRAP_KEY", None) or generate_key()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:{directory}/prop.db",
        "PROP_HTTP__PORT": str(port),
        "PROP_BOOTSTRAP_KEY": key,
        **settings,
    }
    output = directory / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([BINARY], env=environment, cwd=directory, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield Prop(wait_until_ready(process, output), key, process)
        assert process.poll() is None, f"prop ended by itself:\n{output.read_text()[-4000:]}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until_ready(process: subprocess.Popen, output: Path) -> str:
    """The address that prop prints once it listens."""
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if greeting := re.search(r"prop is running: (http://[^/]+)/", output.read_text()):
            return greeting[1]
        time.sleep(0.05)
    raise AssertionError(f"prop did not start:\n{output.read_text()[-4000:]}")
