resource "aws_cloudwatch_log_group" "main" {
  #checkov:skip=CKV_AWS_338:log_retention_days sets the retention; records that must be kept are in the database, not in the log
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = local.key_arn
}

resource "aws_cloudwatch_log_group" "database" {
  #checkov:skip=CKV_AWS_338:log_retention_days sets the retention; records that must be kept are in the database, not in the log
  for_each = toset(["postgresql", "upgrade"])

  name              = "/aws/rds/instance/${local.database}/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.key_arn
}

# prop logs one JSON line per request, per finished deployment and per refusal of the gate. These filters turn them into metrics.
locals {
  metrics_namespace = "prop${local.suffix}"
  outcomes          = ["succeeded", "failed", "cancelled"]

  metric_filters = merge(
    { errors = "{ $.level = \"ERROR\" }", gate_blocked = "{ $.target = \"gate\" }" },
    { for outcome in local.outcomes : "deployments_${outcome}" => "{ $.target = \"deployment\" && $.state = \"${outcome}\" }" },
  )
}

resource "aws_cloudwatch_log_metric_filter" "main" {
  for_each = local.metric_filters

  name           = "prop-${each.key}${local.suffix}"
  log_group_name = aws_cloudwatch_log_group.main.name
  pattern        = each.value

  metric_transformation {
    namespace     = local.metrics_namespace
    name          = each.key
    value         = "1"
    default_value = "0"
    unit          = "Count"
  }
}
