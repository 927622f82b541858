# Tests of what the variables change, planned without AWS. tests/infra tests the two environments as they are.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["ap-south-1a", "ap-south-1b", "ap-south-1c"] }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_vpc_endpoint_service" {
    defaults = { availability_zones = ["ap-south-1a", "ap-south-1b", "ap-south-1c"], service_name = "com.amazonaws.ap-south-1.any" }
  }
  mock_resource "aws_db_instance" {
    defaults        = { address = "db.internal", port = 5432 }
    override_during = plan
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults        = { arn = "arn:aws:secretsmanager:ap-south-1:123456789012:secret:prop-AbCdEf" }
    override_during = plan
  }
  mock_resource "aws_kms_key" {
    defaults        = { arn = "arn:aws:kms:ap-south-1:123456789012:key/0f1e2d3c" }
    override_during = plan
  }
}

variables {
  environment               = "staging"
  creates_account_resources = true
  multi_az                  = false
  backup_days               = 7
  deletion_protection       = false
  log_retention_days        = 14
  alarm_email               = "ops@example.org"
  github_subject_prefix     = "repo:acme/prop"
  database_password         = "0123456789abcdef"
  database_app_password     = "fedcba9876543210"
  bootstrap_key             = "prop_000000000000000000000000000000000000"
}

run "defaults_are_small_and_plain" {
  command = plan

  assert {
    condition = (
      aws_db_instance.main.instance_class == "db.t3.micro" && aws_db_instance.main.allocated_storage == 20 &&
      aws_ecs_task_definition.main.cpu == "256" && aws_ecs_task_definition.main.memory == "512" &&
      aws_ecs_service.main.tags.MinTasks == "1"
    )
    error_message = "By default, an environment has one small task and a db.t3.micro with 20 GB."
  }
  assert {
    condition = (
      length(aws_wafv2_web_acl.main) + length(aws_kms_key.main) + length(aws_backup_vault.main) + length(aws_scheduler_schedule.main) == 0
      && one(aws_ecs_cluster.main.setting).value == "disabled"
    )
    error_message = "Options with extra costs are off by default."
  }
  assert {
    condition = (
      aws_ecs_service.main.desired_count == 0 && endswith(jsondecode(aws_ecs_task_definition.main.container_definitions)[0].image, ":none") &&
      aws_appautoscaling_target.tasks.max_capacity == 0 && one(aws_appautoscaling_target.tasks.suspended_state).scheduled_scaling_suspended
    )
    error_message = "No task runs before there is an image."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.main.container_definitions)[0].healthCheck.command == ["CMD", "/prop", "healthcheck", "--live"]
    error_message = "ECS ends a task that does not answer, but not one whose database is away."
  }
  assert {
    condition = { for variable in jsondecode(aws_ecs_task_definition.main.container_definitions)[0].environment : variable.name => variable.value } == {
      PORT                        = "8080"
      PROP_ENVIRONMENT            = "production"
      PROP_HTTP__SHUTDOWN_SECONDS = "20"
      PROP_DATABASE__HOST         = "db.internal"
      PROP_DATABASE__PORT         = "5432"
      PROP_DATABASE__NAME         = "prop"
      PROP_DATABASE__USER         = "prop_app"
      PROP_DATABASE__MIGRATE_USER = "prop"
      PROP_DATABASE__SSLMODE      = "verify-full"
      PROP_DATABASE__CA_FILE      = "/etc/prop/rds-ca.pem"
    }
    error_message = "The task's environment has exactly the settings that prop needs."
  }
  assert {
    condition = (
      jsondecode(aws_ecs_task_definition.main.container_definitions)[0].stopTimeout > local.drain_seconds &&
      tonumber(aws_lb_target_group.tasks.deregistration_delay) >= 15 && tonumber(aws_lb_target_group.tasks.deregistration_delay) <= 30
    )
    error_message = "A task finishes its requests before ECS kills it."
  }
  assert {
    condition     = aws_lb_listener.http.default_action[0].type == "forward" && length(aws_lb_listener.https) == 0
    error_message = "Without a certificate, the load balancer serves HTTP."
  }
}

run "production_has_the_plain_names" {
  command = plan

  variables {
    environment               = "production"
    creates_account_resources = false
    certificate_arn           = "arn:aws:acm:ap-south-1:123456789012:certificate/0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    multi_az                  = true
    deletion_protection       = true
    endpoint_zones            = 2
  }
  override_resource {
    target          = aws_lb_listener.http
    values          = { arn = "arn:aws:elasticloadbalancing:ap-south-1:123456789012:listener/app/prop-alb/1/80" }
    override_during = plan
  }
  override_resource {
    target          = aws_lb_listener.https
    values          = { arn = "arn:aws:elasticloadbalancing:ap-south-1:123456789012:listener/app/prop-alb/1/443" }
    override_during = plan
  }

  assert {
    condition = [
      aws_ecs_cluster.main.name, aws_ecs_service.main.name, aws_ecs_task_definition.main.family, aws_db_instance.main.identifier,
      aws_lb.main.name, aws_cloudwatch_log_group.main.name, aws_secretsmanager_secret.database.name, aws_iam_role.deploy[0].name,
      ] == [
      "prop-ecs-cluster", "prop-backend-service", "prop-backend", "prop-db",
      "prop-alb", "/ecs/prop-backend", "prop/database", "prop-deploy",
    ]
    error_message = "Production's names have no suffix, because the assignment and the scripts use these names."
  }
  assert {
    condition     = length(aws_ecr_repository.main) + length(aws_iam_openid_connect_provider.github) + length(aws_budgets_budget.main) == 0
    error_message = "Shared resources of the account are looked up, not created again."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.deploy[0].policy, "ecr:UploadLayerPart")
    error_message = "Only the environment that creates the repository may push images."
  }
  assert {
    condition     = aws_lb_listener.http.default_action[0].type == "redirect" && aws_lb_listener.https[0].ssl_policy == "ELBSecurityPolicy-TLS13-1-2-2021-06"
    error_message = "With a certificate, HTTP redirects to HTTPS."
  }
  assert {
    condition     = endswith(aws_lb_listener_rule.metrics.listener_arn, "/443")
    error_message = "/metrics is hidden at the listener that forwards."
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.load_balancer_from_world : rule.from_port]) == toset([80, 443])
    error_message = "With a certificate, the load balancer allows ports 80 and 443."
  }
  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.private_dns_enabled])
    error_message = "Endpoints have private DNS names, so that tasks find them."
  }
  assert {
    condition     = !aws_db_instance.main.skip_final_snapshot && aws_db_instance.main.deletion_protection && aws_lb.main.enable_deletion_protection
    error_message = "deletion_protection protects database and load balancer, and keeps a final snapshot."
  }
}

run "extras_can_be_switched_on" {
  command = plan

  variables {
    waf                  = true
    customer_managed_key = true
    backup_vault         = true
    auto_stop            = true
    working_hours        = { start = 9, stop = 19, days = "MON-SAT", zone = "Europe/Berlin" }
    min_tasks            = 2
    max_tasks            = 3
    container_insights   = true
    access_logs          = true
    allowed_cidrs        = ["203.0.113.0/24", "198.51.100.0/24"]
  }

  assert {
    condition     = length(aws_wafv2_web_acl_association.main) == 1
    error_message = "waf associates the firewall with the load balancer."
  }
  assert {
    condition = alltrue([for arn in concat(
      [aws_db_instance.main.kms_key_id, aws_secretsmanager_secret.database.kms_key_id, aws_secretsmanager_secret.bootstrap_key.kms_key_id],
      [aws_cloudwatch_log_group.main.kms_key_id, aws_sns_topic.alarms.kms_master_key_id, aws_backup_vault.main[0].kms_key_arn],
      [one(aws_ecr_repository.main[0].encryption_configuration).kms_key, aws_db_instance.main.performance_insights_kms_key_id],
    ) : arn == aws_kms_key.main[0].arn])
    error_message = "customer_managed_key encrypts everything that supports it."
  }
  assert {
    condition     = strcontains(aws_iam_role_policy.execution.policy, "kms:Decrypt")
    error_message = "With a customer-managed key, tasks can still read their secrets."
  }
  assert {
    condition = merge(
      { for name, schedule in aws_scheduler_schedule.main : name => "${schedule.schedule_expression} ${schedule.schedule_expression_timezone}" },
      { for name, action in aws_appautoscaling_scheduled_action.tasks : name => "${action.schedule} ${action.timezone}" },
      ) == {
      stop-tasks     = "cron(0 19 ? * * *) Europe/Berlin"
      stop-database  = "cron(15 19 ? * * *) Europe/Berlin"
      start-database = "cron(30 8 ? * MON-SAT *) Europe/Berlin"
      start-tasks    = "cron(0 9 ? * MON-SAT *) Europe/Berlin"
    }
    error_message = "auto_stop stops every evening, and starts the database before the tasks on working days."
  }
  assert {
    condition     = [for name, alarm in aws_cloudwatch_metric_alarm.main : name if !alarm.actions_enabled] == ["load-balancer-errors", "no-task"]
    error_message = "With auto_stop, the alarms that are raised at night notify nobody."
  }
  assert {
    condition = { for name, action in aws_appautoscaling_scheduled_action.tasks : name => "${one(action.scalable_target_action).min_capacity} to ${one(action.scalable_target_action).max_capacity}" } == {
      stop-tasks  = "0 to 0"
      start-tasks = "2 to 3"
    }
    error_message = "The schedule allows no task in the evening, and min_tasks to max_tasks in the morning."
  }
  assert {
    condition = (
      one(aws_cloudwatch_metric_alarm.schedule).metric_name == "InvocationDroppedCount" &&
      one(aws_cloudwatch_metric_alarm.schedule).dimensions.ScheduleGroup == one(aws_scheduler_schedule_group.main).name &&
      alltrue([for schedule in aws_scheduler_schedule.main : one(one(schedule.target).retry_policy).maximum_event_age_in_seconds == 7200])
    )
    error_message = "Somebody is told when the database could not be stopped or started for two hours."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.load_balancer_from_world) == 2 && one(aws_lb.main.access_logs).bucket == "prop-alb-staging-logs-123456789012"
    error_message = "allowed_cidrs and access_logs apply to the load balancer."
  }
}

run "github_webhooks_and_more_settings_reach_the_task" {
  command = plan

  variables {
    github_webhook_version = 1
    github_webhook_secret  = "0123456789abcdef"
    extra_environment      = { PROP_PUBLIC_READ = "true", PROP_TIER__PRODUCTION__REQUIRED_APPROVALS = "1" }
  }

  assert {
    condition = contains(
      jsondecode(aws_ecs_task_definition.main.container_definitions)[0].secrets[*].name, "PROP_GITHUB__WEBHOOK_SECRET"
    )
    error_message = "The task gets the webhook secret."
  }
  assert {
    condition     = length(one([for statement in jsondecode(aws_iam_role_policy.execution.policy).Statement : statement if statement.Sid == "Secrets"]).Resource) == 3
    error_message = "ECS may read the webhook secret."
  }
  assert {
    condition     = aws_secretsmanager_secret_version.github_webhook[0].secret_string_wo_version == 1 && aws_secretsmanager_secret_version.github_webhook[0].secret_string == null
    error_message = "The webhook secret is write-only, with a version of its own."
  }
  assert {
    condition = setintersection(
      [for variable in jsondecode(aws_ecs_task_definition.main.container_definitions)[0].environment : "${variable.name}=${variable.value}"],
      ["PROP_PUBLIC_READ=true", "PROP_TIER__PRODUCTION__REQUIRED_APPROVALS=1"],
    ) == toset(["PROP_PUBLIC_READ=true", "PROP_TIER__PRODUCTION__REQUIRED_APPROVALS=1"])
    error_message = "extra_environment is in the task's environment."
  }
}

run "an_account_that_trusts_github_keeps_its_provider" {
  command = plan

  variables {
    creates_github_provider = false
    state_region            = "eu-west-1"
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0 && length(data.aws_iam_openid_connect_provider.github) == 1
    error_message = "The provider is looked up, not created again."
  }
  assert {
    condition     = length(aws_ecr_repository.main) + length(aws_budgets_budget.main) + length(aws_iam_role.plan) == 3
    error_message = "Everything else that an account has once is still created."
  }
  assert {
    condition     = strcontains(aws_iam_role_policy.plan[0].policy, "arn:aws:dynamodb:eu-west-1:123456789012:table/prop-terraform-locks")
    error_message = "The lock table is in the region of the state."
  }
}

run "each_zone_has_a_public_and_a_private_subnet" {
  command = plan

  variables {
    vpc_cidr = "10.40.0.0/23"
    zones    = 3
  }

  assert {
    condition = {
      for zone in ["ap-south-1a", "ap-south-1b", "ap-south-1c"] :
      zone => [aws_subnet.public[zone].cidr_block, aws_subnet.private[zone].cidr_block]
      } == {
      ap-south-1a = ["10.40.0.0/26", "10.40.1.0/26"]
      ap-south-1b = ["10.40.0.64/26", "10.40.1.64/26"]
      ap-south-1c = ["10.40.0.128/26", "10.40.1.128/26"]
    }
    error_message = "Subnets are eighths of the VPC, and another zone moves none."
  }
}

run "an_endpoint_is_where_its_service_is" {
  command = plan

  variables {
    endpoint_zones = 2
  }
  override_data {
    target = data.aws_vpc_endpoint_service.interface["logs"]
    values = { availability_zones = ["ap-south-1b", "ap-south-1c"] }
  }

  assert {
    condition     = local.endpoint_zones["logs"] == ["ap-south-1b"] && local.endpoint_zones["ecr.api"] == ["ap-south-1a", "ap-south-1b"]
    error_message = "An endpoint is created only in zones where its service is available."
  }
}

run "a_service_that_no_zone_offers_is_refused" {
  command = plan

  override_data {
    target = data.aws_vpc_endpoint_service.interface["logs"]
    values = { availability_zones = ["ap-south-1c"] }
  }
  expect_failures = [data.aws_vpc_endpoint_service.interface]
}

run "a_region_with_one_zone_is_refused" {
  command = plan

  override_data {
    target = data.aws_availability_zones.available
    values = { names = ["ap-south-1a"] }
  }
  expect_failures = [data.aws_availability_zones.available]
}

run "what_is_seldom_meant_is_said" {
  command = plan

  variables {
    environment           = "production"
    alarm_email           = null
    github_subject_prefix = null
    auto_stop             = true
  }
  expect_failures = [
    check.keys_travel_encrypted,
    check.alarms_reach_somebody,
    check.production_is_kept,
    check.one_zone_may_fail,
    check.github_may_deploy,
  ]
}
