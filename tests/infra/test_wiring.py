"""The real prop, run with exactly what the applied task definition and secrets give it."""

import hmac
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import trustme

from postgres import free_port, running_postgres
from prop import BINARY, Prop, wait_until_ready
from stack import Stack


@pytest.fixture(scope="module")
def task_definition(stack: Stack) -> dict[str, Any]:
    """The newest revision, as deploy.sh would find it."""
    return stack.client("ecs").describe_task_definition(taskDefinition="prop-backend-staging")["taskDefinition"]


@pytest.fixture(scope="module")
def container(task_definition: dict[str, Any]) -> dict[str, Any]:
    (container,) = task_definition["containerDefinitions"]
    return container


@pytest.fixture(scope="module")
def environment(stack: Stack, container: dict[str, Any]) -> dict[str, str]:
    """What ECS would start the container with: its variables, and the values of its secrets."""
    values = {variable["name"]: variable["value"] for variable in container["environment"]}
    return values | {secret["name"]: resolved(stack, secret["valueFrom"]) for secret in container["secrets"]}


def resolved(stack: Stack, value_from: str) -> str:
    """A secret's value, or the one under a key of it: `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME[:KEY:STAGE:VERSION]`."""
    parts = value_from.split(":")
    value = stack.client("secretsmanager").get_secret_value(SecretId=":".join(parts[:7]))["SecretString"]
    return json.loads(value)[parts[7]] if len(parts) > 7 else value


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every user can read; pytest's own are closed to all but one."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def program(place: Path, container: dict[str, Any]) -> list[str | Path]:
    """prop as the container's user, where that one may run it."""
    binary = place / "prop"
    shutil.copy(BINARY, binary)
    binary.chmod(0o755)
    if os.getuid() != 0:
        return [binary]
    user, group = container["user"].split(":")
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--bounding-set=-all", "--no-new-privs", binary]


@pytest.fixture(scope="module")
def running(place: Path, program: list, environment: dict[str, str]) -> Iterator[tuple[Prop, dict[str, str], Path]]:
    """prop with that environment, where only the database's place and authority, and the port, are of this machine."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    server = {"certificate": certificate.cert_chain_pems[0].bytes(), "key": certificate.private_key_pem.bytes()}
    (place / "work").mkdir(mode=0o555)
    with running_postgres(**server, password=environment["PROP_DATABASE__MIGRATE_PASSWORD"]) as port:
        here = environment | {
            "PORT": str(free_port()),
            "PROP_DATABASE__HOST": "localhost",
            "PROP_DATABASE__PORT": str(port),
            "PROP_DATABASE__CA_FILE": written(place / "ca.pem", authority),
        }
        output = place / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(program, env=here, cwd=place / "work", stdout=file, stderr=subprocess.STDOUT)
        try:
            yield Prop(wait_until_ready(process, output), here["PROP_BOOTSTRAP_KEY"], process), here, output
        finally:
            process.terminate()
            process.wait(timeout=60)


def written(path: Path, authority: trustme.CA) -> str:
    """The file that an authority's certificate is in now."""
    path.write_bytes(authority.cert_pem.bytes())
    path.chmod(0o644)
    return str(path)


def test_it_is_ready(running):
    prop, _, _ = running
    assert prop.request("GET", "/readyz") == (200, {"status": "ok"})


def test_its_health_check_succeeds(running, container, program):
    _, here, _ = running
    kind, binary, *arguments = container["healthCheck"]["command"]
    assert (kind, binary) == ("CMD", "/prop")
    done = subprocess.run([*program, *arguments], env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_its_health_check_fails_when_nothing_listens(running, container, program):
    _, here, _ = running
    done = subprocess.run([*program, *container["healthCheck"]["command"][2:]], env=here | {"PORT": str(free_port())}, capture_output=True)
    assert done.returncode == 1


def test_it_refuses_a_database_whose_authority_is_another(running, program, place):
    _, here, _ = running
    other = written(place / "other.pem", trustme.CA())
    changed = {"PROP_DATABASE__CA_FILE": other, "PROP_DATABASE__CONNECT_WAIT_SECONDS": "0", "PORT": str(free_port())}
    done = subprocess.run(program, env=here | changed, cwd=place / "work", capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "certificate verify failed" in done.stderr


def test_the_secret_has_the_address_of_the_database(stack, environment):
    secret = json.loads(stack.client("secretsmanager").get_secret_value(SecretId="prop/database-staging")["SecretString"])
    assert secret == {
        "host": environment["PROP_DATABASE__HOST"], "port": int(environment["PROP_DATABASE__PORT"]),
        "name": environment["PROP_DATABASE__NAME"], "username": environment["PROP_DATABASE__MIGRATE_USER"],
        "password": environment["PROP_DATABASE__MIGRATE_PASSWORD"],
        "app_username": environment["PROP_DATABASE__USER"], "app_password": environment["PROP_DATABASE__PASSWORD"],
    }
    assert stack.outputs["database_endpoint"] == f"{secret['host']}:{secret['port']}"


def test_it_takes_the_webhooks_that_github_signs(running, environment):
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    prop, _, _ = running
    repository = {"name": "shop", "full_name": "acme/shop", "html_url": "https://github.com/acme/shop"}
    deployment = {"id": 7, "environment": "staging", "ref": "main", "sha": "a" * 40, "created_at": "2026-02-03T04:05:06Z"}
    status = {"id": 8, "state": "success", "created_at": "2026-02-03T04:06:06Z"}
    payload = {"action": "created", "repository": repository, "deployment": deployment, "deployment_status": status}
    body = json.dumps(payload).encode()

    def deliver(secret: str) -> dict[str, Any]:
        headers = {
            "Content-Type": "application/json", "X-GitHub-Event": "deployment_status", "X-GitHub-Delivery": "wiring-1",
            "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest(),
        }  # fmt: skip
        with urlopen(Request(f"{prop.url}/webhooks/github", body, headers)) as answer:
            return json.load(answer)

    with pytest.raises(HTTPError) as refused:
        deliver("another-secret-of-somebody")
    assert refused.value.code == 401
    assert deliver(environment["PROP_GITHUB__WEBHOOK_SECRET"])["outcome"] == "applied"
    assert prop.get("/v1/services/shop/environments/staging")["live"]["git_sha"] == "a" * 40


def test_its_board_needs_no_key_where_extra_environment_says_so(running):
    prop, _, _ = running
    with urlopen(f"{prop.url}/v1/status") as answer:
        assert answer.status == 200


def test_the_dashboard_counts_what_prop_logs(running, stack):
    prop, _, output = running
    before = output.stat().st_size
    deployment = prop.post("/v1/deployments", {
        "service": "checkout", "environment": "staging", "version": "1.0.0", "start": True, "create_missing": True,
    })
    prop.post(f"/v1/deployments/{deployment['id']}/transitions", {"to": "succeeded"})
    # Production wants an image.
    blocked = {"service": "checkout", "environment": "production", "version": "1.0.0", "create_missing": True}
    assert prop.request("POST", "/v1/deployments", blocked)[1]["code"] == "gate_blocked"
    prop.get("/v1/status")
    filters = stack.client("logs").describe_metric_filters(logGroupName=stack.outputs["log_group_name"])["metricFilters"]
    patterns = {one["metricTransformations"][0]["metricName"]: one["filterPattern"] for one in filters}
    written = output.read_bytes()[before:].decode()
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    counted = {metric: sum(matches(pattern, line) for line in lines) for metric, pattern in patterns.items()}
    assert counted == {
        "errors": 0, "deployments_succeeded": 1, "deployments_failed": 0, "deployments_cancelled": 0, "gate_blocked": 1,
    }  # fmt: skip


def matches(pattern: str, line: dict[str, Any]) -> bool:
    """Whether a line is what a filter of CloudWatch Logs looks for: `{ $.field = "value" && ... }`."""
    wanted = re.findall(r'\$\.(\w+) = "([^"]*)"', pattern)
    assert " && ".join(f'$.{field} = "{value}"' for field, value in wanted) == pattern.strip("{} "), pattern
    return all(line.get(field) == value for field, value in wanted)


def test_the_container_can_change_nothing_and_has_time_to_drain(container):
    assert container["readonlyRootFilesystem"] is True and container["user"] == "65532:65532"
    assert container["linuxParameters"]["capabilities"]["drop"] == ["ALL"] and not container.get("privileged")
    variables = {variable["name"]: variable["value"] for variable in container["environment"]}
    assert int(variables["PROP_HTTP__SHUTDOWN_SECONDS"]) < container["stopTimeout"]
