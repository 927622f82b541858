# The description of each alarm names what to check first. Two alarms also make ECS roll back a running deployment.

locals {
  load_balancer_dimensions = { LoadBalancer = aws_lb.main.arn_suffix }
  target_dimensions        = { LoadBalancer = aws_lb.main.arn_suffix, TargetGroup = aws_lb_target_group.tasks.arn_suffix }
  service_dimensions       = { ClusterName = local.cluster, ServiceName = local.service }
  database_dimensions      = { DBInstanceIdentifier = local.database }

  rollback_alarms = ["server-errors", "latency"]

  # `minutes` is how many of the last five minutes must exceed the threshold. Missing data counts as good by default.
  alarms = {
    server-errors = {
      description = "prop responds with status 5xx. Check its log and the last deployment."
      namespace   = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.target_dimensions
      statistic   = "Sum", above = 5, minutes = 2
    }
    # With auto_stop, whoever asks at night gets 503 from the load balancer.
    load-balancer-errors = {
      description = "The load balancer itself responds with status 5xx: no task is healthy (503), or prop closes connections (502) or is slow (504)."
      namespace   = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.load_balancer_dimensions
      statistic   = "Sum", above = 5, minutes = 2
    }
    latency = {
      description = "One request in a hundred takes more than a second. Check the slow statements in prop's log and the database's load."
      namespace   = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.target_dimensions
      statistic   = "p99", above = 1, minutes = 3
    }
    unhealthy-tasks = {
      description = "A task fails its health check. Check its log and /readyz."
      namespace   = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.target_dimensions
      statistic   = "Maximum", above = 0, minutes = 3
    }
    # Each task reports its CPU once a minute, so the number of samples is the number of tasks. Without Container Insights
    # there is no other metric for it. Without tasks there are no samples, so missing data raises the alarm.
    no-task = {
      description = "No task is running. Check the service's events, and whether the environment was stopped."
      namespace   = "AWS/ECS", metric = "CPUUtilization", dimensions = local.service_dimensions
      statistic   = "SampleCount", below = 1, minutes = 3, missing = "breaching"
    }
    database-cpu = {
      description = "The database's CPU is over 80 percent. Check CloudWatch Database Insights."
      namespace   = "AWS/RDS", metric = "CPUUtilization", dimensions = local.database_dimensions
      statistic   = "Average", above = 80, minutes = 5
    }
    database-storage = {
      description = "Less than 2 GiB of database storage are free. Check what grows, and database_storage_ceiling."
      namespace   = "AWS/RDS", metric = "FreeStorageSpace", dimensions = local.database_dimensions
      statistic   = "Minimum", below = 2 * 1024 * 1024 * 1024, minutes = 3
    }
    # A db.t3.micro allows about 80 connections, and each task uses 8.
    database-connections = {
      description = "The database has almost no free connections. Check how many tasks are running."
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
  # With few requests, a percentile is the slowest one. Below 1000 requests in five minutes, p99 does not change the state, so
  # that one slow request does not roll back a deployment.
  evaluate_low_sample_count_percentiles = startswith(each.value.statistic, "p") ? "ignore" : null

  alarm_actions = [aws_sns_topic.alarms.arn]
  ok_actions    = [aws_sns_topic.alarms.arn]
  # With auto_stop, no task runs at night. The dashboard then shows these alarms, but they notify nobody.
  actions_enabled = !((each.key == "no-task" || each.key == "load-balancer-errors") && var.auto_stop)
}
