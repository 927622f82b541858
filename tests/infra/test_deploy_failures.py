"""deploy.sh in all the ways in which a deployment goes wrong: with a stub `aws`, since moto knows none of them. The ledger is a real prop."""

import hmac
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from conftest import WEBHOOK_SECRET
from prop import Prop
from serving import serving
from stub_aws import NEW, NEW_SHA, OLD, OTHER, ROOT, Run, Scenario, image, place, press_ctrl_c, run, settings, start, states, tags, wait_for

RANGE = "application-autoscaling register-scalable-target"
CHANGES = ["ecs register-task-definition", "ecs update-service", RANGE]
NO_TASK = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: "
CANT_PULL = "CannotPullContainerError: pull image manifest has been retried 7 time(s): failed to resolve ref"


def deploy(scenario: Scenario, app: str, *arguments: str, ledger: Prop | None = None, **variables: str) -> Run:
    return run(scenario, "deploy.sh", *(arguments or ("staging", "1.4.2")), **settings(app, ledger), **variables)


def test_a_deployment_is_by_digest_and_recorded(scenario: Scenario, app: str, ledger: Prop) -> None:
    ended = deploy(scenario, app, "staging", "1.4.2", "--json", ledger=ledger)
    assert ended.code == 0, ended
    assert scenario.calls(changing=True) == CHANGES
    registered = scenario.read()["definitions"][-1]
    container = registered["containerDefinitions"][0]
    assert container["image"] == f"123456789012.dkr.ecr.ap-south-1.amazonaws.com/prop-backend@{NEW}"
    assert {"name": "PROP_IMAGE_DIGEST", "value": NEW} in container["environment"]
    assert {"name": "PORT", "value": "8080"} in container["environment"]
    assert scenario.options("ecs update-service")[0]["task-definition"] == registered["taskDefinitionArn"]
    assert "desired-count" not in scenario.options("ecs update-service")[0]

    result = ended.result
    assert (result["outcome"], result["version"], result["image_digest"], result["git_sha"]) == ("succeeded", "1.4.2", NEW, NEW_SHA)
    assert result["reason"] is None
    live = place(ledger)["live"]
    assert live["id"] == result["ledger_deployment_id"]
    assert (live["version"], live["image_digest"], live["git_sha"]) == ("1.4.2", NEW, NEW_SHA)
    assert (live["requested_by"], live["source"], live["ungated"]) == ("dana", "script", False)


def test_github_gives_the_person_and_the_run(scenario: Scenario, app: str, ledger: Prop) -> None:
    github = {
        "GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "prop-ledger/prop",
        "GITHUB_RUN_ID": "17", "GITHUB_RUN_ATTEMPT": "2", "GITHUB_ACTOR": "erin", "GITHUB_TRIGGERING_ACTOR": "frank",
    }  # fmt: skip
    assert deploy(scenario, app, ledger=ledger, **github).code == 0
    live = place(ledger)["live"]
    assert (live["requested_by"], live["run_url"]) == ("frank", "https://github.com/prop-ledger/prop/actions/runs/17")
    assert live["source"] == "github-actions"
    assert live["external_id"].startswith("prop-ledger/prop/17/2/staging/")


def test_the_webhook_of_its_own_job_comes_first(scenario: Scenario, app: str, ledger: Prop) -> None:
    """GitHub reports a deployment for a job with `environment:` before the job's script does."""
    repository_url, run_url = "https://github.com/prop-ledger/prop", "https://github.com/prop-ledger/prop/actions/runs/17"
    assert ledger.request("PATCH", "/v1/services/prop", {"repository_url": repository_url})[0] == 200
    repository = {"name": "prop", "full_name": "prop-ledger/prop", "html_url": repository_url}
    # A second ahead: 1.4.1 went live within this one.
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    deployment = {"id": 1, "environment": "staging", "ref": "main", "sha": NEW_SHA, "created_at": at}
    status = {"id": 2, "state": "in_progress", "created_at": at}
    payload = {"action": "created", "repository": repository, "deployment": deployment, "deployment_status": status, "workflow_run": {"html_url": run_url}}
    body = json.dumps(payload).encode()
    signature = "sha256=" + hmac.new(WEBHOOK_SECRET.encode(), body, "sha256").hexdigest()
    headers = {"Content-Type": "application/json", "X-GitHub-Event": "deployment_status", "X-GitHub-Delivery": "1", "X-Hub-Signature-256": signature}
    with urlopen(Request(f"{ledger.url}/webhooks/github", body, headers)) as answer:
        assert json.load(answer)["outcome"] == "applied"
    begun = place(ledger)["running"]
    github = {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "prop-ledger/prop", "GITHUB_RUN_ID": "17"}
    ended = deploy(scenario, app, ledger=ledger, GITHUB_ACTOR="erin", **github)
    assert ended.code == 0, ended
    live = place(ledger)["live"]
    assert (live["id"], live["source"], live["version"], live["ungated"]) == (begun["id"], "github-actions", "1.4.2", False)


def test_an_image_by_digest_is_called_by_its_tag(scenario: Scenario, app: str) -> None:
    ended = deploy(scenario, app, "staging", NEW, "--json")
    assert ended.code == 0, ended
    assert ended.result["version"] == "1.4.2"


@pytest.mark.parametrize("fate", ["breaker", "breaker_unseen"])
def test_a_circuit_breaker_s_rollback_is_a_failure(scenario: Scenario, app: str, ledger: Prop, fate: str) -> None:
    task = {"taskArn": "arn:aws:ecs:task/prop/t1", "stoppedReason": "Essential container in task exited", "startedAt": "2026-02-03T04:05:06Z",
            "containers": [{"name": "prop", "exitCode": 2}]}  # fmt: skip
    scenario.set(fates=[fate], stopped_tasks=[task], log=["prop: setting database.url is missing"])
    ended = deploy(scenario, app, "staging", "1.4.2", "--json", ledger=ledger)
    assert ended.code == 6, ended
    # ECS goes back: only the way forward was ours, and the revision that is not good is out of the way.
    assert scenario.calls(changing=True) == [*CHANGES, "ecs deregister-task-definition"]
    assert scenario.live_digest() == OLD
    assert "exit code 2" in ended.err
    assert "prop: setting database.url is missing" in ended.err
    assert "Revision 2 is running again." in ended.err
    assert ended.result["outcome"] == "rolled_back"
    now = place(ledger)
    assert states(now["latest"]) == [("1.4.1", "succeeded"), ("1.4.2", "failed")]
    assert now["live"]["version"] == "1.4.1"
    assert "exit code 2" in now["latest"][0]["reason"]


def test_without_a_circuit_breaker_the_script_goes_back(scenario: Scenario, app: str) -> None:
    scenario.without_rollback()
    scenario.set(fates=["breaker"])
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    assert scenario.calls(changing=True) == [*CHANGES, "ecs update-service", "ecs deregister-task-definition"]
    assert scenario.live_digest() == OLD


def test_tasks_that_cannot_pull_their_image(scenario: Scenario, app: str) -> None:
    scenario.set(fates=["breaker"], stopped_tasks=[{"taskArn": "arn:aws:ecs:task/prop/t1", "stoppedReason": CANT_PULL, "containers": [{"name": "prop"}]}])
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    assert "Cannot pull the image" in ended.err
    assert CANT_PULL in ended.err


@pytest.mark.parametrize(
    ("cause", "hint"),
    [
        ("unable to retrieve ecr registry auth: service call has been retried 3 time(s): RequestError: send request failed", "Cannot log in to ECR"),
        ("unable to retrieve secret from asm: service call has been retried 5 time(s): failed to fetch secret", "Cannot read a secret"),
        ("unable to retrieve secrets from ssm", "Cannot log in to ECR or read a secret"),
    ],
)
def test_the_hint_names_what_could_not_be_read(scenario: Scenario, app: str, cause: str, hint: str) -> None:
    """https://docs.aws.amazon.com/AmazonECS/latest/developerguide/resource-initialization-error.html"""
    task = {"taskArn": "arn:aws:ecs:task/prop/t1", "stoppedReason": NO_TASK + cause, "containers": [{"name": "prop"}]}
    scenario.set(fates=["breaker"], stopped_tasks=[task])
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    assert f"a task stopped: {hint}. " in ended.err


def test_other_peoples_stopped_tasks_are_no_reason(scenario: Scenario, app: str) -> None:
    old = {"taskArn": "arn:aws:ecs:task/prop/t0", "stoppedReason": "Scaling activity", "startedBy": "ecs-svc/1", "containers": []}
    scenario.set(fates=["breaker"], stopped_tasks=[old])
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    assert "Scaling activity" not in ended.err


def test_a_rollout_that_takes_too_long_is_undone(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(fates=["stuck"])
    ended = deploy(scenario, app, "staging", "1.4.2", "--timeout", "18", ledger=ledger)
    assert ended.code == 8, ended
    assert re.search(r"did not complete within (0:0[1-9]|0:1[0-2]) \(tasks: 0 running, 1 pending, 0 failed, of 1 · in progress\)", ended.err)
    assert scenario.live_digest() == OLD
    assert states(place(ledger)["latest"])[-1] == ("1.4.2", "failed")


def test_a_failed_rollback_has_its_own_exit_code(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(fates=["stuck", "stuck"])
    ended = deploy(scenario, app, "staging", "1.4.2", "--timeout", "18", ledger=ledger)
    assert ended.code == 7, ended
    assert "The rollback failed: The rollout did not complete" in ended.err
    # It is on its way back, so nothing is to go forward to that revision again.
    assert scenario.calls(changing=True)[-1] == "ecs deregister-task-definition"
    assert states(place(ledger)["latest"])[-1] == ("1.4.2", "failed")


def test_the_old_version_still_answers(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(lie=OLD)
    ended = deploy(scenario, app, ledger=ledger)
    assert ended.code == 6, ended
    assert "/version returned 1.4.1" in ended.err
    assert scenario.live_digest() == OLD
    assert place(ledger)["live"]["version"] == "1.4.1"


def test_the_service_does_not_answer(scenario: Scenario, app: str) -> None:
    scenario.set(lie="down")
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    assert "/health did not return 200" in ended.err


@pytest.mark.parametrize("targets", [["healthy", "unhealthy"], []])
def test_targets_must_be_healthy(scenario: Scenario, app: str, targets: list[str]) -> None:
    scenario.set(targets=targets)
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    why = ": Health checks failed" if targets else ""
    assert f"of {len(targets)} targets of the load balancer are healthy{why}." in ended.err


def test_draining_targets_do_not_count(scenario: Scenario, app: str) -> None:
    scenario.set(targets=["healthy", "draining"])
    assert deploy(scenario, app).code == 0


def test_another_deployment_replaces_the_rollout(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(fates=["replaced"], foreign="arn:aws:ecs:ap-south-1:123456789012:task-definition/prop-backend-staging:99")
    ended = deploy(scenario, app, ledger=ledger)
    assert ended.code == 7, ended
    assert "Another deployment (ecs-svc/" in ended.err
    assert scenario.calls(changing=True) == [*CHANGES, "ecs deregister-task-definition"]


def test_a_takeover_while_it_is_proven_is_left_alone(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(lie="down")
    process = start(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, ledger))
    wait_for(lambda: "elbv2 describe-target-health" in scenario.calls())
    take_over(scenario, "arn:aws:ecs:ap-south-1:123456789012:task-definition/prop-backend-staging:99")
    ended = Run(process)
    assert ended.code == 7, ended
    assert "Another deployment replaced this one, so nothing was rolled back." in ended.err
    assert scenario.calls(changing=True).count("ecs update-service") == 1
    assert states(place(ledger)["latest"])[-1] == ("1.4.2", "failed")


def take_over(scenario: Scenario, definition: str) -> None:
    """Somebody else deploys, past the stub's calls."""
    with scenario.lock():
        state = json.loads(scenario.file.read_text())
        service = state["service"]
        service["deployments"][0]["status"] = "ACTIVE"
        theirs = {"id": "ecs-svc/77", "status": "PRIMARY", "taskDefinition": definition, "rolloutState": "IN_PROGRESS", "fate": "stuck", "age": 0}
        service["deployments"].insert(0, service["deployments"][0] | theirs)
        service["taskDefinition"] = definition
        scenario.file.write_text(json.dumps(state))


def test_what_begins_during_the_migration_is_not_rolled_over(scenario: Scenario, app: str, ledger: Prop) -> None:
    process = start(scenario, "deploy.sh", "staging", "1.4.2", "--migrate-first", **settings(app, ledger), POLL_SECONDS="1")
    wait_for(lambda: "ecs run-task" in scenario.calls())
    take_over(scenario, "arn:aws:ecs:ap-south-1:123456789012:task-definition/prop-backend-staging:99")
    ended = Run(process)
    assert ended.code == 5, ended
    assert "ECS is rolling out revision 99" in ended.err
    assert "ecs update-service" not in scenario.calls()
    assert states(place(ledger)["latest"])[-1] == ("1.4.2", "failed")


def test_a_rollout_that_shows_late_has_not_gone_back(scenario: Scenario, app: str) -> None:
    scenario.set(lag=3)
    ended = deploy(scenario, app)
    assert ended.code == 0, ended


def test_what_is_taken_over_is_nothing_to_go_back_to(scenario: Scenario, app: str) -> None:
    """Going back is going to what was proven, not to the rollout whose place was taken."""
    scenario.set(fates=["stuck", "breaker"])
    assert interrupt(scenario, app, None, RANGE).code == 130
    scenario.without_rollback()
    ended = deploy(scenario, app, "staging", "1.4.2", "--take-over")
    assert ended.code == 6, ended
    assert "Revision 2 is running again." in ended.err
    assert scenario.live_digest() == OLD


def test_a_failed_migration_touches_no_service(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(task_exit=1, log=["prop: migration 0004 failed"])
    ended = deploy(scenario, app, "staging", "1.4.2", "--migrate-first", ledger=ledger)
    assert ended.code == 9, ended
    assert scenario.calls(changing=True) == ["ecs register-task-definition", "ecs run-task", "ecs deregister-task-definition"]
    assert "prop: migration 0004 failed" in ended.err
    assert "The service was not changed." in ended.err
    assert states(place(ledger)["latest"])[-1] == ("1.4.2", "failed")


def test_a_migration_goes_first_with_the_new_image(scenario: Scenario, app: str) -> None:
    ended = deploy(scenario, app, "staging", "1.4.2", "--migrate-first")
    assert ended.code == 0, ended
    assert scenario.calls(changing=True) == ["ecs register-task-definition", "ecs run-task", *CHANGES[1:]]
    task = scenario.options("ecs run-task")[0]
    assert task["task-definition"].endswith(":3")
    assert '"command":["migrate"]' in task["overrides"]
    assert "subnet-1" in task["network-configuration"]


def test_a_migration_that_finds_no_place_to_run(scenario: Scenario, app: str) -> None:
    scenario.set(task_exit="no capacity")
    ended = deploy(scenario, app, "staging", "1.4.2", "--migrate-first")
    assert ended.code == 9, ended
    assert "RESOURCE:ENI" in ended.err


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("sts get-caller-identity", 3), ("ecs describe-services", 3), ("ecr describe-images", 3), ("ecs describe-task-definition", 3),
        ("ecs register-task-definition", 3), ("ecs update-service", 3),
    ],
)  # fmt: skip
def test_the_denied_action_is_named(scenario: Scenario, app: str, ledger: Prop, operation: str, code: int) -> None:
    scenario.set(deny=[operation])
    ended = deploy(scenario, app, ledger=ledger)
    assert ended.code == code, ended
    service, verb = operation.split()
    assert f"AWS denies {service}:{''.join(word.title() for word in verb.split('-'))}" in ended.err
    assert scenario.live_digest() == OLD
    # It is recorded as failed, unless it was never recorded as started.
    assert place(ledger)["running"] is None


def test_a_role_that_may_not_read_databases_or_logs_can_deploy(scenario: Scenario, app: str) -> None:
    scenario.set(deny=["rds describe-db-instances", "logs get-log-events"])
    assert deploy(scenario, app).code == 0


def test_a_throttled_call_is_retried(scenario: Scenario, app: str) -> None:
    deploy(scenario, app)
    assert scenario.read()["retry"] == ["standard", "8"]


def test_losing_sight_is_no_success(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(fates=["stuck"])
    process = start(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, ledger))
    wait_for(lambda: "ecs update-service" in scenario.calls())
    scenario.set(deny=["ecs describe-services"])
    ended = Run(process)
    assert ended.code == 7, ended
    assert "can no longer be read" in ended.err


@pytest.mark.parametrize("wanted", ["1.4.9", OTHER])
def test_an_image_that_is_not_there(scenario: Scenario, app: str, ledger: Prop, wanted: str) -> None:
    ended = deploy(scenario, app, "staging", wanted, ledger=ledger)
    assert ended.code == 3, ended
    assert f"Image {wanted} not found in prop-backend" in ended.err
    assert scenario.calls(changing=True) == []


def test_a_service_that_is_not_there(scenario: Scenario, app: str) -> None:
    scenario.set(service=None)
    ended = deploy(scenario, app)
    assert ended.code == 3, ended
    assert "scripts/infra.sh staging apply" in ended.err


def test_another_account_is_refused(scenario: Scenario, app: str) -> None:
    ended = deploy(scenario, app, AWS_ACCOUNT_ID="999999999999")
    assert ended.code == 3, ended
    assert "belong to account 123456789012" in ended.err


# --- What AWS does meanwhile


def test_a_rollout_bakes_before_it_is_complete(scenario: Scenario, app: str) -> None:
    ended = deploy(scenario, app)
    assert ended.code == 0, ended
    assert "tasks: 1 running, 0 pending, 0 failed, of 1 · baking: ECS watches the alarms" in ended.err


def test_an_alarm_while_it_bakes_takes_the_rollout_back(scenario: Scenario, app: str) -> None:
    """ECS lists the rollout that it goes back to no longer."""
    scenario.set(fates=["alarm"], bake=3)
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    assert "alarm detected" in ended.err
    assert "Revision 2 is running again." in ended.err
    assert scenario.live_digest() == OLD


def test_what_bakes_is_nothing_to_go_back_to(scenario: Scenario, app: str) -> None:
    """Nor does ECS list what ran before: its tasks have stopped."""
    scenario.set(fates=["bakes", "breaker"])
    process = start(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, None))
    wait_for(lambda: len(scenario.read()["service"]["deployments"]) == 1 and scenario.calls(changing=True) == CHANGES)
    assert press_ctrl_c(process).code == 130
    scenario.set(images=[*scenario.read()["images"], image(OTHER)])
    scenario.without_rollback()
    ended = deploy(scenario, app, "staging", "1.4.3", "--take-over")
    assert ended.code == 6, ended
    assert "Revision 2 is running again." in ended.err
    assert scenario.live_digest() == OLD


def test_a_way_back_that_still_bakes_is_back(scenario: Scenario, app: str) -> None:
    """The tasks of the previous revision run when the time is over; the alarms are watched a little longer."""
    scenario.set(fates=["stuck", "bakes"])
    ended = deploy(scenario, app, "staging", "1.4.2", "--timeout", "18")
    assert ended.code == 8, ended
    assert "Revision 2 is running again." in ended.err


def test_a_service_without_capacity(scenario: Scenario, app: str, ledger: Prop) -> None:
    """No task stops that could give a reason, so the event is one."""
    scenario.set(fates=["no_capacity"])
    ended = deploy(scenario, app, "staging", "1.4.2", "--timeout", "18", ledger=ledger)
    assert ended.code == 8, ended
    assert "Capacity is unavailable at this time" in place(ledger)["latest"][0]["reason"]
    assert scenario.live_digest() == OLD


def test_a_revision_without_the_port_of_the_load_balancer(scenario: Scenario, app: str) -> None:
    definitions = scenario.read()["definitions"]
    definitions[-1]["containerDefinitions"][0]["portMappings"] = [{"containerPort": 9090}]
    scenario.set(definitions=definitions)
    ended = deploy(scenario, app)
    assert ended.code == 3, ended
    assert "The container prop did not have a container port 8080 defined." in ended.err
    assert scenario.live_digest() == OLD


@pytest.mark.parametrize("trouble", [{"lie": "down"}, {"fates": ["stuck"]}])
def test_a_throttled_request_is_no_end_of_the_way_back(scenario: Scenario, app: str, trouble: dict) -> None:
    scenario.set(throttled={RANGE: [1], "ecs update-service": [2, 3], "ecs describe-services": [4, 7, 8]}, **trouble)
    ended = deploy(scenario, app, "staging", "1.4.2", "--timeout", "18")
    assert ended.code == (6 if "lie" in trouble else 8), ended
    assert scenario.live_digest() == OLD


def test_a_throttled_request_does_not_undo_a_good_rollout(scenario: Scenario, app: str) -> None:
    scenario.set(throttled={"elbv2 describe-target-health": [1, 2]})
    ended = deploy(scenario, app)
    assert ended.code == 0, ended


def test_the_time_to_wake_is_part_of_the_time_for_all(scenario: Scenario, app: str) -> None:
    """A third is kept for the way back."""
    scenario.asleep(database="stopping", throttled={"rds describe-db-instances": list(range(2, 999))})
    ended = deploy(scenario, app, "staging", "1.4.2", "--wake", "--timeout", "9")
    assert ended.code == 3, ended
    assert re.search(r"prop-db-staging is still unknown after 0:0[4-6]\.", ended.err), ended


def test_a_job_has_time_for_the_way_back() -> None:
    """GitHub ends a job at its limit, in the middle of anything."""
    usage = subprocess.run([ROOT / "scripts" / "deploy.sh", "--help"], capture_output=True, text=True, check=True).stdout
    seconds = int(re.search(r"--timeout SECONDS .*\(default: (\d+)\)", usage)[1])
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci-cd.yml").read_text())["jobs"]
    deploying = {name: job for name, job in jobs.items() if re.search(r"scripts/(deploy|deploy-in-turn|rollback)\.sh", str(job["steps"]))}
    assert len(deploying) == 3
    # deploy-in-turn.sh waits before it deploys, and the rest of a job takes some minutes.
    turn = 600
    assert all(60 * job["timeout-minutes"] >= turn + seconds + 300 for job in deploying.values())


# --- One at a time


def test_a_second_deployment_is_refused_by_ecs(scenario: Scenario, app: str, ledger: Prop) -> None:
    service = scenario.read()["service"]
    service["deployments"][0] |= {"rolloutState": "IN_PROGRESS", "fate": "stuck", "age": 0}
    scenario.set(service=service)
    ended = deploy(scenario, app, "staging", "1.4.2", "--json", ledger=ledger)
    assert ended.code == 5, ended
    assert ended.result["outcome"] == "already_running"
    assert scenario.calls(changing=True) == []
    assert states(place(ledger)["latest"]) == [("1.4.1", "succeeded")]
    # Unless it is asked to replace it.
    assert deploy(scenario, app, "staging", "1.4.2", "--take-over", ledger=ledger).code == 0


def test_a_second_deployment_is_refused_by_the_ledger(scenario: Scenario, app: str, ledger: Prop) -> None:
    other = ledger.post("/v1/deployments", {"service": "prop", "environment": "staging", "version": "1.4.1", "start": True})
    ended = deploy(scenario, app, ledger=ledger)
    assert ended.code == 5, ended
    assert "Another deployment is already running." in ended.err
    assert scenario.calls(changing=True) == []
    assert place(ledger)["running"]["id"] == other["id"]
    ended = deploy(scenario, app, "staging", "1.4.2", "--take-over", ledger=ledger)
    assert ended.code == 0, ended
    assert ledger.get(f"/v1/deployments/{other['id']}")["state"] == "cancelled"
    assert place(ledger)["live"]["version"] == "1.4.2"


def test_two_at_the_same_moment(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(slow={"ecs register-task-definition": 1})
    processes = [start(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, ledger)) for _ in range(2)]
    assert sorted(Run(process).code for process in processes) == [0, 5]
    assert scenario.calls(changing=True) == CHANGES


# --- The gate


def freeze(ledger: Prop, reason: str = "Quarter end") -> str:
    return ledger.post("/v1/freezes", {"environment": "staging", "reason": reason, "allow_rollback": False})["id"]


def test_the_gate_blocks(scenario: Scenario, app: str, ledger: Prop) -> None:
    freeze(ledger)
    ended = deploy(scenario, app, "staging", "1.4.2", "--json", ledger=ledger)
    assert ended.code == 4, ended
    assert "Frozen until somebody ends the freeze: Quarter end." in ended.err
    assert ended.result["outcome"] == "blocked"
    assert ended.result["reason"] == "Frozen until somebody ends the freeze: Quarter end."
    assert scenario.calls(changing=True) == []
    assert states(place(ledger)["latest"]) == [("1.4.1", "succeeded")]


def test_an_override_lets_one_through(scenario: Scenario, app: str, ledger: Prop) -> None:
    held = freeze(ledger)
    ended = deploy(scenario, app, "staging", "1.4.2", "--force", "--reason", "Card payments are down.", ledger=ledger)
    assert ended.code == 0, ended
    live = place(ledger)["live"]
    assert (live["version"], live["ungated"], live["reason"]) == ("1.4.2", False, None)
    given = [event["payload"] for event in ledger.get("/v1/events?limit=100")["items"] if event["action"] == "freeze.overridden"]
    assert [(one["freeze_id"], one["reason"]) for one in given] == [(held, "Card payments are down.")]
    assert deploy(scenario, app, ledger=ledger).code == 4


def test_force_passes_freezes_only(scenario: Scenario, app: str, ledger: Prop) -> None:
    freeze(ledger)
    ledger.post("/v1/incidents", {"service": "prop", "environment": "staging", "title": "It burns", "severity": "critical"})
    ended = deploy(scenario, app, "staging", "1.4.2", "--force", "--reason", "I want to.", ledger=ledger)
    assert ended.code == 4, ended
    assert "It burns" in ended.err
    assert not [event for event in ledger.get("/v1/events?limit=100")["items"] if event["action"] == "freeze.overridden"]


def test_force_needs_the_scope(scenario: Scenario, app: str, ledger: Prop) -> None:
    freeze(ledger)
    key = ledger.new_key("pipeline", "read", "deploy")
    ended = run(scenario, "deploy.sh", "staging", "1.4.2", "--force", "--reason", "x", APP_URL=app, PROP_URL=ledger.url, PROP_KEY=key)
    assert ended.code == 4, ended
    assert "Cannot override the freeze" in ended.err
    assert scenario.calls(changing=True) == []


def test_a_missing_approval_is_reported_then_given(scenario: Scenario, app: str, ledger: Prop) -> None:
    ledger.post("/v1/environments", {"slug": "production", "tier": "production", "required_approvals": 1})
    ended = deploy(scenario, app, "production", "1.4.2", ledger=ledger)
    assert ended.code == 4, ended
    assert "Needs 1 approval (0 of 1)." in ended.err
    assert scenario.calls(changing=True) == []
    approval = {"service": "prop", "version": "1.4.2", "environment": "production", "decision": "approved"}
    ledger.post("/v1/approvals", approval, key=ledger.new_key("alice", "approve", "read"))
    key = ledger.new_key("pipeline", "read", "deploy")
    ended = run(scenario, "deploy.sh", "production", "1.4.2", APP_URL=app, PROP_URL=ledger.url, PROP_KEY=key)
    assert ended.code == 0, ended
    assert place(ledger, "production")["live"]["version"] == "1.4.2"


def test_an_environment_that_the_ledger_does_not_know_becomes_known(scenario: Scenario, app: str, ledger: Prop) -> None:
    ended = deploy(scenario, app, "production", "1.4.2", ledger=ledger)
    assert ended.code == 0, ended
    assert place(ledger, "production")["live"]["version"] == "1.4.2"


def test_a_key_that_is_not_known_is_no_ledger_that_is_away(scenario: Scenario, app: str, ledger: Prop) -> None:
    ended = run(scenario, "deploy.sh", "staging", "1.4.2", APP_URL=app, PROP_URL=ledger.url, PROP_KEY="prop_nonsense")
    assert ended.code == 3, ended
    assert "The ledger rejected PROP_KEY" in ended.err
    assert scenario.calls(changing=True) == []
    assert "prop_nonsense" not in ended.err


# --- A ledger that is away


@contextmanager
def relaying(relay: Callable[[str, str, bytes], tuple[int, bytes]]) -> Iterator[str]:
    """Between script and ledger: `relay` answers a method, a path and a body with a status and a body."""

    class Relay(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status, answer = relay(self.command, self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = answer

        def log_message(self, *_args: Any) -> None:
            pass

    with serving(Relay) as url:
        yield url


def forward(ledger: Prop, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    status, answer = ledger.request(method, path, json.loads(body) if body else None)
    return status, json.dumps(answer).encode()


def test_a_ledger_that_answers_at_the_second_try(scenario: Scenario, app: str, ledger: Prop) -> None:
    """Its load balancer, or its database, was away for a moment: only the last answer counts."""
    refused: set[str] = set()

    def relay(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path.startswith(("/v1/gate", "/v1/deployments")) and path not in refused:
            refused.add(path)
            return 503, b'{"code": "unavailable", "title": "Service Unavailable", "status": 503}\n'
        return forward(ledger, method, path, body)

    with relaying(relay) as url:
        ended = run(scenario, "deploy.sh", "staging", "1.4.2", "--json", APP_URL=app, PROP_URL=url, PROP_KEY=ledger.key)
    assert ended.code == 0, ended
    assert "The gate allows prop 1.4.2 in staging." in ended.err
    assert ended.result["ledger_deployment_id"] == place(ledger)["live"]["id"]
    assert len(refused) == 4


def test_a_ledger_that_is_away_stops_nothing_and_gets_the_report_later(scenario: Scenario, app: str, ledger: Prop) -> None:
    ended = run(scenario, "deploy.sh", "staging", "1.4.2", APP_URL=app, PROP_URL="http://127.0.0.1:9", PROP_KEY=ledger.key)
    assert ended.code == 0, ended
    assert "CANNOT REACH THE LEDGER" in ended.err
    assert len(scenario.spool.read_text().splitlines()) == 2
    assert ledger.key not in scenario.spool.read_text()
    assert states(place(ledger)["latest"]) == [("1.4.1", "succeeded")]

    ended = deploy(scenario, app, "staging", "1.4.1", ledger=ledger)
    assert ended.code == 0, ended
    assert "Reported saved deployments to the ledger: 2 lines" in ended.err
    assert not scenario.spool.exists()
    now = place(ledger)
    assert states(now["latest"]) == [("1.4.1", "rolled_back"), ("1.4.2", "rolled_back"), ("1.4.1", "succeeded")] or states(now["latest"]) == [
        ("1.4.1", "superseded"), ("1.4.2", "rolled_back"), ("1.4.1", "succeeded")
    ]  # fmt: skip
    spooled = now["latest"][1]
    # deploy.sh writes whole seconds, and this rollout may take less than one.
    assert spooled["started_at"] <= spooled["finished_at"] < now["latest"][0]["started_at"]


def test_a_failure_is_reported_later_too(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(fates=["breaker"])
    away = {"APP_URL": app, "PROP_URL": "http://127.0.0.1:9", "PROP_KEY": ledger.key}
    assert run(scenario, "deploy.sh", "staging", "1.4.2", **away).code == 6
    assert run(scenario, "deploy.sh", "staging", "1.4.2", **away).code == 0
    assert len(scenario.spool.read_text().splitlines()) == 4
    assert deploy(scenario, app, ledger=ledger).code == 0
    assert states(place(ledger)["latest"]) == [("1.4.1", "superseded"), ("1.4.2", "failed"), ("1.4.2", "superseded"), ("1.4.2", "succeeded")]


def test_a_ledger_that_goes_away_in_between(scenario: Scenario, app: str, ledger: Prop) -> None:
    """The deployment was recorded, its end could not be. Reported later, it is the same deployment."""
    answers = True

    def relay(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        nonlocal answers
        if not answers:
            return 503, b"<html>503 Service Temporarily Unavailable</html>"
        answers = (method, path) != ("POST", "/v1/deployments")
        return forward(ledger, method, path, body)

    with relaying(relay) as url:
        ended = run(scenario, "deploy.sh", "staging", "1.4.2", APP_URL=app, PROP_URL=url, PROP_KEY=ledger.key)
    assert ended.code == 0, ended
    assert place(ledger)["running"]["version"] == "1.4.2"
    assert len(scenario.spool.read_text().splitlines()) == 1
    assert deploy(scenario, app, ledger=ledger).code == 0
    assert states(place(ledger)["latest"]) == [("1.4.1", "superseded"), ("1.4.2", "superseded"), ("1.4.2", "succeeded")]


def test_a_spool_never_cancels_what_runs_now(scenario: Scenario, app: str, ledger: Prop) -> None:
    run(scenario, "deploy.sh", "staging", "1.4.2", APP_URL=app, PROP_URL="http://127.0.0.1:9", PROP_KEY=ledger.key)
    other = ledger.post("/v1/deployments", {"service": "prop", "environment": "staging", "version": "1.4.1", "start": True})
    ended = deploy(scenario, app, ledger=ledger)
    assert ended.code == 5, ended
    assert ledger.get(f"/v1/deployments/{other['id']}")["state"] == "running"
    assert len(scenario.spool.read_text().splitlines()) == 2


def test_a_success_that_is_reported_late_stays_a_success_and_is_not_live(scenario: Scenario, app: str, ledger: Prop) -> None:
    run(scenario, "deploy.sh", "staging", "1.4.2", APP_URL=app, PROP_URL="http://127.0.0.1:9", PROP_KEY=ledger.key)
    newer = ledger.post("/v1/deployments", {"service": "prop", "environment": "staging", "version": "1.4.3", "create_missing": True, "start": True})
    ledger.post(f"/v1/deployments/{newer['id']}/transitions", {"to": "succeeded"})
    freeze(ledger)
    ended = deploy(scenario, app, ledger=ledger)
    assert ended.code == 4, ended
    now = place(ledger)
    assert now["live"]["version"] == "1.4.3"
    late = next(deployment for deployment in now["latest"] if deployment["version"] == "1.4.2")
    assert (late["state"], late["reason"]) == ("superseded", None)
    assert late["started_at"] < late["finished_at"] < now["live"]["started_at"]
    assert not scenario.spool.exists()


def spooled(scenario: Scenario, app: str) -> str:
    """What a deployment has left for a ledger that was away."""
    assert run(scenario, "deploy.sh", "staging", "1.4.2", APP_URL=app, PROP_URL="http://127.0.0.1:9", PROP_KEY="prop_x").code == 0
    return scenario.spool.read_text()


def test_lines_that_a_killed_run_claimed_are_sent(scenario: Scenario, app: str, ledger: Prop) -> None:
    lines = spooled(scenario, app)
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    scenario.spool.with_name(f"spool.jsonl.{dead.pid}").write_text(lines)
    scenario.spool.with_name(f"spool.jsonl.{os.getpid()}").write_text("taken by one that lives\n")
    scenario.spool.unlink()
    # Nor is the lock of a dead run in the way.
    lock = scenario.spool.with_name("spool.jsonl.lock")
    lock.mkdir()
    os.utime(lock, (1e9, 1e9))
    ended = deploy(scenario, app, ledger=ledger)
    assert ended.code == 0, ended
    assert "Reported saved deployments to the ledger: 2 lines" in ended.err
    assert states(place(ledger)["latest"]) == [("1.4.1", "superseded"), ("1.4.2", "superseded"), ("1.4.2", "succeeded")]
    assert [file.name for file in scenario.spool.parent.glob("spool.jsonl*")] == [f"spool.jsonl.{os.getpid()}"]


def test_a_spool_that_is_locked_is_left_alone(scenario: Scenario, app: str, ledger: Prop) -> None:
    lines = spooled(scenario, app)
    lock = scenario.spool.with_name("spool.jsonl.lock")
    lock.mkdir()
    ended = deploy(scenario, app, ledger=ledger)
    assert ended.code == 0, ended
    assert "is locked" in ended.err
    assert scenario.spool.read_text() == lines
    assert lock.exists()


def test_a_report_saved_during_a_replay_is_kept(scenario: Scenario, app: str, ledger: Prop) -> None:
    """What could not be reported comes before it."""
    first, second = spooled(scenario, app).splitlines(keepends=True)

    def relay(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if method == "GET" and path.startswith("/v1/services/") and not scenario.spool.exists():
            scenario.spool.write_text("kept meanwhile\n")
        return (401, b'{"title": "no"}') if path.endswith("/transitions") else forward(ledger, method, path, body)

    with relaying(relay) as url:
        run(scenario, "deploy.sh", "staging", "1.4.2", APP_URL=app, PROP_URL=url, PROP_KEY=ledger.key)
    assert scenario.spool.read_text() == f"{second}kept meanwhile\n"
    assert "succeeded" in second and "succeeded" not in first


def test_require_ledger_is_strict(scenario: Scenario, app: str) -> None:
    for variables in ({}, {"PROP_URL": "http://127.0.0.1:9", "PROP_KEY": "prop_x"}):
        ended = run(scenario, "deploy.sh", "staging", "1.4.2", "--require-ledger", APP_URL=app, **variables)
        assert ended.code == 3, ended
    assert scenario.calls(changing=True) == []


# --- Stopped environments


def test_the_first_deployment_starts_the_tasks_and_allows_them(scenario: Scenario, app: str) -> None:
    """No task runs before there is an image: the range that allows tasks comes after the image."""
    scenario.never_deployed()
    ended = deploy(scenario, app)
    assert ended.code == 0, ended
    assert scenario.calls(changing=True) == CHANGES
    assert scenario.options("ecs update-service")[0]["desired-count"] == "2"
    state = scenario.read()
    assert state["range"] == {"min": 2, "max": 4, "schedule": True}
    assert (state["service"]["desiredCount"], state["service"]["runningCount"]) == (2, 2)


@pytest.mark.parametrize("trouble", [{"lie": "down"}, {"fates": ["breaker"]}, {"fates": ["breaker"], "completed": None}, {"fates": ["stuck"]}])
def test_a_first_deployment_that_fails_leaves_nothing_running(scenario: Scenario, app: str, trouble: dict) -> None:
    """Also where ECS goes back to the revision without an image by itself, and where it can't."""
    scenario.never_deployed()
    scenario.set(**trouble)
    ended = deploy(scenario, app, "staging", "1.4.2", "--timeout", "15", "--json")
    assert ended.code == (8 if trouble == {"fates": ["stuck"]} else 6), ended
    assert "No tasks are running, as before." in ended.err
    state = scenario.read()
    assert state["range"] == {"min": 0, "max": 0, "schedule": False}
    assert state["service"]["desiredCount"] == 0
    assert state["service"]["taskDefinition"] == state["definitions"][0]["taskDefinitionArn"]
    assert state["definitions"][-1]["status"] == "INACTIVE"
    # And the next one is the first again.
    scenario.settle()
    scenario.set(lie=None, fates=[])
    ended = deploy(scenario, app)
    assert ended.code == 0, ended
    assert scenario.read()["service"]["runningCount"] == 2


def test_tasks_without_an_image_are_no_deployment(scenario: Scenario, app: str) -> None:
    """Somebody started the service by hand before there was an image: its rollout can't end, so it is replaced."""
    scenario.never_deployed()
    service = scenario.read()["service"]
    service["deployments"][0] |= {"rolloutState": "IN_PROGRESS", "fate": "breaker", "age": 0}
    scenario.set(service=service | {"desiredCount": 1}, completed=None)
    ended = deploy(scenario, app)
    assert ended.code == 0, ended
    assert scenario.read()["service"]["runningCount"] == 2


def test_a_first_deployment_that_was_interrupted_is_undone(scenario: Scenario, app: str) -> None:
    scenario.never_deployed()
    scenario.set(fates=["stuck"])
    assert interrupt(scenario, app, None, RANGE).code == 130
    ended = deploy(scenario, app, "staging", "1.4.2", "--resume", "--timeout", "15")
    assert ended.code == 8, ended
    assert "No tasks are running, as before." in ended.err
    state = scenario.read()
    assert (state["service"]["desiredCount"], state["range"]) == (0, {"min": 0, "max": 0, "schedule": False})


def test_a_changed_number_of_tasks_comes_with_the_deployment(scenario: Scenario, app: str) -> None:
    service = scenario.read()["service"]
    scenario.set(service=service | {"tags": tags(3, 5)})
    ended = deploy(scenario, app)
    assert ended.code == 0, ended
    state = scenario.read()
    assert (state["service"]["runningCount"], state["range"]["min"], state["range"]["max"]) == (3, 3, 5)


def test_a_range_that_may_not_be_set_undoes_the_deployment(scenario: Scenario, app: str) -> None:
    """The autoscaling could end every task otherwise."""
    scenario.never_deployed()
    scenario.set(deny=[RANGE])
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    assert "AWS denies application-autoscaling:RegisterScalableTarget" in ended.err
    assert scenario.read()["service"]["desiredCount"] == 0


def test_a_range_that_may_not_be_set_is_no_reason_to_stay(scenario: Scenario, app: str) -> None:
    """Also while ECS does not list the rollout yet: what it lists is no rollback."""
    scenario.set(deny=[RANGE], lag=3)
    ended = deploy(scenario, app)
    assert ended.code == 6, ended
    state = scenario.read()
    assert state["service"]["taskDefinition"] == state["definitions"][1]["taskDefinitionArn"]
    assert scenario.live_digest() == OLD


def test_a_service_without_its_numbers_is_reported(scenario: Scenario, app: str) -> None:
    service = scenario.read()["service"]
    scenario.set(service=service | {"tags": []})
    ended = deploy(scenario, app)
    assert ended.code == 3, ended
    assert "has no tag MinTasks" in ended.err and "scripts/infra.sh staging apply" in ended.err
    assert scenario.calls(changing=True) == []


def test_a_stopped_environment_is_refused_or_woken(scenario: Scenario, app: str) -> None:
    scenario.asleep()
    ended = deploy(scenario, app)
    assert ended.code == 3, ended
    assert "staging is stopped" in ended.err
    assert scenario.calls(changing=True) == []
    ended = deploy(scenario, app, "staging", "1.4.2", "--wake")
    assert ended.code == 0, ended
    assert scenario.calls(changing=True) == ["rds start-db-instance", *CHANGES]
    assert scenario.options("ecs update-service")[0]["desired-count"] == "2"
    assert scenario.read()["database"] == "available"
    assert scenario.read()["range"] == {"min": 2, "max": 4, "schedule": True}


def test_a_woken_environment_goes_back_to_its_release(scenario: Scenario, app: str) -> None:
    """Something ran here before: it is not "nothing" because it slept."""
    scenario.asleep(lie="down")
    ended = deploy(scenario, app, "staging", "1.4.2", "--wake")
    assert ended.code == 6, ended
    assert "Revision 2 is running again." in ended.err
    assert scenario.live_digest() == OLD
    assert scenario.read()["service"]["runningCount"] == 2


def test_a_database_that_is_still_stopping_is_woken(scenario: Scenario, app: str) -> None:
    """It is waited for, then started; and a request that fails meanwhile ends nothing."""
    scenario.asleep(database="stopping for long", throttled={"rds describe-db-instances": [2, 4]})
    ended = deploy(scenario, app, "staging", "1.4.2", "--wake")
    assert ended.code == 0, ended
    assert scenario.calls(changing=True) == ["rds start-db-instance", *CHANGES]


def test_an_unexpected_failure_has_its_own_exit_code(scenario: Scenario, app: str, ledger: Prop) -> None:
    """The exit code of a tool is none of ours: jq's 5 is not that another deployment is running."""
    scenario.set(garbled=["ecs register-task-definition"])
    ended = deploy(scenario, app, "staging", "1.4.2", "--json", ledger=ledger)
    assert ended.code == 1, ended
    assert (ended.result["outcome"], ended.result["exit_code"]) == ("error", 1)
    assert "deploy.sh: Unexpected error." in ended.err
    assert states(place(ledger)["latest"])[-1] == ("1.4.2", "failed")


# --- Ctrl-C


def interrupt(scenario: Scenario, app: str, ledger: Prop | None, until: str, *arguments: str) -> Run:
    process = start(scenario, "deploy.sh", "staging", "1.4.2", *arguments, **settings(app, ledger))
    wait_for(lambda: until in scenario.calls())
    time.sleep(0.3)
    return press_ctrl_c(process)


def test_ctrl_c_during_the_rollout_and_how_to_go_on(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(fates=["stuck"])
    ended = interrupt(scenario, app, ledger, RANGE, "--json")
    assert ended.code == 130, ended
    assert ended.result["outcome"] == "interrupted"
    assert "ECS was rolling out revision 3. ECS continues the rollout" in ended.err
    assert "scripts/deploy.sh staging 1.4.2 --resume" in ended.err
    assert place(ledger)["running"]["version"] == "1.4.2"
    assert scenario.calls(changing=True) == CHANGES

    state = scenario.read()
    state["service"]["deployments"][0] |= {"fate": "complete", "age": 0}
    scenario.write(state)
    ended = deploy(scenario, app, "staging", "1.4.2", "--resume", ledger=ledger)
    assert ended.code == 0, ended
    # The range once more: the run that was interrupted may not have come so far.
    assert scenario.calls(changing=True) == [*CHANGES, RANGE]
    assert states(place(ledger)["latest"]) == [("1.4.1", "superseded"), ("1.4.2", "succeeded")]


def test_ctrl_c_before_the_service_is_touched(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(slow={"ecs register-task-definition": 1})
    ended = interrupt(scenario, app, ledger, "ecs register-task-definition")
    assert ended.code == 130, ended
    assert "before the service was changed" in ended.err
    # Nor does a revision stay that nobody has proven.
    assert scenario.calls(changing=True) == ["ecs register-task-definition", "ecs deregister-task-definition"]
    assert states(place(ledger)["latest"])[-1] == ("1.4.2", "cancelled")


def test_ctrl_c_during_the_migration(scenario: Scenario, app: str) -> None:
    scenario.set(slow={"ecs describe-tasks": 2})
    ended = interrupt(scenario, app, None, "ecs describe-tasks", "--migrate-first")
    assert ended.code == 130, ended
    assert "during the migration" in ended.err
    assert scenario.calls(changing=True)[-1] == "ecs deregister-task-definition"
    assert "ecs update-service" not in scenario.calls()


def test_ctrl_c_on_the_way_back(scenario: Scenario, app: str) -> None:
    scenario.without_rollback()
    scenario.set(fates=["breaker", "stuck"])
    process = start(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, None))
    wait_for(lambda: scenario.calls().count("ecs update-service") == 2)
    time.sleep(0.3)
    ended = press_ctrl_c(process)
    assert ended.code == 130, ended
    assert scenario.calls(changing=True) == [*CHANGES, "ecs update-service", "ecs deregister-task-definition"]


def test_the_printed_command_repeats_the_options(scenario: Scenario, app: str) -> None:
    scenario.set(fates=["stuck"])
    ended = interrupt(scenario, app, None, RANGE, "--release", "one two", "--timeout", "60", "--rollback", "--reason", "x")
    assert ended.code == 130, ended
    assert "scripts/deploy.sh staging 1.4.2 --resume --release 'one two' --timeout 60 --rollback\n" in ended.err
    assert scenario.calls(changing=True) == CHANGES


def test_resume_goes_back_when_the_rollout_fails(scenario: Scenario, app: str, ledger: Prop) -> None:
    scenario.set(fates=["stuck"])
    assert interrupt(scenario, app, ledger, RANGE).code == 130
    ended = deploy(scenario, app, "staging", "1.4.2", "--resume", "--timeout", "18", ledger=ledger)
    assert ended.code == 8, ended
    assert scenario.live_digest() == OLD
    assert states(place(ledger)["latest"])[-1] == ("1.4.2", "failed")


def test_resume_of_what_is_not_rolling(scenario: Scenario, app: str) -> None:
    ended = deploy(scenario, app, "staging", "1.4.2", "--resume")
    assert ended.code == 3, ended
    assert "not rolling out 1.4.2" in ended.err


# --- Dry runs, arguments, Slack


@pytest.mark.parametrize("arguments", [(), ("--migrate-first",), ("--force", "--reason", "why")])
def test_a_dry_run_changes_nothing(scenario: Scenario, app: str, ledger: Prop, arguments: tuple[str, ...]) -> None:
    freeze(ledger) if "--force" in arguments else None
    events = ledger.get("/v1/events?limit=100")
    ended = deploy(scenario, app, "staging", "1.4.2", "--dry-run", *arguments, ledger=ledger)
    assert ended.code == 0, ended
    assert scenario.calls(changing=True) == []
    assert ledger.get("/v1/events?limit=100") == events
    for call in ("aws ecs register-task-definition", "aws ecs update-service", f"POST {ledger.url}/v1/releases", f"POST {ledger.url}/v1/deployments"):
        assert call in ended.err, ended


def test_a_dry_run_wakes_nothing(scenario: Scenario, app: str) -> None:
    scenario.asleep()
    ended = deploy(scenario, app, "staging", "1.4.2", "--wake", "--dry-run")
    assert ended.code == 0, ended
    assert "aws rds start-db-instance" in ended.err
    assert scenario.calls(changing=True) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("staging",), ("nowhere", "1.4.2"), ("staging", "1.4.2", "more"), ("staging", "1.4.2", "--nonsense"), ("staging", "-"),
        ("staging", "a b"), ("staging", "sha256:abc"), ("staging", "1.4.2", "--force"), ("staging", "1.4.2", "--reason"),
        ("staging", "1.4.2", "--timeout", "soon"), ("staging", "1.4.2", "--resume", "--take-over"), ("../staging", "1.4.2"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_reported(scenario: Scenario, app: str, arguments: tuple[str, ...]) -> None:
    ended = run(scenario, "deploy.sh", *arguments, APP_URL=app)
    assert ended.code == 2, ended
    assert "See deploy.sh --help." in ended.err
    assert scenario.calls() == []


def test_slack_gets_one_line_and_its_failure_is_a_warning(scenario: Scenario, app: str) -> None:
    received: list[str] = []

    class Slack(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    with serving(Slack) as url:
        assert deploy(scenario, app, SLACK_WEBHOOK_URL=f"{url}/hook/secret").code == 0
        scenario.set(lie=OLD)
        assert deploy(scenario, app, SLACK_WEBHOOK_URL=f"{url}/hook/secret").code == 6
    assert len(received) == 2
    assert ":white_check_mark: *prop 1.4.2* is live in *staging* · dana" in received[0]
    assert received[0].endswith(f" · {app}")
    assert received[0].count(" · ") == 3
    assert "failed and was rolled back in *staging*" in received[1]
    scenario.set(lie=None)
    ended = deploy(scenario, app, SLACK_WEBHOOK_URL=f"{url}/hook/secret")
    assert ended.code == 0, ended
    assert "Cannot notify Slack" in ended.err
    assert "hook/secret" not in ended.err
