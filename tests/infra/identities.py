"""Who runs what in the stand-in for AWS: each script has the role that it has in an account, and a session of its own name."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import boto3

from scripts import run

REGION = "ap-south-1"
ACCOUNT = "123456789012"  # moto's
APPLIER = "applier"
# What the pipeline runs with the deploy role of an environment. All else is for whoever applies.
DEPLOYING = {"build.sh", "deploy.sh", "rollback.sh", "run-task.sh", "status.sh", "logs.sh"}
# Tools of the tests themselves.
OF_ROOT = {"aws"}


def client(url: str, service: str) -> Any:
    """A client of the account's root user."""
    return boto3.client(service, region_name=REGION, endpoint_url=url, aws_access_key_id="nobody", aws_secret_access_key="nothing")


def applier_policy(**environment: str) -> dict[str, Any]:
    """The policy that bootstrap.sh prints, for an account."""
    printed = run("bootstrap.sh", "--print-policy", **environment)
    assert printed.returncode == 0, printed.stderr
    return json.loads(printed.stdout)


def enforce_access(url: str) -> None:
    """Makes a role for whoever applies, and from now on lets nobody do what no policy allows."""
    policy = applier_policy(AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="nothing")
    make_role(url, APPLIER, policy)
    # https://docs.getmoto.org/en/latest/docs/iam.html
    headers = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", data=b"0", headers=headers)).close()


def make_role(url: str, name: str, policy: dict[str, Any]) -> None:
    iam = client(url, "iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}))
    iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=json.dumps(policy))


def credentials(url: str, environment: str, *command: str | Path) -> dict[str, str]:
    """The credentials with which a command is run in an environment."""
    script = Path(command[0])
    if script.name in OF_ROOT:
        return {}
    session = script.name
    if script.name == "infra.sh":
        session += f"-{command[2]}"
    return assume(url, f"prop-deploy-{environment}" if script.name in DEPLOYING else APPLIER, session)


def assume(url: str, role: str, session: str) -> dict[str, str]:
    """A session of a role."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    key = client(url, "sts").assume_role(RoleArn=arn, RoleSessionName=session)["Credentials"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"], "AWS_SESSION_TOKEN": key["SessionToken"]}
