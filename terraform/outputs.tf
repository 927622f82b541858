# What people ask for after an apply. Scripts use fixed names instead, because the deploy role cannot read the state.

output "alb_url" {
  description = "URL of prop at the load balancer."
  value       = "${var.certificate_arn == null ? "http" : "https"}://${aws_lb.main.dns_name}"
}

output "cluster_name" {
  description = "Name of the ECS cluster."
  value       = aws_ecs_cluster.main.name
}

output "service_name" {
  description = "Name of the ECS service."
  value       = aws_ecs_service.main.name
}

output "repository_url" {
  description = "URL of the ECR repository, to push and pull images."
  value       = var.creates_account_resources ? aws_ecr_repository.main[0].repository_url : data.aws_ecr_repository.main[0].repository_url
}

output "database_endpoint" {
  description = "Host and port of the database. It can be reached from within the VPC only."
  value       = aws_db_instance.main.endpoint
}

output "log_group_name" {
  description = "Name of the CloudWatch log group with prop's log."
  value       = aws_cloudwatch_log_group.main.name
}

output "dashboard_url" {
  description = "URL of the dashboard of prop in the AWS console: requests, errors, latency, deployments, gate."
  value       = "${local.dashboards_url}/${aws_cloudwatch_dashboard.main["prop"].dashboard_name}"
}

output "infrastructure_dashboard_url" {
  description = "URL of the dashboard of what prop runs on: tasks, load balancer, database, endpoints."
  value       = "${local.dashboards_url}/${aws_cloudwatch_dashboard.main["prop-infrastructure"].dashboard_name}"
}

output "alarms_topic_arn" {
  description = "ARN of the SNS topic that receives alarms. More subscribers can be added."
  value       = aws_sns_topic.alarms.arn
}

output "deploy_role_arn" {
  description = "ARN of the role for GitHub's jobs in this environment. It is null without github_subject_prefix."
  value       = one(aws_iam_role.deploy[*].arn)
}

output "plan_role_arn" {
  description = "ARN of the role for GitHub's jobs of pull requests. It is null without github_subject_prefix and in environments without creates_account_resources."
  value       = one(aws_iam_role.plan[*].arn)
}

locals {
  dashboards_url = "https://${var.region}.console.aws.amazon.com/cloudwatch/home?region=${var.region}#dashboards/dashboard"
}
