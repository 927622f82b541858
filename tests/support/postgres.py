"""A PostgreSQL of its own for a test."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """Where `initdb` is: on the path, or where Debian keeps it."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    on_path = shutil.which("initdb")
    found = debian or ([Path(on_path)] if on_path else [])
    return found[0].parent if found else None


@contextmanager
def running_postgres(certificate: bytes | None = None, key: bytes | None = None, password: str | None = None) -> Iterator[int]:
    """The port, on 127.0.0.1, of a server with the role and the database `prop`, which asks for no password unless one is given.
    With a certificate it takes TLS only."""
    bin = programs()
    assert bin, "there is no initdb; Debian has it in the package postgresql"
    # The server refuses to run as root; not below pytest's directories, which nobody else may enter.
    directory = Path(tempfile.mkdtemp(prefix="prop-postgres-"))
    unprivileged = []
    if os.geteuid() == 0:
        shutil.chown(directory, 65534, 65534)
        unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run([*unprivileged, bin / program, *arguments], cwd=directory, capture_output=True, text=True)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    data = directory / "data"
    method, arguments = "trust", []
    if password:
        password_file = directory / "password"
        password_file.write_text(password)
        method, arguments = "scram-sha-256", [f"--pwfile={password_file}"]
    run("initdb", "-D", str(data), "-U", "prop", "--auth-local=trust", f"--auth-host={method}", *arguments,
        "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
    port = free_port()
    options = f"-k {directory} -c listen_addresses=127.0.0.1 -p {port} -c fsync=off"
    if certificate and key:
        for name, content in (("server.crt", certificate), ("server.key", key)):
            (data / name).write_bytes(content)
            (data / name).chmod(0o600)
            if unprivileged:
                shutil.chown(data / name, 65534, 65534)
        (data / "pg_hba.conf").write_text(f"local all all trust\nhostssl all all 127.0.0.1/32 {method}\n")
        options += " -c ssl=on"
    try:
        run("pg_ctl", "-D", str(data), "-l", str(directory / "log"), "-w", "start", "-o", options)
        run("createdb", "-h", str(directory), "-p", str(port), "-U", "prop", "prop")
        yield port
    finally:
        subprocess.run([*unprivileged, bin / "pg_ctl", "-D", data, "-m", "immediate", "stop"], cwd="/", capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
