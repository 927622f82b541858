# EventBridge Scheduler stops tasks and database in the evening and starts them in the morning of working days. It calls ECS
# and RDS directly. Load balancer and endpoints always run: only hours of tasks and database are saved.
#
# The stop runs every evening, also on weekends, because RDS starts a stopped database after 7 days. If nothing was deployed
# yet, the tasks that start in the morning have no image. They fail, and ECS retries until the first deployment.

locals {
  hours = var.working_hours

  schedules = var.auto_stop ? {
    stop-tasks     = { at = "0 ${local.hours.stop} ? * * *", call = "ecs:updateService", input = local.no_tasks }
    stop-database  = { at = "15 ${local.hours.stop} ? * * *", call = "rds:stopDBInstance", input = local.this_database }
    start-database = { at = "30 ${local.hours.start - 1} ? * ${local.hours.days} *", call = "rds:startDBInstance", input = local.this_database }
    start-tasks    = { at = "0 ${local.hours.start} ? * ${local.hours.days} *", call = "ecs:updateService", input = local.min_tasks }
  } : {}

  no_tasks      = { Cluster = local.cluster, Service = local.service, DesiredCount = 0 }
  min_tasks     = { Cluster = local.cluster, Service = local.service, DesiredCount = var.min_tasks }
  this_database = { DbInstanceIdentifier = local.database }
}

resource "aws_scheduler_schedule_group" "main" {
  count = var.auto_stop ? 1 : 0

  name = "prop${local.suffix}"
}

resource "aws_scheduler_schedule" "main" {
  #checkov:skip=CKV_AWS_297:A schedule contains names only, which are encrypted with an AWS-managed key
  for_each = local.schedules

  name                         = "prop-${each.key}${local.suffix}"
  group_name                   = aws_scheduler_schedule_group.main[0].name
  schedule_expression          = "cron(${each.value.at})"
  schedule_expression_timezone = local.hours.zone

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:${local.partition}:scheduler:::aws-sdk:${each.value.call}"
    role_arn = aws_iam_role.scheduler[0].arn
    input    = jsonencode(each.value.input)

    retry_policy {
      maximum_retry_attempts       = 3
      maximum_event_age_in_seconds = 600
    }
  }
}

resource "aws_iam_role" "scheduler" {
  count = var.auto_stop ? 1 : 0

  name        = "prop-scheduler${local.suffix}"
  description = "Stops and starts tasks and database of ${var.environment}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account_id }
      }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  count = var.auto_stop ? 1 : 0

  name = "stop-and-start"
  role = aws_iam_role.scheduler[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Sid = "Tasks", Effect = "Allow", Action = "ecs:UpdateService", Resource = local.service_arn },
      { Sid = "Database", Effect = "Allow", Action = ["rds:StartDBInstance", "rds:StopDBInstance"], Resource = local.database_arn },
    ]
  })
}
