# Staging's hours: tasks and database stop in the evening and start in the morning of working days. Load balancer and endpoints
# always run: only hours of tasks and database are saved.
#
# The stop runs every evening, also on weekends, because RDS starts a stopped database after 7 days.

locals {
  hours = var.working_hours

  task_schedules = var.auto_stop ? {
    stop-tasks  = { at = "0 ${local.hours.stop} ? * * *", min = 0, max = 0 }
    start-tasks = { at = "0 ${local.hours.start} ? * ${local.hours.days} *", min = var.min_tasks, max = var.max_tasks }
  } : {}

  database_schedules = var.auto_stop ? {
    stop-database  = { at = "15 ${local.hours.stop} ? * * *", call = "rds:stopDBInstance" }
    start-database = { at = "30 ${local.hours.start - 1} ? * ${local.hours.days} *", call = "rds:startDBInstance" }
  } : {}
}

# Changes the range of the autoscaling, which moves the number of tasks into it. The first deployment resumes these actions, so
# no morning starts tasks that have no image.
resource "aws_appautoscaling_scheduled_action" "tasks" {
  for_each = local.task_schedules

  name               = "prop-${each.key}${local.suffix}"
  service_namespace  = aws_appautoscaling_target.tasks.service_namespace
  resource_id        = aws_appautoscaling_target.tasks.resource_id
  scalable_dimension = aws_appautoscaling_target.tasks.scalable_dimension
  schedule           = "cron(${each.value.at})"
  timezone           = local.hours.zone

  scalable_target_action {
    min_capacity = each.value.min
    max_capacity = each.value.max
  }
}

# EventBridge Scheduler calls RDS directly.
resource "aws_scheduler_schedule_group" "main" {
  count = var.auto_stop ? 1 : 0

  name = "prop${local.suffix}"
}

resource "aws_scheduler_schedule" "main" {
  #checkov:skip=CKV_AWS_297:A schedule contains names only, which are encrypted with an AWS-managed key
  for_each = local.database_schedules

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
    input    = jsonencode({ DbInstanceIdentifier = local.database })

    # RDS does not stop a database during its backup or a change, so there is time for those to end.
    retry_policy {
      maximum_retry_attempts       = 20
      maximum_event_age_in_seconds = 2 * 60 * 60
    }
  }
}

# Scheduler counts a call here when it gives up on it: https://docs.aws.amazon.com/scheduler/latest/UserGuide/monitoring-cloudwatch.html
resource "aws_cloudwatch_metric_alarm" "schedule" {
  count = var.auto_stop ? 1 : 0

  alarm_name        = "prop-schedule${local.suffix}"
  alarm_description = "The schedule could not stop or start the database. Check its status, then run: scripts/db.sh ${var.environment} stop, or start."

  namespace           = "AWS/Scheduler"
  metric_name         = "InvocationDroppedCount"
  dimensions          = { ScheduleGroup = aws_scheduler_schedule_group.main[0].name }
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

resource "aws_iam_role" "scheduler" {
  count = var.auto_stop ? 1 : 0

  name        = "prop-scheduler${local.suffix}"
  description = "Stops and starts the database of ${var.environment}"
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
      { Sid = "Database", Effect = "Allow", Action = ["rds:StartDBInstance", "rds:StopDBInstance"], Resource = local.database_arn },
    ]
  })
}
