"""The servers that are compared, and a running one: its start, its memory and its CPU time."""

import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ports import free_port

READY_WITHIN_SECONDS = 120


@dataclass(frozen=True)
class Program:
    """A program to compare: its name in the tables, and how it gets its port."""

    name: str
    binary: Path
    port_setting: str = "PROP_HTTP__PORT"
    settings: tuple[tuple[str, str], ...] = ()


class Server:
    """A program that serves a database until the end of `with`. Its log goes to a file, as JSON."""

    def __init__(self, program: Program, url: str, directory: Path):
        self.program, self.port = program, free_port()
        self.log = directory / f"server-{self.port}.log"
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "PROP_BOOTSTRAP_KEY": os.environ["PROP_KEY"],
            "PROP_LOG__FORMAT": "json",
            program.port_setting: str(self.port),
            **dict(program.settings),
        }
        start = time.perf_counter()
        with self.log.open("wb") as file:
            self.process = subprocess.Popen([program.binary], env=environment, stdout=file, stderr=file)
        while not self._is_ready():
            if self.process.poll() is not None or time.perf_counter() > start + READY_WITHIN_SECONDS:
                raise SystemExit(f"bench.sh: {program.name} does not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.0005)
        self.ready_ms = (time.perf_counter() - start) * 1000
        self.idle_mb = self.memory("VmRSS")

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(64)
        except OSError:
            return False

    @property
    def pid(self) -> int:
        return self.process.pid

    def memory(self, field: str) -> float:
        """A memory figure of /proc/PID/status, in MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def migrate(program: Program, url: str) -> None:
    environment = {**os.environ, "DATABASE_URL": url}
    done = subprocess.run([program.binary, "migrate"], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench.sh: {program.name} migrate failed:\n{done.stderr[-2000:]}")


def start_ms(program: Program, url: str, starts: int, directory: Path) -> list[float]:
    """The time until /readyz answers 200, of several starts on a migrated database."""
    times = []
    for _ in range(starts):
        with Server(program, url, directory) as server:
            times.append(server.ready_ms)
    return times
