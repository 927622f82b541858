"""docs/permissions.md: which script calls what in AWS, which action that needs, and which statement allows it.

What a script calls by the AWS CLI is read from its text, function by function, so that failures are in it which no test can
bring about in the stand-in. What Terraform calls is what the stand-in has noted. test_iam_stack.py compares both with the file.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from botocore.session import get_session

import iam
from identities import DEPLOYING
from prop import ROOT

FILE = ROOT / "docs" / "permissions.md"
SCRIPTS = ROOT / "scripts"
APPLYING = {"bootstrap.sh", "db.sh"}
# The session of a plan with the role for pull requests.
PULL_REQUEST = "infra.sh-plan-of-a-pull-request"
# The sessions in which Terraform calls AWS.
TERRAFORM = [PULL_REQUEST, "infra.sh-plan", "infra.sh-apply", "infra.sh-destroy"]
# A command of the CLI, or words that become one.
CALL = re.compile(r"(?:\b(?:aws|aws_json|aws_change) +|arguments=\()([a-z0-9-]+) +(wait|[a-z]+-[a-z-]+)(?: +([a-z-]+))?")
# Commands of the CLI that are named otherwise than what they call.
COMMANDS = {
    ("ecr", "get-login-password"): "GetAuthorizationToken",
    ("dynamodb", "wait table-exists"): "DescribeTable",
}
# What docker calls: https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html
BY_DOCKER = {
    "build.sh": ["ecr:BatchCheckLayerAvailability", "ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart"],
    "scan.sh": ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer"],
}


def functions(path: Path) -> dict[str, str]:
    """The functions of a script by name, and what stands outside of them under ''. Without comments and what is printed."""
    text = re.sub(r"^\s*#.*$|^.*\b(?:info|detail) .*\baws .*$", "", path.read_text(), flags=re.M)
    text = re.sub(r"<<'?END'?\n.*?^END$", "", text, flags=re.M | re.S)
    found = dict(re.findall(r"^(\w+)\(\) \{\n(.*?)^\}$", text, re.M | re.S)) | dict(re.findall(r"^(\w+)\(\) \{ (.*) \}$", text, re.M))
    found[""] = re.sub(r"^\w+\(\) \{\n.*?^\}$|^\w+\(\) \{ .* \}$", "", text, flags=re.M | re.S)
    return found


@cache
def commands_of(script: str) -> frozenset[tuple[str, str]]:
    """The commands of the AWS CLI that a script can come to: service and operation, as the CLI names them."""
    path = SCRIPTS / script
    known: dict[str, str] = {}
    for library in re.findall(r'^source "\$\(dirname "\$0"\)/(lib/\w+\.sh)"$', path.read_text(), re.M):
        known |= {name: body for name, body in functions(SCRIPTS / library).items() if name}
    known |= functions(path)
    reached, waiting = set(), ["", *(functions(path) if script == "db.sh" else [])]  # db.sh calls what its argument names
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [word for word in re.findall(r"\w+", known[name]) if word in known]
    text = "\n".join(known[name] for name in reached).replace("\\\n", " ")
    found = {(service, f"wait {third}" if verb == "wait" else verb) for service, verb, third in CALL.findall(text)}
    for other in re.findall(r'exec "\$\(dirname "\$0"\)/([\w-]+\.sh)"', text):
        found |= commands_of(other)
    return frozenset(found)


@cache
def operations(service: str) -> dict[str, str]:
    """The operations of a service, by the names that the CLI gives them."""
    from botocore import xform_name

    model = get_session().get_service_model(service)
    return {xform_name(name, "-"): name for name in model.operation_names}


def call_of(service: str, command: str) -> str:
    """The operation that a command calls, as policies write it."""
    service = {"s3api": "s3"}.get(service, service)
    operation = COMMANDS.get((service, command)) or operations(service)[command]
    prefix = {"elbv2": "elasticloadbalancing"}.get(service, service)
    return f"{prefix}:{operation}"


def actions_of(call: str) -> list[str]:
    """The actions that a call needs, as far as its name says."""
    if call == "sts:GetCallerIdentity":
        return []
    action = iam.ACTIONS.get(call, call)
    also = {
        "ecs:RegisterTaskDefinition": ["ecs:TagResource", "iam:PassRole"], "ecs:RunTask": ["iam:PassRole"],
        "dynamodb:CreateTable": ["dynamodb:TagResource"],
    }  # fmt: skip
    return [action, *also.get(call, [])]


def called_by(script: str) -> dict[str, list[str]]:
    """What a script can call: the actions by call."""
    calls = [call_of(*command) for command in commands_of(script)] + BY_DOCKER.get(script, [])
    return {call: actions_of(call) for call in sorted(calls)}


def noted(calls: Path) -> dict[str, dict[str, list[str]]]:
    """What the stand-in has noted and allowed: by session, the actions by call."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in map(json.loads, calls.read_text().splitlines()):
        if not line["refused"]:
            known = found.setdefault(line["by"], {}).setdefault(line["call"], [])
            known += [action for action, _, _ in line["needs"] if action not in known]
    return found


def statement_of(policies: list[Any], action: str) -> str:
    """The statement that is about an action."""
    for policy in policies:
        for statement in iam.statements(policy):
            if any(iam.matches(pattern, action, ignore_case=True) for pattern in iam.listed(statement["Action"])):
                return statement["Sid"]
    return "none"


def rows(script: str, calls: dict[str, list[str]], policies: list[Any]) -> list[str]:
    """A row of the table for each statement that a script needs."""
    by_statement: dict[str, list[str]] = {}
    for call, actions in sorted(calls.items()):
        for action in actions:
            text = f"`{call}`" if action == call else f"`{call}` → `{action}`"
            texts = by_statement.setdefault(statement_of(policies, action), [])
            texts += [text] if text not in texts else []
    script = script.replace("-", " ") if script in TERRAFORM else script
    return [f"| `{script}` | {sid} | {', '.join(texts)} |" for sid, texts in sorted(by_statement.items())]


HEAD = """\
# Permissions

Who needs what in AWS: each script, the calls that it makes, the action that each call needs (named
after the arrow where it is another), and the statement that allows it. Calls that a script makes
only when something fails are listed too.

This file is made by `tests/infra/permissions.py` from the scripts and from what the tests have seen
Terraform call; a test keeps it current. To make it anew, run the tests of the stack with
`UPDATE_PERMISSIONS=1`.

What is checked, and against what:

- Every policy of `terraform/` and the one below: each action, type of resource and condition key is
  in AWS's [Service Authorization Reference](https://docs.aws.amazon.com/service-authorization/latest/reference/).
- The scripts and Terraform run on the stand-in for AWS with these roles, which follows actions,
  resources and conditions. What one role may do, the others are refused.
- Not checked: endpoint policies, service control policies, and the resource of a call whose request
  does not name it.

"""


def document(deploy: list[Any], plan: list[Any], applier: list[Any], terraform: dict[str, dict[str, list[str]]]) -> str:
    """The whole file."""
    table = ["| script | statement | calls |", "|---|---|---|"]
    deploying = [row for script in sorted({*DEPLOYING, *BY_DOCKER}) for row in rows(script, called_by(script), deploy)]
    planning = rows(PULL_REQUEST, terraform.get(PULL_REQUEST, {}), plan)
    applying = [row for script in sorted(APPLYING) for row in rows(script, called_by(script), applier)]
    applying += [row for session, calls in sorted(terraform.items()) if session != PULL_REQUEST for row in rows(session, calls, applier)]
    parts = [
        ("The deploy role", "`prop-deploy-ENVIRONMENT` in `terraform/iam_github.tf`: a job of the pipeline that deploys.", deploying),
        ("The plan role", "`prop-plan` in `terraform/iam_github.tf`: a job of a pull request, with `-refresh=false -lock=false`.", planning),
        ("Whoever applies", "The policy that `scripts/bootstrap.sh --print-policy` prints.", applying),
    ]
    return HEAD + "\n\n".join("\n".join([f"## {title}", "", about, "", *table, *body]) for title, about, body in parts) + "\n"
