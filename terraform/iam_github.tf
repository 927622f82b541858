# GitHub's workflows come with a token of GitHub's instead of a key of ours, and get a role for the environment that GitHub
# says the job runs in, which is where GitHub asks for its approvals.

locals {
  github = var.github_subject_prefix != null
}

resource "aws_iam_openid_connect_provider" "github" {
  count = local.github && var.creates_account_resources ? 1 : 0

  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

# Fails with a clear word when the environment that makes it was not applied yet.
data "aws_iam_openid_connect_provider" "github" {
  count = local.github && !var.creates_account_resources ? 1 : 0

  url = "https://token.actions.githubusercontent.com"
}

resource "aws_iam_role" "deploy" {
  count = local.github ? 1 : 0

  name        = local.deploy_role
  description = "Jobs of GitHub's environment ${var.environment}: deploys, and nothing else"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = local.github_provider_arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      # Equal, not like: one repository, one environment.
      Condition = {
        StringEquals = {
          "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:sub" = "${var.github_subject_prefix}:environment:${var.environment}"
        }
      }
    }]
  })

  # IAM refuses a trust in a provider that is not there.
  depends_on = [aws_iam_openid_connect_provider.github, data.aws_iam_openid_connect_provider.github]
}

# What deploy.sh and its siblings call. No IAM, no Terraform state, no change to a database.
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
            "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:DescribeImages", "ecr:DescribeImageScanFindings",
            "ecr:DescribeRepositories", "ecr:GetDownloadUrlForLayer", "ecr:ListImages",
          ]
          Resource = local.repository_arn
        },
      ],
      # Images come from one environment's jobs only: production runs what was pushed there.
      [for arn in var.creates_account_resources ? [local.repository_arn] : [] : {
        Sid      = "PushImages"
        Effect   = "Allow"
        Action   = ["ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"]
        Resource = arn
      }],
      [
        {
          Sid      = "Service"
          Effect   = "Allow"
          Action   = ["ecs:DescribeServices", "ecs:UpdateService", "ecs:ListServiceDeployments"]
          Resource = local.service_arn
        },
        {
          Sid    = "WatchDeployments"
          Effect = "Allow"
          Action = ["ecs:DescribeServiceDeployments", "ecs:DescribeServiceRevisions"]
          Resource = [
            "arn:${local.partition}:ecs:${local.here}:service-deployment/${local.cluster}/${local.service}/*",
            "arn:${local.partition}:ecs:${local.here}:service-revision/${local.cluster}/${local.service}/*",
          ]
        },
        {
          Sid      = "Revisions" # these actions know no resources; which roles a revision may have is said below
          Effect   = "Allow"
          Action   = ["ecs:DeregisterTaskDefinition", "ecs:RegisterTaskDefinition"]
          Resource = "*"
        },
        {
          Sid      = "TagRevisions"
          Effect   = "Allow"
          Action   = "ecs:TagResource"
          Resource = "${local.family_arn}:*"
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
          Sid      = "ListTasks" # asked of container instances, which Fargate has none of: the condition narrows it
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
          Action   = ["logs:FilterLogEvents", "logs:GetLogEvents", "logs:DescribeLogStreams", "logs:StartLiveTail"]
          Resource = [local.log_group_arn, "${local.log_group_arn}:*"]
        },
        {
          # A deployment to an environment that sleeps wakes it. Nothing else of a database is a deployment's.
          Sid      = "DatabaseState"
          Effect   = "Allow"
          Action   = concat(["rds:DescribeDBInstances"], var.auto_stop ? ["rds:StartDBInstance"] : [])
          Resource = local.database_arn
        },
        {
          Sid    = "Look" # reading what knows no resources
          Effect = "Allow"
          Action = [
            "application-autoscaling:DescribeScalableTargets", "cloudwatch:DescribeAlarms", "ecs:DescribeTaskDefinition",
            "ecs:ListTaskDefinitions", "elasticloadbalancing:DescribeListeners", "elasticloadbalancing:DescribeLoadBalancers",
            "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth", "logs:DescribeLogGroups",
          ]
          Resource = "*"
        },
      ],
    )
  })
}

# What a pull request's job has: enough to plan from the recorded state, without a look at what runs and without a lock
# (-refresh=false -lock=false). A refresh would read the secrets, and anybody who may push a branch can use this role.
resource "aws_iam_role" "plan" {
  count = local.github && var.creates_account_resources ? 1 : 0

  name        = "prop-plan"
  description = "Jobs of pull requests: plans, and changes nothing"

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

  depends_on = [aws_iam_openid_connect_provider.github]
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
        Resource = "arn:${local.partition}:dynamodb:${local.here}:table/${var.lock_table}"
      },
      {
        Sid      = "Repository"
        Effect   = "Allow"
        Action   = ["ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:ListTagsForResource"]
        Resource = local.repository_arn
      },
      {
        Sid      = "LookUp" # the other data sources, which know no resources
        Effect   = "Allow"
        Action   = ["ec2:DescribeAvailabilityZones", "ec2:DescribeVpcEndpointServices", "iam:GetOpenIDConnectProvider", "iam:ListOpenIDConnectProviders"]
        Resource = "*"
      },
    ]
  })
}
