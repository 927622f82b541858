"""rollback.sh, status.sh, logs.sh, run-task.sh and db.sh where moto can't play along: with a stub `aws`. And the help and errors of every script."""

import signal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from prop import Prop
from serving import serving
from stub_aws import NEW, OLD, STUB, Run, Scenario, environment, place, press_ctrl_c, run, settings, start, states, wait_for

RANGE = "application-autoscaling register-scalable-target"
SCRIPTS = ["deploy.sh", "rollback.sh", "status.sh", "logs.sh", "run-task.sh", "db.sh"]


@pytest.fixture
def deployed(scenario: Scenario, app: str, ledger: Prop) -> Scenario:
    """1.4.2 was deployed to staging after 1.4.1."""
    ended = run(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, ledger))
    assert ended.code == 0, ended
    scenario.set(calls=[])
    return scenario


def revisions(scenario: Scenario) -> list[tuple[int, str]]:
    return [(one["revision"], one["status"]) for one in scenario.read()["definitions"]]


# --- rollback.sh


def test_a_rollback_goes_to_what_the_ledger_calls_previous(deployed: Scenario, app: str, ledger: Prop) -> None:
    ended = run(deployed, "rollback.sh", "staging", **settings(app, ledger))
    assert ended.code == 0, ended
    assert deployed.live_digest() == OLD
    now = place(ledger)
    assert states(now["latest"]) == [("1.4.1", "superseded"), ("1.4.2", "rolled_back"), ("1.4.1", "succeeded")]
    assert (now["live"]["kind"], now["live"]["rollback_of"]) == ("rollback", now["latest"][1]["id"])
    # Nothing goes back to what was left, also when only ECS is available.
    assert revisions(deployed) == [(1, "ACTIVE"), (2, "ACTIVE"), (3, "INACTIVE"), (4, "ACTIVE")]
    ended = run(deployed, "rollback.sh", "staging", **settings(app, None))
    assert ended.code == 3, ended
    assert "no release to roll back to" in ended.err


def test_without_the_ledger_the_task_definitions_decide(deployed: Scenario, app: str, ledger: Prop) -> None:
    ended = run(deployed, "rollback.sh", "staging", APP_URL=app, PROP_URL="http://127.0.0.1:9", PROP_KEY=ledger.key)
    assert ended.code == 0, ended
    assert "previous release, from ECS: revision 2" in ended.err
    assert deployed.live_digest() == OLD
    assert deployed.spool.exists()


def test_a_ledger_that_missed_a_deployment_is_not_used(scenario: Scenario, app: str, ledger: Prop) -> None:
    """1.4.2 was deployed past it: what it takes for live is what ran before, and what it calls previous is older still."""
    older = ledger.post("/v1/deployments", {"service": "prop", "environment": "staging", "version": "1.4.0", "create_missing": True, "start": True})
    ledger.post(f"/v1/deployments/{older['id']}/transitions", {"to": "succeeded"})
    again = ledger.post("/v1/deployments", {"service": "prop", "environment": "staging", "version": "1.4.1", "start": True})
    ledger.post(f"/v1/deployments/{again['id']}/transitions", {"to": "succeeded"})
    assert run(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, None)).code == 0
    ended = run(scenario, "rollback.sh", "staging", **settings(app, ledger))
    assert ended.code == 0, ended
    assert f"prop has 1.4.1 ({OLD[:19]}…) as live, but ECS runs {NEW[:19]}…" in ended.err
    assert "previous release, from ECS: revision 2" in ended.err
    assert scenario.live_digest() == OLD


@pytest.mark.parametrize("asks_ledger", [True, False])
def test_a_rollback_whose_image_is_gone(deployed: Scenario, app: str, ledger: Prop, asks_ledger: bool) -> None:
    deployed.set(images=[image for image in deployed.read()["images"] if image["digest"] != OLD])
    ended = run(deployed, "rollback.sh", "staging", **settings(app, ledger if asks_ledger else None))
    assert ended.code == 3, ended
    assert f"({OLD}) is no longer in ECR" in ended.err
    assert deployed.calls(changing=True) == []
    assert place(ledger)["live"]["version"] == "1.4.2"


def test_no_release_to_roll_back_to(scenario: Scenario, app: str, ledger: Prop) -> None:
    ended = run(scenario, "rollback.sh", "staging", **settings(app, ledger))
    assert ended.code == 3, ended
    assert "no other release was live in staging" in ended.err


def test_a_rollback_from_what_is_still_running(deployed: Scenario, app: str, ledger: Prop) -> None:
    """What is live is then what was there before, not what was before that."""
    deployed.set(fates=["stuck"])
    process = start(deployed, "deploy.sh", "staging", "1.4.1", **settings(app, ledger))
    wait_for(lambda: "ecs update-service" in deployed.calls())
    assert press_ctrl_c(process).code == 130
    assert run(deployed, "rollback.sh", "staging", **settings(app, ledger)).code == 5
    ended = run(deployed, "rollback.sh", "staging", "--take-over", **settings(app, ledger))
    assert ended.code == 0, ended
    assert deployed.live_digest() == NEW
    assert states(place(ledger)["latest"])[-2:] == [("1.4.1", "cancelled"), ("1.4.2", "succeeded")]
    # What was left is what was rolling out; what is proven stays.
    assert revisions(deployed)[2:] == [(3, "ACTIVE"), (4, "INACTIVE"), (5, "ACTIVE")]


def test_a_rollback_passes_a_freeze_and_can_be_tried_dry(deployed: Scenario, app: str, ledger: Prop) -> None:
    ledger.post("/v1/freezes", {"environment": "staging", "reason": "Quarter end"})
    ended = run(deployed, "rollback.sh", "staging", "--dry-run", **settings(app, ledger))
    assert ended.code == 0, ended
    assert deployed.calls(changing=True) == []
    assert run(deployed, "rollback.sh", "staging", "--json", **settings(app, ledger)).result["version"] == "1.4.1"


# --- status.sh


def test_status_prints_what_runs(deployed: Scenario, app: str, ledger: Prop) -> None:
    ended = run(deployed, "status.sh", "staging", "--json", **settings(app, ledger))
    assert ended.code == 0, ended
    status = ended.result
    assert (status["image_digest"], status["tags"][-1], status["problems"]) == (NEW, "1.4.2", [])
    assert (status["ledger"]["live"]["version"], status["ledger"]["previous"]["version"]) == ("1.4.2", "1.4.1")
    text = run(deployed, "status.sh", "staging", **settings(app, ledger))
    assert text.code == 0 and "previous: 1.4.1" in text.out, text
    assert deployed.calls(changing=True) == []


def test_status_prints_problems(deployed: Scenario, app: str, ledger: Prop) -> None:
    assert run(deployed, "deploy.sh", "staging", "1.4.1", **settings(app, None)).code == 0
    deployed.set(targets=["unhealthy"], database="stopped")
    ended = run(deployed, "status.sh", "staging", **settings(app, ledger))
    assert ended.code == 1, ended
    for problem in ("prop has 1.4.2 as live", "A load balancer target is unhealthy.", "The database is stopped."):
        assert problem in ended.err


# --- logs.sh


def test_logs_are_followed_and_no_line_comes_twice(scenario: Scenario, app: str) -> None:
    scenario.set(log=[f"line {number}" for number in range(5)])
    assert run(scenario, "logs.sh", "staging").out == "line 0\n"
    process = start(scenario, "logs.sh", "staging", "--follow")
    wait_for(lambda: len(scenario.calls()) >= 8)
    process.send_signal(signal.SIGTERM)
    assert Run(process).out.splitlines() == [f"line {number}" for number in range(5)]


# --- run-task.sh


@pytest.mark.parametrize("code", [0, 1, 42])
def test_a_task_s_exit_code_is_the_script_s(scenario: Scenario, code: int) -> None:
    scenario.set(task_exit=code, log=["a line of the task"])
    ended = run(scenario, "run-task.sh", "staging", "--", "key", "create", "a name", "--scope", "read")
    assert ended.code == code, ended
    assert "a line of the task" in ended.out
    task = scenario.options("ecs run-task")[0]
    assert '"command":["key","create","a name","--scope","read"]' in task["overrides"]
    assert task["task-definition"].endswith(":2")


def test_a_task_of_another_image_leaves_nothing_behind(scenario: Scenario) -> None:
    assert run(scenario, "run-task.sh", "staging", "--image", "1.4.2", "--", "migrate").code == 0
    assert scenario.calls(changing=True) == ["ecs register-task-definition", "ecs run-task", "ecs deregister-task-definition"]
    assert revisions(scenario)[-1] == (3, "INACTIVE")


def test_a_task_that_never_ran(scenario: Scenario) -> None:
    scenario.set(task_exit="no capacity")
    ended = run(scenario, "run-task.sh", "staging", "--", "migrate")
    assert (ended.code, "RESOURCE:ENI" in ended.err) == (125, True), ended
    scenario.set(task_exit=None)
    assert run(scenario, "run-task.sh", "staging", "--", "migrate").code == 125


def test_an_interrupted_task_can_be_stopped(scenario: Scenario) -> None:
    process = start(scenario, "run-task.sh", "staging", "--", "migrate", POLL_SECONDS="2")
    wait_for(lambda: "ecs describe-tasks" in scenario.calls())
    ended = press_ctrl_c(process)
    assert ended.code == 130, ended
    assert "aws ecs stop-task" in ended.err


# --- db.sh


def test_stopping_waits_for_tasks_that_cannot_be_seen(scenario: Scenario) -> None:
    """A request that fails is not taken for the last task's end."""
    service = scenario.read()["service"]
    scenario.set(service=service | {"runningCount": 3, "desiredCount": 3}, throttled={"ecs describe-services": [3]})
    ended = run(scenario, "db.sh", "staging", "stop")
    assert ended.code == 0, ended
    assert scenario.calls(changing=True) == [RANGE, "ecs update-service", "rds stop-db-instance"]
    before = scenario.calls()[: scenario.calls().index("rds stop-db-instance")]
    assert before.count("ecs describe-services") == 6
    assert scenario.read()["service"]["desiredCount"] == 0
    assert scenario.read()["range"] == {"min": 0, "max": 0, "schedule": True}
    assert scenario.read()["database"] == "stopped"


def test_a_database_that_cannot_be_stopped_keeps_its_tasks(scenario: Scenario) -> None:
    scenario.set(database="backing-up")
    ended = run(scenario, "db.sh", "staging", "stop")
    assert ended.code == 3, ended
    assert "prop-db-staging is backing-up" in ended.err
    assert scenario.calls(changing=True) == []


def test_a_database_that_is_stopping_is_started_afterwards(scenario: Scenario) -> None:
    scenario.asleep(database="stopping", throttled={"rds describe-db-instances": [2]})
    ended = run(scenario, "db.sh", "staging", "start")
    assert ended.code == 0, ended
    assert scenario.calls(changing=True) == ["rds start-db-instance", RANGE, "ecs update-service"]
    assert scenario.read()["service"]["runningCount"] == 2
    assert scenario.read()["range"] == {"min": 2, "max": 4, "schedule": True}


def test_more_tasks_than_the_least_are_enough(scenario: Scenario) -> None:
    service = scenario.read()["service"]
    scenario.set(service=service | {"runningCount": 5, "desiredCount": 4})
    ended = run(scenario, "db.sh", "staging", "start", "--timeout", "20")
    assert ended.code == 0, ended
    assert scenario.read()["service"]["desiredCount"] == 4


def test_a_restored_instance_is_compared_once_it_is_adjusted(scenario: Scenario) -> None:
    scenario.set(pending=4)
    ended = run(scenario, "db.sh", "staging", "restore", "--name", "copy", "--json")
    assert ended.code == 0, ended
    assert ended.result["restored"] == "copy"
    assert scenario.options("rds modify-db-instance")[0]["backup-retention-period"] == "7"


# --- Help and errors of every script


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_examples_and_exit_codes(scenario: Scenario, script: str) -> None:
    ended = run(scenario, script, "--help")
    assert ended.code == 0, ended
    assert f"scripts/{script} " in ended.out
    assert "xit codes" in ended.out
    assert scenario.calls() == []


@pytest.mark.parametrize(
    "words",
    [
        "rollback.sh", "rollback.sh nowhere", "rollback.sh staging 1 2", "rollback.sh staging --resume", "rollback.sh staging --reason",
        "status.sh", "status.sh nowhere", "status.sh staging --nonsense", "status.sh staging more",
        "logs.sh", "logs.sh staging --since yesterday", "logs.sh staging --nonsense",
        "run-task.sh staging", "run-task.sh staging migrate", "run-task.sh staging --", "run-task.sh staging --timeout x -- migrate",
        "db.sh", "db.sh staging", "db.sh staging drop", "db.sh staging stop --to 2026-02-03T04:05:06Z", "db.sh staging restore --to yesterday",
        "db.sh staging restore --to 2026-02-03T04:05:06Z --snapshot x", "db.sh nowhere stop",
    ],
)  # fmt: skip
def test_a_wrong_argument_is_reported(scenario: Scenario, words: str) -> None:
    script, *arguments = words.split()
    ended = run(scenario, script, *arguments)
    assert ended.code == 2, ended
    assert f"See {script} --help." in ended.err
    assert scenario.calls() == []


@pytest.mark.parametrize("script", ["deploy.sh staging 1.4.2", "status.sh staging", "run-task.sh staging -- migrate"])
def test_a_missing_tool_is_named(scenario: Scenario, tmp_path: Path, script: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "basename", "mktemp", "rm", "id", "date", "uname"):
        found = next(Path(directory) / name for directory in ("/usr/bin", "/bin") if (Path(directory) / name).exists())
        (tools / name).symlink_to(found)
    name, *arguments = script.split()
    ended = run(scenario, name, *arguments, PATH=str(tools))
    assert ended.code == 3, ended
    assert "aws jq" in ended.err


def test_the_real_cli_retries_when_throttled(scenario: Scenario) -> None:
    """Twice throttled, then answered; what comes next is denied, which is not retried."""
    received: list[str] = []

    class Throttling(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            received.append("sts" if "GetCallerIdentity" in body else self.headers.get("X-Amz-Target", "?"))
            if received[-1] != "sts":
                return self.answer(400, "application/x-amz-json-1.1", '{"__type": "AccessDeniedException", "message": "no"}')
            if len(received) < 3:
                return self.answer(400, "text/xml", "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>")
            identity = "<Arn>arn:aws:iam::123456789012:user/u</Arn><UserId>u</UserId><Account>123456789012</Account>"
            return self.answer(
                200, "text/xml", f'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>{identity}'
                "</GetCallerIdentityResult></GetCallerIdentityResponse>"
            )  # fmt: skip

        def answer(self, status: int, kind: str, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_args: Any) -> None:
            pass

    path = environment(scenario)["PATH"].removeprefix(f"{STUB}:")
    with serving(Throttling) as url:
        ended = run(
            scenario, "deploy.sh", "staging", "1.4.2", PATH=path, AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID="nobody",
            AWS_SECRET_ACCESS_KEY="nothing", AWS_EC2_METADATA_DISABLED="true",
        )  # fmt: skip
    assert received[:3] == ["sts"] * 3
    assert received[3:] == ["AmazonEC2ContainerServiceV20141113.DescribeServices"]
    assert ended.code == 3, ended
    assert "Cannot read the service prop-backend-service-staging" in ended.err
