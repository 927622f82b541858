"""What both environments will be, as their plans say."""

import re
import tomllib
from ipaddress import ip_network

import pytest

from plans import Plan, listed, statement
from prop import ROOT
from stack import ACCOUNT, REGION, SUBJECT_PREFIX

NAMES = {"staging": "-staging", "production": ""}


@pytest.fixture(params=["staging", "production"])
def environment(request) -> str:
    return request.param


@pytest.fixture
def plan(environment, request) -> Plan:
    return Plan(request.getfixturevalue(f"{environment}_plan"))


def test_an_empty_account_is_only_added_to(plan):
    assert {action for change in plan.changes for action in change["change"]["actions"]} == {"create"}


def test_there_is_no_way_out_of_the_private_subnets(plan):
    assert not plan.all("aws_nat_gateway") and not plan.all("aws_nat_instance") and not plan.all("aws_eip")
    assert not plan.all("aws_instance") and not plan.all("aws_egress_only_internet_gateway")
    # The one route that is made is the public table's to the internet gateway; the private table has no inline one.
    assert list(plan.all("aws_route")) == ["aws_route.internet"]
    assert plan["aws_route.internet"]["destination_cidr_block"] == "0.0.0.0/0"
    assert "aws_route_table.public.id" in plan.references("aws_route.internet", "route_table_id")
    assert "aws_internet_gateway.main.id" in plan.references("aws_route.internet", "gateway_id")
    (private,) = [resource for resource in plan.configuration if resource["address"] == "aws_route_table.private"]
    assert "route" not in private["expressions"]
    assert "aws_route_table.private.id" in plan.references("aws_route_table_association.private", "route_table_id")


def test_two_public_and_two_private_subnets_lie_apart_in_two_zones(plan):
    subnets = plan.all("aws_subnet")
    networks = [ip_network(subnet["cidr_block"]) for subnet in subnets.values()]
    vpc = ip_network(plan["aws_vpc.main"]["cidr_block"])
    assert len(networks) == 4 and all(network.subnet_of(vpc) for network in networks)
    assert not any(one.overlaps(other) for one in networks for other in networks if one is not other)
    for kind in ("public", "private"):
        assert len({subnet["availability_zone"] for address, subnet in subnets.items() if f".{kind}[" in address}) == 2
    assert not any(subnet["map_public_ip_on_launch"] for subnet in subnets.values())


def test_environments_have_addresses_of_their_own(staging_plan, production_plan):
    staging, production = (ip_network(Plan(plan)["aws_vpc.main"]["cidr_block"]) for plan in (staging_plan, production_plan))
    assert not staging.overlaps(production)


def test_the_world_reaches_the_load_balancer_on_80_and_nothing_else(plan):
    rules = plan.all("aws_vpc_security_group_ingress_rule")
    open_to_all = {address: rule for address, rule in rules.items() if rule["cidr_ipv4"] or rule.get("cidr_ipv6")}
    assert [(rule["cidr_ipv4"], rule["from_port"], rule["to_port"], rule["ip_protocol"]) for rule in open_to_all.values()] == [
        ("0.0.0.0/0", 80, 80, "tcp")
    ]
    assert plan.references("aws_vpc_security_group_ingress_rule.load_balancer_from_world", "security_group_id")[0] == (
        "aws_security_group.load_balancer.id"
    )
    # Rules are resources of their own: nothing hides in a group.
    for group in (resource for resource in plan.configuration if resource["type"] in ("aws_security_group", "aws_default_security_group")):
        assert not {"ingress", "egress"} & group["expressions"].keys(), group["address"]
    assert not plan.all("aws_security_group_rule")


def test_who_talks_to_whom(plan):
    talks = {}
    for direction in ("ingress", "egress"):
        kind = f"aws_vpc_security_group_{direction}_rule"
        for resource in (resource for resource in plan.configuration if resource["type"] == kind):
            group = resource["expressions"]["security_group_id"]["references"][0].split(".")[1]
            other = next(
                resource["expressions"][name]["references"][0]
                for name in ("referenced_security_group_id", "prefix_list_id", "cidr_ipv4") if name in resource["expressions"]
            )
            ports = {rule["from_port"] for address, rule in plan.all(kind).items() if address.split("[")[0] == resource["address"]}
            talks.setdefault((direction, group), {})[other.removesuffix(".id").removeprefix("aws_security_group.")] = ports
    assert talks == {
        ("ingress", "load_balancer"): {"each.value[1]": {80}},
        ("egress", "load_balancer"): {"tasks": {8080}},
        ("ingress", "tasks"): {"load_balancer": {8080}},
        ("egress", "tasks"): {"database": {5432}, "endpoints": {443}, "aws_vpc_endpoint.s3.prefix_list_id": {443}},
        ("ingress", "database"): {"tasks": {5432}},
        ("ingress", "endpoints"): {"tasks": {443}},
    }
    for direction in ("ingress", "egress"):
        assert all(rule["description"] for rule in plan.all(f"aws_vpc_security_group_{direction}_rule").values())


def test_the_endpoints_are_exactly_what_a_task_needs(plan):
    interfaces = plan.all("aws_vpc_endpoint")
    gateway = interfaces.pop("aws_vpc_endpoint.s3")
    assert gateway["vpc_endpoint_type"] == "Gateway" and gateway["service_name"] == f"com.amazonaws.{REGION}.s3"
    assert {endpoint["service_name"].removeprefix(f"com.amazonaws.{REGION}.") for endpoint in interfaces.values()} == {
        "ecr.api", "ecr.dkr", "logs", "secretsmanager",
    }
    assert all(endpoint["private_dns_enabled"] and endpoint["vpc_endpoint_type"] == "Interface" for endpoint in interfaces.values())
    vpc = plan["aws_vpc.main"]
    assert vpc["enable_dns_support"] and vpc["enable_dns_hostnames"]
    assert plan.policy("aws_vpc_endpoint.s3") == [
        {
            "Sid": "ImageLayers", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::prod-{REGION}-starport-layer-bucket/*",
        }
    ]


def test_tasks_are_private(plan):
    (network,) = plan["aws_ecs_service.main"]["network_configuration"]
    assert network["assign_public_ip"] is False
    (configured,) = [resource for resource in plan.configuration if resource["address"] == "aws_ecs_service.main"]
    assert "aws_subnet.private" in configured["expressions"]["network_configuration"][0]["subnets"]["references"]


def test_the_service_deploys_safely(plan):
    service = plan["aws_ecs_service.main"]
    assert service["deployment_circuit_breaker"] == [{"enable": True, "rollback": True}]
    (alarms,) = service["alarms"]
    assert alarms["enable"] and alarms["rollback"] and len(alarms["alarm_names"]) == 2
    assert (service["deployment_minimum_healthy_percent"], service["deployment_maximum_percent"]) == (100, 200)
    assert service["platform_version"] == "LATEST" and service["health_check_grace_period_seconds"] > 0
    (check,) = plan["aws_lb_target_group.tasks"]["health_check"]
    assert (check["interval"], check["healthy_threshold"], check["path"]) == (15, 2, "/readyz")
    (task,) = plan.all("aws_ecs_task_definition").values()
    assert task["skip_destroy"] and not task["track_latest"] and task["requires_compatibilities"] == ["FARGATE"]


def test_tasks_survive_a_failover_of_the_database(plan):
    """ECS replaces a task that the load balancer calls unhealthy, and /readyz needs the database.

    https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Concepts.MultiAZ.Failover.html: "Failover times are typically 60-120
    seconds."
    """
    (check,) = plan["aws_lb_target_group.tasks"]["health_check"]
    from_first_to_last_failure = (check["unhealthy_threshold"] - 1) * check["interval"]
    assert from_first_to_last_failure > 120


def test_prop_keeps_idle_connections_longer_than_the_load_balancer(plan):
    """Otherwise the load balancer sends a request on a connection that prop is closing, and answers 502.

    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html
    """
    settings = tomllib.loads((ROOT / "prop.toml.example").read_text())
    assert settings["http"]["keep_alive_seconds"] > plan["aws_lb.main"]["idle_timeout"] == 60


def test_metrics_are_not_for_the_world(plan):
    rule = plan["aws_lb_listener_rule.metrics"]
    assert rule["priority"] == 1
    (condition,) = rule["condition"]
    assert condition["path_pattern"][0]["values"] == ["/metrics"]
    (action,) = rule["action"]
    assert (action["type"], action["fixed_response"][0]["status_code"]) == ("fixed-response", "404")
    assert plan.references("aws_lb_listener_rule.metrics", "listener_arn")[-1].startswith("aws_lb_listener.http")


def test_production_keeps_the_access_logs_of_its_load_balancer_for_a_month(plan, environment):
    """https://docs.aws.amazon.com/elasticloadbalancing/latest/application/enable-access-logging.html"""
    if environment == "staging":
        assert not plan.all("aws_s3_bucket") and not plan["aws_lb.main"]["access_logs"]
        return
    bucket = f"prop-alb-logs-{ACCOUNT}"
    assert plan["aws_s3_bucket.access_logs[0]"]["bucket"] == bucket and not plan["aws_s3_bucket.access_logs[0]"]["force_destroy"]
    (logs,) = plan["aws_lb.main"]["access_logs"]
    assert (logs["enabled"], logs["bucket"], logs["prefix"] or None) == (True, bucket, None)
    (rule,) = plan["aws_s3_bucket_lifecycle_configuration.access_logs[0]"]["rule"]
    assert (rule["status"], rule["expiration"][0]["days"]) == ("Enabled", 30)
    policy = plan.policy("aws_s3_bucket_policy.access_logs[0]")
    assert statement(policy, "Write") == {
        "Sid": "Write", "Effect": "Allow", "Action": "s3:PutObject",
        "Principal": {"Service": "logdelivery.elasticloadbalancing.amazonaws.com"},
        "Resource": f"arn:aws:s3:::{bucket}/AWSLogs/{ACCOUNT}/*",
    }
    assert statement(policy, "TlsOnly")["Effect"] == "Deny"
    # Load balancers write with S3's own key only.
    (encryption,) = plan["aws_s3_bucket_server_side_encryption_configuration.access_logs[0]"]["rule"]
    assert encryption["apply_server_side_encryption_by_default"][0]["sse_algorithm"] == "AES256"
    assert all(plan["aws_s3_bucket_public_access_block.access_logs[0]"][name] for name in (
        "block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets",
    ))
    # AWS tries to write when logging is switched on.
    (load_balancer,) = [resource for resource in plan.configuration if resource["address"] == "aws_lb.main"]
    assert "aws_s3_bucket_policy.access_logs" in load_balancer["depends_on"]


def test_one_small_task_and_one_small_database(plan):
    task, database = plan["aws_ecs_task_definition.main"], plan["aws_db_instance.main"]
    assert (task["cpu"], task["memory"]) == ("256", "512")
    assert plan["aws_ecs_service.main"]["tags"]["MinTasks"] == "1"
    assert (database["instance_class"], database["allocated_storage"]) == ("db.t3.micro", 20)


def test_the_database_is_private_and_encrypted(plan):
    database = plan["aws_db_instance.main"]
    assert database["publicly_accessible"] is False and database["storage_encrypted"] is True
    assert "aws_subnet.private" in plan.references("aws_db_subnet_group.main", "subnet_ids")
    assert plan.references("aws_db_instance.main", "vpc_security_group_ids")[0] == "aws_security_group.database.id"
    parameters = {parameter["name"]: parameter["value"] for parameter in plan["aws_db_parameter_group.main"]["parameter"]}
    assert parameters["rds.force_ssl"] == "1"
    assert database["ca_cert_identifier"] == "rds-ca-rsa2048-g1"


def test_the_database_can_be_restored(plan, environment):
    database = plan["aws_db_instance.main"]
    assert database["backup_retention_period"] == {"staging": 7, "production": 14}[environment]
    assert database["copy_tags_to_snapshot"]


def test_staging_is_backed_up_while_it_is_awake(staging_plan):
    """RDS takes no backup of a database that is stopped, and staging's is, but from 8 to 20 on working days in India."""
    plan = Plan(staging_plan)
    database = plan["aws_db_instance.main"]
    actions = plan.all("aws_appautoscaling_scheduled_action")
    crons = [actions[f'aws_appautoscaling_scheduled_action.tasks["{name}-tasks"]']["schedule"] for name in ("start", "stop")]
    assert tuple(crons) == ("cron(0 8 ? * MON-FRI *)", "cron(0 20 ? * * *)")
    day, *maintenance = re.fullmatch(r"(\w+):(\d\d:\d\d)-\1:(\d\d:\d\d)", database["maintenance_window"]).groups()
    assert day in ("mon", "tue", "wed", "thu", "fri")
    for start, end in (database["backup_window"].split("-"), maintenance):
        assert "02:30" <= start < end <= "14:30", "in UTC"


def test_production_is_kept_and_staging_can_go(plan, environment):
    kept = environment == "production"
    database = plan["aws_db_instance.main"]
    assert (database["deletion_protection"], database["multi_az"], database["skip_final_snapshot"]) == (kept, kept, not kept)
    assert database["delete_automated_backups"] is not kept
    assert plan["aws_lb.main"]["enable_deletion_protection"] is kept
    for secret in plan.all("aws_secretsmanager_secret").values():
        assert secret["recovery_window_in_days"] == (30 if kept else 0)
    if kept:
        assert "terraform_data.database_made.output" in plan.references("aws_db_instance.main", "final_snapshot_identifier")


def test_the_password_is_not_in_the_plan(plan):
    database = plan["aws_db_instance.main"]
    assert database["password_wo"] is None and database["password"] is None and not database["manage_master_user_password"]
    versions = plan.all("aws_secretsmanager_secret_version").values()
    assert all(version["secret_string_wo"] is None and not version.get("secret_string") for version in versions)
    # One local drives both, so that a new password reaches database and secret in one apply.
    for address, argument in [
        ("aws_db_instance.main", "password_wo_version"),
        ("aws_secretsmanager_secret_version.database", "secret_string_wo_version"),
        ("aws_secretsmanager_secret_version.bootstrap_key", "secret_string_wo_version"),
    ]:
        assert plan.references(address, argument) == ["local.secrets_version"]


def test_github_is_trusted_for_one_repository_and_one_environment(plan, environment):
    (trust,) = plan.policy("aws_iam_role.deploy[0]", "assume_role_policy")
    assert trust["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert trust["Principal"] == {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"}
    assert trust["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": f"{SUBJECT_PREFIX}:environment:{environment}",
        }
    }


def test_a_deployment_may_pass_the_two_task_roles_to_tasks_and_nothing_else(plan, environment):
    policy = plan.policy("aws_iam_role_policy.deploy[0]")
    suffix = NAMES[environment]
    passing = statement(policy, "PassTaskRoles")
    assert passing["Resource"] == [f"arn:aws:iam::{ACCOUNT}:role/prop-{role}{suffix}" for role in ("execution", "task")]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    actions = {action: statement["Sid"] for statement in policy for action in listed(statement["Action"])}
    assert [action for action in actions if action.startswith("iam:")] == ["iam:PassRole"]
    wakes = ["rds:StartDBInstance"] if environment == "staging" else []
    assert [action for action in actions if action.startswith("rds:")] == ["rds:DescribeDBInstances", *wakes]
    assert not [action for action in actions if action.split(":")[0] in ("s3", "dynamodb", "secretsmanager", "sts", "kms")]
    assert not [action for action in actions if "*" in action]
    assert all(statement["Effect"] == "Allow" for statement in policy)
    # Where everything is meant, it is read only; but deregistering supports no resources.
    everywhere = {action for statement in policy if statement["Resource"] == "*" for action in listed(statement["Action"])}
    assert {action for action in everywhere if not action.split(":")[1].startswith(("Describe", "Get", "List"))} == {
        "ecs:DeregisterTaskDefinition",
    }
    assert ("ecr:UploadLayerPart" in actions) is (environment == "staging")


def test_an_environment_adds_no_revision_to_the_family_of_another(plan, environment):
    """RegisterTaskDefinition supports task definitions as resources:
    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html"""
    family = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/prop-backend{NAMES[environment]}"
    allowed = [entry for entry in plan.policy("aws_iam_role_policy.deploy[0]") if "ecs:RegisterTaskDefinition" in listed(entry["Action"])]
    assert [entry["Resource"] for entry in allowed] == [f"{family}:*"]


def test_a_pull_request_may_read_what_a_plan_needs_and_no_secret(staging_plan, production_plan):
    plan = Plan(staging_plan)
    (trust,) = plan.policy("aws_iam_role.plan[0]", "assume_role_policy")
    assert trust["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"] == f"{SUBJECT_PREFIX}:pull_request"
    actions = [action for statement in plan.policy("aws_iam_role_policy.plan[0]") for action in listed(statement["Action"])]
    assert all(action.split(":")[1].startswith(("Describe", "Get", "List")) for action in actions)
    assert not [action for action in actions if action.split(":")[0] in ("secretsmanager", "rds", "kms")]
    assert "aws_iam_role.plan[0]" not in Plan(production_plan).all("aws_iam_role")


def test_a_task_may_do_nothing_in_aws(plan):
    assert plan.references("aws_ecs_task_definition.main", "task_role_arn")[0] == "aws_iam_role.task.arn"
    assert [address for address in plan.all("aws_iam_role_policy") if "task" in address] == []
    assert not plan.all("aws_iam_role_policy_attachment")


def test_an_account_has_repository_provider_and_budget_once(plan, environment):
    made = [plan.all(kind) for kind in ("aws_ecr_repository", "aws_iam_openid_connect_provider", "aws_budgets_budget")]
    assert [len(resources) for resources in made] == ([1, 1, 1] if environment == "staging" else [0, 0, 0])


def test_images_are_scanned_and_never_overwritten(staging_plan):
    (repository,) = Plan(staging_plan).all("aws_ecr_repository").values()
    assert repository["image_tag_mutability"] == "IMMUTABLE"
    assert repository["image_scanning_configuration"] == [{"scan_on_push": True}]


def test_staging_sleeps_and_production_does_not(plan, environment):
    schedules, actions = (plan.all(kind).values() for kind in ("aws_scheduler_schedule", "aws_appautoscaling_scheduled_action"))
    targets = sorted(schedule["target"][0]["arn"].partition(":aws-sdk:")[2] for schedule in schedules)
    ranges = sorted((one["min_capacity"], one["max_capacity"]) for action in actions for one in action["scalable_target_action"])
    sleeps = environment == "staging"
    assert targets == (["rds:startDBInstance", "rds:stopDBInstance"] if sleeps else [])
    assert ranges == ([("0", "0"), ("1", "4")] if sleeps else [])
    assert all(schedule["schedule_expression_timezone"] == "Asia/Kolkata" for schedule in schedules)
    assert all(action["timezone"] == "Asia/Kolkata" for action in actions)
    assert len(plan.all("aws_cloudwatch_metric_alarm").keys() & {"aws_cloudwatch_metric_alarm.schedule[0]"}) == sleeps


def test_no_variable_changes_the_port_of_a_running_service(plan):
    """ECS would refuse it, after listener and security groups have changed."""
    (service,) = [resource for resource in plan.configuration if resource["address"] == "aws_ecs_service.main"]
    assert service["expressions"]["load_balancer"][0]["container_port"]["references"] == ["local.port"]
    assert "var.container_port" not in str(plan.configuration)


def test_it_is_watched(plan, environment):
    assert plan.all("aws_cloudwatch_dashboard") and plan.all("aws_sns_topic_subscription")
    assert {alarm["alarm_name"] for alarm in plan.all("aws_cloudwatch_metric_alarm").values()} == {
        f"prop-{name}{NAMES[environment]}"
        for name in (
            "server-errors", "load-balancer-errors", "latency", "unhealthy-tasks", "no-task", "database-cpu", "database-storage",
            "database-connections",
        )
    } | ({"prop-schedule-staging"} if environment == "staging" else set())
    for group in plan.all("aws_cloudwatch_log_group").values():
        assert group["retention_in_days"] == {"staging": 14, "production": 90}[environment]


def test_what_the_load_balancer_answers_itself_is_noticed(plan):
    """https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html: a count of
    "HTTP 5XX server error codes that originate from the load balancer", which is in no metric of a target."""
    alarm = plan['aws_cloudwatch_metric_alarm.main["load-balancer-errors"]']
    assert (alarm["namespace"], alarm["metric_name"], alarm["statistic"]) == ("AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", "Sum")


def test_one_slow_request_among_few_rolls_nothing_back(plan):
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/percentiles-with-low-samples.html"""
    for alarm in plan.all("aws_cloudwatch_metric_alarm").values():
        assert alarm.get("evaluate_low_sample_count_percentiles") == ("ignore" if alarm["extended_statistic"] else None)


def test_everything_that_can_carries_the_tags(plan, environment):
    tagged = [change for change in plan.changes if "tags_all" in change["change"]["after"]]
    assert len(tagged) > 30
    for change in tagged:
        tags = change["change"]["after"]["tags_all"]
        assert {"Project": "prop", "Environment": environment, "ManagedBy": "terraform"}.items() <= tags.items(), change["address"]
