"""ci-cd.yml as it is written: what must be so whoever changes it. test_workflows.py has what holds for every workflow."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from workflow import ROOT, load, needs

WORKFLOW = load()
JOBS = WORKFLOW["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]
DEPLOYS = re.compile(r"scripts/(deploy|deploy-in-turn|rollback)\.sh")


def runs(job: str) -> str:
    return "\n".join(step.get("run", "") for step in JOBS[job]["steps"])


def environment(job: str) -> str | None:
    found = JOBS[job].get("environment")
    return found["name"] if isinstance(found, dict) else found


def all_needs(job: str) -> set[str]:
    """Everything that must have succeeded before."""
    direct = needs(JOBS[job])
    return set(direct).union(*(all_needs(one) for one in direct))


def test_production_comes_after_staging_and_its_environment() -> None:
    assert environment("deploy-production") == "production"
    assert all_needs("deploy-production") == {"test", "check", "scan", "build", "deploy-staging", "smoke"}
    # Nothing that would let it go on without them.
    assert "if" not in JOBS["deploy-production"]
    assert not any("continue-on-error" in job for job in JOBS.values())
    assert not any("continue-on-error" in step for _, step in STEPS)


def test_no_other_job_waits_for_a_reviewer_or_gets_an_environment_s_secrets() -> None:
    found = {name: environment(name) for name in JOBS if environment(name)}
    assert found == {
        "build": "staging", "deploy-staging": "staging", "rejection": "staging", "deploy-production": "production", "redeploy": "${{ inputs.environment }}"
    }  # fmt: skip


def test_only_what_deploys_is_a_deployment_on_github() -> None:
    """A job that only needs an environment's secrets must not reach prop, by webhook, as a deployment into it."""
    silent = {name for name in JOBS if isinstance(found := JOBS[name].get("environment"), dict) and found.get("deployment") is False}
    assert silent == {"build", "rejection"}
    assert all(DEPLOYS.search(runs(name)) for name in JOBS if environment(name) and name not in silent)


def test_the_approval_is_mirrored_before_anything_starts() -> None:
    commands = [step["run"] for step in JOBS["deploy-production"]["steps"] if "run" in step]
    assert commands[0].startswith("./scripts/record-approval.sh production")
    assert commands[1].startswith("./scripts/deploy-in-turn.sh production")


def test_one_image_goes_through_by_one_digest() -> None:
    built = [name for name in JOBS if "build.sh" in runs(name)]
    assert built == ["build"]
    digest = "${{ needs.build.outputs.digest }}"
    assert JOBS["build"]["outputs"]["digest"] == "${{ steps.build.outputs.digest }}"
    for name in ("deploy-staging", "deploy-production", "smoke"):
        acting = [step for step in JOBS[name]["steps"] if "DIGEST" in step.get("env", {})]
        assert [step["env"]["DIGEST"] for step in acting] == [digest], name
        assert all('"$DIGEST"' in step["run"] for step in acting)


def test_no_job_that_may_wait_for_a_reviewer_holds_up_others() -> None:
    """It would keep its turn in a concurrency group until somebody answers, for up to 30 days."""
    assert {name for name in JOBS if "concurrency" in JOBS[name]} == {"deploy-staging"}
    assert JOBS["deploy-staging"]["concurrency"] == {"group": "deploy-staging", "queue": "max", "cancel-in-progress": False}
    # So the script sees to it that deployments wait for each other, and that none goes back.
    for name in ("deploy-staging", "deploy-production"):
        assert "./scripts/deploy-in-turn.sh" in runs(name)
        assert JOBS[name]["steps"][0]["with"]["fetch-depth"] == 0, "it compares commits"


def test_deployments_are_never_cancelled() -> None:
    # A whole run is cancelled by a newer one of the same pull request only.
    assert WORKFLOW["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    assert WORKFLOW["concurrency"]["group"].endswith("${{ github.event.pull_request.number || github.run_id }}")


def test_a_pull_request_of_a_fork_sees_no_secret() -> None:
    assert set(WORKFLOW["on"]) == {"pull_request", "push", "workflow_dispatch"}, "pull_request_target would give them secrets"
    for name, job in JOBS.items():
        wants = yaml.dump(job)
        if "secrets." not in wants and "configure-aws-credentials" not in wants:
            continue
        never = f"{job.get('if', '')}" + "".join(f"{JOBS[one].get('if', '')}" for one in all_needs(name))
        assert (
            "github.event.pull_request.head.repo.full_name == github.repository" in never
            or "github.event_name == 'push'" in never
            or "github.event_name == 'workflow_dispatch'" in never
            or "github.event_name != 'pull_request'" in never
        ), name


def test_secrets_that_deploy_are_an_environment_s() -> None:
    """Those of the repository are what the assignment names; every other is seen by protected jobs only."""
    for name, job in JOBS.items():
        named = set(re.findall(r"secrets\.(\w+)", yaml.dump(job)))
        if environment(name) is None:
            assert named <= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "SLACK_WEBHOOK"}, name
    deploying = [step for _, step in STEPS if "record-approval.sh" in step.get("run", "")]
    assert {step["env"]["PROP_KEY"] for step in deploying} == {"${{ secrets.PROP_MIRROR_KEY }}"}, "what deploys can't approve"
    others = [step for _, step in STEPS if re.search(r"(deploy|deploy-in-turn|rollback|scan)\.sh", step.get("run", "")) and "PROP_KEY" in step.get("env", {})]
    assert {step["env"]["PROP_KEY"] for step in others} == {"${{ secrets.PROP_KEY }}"}
    scanning = {name for name, job in JOBS.items() if "PROP_ATTEST_KEY" in yaml.dump(job)}
    assert scanning == {"build"}, "what deploys can't say that a scan passed"


def test_every_outcome_is_reported() -> None:
    assert set(needs(JOBS["notify"])) == set(JOBS) - {"notify", "plan"}
    assert "always()" in JOBS["notify"]["if"]


def test_versions_are_those_of_the_project() -> None:
    required = re.search(r'required_version\s*=\s*">=? ?~?>? ?([\d.]+)', (ROOT / "terraform/versions.tf").read_text())
    assert required and WORKFLOW["env"]["TERRAFORM_VERSION"].startswith(required[1])
    parts = {"app"} | set(JOBS["check"]["strategy"]["matrix"]["part"])
    assert parts == set(re.search(r"\[ \$# -gt 0 \] \|\| set -- (.*)", (ROOT / "scripts/test.sh").read_text())[1].split())


def test_dispatch_can_redeploy_and_roll_back() -> None:
    inputs = WORKFLOW["on"]["workflow_dispatch"]["inputs"]
    assert inputs["environment"]["options"] == ["staging", "production"]
    assert inputs["version"]["default"] == ""
    assert environment("redeploy") == "${{ inputs.environment }}"
    by_condition = {step["if"]: step["run"].split()[0] for step in JOBS["redeploy"]["steps"] if "deploy.sh" in step.get("run", "") or "rollback.sh" in step.get("run", "")}
    assert by_condition == {"inputs.version != ''": "./scripts/deploy.sh", "inputs.version == ''": "./scripts/rollback.sh"}


def test_denied_dependencies_are_configured() -> None:
    deny = tomllib.loads((ROOT / "deny.toml").read_text())
    assert deny["advisories"]["yanked"] == "deny" and deny["advisories"]["ignore"] == []
    assert deny["sources"] == {"unknown-registry": "deny", "unknown-git": "deny", "allow-registry": ["https://github.com/rust-lang/crates.io-index"]}
    assert not {"GPL-3.0", "AGPL-3.0"} & set(deny["licenses"]["allow"])


@pytest.mark.parametrize("file", [".github/dependabot.yml", *sorted(str(one.relative_to(ROOT)) for one in (ROOT / ".github/ISSUE_TEMPLATE").iterdir())])
def test_the_files_beside_it_are_yaml(file: str) -> None:
    assert yaml.safe_load((ROOT / file).read_text())


def test_dependabot_reads_folders_that_exist() -> None:
    for update in yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]:
        for directory in [update["directory"]] if "directory" in update else update["directories"]:
            manifests = {"cargo": "Cargo.toml", "terraform": "versions.tf", "docker": "Dockerfile", "pip": "requirements.txt", "npm": "package.json", "github-actions": "README.md"}
            found = list(Path(ROOT).glob(f"{directory.strip('/') or '.'}/{manifests[update['package-ecosystem']]}"))
            assert found, f"{update['package-ecosystem']} finds nothing in {directory}"
