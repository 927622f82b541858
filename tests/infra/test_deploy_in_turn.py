"""deploy-in-turn.sh: what it waits for, and what it does not deploy, with a stub `aws` and a real ledger."""

import hmac
import json
import shutil
import subprocess
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from conftest import WEBHOOK_SECRET
from prop import Prop
from stub_aws import IMAGES, NEW, OLD, OTHER, ROOT, Run, Scenario, environment, place, settings, wait_for
from workflow import git


class Clone:
    """A repository with these scripts and three commits, the oldest first."""

    def __init__(self, directory: Path):
        self.directory = directory
        shutil.copytree(ROOT / "scripts", directory / "scripts")
        shutil.copytree(ROOT / "terraform/envs", directory / "terraform/envs")
        git("init", "--quiet", directory)
        self.commits = [self.commit(name) for name in ("first", "second", "third")]

    def commit(self, name: str) -> str:
        git("-c", "user.name=erin", "-c", "user.email=erin@example.org", "commit", "--quiet", "--allow-empty", "-m", name, at=self.directory)
        return git("rev-parse", "HEAD", at=self.directory)

    def start(self, scenario: Scenario, *arguments: str, **variables: str) -> subprocess.Popen:
        command = [self.directory / "scripts/deploy-in-turn.sh", *(arguments or ("staging", NEW, "--json"))]
        return subprocess.Popen(command, env=environment(scenario, **variables), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, scenario: Scenario, *arguments: str, **variables: str) -> Run:
        return Run(self.start(scenario, *arguments, **variables))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


@pytest.fixture
def commits(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """1.4.1, which is live, is of the second commit, 1.4.2 of the first and 1.4.3 of the third."""
    for digest, version, commit in ((OLD, "1.4.1", 1), (NEW, "1.4.2", 0), (OTHER, "1.4.3", 2)):
        monkeypatch.setitem(IMAGES, digest, (version, clone.commits[commit]))
    return clone.commits


@pytest.fixture
def newer(scenario: Scenario, commits: list[str]) -> str:
    """1.4.3 in ECR; its digest."""
    scenario.set(images=[*scenario.read()["images"], {"digest": OTHER, "tags": ["1.4.3"]}])
    return OTHER


def test_a_newer_commit_is_deployed(scenario: Scenario, app: str, ledger: Prop, clone: Clone, newer: str) -> None:
    ended = clone.run(scenario, "staging", newer, "--json", "--release", "1.4.3", **settings(app, ledger))
    assert (ended.code, ended.result["outcome"], ended.result["url"]) == (0, "succeeded", app), ended
    assert scenario.live_digest() == newer and place(ledger)["live"]["version"] == "1.4.3"
    # The same again is no step back.
    assert clone.run(scenario, "staging", newer, **settings(app, ledger)).code == 0


def test_an_older_commit_is_not_deployed_and_is_recorded_as_cancelled(scenario: Scenario, app: str, ledger: Prop, clone: Clone, commits: list[str]) -> None:
    summary = scenario.file.parent / "summary.md"
    ended = clone.run(scenario, **settings(app, ledger), GITHUB_STEP_SUMMARY=str(summary))
    reason = f"Superseded: the commit {commits[1][:12]}, which is live, is newer than {commits[0][:12]}."
    assert (ended.code, ended.result["outcome"], ended.result["url"], ended.result["reason"]) == (0, "superseded", app, reason), ended
    assert reason in summary.read_text()
    assert scenario.calls(changing=True) == [] and scenario.live_digest() == OLD
    (recorded,) = [one for one in ledger.get("/v1/deployments")["items"] if one["version"] == "1.4.2"]
    assert (recorded["state"], recorded["started_at"], recorded["ungated"], recorded["git_sha"]) == ("cancelled", None, False, commits[0])
    assert reason in json.dumps(ledger.get(f"/v1/deployments/{recorded['id']}/events"))
    assert place(ledger)["live"]["version"] == "1.4.1"


def deliver(ledger: Prop, sha: str, state: str, number: int) -> str:
    """GitHub's report about the job of run 17, which has `environment: staging`; what prop made of it."""
    repository = {"name": "prop", "full_name": "prop-ledger/prop", "html_url": "https://github.com/prop-ledger/prop"}
    # Ahead: 1.4.1 went live within this second.
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + number))
    deployment = {"id": 1, "environment": "staging", "ref": "main", "sha": sha, "created_at": at}
    run = {"html_url": f"{repository['html_url']}/actions/runs/17"}
    status = {"id": number, "state": state, "created_at": at}
    payload = {"action": "created", "repository": repository, "deployment": deployment, "deployment_status": status, "workflow_run": run}
    body = json.dumps(payload).encode()
    signature = "sha256=" + hmac.new(WEBHOOK_SECRET.encode(), body, "sha256").hexdigest()
    headers = {"Content-Type": "application/json", "X-GitHub-Event": "deployment_status", "X-GitHub-Delivery": f"{number}", "X-Hub-Signature-256": signature}
    with urlopen(Request(f"{ledger.url}/webhooks/github", body, headers)) as answer:
        return json.load(answer)["outcome"]


def test_github_s_word_that_the_job_succeeded_makes_nothing_live(scenario: Scenario, app: str, ledger: Prop, clone: Clone, commits: list[str]) -> None:
    """The job ends green, and GitHub reports a deployment for it."""
    assert ledger.request("PATCH", "/v1/services/prop", {"repository_url": "https://github.com/prop-ledger/prop"})[0] == 200
    assert deliver(ledger, commits[0], "in_progress", 1) == "applied" and place(ledger)["running"]
    github = {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "prop-ledger/prop", "GITHUB_RUN_ID": "17"}
    ended = clone.run(scenario, **settings(app, ledger), GITHUB_ACTOR="erin", **github)
    assert (ended.code, ended.result["outcome"]) == (0, "superseded"), ended
    assert deliver(ledger, commits[0], "success", 2) == "unchanged"
    now = place(ledger)
    assert (now["live"]["version"], now["running"]) == ("1.4.1", None)
    assert [(one["version"], one["state"]) for one in ledger.get("/v1/deployments")["items"]] == [("1.4.2", "cancelled"), ("1.4.1", "succeeded")]


def test_what_is_superseded_needs_neither_gate_nor_ledger(scenario: Scenario, app: str, ledger: Prop, clone: Clone, commits: list[str]) -> None:
    ledger.post("/v1/freezes", {"environment": "staging", "reason": "Quarter end"})
    frozen = clone.run(scenario, **settings(app, ledger))
    assert (frozen.code, frozen.result["outcome"]) == (0, "superseded") and "Quarter end" in frozen.err, frozen
    for variables in ({}, {"PROP_URL": "http://127.0.0.1:9", "PROP_KEY": "x"}):
        ended = clone.run(scenario, APP_URL=app, **variables)
        assert (ended.code, ended.result["outcome"]) == (0, "superseded"), ended
        assert ("has not recorded" in ended.err) == bool(variables)
    assert not [one for one in ledger.get("/v1/deployments")["items"] if one["version"] == "1.4.2"]


def test_what_cannot_be_compared_is_deployed(scenario: Scenario, app: str, clone: Clone) -> None:
    """The commits of these images are in no repository."""
    ended = clone.run(scenario, APP_URL=app)
    assert ended.code == 0 and "cannot be compared" in ended.err, ended
    assert scenario.live_digest() == NEW


def test_it_waits_for_a_rollout_and_counts_its_result(scenario: Scenario, app: str, clone: Clone, newer: str) -> None:
    """1.4.3 is deployed by hand, while the image of the second commit waits."""
    rolling = clone.run(scenario, "staging", newer, APP_URL=app)
    assert rolling.code == 0, rolling
    service = scenario.read()["service"]
    service["deployments"][0] |= {"rolloutState": "IN_PROGRESS", "age": 0, "fate": "complete"}
    scenario.set(service=service, calls=[])
    ended = clone.run(scenario, "staging", OLD, "--json", APP_URL=app)
    assert (ended.code, ended.result["outcome"]) == (0, "superseded") and "another deployment of staging is running" in ended.err, ended
    assert scenario.live_digest() == newer


def test_it_waits_for_what_runs_in_the_ledger_up_to_a_limit(scenario: Scenario, app: str, ledger: Prop, clone: Clone, newer: str) -> None:
    release = {"service": "prop", "environment": "staging", "version": "1.4.2", "create_missing": True}
    running = ledger.post("/v1/deployments", release | {"start": True})
    ledger.post("/v1/releases", {"service": "prop", "version": "1.4.3", "image_digest": newer})
    late = clone.run(scenario, "staging", newer, **settings(app, ledger), TURN_SECONDS="0")
    assert late.code == 5 and scenario.calls(changing=True) == [], late
    process = clone.start(scenario, "staging", newer, **settings(app, ledger), TURN_SECONDS="60")
    asked = len(scenario.options("ecs describe-services"))
    wait_for(lambda: len(scenario.options("ecs describe-services")) > asked + 2)
    assert scenario.calls(changing=True) == [] and process.poll() is None
    ledger.post(f"/v1/deployments/{running['id']}/transitions", {"to": "cancelled"})
    ended = Run(process)
    assert ended.code == 0 and scenario.live_digest() == newer, ended
    assert "waiting: another deployment of staging is running" in ended.err and "blocked" not in ended.err, ended


def test_a_failed_deployment_is_not_repeated(scenario: Scenario, app: str, clone: Clone, newer: str) -> None:
    scenario.set(fates=["breaker"])
    ended = clone.run(scenario, "staging", newer, "--json", APP_URL=app)
    assert (ended.code, ended.result["outcome"]) == (6, "rolled_back"), ended


def test_without_history_it_stops(scenario: Scenario, app: str, clone: Clone, commits: list[str], tmp_path: Path) -> None:
    git("add", "--all", at=clone.directory)
    clone.commit("the scripts")
    shallow = Clone.__new__(Clone)
    shallow.directory = tmp_path / "shallow"
    git("clone", "--quiet", "--depth", "1", f"file://{clone.directory}", shallow.directory)
    ended = shallow.run(scenario, APP_URL=app)
    assert ended.code == 3 and "fetch-depth: 0" in ended.err and scenario.calls() == [], ended


@pytest.mark.parametrize(("arguments", "message"), [(["staging"], "VERSION or DIGEST"), (["nowhere", NEW], "unknown environment"), (["staging", NEW, "--resume"], "unknown option")])
def test_a_wrong_argument_is_reported(scenario: Scenario, clone: Clone, arguments: list[str], message: str) -> None:
    ended = clone.run(scenario, *arguments)
    assert ended.code == 2 and message in ended.err, ended
    shown = clone.run(scenario, "--help")
    assert shown.code == 0 and "Exit codes:" in shown.out
