# Optional: a weekly snapshot, kept for three months. RDS's own backups are deleted together with the instance.

resource "aws_backup_vault" "main" {
  count = var.backup_vault ? 1 : 0

  name        = "prop${local.suffix}"
  kms_key_arn = local.key_arn
}

resource "aws_backup_plan" "main" {
  count = var.backup_vault ? 1 : 0

  name = "prop${local.suffix}"

  rule {
    rule_name         = "weekly"
    target_vault_name = aws_backup_vault.main[0].name
    schedule          = "cron(0 19 ? * SUN *)" # UTC, before the maintenance window

    lifecycle {
      delete_after = 92
    }
  }
}

resource "aws_backup_selection" "database" {
  count = var.backup_vault ? 1 : 0

  name         = "prop-database${local.suffix}"
  plan_id      = aws_backup_plan.main[0].id
  iam_role_arn = aws_iam_role.backup[0].arn
  resources    = [aws_db_instance.main.arn]
}

resource "aws_iam_role" "backup" {
  count = var.backup_vault ? 1 : 0

  name        = "prop-backup${local.suffix}"
  description = "Lets AWS Backup take and restore snapshots of ${local.database}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "backup.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "backup" {
  for_each = var.backup_vault ? toset(["AWSBackupServiceRolePolicyForBackup", "AWSBackupServiceRolePolicyForRestores"]) : []

  role       = aws_iam_role.backup[0].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/${each.key}"
}
