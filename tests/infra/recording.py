"""Records docs/recordings/deploy.cast anew: run it by hand after a message of the scripts has changed.

    cargo build && python3 tests/infra/recording.py

It types three commands at a terminal of its own and keeps what appears there: a deployment, one that fails and goes back
by itself, and a rollback. The scripts and the ledger are real; AWS is the stub of these tests.
"""

import codecs
import errno
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))

from prop import running_prop  # noqa: E402
from stub_aws import OTHER, Scenario, environment, image, outside, record_old_release  # noqa: E402

RECORDING = ROOT / "docs" / "recordings" / "deploy.cast"
COLUMNS, LINES = 120, 36
APP, LEDGER = "prop-staging.example.org", "prop.example.org"
POLL_SECONDS = 1.0  # as long as a person likes to watch

# What fails in the second deployment: a container that does not start, as the log and ECS report it.
STOPPED = {
    "taskArn": "arn:aws:ecs:task/prop/t1", "stoppedReason": "Essential container in task exited", "startedAt": "2026-02-03T04:05:06Z",
    "containers": [{"name": "prop", "exitCode": 2}],
}  # fmt: skip
LOG = "prop: settings: database.url is missing"

# A comment, the command below it, and the exit code of that.
SESSION = [
    ("1.4.1 is live in staging. Deploy 1.4.2.", "./scripts/deploy.sh staging 1.4.2", 0),
    ("Deploy 1.4.3, whose tasks do not start.", "./scripts/deploy.sh staging 1.4.3", 6),
    ("1.4.2 is still live. Roll back to the release before it.", "./scripts/rollback.sh staging", 0),
]

Event = tuple[float, str]


class Screen:
    """Keeps what appears at a terminal, with the seconds since it was switched on."""

    def __init__(self) -> None:
        self.started, self.events = time.monotonic(), list[Event]()

    def show(self, text: str) -> None:
        if text:
            self.events.append((round(time.monotonic() - self.started, 3), text))

    def type(self, line: str, seconds_per_key: float) -> None:
        self.show("\033[32m$\033[0m ")
        for key in line:
            time.sleep(seconds_per_key)
            self.show(key)
        self.show("\r\n")

    def run(self, command: str, variables: dict[str, str]) -> int:
        """The exit code."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=ROOT, env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        decoder = codecs.getincrementaldecoder("utf-8")()
        while data := read(ours):
            self.show(decoder.decode(data))
        os.close(ours)
        return process.wait(timeout=60)


def read(terminal: int) -> bytes:
    """What comes next; nothing once every program has closed the terminal, which Linux says by an error."""
    try:
        return os.read(terminal, 65536)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


@contextmanager
def staging(directory: Path) -> Iterator[dict[str, str]]:
    """Staging with 1.4.1 live; the variables that the scripts run with. curl's settings file maps the host names of the service
    and of the ledger to the servers of this test, so that no port is on the screen."""
    scenario = Scenario(directory)
    (directory / "ledger").mkdir()
    with outside(scenario) as app, running_prop(directory / "ledger") as ledger:
        record_old_release(ledger)
        scenario.set(images=[*scenario.read()["images"], image(OTHER)], fates=["complete", "breaker"], stopped_tasks=[STOPPED], log=[LOG])
        hosts = {APP: app, LEDGER: ledger.url}
        lines = [f'connect-to = "{name}:80:{url.removeprefix("http://")}"\n' for name, url in hosts.items()]
        (directory / ".curlrc").write_text("".join(lines))
        settings = {"APP_URL": f"http://{APP}", "PROP_URL": f"http://{LEDGER}", "PROP_KEY": ledger.key, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        yield environment(scenario, **settings)


def record(seconds_between_polls: float, seconds_per_key: float) -> list[Event]:
    """Runs the session; what appeared, and when."""
    with tempfile.TemporaryDirectory() as directory, staging(Path(directory)) as variables:
        screen = Screen()
        for comment, command, expected in SESSION:
            screen.type(f"# {comment}", seconds_per_key)
            screen.type(command, seconds_per_key)
            code = screen.run(command, variables | {"POLL_SECONDS": str(seconds_between_polls)})
            shown = "".join(text for _, text in screen.events)
            assert code == expected, f"{command} ended with {code}:\n{shown}"
            time.sleep(25 * seconds_per_key)
        screen.type("exit", seconds_per_key)
        return screen.events


def write(events: list[Event], file: Path) -> None:
    """As asciicast, version 2: a header, then an event per line."""
    header = {"version": 2, "width": COLUMNS, "height": LINES, "title": "prop: deploy, failed deploy, rollback", "env": {"TERM": "xterm-256color", "SHELL": "/bin/bash"}}
    lines = [json.dumps(header), *(json.dumps([at, "o", text], ensure_ascii=False) for at, text in events)]
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write(record(POLL_SECONDS, 0.06), RECORDING)
    print(RECORDING)
