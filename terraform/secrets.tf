# The values come from ephemeral variables and go to write-only arguments. Terraform stores none, so it cannot detect a
# change. After a change, raise secrets_version: it updates database and secrets in the same apply.

locals {
  secrets_version = var.secrets_version
}

resource "aws_secretsmanager_secret" "database" {
  #checkov:skip=CKV2_AWS_57:Rotated with secrets_version and a deployment, because running tasks keep the value they started with
  name                    = "prop/database${local.suffix}"
  description             = "Address, users and passwords of prop's database"
  kms_key_id              = local.key_arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "database" {
  secret_id = aws_secretsmanager_secret.database.id
  secret_string_wo = jsonencode({
    host     = aws_db_instance.main.address
    port     = aws_db_instance.main.port
    name     = local.database_name
    username = local.database_user
    password = var.database_password

    app_username = local.database_app
    app_password = var.database_app_password
  })
  secret_string_wo_version = local.secrets_version
}

resource "aws_secretsmanager_secret" "bootstrap_key" {
  #checkov:skip=CKV2_AWS_57:Rotated with secrets_version and a deployment, because running tasks keep the value they started with
  name                    = "prop/bootstrap-key${local.suffix}"
  description             = "prop's first admin key"
  kms_key_id              = local.key_arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "bootstrap_key" {
  secret_id                = aws_secretsmanager_secret.bootstrap_key.id
  secret_string_wo         = var.bootstrap_key
  secret_string_wo_version = local.secrets_version
}

resource "aws_secretsmanager_secret" "github_webhook" {
  #checkov:skip=CKV2_AWS_57:Rotated with github_webhook_version and a deployment, because GitHub has the same value
  count = var.github_webhook_version > 0 ? 1 : 0

  name                    = "prop/github-webhook${local.suffix}"
  description             = "The secret of the webhooks that GitHub sends to prop"
  kms_key_id              = local.key_arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

# A version of its own, so that a new secret needs no other one.
resource "aws_secretsmanager_secret_version" "github_webhook" {
  count = var.github_webhook_version > 0 ? 1 : 0

  secret_id                = aws_secretsmanager_secret.github_webhook[0].id
  secret_string_wo         = var.github_webhook_secret
  secret_string_wo_version = var.github_webhook_version
}
