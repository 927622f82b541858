"""What must hold for every workflow, whoever changes it."""

import re
import subprocess
from pathlib import Path

import pytest
from workflow import FILE, ROOT, load

FILES = sorted(FILE.parent.iterdir())
WORKFLOWS = {file.name: load(file) for file in FILES}
JOBS = {f"{file}: {name}": job for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()}
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]
TEXT = "".join(file.read_text() for file in FILES)
RUNNERS = {"ubuntu-24.04", "ubuntu-24.04-arm", "macos-15"}


def uses(job: dict) -> set[str]:
    return {step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step}


def runs(job: dict) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_these_are_all() -> None:
    assert list(WORKFLOWS) == ["ci-cd.yml", "release.yml"]


def test_every_action_is_pinned_and_has_its_version_beside_it() -> None:
    lines = re.findall(r"uses: (.*)", TEXT)
    assert len(lines) == len([step for _, step in STEPS if "uses" in step])
    for line in lines:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_the_table_of_actions_is_this() -> None:
    table = re.findall(r"^\| ([\w./-]+) \| (v[\d.]+) \| `([0-9a-f]{40})` \| (.{30,}) \|$", (ROOT / "docs/actions.md").read_text(), re.MULTILINE)
    used = set(re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v\S+)", TEXT))
    assert {(action, commit, version) for action, version, commit, _ in table} == used
    assert len(table) == len(used), "one version of each"


def test_images_of_services_are_pinned() -> None:
    images = [service["image"] for job in JOBS.values() for service in job.get("services", {}).values()]
    assert images and all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images)


# A job has a permission because of an action that it uses, or of what its commands call: any of several.
REASONS = {
    ("contents", "read"): ("actions/checkout",),
    ("contents", "write"): ("release.sh publish",),
    ("packages", "write"): ("release.sh image",),
    ("id-token", "write"): ("aws-actions/configure-aws-credentials", "actions/attest"),
    ("attestations", "write"): ("actions/attest",),
    ("security-events", "write"): ("github/codeql-action/upload-sarif",),
    ("pull-requests", "write"): ("plan-comment.sh",),
    ("actions", "read"): ("record-approval.sh", "github/codeql-action/upload-sarif"),
}


@pytest.mark.parametrize("job", JOBS)
def test_no_job_may_do_more_than_it_does(job: str) -> None:
    needed = [permission for permission, reasons in REASONS.items() if any(reason in uses(JOBS[job]) or reason in runs(JOBS[job]) for reason in reasons)]
    # In the order above a write comes after the read that it includes.
    assert JOBS[job]["permissions"] == dict(needed)


@pytest.mark.parametrize("file", WORKFLOWS)
def test_a_workflow_gives_its_jobs_no_permission(file: str) -> None:
    assert WORKFLOWS[file]["permissions"] == {}


def test_checking_out_leaves_no_token_behind() -> None:
    checkouts = [step for _, step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == len(JOBS)
    for step in checkouts:
        assert {name: value for name, value in step["with"].items() if name != "fetch-depth"} == {"persist-credentials": False}


@pytest.mark.parametrize("job", JOBS)
def test_every_job_ends_on_a_runner_of_a_known_version(job: str) -> None:
    assert 0 < JOBS[job]["timeout-minutes"] <= 60
    runner = JOBS[job]["runs-on"]
    if runner == "${{ matrix.runner }}":
        runners = {entry["runner"] for entry in JOBS[job]["strategy"]["matrix"]["include"]}
    else:
        runners = set(re.findall(r"'((?:ubuntu|macos)-[^']*)'", runner)) or {runner}
    assert runners <= RUNNERS


@pytest.mark.parametrize("file", WORKFLOWS)
def test_runs_of_a_workflow_have_a_group(file: str) -> None:
    assert WORKFLOWS[file]["concurrency"].keys() == {"group", "cancel-in-progress"}


def test_what_is_longer_than_a_few_lines_is_a_script() -> None:
    for name, step in STEPS:
        lines = step.get("run", "").strip().splitlines()
        assert len(lines) <= 3, f"{name}: {step}"
    for script in set(re.findall(r"\./(scripts/[\w-]+\.sh)", TEXT)):
        assert (ROOT / script).stat().st_mode & 0o111, f"{script} is not there, or can't be run"


def test_nothing_from_outside_is_put_into_a_command() -> None:
    """An expression in a command is text that a shell reads: it comes by the environment, which it does not."""
    for _, step in STEPS:
        assert "${{" not in step.get("run", "")


SLIPS = [
    ("queue: max", "queues: max", "Unexpected value 'queues'"),
    ("deployment: false", "deploys: false", "Unexpected value 'deploys'"),
    ("needs: build\n", "needs: builds\n", "depends on unknown job 'builds'"),
    ("steps.deploy.outputs.url", "steps.deployed.outputs.url", "might be invalid: deployed"),
    ("needs.build.outputs.digest", "needs.build.outputs.digests", "might be invalid: digests"),
    ("hashFiles('reports/*.sarif')", "hashFolder('reports/*.sarif')", "Unrecognized function: 'hashFolder'"),
    ("github.run_id }}", "github.run_id ) }}", "Unexpected symbol"),
]


def test_github_s_own_reading_finds_a_slip(tmp_path: Path) -> None:
    copies = [tmp_path / f"slip-{number}.yml" for number in range(len(SLIPS))]
    for copy, (right, wrong, _) in zip(copies, SLIPS, strict=True):
        copy.write_text(FILE.read_text().replace(right, wrong))
    command = ["node", ROOT / "tests/workflows/check.js", *FILES, *copies]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert not [line for line in ended.stdout.splitlines() if not line.startswith(str(tmp_path))]
    for copy, (_, _, complaint) in zip(copies, SLIPS, strict=True):
        assert [line for line in ended.stdout.splitlines() if line.startswith(f"{copy}:") and complaint in line], complaint
