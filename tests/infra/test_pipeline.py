"""The workflow as it runs: its own steps in clean clones, against a GitHub and an AWS that are played, with a real prop as the ledger.

The repository and the ledger are made ready by the scripts that make them ready: setup-ledger.sh and setup-github.sh. Played are
GitHub's API and rules (support/github.py), its runner and actions (support/workflow.py), AWS (stub/aws) and the programs that
stand_ins/stand-in names; `./scripts/test.sh` is one of them.
"""

import json
import os
import subprocess
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from github import REPOSITORY, GitHub, running_github
from prop import Prop, running_prop
from serving import serving
from stub_aws import OLD, OLD_SHA, STUB, Scenario
from workflow import ROOT, Review, Run, commit, git, path_with

STAND_IN = Path(__file__).parent / "stand_ins/stand-in"
STAND_INS = ["aws", "cargo", "cargo-deny", "checkov", "docker", "rustup", "terraform", "test-suite", "trivy"]
SHA = commit()
CRATE_VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
VERSION = f"{CRATE_VERSION}-{SHA[:12]}"
SHIP_IT = Review("alice", comment="Ship it.")


class Account(Scenario):
    """An AWS account in which 1.4.1 runs in one environment, and nothing else is in ECR."""

    def __init__(self, directory: Path, environment: str):
        directory.mkdir()
        super().__init__(directory)
        state = self.read()
        state["images"] = [image for image in state["images"] if image["digest"] == OLD]
        if environment == "production":
            state = json.loads(json.dumps(state).replace("prop-backend-staging", "prop-backend").replace("-service-staging", "-service"))
        self.write(state)


@dataclass
class World:
    """Everything there is around the repository."""

    directory: Path
    github: GitHub
    ledger: Prop
    accounts: dict[str, Account]
    messages: list[str]  # in Slack
    binaries: Path
    commits: list[str]
    repository: Path = ROOT

    def variables(self, environment: str | None) -> dict[str, str]:
        """What the stand-ins want to know on a runner."""
        states = os.pathsep.join(str(account.file) for account in self.accounts.values())
        there = {"STUB_STATE": str(self.accounts[environment].file)} if environment else {}
        return {"STUB_AWS": str(STUB / "aws"), "STUB_STATES": states, "POLL_SECONDS": "0.05", "PROOF_SECONDS": "5", "SMOKE_SECONDS": "5", **there}

    def run(self, event_name: str, event: dict, actor: str = "dana", more: dict[str, str] | None = None, sha: str = SHA, **settings: Any) -> Run:
        directory = self.directory / f"run-{self.github.next()}"
        return Run(
            self.github, directory, path_with(self.binaries), event_name, event | {"repository": {"visibility": "public"}}, actor, sha,
            extra=lambda environment: self.variables(environment) | (more or {}), repository=self.repository, **settings,
        ).go_on()  # fmt: skip

    def push(self, review: Review | None = SHIP_IT, **settings: Any) -> Run:
        """A push to main. Without a review, nobody answers."""
        return self.run("push", {}, reviews={"production": review} if review else {}, **settings)

    def commit(self) -> str:
        """One more commit on main."""
        self.repository = self.directory / "repository"
        git("clone", "--quiet", "--no-hardlinks", ROOT, self.repository)
        git("-c", "user.name=erin", "-c", "user.email=erin@example.org", "commit", "--quiet", "--allow-empty", "-m", "newer", at=self.repository)
        self.commits.append(git("rev-parse", "HEAD", at=self.repository))
        return self.commits[-1]

    def pull_request(self, head: str = REPOSITORY, **settings: Any) -> Run:
        pull_request = {"number": 7, "user": {"login": "dana"}, "head": {"repo": {"full_name": head, "fork": head != REPOSITORY}}}
        return self.run("pull_request", {"pull_request": pull_request}, branch="7/merge", **settings)

    def dispatch(self, environment: str, version: str = "", **settings: Any) -> Run:
        inputs = {"environment": environment, "version": version}
        return self.run("workflow_dispatch", {"inputs": inputs}, reviews={"production": Review("alice")}, **settings)

    # --- What is so afterwards

    def place(self, environment: str) -> dict:
        return self.ledger.get(f"/v1/services/prop/environments/{environment}")

    def live(self, environment: str) -> str:
        return self.place(environment)["live"]["version"]

    def release(self, version: str = VERSION) -> dict:
        found = self.ledger.get(f"/v1/releases?service=prop&version={version}")["items"]
        return found[0] if found else {}

    def deployments(self, version: str) -> list[dict]:
        """The newest first."""
        return [one for one in self.ledger.get("/v1/deployments?service=prop")["items"] if one["version"] == version]

    def approvals(self) -> list[dict]:
        return self.ledger.get("/v1/approvals?service=prop")["items"]

    def digests(self) -> list[str | None]:
        return [account.live_digest() for account in self.accounts.values()]


def script(name: str, *arguments: str, path: str | None = None, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": path or os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run([ROOT / "scripts" / name, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        binaries, kept = tmp_path / "bin", tmp_path / "ledger"
        for directory in (binaries, kept):
            directory.mkdir()
        for name in STAND_INS:
            (binaries / name).symlink_to(STAND_IN)
        accounts = {name: Account(tmp_path / name, name) for name in ("staging", "production")}
        github = stack.enter_context(running_github(GitHub()))
        ledger = stack.enter_context(running_prop(kept))
        messages: list[str] = []
        slack = stack.enter_context(serving(slack_handler(messages)))
        commits = [SHA]
        urls = {name: stack.enter_context(serving(balancer_handler(account, ledger, commits))) for name, account in accounts.items()}
        keys = make_ready_ledger(ledger)
        ready = script(
            "setup-github.sh", REPOSITORY, "--reviewer", "alice", "--reviewer", "bob", GITHUB_TOKEN="admin", GITHUB_API_URL=github.url, PROP_URL=ledger.url,
            SLACK_WEBHOOK=f"{slack}/hooks/T0/B0/secret", STAGING_ROLE_ARN="arn:aws:iam::123456789012:role/prop-deploy-staging",
            PRODUCTION_ROLE_ARN="arn:aws:iam::123456789012:role/prop-deploy", AWS_PLAN_ROLE_ARN="arn:aws:iam::123456789012:role/prop-plan",
            STAGING_URL=urls["staging"], PRODUCTION_URL=urls["production"], path=python_path(), **keys,
        )  # fmt: skip
        assert ready.returncode == 0, ready.stderr
        yield World(tmp_path, github, ledger, accounts, messages, binaries, commits)


def python_path() -> str:
    """This suite's Python has PyNaCl: setup-github.sh need not install it."""
    return path_with(ROOT / ".venv/infra/bin")


def make_ready_ledger(ledger: Prop) -> dict[str, str]:
    """The gate as setup-ledger.sh makes it, with 1.4.1, scanned, live in both environments; the pipeline's keys."""
    for environment in ("staging", "production"):
        old = {"service": "prop", "environment": environment, "version": "1.4.1", "image_digest": OLD, "git_sha": OLD_SHA}
        made = ledger.post("/v1/deployments", old | {"create_missing": True, "observed": True})
        ledger.post(f"/v1/deployments/{made['id']}/transitions", {"to": "succeeded", "observed": True})
    status, _ = ledger.request("PUT", f"/v1/releases/{made['release_id']}/scan", {"tool": "trivy 0.72"})
    assert status == 200
    ready = script("setup-ledger.sh", "--keys", PROP_URL=ledger.url, PROP_KEY=ledger.key)
    assert ready.returncode == 0, ready.stderr
    return dict(line.removeprefix("export ").split("=", 1) for line in ready.stdout.splitlines())


def balancer_handler(account: Account, ledger: Prop, commits: list[str]) -> type[BaseHTTPRequestHandler]:
    """The load balancer of an environment: a real prop, which says it is the image that the environment runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                with urllib.request.urlopen(ledger.url + self.path, timeout=10) as response:
                    status, kind, data = response.status, response.headers["Content-Type"], response.read()
            except urllib.error.HTTPError as error:
                status, kind, data = error.code, error.headers["Content-Type"], error.read()
            if self.path == "/version":
                digest = account.live_digest()
                tags = [tag for image in account.read()["images"] if image["digest"] == digest for tag in image["tags"]]
                sha = next(sha for sha in [OLD_SHA, *commits] if any(tag.endswith(sha[:12]) for tag in tags))
                data = json.dumps(json.loads(data) | {"image_digest": digest, "git_sha": sha}).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler


def slack_handler(messages: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler


def logs(run: Run) -> str:
    return "\n".join(f"== {name}: {job.result}\n{job.log}" for name, job in run.jobs.items() if job.result != "skipped")


def of(run: Run, result: str) -> set[str]:
    return {name for name, found in run.results().items() if found == result}


def test_a_pull_request_is_tested_and_sees_its_plan_and_touches_nothing(world: World) -> None:
    first = world.pull_request()
    assert of(first, "success") == {"test", "check", "scan", "plan"}, logs(first)
    assert of(first, "failure") == set(), logs(first)
    assert [run for job, run in first.commands if "test-suite" in run] == ["test-suite app", *['test-suite "$PART"'] * 3]
    (comment,) = world.github.comments.values()
    assert "<b>staging</b>: Plan: 1 to add" in comment["body"] and "<b>production</b>: Plan: 1 to add" in comment["body"]
    # Again, after a push: the same comment, with what is so now.
    second = world.pull_request()
    (comment,) = world.github.comments.values()
    assert f"/runs/{second.number}" in comment["body"] and f"/runs/{first.number}" not in comment["body"]
    assert world.digests() == [OLD, OLD] and not world.release()
    assert not any(account.calls() for account in world.accounts.values())
    assert world.messages == []


def test_one_key_that_deploys_and_reports_scans_goes_on_working(world: World) -> None:
    """A repository that was set up before there was a key for scans."""
    key = world.ledger.new_key("both", "read", "deploy", "attest")
    for environment in world.github.environments.values():
        environment.secrets.pop("PROP_ATTEST_KEY", None)
        environment.secrets["PROP_KEY"] = key
    run = world.push()
    assert of(run, "failure") == set(), logs(run)
    assert world.release()["scan"]["status"] == "passed"
    assert world.place("production")["live"]["recorded_by"] == "both"


def test_main_goes_through_staging_to_production_when_somebody_approves(world: World) -> None:
    before = world.ledger.get("/v1/events?limit=1")["items"][0]["seq"]
    run = world.push()
    assert of(run, "failure") == set(), logs(run)
    assert of(run, "skipped") == {"plan", "rejection", "redeploy"}
    built = run.jobs["build"].outputs["digest"]
    assert world.digests() == [built, built], "production runs what staging ran"
    assert [inputs["subject-digest"] for _, action, inputs in run.used if action == "actions/attest"] == [built, built]

    release = world.release()
    assert (release["image_digest"], release["git_sha"]) == (built, SHA)
    assert (release["scan"]["status"], release["scan"]["tool"], release["scan"]["summary"]["low"]) == ("passed", "trivy 0.73.0", 1)
    run_url = f"https://github.com/{REPOSITORY}/actions/runs/{run.number}"
    assert release["scan"]["report_url"] == run_url
    (approval,) = world.approvals()
    assert (approval["approver"], approval["decision"], approval["comment"], approval["source"]) == ("alice", "approved", "Ship it.", "github")
    assert (approval["run_url"], approval["recorded_by"], approval["image_digest"]) == (run_url, "github-approvals", built)
    for environment in ("staging", "production"):
        live = world.place(environment)["live"]
        assert (live["version"], live["image_digest"], live["state"]) == (VERSION, built, "succeeded")
        assert (live["requested_by"], live["recorded_by"], live["source"], live["ungated"]) == ("dana", "pipeline", "github-actions", False)
        assert live["run_url"] == run_url
    assert approval["consumed_by"] == world.place("production")["live"]["id"]
    # The order in the history.
    events = reversed(world.ledger.get("/v1/events?limit=100")["items"])
    history = [(event["action"], event["environment"]) for event in events if event["seq"] > before]
    expected = [("release.created", None), ("release.scanned", None), ("deployment.succeeded", "staging"), ("approval.approved", "production"),
            ("deployment.succeeded", "production")]  # fmt: skip
    assert [entry for entry in history if entry in expected] == expected, history
    assert [text.split()[0] for text in world.messages] == [":white_check_mark:"] * 3
    assert "is live in *staging*" in world.messages[0] and "is live in *production*" in world.messages[1] and ":white_check_mark: done: test" in world.messages[2]


def test_a_rejection_keeps_it_out_until_the_run_is_started_again_and_approved(world: World) -> None:
    run = world.push(Review("bob", "rejected", "Not on a Friday."))
    assert of(run, "failure") == {"deploy-production"}, logs(run)
    assert run.jobs["deploy-production"].log == "production was rejected by bob.", "it never started"
    assert run.jobs["rejection"].result == "success", logs(run)
    assert world.live("staging") == VERSION and world.live("production") == "1.4.1"
    assert not world.accounts["production"].calls()
    (approval,) = world.approvals()
    assert (approval["approver"], approval["decision"], approval["comment"]) == ("bob", "rejected", "Not on a Friday.")
    gate = world.ledger.get(f"/v1/gate?service=prop&environment=production&version={VERSION}")
    assert "approval_rejected" in [reason["code"] for reason in gate["reasons"]]
    assert ":x: failed: deploy-production" in world.messages[-1]

    again = world.push(Review("alice"), number=run.number, attempt=2)
    assert of(again, "failure") == set(), logs(again)
    assert "ECR already has" in again.jobs["build"].log and again.jobs["build"].outputs == run.jobs["build"].outputs
    assert [action for _, action, _ in again.used].count("actions/attest") == 2, "the try before may have pushed it, and gone no further"
    assert world.live("production") == VERSION
    assert sorted((one["approver"], one["decision"]) for one in world.approvals()) == [("alice", "approved"), ("bob", "rejected")]


def test_a_fork_gets_nothing(world: World) -> None:
    run = world.pull_request(head="mallory/prop", actor="mallory")
    assert of(run, "success") == {"test", "check", "scan"}, logs(run)
    assert of(run, "failure") == set(), logs(run)
    assert not any(account.calls() for account in world.accounts.values())
    assert {action for _, action, _ in run.used} <= {"actions/checkout", "Swatinem/rust-cache", "hashicorp/setup-terraform", "aquasecurity/setup-trivy"}
    assert world.github.comments == {} and world.messages == [] and not world.release()


def test_a_rollback_and_a_version_again_by_hand(world: World) -> None:
    world.push()
    run = world.dispatch("production")
    assert of(run, "success") == {"redeploy", "notify"}, logs(run)
    assert [command for job, command in run.commands if job == "redeploy"] == ['./scripts/rollback.sh "$ENVIRONMENT" ${WAKE:+"$WAKE"}']
    assert world.live("production") == "1.4.1" and world.live("staging") == VERSION
    assert world.accounts["production"].live_digest() == OLD
    assert world.place("production")["live"]["kind"] == "rollback"

    # What was approved once was used up: going there again is approved again.
    run = world.dispatch("production", VERSION, actor="erin")
    assert of(run, "success") == {"redeploy", "notify"}, logs(run)
    assert world.live("production") == VERSION and world.place("production")["live"]["requested_by"] == "erin"
    assert len(world.approvals()) == 2


def test_a_finding_stops_it_before_staging(world: World) -> None:
    run = world.push(more={"STAND_IN_FINDS": "HIGH"})
    assert of(run, "failure") == {"build"}, logs(run)
    assert "HIGH CVE-2026-2 in openssl 3.5.0, fixed in 3.5.1" in run.jobs["build"].log
    assert of(run, "success") == {"test", "check", "scan", "notify"}
    assert world.release()["scan"]["status"] == "failed", "prop knows it, and its gate would keep it back too"
    assert ("build", "github/codeql-action/upload-sarif") in [(job, action) for job, action, _ in run.used], "the finding is shown"
    assert world.digests() == [OLD, OLD]


def test_what_fails_builds_nothing(world: World) -> None:
    run = world.push(more={"STAND_IN_FAILS": "test-suite checkov"})
    assert of(run, "failure") == {"test", "check", "scan"} and "build" in of(run, "skipped"), logs(run)
    assert len(world.accounts["staging"].read()["images"]) == 1
    assert world.messages[-1].startswith(":x: failed:")


def test_keys_of_the_assignment_do_for_want_of_roles(world: World) -> None:
    for environment in world.github.environments.values():
        environment.variables.pop("AWS_ROLE_ARN")
    world.github.secrets |= {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "very-secret"}
    run = world.push(Review("bob", "rejected"))
    assert of(run, "failure") == {"deploy-production"}, logs(run)
    assert world.live("staging") == VERSION, "built, pushed and deployed with keys"


def test_a_branch_that_is_not_main_gets_into_no_environment(world: World) -> None:
    run = world.push(branch="hotfix")
    assert of(run, "failure") == {"build"}
    assert "not allowed to deploy to staging" in run.jobs["build"].log
    assert not any(account.calls() for account in world.accounts.values())


def test_an_unavailable_ledger_blocks_nothing(world: World) -> None:
    world.github.variables["PROP_URL"] = "http://127.0.0.1:9"
    run = world.push()
    assert of(run, "failure") == set(), logs(run)
    built = run.jobs["build"].outputs["digest"]
    assert world.digests() == [built, built]
    assert "Cannot reach prop" in run.jobs["deploy-production"].log
    kept = [job for job, action, _ in run.used if action == "actions/upload-artifact"]
    assert kept == ["deploy-staging", "deploy-production"], "what it missed is kept"


def version_of(sha: str) -> str:
    return f"{CRATE_VERSION}-{sha[:12]}"


def test_the_older_of_two_pushes_does_not_end_up_live(world: World) -> None:
    newer = world.commit()
    slow = world.push(without_runner={"build"})
    assert of(world.push(sha=newer), "failure") == set()
    slow.without_runner.clear()
    slow.go_on()
    for environment in ("staging", "production"):
        assert world.live(environment) == version_of(newer), logs(slow)
    assert of(slow, "failure") == set(), logs(slow)
    assert slow.jobs["deploy-staging"].outputs["outcome"] == "superseded"
    assert {"smoke", "deploy-production"} <= of(slow, "skipped")
    (recorded,) = world.deployments(VERSION)
    assert (recorded["environment"], recorded["state"], recorded["started_at"]) == ("staging", "cancelled", None)
    assert recorded["run_url"].endswith(f"/runs/{slow.number}")
    assert ":fast_forward: superseded: deploy-staging" in world.messages[-1]


def test_an_approval_that_nobody_gives_holds_nobody_up(world: World) -> None:
    newer = world.commit()
    waiting = world.push(review=None)
    assert "deploy-production" not in waiting.jobs and world.live("staging") == VERSION, logs(waiting)
    assert not world.accounts["production"].calls(), "nothing has touched production before somebody approves"
    run = world.push(sha=newer)
    assert of(run, "failure") == set(), logs(run)
    assert run.jobs.get("deploy-production"), "it waits behind the other run"
    assert world.live("production") == version_of(newer)
    # Approved too late: it does not go back.
    waiting.reviews["production"] = Review("bob")
    waiting.go_on()
    assert of(waiting, "failure") == set(), logs(waiting)
    assert waiting.jobs["deploy-production"].outputs["outcome"] == "superseded"
    assert world.live("production") == version_of(newer)
    recorded = [(one["environment"], one["state"], one["started_at"] is None) for one in world.deployments(VERSION)]
    assert recorded == [("production", "cancelled", True), ("staging", "superseded", False)]


def test_an_image_for_arm_is_built_on_a_runner_of_its_kind(world: World) -> None:
    world.github.variables["CPU_ARCHITECTURE"] = "ARM64"
    run = world.push(review=None)
    assert of(run, "failure") == set(), logs(run)
    assert (run.runners["build"], run.runners["deploy-staging"]) == ("ubuntu-24.04-arm", "ubuntu-24.04")
    assert {image["platform"] for image in world.accounts["staging"].read()["images"] if "platform" in image} == {"linux/arm64"}
