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

# deploy.sh tags each image that goes live with live-ENVIRONMENT-DIGEST. ECR never expires an image by a rule that comes after
# one whose tags it has: so what an environment runs, and what it may go back to, is kept however many images are built. An
# image may have the tags of several environments, and production's rule comes first.
locals {
  environments = sort([for file in fileset("${path.module}/envs", "*.tfvars") : trimsuffix(file, ".tfvars")])
  live_rules   = concat(["production"], [for name in local.environments : name if name != "production"])
}

# Images expire by number, never by age, so that a release that has been live for a year can still be started. 200 images
# cost well under one USD per month.
resource "aws_ecr_lifecycle_policy" "main" {
  count = var.creates_account_resources ? 1 : 0

  repository = aws_ecr_repository.main[0].name
  policy = jsonencode({
    rules = concat([for index, name in local.live_rules : {
      rulePriority = index + 1
      description  = "Keep the newest 50 images that were live in ${name}"
      selection    = { tagStatus = "tagged", tagPatternList = ["live-${name}-*"], countType = "imageCountMoreThan", countNumber = 50 }
      action       = { type = "expire" }
      }], [
      {
        rulePriority = length(local.live_rules) + 1
        description  = "Delete untagged images, which failed builds leave, after 14 days"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
        action       = { type = "expire" }
      },
      {
        rulePriority = length(local.live_rules) + 2
        description  = "Keep the newest 200 images"
        selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = 200 }
        action       = { type = "expire" }
      },
    ])
  })
}

# Fails with a clear message if the environment that creates the repository has not been applied yet.
data "aws_ecr_repository" "main" {
  count = var.creates_account_resources ? 0 : 1

  name = local.repository
}
