# Two roles: ECS uses the execution role to start a task (image, secrets, log). prop runs with the task role, which has no
# permissions.

locals {
  ecs_tasks_trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      # Prevents that ECS uses the role on behalf of another account (the confused deputy problem).
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account_id }
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:ecs:${local.here}:*" }
      }
    }]
  })
}

resource "aws_iam_role" "execution" {
  name               = local.execution_role
  description        = "Lets ECS start tasks of ${local.service}"
  assume_role_policy = local.ecs_tasks_trust
}

# Narrower than AmazonECSTaskExecutionRolePolicy, which allows every repository and every log group.
resource "aws_iam_role_policy" "execution" {
  name = "start-tasks"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "RegistryToken" # this action does not support resources
          Effect   = "Allow"
          Action   = "ecr:GetAuthorizationToken"
          Resource = "*"
        },
        {
          Sid      = "Image"
          Effect   = "Allow"
          Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
          Resource = local.repository_arn
        },
        {
          Sid      = "Log"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = "${local.log_group_arn}:*"
        },
        {
          Sid    = "Secrets"
          Effect = "Allow"
          Action = "secretsmanager:GetSecretValue"
          Resource = concat(
            [aws_secretsmanager_secret.database.arn, aws_secretsmanager_secret.bootstrap_key.arn],
            aws_secretsmanager_secret.github_webhook[*].arn,
          )
        },
      ],
      [for arn in local.key_arn[*] : {
        Sid      = "Key"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = arn
      }],
    )
  })
}

resource "aws_iam_role" "task" {
  name               = local.task_role
  description        = "The role of prop itself, which calls no AWS service"
  assume_role_policy = local.ecs_tasks_trust
}
