"""The policies, by AWS's own list of actions; what it is read with; and the policy of whoever applies, as bootstrap.sh prints it."""

import json

import pytest

import iam
from identities import applier_policy
from iam import Need, allowing, faults, needs_of, overlap
from permissions import APPLYING, DEPLOYING, called_by
from scripts import run

REGION, ACCOUNT = "ap-south-1", "123456789012"
SERVICE = f"arn:aws:ecs:{REGION}:{ACCOUNT}:service/prop-ecs-cluster/prop-backend-service"
FAMILY = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/prop-backend"


def policy(*actions: str, resource: str = "*", effect: str = "Allow", **condition: dict) -> dict:
    statement = {"Sid": "S", "Effect": effect, "Action": list(actions), "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [statement | ({"Condition": condition} if condition else {})]}


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (policy("ecs:RestartService"), "there is no action ecs:RestartService"),
        (policy("ecs:UpdateService", resource=FAMILY), "ecs:UpdateService takes none of"),
        (policy("ecs:DeregisterTaskDefinition", resource=FAMILY), "ecs:DeregisterTaskDefinition takes no resource"),
        (policy("ecs:RunTask", ArnEquals={"ecs:clustre": "x"}), "ecs:RunTask has no condition key ecs:clustre"),
        (policy("rds:StopDBInstance", StringEquals={"ecs:cluster": "x"}), "rds:StopDBInstance has no condition key ecs:cluster"),
    ],
)
def test_what_is_wrong_with_a_policy_is_found(wrong, fault):
    [found] = faults(wrong)
    assert fault in found


def test_what_is_right_is_not_found_wrong():
    assert faults(policy("ecs:UpdateService", resource=SERVICE)) == []
    assert faults(policy("ecs:RegisterTaskDefinition", resource=f"{FAMILY}:*")) == []
    assert faults(policy("ecs:ListTasks", ArnEquals={"ecs:cluster": "x"}, StringEquals={"aws:RequestedRegion": REGION})) == []


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("a*c", "*bc", True), ("a*", "b*", False), ("*", "", True), ("", "a", False), ("*x", "*", True), ("a?c", "abc", True),
        ("a*d", "*c", False), ("ecs:*/prop-*", "ecs:cluster/*", True),
    ],
)  # fmt: skip
def test_patterns_that_a_text_can_match_both(one, other, both):
    assert overlap(one, other) is overlap(other, one) is both


def test_a_policy_allows_its_actions_on_its_resources_under_its_conditions_and_no_more():
    passing = policy("iam:PassRole", resource="arn:aws:iam::1:role/prop-*", StringEquals={"iam:PassedToService": ["ecs-tasks.amazonaws.com"]})
    to_tasks = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    assert allowing([passing], Need("iam:PassRole", ["arn:aws:iam::1:role/prop-task"], to_tasks))
    assert not allowing([passing], Need("iam:PassRole", ["arn:aws:iam::1:role/prop-task"], {"iam:PassedToService": "ec2.amazonaws.com"}))
    assert not allowing([passing], Need("iam:PassRole", ["arn:aws:iam::1:role/prop-task"]))
    assert not allowing([passing], Need("iam:PassRole", ["arn:aws:iam::1:role/prop-task", "arn:aws:iam::1:role/admin"], to_tasks))
    assert not allowing([passing], Need("iam:GetRole", ["arn:aws:iam::1:role/prop-task"], to_tasks))
    denied = policy("iam:*", effect="Deny")
    assert not allowing([passing, denied], Need("iam:PassRole", ["arn:aws:iam::1:role/prop-task"], to_tasks))


@pytest.mark.parametrize(
    ("service", "operation", "request_", "needed"),
    [
        ("ecs", "UpdateService", {"cluster": "prop-ecs-cluster", "service": "prop-backend-service"}, [("ecs:UpdateService", [SERVICE])]),
        (
            "ecs", "RegisterTaskDefinition", {"family": "prop-backend", "taskRoleArn": "arn:aws:iam::1:role/t", "tags": [{"key": "a"}]},
            [("ecs:RegisterTaskDefinition", [f"{FAMILY}:*"]), ("ecs:TagResource", [f"{FAMILY}:*"]), ("iam:PassRole", ["arn:aws:iam::1:role/t"])],
        ),
        ("ecs", "DeregisterTaskDefinition", {"taskDefinition": f"{FAMILY}:3"}, [("ecs:DeregisterTaskDefinition", ["*"])]),
        ("rds", "StopDBInstance", {"DBInstanceIdentifier": "prop-db"}, [("rds:StopDBInstance", [f"arn:aws:rds:{REGION}:{ACCOUNT}:db:prop-db"])]),
        ("s3", "GetObject", {"Bucket": "b", "Key": "staging/x"}, [("s3:GetObject", ["arn:aws:s3:::b/staging/x"])]),
        ("monitoring", "DescribeAlarms", {}, [("cloudwatch:DescribeAlarms", None)]),
        ("sts", "GetCallerIdentity", {}, []),
    ],
)  # fmt: skip
def test_what_a_call_needs(service, operation, request_, needed):
    assert [(need.action, need.resources) for need in needs_of(service, operation, request_, REGION, ACCOUNT)] == needed


def test_who_starts_tasks_is_asked_for_the_cluster():
    [need] = needs_of("ecs", "ListTasks", {"cluster": "prop-ecs-cluster"}, REGION, ACCOUNT)
    assert need.context["ecs:cluster"] == f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/prop-ecs-cluster"


def test_every_call_of_the_scripts_is_an_action_that_exists():
    for script in DEPLOYING | APPLYING:
        assert called_by(script), script
        for actions in called_by(script).values():
            assert all(iam.action_data(action) for action in actions), actions
    # Calls of failures, of another script, and by words in an array.
    assert {"ecs:DeregisterTaskDefinition", "logs:GetLogEvents"} <= called_by("rollback.sh").keys()
    assert "rds:RestoreDBInstanceToPointInTime" in called_by("db.sh") and "ecs:RunTask" not in called_by("status.sh")


# --- The policy that bootstrap.sh prints


@pytest.fixture(scope="module")
def printed(aws_url) -> dict:
    keys = {"AWS_ENDPOINT_URL": aws_url, "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
    return applier_policy(AWS_REGION="eu-west-1", STATE_REGION="eu-central-1", STATE_BUCKET="acme-state", LOCK_TABLE="acme-locks", **keys)


def test_the_printed_policy_is_of_actions_that_exist_and_go_with_their_resources(printed):
    assert faults(printed) == []


def test_the_printed_policy_fits_a_managed_policy(printed):
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: white space does not count
    assert len(json.dumps(printed, separators=(",", ":"))) <= 6144


def test_the_printed_policy_has_the_names_that_were_set(printed):
    text = json.dumps(printed)
    assert "$" not in text
    for name in ("arn:aws:s3:::acme-state", f"dynamodb:eu-central-1:{ACCOUNT}:table/acme-locks", f"rds:eu-west-1:{ACCOUNT}:*:prop-*"):
        assert name in text


def test_the_printed_policy_lets_nobody_touch_what_is_not_of_this_stack(printed):
    for statement in iam.statements(printed):
        for action in iam.listed(statement["Action"]):
            service, _, name = action.partition(":")
            assert service != "*" and name != "*", action
            writes = not name.startswith(("Describe", "Get", "List"))
            assert not writes or statement["Resource"] != "*" or "Condition" in statement, action
    role = Need("iam:PutRolePolicy", [f"arn:aws:iam::{ACCOUNT}:role/admin"])
    assert not allowing([printed], role)
    assert not allowing([printed], Need("iam:PassRole", [f"arn:aws:iam::{ACCOUNT}:role/prop-task"], {"iam:PassedToService": "ec2.amazonaws.com"}))
    assert not allowing([printed], Need("secretsmanager:GetSecretValue", [f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:other-AbCdEf"]))


def test_to_print_a_policy_changes_nothing_and_needs_an_account(tmp_path, aws_url):
    printed = run("bootstrap.sh", "--print-policy", HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true", AWS_ENDPOINT_URL=aws_url)
    assert printed.returncode == 3
    assert printed.stdout == "" and "Cannot identify the AWS account" in printed.stderr
