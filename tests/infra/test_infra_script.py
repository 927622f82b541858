"""scripts/infra.sh with a stub Terraform: what it calls, in which order, with what, and how it ends.

That the real Terraform understands it is shown where the stack is applied.
"""

import json
import os
import pty
import stat
import subprocess
from pathlib import Path

import pytest
from scripts import ROOT, TOOLS, run

# Notes its arguments and the secrets it was given, and answers as the test says.
STUB = """#!/usr/bin/env bash
jq -cn '{arguments: $ARGS.positional, password: env.TF_VAR_database_password, app: env.TF_VAR_database_app_password, key: env.TF_VAR_bootstrap_key,
    webhook: env.TF_VAR_github_webhook_secret, bucket: env.TF_VAR_state_bucket, table: env.TF_VAR_lock_table, region: env.TF_VAR_state_region}' --args -- "$@" >>"$STUB_CALLS"
case $2 in
    init) exit "${STUB_INIT:-0}" ;;
    plan) exit "${STUB_PLAN:-0}" ;;
    show) cat "$STUB_SHOW" ;;
    output) echo value ;;
    apply) exit "${STUB_APPLY:-0}" ;;
esac
"""
PASSWORD = "a-password-of-the-test"
APP_PASSWORD = "another-password-of-the-test"
KEY = "prop_" + "k" * 36
NO_CHANGE, CHANGES = "0", "2"


def change(actions: list[str], before: dict | None, after: dict | None) -> dict:
    return {"change": {"actions": actions, "before": before, "after": after}}


DATABASE_IS_NEW = [change(["create"], None, {"password_wo_version": 1, "identifier": "prop-db"})]
DATABASE_IS_MADE_ANEW = [change(["delete", "create"], {"password_wo_version": 1}, {"password_wo_version": 1})]
VERSION_IS_RAISED = [change(["update"], {"secret_string_wo_version": 1}, {"secret_string_wo_version": 2})]
TAG_CHANGES = [change(["update"], {"password_wo_version": 1, "tags": {}}, {"password_wo_version": 1, "tags": {"a": "b"}})]
WEBHOOK_IS_NEW = [
    {"address": "aws_secretsmanager_secret_version.github_webhook[0]"} | change(["create"], None, {"secret_string_wo_version": 1})
]
ALL_GOES = [change(["delete"], {"password_wo_version": 1}, None)]


class Stub:
    """A directory with `terraform` in it, and what it was called with."""

    def __init__(self, directory: Path):
        self.directory, self.calls_file, self.show = directory, directory / "calls", directory / "show.json"
        terraform = directory / "terraform"
        terraform.write_text(STUB)
        terraform.chmod(terraform.stat().st_mode | stat.S_IXUSR)
        self.environment = {"STUB_CALLS": str(self.calls_file), "STUB_SHOW": str(self.show)}
        self.plan([])

    def plan(self, changes: list[dict], environment: str = "staging") -> None:
        """What `terraform show` will say of the plan."""
        self.show.write_text(json.dumps({"variables": {"environment": {"value": environment}}, "resource_changes": changes}))

    def infra(self, *arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess:
        return run("infra.sh", *arguments, typed=typed, path=self.directory, cwd=self.directory, **{**self.environment, **environment})

    def at_a_terminal(self, *arguments: str, typed: str, **environment: str) -> tuple[int, str]:
        """The same with a terminal to type at; how it ended, and what it wrote to standard error."""
        ours, its = pty.openpty()
        process = subprocess.Popen(
            [ROOT / "scripts" / "infra.sh", *arguments],
            stdin=its,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env={"PATH": f"{self.directory}:{TOOLS}:{os.environ['PATH']}", **self.environment, **environment},
        )
        os.close(its)
        os.write(ours, typed.encode())
        _, errors = process.communicate(timeout=60)
        os.close(ours)
        return process.returncode, errors

    def calls(self) -> list[dict]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()] if self.calls_file.exists() else []

    def commands(self) -> list[str]:
        return [call["arguments"][1] for call in self.calls()]

    def call(self, command: str) -> dict:
        [call] = [call for call in self.calls() if call["arguments"][1] == command]
        return call


@pytest.fixture
def stub(tmp_path) -> Stub:
    return Stub(tmp_path)


GIVEN = {"TF_VAR_database_password": PASSWORD, "TF_VAR_database_app_password": APP_PASSWORD, "TF_VAR_bootstrap_key": KEY}


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing argument: ENVIRONMENT"),
        (["nowhere", "plan"], "unknown environment 'nowhere'; must be one of: production, staging"),
        (["staging"], "missing argument: COMMAND"),
        (["staging", "refresh"], "unknown command 'refresh'"),
        (["staging", "plan", "--force"], "unknown option '--force'"),
        (["staging", "plan", "--out"], "missing value for --out"),
        (["staging", "apply", "--out", "x"], "--out is an option of plan only"),
        (["staging", "plan", "--json"], "--json is an option of output only"),
        (["staging", "apply", "absent.plan"], "plan 'absent.plan' not found"),
        (["staging", "plan", "more"], "unexpected argument 'more'"),
        (["staging", "output", "a", "b"], "unexpected argument 'b'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(stub, arguments, message):
    result = stub.infra(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert stub.calls() == []


def test_a_variable_named_environment_is_not_an_argument(stub):
    assert stub.infra("plan", ENVIRONMENT="production").returncode == 2


def test_help_names_everything(stub):
    result = stub.infra("--help")
    assert result.returncode == 0
    for text in ("plan", "apply", "destroy", "output", "drift", "--yes", "--dry-run", "TF_VAR_database_password", "STATE_BUCKET", "Exit codes:"):
        assert text in result.stdout


def test_missing_terraform_is_reported(tmp_path):
    for tool in ("bash", "dirname", "basename", "mktemp", "rm", "jq"):
        (tmp_path / tool).symlink_to(next(path for path in (Path("/bin") / tool, Path("/usr/bin") / tool) if path.exists()))
    result = subprocess.run(
        ["bash", ROOT / "scripts" / "infra.sh", "staging", "plan"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 3
    assert "terraform" in result.stderr


# The backend


def test_it_initialises_with_the_backend_of_the_environment(stub):
    assert stub.infra("production", "plan").returncode == 0
    assert stub.call("init")["arguments"] == [
        f"-chdir={ROOT}/terraform",
        "init",
        "-input=false",
        "-reconfigure",
        "-backend-config=envs/production.s3.tfbackend",
    ]


def test_names_from_bootstrap_are_passed_on(stub, tmp_path):
    copy = tmp_path / "copy"
    (copy / "envs").mkdir(parents=True)
    (copy / "envs" / "staging.tfvars").touch()
    names = {"STATE_BUCKET": "acme", "LOCK_TABLE": "acme-locks", "STATE_REGION": "eu-west-1", "TERRAFORM_DIR": str(copy)}
    assert stub.infra("staging", "plan", **names).returncode == 0
    arguments = stub.call("init")["arguments"]
    assert arguments[0] == f"-chdir={copy}"
    assert arguments[-3:] == ["-backend-config=bucket=acme", "-backend-config=dynamodb_table=acme-locks", "-backend-config=region=eu-west-1"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, ("mine", "locks", "eu-west-1")), ({"STATE_BUCKET": "other", "STATE_REGION": "us-east-1"}, ("other", "locks", "us-east-1"))],
)
def test_the_role_for_pull_requests_may_read_the_state_where_it_is(stub, tmp_path, given, expected):
    copy = tmp_path / "copy"
    (copy / "envs").mkdir(parents=True)
    (copy / "envs" / "staging.tfvars").touch()
    backend = 'bucket         = "mine" # not "prop"\nkey            = "staging/terraform.tfstate"\n'
    (copy / "envs" / "staging.s3.tfbackend").write_text(backend + 'region         = "eu-west-1"\ndynamodb_table = "locks"\n')
    assert stub.infra("staging", "plan", TERRAFORM_DIR=str(copy), **given).returncode == 0
    call = stub.call("plan")
    assert (call["bucket"], call["table"], call["region"]) == expected


def test_it_stops_when_the_backend_is_not_there(stub):
    assert stub.infra("staging", "apply", "--yes", STUB_INIT="1", **GIVEN).returncode == 1
    assert stub.commands() == ["init"]


# Plan


@pytest.mark.parametrize("outcome", [NO_CHANGE, CHANGES])
def test_a_plan_ends_well_with_and_without_changes(stub, outcome):
    assert stub.infra("staging", "plan", STUB_PLAN=outcome).returncode == 0
    assert stub.commands() == ["init", "plan"]
    assert "-var-file=envs/staging.tfvars" in stub.call("plan")["arguments"]


def test_a_plan_that_fails_ends_with_1(stub):
    assert stub.infra("staging", "plan", STUB_PLAN="1").returncode == 1


def test_a_plan_is_kept_where_it_was_asked_for_and_takes_more_arguments(stub):
    result = stub.infra("staging", "plan", "--out", "kept.plan", "--", "-var", "min_tasks=2", STUB_PLAN=CHANGES)
    assert result.returncode == 0
    arguments = stub.call("plan")["arguments"]
    assert f"-out={stub.directory}/kept.plan" in arguments and arguments[-2:] == ["-var", "min_tasks=2"]
    assert f"scripts/infra.sh staging apply {stub.directory}/kept.plan" in result.stderr


def test_a_plan_wants_no_secrets(stub):
    assert stub.infra("staging", "plan").returncode == 0
    call = stub.call("plan")
    assert len(call["password"]) >= 16 and len(call["key"]) == len(KEY)


# Apply


def test_apply_plans_asks_and_does_what_was_shown(stub):
    stub.plan(TAG_CHANGES)
    assert stub.infra("staging", "apply", typed="yes\n", STUB_PLAN=CHANGES).returncode == 0
    assert [command for command in stub.commands() if command != "show"] == ["init", "plan", "apply"]
    [out] = [argument for argument in stub.call("plan")["arguments"] if argument.startswith("-out=")]
    assert stub.call("apply")["arguments"][-1] == out.removeprefix("-out=")
    assert not Path(out.removeprefix("-out=")).parent.exists(), "the plan was left behind"


@pytest.mark.parametrize("typed", ["no\n", "y\n", "staging\n", ""])
def test_apply_does_nothing_without_a_yes(stub, typed):
    stub.plan(TAG_CHANGES)
    result = stub.infra("staging", "apply", typed=typed, STUB_PLAN=CHANGES)
    assert result.returncode == 5
    assert "Nothing was changed" in result.stderr
    assert "apply" not in stub.commands()


def test_apply_asks_nothing_when_there_is_nothing_to_do(stub):
    assert stub.infra("staging", "apply", STUB_PLAN=NO_CHANGE).returncode == 0
    assert stub.commands() == ["init", "plan"]


def test_apply_with_yes_asks_nothing(stub):
    stub.plan(DATABASE_IS_NEW)
    assert stub.infra("staging", "apply", "--yes", STUB_PLAN=CHANGES, **GIVEN).returncode == 0
    call = stub.call("apply")
    assert (call["password"], call["app"], call["key"]) == (PASSWORD, APP_PASSWORD, KEY)


def test_apply_that_fails_ends_with_1(stub):
    stub.plan(TAG_CHANGES)
    assert stub.infra("staging", "apply", "--yes", STUB_PLAN=CHANGES, STUB_APPLY="1").returncode == 1


@pytest.mark.parametrize("changes", [DATABASE_IS_NEW, DATABASE_IS_MADE_ANEW, VERSION_IS_RAISED])
@pytest.mark.parametrize("arguments", [[], ["--yes"]])
def test_secrets_that_are_sent_are_wanted(stub, changes, arguments):
    stub.plan(changes)
    result = stub.infra("staging", "apply", *arguments, typed="yes\n", STUB_PLAN=CHANGES, TF_VAR_bootstrap_key=KEY)
    assert result.returncode == 3
    assert "TF_VAR_database_password is not set" in result.stderr
    assert "apply" not in stub.commands()


def test_a_webhook_secret_that_is_sent_is_wanted_and_no_other(stub):
    stub.plan(WEBHOOK_IS_NEW)
    refused = stub.infra("staging", "apply", "--yes", STUB_PLAN=CHANGES)
    assert refused.returncode == 3 and "TF_VAR_github_webhook_secret is not set" in refused.stderr
    assert stub.infra("staging", "apply", "--yes", STUB_PLAN=CHANGES, TF_VAR_github_webhook_secret=PASSWORD).returncode == 0
    assert stub.call("apply")["webhook"] == PASSWORD


def test_secrets_are_typed_unseen(stub):
    stub.plan(DATABASE_IS_NEW)
    code, errors = stub.at_a_terminal("staging", "apply", typed=f"{PASSWORD}\n{APP_PASSWORD}\n{KEY}\nyes\n", STUB_PLAN=CHANGES)
    assert code == 0, errors
    call = stub.call("apply")
    assert (call["password"], call["app"], call["key"]) == (PASSWORD, APP_PASSWORD, KEY)
    assert not [secret for secret in (PASSWORD, APP_PASSWORD, KEY) if secret in errors]


def test_no_secret_no_change(stub):
    stub.plan(DATABASE_IS_NEW)
    code, errors = stub.at_a_terminal("staging", "apply", typed="\n", STUB_PLAN=CHANGES)
    assert code == 5, errors
    assert "apply" not in stub.commands()


# Apply what was planned


def test_apply_does_exactly_what_a_file_says(stub):
    stub.plan(TAG_CHANGES)
    (stub.directory / "kept.plan").touch()
    assert stub.infra("staging", "apply", "kept.plan").returncode == 0
    assert "plan" not in stub.commands()
    assert stub.call("apply")["arguments"][1:] == ["apply", "-input=false", f"{stub.directory}/kept.plan"]


def test_a_plan_of_another_environment_is_refused(stub):
    stub.plan(TAG_CHANGES, environment="staging")
    (stub.directory / "kept.plan").touch()
    result = stub.infra("production", "apply", "kept.plan")
    assert result.returncode == 2
    assert "a plan for staging, not for production" in result.stderr
    assert "apply" not in stub.commands()


def test_what_is_no_plan_is_refused(stub):
    stub.show.write_text("not JSON")
    (stub.directory / "kept.plan").touch()
    assert stub.infra("staging", "apply", "kept.plan").returncode == 1
    assert "apply" not in stub.commands()


def test_a_file_too_wants_the_secrets_that_it_sends(stub):
    stub.plan(DATABASE_IS_NEW)
    (stub.directory / "kept.plan").touch()
    assert stub.infra("staging", "apply", "kept.plan").returncode == 3
    assert stub.infra("staging", "apply", "kept.plan", **GIVEN).returncode == 0


# Destroy


def test_destroying_production_wants_its_name(stub):
    stub.plan(ALL_GOES, environment="production")
    result = stub.infra("production", "destroy", typed="production\n", STUB_PLAN=CHANGES)
    assert result.returncode == 0, result.stderr
    assert "-destroy" in stub.call("plan")["arguments"]
    assert "apply" in stub.commands()
    assert "deletion_protection = false" in result.stderr and "snapshot" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--yes"]])
@pytest.mark.parametrize("typed", ["", "yes\n", "prod\n", "staging\n", "Production\n"])
def test_nothing_else_destroys_production(stub, arguments, typed):
    stub.plan(ALL_GOES, environment="production")
    assert stub.infra("production", "destroy", *arguments, typed=typed, STUB_PLAN=CHANGES).returncode == 5
    assert "apply" not in stub.commands()


def test_destroying_staging_asks_too_unless_yes_is_given(stub):
    result = stub.infra("staging", "destroy", typed="yes\n", STUB_PLAN=CHANGES)
    assert result.returncode == 5
    assert "image repository" in result.stderr, "no word of what production loses"
    assert "apply" not in stub.commands()
    assert stub.infra("staging", "destroy", typed="staging\n", STUB_PLAN=CHANGES).returncode == 0
    assert stub.infra("staging", "destroy", "--yes", STUB_PLAN=CHANGES).returncode == 0
    assert stub.commands().count("apply") == 2


def test_destroying_what_is_gone_asks_nothing(stub):
    assert stub.infra("production", "destroy", STUB_PLAN=NO_CHANGE).returncode == 0
    assert "apply" not in stub.commands()


# Output and drift


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], ["output"]),
        (["alb_url"], ["output", "-raw", "alb_url"]),
        (["--json"], ["output", "-json"]),
        (["repository_url", "--json"], ["output", "-json", "repository_url"]),
    ],
)
def test_outputs_alone_go_to_standard_output(stub, arguments, passed):
    result = stub.infra("staging", "output", *arguments)
    assert (result.returncode, result.stdout) == (0, "value\n")
    assert stub.call("output")["arguments"][1:] == passed


@pytest.mark.parametrize(("outcome", "code"), [(NO_CHANGE, 0), (CHANGES, 4), ("1", 1)])
def test_drift_has_an_exit_code_of_its_own(stub, outcome, code):
    assert stub.infra("staging", "drift", STUB_PLAN=outcome).returncode == code
    assert "-lock=false" in stub.call("plan")["arguments"]


# Dry run


@pytest.mark.parametrize("command", ["plan", "apply", "destroy", "output", "drift"])
@pytest.mark.parametrize("environment", ["staging", "production"])
def test_a_dry_run_prints_the_commands_and_runs_none(stub, environment, command):
    result = stub.infra(environment, command, "--dry-run", **GIVEN)
    assert result.returncode == 0, result.stderr
    assert f"would run: terraform -chdir={ROOT}/terraform init -input=false -reconfigure" in result.stderr
    assert stub.calls() == []
    assert PASSWORD not in result.stderr and KEY not in result.stderr
