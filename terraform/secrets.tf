# Values come from ephemeral variables and leave by write-only arguments: Terraform keeps neither, and so can't see that one
# changed. Whoever changes one raises secrets_version, which changes database and secret in the same apply.

locals {
  secrets_version = var.secrets_version
}

resource "aws_secretsmanager_secret" "database" {
  #checkov:skip=CKV2_AWS_57:Changed by secrets_version, together with a deployment: running tasks know the value they started with
  name                    = "prop/database${local.suffix}"
  description             = "Where prop's database is, and its password"
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
  })
  secret_string_wo_version = local.secrets_version
}

resource "aws_secretsmanager_secret" "bootstrap_key" {
  #checkov:skip=CKV2_AWS_57:Changed by secrets_version, together with a deployment: running tasks know the value they started with
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
