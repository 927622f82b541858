"""Access control on staging as Terraform applied it: each script with the role that it has, and with those that it has not.

Everything that other tests of the stack run is run with these roles too (identities.py), so that a missing permission fails there.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import iam
import permissions
from identities import APPLIER, DEPLOYING, applier_policy, assume, client, make_role
from permissions import FILE, PULL_REQUEST
from plans import Plan
from prop import ROOT
from stack import Stack, TERRAFORM

# What moto's IAM can't tell us about: types of resources that only a variable brings, which the printed policy leaves out.
EXTRAS = {
    "aws_backup_plan", "aws_backup_selection", "aws_backup_vault", "aws_iam_role_policy_attachment", "aws_kms_alias", "aws_kms_key",
    "aws_wafv2_web_acl", "aws_wafv2_web_acl_association",
}  # fmt: skip


@pytest.fixture(scope="session")
def policies(staging_plan: dict[str, Any], aws_url: str) -> dict[str, list[Any]]:
    """The policies of the three roles."""
    plan = Plan(staging_plan)
    printed = applier_policy(AWS_ENDPOINT_URL=aws_url, AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="nothing")
    return {name: [plan[f"aws_iam_role_policy.{name}[0]"]["policy"]] for name in ("deploy", "plan")} | {APPLIER: [printed]}


def documents(resources: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every policy of resources, by address and attribute."""
    for address, values in resources.items():
        for attribute in ("policy", "assume_role_policy"):
            # A lifecycle is no policy of access, and a topic's own is AWS's default.
            if values.get(attribute) and not address.startswith(("aws_ecr_lifecycle_policy", "aws_sns_topic.")):
                yield f"{address}.{attribute}", json.loads(values[attribute])


def test_every_policy_is_of_actions_that_exist_and_go_with_their_resources(stack: Stack, production_plan: dict[str, Any]):
    planned = {change["address"]: change["change"]["after"] for change in Plan(production_plan).changes}
    found = [*documents(stack.state()), *documents(planned)]
    assert len(found) > 10
    for name, document in found:
        if name.endswith("assume_role_policy"):  # its resource is the role
            document["Statement"] = [statement | {"Resource": "*"} for statement in document["Statement"]]
        assert iam.faults(document) == [], name


def test_a_pull_request_plans_with_its_role(stack: Stack):
    stack.infra("plan", "--", "-refresh=false", "-lock=false", **assume(stack.url, "prop-plan", PULL_REQUEST))


@pytest.fixture(scope="module")
def nobody(stack: Stack) -> dict[str, str]:
    """A role with no policy but one that allows nothing of use."""
    nothing = {"Sid": "Nothing", "Effect": "Allow", "Action": "sts:TagSession", "Resource": "*"}
    make_role(stack.url, "nobody", {"Version": "2012-10-17", "Statement": [nothing]})
    return assume(stack.url, "nobody", "nobody")


CHANGING = [
    ("deploy.sh", ["1.0.0"]), ("rollback.sh", []), ("run-task.sh", ["--", "key", "list"]), ("db.sh", ["stop"]), ("db.sh", ["start"]),
    ("db.sh", ["snapshot"]), ("db.sh", ["restore"]), ("db.sh", ["adopt"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("role", "script", "arguments"), [*(("prop-plan", *run) for run in CHANGING), *(("nobody", *run) for run in (CHANGING[0], CHANGING[3]))]
)
def test_nobody_else_runs_them(stack: Stack, nobody: dict[str, str], calls: Path, role: str, script: str, arguments: list[str]):
    session = f"{role}-as-{script}"
    done = stack.run(ROOT / "scripts" / script, "staging", *arguments, succeeds=False, **assume(stack.url, role, session))
    assert done.returncode == 3, done.stderr
    assert "AWS denies " in done.stderr
    made = [line for line in map(json.loads, calls.read_text().splitlines()) if line["by"] == session]
    allowed = [line["call"] for line in made if not line["refused"]]
    assert all(call.split(":")[1].startswith(("Describe", "Get", "List")) for call in allowed), allowed


@pytest.mark.parametrize("command", [["bootstrap.sh"], ["db.sh", "staging", "snapshot"], ["infra.sh", "staging", "plan"]])
def test_a_deployment_does_not_do_what_whoever_applies_does(stack: Stack, command: list[str]):
    script, *arguments = command
    session = assume(stack.url, "prop-deploy-staging", f"deploying-{script}")
    done = stack.run(ROOT / "scripts" / script, *arguments, succeeds=False, **session)
    assert done.returncode in (1, 3, 4), done.stderr
    assert any(word in done.stderr for word in ("denies", "denied", "403", "Forbidden")), done.stderr
    assert client(stack.url, "rds").describe_db_instances(DBInstanceIdentifier="prop-db-staging")["DBInstances"][0]["DBInstanceStatus"] == "available"


def test_every_call_of_the_scripts_is_allowed_to_their_role(policies: dict[str, list[Any]]):
    for script in (*DEPLOYING, *permissions.BY_DOCKER):
        for call, actions in permissions.called_by(script).items():
            assert "none" not in [permissions.statement_of(policies["deploy"], action) for action in actions], f"{script} calls {call}"
    for script in permissions.APPLYING:
        for call, actions in permissions.called_by(script).items():
            assert "none" not in [permissions.statement_of(policies[APPLIER], action) for action in actions], f"{script} calls {call}"


def test_nothing_is_allowed_to_a_deployment_that_no_script_calls(policies: dict[str, list[Any]]):
    needed = {action for script in (*DEPLOYING, *permissions.BY_DOCKER) for actions in permissions.called_by(script).values() for action in actions}
    allowed = {action for statement in iam.statements(policies["deploy"][0]) for action in iam.listed(statement["Action"])}
    # run-task.sh says how to stop the task when it is interrupted.
    assert allowed - needed == {"ecs:StopTask"}


def test_the_printed_policy_is_for_every_type_of_resource_there_is(stack: Stack):
    types = {line.split('"')[1] for path in TERRAFORM.glob("*.tf") for line in path.read_text().splitlines() if line.startswith("resource ")}
    applied = {address.split(".")[0] for address in stack.state()}
    assert types - applied - OPTIONAL == EXTRAS


# Made by a variable, with actions that the printed policy allows by name: these are Create and Delete of one more of what there is.
OPTIONAL = {
    "aws_s3_bucket", "aws_s3_bucket_lifecycle_configuration", "aws_s3_bucket_policy", "aws_s3_bucket_public_access_block",
    "aws_s3_bucket_server_side_encryption_configuration",
}  # fmt: skip


@pytest.mark.last
def test_the_table_of_permissions_is_current(calls: Path, policies: dict[str, list[Any]]):
    """The last of all: by now the scripts and Terraform have called what they call."""
    noted = permissions.noted(calls)
    refused = [line for line in map(json.loads, calls.read_text().splitlines()) if line["refused"] and "-as-" not in line["by"]]
    assert [(line["by"], line["refused"]) for line in refused if not line["by"].startswith("deploying-")] == []
    # What the scripts called by the CLI stands in their text.
    for script in DEPLOYING | permissions.APPLYING:
        known = {action for actions in permissions.called_by(script).values() for action in actions}
        called = {action for actions in noted.get(script, {}).values() for action in actions}
        if script == "db.sh":  # adopt runs Terraform in its session
            called -= {action for session in permissions.TERRAFORM for actions in noted.get(session, {}).values() for action in actions}
        assert called <= known, script
    terraform = {session: noted[session] for session in permissions.TERRAFORM if session in noted}
    text = permissions.document(policies["deploy"], policies["plan"], policies[APPLIER], terraform)
    if os.environ.get("UPDATE_PERMISSIONS"):
        FILE.write_text(text)
    if set(terraform) == set(permissions.TERRAFORM):  # else only some of the tests were run
        assert FILE.read_text() == text
