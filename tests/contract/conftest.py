"""A prop of its own for these tests, and the document that it keeps to."""

import json
import os
import re
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "prop"
STARTS_WITHIN_SECONDS = 60


@dataclass
class Prop:
    """A running prop."""

    url: str
    key: str  # an admin key
    key_id: str


@pytest.fixture(scope="session")
def document(tmp_path_factory) -> Path:
    """The OpenAPI document: the committed one, which `cargo test` compares with the code."""
    committed = ROOT / "docs" / "openapi.json"
    if committed.exists():
        return committed
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(subprocess.run([BINARY, "openapi"], check=True, capture_output=True).stdout)
    return path


@pytest.fixture
def prop(tmp_path):
    """On a fresh SQLite file, or on the empty database that CONTRACT_DATABASE_URL names; on a port that the system chooses."""
    key = subprocess.run([BINARY, "key", "generate"], check=True, capture_output=True, text=True).stdout.strip()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": os.environ.get("CONTRACT_DATABASE_URL", f"sqlite:{tmp_path}/prop.db"),
        "PROP_HTTP__PORT": "0",
        "PROP_BOOTSTRAP_KEY": key,
    }
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([BINARY], env=environment, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    try:
        url = wait_until_ready(process, output)
        yield Prop(url, key, own_key_id(url, key))
        assert process.poll() is None, f"prop ended by itself:\n{output.read_text()[-4000:]}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until_ready(process: subprocess.Popen, output: Path) -> str:
    """The address that prop prints once it listens."""
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if greeting := re.search(r"prop is ready: (http://[^/]+)/", output.read_text()):
            return greeting[1]
        time.sleep(0.05)
    raise AssertionError(f"prop did not start:\n{output.read_text()[-4000:]}")


def own_key_id(url: str, key: str) -> str:
    request = urllib.request.Request(f"{url}/v1/keys", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        (own,) = [item for item in json.load(response)["items"] if key.startswith(item["prefix"])]
    return own["id"]
