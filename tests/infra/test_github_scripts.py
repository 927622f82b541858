"""The scripts that speak with GitHub and prop, each by itself: what they make, what they refuse, what they leave alone."""

import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from github import REPOSITORY, GitHub, running_github
from prop import Prop, running_prop
from serving import serving
from stub_aws import NEW
from workflow import ROOT, path_with

VALUES = {
    "PROP_URL": "https://prop.example.org", "STAGING_ROLE_ARN": "arn:staging", "PRODUCTION_ROLE_ARN": "arn:production", "PIPELINE_KEY": "prop_pipeline",
    "MIRROR_KEY": "prop_mirror", "ATTEST_KEY": "prop_scanner", "SLACK_WEBHOOK": "https://hooks.example.org/services/very-secret",
}  # fmt: skip
REVIEWERS = ["--reviewer", "alice", "--reviewer", "prop-ledger/platform"]


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": path_with(ROOT / ".venv/infra/bin"), "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run([ROOT / "scripts" / script, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


@pytest.fixture
def github() -> Iterator[GitHub]:
    with running_github(GitHub()) as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Prop]:
    """prop as setup-ledger.sh leaves it, with a release 1.4.2 that was in staging."""
    with running_prop(tmp_path) as prop:
        assert run("setup-ledger.sh", PROP_URL=prop.url, PROP_KEY=prop.key).returncode == 0
        deployment = {"service": "prop", "environment": "staging", "version": "1.4.2", "image_digest": NEW, "create_missing": True, "start": True}
        made = prop.post("/v1/deployments", deployment)
        prop.post(f"/v1/deployments/{made['id']}/transitions", {"to": "succeeded"})
        yield prop


# --- setup-github.sh


def setup(github: GitHub, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return run("setup-github.sh", REPOSITORY, *arguments, **({"GITHUB_TOKEN": "admin", "GITHUB_API_URL": github.url} | variables))


def test_it_makes_what_the_workflow_needs(github: GitHub) -> None:
    ended = setup(github, *REVIEWERS, **VALUES)
    assert ended.returncode == 0, ended.stderr
    staging, production = github.environments["staging"], github.environments["production"]
    assert production.reviewers == [{"type": "Team", "id": 201}, {"type": "User", "id": 101}]
    assert production.prevent_self_review and not staging.prevent_self_review and staging.reviewers == []
    for environment, role in ((staging, "arn:staging"), (production, "arn:production")):
        assert environment.policy == {"protected_branches": False, "custom_branch_policies": True}
        assert list(environment.branches.values()) == ["main"]
        assert environment.variables == {"AWS_ROLE_ARN": role}
    keys = {"PROP_KEY": "prop_pipeline", "PROP_MIRROR_KEY": "prop_mirror"}
    assert production.secrets == keys, "no job of production can report a scan"
    assert staging.secrets == keys | {"PROP_ATTEST_KEY": "prop_scanner"}
    assert github.variables == {"PROP_URL": "https://prop.example.org"}
    assert github.secrets == {"SLACK_WEBHOOK": VALUES["SLACK_WEBHOOK"]}
    for secret in ("prop_pipeline", "prop_mirror", "prop_scanner", "very-secret", "admin"):
        assert secret not in ended.stdout + ended.stderr


def test_a_second_run_changes_nothing(github: GitHub) -> None:
    assert setup(github, *REVIEWERS, **VALUES).returncode == 0
    github.calls.clear()
    without_secrets = {name: VALUES[name] for name in ("PROP_URL", "STAGING_ROLE_ARN", "PRODUCTION_ROLE_ARN")}
    ended = setup(github, *REVIEWERS, **without_secrets)
    assert ended.returncode == 0, ended.stderr
    assert github.changing_calls() == []
    # Nor one that names no reviewers: those who are there stay.
    assert setup(github).returncode == 0
    assert github.changing_calls() == []


def test_it_fixes_what_is_different(github: GitHub) -> None:
    setup(github, *REVIEWERS, **VALUES)
    production = github.environments["production"]
    production.prevent_self_review, production.wait_timer = False, 30
    production.branches[99] = "*"
    ended = setup(github, "--check", *REVIEWERS, **VALUES)
    assert ended.returncode == 4
    assert "prevent_self_review is false, not true" in ended.stderr and "'*' is allowed to deploy to production" in ended.stderr
    github.calls.clear()
    assert setup(github, "--reviewer", "bob", PROP_URL="https://elsewhere.example.org").returncode == 0
    assert production.prevent_self_review and production.reviewers == [{"type": "User", "id": 102}]
    assert production.wait_timer == 30, "how long it waits is not ours to say"
    assert list(production.branches.values()) == ["main"] and github.variables["PROP_URL"] == "https://elsewhere.example.org"


def test_check_changes_nothing_and_reports_what_is_missing(github: GitHub) -> None:
    ended = setup(github, "--check")
    assert ended.returncode == 4, ended.stderr
    for missing in ("environment staging does not exist", "environment production does not exist", "no reviewers", "no AWS access for staging", "PROP_URL is missing"):
        assert missing in ended.stderr
    assert setup(github, "--dry-run", *REVIEWERS, **VALUES).returncode == 0
    assert github.changing_calls() == []
    setup(github, *REVIEWERS, **VALUES)
    ready = setup(github, "--check", *REVIEWERS, **VALUES)
    assert ready.returncode == 0, ready.stderr


def test_the_assignment_s_secrets_are_enough(github: GitHub) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s3cr3t", "SLACK_WEBHOOK": "https://hooks.example.org/x"}
    assert setup(github, *REVIEWERS, **keys).returncode == 0
    assert github.secrets == keys
    assert "no AWS access" not in setup(github, "--check").stderr


def test_required_reviewers_can_be_left_out(github: GitHub) -> None:
    github.private, github.plan_has_reviewers = True, False
    refused = setup(github, *REVIEWERS, **VALUES)
    assert refused.returncode == 1
    assert "required reviewers need a public repository" in refused.stderr and "--no-reviewers" in refused.stderr
    ended = setup(github, "--no-reviewers", **VALUES)
    assert ended.returncode == 0, ended.stderr
    assert github.environments["production"].reviewers == []


WEBHOOK = {"PROP_URL": "https://prop.example.org", "WEBHOOK_SECRET": "very-secret"}


def test_the_webhook_is_made_and_corrected_and_its_secret_is_shown_to_nobody(github: GitHub) -> None:
    setup(github, *REVIEWERS, **VALUES)
    foreign = {"id": 1, "name": "web", "active": False, "events": ["push"], "config": {"url": "https://ci.example.org/webhooks/github"}}
    github.hooks[1] = foreign.copy()
    missing = setup(github, "--webhook", "--check", PROP_URL="https://prop.example.org")
    assert missing.returncode == 4 and "no webhook for https://prop.example.org/webhooks/github" in missing.stderr
    assert setup(github, "--webhook", "--dry-run", **WEBHOOK).returncode == 0 and list(github.hooks) == [1]
    made = setup(github, "--webhook", **WEBHOOK)
    assert made.returncode == 0, made.stderr
    (key,) = set(github.hooks) - {1}
    config = {"url": "https://prop.example.org/webhooks/github", "content_type": "json", "insecure_ssl": "0", "secret": "very-secret"}
    events = ["deployment", "deployment_status", "workflow_run"]
    wanted = {"id": key, "name": "web", "active": True, "events": events, "config": config}
    assert github.hooks == {1: foreign, key: wanted}
    # Nobody can read the secret, so without a new one the old one stays, and all is well.
    github.calls.clear()
    assert setup(github, "--webhook", "--check", PROP_URL="https://prop.example.org").returncode == 0
    assert setup(github, "--webhook", PROP_URL="https://prop.example.org").returncode == 0
    assert github.changing_calls() == []
    github.hooks[key] |= {"active": False, "events": ["push"], "config": config | {"content_type": "form"}}
    fixed = setup(github, "--webhook", PROP_URL="https://prop.example.org")
    assert fixed.returncode == 0 and "active is false, not true" in fixed.stderr and 'content_type is "form"' in fixed.stderr, fixed.stderr
    assert github.hooks == {1: foreign, key: wanted}, "and the secret that it had"
    new = setup(github, "--webhook", **WEBHOOK | {"WEBHOOK_SECRET": "another-secret"})
    assert github.hooks[key]["config"]["secret"] == "another-secret"
    for ended in (made, fixed, new):
        assert "-secret" not in ended.stdout + ended.stderr


def test_without_the_option_there_is_no_webhook(github: GitHub) -> None:
    assert setup(github, *REVIEWERS, **VALUES | WEBHOOK).returncode == 0
    assert github.hooks == {}


def test_the_architecture_is_a_variable(github: GitHub) -> None:
    assert setup(github, *REVIEWERS, **VALUES, CPU_ARCHITECTURE="ARM64").returncode == 0
    assert github.variables["CPU_ARCHITECTURE"] == "ARM64"


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "message"),
    [
        ([], {}, 2, "missing reviewers of production"),
        (["--reviewer", "alice", "--webhook"], {"WEBHOOK_SECRET": "x"}, 3, "PROP_URL is not set"),
        (["--reviewer", "alice", "--webhook"], {"PROP_URL": "https://prop.example.org"}, 3, "WEBHOOK_SECRET is not set"),
        (["--reviewer", "alice"], {"CPU_ARCHITECTURE": "arm"}, 2, "X86_64 or ARM64"),
        (["--reviewer", "alice", "--no-reviewers"], {}, 2, "cannot be combined"),
        (["--reviewer", "mallory"], {}, 1, "404"),
        (["--reviewers", "alice"], {}, 2, "unknown option"),
        (["--reviewer"], {}, 2, "missing value for --reviewer"),
        (["--reviewer", "alice"], {"GITHUB_TOKEN": "wrong"}, 1, "Bad credentials"),
        (["--reviewer", "alice"], {"GITHUB_TOKEN": ""}, 3, "GITHUB_TOKEN is not set"),
        (["--reviewer", "alice"], {"GITHUB_API_URL": "http://127.0.0.1:9"}, 1, "no response"),
    ],
)
def test_it_refuses_before_it_changes_anything(github: GitHub, arguments: list[str], variables: dict, code: int, message: str) -> None:
    ended = setup(github, *arguments, **variables)
    assert (ended.returncode, message in ended.stderr) == (code, True), ended.stderr
    assert github.changing_calls() == []


# --- setup-ledger.sh


def test_the_ledger_is_made_ready_and_again(tmp_path: Path) -> None:
    with running_prop(tmp_path) as prop:
        prop.post("/v1/environments", {"slug": "production", "tier": "testing"})
        admin = {"PROP_URL": prop.url, "PROP_KEY": prop.key}
        assert run("setup-ledger.sh", "--keys", "--dry-run", **admin).returncode == 0
        assert [one["slug"] for one in prop.get("/v1/environments")["items"]] == ["production"]
        for soak in ("0", "30"):
            ended = run("setup-ledger.sh", "--keys", "--soak", soak, "--repository", REPOSITORY, **admin)
            assert ended.returncode == 0, ended.stderr
            # Whether a pipeline has recorded it before or not.
            assert prop.get("/v1/services/prop")["repository_url"] == f"https://github.com/{REPOSITORY}"
            production = prop.get("/v1/environments/production")
            policy = {name: production[name] for name in ("tier", "predecessor", "require_scan", "required_approvals", "soak_minutes")}
            assert policy == {"tier": "production", "predecessor": "staging", "require_scan": True, "required_approvals": 1, "soak_minutes": int(soak)}
        # Those of the first run stay valid, so those of the second have names of their own.
        names = [one["name"] for one in prop.get("/v1/keys")["items"]]
        assert names == [
            "github-approvals-2", "scanner-2", "pipeline-2", "github-approvals", "scanner", "pipeline", "bootstrap",
        ]
        keys = dict(line.removeprefix("export ").split("=", 1) for line in ended.stdout.splitlines())
        pipeline, scanner, mirror = keys["PIPELINE_KEY"], keys["ATTEST_KEY"], keys["MIRROR_KEY"]
        # What deploys can't say that a scan passed, and what says so can't deploy.
        release = prop.request("POST", "/v1/releases", {"service": "prop", "version": "1"}, pipeline)[1]
        scan = f"/v1/releases/{release['id']}/scan"
        assert prop.request("PUT", scan, {"tool": "trivy"}, pipeline)[0] == 403
        assert prop.request("PUT", scan, {"tool": "trivy"}, scanner)[0] == 200
        assert prop.request("POST", "/v1/releases", {"service": "prop", "version": "2"}, scanner)[0] == 403
        # What deploys can't say that somebody approved, and what says so can't deploy.
        approval = {"service": "x", "version": "1", "environment": "production", "decision": "approved", "source": "github", "approver": "a", "run_url": "https://x.example"}
        assert prop.request("POST", "/v1/approvals", approval, pipeline)[0] == 403
        assert prop.request("POST", "/v1/approvals", approval, mirror)[0] == 404
        assert prop.request("POST", "/v1/releases", {"service": "x", "version": "1"}, mirror)[0] == 403
        refused = run("setup-ledger.sh", PROP_URL=prop.url, PROP_KEY=pipeline)
        assert refused.returncode == 1 and "prop rejected the environment staging" in refused.stderr


# --- record-approval.sh


def record(github: GitHub, ledger: Prop | None, *arguments: str, permissions: str = "actions", **variables: str) -> subprocess.CompletedProcess:
    github.tokens["job"] = {permissions: "read"}
    of_ledger = {"PROP_URL": ledger.url, "PROP_KEY": ledger.new_key("mirror", "mirror")} if ledger else {}
    of_run = {"GITHUB_TOKEN": "job", "GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_RUN_ID": "17", "GITHUB_SERVER_URL": "https://github.com"}
    return run("record-approval.sh", *(arguments or ("production", "1.4.2")), **(of_run | of_ledger | variables))


def reviewed(github: GitHub, *reviews: tuple[str, str, str]) -> None:
    """Who said what about which environment, the newest first, as GitHub lists it."""
    github.reviews["17"] = [
        {"state": state, "comment": "", "user": {"login": login}, "environments": [{"name": environment}]} for login, state, environment in reviews
    ]


def approvals(ledger: Prop) -> list[tuple[str, str]]:
    return [(one["approver"], one["decision"]) for one in reversed(ledger.get("/v1/approvals")["items"])]


def test_an_approval_is_recorded_once(github: GitHub, ledger: Prop) -> None:
    reviewed(github, ("alice", "approved", "production"), ("carol", "approved", "staging"), ("bob", "pending", "production"))
    for message in ("recorded for prop 1.4.2", "already recorded"):
        ended = record(github, ledger)
        assert ended.returncode == 0 and message in ended.stderr, ended.stderr
    assert approvals(ledger) == [("alice", "approved")]
    # Used up by the deployment that started with it: still no reason to fail, and nothing to report.
    ledger.request("PUT", f"/v1/releases/{ledger.get('/v1/releases')['items'][0]['id']}/scan", {"tool": "trivy"})
    ledger.post("/v1/deployments", {"service": "prop", "environment": "production", "version": "1.4.2", "start": True})
    ended = record(github, ledger)
    assert ended.returncode == 0 and "a deployment has used it" in ended.stderr, ended.stderr


def test_what_was_rejected_and_then_approved_is_approved(github: GitHub, ledger: Prop) -> None:
    reviewed(github, ("alice", "approved", "production"), ("alice", "rejected", "production"))
    assert record(github, ledger).returncode == 0
    assert approvals(ledger) == [("alice", "rejected"), ("alice", "approved")]
    # A run that is started again is reviewed again, by the same person: another approval.
    reviewed(github, ("alice", "approved", "production"), ("alice", "approved", "production"), ("alice", "rejected", "production"))
    assert record(github, ledger).returncode == 0
    assert approvals(ledger) == [("alice", "rejected"), ("alice", "approved"), ("alice", "approved")]


def test_a_run_that_nobody_reviewed_records_nothing(github: GitHub, ledger: Prop) -> None:
    ended = record(github, ledger)
    assert ended.returncode == 0 and "required no approval" in ended.stderr
    assert approvals(ledger) == []


def test_an_unreachable_ledger_is_a_warning(github: GitHub) -> None:
    reviewed(github, ("alice", "approved", "production"))
    away = {"PROP_URL": "http://127.0.0.1:9", "PROP_KEY": "x"}
    ended = record(github, None, **away)
    assert ended.returncode == 0 and "Cannot reach prop" in ended.stderr
    assert record(github, None, "production", "1.4.2", "--require-ledger", **away).returncode == 3
    assert record(github, None).returncode == 0, "no ledger, nothing to report"


def test_a_review_that_prop_rejects_is_an_error(github: GitHub, ledger: Prop) -> None:
    reviewed(github, ("alice", "approved", "production"))
    unknown = record(github, ledger, "production", "9.9.9")
    assert unknown.returncode == 1 and "prop rejected" in unknown.stderr
    assert record(github, ledger, permissions="contents").returncode == 1, "a token that may not read actions"
    assert record(github, ledger, "production").returncode == 2
    assert record(github, ledger, "production", "1.4.2", "--dry-run").returncode == 0
    assert approvals(ledger) == []


# --- plan-comment.sh, smoke.sh, notify.sh, scan.sh


def test_a_long_plan_is_cut_and_nobody_else_s_comment_is_touched(github: GitHub, tmp_path: Path) -> None:
    plan = tmp_path / "staging.txt"
    plan.write_text("Refreshing...\nTerraform will perform the following actions:\n" + "  │ ~~~ é\n" * 20_000 + "Plan: 3 to add, 0 to change, 1 to destroy.\n")
    github.tokens["job"] = {"pull-requests": "write"}
    foreign = {"id": 1, "issue": "7", "body": "<!-- prop: terraform plan -->\nmine", "user": {"login": "mallory", "type": "User"}}
    github.comments[1] = foreign.copy()
    github.serial = 1
    variables = {"GITHUB_TOKEN": "job", "GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": REPOSITORY, "PULL_REQUEST": "7", "GITHUB_RUN_ID": "17"}
    for _ in range(2):
        ended = run("plan-comment.sh", str(plan), **variables)
        assert ended.returncode == 0, ended.stderr
    assert github.comments[1] == foreign
    assert len(github.comments) == 2
    body = github.comments[2]["body"]
    assert len(body) < 65_536 and "Plan: 3 to add" in body and "Truncated" in body and "Refreshing" not in body


def test_smoke_wants_the_image_that_was_deployed(tmp_path: Path) -> None:
    with running_prop(tmp_path, PROP_IMAGE_DIGEST=NEW) as prop:
        good = run("smoke.sh", prop.url, NEW)
        assert good.returncode == 0, good.stderr
        wrong = run("smoke.sh", prop.url, f"sha256:{'f' * 64}", SMOKE_SECONDS="1")
        assert wrong.returncode == 1 and "GET /version returned" in wrong.stderr
    assert run("smoke.sh", "http://127.0.0.1:9", SMOKE_SECONDS="1").returncode == 1


def test_smoke_verifies_a_certificate_unless_it_cannot_be_for_that_name(tmp_path: Path) -> None:
    """deploy.sh passes on the load balancer's own name where APP_URL is not set, and does not verify it either."""
    with running_prop(tmp_path) as prop, serving(forward_to(prop.url), certificate_for="prop.example.org") as url:
        port = url.rpartition(":")[2]
        # curl connects to this machine, whatever name it is given, and knows no authority that this certificate is of.
        (tmp_path / ".curlrc").write_text(f'connect-to = "::127.0.0.1:{port}"\n')
        for host, code in (("prop-alb-1.ap-south-1.elb.amazonaws.com", 0), ("prop.example.org", 1), ("elb.amazonaws.com.example.org", 1)):
            ended = run("smoke.sh", f"https://{host}", SMOKE_SECONDS="1", HOME=str(tmp_path))
            assert ended.returncode == code, ended.stderr
            assert ("is not verified" in ended.stderr) == (code == 0)


def forward_to(url: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer = urllib.request.urlopen(url + self.path, timeout=10)
            except urllib.error.HTTPError as error:
                answer = error
            data = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler


def test_slack_is_no_reason_to_fail() -> None:
    jobs = '{"test": {"result": "success"}, "deploy-production": {"result": "failure"}, "plan": {"result": "skipped"}}'
    ended = run("notify.sh", JOBS=jobs, SLACK_WEBHOOK_URL="http://127.0.0.1:9/very-secret")
    assert ended.returncode == 0 and ":x: failed: deploy-production" in ended.stderr
    assert "Cannot notify Slack" in ended.stderr and "very-secret" not in ended.stderr
    assert ":heavy_minus_sign: cancelled: test" in run("notify.sh", JOBS='{"test": {"result": "cancelled"}}').stderr


def test_slack_is_told_that_a_newer_commit_is_live() -> None:
    jobs = '{"deploy-staging": {"result": "success", "outputs": {"outcome": "superseded"}}, "smoke": {"result": "skipped", "outputs": {}}}'
    assert ":fast_forward: superseded: deploy-staging, because a newer commit is live" in run("notify.sh", JOBS=jobs).stderr


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("record-approval.sh", ["--what"]),
        ("setup-ledger.sh", ["--soak", "long"]),
        ("setup-ledger.sh", ["--repository", "prop"]),
        ("plan-comment.sh", []),
        ("plan-comment.sh", ["no-such-file.txt"]),
        ("smoke.sh", ["ftp://x"]),
        ("smoke.sh", ["http://x", "latest"]),
        ("notify.sh", []),
        ("scan.sh", []),
        ("scan.sh", ["image", "prop:latest", "1.4.2"]),
        ("scan.sh", ["everything"]),
    ],
)
def test_a_wrong_argument_is_reported_and_ends_with_2(script: str, arguments: list[str]) -> None:
    ended = run(script, *arguments)
    assert ended.returncode == 2 and f"See {script} --help." in ended.stderr, ended.stderr


@pytest.mark.parametrize("script", ["record-approval.sh", "setup-github.sh", "setup-ledger.sh", "plan-comment.sh", "smoke.sh", "notify.sh", "scan.sh"])
def test_help_describes_the_script(script: str) -> None:
    ended = run(script, "--help")
    assert ended.returncode == 0 and "Usage:" in ended.stdout and "Exit codes:" in ended.stdout
