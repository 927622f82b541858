"""A PostgreSQL of this machine that speaks TLS only, with a certificate of an authority made for it, as RDS has it."""

import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack import free_port

NOBODY = 65534
HOST = "localhost"


def program(name: str) -> str:
    """One of PostgreSQL's; Debian keeps most of them off PATH."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    path = found[-1] if found else shutil.which(name)
    assert path, f"there is no {name}; Debian has it in the package postgresql"
    return path


def as_nobody(*command: str | Path) -> list[str | Path]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return list(command)
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]


def run(*command: str | Path, **variables: str) -> None:
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"


def certificates(directory: Path) -> None:
    """An authority (ca.pem), and a server's certificate for this host by it."""
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=an authority for a test",
        "-keyout", directory / "ca.key", "-out", directory / "ca.pem")
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}",
        "-keyout", directory / "server.key", "-out", directory / "server.csr")
    (directory / "names").write_text(f"subjectAltName=DNS:{HOST}\n")
    run("openssl", "x509", "-req", "-days", "2", "-in", directory / "server.csr", "-CA", directory / "ca.pem",
        "-CAkey", directory / "ca.key", "-CAcreateserial", "-extfile", directory / "names", "-out", directory / "server.pem")
    (directory / "server.key").chmod(0o600)


@contextmanager
def tls_postgres(directory: Path, user: str, password: str, database: str) -> Iterator[int]:
    """Its port on HOST. `directory` is new, and everybody may read it; ca.pem in it is what clients check with."""
    certificates(directory)
    (directory / "password").write_text(password)
    if os.getuid() == 0:
        for path in [directory, *directory.iterdir()]:
            os.chown(path, NOBODY, NOBODY)
    port, data = free_port(), directory / "data"
    run(*as_nobody(program("initdb"), "-D", data, "-U", user, "-A", "scram-sha-256", f"--pwfile={directory / 'password'}",
                   "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"))
    # As rds.force_ssl has it: no connection without TLS.
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n")
    options = (
        f"-k {directory} -p {port} -c listen_addresses={HOST} -c fsync=off -c ssl=on "
        f"-c ssl_cert_file={directory}/server.pem -c ssl_key_file={directory}/server.key"
    )
    run(*as_nobody(program("pg_ctl"), "-D", data, "-l", directory / "log", "-w", "start", "-o", options))
    try:
        server = f"host={HOST} port={port} user={user} dbname=postgres sslmode=verify-full sslrootcert={directory}/ca.pem"
        run(program("psql"), server, "-c", f"CREATE DATABASE {database}", PGPASSWORD=password)
        yield port
    finally:
        subprocess.run(as_nobody(program("pg_ctl"), "-D", data, "-m", "immediate", "stop"), capture_output=True)
