# For people and for scripts/infra.sh. The other scripts go by the names alone: a deployment may not read the state.

output "alb_url" {
  description = "Where prop is reached."
  value       = "${var.certificate_arn == null ? "http" : "https"}://${aws_lb.main.dns_name}"
}

output "region" {
  description = "AWS region of everything."
  value       = var.region
}

output "cluster_name" {
  description = "ECS cluster."
  value       = aws_ecs_cluster.main.name
}

output "service_name" {
  description = "ECS service."
  value       = aws_ecs_service.main.name
}

output "task_family" {
  description = "Family of the task definitions; deploy.sh takes its newest revision."
  value       = aws_ecs_task_definition.main.family
}

output "container_name" {
  description = "The container in a task that is prop."
  value       = local.container
}

output "container_port" {
  description = "Port that prop listens on."
  value       = var.container_port
}

output "repository_name" {
  description = "ECR repository."
  value       = local.repository
}

output "repository_url" {
  description = "Where images are pushed and pulled."
  value       = var.creates_account_resources ? aws_ecr_repository.main[0].repository_url : data.aws_ecr_repository.main[0].repository_url
}

output "database_identifier" {
  description = "RDS instance."
  value       = aws_db_instance.main.identifier
}

output "database_endpoint" {
  description = "Host and port of the database, within the VPC."
  value       = aws_db_instance.main.endpoint
}

output "database_secret_arn" {
  description = "Secret with the database's host and password."
  value       = aws_secretsmanager_secret.database.arn
}

output "database_subnet_group" {
  description = "Subnet group for a restored database."
  value       = aws_db_subnet_group.main.name
}

output "database_parameter_group" {
  description = "Parameter group for a restored database."
  value       = aws_db_parameter_group.main.name
}

output "database_security_group_id" {
  description = "Security group for a restored database."
  value       = aws_security_group.database.id
}

output "private_subnet_ids" {
  description = "Subnets for one-off tasks."
  value       = [for subnet in aws_subnet.private : subnet.id]
}

output "task_security_group_id" {
  description = "Security group for one-off tasks."
  value       = aws_security_group.tasks.id
}

output "log_group_name" {
  description = "Where prop logs."
  value       = aws_cloudwatch_log_group.main.name
}

output "dashboard_url" {
  description = "The dashboard in the console."
  value       = "https://${var.region}.console.aws.amazon.com/cloudwatch/home?region=${var.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.main.dashboard_name}"
}

output "deploy_role_arn" {
  description = "Role for GitHub's jobs of this environment; null without github_subject_prefix."
  value       = one(aws_iam_role.deploy[*].arn)
}

output "plan_role_arn" {
  description = "Role for GitHub's jobs of pull requests; null but in the environment that makes the account's resources."
  value       = one(aws_iam_role.plan[*].arn)
}

output "execution_role_arn" {
  description = "Role that ECS starts tasks with."
  value       = aws_iam_role.execution.arn
}

output "task_role_arn" {
  description = "Role of prop itself."
  value       = aws_iam_role.task.arn
}

output "alarms_topic_arn" {
  description = "Where alarms go; more subscribers can be added."
  value       = aws_sns_topic.alarms.arn
}
