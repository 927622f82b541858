"""The scripts with the real AWS CLI, on staging as Terraform applied it to the stand-in for AWS, and with a real prop as the ledger.

The stand-in has no load balancer that answers: a local server plays it, and says what the service's task definition says.
"""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from prop import ROOT, Prop, running_prop
from serving import serving
from stack import Stack
from stub_aws import place, states

HEAD = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip() or "0" * 40


@pytest.fixture(scope="module")
def images(stack: Stack) -> dict[str, str]:
    """Two images in ECR, tagged as build.sh tags them: their digests by version."""
    return {"1.0.0": push(stack, "a" * 64, "1.0.0", f"0.1.0-{'1' * 12}"), "1.1.0": push(stack, "b" * 64, "1.1.0", f"0.1.0-{HEAD[:12]}")}


def push(stack: Stack, layer: str, *tags: str) -> str:
    """One manifest under several tags. The stand-in makes the digest from the layers."""
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": f"sha256:{layer}"},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 1, "digest": f"sha256:{layer}"}],
    }  # fmt: skip
    for tag in tags:
        put = ["aws", "ecr", "put-image", "--repository-name", "prop-backend", "--image-tag", tag, "--image-manifest", json.dumps(manifest)]
        answer = json.loads(stack.run(*put, "--output", "json").stdout)
    return answer["image"]["imageId"]["imageDigest"]


@pytest.fixture(scope="module")
def app(stack: Stack) -> Iterator[str]:
    """What the load balancer would answer; and the target that ECS would register there."""
    ecs, elb = stack.client("ecs"), stack.client("elbv2")
    names = {"cluster": stack.outputs["cluster_name"], "services": [stack.outputs["service_name"]]}
    group = ecs.describe_services(**names)["services"][0]["loadBalancers"][0]["targetGroupArn"]
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "10.0.0.17", "Port": 8080}])

    class LoadBalancer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service = ecs.describe_services(**names)["services"][0]
            definition = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
            variables = {one["name"]: one["value"] for one in definition["containerDefinitions"][0]["environment"]}
            body = {"status": "ok"} if self.path == "/health" else {"version": "0.1.0", "image_digest": variables.get("PROP_IMAGE_DIGEST")}
            self.send_response(200 if service["desiredCount"] else 503)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_args: Any) -> None:
            pass

    with serving(LoadBalancer) as url:
        yield url


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prop]:
    """A new ledger."""
    with running_prop(tmp_path_factory.mktemp("recorder")) as prop:
        yield prop


@pytest.fixture
def run(stack: Stack, app: str, recorder: Prop, tmp_path: Path) -> Any:
    """Runs a script of the project, and returns it when it has ended."""

    def run(script: str, *arguments: str, succeeds: bool = True, **variables: str) -> subprocess.CompletedProcess:
        ledger = {"PROP_URL": recorder.url, "PROP_KEY": recorder.key, "PROP_SPOOL": str(tmp_path / "spool"), "USER": "dana"}
        polls = {"POLL_SECONDS": "0.2", "PROOF_SECONDS": "10"}
        return stack.run(ROOT / "scripts" / script, *arguments, succeeds=succeeds, APP_URL=app, **ledger, **polls, **variables)

    return run


def service_of(stack: Stack) -> dict[str, Any]:
    return stack.client("ecs").describe_services(cluster=stack.outputs["cluster_name"], services=[stack.outputs["service_name"]])["services"][0]


def range_of(stack: Stack) -> tuple[int, int, bool]:
    """The number of tasks that autoscaling allows, and whether the schedule changes it."""
    (target,) = stack.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
    return target["MinCapacity"], target["MaxCapacity"], not target["SuspendedState"]["ScheduledScalingSuspended"]


def test_deploy_deploy_again_and_roll_back(stack: Stack, recorder: Prop, images: dict[str, str], run: Any) -> None:
    assert service_of(stack)["desiredCount"] == 0
    made_by_terraform = service_of(stack)["taskDefinition"]
    dry = run("deploy.sh", "staging", "1.0.0", "--dry-run", "--migrate-first")
    assert "would run: aws ecs update-service" in dry.stderr
    assert service_of(stack)["taskDefinition"] == made_by_terraform
    assert range_of(stack) == (0, 0, False)

    first = json.loads(run("deploy.sh", "staging", "1.0.0", "--migrate-first", "--json").stdout)
    assert first["outcome"] == "succeeded"
    live = service_of(stack)
    assert live["desiredCount"] == 1
    assert range_of(stack) == (1, 4, True)
    assert live["taskDefinition"] == first["task_definition"] != made_by_terraform
    # The same as Terraform's, but for the image.
    ecs = stack.client("ecs")
    before, after = (ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"] for arn in (made_by_terraform, first["task_definition"]))
    container, was = after["containerDefinitions"][0], before["containerDefinitions"][0]
    assert container["image"] == f"{stack.outputs['repository_url']}@{images['1.0.0']}"
    assert container.pop("environment") == [*was.pop("environment"), {"name": "PROP_IMAGE_DIGEST", "value": images["1.0.0"]}]
    assert {**container, "image": ""} == {**was, "image": ""}
    for setting in ("cpu", "memory", "executionRoleArn", "taskRoleArn", "networkMode"):
        assert after[setting] == before[setting]

    kept = stack.client("ecr").describe_images(repositoryName="prop-backend", imageIds=[{"imageDigest": images["1.0.0"]}])["imageDetails"]
    assert f"live-staging-{images['1.0.0'][7:19]}" in kept[0]["imageTags"]

    second = json.loads(run("deploy.sh", "staging", images["1.1.0"], "--json").stdout)
    assert (second["version"], second["git_sha"]) == ("1.1.0", HEAD)
    assert second["previous_task_definition"] == first["task_definition"]
    status = json.loads(run("status.sh", "staging", "--json").stdout)
    assert (status["image_digest"], status["problems"]) == (images["1.1.0"], [])
    assert (status["ledger"]["live"]["version"], status["ledger"]["previous"]["version"]) == ("1.1.0", "1.0.0")

    back = json.loads(run("rollback.sh", "staging", "--json").stdout)
    assert (back["version"], back["image_digest"]) == ("1.0.0", images["1.0.0"])
    assert ecs.describe_task_definition(taskDefinition=second["task_definition"])["taskDefinition"]["status"] == "INACTIVE"

    now = place(recorder)
    assert states(now["latest"]) == [("1.0.0", "superseded"), ("1.1.0", "rolled_back"), ("1.0.0", "succeeded")]
    assert [deployment["id"] for deployment in reversed(now["latest"])] == [one["ledger_deployment_id"] for one in (first, second, back)]
    events = [event for event in reversed(recorder.get("/v1/events?limit=100")["items"]) if event["action"].startswith("deployment.")]
    assert [event["action"].removeprefix("deployment.") for event in events] == [
        "requested", "started", "succeeded", "requested", "started", "succeeded", "superseded", "requested", "started", "succeeded", "rolled_back",
    ]  # fmt: skip
    [row] = recorder.get("/v1/status")["services"]
    [cell] = row["places"]
    assert (row["slug"], cell["environment"], cell["running"]) == ("prop", "staging", None)
    assert (cell["live"]["version"], cell["live"]["image_digest"], cell["live"]["kind"]) == ("1.0.0", images["1.0.0"], "rollback")


def test_a_one_off_task(stack: Stack, run: Any) -> None:
    ended = run("run-task.sh", "staging", "--", "key", "list")
    assert "The task exited with code 0." in ended.stderr
    ecs = stack.client("ecs")
    arns = ecs.list_tasks(cluster=stack.outputs["cluster_name"], startedBy="run-task.sh", desiredStatus="STOPPED")["taskArns"]
    arns = arns or ecs.list_tasks(cluster=stack.outputs["cluster_name"], startedBy="run-task.sh")["taskArns"]
    task = ecs.describe_tasks(cluster=stack.outputs["cluster_name"], tasks=arns)["tasks"][0]
    assert task["overrides"]["containerOverrides"][0]["command"] == ["key", "list"]
    assert task["taskDefinitionArn"] == service_of(stack)["taskDefinition"]


def test_the_log_is_printed(stack: Stack, run: Any) -> None:
    logs, group = stack.client("logs"), stack.outputs["log_group_name"]
    logs.create_log_stream(logGroupName=group, logStreamName="prop/prop/t1")
    now = int(datetime.now(UTC).timestamp() * 1000)
    events = [{"timestamp": now - age, "message": f"{age} ms ago"} for age in (3000, 2000, 1000)]
    logs.put_log_events(logGroupName=group, logStreamName="prop/prop/t1", logEvents=events)
    assert "3000 ms ago\n2000 ms ago\n1000 ms ago\n" in run("logs.sh", "staging").stdout
    assert run("logs.sh", "staging", "--task", "t1", "--since", "1d").stdout.count("ms ago") == 3


def test_the_database_is_snapshotted_and_restored_beside_the_running_one(stack: Stack, run: Any) -> None:
    rds = stack.client("rds")
    running = rds.describe_db_instances(DBInstanceIdentifier="prop-db-staging")["DBInstances"][0]
    dry = run("db.sh", "staging", "restore", "--dry-run")
    assert "aws rds restore-db-instance-to-point-in-time" in dry.stderr
    snapshot = run("db.sh", "staging", "snapshot").stdout.strip()
    assert snapshot.startswith("prop-db-staging-2")
    of_snapshot = json.loads(run("db.sh", "staging", "restore", "--snapshot", snapshot, "--name", "prop-from-snapshot", "--json").stdout)
    of_moment = run("db.sh", "staging", "restore", "--name", "prop-from-moment")
    assert "--db-instance-identifier prop-from-moment --new-db-instance-identifier prop-db-staging" in of_moment.stderr
    assert of_snapshot["restored"] == "prop-from-snapshot"
    assert len(rds.describe_db_instances()["DBInstances"]) == 3
    state = stack.state()
    for name in ("prop-from-snapshot", "prop-from-moment"):
        restored = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
        groups = [group["VpcSecurityGroupId"] for group in restored["VpcSecurityGroups"]]
        assert groups == [state["aws_security_group.database"]["id"]]
        assert restored["DBSubnetGroup"]["DBSubnetGroupName"] == state["aws_db_subnet_group.main"]["name"]
        assert restored["DBParameterGroups"][0]["DBParameterGroupName"] == state["aws_db_parameter_group.main"]["name"]
        assert (restored["DeletionProtection"], restored["PubliclyAccessible"]) == (True, False)
        assert restored["BackupRetentionPeriod"] == running["BackupRetentionPeriod"]
        rds.modify_db_instance(DBInstanceIdentifier=name, DeletionProtection=False, ApplyImmediately=True)
        rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
    rds.delete_db_snapshot(DBSnapshotIdentifier=snapshot)
    assert rds.describe_db_instances(DBInstanceIdentifier="prop-db-staging")["DBInstances"][0]["DBInstanceStatus"] == "available"


def test_an_environment_is_stopped_refused_and_woken(stack: Stack, recorder: Prop, images: dict[str, str], run: Any) -> None:
    rds = stack.client("rds")

    def status() -> str:
        return rds.describe_db_instances(DBInstanceIdentifier="prop-db-staging")["DBInstances"][0]["DBInstanceStatus"]

    run("db.sh", "staging", "stop")
    assert (service_of(stack)["desiredCount"], status(), range_of(stack)) == (0, "stopped", (0, 0, True))
    assert "staging is stopped" in run("deploy.sh", "staging", "1.1.0", succeeds=False).stderr
    assert "The database is stopped." in run("status.sh", "staging", succeeds=False).stderr
    run("db.sh", "staging", "start")
    assert (service_of(stack)["desiredCount"], status(), range_of(stack)) == (1, "available", (1, 4, True))

    run("db.sh", "staging", "stop")
    woken = json.loads(run("deploy.sh", "staging", "1.1.0", "--wake", "--json").stdout)
    assert woken["outcome"] == "succeeded"
    assert (service_of(stack)["desiredCount"], status(), range_of(stack)) == (1, "available", (1, 4, True))
    assert place(recorder)["live"]["version"] == "1.1.0"


def test_an_image_that_is_gone_is_no_rollback(stack: Stack, recorder: Prop, images: dict[str, str], run: Any) -> None:
    stack.client("ecr").batch_delete_image(repositoryName="prop-backend", imageIds=[{"imageDigest": images["1.0.0"]}])
    before = service_of(stack)["taskDefinition"]
    ended = run("rollback.sh", "staging", succeeds=False)
    assert ended.returncode == 3
    assert "is no longer in ECR" in ended.stderr
    assert service_of(stack)["taskDefinition"] == before
