# GitHub's workflows authenticate with an OIDC token from GitHub instead of an access key. They get the role of the GitHub
# environment in which the job runs; GitHub requires approvals per environment too.

locals {
  github = var.github_subject_prefix != null

  # An account can have one provider for GitHub's URL.
  creates_github_provider = coalesce(var.creates_github_provider, var.creates_account_resources)
}

resource "aws_iam_openid_connect_provider" "github" {
  count = local.github && local.creates_github_provider ? 1 : 0

  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

# Fails with a clear message if the account does not have the provider yet.
data "aws_iam_openid_connect_provider" "github" {
  count = local.github && !local.creates_github_provider ? 1 : 0

  url = "https://token.actions.githubusercontent.com"
}

resource "aws_iam_role" "deploy" {
  count = local.github ? 1 : 0

  name        = local.deploy_role
  description = "Lets jobs of GitHub's environment ${var.environment} deploy"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = local.github_provider_arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      # StringEquals instead of StringLike: exactly one repository and one environment.
      Condition = {
        StringEquals = {
          "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:sub" = "${var.github_subject_prefix}:environment:${var.environment}"
        }
      }
    }]
  })

  # IAM rejects a trust policy with a provider that does not exist.
  depends_on = [aws_iam_openid_connect_provider.github, data.aws_iam_openid_connect_provider.github]
}

# The calls of deploy.sh and the scripts beside it. No access to IAM, Terraform's state or database settings.
resource "aws_iam_role_policy" "deploy" {
  count = local.github ? 1 : 0

  name = "deploy"
  role = aws_iam_role.deploy[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "RegistryToken"
          Effect   = "Allow"
          Action   = "ecr:GetAuthorizationToken"
          Resource = "*"
        },
        {
          Sid    = "ReadImages"
          Effect = "Allow"
          Action = [
            "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:DescribeImages", "ecr:DescribeRepositories",
            "ecr:GetDownloadUrlForLayer",
          ]
          Resource = local.repository_arn
        },
        {
          Sid      = "TagLiveImages" # deploy.sh tags what went live; a tag needs no upload, and cannot be moved
          Effect   = "Allow"
          Action   = "ecr:PutImage"
          Resource = local.repository_arn
        },
      ],
      # Only the environment that owns the repository may push layers. Production runs the images that staging pushed.
      [for arn in var.creates_account_resources ? [local.repository_arn] : [] : {
        Sid      = "PushImages"
        Effect   = "Allow"
        Action   = ["ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:UploadLayerPart"]
        Resource = arn
      }],
      [
        {
          Sid      = "Service"
          Effect   = "Allow"
          Action   = ["ecs:DescribeServices", "ecs:UpdateService"]
          Resource = local.service_arn
        },
        {
          # How many tasks autoscaling allows. A target's id is random; to register one, AWS also requires the actions above for
          # its service: https://docs.aws.amazon.com/autoscaling/application/userguide/security_iam_permission_validation.html
          Sid      = "AllowTasks"
          Effect   = "Allow"
          Action   = "application-autoscaling:RegisterScalableTarget"
          Resource = "arn:${local.partition}:application-autoscaling:${local.here}:scalable-target/*"
          Condition = {
            StringEquals = {
              "application-autoscaling:service-namespace"  = "ecs"
              "application-autoscaling:scalable-dimension" = "ecs:service:DesiredCount"
            }
          }
        },
        {
          Sid      = "Revisions" # PassTaskRoles below limits the roles of a revision
          Effect   = "Allow"
          Action   = ["ecs:RegisterTaskDefinition", "ecs:TagResource"]
          Resource = "${local.family_arn}:*"
        },
        {
          Sid      = "DiscardRevisions" # this action does not support resources
          Effect   = "Allow"
          Action   = "ecs:DeregisterTaskDefinition"
          Resource = "*"
        },
        {
          Sid      = "RunTasks" # one-off tasks, such as a migration
          Effect   = "Allow"
          Action   = "ecs:RunTask"
          Resource = "${local.family_arn}:*"
          Condition = {
            ArnEquals = { "ecs:cluster" = local.cluster_arn }
          }
        },
        {
          Sid      = "Tasks"
          Effect   = "Allow"
          Action   = ["ecs:DescribeTasks", "ecs:StopTask"]
          Resource = "arn:${local.partition}:ecs:${local.here}:task/${local.cluster}/*"
        },
        {
          Sid      = "ListTasks" # its resources are container instances, which Fargate does not have; the condition limits it
          Effect   = "Allow"
          Action   = "ecs:ListTasks"
          Resource = "*"
          Condition = {
            ArnEquals = { "ecs:cluster" = local.cluster_arn }
          }
        },
        {
          Sid      = "PassTaskRoles"
          Effect   = "Allow"
          Action   = "iam:PassRole"
          Resource = [local.execution_role_arn, local.task_role_arn]
          Condition = {
            StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" }
          }
        },
        {
          Sid      = "Log"
          Effect   = "Allow"
          Action   = ["logs:FilterLogEvents", "logs:GetLogEvents"]
          Resource = [local.log_group_arn, "${local.log_group_arn}:*"]
        },
        {
          # A deployment may start the database of a stopped environment. It may not change a database otherwise.
          Sid      = "DatabaseState"
          Effect   = "Allow"
          Action   = concat(["rds:DescribeDBInstances"], var.auto_stop ? ["rds:StartDBInstance"] : [])
          Resource = local.database_arn
        },
        {
          Sid    = "Look" # read actions that do not support resources
          Effect = "Allow"
          Action = [
            "ecs:DescribeTaskDefinition", "ecs:ListTaskDefinitions", "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:DescribeLoadBalancers", "elasticloadbalancing:DescribeTargetHealth",
          ]
          Resource = "*"
        },
      ],
    )
  })
}

# The role for jobs of pull requests. It can plan from the recorded state without a refresh and without a lock
# (-refresh=false -lock=false). A refresh would read the secrets, and anybody who can push a branch can use this role.
resource "aws_iam_role" "plan" {
  count = local.github && var.creates_account_resources ? 1 : 0

  name        = "prop-plan"
  description = "Lets jobs of pull requests plan without changing anything"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = local.github_provider_arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:sub" = "${var.github_subject_prefix}:pull_request"
        }
      }
    }]
  })

  depends_on = [aws_iam_openid_connect_provider.github, data.aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy" "plan" {
  count = local.github && var.creates_account_resources ? 1 : 0

  name = "plan"
  role = aws_iam_role.plan[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "State"
        Effect = "Allow"
        Action = ["s3:GetObject", "s3:ListBucket"]
        Resource = [
          "arn:${local.partition}:s3:::${var.state_bucket}",
          "arn:${local.partition}:s3:::${var.state_bucket}/*/terraform.tfstate",
        ]
      },
      {
        Sid      = "StateDigest"
        Effect   = "Allow"
        Action   = "dynamodb:GetItem"
        Resource = "arn:${local.partition}:dynamodb:${coalesce(var.state_region, var.region)}:${local.account_id}:table/${var.lock_table}"
      },
      {
        Sid      = "Repository"
        Effect   = "Allow"
        Action   = ["ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:ListTagsForResource"]
        Resource = local.repository_arn
      },
      {
        Sid      = "LookUp" # the other data sources, which do not support resources
        Effect   = "Allow"
        Action   = ["ec2:DescribeAvailabilityZones", "ec2:DescribeVpcEndpointServices", "iam:ListOpenIDConnectProviders"]
        Resource = "*"
      },
      {
        Sid      = "GitHubProvider"
        Effect   = "Allow"
        Action   = "iam:GetOpenIDConnectProvider"
        Resource = local.github_provider_arn
      },
    ]
  })
}
