"""scripts/nightly-account.sh with stubs of AWS, docker and the scripts that it runs: in which order, and how it ends.

The scripts themselves are run against a stand-in for AWS by the other tests. No account has run this one yet.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from prop import ROOT

ACCOUNT = "123456789012"
GOOD = "sha256:" + "a" * 64
SIBLINGS = ("bootstrap.sh", "build.sh", "db.sh", "deploy.sh", "infra.sh", "smoke.sh")
# Each notes what it was called with, and ends as the test says: FAILS is a part of its words and an exit code.
SIBLING = """#!/usr/bin/env bash
echo "${0##*/} $*" >>"$STUB/calls"
while read -r code words; do
    [[ "${0##*/} $*" != *"$words"* ]] || exit "$code"
done <"$STUB/fails"
case "${0##*/} $*" in
    build.sh*) echo "$DIGEST" ;;
    "infra.sh staging output"*) echo http://alb.example.org ;;
    "deploy.sh staging bad-"*) exit 6 ;;
    "db.sh staging restore"*)
        printf '  %s\\n' 'scripts/db.sh staging snapshot   # keeps' 'aws rds modify-db-instance --renamed' 'scripts/db.sh staging adopt' >&2 ;;
    *slowly*) sleep 30 ;;
esac
"""
AWS = """#!/usr/bin/env bash
echo "aws $*" >>"$STUB/calls"
case "$1 $2" in
    "sts get-caller-identity") echo '{"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/night"}' ;;
    "resourcegroupstaggingapi get-resources") if grep -q destroy "$STUB/calls"; then cat "$STUB/left"; else cat "$STUB/found"; fi ;;
    "ecr describe-repositories") echo '{"repositories": [{"repositoryUri": "registry.example.org/prop-backend"}]}' ;;
    "rds describe-db-snapshots") echo '{"DBSnapshots": [{"DBSnapshotIdentifier": "s1", "DBInstanceIdentifier": "prop-db-staging"}]}' ;;
esac
"""


class Night:
    """A copy of the script beside stubs."""

    def __init__(self, directory: Path):
        self.directory, scripts = directory, directory / "tree" / "scripts"
        shutil.copytree(ROOT / "scripts" / "lib", scripts / "lib")
        shutil.copy(ROOT / "scripts" / "nightly-account.sh", scripts)
        for name in SIBLINGS:
            self.program(scripts / name, SIBLING)
        (directory / "bin").mkdir()
        for name, text in {"aws": AWS, "docker": SIBLING, "terraform": SIBLING, "prop": "#!/bin/sh\necho prop_key\n"}.items():
            self.program(directory / "bin" / name, text)
        (directory / "tree" / "terraform" / "envs").mkdir(parents=True)
        (directory / "tree" / "terraform" / "envs" / "staging.tfvars").touch()
        self.set("found")
        self.set("left")
        (directory / "fails").touch()
        self.environment = {"PATH": f"{directory}/bin:{os.environ['PATH']}", "HOME": str(directory), "STUB": str(directory), "DIGEST": GOOD}
        self.command = [scripts / "nightly-account.sh", "--account", ACCOUNT]

    @staticmethod
    def program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def set(self, name: str, *arns: str) -> None:
        """What AWS lists as tagged: `found` before, `left` after."""
        (self.directory / name).write_text(json.dumps({"ResourceTagMappingList": [{"ResourceARN": arn} for arn in arns]}))

    def fails(self, words: str, code: int = 1) -> None:
        (self.directory / "fails").write_text(f"{code} {words}\n")

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([*self.command, *arguments], env=self.environment, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[str]:
        file = self.directory / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def scripts(self) -> list[str]:
        """What it ran of ours: name and the words that tell the step."""
        return [" ".join(call.split()[:3]) for call in self.calls() if call.split()[0] in SIBLINGS]


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


LIFE = [
    "bootstrap.sh", "infra.sh staging apply", "infra.sh staging drift", "build.sh", f"deploy.sh staging {GOOD}", "infra.sh staging output",
    f"smoke.sh http://alb.example.org {GOOD}", "deploy.sh staging bad-", "infra.sh staging output", f"smoke.sh http://alb.example.org {GOOD}",
    "db.sh staging restore", "db.sh staging snapshot", "db.sh staging adopt", "infra.sh staging output", f"smoke.sh http://alb.example.org {GOOD}",
    "infra.sh staging drift", "db.sh staging stop", "db.sh staging start", "infra.sh staging output", f"smoke.sh http://alb.example.org {GOOD}",
    "infra.sh staging destroy",
]  # fmt: skip


def test_a_whole_life_ends_with_nothing_left(night: Night, tmp_path: Path):
    done = night.run("--report", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stderr
    assert [step[:22] if "bad-" in step else step for step in night.scripts()] == LIFE
    assert "aws rds modify-db-instance --renamed" in night.calls()
    assert "aws rds delete-db-snapshot --db-snapshot-identifier s1" in night.calls()
    # The databases that no state knows go before the network that they are in.
    order = [index for index, call in enumerate(night.calls()) if "delete-db-instance" in call or "staging destroy" in call]
    assert "staging destroy" in night.calls()[order[-1]]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [step["exit_code"] for step in report if step["step"] == "bad deployment goes back"] == [6]
    assert len(report) == 16 and all(step["seconds"] >= 0 for step in report)


@pytest.mark.parametrize(
    ("words", "code"),
    [("staging apply", 1), (f"deploy.sh staging {GOOD}", 7), ("staging bad-", 0), ("staging bad-", 7), ("smoke.sh", 1), ("db.sh staging adopt", 1),
     ("db.sh staging restore", 1), ("staging drift", 4)],
)  # fmt: skip
def test_a_step_that_ends_otherwise_ends_the_night_with_everything_taken_down(night: Night, words: str, code: int):
    night.fails(words, code)
    done = night.run()
    assert done.returncode == 1, done.stderr
    assert f"ended with {'1' if words == 'smoke.sh' else code}" in done.stderr or "ended with 1" in done.stderr
    assert night.scripts()[-1] == "infra.sh staging destroy"
    assert "db.sh staging start" not in night.scripts()


def test_with_keep_a_failed_step_leaves_everything(night: Night):
    night.fails("smoke.sh")
    done = night.run("--keep")
    assert done.returncode == 4
    assert f"--account {ACCOUNT} --destroy" in done.stderr
    assert "infra.sh staging destroy" not in night.scripts()
    night.fails("nothing")
    assert night.run("--destroy").returncode == 0
    assert night.scripts()[-1] == "infra.sh staging destroy"


def test_what_is_left_is_listed(night: Night):
    night.set("left", "arn:aws:rds:ap-south-1:123456789012:db:prop-db-staging", "arn:aws:ecs:ap-south-1:123456789012:task-definition/prop-backend:1")
    done = night.run()
    assert done.returncode == 4
    assert "db:prop-db-staging" in done.stderr and "task-definition" not in done.stderr


def test_a_destruction_that_fails_is_not_passed_over(night: Night):
    night.fails("staging destroy")
    assert night.run().returncode == 4


def test_an_account_with_something_in_it_is_left_alone(night: Night):
    night.set("found", "arn:aws:ecs:ap-south-1:123456789012:cluster/prop-ecs-cluster")
    done = night.run()
    assert done.returncode == 3
    assert "is not empty" in done.stderr and night.scripts() == []


def test_another_account_is_left_alone(night: Night):
    done = night.run("--account", "210987654321")
    assert done.returncode == 3
    assert "belong to account 123456789012" in done.stderr and night.scripts() == []


def test_interrupted_it_takes_everything_down(night: Night):
    process = subprocess.Popen(
        night.command, env=night.environment | {"DIGEST": "slowly"}, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while "deploy.sh staging slowly" not in night.scripts():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert night.scripts()[-1] == "infra.sh staging destroy"


def test_a_dry_run_prints_the_commands_and_runs_none(night: Night):
    done = night.run("--dry-run")
    assert done.returncode == 0, done.stderr
    assert night.calls() == []
    for command in ("bootstrap.sh", "infra.sh staging apply --yes", "deploy.sh staging bad-", "db.sh staging restore", "staging destroy --yes"):
        assert command in done.stderr
    assert "aws ecr delete-repository" in done.stderr


@pytest.mark.parametrize("arguments", [["--account", "12"], ["--force"], ["staging"], ["--report"]])
def test_wrong_arguments_are_refused(night: Night, arguments: list[str]):
    assert night.run(*arguments).returncode == 2
    assert night.calls() == []


def test_help_says_that_it_was_not_run(night: Night):
    done = night.run("--help")
    assert done.returncode == 0
    assert "has not been run yet" in done.stdout and "Exit codes:" in done.stdout
