# One repository for all environments of an account: an image is built once, and production runs the image that staging ran.

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

# Images expire by number, never by age, so that a release that has been live for a year can still be started. 200 images
# cost well under one USD per month.
resource "aws_ecr_lifecycle_policy" "main" {
  count = var.creates_account_resources ? 1 : 0

  repository = aws_ecr_repository.main[0].name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Delete untagged images, which failed builds leave, after 14 days"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "Keep the newest 200 images"
        selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = 200 }
        action       = { type = "expire" }
      },
    ]
  })
}

# Fails with a clear message if the environment that creates the repository has not been applied yet.
data "aws_ecr_repository" "main" {
  count = var.creates_account_resources ? 0 : 1

  name = local.repository
}
