# Tests that every validation of variables.tf rejects wrong values. A test in tests/infra checks that no validation is left out.
# A run takes seconds, so several variables share one. Variables whose validations use other variables come in later runs.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["ap-south-1a", "ap-south-1b", "ap-south-1c"] }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_vpc_endpoint_service" {
    defaults = { availability_zones = ["ap-south-1a", "ap-south-1b", "ap-south-1c"], service_name = "com.amazonaws.ap-south-1.any" }
  }
}

variables {
  environment               = "staging"
  creates_account_resources = true
  multi_az                  = false
  backup_days               = 7
  deletion_protection       = false
  log_retention_days        = 14
  alarm_email               = "ops@example.org"
  github_subject_prefix     = "repo:acme/prop"
  database_password         = "0123456789abcdef"
  database_app_password     = "fedcba9876543210"
  bootstrap_key             = "prop_000000000000000000000000000000000000"
}

run "wrong_by_themselves" {
  command = plan

  variables {
    environment           = "qa"                                                   # has no file
    region                = "Mumbai"                                               # is a city
    account_id            = "1234"                                                 # is too short
    vpc_cidr              = "10.20.0.1/16"                                         # has bits behind its prefix
    zones                 = 1                                                      # is too few for a load balancer
    allowed_cidrs         = []                                                     # admits nobody
    state_bucket          = "arn:aws:s3:::state"                                   # is an ARN
    lock_table            = "arn:aws:dynamodb:ap-south-1:123456789012:table/locks" # is an ARN
    state_region          = "Mumbai"                                               # is a city
    task_cpu              = 300                                                    # is nothing that Fargate has
    cpu_architecture      = "RISCV"                                                # is nothing that Fargate has
    min_tasks             = 0                                                      # stops it
    postgres_version      = "9.6"                                                  # is too old
    database_class        = "t3.micro"                                             # is a class of EC2
    database_storage      = 10                                                     # is less than RDS gives
    backup_days           = 0                                                      # switches backups off
    backup_window         = "at night"                                             # is no time
    maintenance_window    = "21:30-22:30"                                          # lacks its days
    database_password     = "0123456789"                                           # is short
    database_app_password = "a space is not allowed"                               # has spaces
    bootstrap_key         = "hunter2"                                              # is no key of prop's
    secrets_version       = 0                                                      # is before the first
    github_webhook_secret = "short"                                                # is short
    extra_environment     = { PROP_HTTP__PORT = "80" }                             # is what the stack sets
    github_subject_prefix = "acme/prop"                                            # lacks repo:
    log_retention_days    = 10                                                     # is nothing that CloudWatch has
    alarm_email           = "ops"                                                  # is no address
    monthly_budget        = 0                                                      # alerts at once
    working_hours         = { start = 20, stop = 8 }                               # end before they start
  }
  expect_failures = [
    var.environment,
    var.region,
    var.account_id,
    var.vpc_cidr,
    var.zones,
    var.allowed_cidrs,
    var.state_bucket,
    var.lock_table,
    var.state_region,
    var.task_cpu,
    var.cpu_architecture,
    var.min_tasks,
    var.postgres_version,
    var.database_class,
    var.database_storage,
    var.backup_days,
    var.backup_window,
    var.maintenance_window,
    var.database_password,
    var.database_app_password,
    var.bootstrap_key,
    var.secrets_version,
    var.github_webhook_secret,
    var.extra_environment,
    var.github_subject_prefix,
    var.log_retention_days,
    var.alarm_email,
    var.monthly_budget,
    var.working_hours,
  ]
}

run "wrong_in_another_way" {
  command = plan

  variables {
    vpc_cidr                 = "10.0.0.0/8"          # is larger than AWS allows
    allowed_cidrs            = ["203.0.113.7/24"]    # has bits behind its prefix
    certificate_arn          = "example.org"         # is no ARN
    task_memory              = 4096                  # is too much for 256 units
    max_tasks                = 12                    # is more than the database has connections for
    database_storage_ceiling = 21                    # leaves no room
    backup_days              = 36                    # is more than RDS keeps
    database_password        = "0123456789abcdef/@"  # has what RDS refuses
    github_subject_prefix    = "repo:acme/*"         # has a wildcard
    log_retention_days       = 0                     # is forever
    working_hours            = { days = "weekdays" } # are days that cron lacks
    github_webhook_version   = -1                    # is before none
  }
  expect_failures = [
    var.vpc_cidr,
    var.allowed_cidrs,
    var.certificate_arn,
    var.task_memory,
    var.max_tasks,
    var.database_storage_ceiling,
    var.backup_days,
    var.database_password,
    var.github_subject_prefix,
    var.log_retention_days,
    var.working_hours,
    var.github_webhook_version,
  ]
}

run "wrong_beside_others" {
  command = plan

  variables {
    task_cpu  = 1024
    min_tasks = 5
    vpc_cidr  = "10.20.0.0/24" # is too small for eight subnets
    # is of another region
    certificate_arn       = "arn:aws:acm:us-east-1:123456789012:certificate/0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    task_memory           = 1024                                 # is too little for 1024 units
    max_tasks             = 4                                    # is less than min_tasks
    github_subject_prefix = "repo:acme/prop:ref:refs/heads/main" # has more than the repository
    working_hours         = { zone = "+05:30" }                  # are in no time zone
    # has no secret
    github_webhook_version = 1
  }
  expect_failures = [
    var.vpc_cidr,
    var.certificate_arn,
    var.task_memory,
    var.max_tasks,
    var.github_subject_prefix,
    var.working_hours,
    var.github_webhook_secret,
  ]
}

run "endpoints_in_no_zone" {
  command = plan

  variables {
    endpoint_zones        = 0
    github_subject_prefix = "repo:acme@1001/prop" # has half of the ids
  }
  expect_failures = [var.endpoint_zones, var.github_subject_prefix]
}

run "endpoints_in_more_zones_than_there_are" {
  command = plan

  variables {
    endpoint_zones = 3
  }
  expect_failures = [var.endpoint_zones]
}
