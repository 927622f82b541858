"""The scripts with version 2 of the AWS CLI, beside version 1 that the other tests run: output, exit codes and pager.

What differs between the two: https://docs.aws.amazon.com/cli/latest/userguide/cliv2-migration-changes.html
"""

import json
import os
import pty
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prop import ROOT
from stack import Stack
from test_bootstrap import Account
from test_build import Workplace, bare, place, tag_of  # noqa: F401 (fixtures)
from test_deploy_stack import app, push, recorder, run  # noqa: F401 (fixtures)

# Up to 2.12, the CLI does not know AWS_ENDPOINT_URL.
WRAPPER = """#!/bin/sh
exec {program} ${{AWS_ENDPOINT_URL:+--endpoint-url "$AWS_ENDPOINT_URL"}} "$@"
"""


def version_2() -> str | None:
    """An AWS CLI of version 2 on this machine."""
    for directory in [*os.environ["PATH"].split(":"), "/usr/bin", "/usr/local/bin"]:
        if (program := shutil.which("aws", path=directory)) and Path(program).name == "aws":
            version = subprocess.run([program, "--version"], capture_output=True, text=True)
            if version.stdout.startswith("aws-cli/2."):
                return program
    return None


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which version 2 comes first."""
    program = version_2()
    if not program:
        pytest.skip("there is no AWS CLI of version 2")
    directory = tmp_path_factory.mktemp("aws-cli-2")
    (directory / "aws").write_text(WRAPPER.format(program=program))
    (directory / "aws").chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


# --- What needs no stack


@pytest.fixture
def names(aws_url: str) -> Iterator[dict[str, str]]:
    unique = uuid.uuid4().hex[:12]
    yield {"STATE_BUCKET": f"state-{unique}", "LOCK_TABLE": f"locks-{unique}"}


def test_bootstrap(path: str, aws_url: str, names: dict[str, str]):
    account = Account(aws_url, key="nobody")
    keys = {**account.environment, **names, "PATH": path}
    for _ in range(2):
        done = subprocess.run([ROOT / "scripts" / "bootstrap.sh"], env=keys, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert account.s3.get_bucket_versioning(Bucket=names["STATE_BUCKET"])["Status"] == "Enabled"
    [statement] = account.policy(names["STATE_BUCKET"])
    assert statement["Sid"] == "TLSOnly"
    assert names["LOCK_TABLE"] in account.tables()
    # The version of Debian 12 is older than a table's protection.
    protected = account.dynamodb.describe_table(TableName=names["LOCK_TABLE"])["Table"].get("DeletionProtectionEnabled", False)
    assert protected is not ("too old to protect" in done.stderr)
    wrong = subprocess.run([ROOT / "scripts" / "bootstrap.sh"], env={**keys, "STATE_BUCKET": "Prop_State"}, capture_output=True, text=True)
    assert wrong.returncode == 2


def test_no_pager_is_started_at_a_terminal(path: str, aws_url: str, names: dict[str, str], tmp_path: Path):
    """Version 2 pipes what it prints to a terminal through a pager:
    https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-pagination.html"""
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ntouch {tmp_path}/paged\ncat\n")
    pager.chmod(0o755)
    keys = {**Account(aws_url, key="nobody").environment, **names, "PATH": path, "PAGER": str(pager), "AWS_PAGER": str(pager), "TERM": "xterm"}
    ours, its = pty.openpty()
    done = subprocess.run([ROOT / "scripts" / "bootstrap.sh"], env=keys, stdin=its, stdout=its, stderr=subprocess.PIPE, text=True)
    os.close(its)
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "paged").exists()


def test_build(path: str, place: Workplace):  # noqa: F811
    version_2_first = f"{place.directory}/bin:{path}"
    digest = place.built(PATH=version_2_first)
    assert digest == place.images()[tag_of(place)]
    assert place.built("1.2.3", PATH=version_2_first) == digest
    assert place.images()["1.2.3"] == digest


# --- On staging, as Terraform applied it


@pytest.fixture
def both(run: Any, path: str) -> Any:  # noqa: F811
    """Runs a script with either version, and returns the two when they have ended."""

    def both(*command: str, succeeds: bool = True, **variables: str) -> list[subprocess.CompletedProcess]:
        return [run(*command, succeeds=succeeds, TZ="UTC", **variables), run(*command, succeeds=succeeds, TZ="UTC", PATH=path, **variables)]

    return both


def test_deploy(stack: Stack, run: Any, path: str):  # noqa: F811
    push(stack, "c" * 64, "2.0.0", f"0.1.0-{'2' * 12}")
    deployed = json.loads(run("deploy.sh", "staging", "2.0.0", "--migrate-first", "--wake", "--json", PATH=path).stdout)
    assert deployed["outcome"] == "succeeded"


def test_status(both: Any):
    one, two = (json.loads(done.stdout) for done in both("status.sh", "staging", "--json"))
    assert one["since"][:19] == two["since"][:19] and one["since"].startswith("20")
    assert {**one, "since": "", "events": []} == {**two, "since": "", "events": []}


def test_logs(stack: Stack, both: Any):
    one, two = (done.stdout for done in both("logs.sh", "staging", "--since", "1d", "--timestamps"))
    assert one == two


def test_a_task(both: Any):
    for done in both("run-task.sh", "staging", "--", "key", "list"):
        assert "The task exited with code 0." in done.stderr


def test_the_database(both: Any):
    one, two = (json.loads(done.stdout) for done in both("db.sh", "staging", "snapshot", "--json"))
    assert one.keys() == two.keys() and one["at"][:16].startswith("20") and two["at"].startswith("20")
    for done in both("db.sh", "staging", "restore", "--dry-run"):
        assert "would run: aws rds restore-db-instance-to-point-in-time" in done.stderr


@pytest.mark.parametrize(
    "command",
    [["deploy.sh", "staging", "9.9.9"], ["rollback.sh", "staging", "9.9.9"], ["run-task.sh", "staging", "--image", "9.9.9", "--", "version"]],
)
def test_what_is_not_there_ends_alike(both: Any, command: list[str]):
    one, two = both(*command, succeeds=False)
    assert one.returncode == two.returncode == 3, two.stderr
    assert one.stderr == two.stderr
