"""A scenario for the stub `aws` (stub/aws), the scripts run in it, and the service as it is seen from outside."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from prop import Prop
from serving import serving

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).parent / "stub"
READING = ("describe", "list", "get", "batch-get", "filter")
TAGGING = "ecr put-image"  # changes nothing that runs

VERSIONS = ["1.4.1", "1.4.2", "1.4.3"]
OLD, NEW, OTHER = DIGESTS = [f"sha256:{hashlib.sha256(version.encode()).hexdigest()}" for version in VERSIONS]
OLD_SHA, NEW_SHA, OTHER_SHA = COMMITS = [hashlib.sha1(version.encode()).hexdigest() for version in VERSIONS]
# Version and commit of each image.
IMAGES = dict(zip(DIGESTS, zip(VERSIONS, COMMITS, strict=True), strict=True))

INSTANCE = {
    "DBInstanceIdentifier": "prop-db-staging", "DBInstanceClass": "db.t4g.micro", "EngineVersion": "17.4", "BackupRetentionPeriod": 7,
    "DBSubnetGroup": {"DBSubnetGroupName": "prop-db-staging"}, "DBParameterGroups": [{"DBParameterGroupName": "prop-db-staging"}],
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-2"}], "MasterUsername": "prop", "StorageEncrypted": True,
    "Endpoint": {"Address": "db.example.org", "Port": 5432},
}  # fmt: skip


def definition(revision: int, digest: str | None, family: str) -> dict:
    image = f"123456789012.dkr.ecr.ap-south-1.amazonaws.com/prop-backend{'@' + digest if digest else ':none'}"
    container = {
        "name": "prop", "image": image, "environment": [{"name": "PORT", "value": "8080"}], "portMappings": [{"containerPort": 8080}],
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-stream-prefix": "prop"}},
    }  # fmt: skip
    return {
        "taskDefinitionArn": f"arn:aws:ecs:ap-south-1:123456789012:task-definition/{family}:{revision}", "revision": revision,
        "status": "ACTIVE", "family": family, "containerDefinitions": [container], "requiresAttributes": [], "registeredBy": "x",
    }  # fmt: skip


def tags(least: int, most: int) -> list[dict]:
    """The number of tasks that Terraform's variables give a service."""
    return [{"key": "MinTasks", "value": str(least)}, {"key": "MaxTasks", "value": str(most)}]


def image(digest: str) -> dict:
    """An image as ECR has it."""
    version, sha = IMAGES[digest]
    return {"digest": digest, "tags": [f"0.1.0-{sha[:12]}", version]}


class Scenario:
    """An account in which 1.4.1 runs in staging, as revision 2, and 1.4.2 is in ECR."""

    def __init__(self, directory: Path):
        self.file = directory / "state.json"
        self.spool = directory / "spool.jsonl"
        family = "prop-backend-staging"
        definitions = [definition(1, None, family), definition(2, OLD, family)]
        live = definitions[-1]["taskDefinitionArn"]
        deployment = {"id": "ecs-svc/1", "status": "PRIMARY", "taskDefinition": live, "rolloutState": "COMPLETED", "createdAt": "2026-02-01T00:00:00Z"}
        service = {
            "serviceName": "prop-backend-service-staging", "status": "ACTIVE", "taskDefinition": live, "desiredCount": 1, "runningCount": 1,
            "deployments": [deployment], "events": [], "platformVersion": "LATEST",
            "loadBalancers": [{"targetGroupArn": "arn:tg", "containerName": "prop", "containerPort": 8080}],
            "tags": tags(1, 4),
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}},
            "deploymentConfiguration": {
                "deploymentCircuitBreaker": {"enable": True, "rollback": True},
                "alarms": {"enable": True, "rollback": True, "alarmNames": ["prop-server-errors-staging", "prop-latency-staging"]},
            },
        }  # fmt: skip
        images = [image(OLD), image(NEW)]
        self.write({
            "calls": [], "family": family, "definitions": definitions, "service": service, "images": images, "fates": [], "serial": 1,
            "deny": [], "slow": {}, "stopped_tasks": [], "stopped_by": "", "one_off": None, "task_exit": 0, "log": [], "targets": ["healthy"],
            "database": "available", "foreign": live, "retry": [], "lie": None, "labels": "",
            "completed": live, "range": {"min": 1, "max": 4, "schedule": True}, "bake": 2, "lag": 1, "stale": 0, "before": None, "throttled": {}, "garbled": [], "instance": INSTANCE, "pending": 0,
        })  # fmt: skip

    @contextmanager
    def lock(self) -> Iterator[None]:
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> dict:
        with self.lock():
            return json.loads(self.file.read_text())

    def write(self, state: dict) -> None:
        with self.lock():
            self.file.write_text(json.dumps(state))

    def set(self, **changes: Any) -> None:
        """Changes the scenario, also while a script runs."""
        with self.lock():
            self.file.write_text(json.dumps(json.loads(self.file.read_text()) | changes))

    def without_rollback(self) -> None:
        """ECS reports a rollout as failed, and does nothing more."""
        service = self.read()["service"]
        configuration = service["deploymentConfiguration"]
        configuration["deploymentCircuitBreaker"]["rollback"] = configuration["alarms"]["rollback"] = False
        self.set(service=service)

    def never_deployed(self) -> None:
        """The service as Terraform makes it: a revision without an image, no task, and a range that allows none."""
        state = self.read()
        first = state["definitions"][0]["taskDefinitionArn"]
        state["definitions"] = state["definitions"][:1]
        state["service"] |= {"desiredCount": 0, "runningCount": 0, "taskDefinition": first, "tags": tags(2, 4)}
        state["service"]["deployments"][0]["taskDefinition"] = first
        self.write(state | {"range": {"min": 0, "max": 0, "schedule": False}, "completed": first})

    def asleep(self, **more: Any) -> None:
        """The environment as its schedule leaves it in the evening."""
        state = self.read()
        state["service"] |= {"desiredCount": 0, "runningCount": 0, "tags": tags(2, 4)}
        self.write(state | {"range": {"min": 0, "max": 0, "schedule": True}, "database": "stopped"} | more)

    def settle(self) -> None:
        """Some minutes later: the newest rollout is complete, and ECS lists no other."""
        service = self.read()["service"]
        newest = service["deployments"][0] | {"rolloutState": "COMPLETED"}
        service |= {"deployments": [newest], "runningCount": service["desiredCount"]}
        self.set(service=service, completed=newest["taskDefinition"], stale=0)

    def calls(self, *, changing: bool = False) -> list[str]:
        """The operations that were called, in order."""
        operations = [operation for operation, _ in self.read()["calls"]]
        if not changing:
            return operations
        return [operation for operation in operations if operation != TAGGING and not operation.split()[1].startswith(READING)]

    def options(self, operation: str) -> list[dict]:
        return [options for called, options in self.read()["calls"] if called == operation]

    def live_digest(self) -> str | None:
        """The image that the service runs: that of its last complete rollout."""
        state = self.read()
        complete = [one["taskDefinition"] for one in state["service"]["deployments"] if one["rolloutState"] == "COMPLETED"]
        for one in state["definitions"]:
            if one["taskDefinitionArn"] in complete:
                image = one["containerDefinitions"][0]["image"]
                return image.partition("@")[2] or None
        return None


@contextmanager
def outside(scenario: Scenario) -> Iterator[str]:
    """Plays the load balancer: /health, and /version as the live image reports it, or as the scenario lies. And ECR's store of
    image configurations, which holds the labels."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("-config"):
                _, sha = IMAGES[self.path[1:].removesuffix("-config")]
                return self.answer(200, {"config": {"Labels": {"org.opencontainers.image.revision": sha}}})
            digest = scenario.read()["lie"] or scenario.live_digest()
            version, sha = IMAGES.get(digest or "", ("0", "0" * 40))
            body = {"/health": {"status": "ok"}, "/version": {"version": version, "git_sha": sha, "image_digest": digest}}[self.path]
            return self.answer(200 if digest != "down" else 503, body)

        def answer(self, status: int, body: dict) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    with serving(Handler) as url:
        scenario.set(labels=url)
        yield url


def environment(scenario: Scenario, **more: str) -> dict[str, str]:
    """What a script is run with: the stub before the real CLI, and nothing of this machine's own."""
    # The stub runs on this Python itself: a version manager's wrapper takes ten times as long to start.
    return {
        "PATH": f"{STUB}:{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(scenario.file.parent), "USER": "dana", "STUB_STATE": str(scenario.file),
        "POLL_SECONDS": "0.05", "PROOF_SECONDS": "2", "PROP_SPOOL": str(scenario.spool), "TMPDIR": str(scenario.file.parent), **more,
    }  # fmt: skip


def start(scenario: Scenario, script: str, *arguments: str, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [ROOT / "scripts" / script, *arguments], env=environment(scenario, **variables), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=scenario.file.parent,
        # Where these tests run in the background, SIGINT is ignored, and bash can't trap what was ignored when it began.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


class Run:
    """A script that has ended."""

    def __init__(self, process: subprocess.Popen, timeout: float = 90):
        self.out, self.err = process.communicate(timeout=timeout)
        self.code = process.returncode

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"

    @property
    def result(self) -> dict:
        return json.loads(self.out)


def run(scenario: Scenario, script: str, *arguments: str, **variables: str) -> Run:
    return Run(start(scenario, script, *arguments, **variables))


def settings(app: str, ledger: Prop | None) -> dict[str, str]:
    return {"APP_URL": app} | ({"PROP_URL": ledger.url, "PROP_KEY": ledger.key} if ledger else {})


def record_old_release(ledger: Prop) -> None:
    """Makes 1.4.1 live in staging."""
    release = {"service": "prop", "environment": "staging", "version": "1.4.1", "image_digest": OLD, "git_sha": OLD_SHA, "create_missing": True}
    old = ledger.post("/v1/deployments", release | {"start": True})
    ledger.post(f"/v1/deployments/{old['id']}/transitions", {"to": "succeeded"})


def place(ledger: Prop, environment: str = "staging") -> dict:
    return ledger.get(f"/v1/services/prop/environments/{environment}")


def states(place_or_list: list[dict]) -> list[tuple[str, str]]:
    """Version and state of deployments, the oldest first."""
    return [(deployment["version"], deployment["state"]) for deployment in reversed(place_or_list)]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.02)


def press_ctrl_c(process: subprocess.Popen) -> Run:
    """As a person does it: again, when nothing happens. bash loses a SIGINT that comes while a command substitution ends."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            return Run(process, timeout=2)
        except subprocess.TimeoutExpired:
            continue
    return Run(process)
