# Optional: the load balancer's access logs, which also have the requests that never reached prop.

resource "aws_s3_bucket" "access_logs" {
  #checkov:skip=CKV_AWS_18:The logs of who reads these logs would have nobody to read them
  #checkov:skip=CKV_AWS_21:Log files are written once
  #checkov:skip=CKV_AWS_144:Logs that are kept for 30 days need no copy in another region
  #checkov:skip=CKV_AWS_145:Load balancers can write with S3's own key only
  #checkov:skip=CKV2_AWS_62:Nothing waits for a log file
  count = var.access_logs ? 1 : 0

  bucket        = local.access_logs
  force_destroy = !var.deletion_protection
}

resource "aws_s3_bucket_public_access_block" "access_logs" {
  count = var.access_logs ? 1 : 0

  bucket                  = aws_s3_bucket.access_logs[0].bucket
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "access_logs" {
  count = var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access_logs[0].bucket

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "access_logs" {
  count = var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access_logs[0].bucket

  rule {
    id     = "a-month"
    status = "Enabled"
    filter {}

    expiration {
      days = 30
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

resource "aws_s3_bucket_policy" "access_logs" {
  count = var.access_logs ? 1 : 0

  bucket = aws_s3_bucket.access_logs[0].bucket
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Write"
        Effect    = "Allow"
        Principal = { Service = "logdelivery.elasticloadbalancing.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "arn:${local.partition}:s3:::${local.access_logs}/AWSLogs/${local.account_id}/*"
      },
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = ["arn:${local.partition}:s3:::${local.access_logs}", "arn:${local.partition}:s3:::${local.access_logs}/*"]
        Condition = {
          Bool = { "aws:SecureTransport" = "false" }
        }
      },
    ]
  })

  # S3 rejects changes of a bucket that arrive at the same time.
  depends_on = [aws_s3_bucket_public_access_block.access_logs]
}
