# The names of all resources. production has the plain names; those of other environments end in the environment's name.
# scripts/lib/common.sh builds the same names.
locals {
  production = var.environment == "production"
  suffix     = local.production ? "" : "-${var.environment}"

  cluster        = "prop-ecs-cluster${local.suffix}"
  service        = "prop-backend-service${local.suffix}"
  family         = "prop-backend${local.suffix}"
  container      = "prop"
  repository     = "prop-backend" # one per account: production runs the image that staging ran
  database       = "prop-db${local.suffix}"
  database_name  = "prop"
  database_user  = "prop"     # owns the tables and migrates
  database_app   = "prop_app" # serves; prop creates it
  load_balancer  = "prop-alb${local.suffix}"
  access_logs    = "${local.load_balancer}-logs-${local.account_id}" # names of buckets are global
  log_group      = "/ecs/prop-backend${local.suffix}"
  execution_role = "prop-execution${local.suffix}"
  task_role      = "prop-task${local.suffix}"
  deploy_role    = "prop-deploy${local.suffix}"

  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition

  # ARNs built from names, so that a plan shows complete policies before the resources exist.
  here                = "${var.region}:${local.account_id}"
  cluster_arn         = "arn:${local.partition}:ecs:${local.here}:cluster/${local.cluster}"
  service_arn         = "arn:${local.partition}:ecs:${local.here}:service/${local.cluster}/${local.service}"
  family_arn          = "arn:${local.partition}:ecs:${local.here}:task-definition/${local.family}"
  repository_arn      = "arn:${local.partition}:ecr:${local.here}:repository/${local.repository}"
  repository_url      = "${local.account_id}.dkr.ecr.${var.region}.amazonaws.com/${local.repository}"
  database_arn        = "arn:${local.partition}:rds:${local.here}:db:${local.database}"
  log_group_arn       = "arn:${local.partition}:logs:${local.here}:log-group:${local.log_group}"
  execution_role_arn  = "arn:${local.partition}:iam::${local.account_id}:role/${local.execution_role}"
  task_role_arn       = "arn:${local.partition}:iam::${local.account_id}:role/${local.task_role}"
  github_provider_arn = "arn:${local.partition}:iam::${local.account_id}:oidc-provider/token.actions.githubusercontent.com"
}
