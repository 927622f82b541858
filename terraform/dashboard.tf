# Two dashboards: what prop does, and what it runs on.

locals {
  # By dashboard, widgets with a title and lines: namespace, metric, dimensions, statistic and label.
  dashboards = {
    prop = [
      {
        title = "Requests per minute"
        lines = [["AWS/ApplicationELB", "RequestCount", local.load_balancer_dimensions, "Sum", "requests"]]
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
        title = "Response time, seconds"
        lines = [for statistic in ["p50", "p90", "p99"] :
          ["AWS/ApplicationELB", "TargetResponseTime", local.target_dimensions, statistic, statistic]
        ]
      },
      {
        title = "Finished deployments per hour"
        lines = [for outcome in local.outcomes : [local.metrics_namespace, "deployments_${outcome}", {}, "Sum", outcome]]
      },
      {
        title = "Refusals of the gate per hour"
        lines = [[local.metrics_namespace, "gate_blocked", {}, "Sum", "deployments and starts"]]
      },
    ]
    prop-infrastructure = [
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
        title = "Load balancer: connections per minute"
        lines = [
          ["AWS/ApplicationELB", "NewConnectionCount", local.load_balancer_dimensions, "Sum", "new"],
          ["AWS/ApplicationELB", "RejectedConnectionCount", local.load_balancer_dimensions, "Sum", "rejected"],
          ["AWS/ApplicationELB", "TargetConnectionErrorCount", local.load_balancer_dimensions, "Sum", "failed, to tasks"],
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
        title = "Database: latency of the disk, seconds"
        lines = [
          ["AWS/RDS", "ReadLatency", local.database_dimensions, "Average", "read"],
          ["AWS/RDS", "WriteLatency", local.database_dimensions, "Average", "write"],
        ]
      },
      {
        title = "Endpoints: bytes per minute"
        lines = [for name, dimensions in local.endpoint_dimensions :
          ["AWS/PrivateLinkEndpoints", "BytesProcessed", dimensions, "Sum", name]
        ]
      },
      {
        title = "Endpoints: dropped packets per minute"
        lines = [for name, dimensions in local.endpoint_dimensions :
          ["AWS/PrivateLinkEndpoints", "PacketsDropped", dimensions, "Sum", name]
        ]
      },
    ]
  }

  endpoint_dimensions = {
    for name, endpoint in aws_vpc_endpoint.interface : name => {
      "Endpoint Type" = "Interface", "Service Name" = endpoint.service_name, "VPC Endpoint Id" = endpoint.id, "VPC Id" = aws_vpc.main.id
    }
  }
}

resource "aws_cloudwatch_dashboard" "main" {
  for_each = local.dashboards

  dashboard_name = "${each.key}${local.suffix}"

  # Three widgets in a row; the last one has the alarms.
  dashboard_body = jsonencode({
    widgets = concat(
      [for index, widget in each.value : {
        type   = "metric"
        x      = index % 3 * 8
        y      = floor(index / 3) * 6
        width  = 8
        height = 6
        properties = {
          title  = widget.title
          region = var.region
          period = endswith(widget.title, "per hour") ? 3600 : 60
          metrics = [for line in widget.lines : concat(
            [line[0], line[1]],
            flatten([for name, value in line[2] : [name, value]]),
            [{ stat = line[3], label = line[4] }],
          )]
        }
      }],
      [{
        type   = "alarm"
        x      = length(each.value) % 3 * 8
        y      = floor(length(each.value) / 3) * 6
        width  = 8
        height = 6
        properties = {
          title  = "Alarms"
          alarms = concat([for alarm in aws_cloudwatch_metric_alarm.main : alarm.arn], aws_cloudwatch_metric_alarm.schedule[*].arn)
        }
      }],
    )
  })
}
