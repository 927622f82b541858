# One repository for all environments of an account: an image is built once, and production gets the one that staging ran.

resource "aws_ecr_repository" "main" {
  count = var.creates_account_resources ? 1 : 0

  name                 = local.repository
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }
  encryption_configuration {
    encryption_type = var.customer_managed_key ? "KMS" : "AES256"
    kms_key         = local.key_arn
  }
}

# By number, never by age: a release that has been live for a year is still there to be started again. An image goes after
# 200 newer ones, at well under a dollar a month.
resource "aws_ecr_lifecycle_policy" "main" {
  count = var.creates_account_resources ? 1 : 0

  repository = aws_ecr_repository.main[0].name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "What was never tagged is left over from a build"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "The newest 200 images"
        selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = 200 }
        action       = { type = "expire" }
      },
    ]
  })
}

# Fails with a clear word when the environment that makes it was not applied yet.
data "aws_ecr_repository" "main" {
  count = var.creates_account_resources ? 0 : 1

  name = local.repository
}
