"""A person who has just cloned the repository: an empty home, a clone, and a terminal to type README commands in."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from documents import ROOT, joined

BUILD_SECONDS = 1800  # the first build of all dependencies, on a slow machine
COMMAND_SECONDS = 120
CHECKOUT_TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
# Kept between runs: the clone has the same path each time, so its later builds are incremental. The clone has a target
# folder of its own, since other tests run the checkout's target/debug/prop meanwhile.
FOLDER = CHECKOUT_TARGET / "newcomer"
# What a build needs from the caller: cargo's own settings and the way to a registry.
PASSED_ON = re.compile(r"(CARGO|RUSTUP)_.*|RUSTFLAGS|RUSTC_WRAPPER|SSL_CERT_(FILE|DIR)|.*_proxy", re.IGNORECASE)


def environment(home: Path) -> dict[str, str]:
    """The whole environment of the newcomer."""
    user = Path.home()
    tools = {"CARGO_HOME": str(user / ".cargo"), "RUSTUP_HOME": str(user / ".rustup")}
    tools |= {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    return tools | {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm", "CARGO_TARGET_DIR": str(FOLDER / "target")}


def clone() -> Path:
    """A new clone of HEAD, with the checkout's compiled dependencies."""
    folder = FOLDER / "prop"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    copy_dependencies(CHECKOUT_TARGET / "debug", FOLDER / "target" / "debug")
    return folder


def copy_dependencies(built: Path, to: Path) -> None:
    """Copies or links the compiled dependencies that are not there yet. prop's own files stay away: cargo would take their names,
    which do not depend on the path of the checkout, for builds of the clone."""
    for kind in (".fingerprint", "build", "deps"):
        for source in (built / kind).glob("*"):
            target = to / kind / source.name
            if target.exists() or re.match(r"(lib)?prop-|(api|process)-", source.name):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            elif source.suffix in (".rlib", ".rmeta", ".so"):
                os.link(source, target)  # compilers write a new file and rename it: the checkout keeps its own
            else:
                shutil.copy2(source, target)


@dataclass
class Greeting:
    """What the first start of prop prints."""

    text: str

    @property
    def ready(self) -> bool:
        """Whether its commands have been printed."""
        return bool(self.commands) and self.text.endswith("\n")

    @property
    def export(self) -> str:
        return next((line.strip() for line in self.text.splitlines() if line.strip().startswith("export PROP_KEY=")), "")

    @property
    def key(self) -> str:
        return self.export.partition("=")[2]

    @property
    def url(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+", self.text)
        return found[0] if found else ""

    @property
    def commands(self) -> list[str]:
        """The curl commands, found by their shape."""
        lines = iter(self.text.splitlines())
        return [joined(line.strip(), lines) for line in lines if line.lstrip().startswith("curl ")]


@dataclass
class Terminal:
    """A folder and an environment to type commands in."""

    folder: Path
    environment: dict[str, str]

    def type(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs the command in a shell of its own."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=self.folder, env=self.environment | variables,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_SECONDS,
        )  # fmt: skip

    @contextmanager
    def running(self, command: str, **variables: str) -> Iterator[Greeting]:
        """Runs the command that starts prop, until Ctrl-C; what it greets with."""
        output, errors = self.folder.parent / "output", self.folder.parent / "errors"
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                ["bash", "-c", command], cwd=self.folder, env=self.environment | variables, stdin=subprocess.DEVNULL,
                stdout=out, stderr=err, start_new_session=True,
                # Where these tests run in the background, SIGINT is ignored, and so it would be by what they start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
        try:
            yield wait_for_greeting(process, output, errors)
            assert process.poll() is None, f"`{command}` ended by itself:\n{errors.read_text()[-4000:]}"
        finally:
            press_ctrl_c(process)


def wait_for_greeting(process: subprocess.Popen, output: Path, errors: Path) -> Greeting:
    deadline = time.monotonic() + BUILD_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if Greeting(output.read_text()).ready:
            time.sleep(0.5)  # lines may be written one by one
            return Greeting(output.read_text())
        time.sleep(0.1)
    raise AssertionError(f"prop did not greet:\n{output.read_text()[-4000:]}{errors.read_text()[-4000:]}")


def press_ctrl_c(process: subprocess.Popen) -> None:
    """A terminal sends SIGINT to every process of the command."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=60)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
