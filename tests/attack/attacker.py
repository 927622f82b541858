"""What an attacker has: keys of a pipeline, an open port, a client that sends what it likes; and, to see what came of it, the
database and the memory of the process."""

import hashlib
import hmac
import http.client
import itertools
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from postgres import programs
from prop import Prop, running_prop

WEBHOOK_SECRET = "a secret for the webhooks of the tests"
MEGABYTE = 1 << 20
MEMORY_LIMIT = 64 * MEGABYTE

_deliveries = itertools.count(1)


class Refused(Exception):
    """The database has refused a statement."""


@dataclass(frozen=True)
class Database:
    """A database, by its URL."""

    url: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite:")

    def run(self, statement: str) -> list[str]:
        """The first column of what the statement answers."""
        if self.is_sqlite:
            connection = sqlite3.connect(self.url.removeprefix("sqlite:"), timeout=10)
            try:
                with connection:
                    return [str(row[0]) for row in connection.execute(statement)]
            except sqlite3.Error as error:
                raise Refused(str(error)) from error
            finally:
                connection.close()
        command = [programs() / "psql", self.url, "-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Refused(done.stderr)
        return done.stdout.splitlines()


@dataclass(frozen=True)
class Answer:
    """A status, headers in lower case, and what is in the body."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str | None:
        """The code of a problem."""
        return self.json.get("code") if self.text.startswith("{") else None

    def expect(self, *statuses: int) -> Any:
        """The JSON of an answer with one of these statuses; any other is a failure."""
        assert self.status in statuses, f"{self.status}: {self.text}"
        return self.json if self.text else None


class Ledger(Prop):
    """A running prop under attack."""

    database: Database
    directory: Path

    def send(self, method: str, path: str, body: Any = None, key: str | None = "", **headers: str) -> Answer:
        """An answer, whatever it is. Without `key`, the administrator asks; with None, nobody."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.key}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read().decode(errors="replace"))
        finally:
            connection.close()

    def place(self, service: str, environments: dict[str, dict]) -> None:
        """A service, and environments of these tiers with these rules."""
        self.post("/v1/services", {"slug": service})
        for tier, rules in environments.items():
            self.post("/v1/environments", {"slug": tier, "tier": tier, **rules})

    def release(self, service: str, version: str, digest: str | None = None, key: str = "") -> str:
        """The id of a release with this image."""
        body = {"service": service, "version": version, "image_digest": digest}
        return self.send("POST", "/v1/releases", body, key).expect(200, 201)["id"]

    def deploy(self, key: str = "", **body: Any) -> Answer:
        """What comes of recording a deployment."""
        return self.send("POST", "/v1/deployments", body, key)

    def gate(self, service: str, environment: str, version: str, key: str = "", **more: str) -> list[str]:
        """The codes of the reasons against a start."""
        query = "&".join(f"{name}={value}" for name, value in more.items())
        path = f"/v1/gate?service={service}&environment={environment}&version={version}&{query}".rstrip("&")
        return [reason["code"] for reason in self.send("GET", path, key=key).expect(200)["reasons"]]

    def approve(self, key: str, service: str, version: str, environment: str, decision: str = "approved", **more: Any) -> Answer:
        """What comes of an approval or a rejection."""
        body = {"service": service, "version": version, "environment": environment, "decision": decision, **more}
        return self.send("POST", "/v1/approvals", body, key)

    def deliver(self, event: str, body: Any, secret: str = WEBHOOK_SECRET) -> Answer:
        """What comes of a delivery that GitHub has signed."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        signature = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
        headers = {
            "X_GitHub_Event": event, "X_GitHub_Delivery": f"72d3162e-cc78-11e3-81ab-{next(_deliveries):012}",
            "X_Hub_Signature_256": f"sha256={signature}",
        }
        return self.send("POST", "/webhooks/github", text, None, **headers)

    def memory(self) -> int:
        """The bytes that the process had in memory at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def output(self) -> str:
        """What it has printed."""
        return (self.directory / "output").read_text(errors="replace")

    def statements(self) -> int:
        """How many statements it has run."""
        metrics = self.send("GET", "/metrics", key=None).text
        return int(metrics.split("\nprop_database_statements_total ")[1].split()[0])


@contextmanager
def attacked(directory: Path, database: Database, **settings: str) -> Iterator[Ledger]:
    """A prop on this database."""
    directory.mkdir(exist_ok=True)
    settings = {"DATABASE_URL": database.url, "PROP_GITHUB__WEBHOOK_SECRET": WEBHOOK_SECRET, **settings}
    with running_prop(directory, **settings) as prop:
        ledger = Ledger(prop.url, prop.key, prop.process)
        ledger.database, ledger.directory = database, directory
        yield ledger


def digest(text: str) -> str:
    """The digest of an image that a test makes up."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
