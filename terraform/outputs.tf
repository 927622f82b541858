# Outputs for people and for scripts/infra.sh. The other scripts use fixed names, because the deploy role cannot read the state.

output "alb_url" {
  description = "URL of prop at the load balancer."
  value       = "${var.certificate_arn == null ? "http" : "https"}://${aws_lb.main.dns_name}"
}

output "region" {
  description = "AWS region of all resources."
  value       = var.region
}

output "cluster_name" {
  description = "Name of the ECS cluster."
  value       = aws_ecs_cluster.main.name
}

output "service_name" {
  description = "Name of the ECS service."
  value       = aws_ecs_service.main.name
}

output "task_family" {
  description = "Name of the task definition family. deploy.sh uses its newest revision."
  value       = aws_ecs_task_definition.main.family
}

output "container_name" {
  description = "Name of the container in a task that runs prop."
  value       = local.container
}

output "container_port" {
  description = "TCP port that prop listens on."
  value       = local.port
}

output "repository_name" {
  description = "Name of the ECR repository."
  value       = local.repository
}

output "repository_url" {
  description = "URL of the ECR repository, to push and pull images."
  value       = var.creates_account_resources ? aws_ecr_repository.main[0].repository_url : data.aws_ecr_repository.main[0].repository_url
}

output "database_identifier" {
  description = "Identifier of the RDS instance."
  value       = aws_db_instance.main.identifier
}

output "database_endpoint" {
  description = "Host and port of the database. It can be reached from within the VPC only."
  value       = aws_db_instance.main.endpoint
}

output "database_secret_arn" {
  description = "ARN of the secret with the database's host, user and password."
  value       = aws_secretsmanager_secret.database.arn
}

output "database_subnet_group" {
  description = "Name of the subnet group for the database and for a restored one."
  value       = aws_db_subnet_group.main.name
}

output "database_parameter_group" {
  description = "Name of the parameter group for the database and for a restored one."
  value       = aws_db_parameter_group.main.name
}

output "database_security_group_id" {
  description = "ID of the security group for the database and for a restored one."
  value       = aws_security_group.database.id
}

output "private_subnet_ids" {
  description = "IDs of the private subnets, for one-off tasks."
  value       = [for subnet in aws_subnet.private : subnet.id]
}

output "task_security_group_id" {
  description = "ID of the security group of tasks, for one-off tasks."
  value       = aws_security_group.tasks.id
}

output "log_group_name" {
  description = "Name of the CloudWatch log group with prop's log."
  value       = aws_cloudwatch_log_group.main.name
}

output "dashboard_url" {
  description = "URL of the dashboard in the AWS console."
  value       = "https://${var.region}.console.aws.amazon.com/cloudwatch/home?region=${var.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.main.dashboard_name}"
}

output "deploy_role_arn" {
  description = "ARN of the role for GitHub's jobs in this environment. It is null without github_subject_prefix."
  value       = one(aws_iam_role.deploy[*].arn)
}

output "plan_role_arn" {
  description = "ARN of the role for GitHub's jobs of pull requests. It is null without github_subject_prefix and in environments without creates_account_resources."
  value       = one(aws_iam_role.plan[*].arn)
}

output "execution_role_arn" {
  description = "ARN of the role that ECS uses to start tasks."
  value       = aws_iam_role.execution.arn
}

output "task_role_arn" {
  description = "ARN of the role that prop runs with."
  value       = aws_iam_role.task.arn
}

output "alarms_topic_arn" {
  description = "ARN of the SNS topic that receives alarms. More subscribers can be added."
  value       = aws_sns_topic.alarms.arn
}
