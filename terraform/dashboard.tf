# From top to bottom: traffic, errors, resource usage, deployments.

locals {
  # A title and its lines: namespace, metric, dimensions, statistic and label.
  widgets = [
    {
      title = "Requests per minute"
      lines = [["AWS/ApplicationELB", "RequestCount", local.load_balancer_dimensions, "Sum", "requests"]]
    },
    {
      title = "Response time, seconds"
      lines = [for statistic in ["p50", "p90", "p99"] :
        ["AWS/ApplicationELB", "TargetResponseTime", local.target_dimensions, statistic, statistic]
      ]
    },
    {
      title = "Errors per minute"
      lines = [
        ["AWS/ApplicationELB", "HTTPCode_Target_4XX_Count", local.target_dimensions, "Sum", "4xx from prop"],
        ["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", local.target_dimensions, "Sum", "5xx from prop"],
        ["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", local.load_balancer_dimensions, "Sum", "5xx from the load balancer"],
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
      title = "CPU and memory of tasks, percent"
      lines = [
        ["AWS/ECS", "CPUUtilization", local.service_dimensions, "Average", "CPU"],
        ["AWS/ECS", "MemoryUtilization", local.service_dimensions, "Average", "memory"],
      ]
    },
    {
      title = "Database: CPU (percent) and connections"
      lines = [
        ["AWS/RDS", "CPUUtilization", local.database_dimensions, "Average", "CPU"],
        ["AWS/RDS", "DatabaseConnections", local.database_dimensions, "Maximum", "connections"],
      ]
    },
    {
      title = "Database: free storage and memory, bytes"
      lines = [
        ["AWS/RDS", "FreeStorageSpace", local.database_dimensions, "Minimum", "storage"],
        ["AWS/RDS", "FreeableMemory", local.database_dimensions, "Minimum", "memory"],
      ]
    },
    {
      title = "Finished deployments per hour"
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
          period = strcontains(widget.title, "per hour") ? 3600 : 60
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
