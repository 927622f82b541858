"""scripts/db.sh adopt with a stub Terraform and a stub AWS: in which order, with which passwords, and how it ends.

That Terraform and AWS understand it is shown by test_restore.py.
"""

import json
import subprocess
from pathlib import Path

import pytest
from scripts import run

SECRET = {"password": "password-of-the-secret", "app_password": "app-password-of-the-secret"}
OLD, NEW = "db-OLD", "db-NEW"
AWS = """#!/usr/bin/env bash
case "$1 $2" in
    "rds describe-db-instances")
        # For a while after it was renamed, an instance is not there.
        [ ! -f "$STUB_DIRECTORY/renaming" ] || { rm "$STUB_DIRECTORY/renaming"; echo "An error occurred (DBInstanceNotFound)" >&2; exit 254; }
        cat "$STUB_DIRECTORY/instance.json" ;;
    "secretsmanager get-secret-value") cat "$STUB_DIRECTORY/secret.json" || exit 254 ;;
    *) echo "the stub does not know $*" >&2; exit 254 ;;
esac
"""
TERRAFORM = """#!/usr/bin/env bash
jq -cn '{arguments: $ARGS.positional, password: env.TF_VAR_database_password, app: env.TF_VAR_database_app_password}' \\
    --args -- "${@:2}" >>"$STUB_DIRECTORY/calls"
case "$2 $3" in
    "state pull") cat "$STUB_DIRECTORY/state.json" ;;
    "show "*) cat "$STUB_DIRECTORY/plan.json" ;;
esac
[ "$2" != "${STUB_FAILS:-}" ]
"""


class Stub:
    """A directory with `aws` and `terraform` in it."""

    def __init__(self, directory: Path):
        self.directory = directory
        for name, text in (("aws", AWS), ("terraform", TERRAFORM)):
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        self.database("available")
        self.write("secret", {"SecretString": json.dumps(SECRET)})
        self.state(OLD)
        self.plan("update")

    def write(self, name: str, value: dict) -> None:
        (self.directory / f"{name}.json").write_text(json.dumps(value))

    def database(self, status: str) -> None:
        self.write("instance", {"DBInstances": [{"DBInstanceStatus": status, "DbiResourceId": NEW}]})

    def state(self, known: str | None) -> None:
        instance = {"type": "aws_db_instance", "name": "main", "instances": [{"attributes": {"resource_id": known}}]}
        self.write("state", {"resources": [instance] if known else []})

    def plan(self, *actions: str) -> None:
        self.write("plan", {"resource_changes": [{"address": "aws_db_instance.main", "change": {"actions": list(actions)}}]})

    def adopt(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return run("db.sh", "staging", "adopt", *arguments, path=self.directory, STUB_DIRECTORY=str(self.directory), **environment)

    def calls(self) -> list[dict]:
        file = self.directory / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def commands(self) -> list[str]:
        """What Terraform was told to do, but for questions."""
        words = [" ".join(call["arguments"][:2]) if call["arguments"][0] == "state" else call["arguments"][0] for call in self.calls()]
        return [command for command in words if command not in ("state pull", "show")]


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    return Stub(tmp_path)


def test_the_new_instance_takes_the_place_of_the_old_with_the_passwords_of_the_secret(stub: Stub):
    done = stub.adopt(TF_VAR_database_password="typed-by-somebody-in-a-hurry")
    assert done.returncode == 0, done.stderr
    assert stub.commands() == ["init", "state rm", "import", "plan", "apply"]
    assert "-target=aws_db_instance.main" in next(call for call in stub.calls() if call["arguments"][0] == "plan")["arguments"]
    sent = {(call["password"], call["app"]) for call in stub.calls()}
    assert sent == {(SECRET["password"], SECRET["app_password"])}
    assert SECRET["password"] not in done.stdout + done.stderr


@pytest.mark.parametrize(("known", "commands"), [(NEW, ["init", "plan", "apply"]), (None, ["init", "import", "plan", "apply"])])
def test_it_can_be_run_again(stub: Stub, known: str | None, commands: list[str]):
    stub.state(known)
    assert stub.adopt().returncode == 0
    assert stub.commands() == commands


@pytest.mark.parametrize("actions", [("delete", "create"), ("create", "delete"), ("delete",)])
def test_a_plan_that_deletes_is_not_applied(stub: Stub, actions: tuple[str, ...]):
    stub.plan(*actions)
    done = stub.adopt()
    assert done.returncode == 1
    assert "deletes or replaces" in done.stderr and "apply" not in stub.commands()


@pytest.mark.parametrize("fails", ["import", "plan", "apply"])
def test_what_fails_ends_it_and_can_be_tried_again(stub: Stub, fails: str):
    done = stub.adopt(STUB_FAILS=fails)
    assert done.returncode == 1
    assert "run this command again" in done.stderr and stub.commands()[-1] == fails


def test_without_the_secret_nothing_is_changed(stub: Stub):
    (stub.directory / "secret.json").unlink()
    done = stub.adopt()
    assert done.returncode == 3
    assert "prop/database-staging" in done.stderr and stub.commands() == []


@pytest.mark.parametrize("fails", ["init", "state"])
def test_without_the_state_nothing_is_changed(stub: Stub, fails: str):
    done = stub.adopt(STUB_FAILS=fails)
    assert done.returncode == 3
    assert stub.commands() in (["init"], [])


def test_it_waits_for_the_new_name(stub: Stub):
    (stub.directory / "renaming").touch()
    assert stub.adopt(POLL_SECONDS="0.05").returncode == 0


def test_a_database_that_is_not_available_is_not_adopted(stub: Stub):
    stub.database("stopped")
    done = stub.adopt()
    assert done.returncode == 3
    assert "must be available" in done.stderr and stub.commands() == []


def test_a_dry_run_prints_every_command_and_runs_none(stub: Stub):
    done = stub.adopt("--dry-run")
    assert done.returncode == 0, done.stderr
    assert stub.calls() == []
    for command in ("init", "state rm aws_db_instance.main", "import -input=false", "plan -input=false", "apply -input=false"):
        assert f"{command}" in done.stderr
    assert SECRET["password"] not in done.stderr
