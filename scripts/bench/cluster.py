"""A PostgreSQL server with default settings, fsync included, and its databases."""

import os
import shutil
import subprocess
from pathlib import Path

from ports import free_port
from settings import HERE, PG_BIN


class Cluster:
    """A temporary cluster on 127.0.0.1, which belongs to the role prop."""

    def __init__(self, directory: Path):
        self.data = directory / "data"
        self.port = free_port()
        self.as_server: list[str] = []
        directory.mkdir()
        # The server refuses to run as root.
        if os.geteuid() == 0:
            self.as_server = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            shutil.chown(directory, 65534, 65534)
        self._run("initdb", "-U", "prop", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        options = f"-p {self.port} -k {directory} -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", "-l", str(directory / "log"), "-w", "-o", options, "start")
        self.postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        self.environment = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "prop"}

    def _run(self, program: str, *arguments: str) -> None:
        # Its output goes to a file: the server keeps the descriptor open.
        log = self.data.parent.with_name("cluster.log")
        with log.open("a") as file:
            command = [*self.as_server, PG_BIN / program, "-D", self.data, *arguments]
            done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        if done.returncode:
            raise SystemExit(f"bench.sh: {program} failed:\n{log.read_text()[-2000:]}")

    def url(self, database: str) -> str:
        return f"postgres://prop@127.0.0.1:{self.port}/{database}"

    def psql(self, database: str, *arguments: str) -> None:
        command = [PG_BIN / "psql", "-q", "-o", os.devnull, "-v", "ON_ERROR_STOP=1", "-d", database, *arguments]
        subprocess.run(command, env=self.environment, check=True)

    def create(self, database: str, template: str = "template1") -> None:
        self.psql("postgres", "-c", f"CREATE DATABASE {database} TEMPLATE {template}")

    def load(self, database: str, deployments: int) -> None:
        """Fills a migrated database."""
        self.psql(database, "-v", f"deployments={deployments}", "-f", str(HERE / "load.postgres.sql"), "-c", "CHECKPOINT")

    def settle(self) -> None:
        """Does now what PostgreSQL owes for earlier writes, so that no run pays for those of another one."""
        subprocess.run([PG_BIN / "vacuumdb", "--all", "--quiet"], env=self.environment, check=True)
        self.psql("postgres", "-c", "CHECKPOINT")

    def stop(self) -> None:
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")
