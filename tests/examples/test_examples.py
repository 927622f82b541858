"""The examples in docs/examples/, run against a real prop.

GitHub's and GitLab's runners are played: their variables are set, their `run:` and `script:` lines
run in the shell that they use, and the steps behind a failure run when the file says so.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from expressions import condition, fill_in, read
from prop import Prop, running_prop

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs/examples"
DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SHA = "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d"
PROGRAMS = {"bash": [EXAMPLES / "deploy.sh"], "python": [sys.executable, EXAMPLES / "deploy.py"]}


@pytest.fixture
def prop(tmp_path: Path) -> Iterator[Prop]:
    home = tmp_path / "ledger"
    home.mkdir()
    with running_prop(home) as prop:
        prop.post("/v1/environments", {"slug": "production", "tier": "production"})
        yield prop


def freeze(prop: Prop) -> None:
    prop.post("/v1/freezes", {"environment": "production", "reason": "Quarter end"})


def deployments(prop: Prop) -> list[dict[str, Any]]:
    return prop.get("/v1/deployments")["items"]


def only_deployment(prop: Prop) -> dict[str, Any]:
    (deployment,) = deployments(prop)
    return deployment


class Pipeline:
    """A folder with a rollout.sh that ends with the exit code it is given, and says that it ran."""

    def __init__(self, prop: Prop, folder: Path, rollout: str = "exit 0"):
        self.folder, self.key = folder / "pipeline", prop.new_key("pipeline", "deploy")
        self.folder.mkdir()
        self.program("rollout.sh", f'echo "rollout of $1"; touch rolled-out\n{rollout}')
        self.environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "PROP_URL": prop.url,
            "PROP_KEY": self.key,
        }

    def program(self, name: str, text: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    @property
    def rolled_out(self) -> bool:
        return (self.folder / "rolled-out").exists()


# --- bash and Python: one interface


def start(example: str, pipeline: Pipeline, run: str = "run-17") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAMS[example], "checkout", "production", "1.4.2", DIGEST, "./rollout.sh", "1.4.2"],
        cwd=pipeline.folder,
        env=pipeline.environment | {"RUN_ID": run},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("example", PROGRAMS)
def test_a_rollout_that_succeeds(example: str, prop: Prop, tmp_path: Path) -> None:
    pipeline = Pipeline(prop, tmp_path)
    code, out, err = ended(start(example, pipeline))
    assert (code, err) == (0, "") and "rollout of 1.4.2" in out
    found = only_deployment(prop)
    assert (found["state"], found["external_id"], found["image_digest"]) == ("succeeded", "run-17", DIGEST)
    # The same run again rolls nothing out, and records nothing.
    (pipeline.folder / "rolled-out").unlink()
    code, _, err = ended(start(example, pipeline))
    assert code == 1 and "has ended already: succeeded" in err
    assert not pipeline.rolled_out and len(deployments(prop)) == 1


@pytest.mark.parametrize("example", PROGRAMS)
def test_a_rollout_that_fails(example: str, prop: Prop, tmp_path: Path) -> None:
    pipeline = Pipeline(prop, tmp_path, "exit 7")
    code, _, _ = ended(start(example, pipeline))
    assert code == 7
    found = prop.get(f"/v1/deployments/{only_deployment(prop)['id']}/events")["items"]
    assert only_deployment(prop)["state"] == "failed"
    assert "exit code 7" in json.dumps(found)


@pytest.mark.parametrize("example", PROGRAMS)
def test_a_command_that_does_not_exist(example: str, prop: Prop, tmp_path: Path) -> None:
    pipeline = Pipeline(prop, tmp_path)
    (pipeline.folder / "rollout.sh").unlink()
    code, _, _ = ended(start(example, pipeline))
    assert code == 127 and only_deployment(prop)["state"] == "failed"


@pytest.mark.parametrize("example", PROGRAMS)
def test_a_cancelled_pipeline(example: str, prop: Prop, tmp_path: Path) -> None:
    pipeline = Pipeline(prop, tmp_path, "sleep 60")
    process = start(example, pipeline)
    deadline = time.monotonic() + 30
    while not pipeline.rolled_out and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    code, _, _ = ended(process)
    assert code == 143 and only_deployment(prop)["state"] == "failed"


@pytest.mark.parametrize("example", PROGRAMS)
def test_a_blocked_gate(example: str, prop: Prop, tmp_path: Path) -> None:
    freeze(prop)
    pipeline = Pipeline(prop, tmp_path)
    code, _, err = ended(start(example, pipeline))
    assert code == 4 and "Quarter end" in err
    assert not pipeline.rolled_out and deployments(prop) == []


@pytest.mark.parametrize("example", PROGRAMS)
def test_a_wrong_key(example: str, prop: Prop, tmp_path: Path) -> None:
    pipeline = Pipeline(prop, tmp_path)
    pipeline.environment["PROP_KEY"] = pipeline.key[:-1] + ("a" if pipeline.key[-1] != "a" else "b")
    code, out, err = ended(start(example, pipeline))
    assert code == 1 and "prop: " in err and not pipeline.rolled_out
    assert pipeline.environment["PROP_KEY"] not in out + err


@pytest.mark.parametrize("example", PROGRAMS)
def test_a_missing_argument(example: str) -> None:
    process = subprocess.run([*PROGRAMS[example], "checkout"], capture_output=True, text=True, check=False)
    assert process.returncode == 2 and "SERVICE ENVIRONMENT VERSION" in process.stderr


# --- GitHub Actions


def run_github(pipeline: Pipeline, prop: Prop, attempt: int = 1) -> tuple[bool, str]:
    """Runs the job's steps as GitHub does; whether it succeeded, and its log."""
    workflow = read(EXAMPLES / "github-actions.yml")
    assert workflow["defaults"] == {"run": {"shell": "bash"}}
    job = workflow["jobs"]["deploy"]
    failed, log, steps = False, "", {}
    contexts: dict[str, Any] = {
        "inputs": {"version": "1.4.2", "digest": DIGEST},
        "secrets": {"PROP_KEY": pipeline.key},
        "vars": {"PROP_URL": prop.url},
        "steps": steps,
    }
    functions = {"success": lambda: not failed, "always": lambda: True}
    runner = {
        "PATH": os.environ["PATH"],
        "GITHUB_SHA": SHA,
        "GITHUB_RUN_ID": "1017",
        "GITHUB_RUN_ATTEMPT": str(attempt),
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "prop-ledger/shop",
        "GITHUB_TRIGGERING_ACTOR": "dana",
    }

    def fill(values: dict[str, str]) -> dict[str, str]:
        return fill_in(values, contexts, functions)

    for step in job["steps"]:
        if "uses" in step:
            continue
        outcome, outputs = "skipped", pipeline.folder / "outputs"
        if condition(step.get("if"), contexts, functions):
            outputs.write_text("")
            process = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", fill_in(step["run"], contexts, functions)],
                cwd=pipeline.folder,
                env=runner | fill(job["env"]) | fill(step.get("env", {})) | {"GITHUB_OUTPUT": str(outputs)},
                capture_output=True,
                text=True,
                check=False,
            )
            log += process.stdout + process.stderr
            outcome = "failure" if process.returncode else "success"
            failed = failed or outcome == "failure"
        if "id" in step:
            lines = outputs.read_text().splitlines() if outcome != "skipped" else []
            steps[step["id"]] = {"outcome": outcome, "outputs": dict(line.split("=", 1) for line in lines)}
    assert pipeline.key not in log
    return not failed, log


def test_github_records_both_outcomes(prop: Prop, tmp_path: Path) -> None:
    pipeline = Pipeline(prop, tmp_path)
    assert run_github(pipeline, prop)[0]
    found = only_deployment(prop)
    assert (found["state"], found["external_id"], found["requested_by"]) == ("succeeded", "1017-1", "dana")
    assert found["run_url"] == "https://github.com/prop-ledger/shop/actions/runs/1017"
    # A second attempt of the run is a deployment of its own.
    pipeline.program("rollout.sh", "exit 7")
    assert not run_github(pipeline, prop, attempt=2)[0]
    states = {one["external_id"]: one["state"] for one in deployments(prop)}
    assert states == {"1017-1": "succeeded", "1017-2": "failed"}


def test_github_rolls_nothing_out_that_is_blocked(prop: Prop, tmp_path: Path) -> None:
    freeze(prop)
    pipeline = Pipeline(prop, tmp_path)
    succeeded, log = run_github(pipeline, prop)
    assert not succeeded and "Quarter end" in log
    assert not pipeline.rolled_out and deployments(prop) == []


# --- GitLab CI


def run_gitlab(pipeline: Pipeline) -> tuple[bool, str]:
    """Runs the job as GitLab does: the lines in one shell, after_script in another; with its log."""
    job = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())["deploy-production"]
    pipeline.program("apk", "exit 0")
    environment = pipeline.environment | {
        "CI_COMMIT_TAG": "1.4.2",
        "CI_COMMIT_SHA": SHA,
        "CI_JOB_ID": "4711",
        "CI_JOB_URL": "https://gitlab.com/prop-ledger/shop/-/jobs/4711",
        "GITLAB_USER_LOGIN": "dana",
        "IMAGE_DIGEST": DIGEST,
    }
    for name, value in job["variables"].items():
        environment[name] = re.sub(r"\$(\w+)", lambda match: environment[match[1]], value)

    def shell(lines: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-e", "-c", "\n".join(lines)],
            cwd=pipeline.folder,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    script = shell(job["before_script"] + job["script"])
    after = shell(job["after_script"], CI_JOB_STATUS="failed" if script.returncode else "success")
    assert after.returncode == 0, after.stderr
    log = script.stdout + script.stderr + after.stdout + after.stderr
    assert pipeline.key not in log
    return script.returncode == 0, log


@pytest.mark.parametrize(("rollout", "state"), [("exit 0", "succeeded"), ("exit 7", "failed")])
def test_gitlab_records_both_outcomes(rollout: str, state: str, prop: Prop, tmp_path: Path) -> None:
    succeeded, _ = run_gitlab(Pipeline(prop, tmp_path, rollout))
    assert succeeded == (state == "succeeded")
    found = only_deployment(prop)
    assert (found["state"], found["source"], found["external_id"]) == (state, "gitlab", "4711")


def test_gitlab_rolls_nothing_out_that_is_blocked(prop: Prop, tmp_path: Path) -> None:
    freeze(prop)
    pipeline = Pipeline(prop, tmp_path)
    succeeded, log = run_gitlab(pipeline)
    assert not succeeded and "Quarter end" in log
    assert not pipeline.rolled_out and deployments(prop) == []


# --- The README


def test_the_readme_lists_every_example() -> None:
    listed = set(re.findall(r"^\| \[(.+?)\]\(\1\)", (EXAMPLES / "README.md").read_text(), re.M))
    assert listed == {file.name for file in EXAMPLES.iterdir()} - {"README.md"}
