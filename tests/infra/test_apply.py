"""Staging, applied to the stand-in with the real provider: what it is then, how it changes, and how it goes."""

import json
import os
import signal
import subprocess
import time
import zipfile
from fnmatch import fnmatch
from typing import Any

import pytest

from plans import listed, statement
from prop import ROOT
from stack import ACCOUNT, APP_PASSWORD, BOOTSTRAP_KEY, PASSWORD, REGION, WEBHOOK_SECRET, Stack

BUCKET, TABLE, STATE = "prop-terraform-state", "prop-terraform-locks", "staging/terraform.tfstate"
LOCK = f"{BUCKET}/{STATE}"

# What the stand-in forgets, so that a second plan would set it again: by address and attribute. Anything else is a failure.
KNOWN_DRIFT = {
    "aws_db_parameter_group.main": {"parameter": "moto takes parameters and lists none"},
    "aws_ecs_service.main": {
        "availability_zone_rebalancing": "moto does not keep it",
        "health_check_grace_period_seconds": "moto does not keep it",
    },
    "aws_vpc_security_group_*_rule.*": {"description": "moto loses the description of a rule that refers to a group or list"},
}

OUTPUTS = """
    alb_url cluster_name service_name repository_url database_endpoint log_group_name dashboard_url infrastructure_dashboard_url
    alarms_topic_arn deploy_role_arn plan_role_arn
""".split()


def changes(plan: dict[str, Any]) -> dict[str, list[str]]:
    """What a plan does, by address, but for the known drift."""
    found = {}
    for change in plan["resource_changes"]:
        before, after, actions = change["change"]["before"] or {}, change["change"]["after"] or {}, change["change"]["actions"]
        if change["mode"] == "managed" and actions != ["no-op"]:
            differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
            if actions != ["update"] or not differing <= known_drift(change["address"]):
                found[change["address"]] = actions
    return found


def known_drift(address: str) -> set[str]:
    """The attributes of a resource that the stand-in forgets."""
    return {attribute for pattern, reasons in KNOWN_DRIFT.items() if fnmatch(address, pattern) for attribute in reasons}


def test_people_find_what_they_need_in_the_outputs(stack):
    outputs = stack.outputs
    assert sorted(outputs) == sorted(OUTPUTS) and all(outputs.values())
    assert outputs["alb_url"].startswith("http://prop-alb-staging")
    assert outputs["repository_url"] == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/prop-backend"
    assert outputs["deploy_role_arn"] == f"arn:aws:iam::{ACCOUNT}:role/prop-deploy-staging"
    assert outputs["dashboard_url"].endswith("#dashboards/dashboard/prop-staging")
    assert outputs["infrastructure_dashboard_url"].endswith("#dashboards/dashboard/prop-infrastructure-staging")


def test_the_service_waits_for_a_first_image(stack):
    outputs = stack.outputs
    (service,) = stack.client("ecs").describe_services(cluster=outputs["cluster_name"], services=[outputs["service_name"]])["services"]
    assert (service["status"], service["desiredCount"], service["runningCount"]) == ("ACTIVE", 0, 0)
    (target,) = ecs_targets(stack)
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 0)
    # Nor does the schedule start tasks that have no image.
    assert target["SuspendedState"]["ScheduledScalingSuspended"]
    task = stack.client("ecs").describe_task_definition(taskDefinition="prop-backend-staging")["taskDefinition"]
    assert task["containerDefinitions"][0]["image"] == f"{outputs['repository_url']}:none"


def test_a_task_is_started_with_its_own_image_secrets_and_log_only(stack):
    role = stack.state()["aws_iam_role_policy.execution"]
    policy = json.loads(role["policy"])["Statement"]
    assert statement(policy, "Image")["Resource"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/prop-backend"
    secrets = [stack.state()[f"aws_secretsmanager_secret.{name}"]["arn"] for name in ("database", "bootstrap_key", "github_webhook[0]")]
    assert statement(policy, "Secrets")["Resource"] == secrets
    assert statement(policy, "Log")["Resource"] == f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/ecs/prop-backend-staging:*"
    everywhere = [entry["Action"] for entry in policy if "*" in listed(entry["Resource"])]
    assert everywhere == ["ecr:GetAuthorizationToken"]


def test_the_endpoints_are_in_one_zone_of_staging_and_in_the_private_route_table(stack):
    state = stack.state()
    endpoints = [values for address, values in state.items() if address.startswith("aws_vpc_endpoint.interface")]
    assert len(endpoints) == 4 and all(len(endpoint["subnet_ids"]) == 1 for endpoint in endpoints)
    private = {values["id"] for address, values in state.items() if address.startswith("aws_subnet.private")}
    assert {endpoint["subnet_ids"][0] for endpoint in endpoints} <= private
    assert state["aws_vpc_endpoint.s3"]["route_table_ids"] == [state["aws_route_table.private"]["id"]]


DASHBOARDS = {
    "prop": {
        "RequestCount", "TargetResponseTime", "HTTPCode_Target_4XX_Count", "HTTPCode_Target_5XX_Count", "HTTPCode_ELB_5XX_Count",
        "errors", "deployments_succeeded", "deployments_failed", "deployments_cancelled", "gate_blocked",
    },
    "prop-infrastructure": {
        "CPUUtilization", "MemoryUtilization", "HealthyHostCount", "UnHealthyHostCount", "NewConnectionCount", "RejectedConnectionCount",
        "TargetConnectionErrorCount", "DatabaseConnections", "FreeStorageSpace", "FreeableMemory", "ReadLatency", "WriteLatency",
        "BytesProcessed", "PacketsDropped",
    },
}


def test_the_dashboards_show_metrics_of_what_is_there(stack):
    state = stack.state()
    metrics = []
    for name, shown in DASHBOARDS.items():
        body = json.loads(state[f'aws_cloudwatch_dashboard.main["{name}"]']["dashboard_body"])
        of_this = [metric for widget in body["widgets"] if widget["type"] == "metric" for metric in widget["properties"]["metrics"]]
        assert {metric[1] for metric in of_this} == shown
        assert [widget["type"] for widget in body["widgets"]].count("alarm") == 1
        # No widget lies on another.
        assert len({(widget["x"], widget["y"]) for widget in body["widgets"]}) == len(body["widgets"])
        metrics += of_this
    names = {(metric[0], metric[1]) for metric in metrics}
    filters = [values["metric_transformation"][0] for address, values in state.items() if "log_metric_filter" in address]
    assert {(one["namespace"], one["name"]) for one in filters} == {(space, name) for space, name in names if space == "prop-staging"}
    load_balancer, targets = state["aws_lb.main"]["arn_suffix"], state["aws_lb_target_group.tasks"]["arn_suffix"]
    known = {load_balancer, targets, "prop-ecs-cluster-staging", "prop-backend-service-staging", "prop-db-staging", "Interface"}
    known |= {values[name] for address, values in state.items() if "vpc_endpoint.interface" in address for name in ("id", "service_name", "vpc_id")}
    for metric in metrics:
        assert set(metric[3:-1:2]) <= known, metric


def test_the_alarms_notify_somebody(stack):
    topic = stack.outputs["alarms_topic_arn"]
    alarms = stack.client("cloudwatch").describe_alarms()["MetricAlarms"]
    ours = {alarm["AlarmName"]: alarm for alarm in alarms if alarm["AlarmName"].startswith("prop-")}
    made = [address for address in stack.state() if address.startswith("aws_cloudwatch_metric_alarm.")]
    assert len(ours) == len(made) > 7 and all(alarm["AlarmActions"] == [topic] for alarm in ours.values())
    (subscription,) = stack.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.org")


def test_the_state_lies_in_the_bucket_and_its_digest_in_the_table(stack):
    listed_keys = [item["Key"] for item in stack.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert STATE in listed_keys and f"{STATE}.tflock" not in listed_keys
    item = stack.client("dynamodb").get_item(TableName=TABLE, Key={"LockID": {"S": f"{LOCK}-md5"}})["Item"]
    assert item["Digest"]["S"]


def test_no_secret_is_kept_in_state_plan_or_directory(stack):
    s3 = stack.client("s3")
    versions = s3.list_object_versions(Bucket=BUCKET)["Versions"]
    states = [s3.get_object(Bucket=BUCKET, Key=one["Key"], VersionId=one["VersionId"])["Body"].read() for one in versions]
    # It is looked for where it would be: this is the whole state.
    assert any(b'"password_wo"' in state and b'"prop-db-staging"' in state for state in states)
    plan = stack.directory / "first.tfplan"
    with zipfile.ZipFile(plan) as archive:
        inside = [archive.read(name) for name in archive.namelist()]
    shown = stack.terraform("show", "-json", plan).stdout.encode()
    kept = [path.read_bytes() for path in stack.directory.rglob("*") if path.is_file() and path.stat().st_size < 10_000_000]
    for text in [*states, *inside, shown, *kept, json.dumps(stack.outputs).encode()]:
        assert not [secret for secret in (PASSWORD, APP_PASSWORD, BOOTSTRAP_KEY, WEBHOOK_SECRET) if secret.encode() in text]


def test_the_secrets_have_arrived(stack):
    secrets = stack.client("secretsmanager")
    database = json.loads(secrets.get_secret_value(SecretId="prop/database-staging")["SecretString"])
    assert (database["password"], database["app_password"]) == (PASSWORD, APP_PASSWORD)
    assert secrets.get_secret_value(SecretId="prop/bootstrap-key-staging")["SecretString"] == BOOTSTRAP_KEY
    assert secrets.get_secret_value(SecretId="prop/github-webhook-staging")["SecretString"] == WEBHOOK_SECRET


def test_a_second_plan_has_nothing_to_do(stack):
    plan = stack.plan("second.tfplan")
    assert changes(plan) == {}
    drifting = [change["address"] for change in plan["resource_changes"] if change["change"]["actions"] == ["update"]]
    for pattern in KNOWN_DRIFT:
        assert any(fnmatch(address, pattern) for address in drifting), f"{pattern} does not drift any more"


def test_a_second_run_is_refused_while_one_has_the_lock(stack):
    first = subprocess.Popen(
        ["scripts/infra.sh", "staging", "plan"], cwd=ROOT, env=stack.env, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not locks(stack):
            assert first.poll() is None and time.monotonic() < deadline, "the first run took no lock"
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGSTOP)
        assert locks(stack) == {"bucket", "table"}
        second = stack.infra("plan", succeeds=False)
        assert second.returncode == 1 and "Error acquiring the state lock" in second.stderr
        os.killpg(first.pid, signal.SIGCONT)
        assert first.wait(timeout=300) == 0
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
    assert not locks(stack)


def locks(stack: Stack) -> set[str]:
    """Who holds the state just now."""
    found = set()
    if "Contents" in stack.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"{STATE}.tflock"):
        found.add("bucket")
    if "Item" in stack.client("dynamodb").get_item(TableName=TABLE, Key={"LockID": {"S": LOCK}}):
        found.add("table")
    return found


@pytest.mark.parametrize("where", ["bucket", "table"])
def test_each_lock_is_enough_to_refuse(stack, where):
    info = json.dumps({"ID": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "Operation": "OperationTypeApply", "Who": "a colleague", "Path": LOCK})
    s3, dynamodb = stack.client("s3"), stack.client("dynamodb")
    try:
        if where == "bucket":
            s3.put_object(Bucket=BUCKET, Key=f"{STATE}.tflock", Body=info.encode())
        else:
            dynamodb.put_item(TableName=TABLE, Item={"LockID": {"S": LOCK}, "Info": {"S": info}})
        refused = stack.infra("plan", succeeds=False)
        assert refused.returncode == 1 and "Error acquiring the state lock" in refused.stderr and "a colleague" in refused.stderr
    finally:
        s3.delete_object(Bucket=BUCKET, Key=f"{STATE}.tflock")
        dynamodb.delete_item(TableName=TABLE, Key={"LockID": {"S": LOCK}})


def test_new_secrets_would_reach_database_and_secrets_in_one_apply(stack):
    plan = stack.plan("secrets.tfplan", "--", "-var", "secrets_version=2")
    assert changes(plan) == {
        "aws_db_instance.main": ["update"],
        "aws_secretsmanager_secret_version.database": ["delete", "create"],
        "aws_secretsmanager_secret_version.bootstrap_key": ["delete", "create"],
    }


def test_a_pull_request_can_plan_from_the_recorded_state(stack):
    plan = stack.plan("recorded.tfplan", "--", "-refresh=false", "-lock=false", "-var", "min_tasks=2")
    assert changes(plan) == {"aws_ecs_service.main": ["update"], 'aws_appautoscaling_scheduled_action.tasks["start-tasks"]': ["update"]}


@pytest.mark.last
def test_a_changed_variable_changes_what_it_means_and_leaves_the_service_alone(stack):
    ecs, outputs = stack.client("ecs"), stack.outputs
    (before,) = ecs.describe_services(cluster=outputs["cluster_name"], services=[outputs["service_name"]])["services"]
    (range_before,) = ecs_targets(stack)
    revision = stack.state()["aws_ecs_task_definition.main"]["arn"]
    plan = stack.plan("change.tfplan", "--", "-var", "min_tasks=2", "-var", "task_memory=1024")
    assert changes(plan) == {
        "aws_ecs_service.main": ["update"],
        'aws_appautoscaling_scheduled_action.tasks["start-tasks"]': ["update"],
        "aws_ecs_task_definition.main": ["delete", "create"],
    }
    stack.apply("change.tfplan")

    # The next deployment brings both: a changed range would start tasks at once, also of an environment that sleeps.
    assert ecs_targets(stack) == [range_before]
    newest = ecs.describe_task_definition(taskDefinition="prop-backend-staging")["taskDefinition"]
    assert newest["memory"] == "1024" and newest["taskDefinitionArn"] != revision
    # The revision before it can still be gone back to, and the service runs what it ran.
    assert ecs.describe_task_definition(taskDefinition=revision)["taskDefinition"]["status"] == "ACTIVE"
    (after,) = ecs.describe_services(cluster=outputs["cluster_name"], services=[outputs["service_name"]], include=["TAGS"])["services"]
    assert {"key": "MinTasks", "value": "2"} in after["tags"]
    assert [after[name] for name in ("taskDefinition", "desiredCount")] == [before[name] for name in ("taskDefinition", "desiredCount")]


def ecs_targets(stack: Stack) -> list[dict[str, Any]]:
    """What the autoscaling may do to the service."""
    return stack.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]


@pytest.mark.last
def test_everything_goes(stack):
    empty_repository(stack)
    stack.infra("destroy", "--yes")
    state = json.loads(stack.terraform("show", "-json").stdout)
    assert "values" not in state
    assert not stack.client("rds").describe_db_instances()["DBInstances"]
    assert not stack.client("elbv2").describe_load_balancers()["LoadBalancers"]
    assert not stack.client("secretsmanager").list_secrets()["SecretList"]
    assert not stack.client("logs").describe_log_groups(logGroupNamePrefix="/ecs/prop")["logGroups"]
    assert not [vpc for vpc in stack.client("ec2").describe_vpcs()["Vpcs"] if not vpc["IsDefault"]]
    assert not [role for role in stack.client("iam").list_roles()["Roles"] if role["RoleName"].startswith("prop-")]
    # What holds the state outlives it.
    assert stack.client("s3").head_bucket(Bucket=BUCKET) and stack.client("dynamodb").describe_table(TableName=TABLE)


def empty_repository(stack: Stack) -> None:
    """A repository with images in it refuses to go: they are production's too."""
    ecr = stack.client("ecr")
    if images := ecr.list_images(repositoryName="prop-backend")["imageIds"]:
        ecr.batch_delete_image(repositoryName="prop-backend", imageIds=images)
