# Optional. Without this key, all data is encrypted with keys that AWS manages and that cannot be lost.

locals {
  key_arn = one(aws_kms_key.main[*].arn)
}

resource "aws_kms_key" "main" {
  count = var.customer_managed_key ? 1 : 0

  description             = "prop${local.suffix}: database, secrets, logs, alarms, images"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Account" # IAM policies decide who in the account may use the key
        Effect    = "Allow"
        Principal = { AWS = "arn:${local.partition}:iam::${local.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*"
        Condition = {
          ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${local.partition}:logs:${local.here}:log-group:*" }
        }
      },
      {
        Sid       = "Alarms" # CloudWatch publishes to an encrypted topic
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
        Condition = {
          StringEquals = { "aws:SourceAccount" = local.account_id }
        }
      },
    ]
  })
}

resource "aws_kms_alias" "main" {
  count = var.customer_managed_key ? 1 : 0

  name          = "alias/prop${local.suffix}"
  target_key_id = aws_kms_key.main[0].key_id
}
