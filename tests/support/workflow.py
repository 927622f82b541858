"""Runs the workflow here: job by job in clean clones, its own `run:` lines in its own shell, with GitHub's variables set as GitHub sets them.

What is played: actions (ACTIONS below, by name; one that is not named there fails the test), programs that are too heavy or need
a network (whatever the test puts on PATH), and GitHub's decisions about environments, secrets and tokens, by its rules.
"""

import json
import os
import re
import secrets as randomness
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from expressions import Functions, condition, fill_in, read, text
from github import REPOSITORY, GitHub

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".github/workflows/ci-cd.yml"
SERVER = "https://github.com"
WAITING = "Waiting for a review"

# What `permissions:` may say, and every job that says nothing has.
SCOPES = ("actions", "attestations", "contents", "id-token", "pull-requests", "security-events")


def load(file: Path = FILE) -> dict:
    """A workflow as it is written. YAML takes the key `on` for a truth."""
    workflow = yaml.safe_load(file.read_text())
    workflow["on"] = workflow.pop(True)
    return workflow


def needs(job: dict) -> list[str]:
    wanted = job.get("needs", [])
    return [wanted] if isinstance(wanted, str) else wanted


@dataclass
class Ended:
    """A job that has ended, or was never started."""

    result: str
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""


@dataclass
class Review:
    """What somebody says when a job waits for its environment."""

    reviewer: str
    state: str = "approved"
    comment: str = ""


@dataclass
class Run:
    """One run of the workflow."""

    github: GitHub
    directory: Path
    path: str  # PATH: stand-ins first
    event_name: str
    event: dict
    actor: str
    sha: str
    branch: str = "main"
    repository: Path = ROOT
    reviews: dict[str, Review] = field(default_factory=dict)  # by environment; nobody answers for one that is not there
    without_runner: set[str] = field(default_factory=set)  # jobs for which no runner is free
    extra: Callable[[str | None], dict[str, str]] = lambda _environment: {}  # variables of the stand-ins
    number: str = field(default_factory=lambda: str(1000 + randomness.randbelow(9_000_000)))
    attempt: int = 1
    jobs: dict[str, Ended] = field(default_factory=dict)
    used: list[tuple[str, str, dict]] = field(default_factory=list)  # job, action, inputs
    commands: list[tuple[str, str]] = field(default_factory=list)  # job, run
    runners: dict[str, str] = field(default_factory=dict)  # by job

    def __post_init__(self) -> None:
        self.workflow = read(FILE)

    @property
    def ref(self) -> str:
        return f"refs/pull/{self.branch}" if self.event_name == "pull_request" else f"refs/heads/{self.branch}"

    @property
    def is_fork(self) -> bool:
        head = self.event.get("pull_request", {}).get("head", {}).get("repo", {})
        return bool(head) and head["full_name"] != REPOSITORY

    def go_on(self) -> "Run":
        """Runs every job that can run now. A job waits for those that it needs, for its turn, for a review and for a runner."""
        while any([self.advance(name, job) for name, job in self.workflow["jobs"].items() if name not in self.jobs]):
            pass
        return self

    def results(self) -> dict[str, str]:
        return {name: job.result for name, job in self.jobs.items()}

    # --- A job

    def advance(self, name: str, job: dict) -> bool:
        """Whether the job has ended now."""
        if any(one not in self.jobs for one in needs(job)):
            return False
        contexts, group = self.contexts(name, None), None
        if not condition(job.get("if"), contexts, self.status_of_needs(job)):
            self.jobs[name] = Ended("skipped")
            return True
        # A job gets its turn before it asks for a review, and keeps it meanwhile.
        if "concurrency" in job:
            group = fill_in(job["concurrency"], contexts, {})
            if not self.github.has_turn(group, (self.number, name)):
                return False
        environment = environment_of(job, contexts)
        refusal = self.protect(environment) if environment else None
        if refusal is WAITING or (refusal is None and name in self.without_runner):
            return False
        self.jobs[name] = self.run_job(name, job, environment) if refusal is None else Ended("failure", log=refusal)
        if group:
            self.github.end_turn(group, (self.number, name))
        return True

    def status_of_needs(self, job: dict) -> Functions:
        results = [self.jobs[one].result for one in needs(job)]
        return {
            "success": lambda: all(one == "success" for one in results), "failure": lambda: "failure" in results,
            "always": lambda: True, "cancelled": lambda: False,
        }  # fmt: skip

    def run_job(self, name: str, job: dict, environment: str | None) -> Ended:
        matrix = job.get("strategy", {}).get("matrix", {})
        assert len(matrix) <= 1
        combinations = [{key: value} for key, values in matrix.items() for value in values] or [{}]
        ended = [Job(self, name, job, combination, environment).run() for combination in combinations]
        worst = next((one for one in ended if one.result != "success"), ended[-1])
        return Ended(worst.result, ended[-1].outputs, "\n".join(one.log for one in ended))

    def protect(self, environment: str) -> str | None:
        """GitHub's rules for the environment: why the job does not start, if it does not.

        Each job is reviewed for itself: https://github.com/liquibase/liquibase/pull/7964 has it measured.
        """
        rules = self.github.environments[environment]
        if not rules.admits(self.branch):
            return f"Branch {self.branch} is not allowed to deploy to {environment} due to environment protection rules."
        if not rules.reviewers:
            return None
        review = self.reviews.pop(environment, None)
        if review is None:
            return WAITING
        self.github.review(self.number, environment, review.reviewer, review.state, self.actor, review.comment)
        return None if review.state == "approved" else f"{environment} was rejected by {review.reviewer}."

    def contexts(self, job: str, environment: str | None) -> dict[str, Any]:
        """What expressions can see."""
        gives = not self.is_fork
        of_environment = self.github.environments.get(environment or "")
        variables, secrets = dict(self.github.variables), dict(self.github.secrets)
        if of_environment:
            variables |= of_environment.variables
            secrets |= of_environment.secrets
        return {
            "github": {
                "event_name": self.event_name, "event": self.event, "repository": REPOSITORY, "run_id": self.number, "run_attempt": self.attempt,
                "ref": self.ref, "ref_name": self.branch, "sha": self.sha, "actor": self.actor, "token": "",
            },
            "inputs": self.event.get("inputs", {}), "vars": variables if gives else {}, "secrets": secrets if gives else {},
            "needs": {one: {"result": self.jobs[one].result, "outputs": self.jobs[one].outputs} for one in needs(self.workflow["jobs"][job])},
        }  # fmt: skip


def environment_of(job: dict, contexts: dict[str, Any]) -> str | None:
    environment = job.get("environment")
    if isinstance(environment, dict) and "name" in environment:
        environment = environment["name"]
    return fill_in(environment, contexts, {})


class Job:
    """A job on a runner of its own."""

    def __init__(self, run: Run, name: str, job: dict, matrix: dict, environment: str | None):
        self.of, self.name, self.job, self.environment = run, name, job, environment
        self.home = run.directory / f"{name}{''.join(f'-{value}' for value in matrix.values())}-{randomness.token_hex(3)}"
        self.clone, self.temporary = self.home / "work", self.home / "temp"
        self.temporary.mkdir(parents=True)
        granted = {scope: level for scope, level in job.get("permissions", {}).items() if scope in SCOPES}
        assert granted.keys() == job.get("permissions", {}).keys(), f"{name}: an unknown permission"
        # A token for what comes from a fork can read, whatever the job asks for, and never signs in anywhere.
        self.permissions = {scope: "read" for scope in granted if scope != "id-token"} if run.is_fork else granted
        self.token = randomness.token_hex(8)
        run.github.tokens[self.token] = self.permissions
        self.contexts = run.contexts(name, environment) | {"matrix": matrix, "steps": {}, "env": {}}
        self.contexts["github"]["token"] = self.token
        self.runner = run.runners[name] = fill_in(job["runs-on"], self.contexts, {})
        self.failed, self.log, self.exported = False, "", {}
        self.functions: Functions = {
            "success": lambda: not self.failed, "failure": lambda: self.failed, "always": lambda: True, "cancelled": lambda: False,
            "hashFiles": lambda pattern: "hash" if any(self.clone.glob(pattern)) else "",
        }  # fmt: skip

    def run(self) -> Ended:
        for level in (self.of.workflow, self.job):
            self.contexts["env"] |= {name: text(self.fill(value)) for name, value in level.get("env", {}).items()}
        for step in self.job["steps"]:
            self.run_step(step)
        outputs = {name: text(self.fill(value)) for name, value in self.job.get("outputs", {}).items()}
        return Ended("failure" if self.failed else "success", outputs, self.log)

    def fill(self, value: Any) -> Any:
        return fill_in(value, self.contexts, self.functions)

    def run_step(self, step: dict) -> None:
        outputs: dict[str, str] = {}
        if condition(step.get("if"), self.contexts, self.functions):
            succeeded, outputs = self.use(step) if "uses" in step else self.execute(step)
            self.failed = self.failed or not succeeded
        if "id" in step:
            self.contexts["steps"][step["id"]] = {"outputs": outputs}

    def use(self, step: dict) -> tuple[bool, dict]:
        action = step["uses"].partition("@")[0]
        inputs = {name: text(self.fill(value)) for name, value in step.get("with", {}).items()}
        self.of.used.append((self.name, action, inputs))
        try:
            ACTIONS[action](self, inputs)
        except AssertionError as error:
            self.log += f"{action}: {error}\n"
            return False, {}
        return True, {}

    def execute(self, step: dict) -> tuple[bool, dict]:
        # The tests are what this is a part of: a stand-in takes their place.
        run = self.fill(step["run"]).replace("./scripts/test.sh", "test-suite")
        self.of.commands.append((self.name, run))
        output, event = self.temporary / "output", self.temporary / "event.json"
        output.write_text("")
        event.write_text(json.dumps(self.of.event))
        of_step = {name: text(self.fill(value)) for name, value in step.get("env", {}).items()}
        environment = {
            "PATH": self.of.path, "HOME": str(self.home), "TMPDIR": str(self.temporary), "LANG": "C.UTF-8", "CI": "true", **self.github_variables(output, event),
            **self.of.extra(self.environment), **self.exported, **self.contexts["env"], **of_step,
        }  # fmt: skip
        # `shell: bash`, as GitHub runs it.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", run]
        ended = subprocess.run(command, cwd=self.clone, env=environment, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
        self.log += f"$ {run}\n{ended.stdout}{ended.stderr}"
        for secret in self.contexts["secrets"].values():
            assert secret not in self.log, f"{self.name} prints a secret"
        return ended.returncode == 0, dict(line.split("=", 1) for line in output.read_text().splitlines())

    def github_variables(self, output: Path, event: Path) -> dict[str, str]:
        run = self.of
        return {
            "GITHUB_ACTIONS": "true", "GITHUB_ACTOR": run.actor, "GITHUB_TRIGGERING_ACTOR": run.actor, "GITHUB_API_URL": run.github.url,
            "GITHUB_SERVER_URL": SERVER, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_REPOSITORY_OWNER": REPOSITORY.partition("/")[0],
            "GITHUB_RUN_ID": run.number, "GITHUB_RUN_NUMBER": "17", "GITHUB_RUN_ATTEMPT": str(run.attempt), "GITHUB_SHA": run.sha,
            "GITHUB_REF": run.ref, "GITHUB_REF_NAME": run.branch, "GITHUB_EVENT_NAME": run.event_name,
            "GITHUB_EVENT_PATH": str(event), "GITHUB_JOB": self.name, "GITHUB_WORKFLOW": "ci-cd", "GITHUB_WORKSPACE": str(self.clone),
            "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(self.temporary / "summary.md"), "RUNNER_OS": "Linux",
            "RUNNER_ARCH": "ARM64" if self.runner.endswith("-arm") else "X64", "RUNNER_TEMP": str(self.temporary),
        }  # fmt: skip

    # --- The actions

    def check_out(self, inputs: dict) -> None:
        """One commit, unless `fetch-depth` is 0: https://github.com/actions/checkout#usage"""
        assert inputs.pop("persist-credentials") == "false" and inputs.keys() <= {"fetch-depth"}
        assert "contents" in self.permissions
        if inputs.get("fetch-depth") == "0":
            git("clone", "--quiet", "--no-hardlinks", "--no-checkout", self.of.repository, self.clone)
        else:
            git("init", "--quiet", self.clone)
            serve = "git -c uploadpack.allowAnySHA1InWant=true upload-pack"
            git("fetch", "--quiet", "--depth", "1", "--upload-pack", serve, f"file://{self.of.repository}", self.of.sha, at=self.clone)
        git("checkout", "--quiet", "--detach", self.of.sha, at=self.clone)

    def sign_in_to_aws(self, inputs: dict) -> None:
        by_key = inputs.get("aws-access-key-id"), inputs.get("aws-secret-access-key")
        if role := inputs.get("role-to-assume"):
            assert self.permissions.get("id-token") == "write", "Credentials could not be loaded: did you set the `id-token` permission?"
            assert by_key == ("", ""), "with a key, the role is assumed by the key and not by OIDC"
            self.exported |= {"AWS_ACCESS_KEY_ID": "from-the-role", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": f"{role} for {self.environment}"}
        else:
            assert all(by_key), "Credentials could not be loaded: neither role nor key"
            self.exported |= {"AWS_ACCESS_KEY_ID": by_key[0], "AWS_SECRET_ACCESS_KEY": by_key[1]}

    def upload_findings(self, inputs: dict) -> None:
        assert self.permissions.get("security-events") == "write", "Resource not accessible by integration"
        for file in (self.clone / inputs["sarif_file"]).glob("*.sarif"):
            assert json.loads(file.read_text())["version"] == "2.1.0", file

    def attest(self, inputs: dict) -> None:
        assert self.permissions.get("attestations") == self.permissions.get("id-token") == "write"
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", inputs["subject-digest"])
        assert "sbom-path" not in inputs or json.loads((self.clone / inputs["sbom-path"]).read_text())["bomFormat"] == "CycloneDX"

    def set_up(self, _inputs: dict) -> None:
        """A tool or a cache: the tool is on PATH already."""


ACTIONS: dict[str, Callable[[Job, dict], None]] = {
    "actions/checkout": Job.check_out,
    "actions/attest": Job.attest,
    "actions/upload-artifact": Job.set_up,
    "aquasecurity/setup-trivy": Job.set_up,
    "aws-actions/configure-aws-credentials": Job.sign_in_to_aws,
    "github/codeql-action/upload-sarif": Job.upload_findings,
    "hashicorp/setup-terraform": Job.set_up,
    "Swatinem/rust-cache": Job.set_up,
}


def git(*arguments: str | Path, at: Path = ROOT) -> str:
    return subprocess.run(["git", *arguments], cwd=at, check=True, capture_output=True, text=True).stdout.strip()


def commit(sha: str = "HEAD") -> str:
    return git("rev-parse", sha)


def path_with(*directories: Path) -> str:
    """What is in these comes first, and this Python before a version manager's wrapper, which takes ten times as long to start."""
    return os.pathsep.join([*map(str, directories), str(Path(sys.executable).parent), os.environ["PATH"]])
