locals {
  # A stopping task has 20 seconds to finish its requests. ECS kills it after 30 seconds.
  drain_seconds = 20
  stop_seconds  = 30

  # The port that prop listens on. No variable: ECS rejects another port while the service runs a revision without it.
  port = 8080

  # A new account has no image yet. Terraform's revisions name an image that never exists, and no task runs with them: the
  # service starts without tasks, autoscaling.tf allows none, and deploy.sh registers a copy of the newest revision with a real image.
  no_image = "${local.repository_url}:none"
}

resource "aws_ecs_cluster" "main" {
  #checkov:skip=CKV_AWS_65:Container Insights cost money per metric; the variable container_insights enables them
  name = local.cluster

  setting {
    name  = "containerInsights"
    value = var.container_insights ? "enabled" : "disabled"
  }
}

# Terraform owns the settings of a task, and deploy.sh owns its image. A changed setting creates a new revision, which the next
# deployment uses. Older revisions are kept for rollbacks.
resource "aws_ecs_task_definition" "main" {
  family                   = local.family
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.task_cpu
  memory                   = var.task_memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  skip_destroy             = true
  track_latest             = false

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  container_definitions = jsonencode([{
    name      = local.container
    image     = local.no_image
    essential = true
    cpu       = var.task_cpu
    memory    = var.task_memory
    user      = "65532:65532"

    portMappings = [{ containerPort = local.port, hostPort = local.port, protocol = "tcp" }]

    # prop's settings, all of which it knows. It connects as the owner before its port opens, and serves as the other role.
    environment = concat([
      { name = "PORT", value = tostring(local.port) },
      { name = "PROP_ENVIRONMENT", value = "production" },
      { name = "PROP_HTTP__SHUTDOWN_SECONDS", value = tostring(local.drain_seconds) },
      { name = "PROP_DATABASE__HOST", value = aws_db_instance.main.address },
      { name = "PROP_DATABASE__PORT", value = tostring(aws_db_instance.main.port) },
      { name = "PROP_DATABASE__NAME", value = local.database_name },
      { name = "PROP_DATABASE__USER", value = local.database_app },
      { name = "PROP_DATABASE__MIGRATE_USER", value = local.database_user },
      { name = "PROP_DATABASE__SSLMODE", value = "verify-full" },
      { name = "PROP_DATABASE__CA_FILE", value = "/etc/prop/rds-ca.pem" },
    ], [for name, value in var.extra_environment : { name = name, value = value }])
    secrets = concat([
      { name = "PROP_DATABASE__PASSWORD", valueFrom = "${aws_secretsmanager_secret.database.arn}:app_password::" },
      { name = "PROP_DATABASE__MIGRATE_PASSWORD", valueFrom = "${aws_secretsmanager_secret.database.arn}:password::" },
      { name = "PROP_BOOTSTRAP_KEY", valueFrom = aws_secretsmanager_secret.bootstrap_key.arn },
    ], [for secret in aws_secretsmanager_secret.github_webhook : { name = "PROP_GITHUB__WEBHOOK_SECRET", valueFrom = secret.arn }])

    healthCheck = { command = ["CMD", "/prop", "healthcheck", "--live"], interval = 10, timeout = 5, retries = 3, startPeriod = 30 }
    stopTimeout = local.stop_seconds

    # There is no shell to execute in it: run-task.sh runs prop's commands in a task of their own.
    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"], add = [] } }

    # Logging never blocks a request. If CloudWatch is unavailable and the buffer is full, log lines are lost.
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.main.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "prop"
        mode                  = "non-blocking"
        max-buffer-size       = "4m"
      }
    }
    mountPoints    = []
    volumesFrom    = []
    systemControls = []
  }])
}

resource "aws_ecs_service" "main" {
  name             = local.service
  cluster          = aws_ecs_cluster.main.id
  task_definition  = aws_ecs_task_definition.main.arn
  desired_count    = 0
  launch_type      = "FARGATE"
  platform_version = "LATEST"
  propagate_tags   = "SERVICE"

  # The scripts read the range from here: the deploy role can read neither the variables nor the state.
  tags = { MinTasks = var.min_tasks, MaxTasks = var.max_tasks }

  # New tasks start before old ones stop. ECS rolls back if new tasks do not start or an alarm is raised.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60
  availability_zone_rebalancing      = "ENABLED"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  alarms {
    enable      = true
    rollback    = true
    alarm_names = [for name in local.rollback_alarms : aws_cloudwatch_metric_alarm.main[name].alarm_name]
  }

  network_configuration {
    subnets          = [for subnet in aws_subnet.private : subnet.id]
    security_groups  = [aws_security_group.tasks.id]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.tasks.arn
    container_name   = local.container
    container_port   = local.port
  }

  lifecycle {
    # deploy.sh sets the first, and autoscaling the second.
    ignore_changes = [task_definition, desired_count]
  }

  # ECS rejects a target group without a listener, and a task fails without access to its image, secrets and logs.
  depends_on = [
    aws_lb_listener.http,
    aws_lb_listener.https,
    aws_vpc_endpoint.interface,
    aws_vpc_endpoint.s3,
    aws_iam_role_policy.execution,
    aws_secretsmanager_secret_version.database,
    aws_secretsmanager_secret_version.bootstrap_key,
    aws_secretsmanager_secret_version.github_webhook,
  ]
}
