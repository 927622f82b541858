resource "aws_db_subnet_group" "main" {
  name        = local.database
  description = "The private subnets"
  subnet_ids  = [for subnet in aws_subnet.private : subnet.id]
}

resource "aws_db_parameter_group" "main" {
  # A new major version needs a new parameter group family, and a new name because the old group still exists.
  name_prefix = "${local.database}-"
  description = "PostgreSQL ${var.postgres_version} for prop"
  family      = "postgres${var.postgres_version}"

  # Rejects connections without TLS.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  # In milliseconds. Slower statements are logged.
  parameter {
    name  = "log_min_duration_statement"
    value = "500"
  }

  lifecycle { create_before_destroy = true }
}

# The time of the first apply. It makes the name of the final snapshot unique.
resource "terraform_data" "database_made" {
  input = formatdate("YYYYMMDDhhmmss", timestamp())

  lifecycle { ignore_changes = [input] }
}

resource "aws_db_instance" "main" {
  #checkov:skip=CKV_AWS_118:Enhanced monitoring costs money; Database Insights and the alarms are enough for one small instance
  #checkov:skip=CKV_AWS_161:prop authenticates with a password, because its connections last longer than the 15 minutes of an IAM token
  identifier     = local.database
  engine         = "postgres"
  engine_version = var.postgres_version
  instance_class = var.database_class

  db_name  = local.database_name
  username = local.database_user
  # Write-only. RDS's managed password is not used, because RDS rotates it every 7 days while tasks still use the old one.
  password_wo         = var.database_password
  password_wo_version = local.secrets_version

  storage_type          = "gp3"
  allocated_storage     = var.database_storage
  max_allocated_storage = var.database_storage_ceiling
  storage_encrypted     = true
  kms_key_id            = local.key_arn

  multi_az               = var.multi_az
  db_subnet_group_name   = aws_db_subnet_group.main.name
  vpc_security_group_ids = [aws_security_group.database.id]
  publicly_accessible    = false
  parameter_group_name   = aws_db_parameter_group.main.name
  # The CA of the server certificate. The image contains its root certificate, and prop verifies it.
  ca_cert_identifier = "rds-ca-rsa2048-g1"

  # Point-in-time restore is possible to any second of these days.
  backup_retention_period  = var.backup_days
  backup_window            = var.backup_window
  maintenance_window       = var.maintenance_window
  copy_tags_to_snapshot    = true
  delete_automated_backups = !var.deletion_protection

  auto_minor_version_upgrade  = true
  allow_major_version_upgrade = false

  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = !var.deletion_protection
  final_snapshot_identifier = var.deletion_protection ? "${local.database}-final-${terraform_data.database_made.output}" : null

  # The standard mode of CloudWatch Database Insights, whose arguments have the name of what it replaced.
  performance_insights_enabled          = true
  performance_insights_retention_period = 7 # days; 7 are free
  performance_insights_kms_key_id       = local.key_arn
  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]

  # Without these, RDS creates the log groups itself and keeps the logs forever.
  depends_on = [aws_cloudwatch_log_group.database]
}
