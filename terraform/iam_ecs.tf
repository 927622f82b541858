# Two roles: ECS uses one to start a task (image, secrets, log); what runs in the task has the other, which may do nothing.

locals {
  ecs_tasks_trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      # Not on behalf of somebody else's account (the confused deputy).
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account_id }
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:ecs:${local.here}:*" }
      }
    }]
  })
}

resource "aws_iam_role" "execution" {
  name               = local.execution_role
  description        = "ECS starts tasks of ${local.service} with it"
  assume_role_policy = local.ecs_tasks_trust
}

# Narrower than AWS's AmazonECSTaskExecutionRolePolicy, which may read every repository and write every log.
resource "aws_iam_role_policy" "execution" {
  name = "start-tasks"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "RegistryToken" # the one action of a registry that names no repository
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
          Sid      = "Secrets"
          Effect   = "Allow"
          Action   = "secretsmanager:GetSecretValue"
          Resource = [aws_secretsmanager_secret.database.arn, aws_secretsmanager_secret.bootstrap_key.arn]
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
  description        = "prop itself: it calls no AWS service"
  assume_role_policy = local.ecs_tasks_trust
}

resource "aws_iam_role_policy" "task_execute_command" {
  count = var.execute_command ? 1 : 0

  name = "execute-command"
  role = aws_iam_role.task.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid    = "Channels" # these actions know no resources
      Effect = "Allow"
      Action = [
        "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
      ]
      Resource = "*"
    }]
  })
}
