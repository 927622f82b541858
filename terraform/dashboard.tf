# From the top: is it used, is it well, how much of what it has does it need, what was deployed.

locals {
  # Title, then lines: namespace, metric, dimensions, statistic, and a label where the metric's name says too little.
  widgets = [
    {
      title = "Requests a minute"
      lines = [["AWS/ApplicationELB", "RequestCount", local.load_balancer_dimensions, "Sum", "requests"]]
    },
    {
      title = "Seconds until the answer"
      lines = [for statistic in ["p50", "p90", "p99"] :
        ["AWS/ApplicationELB", "TargetResponseTime", local.target_dimensions, statistic, statistic]
      ]
    },
    {
      title = "Answers that are errors, a minute"
      lines = [
        ["AWS/ApplicationELB", "HTTPCode_Target_4XX_Count", local.target_dimensions, "Sum", "4xx of prop"],
        ["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", local.target_dimensions, "Sum", "5xx of prop"],
        ["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", local.load_balancer_dimensions, "Sum", "5xx of the load balancer"],
        [local.metrics_namespace, "errors", {}, "Sum", "errors in the log"],
      ]
    },
    {
      title = "Tasks"
      lines = [
        ["AWS/ECS", "CPUUtilization", local.service_dimensions, "SampleCount", "running"],
        ["AWS/ApplicationELB", "HealthyHostCount", local.target_dimensions, "Minimum", "healthy"],
        ["AWS/ApplicationELB", "UnHealthyHostCount", local.target_dimensions, "Maximum", "unhealthy"],
      ]
    },
    {
      title = "What tasks use, percent"
      lines = [
        ["AWS/ECS", "CPUUtilization", local.service_dimensions, "Average", "CPU"],
        ["AWS/ECS", "MemoryUtilization", local.service_dimensions, "Average", "memory"],
      ]
    },
    {
      title = "Database: CPU percent and connections"
      lines = [
        ["AWS/RDS", "CPUUtilization", local.database_dimensions, "Average", "CPU"],
        ["AWS/RDS", "DatabaseConnections", local.database_dimensions, "Maximum", "connections"],
      ]
    },
    {
      title = "Database: bytes free"
      lines = [
        ["AWS/RDS", "FreeStorageSpace", local.database_dimensions, "Minimum", "storage"],
        ["AWS/RDS", "FreeableMemory", local.database_dimensions, "Minimum", "memory"],
      ]
    },
    {
      title = "Deployments that ended, an hour"
      lines = [for outcome in local.outcomes : [local.metrics_namespace, "deployments_${outcome}", {}, "Sum", outcome]]
    },
  ]
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = "prop${local.suffix}"

  dashboard_body = jsonencode({
    widgets = concat(
      [for index, widget in local.widgets : {
        type   = "metric"
        x      = index % 3 * 8
        y      = floor(index / 3) * 6
        width  = 8
        height = 6
        properties = {
          title  = widget.title
          region = var.region
          period = strcontains(widget.title, "an hour") ? 3600 : 60
          metrics = [for line in widget.lines : concat(
            [line[0], line[1]],
            flatten([for name, value in line[2] : [name, value]]),
            [{ stat = line[3], label = line[4] }],
          )]
        }
      }],
      [{
        type   = "alarm"
        x      = 16
        y      = 12
        width  = 8
        height = 6
        properties = {
          title  = "Alarms"
          alarms = [for alarm in aws_cloudwatch_metric_alarm.main : alarm.arn]
        }
      }],
    )
  })
}
