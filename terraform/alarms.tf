# Each alarm says what to look at first. Two of them also take a deployment back while it runs.

locals {
  load_balancer_dimensions = { LoadBalancer = aws_lb.main.arn_suffix }
  target_dimensions        = { LoadBalancer = aws_lb.main.arn_suffix, TargetGroup = aws_lb_target_group.tasks.arn_suffix }
  service_dimensions       = { ClusterName = local.cluster, ServiceName = local.service }
  database_dimensions      = { DBInstanceIdentifier = local.database }

  rollback_alarms = ["server-errors", "latency"]

  # Minutes, of the last five, that must be beyond the threshold. What is missing is well, unless it says otherwise.
  alarms = {
    server-errors = {
      description = "prop answers with 5xx: see its log, and what was deployed last"
      namespace   = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.target_dimensions
      statistic   = "Sum", above = 5, minutes = 2
    }
    latency = {
      description = "One request in a hundred takes over a second: see slow statements in prop's log, and the database's load"
      namespace   = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.target_dimensions
      statistic   = "p99", above = 1, minutes = 3
    }
    unhealthy-tasks = {
      description = "A task fails its health check: see its log and /readyz"
      namespace   = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.target_dimensions
      statistic   = "Maximum", above = 0, minutes = 3
    }
    # Each task reports its CPU once a minute, so the number of samples is the number of tasks, and without Container Insights
    # nothing else tells. No task, no sample: missing is the alarm.
    no-task = {
      description = "No task runs: see the service's events, and whether the environment was stopped"
      namespace   = "AWS/ECS", metric = "CPUUtilization", dimensions = local.service_dimensions
      statistic   = "SampleCount", below = 1, minutes = 3, missing = "breaching"
    }
    database-cpu = {
      description = "The database computes all the time: see Performance Insights"
      namespace   = "AWS/RDS", metric = "CPUUtilization", dimensions = local.database_dimensions
      statistic   = "Average", above = 80, minutes = 5
    }
    database-storage = {
      description = "Less than 2 GiB of storage are free: see why it grows, and database_storage_ceiling"
      namespace   = "AWS/RDS", metric = "FreeStorageSpace", dimensions = local.database_dimensions
      statistic   = "Minimum", below = 2 * 1024 * 1024 * 1024, minutes = 3
    }
    # A db.t3.micro admits about 80, of which tasks take 8 each.
    database-connections = {
      description = "The database is about to refuse connections: see how many tasks run"
      namespace   = "AWS/RDS", metric = "DatabaseConnections", dimensions = local.database_dimensions
      statistic   = "Maximum", above = 65, minutes = 3
    }
  }
}

resource "aws_sns_topic" "alarms" {
  name              = "prop-alarms${local.suffix}"
  kms_master_key_id = local.key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_email[*])

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "main" {
  for_each = local.alarms

  alarm_name        = "prop-${each.key}${local.suffix}"
  alarm_description = each.value.description

  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  comparison_operator = can(each.value.above) ? "GreaterThanThreshold" : "LessThanThreshold"
  threshold           = try(each.value.above, each.value.below)
  period              = 60
  evaluation_periods  = 5
  datapoints_to_alarm = each.value.minutes
  treat_missing_data  = try(each.value.missing, "notBreaching")

  alarm_actions = [aws_sns_topic.alarms.arn]
  ok_actions    = [aws_sns_topic.alarms.arn]
  # Where tasks are stopped every evening, that none runs is on the dashboard, but nobody is woken by it.
  actions_enabled = !(each.key == "no-task" && var.auto_stop)
}
