# All settings, by subject. The defaults suit a small environment; envs/*.tfvars set what differs.

# Location

variable "environment" {
  description = "Name of the environment, such as staging. It must have a file envs/<name>.tfvars."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,15}$", var.environment)) && fileexists("${path.module}/envs/${var.environment}.tfvars")
    error_message = "Unknown environment \"${var.environment}\". The name must have 2 to 16 of a-z, 0-9 and -, and a file envs/<name>.tfvars."
  }
}

variable "region" {
  description = "AWS region for all resources."
  type        = string
  default     = "ap-south-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "\"${var.region}\" is not a valid region name. region must be a name such as ap-south-1."
  }
}

variable "account_id" {
  description = "ID of the AWS account that the environment belongs to, 12 digits. The default, null, allows any account."
  type        = string
  default     = null

  validation {
    condition     = var.account_id == null || can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must be the 12 digits of an AWS account ID."
  }
}

variable "creates_account_resources" {
  description = "Whether this environment creates the resources that all environments of the account share: image repository, GitHub's identity provider and budget. If false, it uses those that another environment has created."
  type        = bool
}

variable "creates_github_provider" {
  description = "Whether this environment creates the identity provider for GitHub. An account can have one: set to false if it trusts GitHub already. The default, null, is the value of creates_account_resources."
  type        = bool
  default     = null
}

# Network

variable "vpc_cidr" {
  description = "Address range of the VPC, as a CIDR block from /16 to /23. Each subnet has an eighth of it: the public ones are in the first half, the private ones in the second."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 0, 0)) && try(cidrsubnet(var.vpc_cidr, 0, 0) == var.vpc_cidr, false)
    error_message = "vpc_cidr must be a network address such as 10.20.0.0/16, with no bits set after the prefix."
  }
  validation {
    condition     = try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 23, false)
    error_message = "vpc_cidr must be from /16, the largest that AWS allows, to /23: AWS reserves 5 addresses of a subnet, a load balancer needs 8, and a deployment doubles the number of tasks."
  }
}

variable "zones" {
  description = "Number of availability zones, from 2 to 4. Each has a public subnet for the load balancer and a private one for tasks, database and endpoints."
  type        = number
  default     = 2

  validation {
    condition     = contains([2, 3, 4], var.zones)
    error_message = "zones must be 2, 3 or 4: a load balancer needs two availability zones, and vpc_cidr is divided for four."
  }
}

variable "endpoint_zones" {
  description = "Number of availability zones with interface endpoints. Each endpoint costs money per hour and zone. With the default, 1, tasks in other zones use the endpoints of that zone."
  type        = number
  default     = 1

  validation {
    condition     = var.endpoint_zones >= 1 && var.endpoint_zones <= var.zones && floor(var.endpoint_zones) == var.endpoint_zones
    error_message = "endpoint_zones must be a whole number from 1 to the number of zones, ${var.zones}."
  }
}

# Load balancer

variable "allowed_cidrs" {
  description = "Address ranges that may reach the load balancer. The default allows all IPv4 addresses. GitHub's runners have no fixed addresses: with other ranges, set the variable OUTSIDE_CHECKS to no in GitHub's environment, or deployments that work are rolled back."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : try(cidrsubnet(cidr, 0, 0) == cidr, false)])
    error_message = "allowed_cidrs must have at least one network address such as 203.0.113.0/24, with no bits set after the prefix."
  }
}

variable "certificate_arn" {
  description = "ARN of the ACM certificate for HTTPS. With a certificate, HTTP redirects to HTTPS. The default, null, serves HTTP only."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]{36}$", var.certificate_arn))
    error_message = "certificate_arn must be the ARN of an ACM certificate, or null."
  }
  validation {
    condition     = var.certificate_arn == null || try(split(":", var.certificate_arn)[3] == var.region, true)
    error_message = "certificate_arn must be a certificate in ${var.region}, the region of the load balancer."
  }
}

variable "access_logs" {
  description = "Whether the load balancer's access logs are kept for 30 days, in an S3 bucket of their own. prop logs each request that reaches it; these logs also have those that the load balancer rejects."
  type        = bool
  default     = false
}

variable "waf" {
  description = "Whether a web application firewall protects the load balancer. It costs about 8 USD per month, plus a price per request."
  type        = bool
  default     = false
}

# Tasks

variable "task_cpu" {
  description = "CPU of a task in CPU units. 1024 units are one vCPU."
  type        = number
  default     = 256

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.task_cpu)
    error_message = "task_cpu must be 256, 512, 1024, 2048 or 4096."
  }
}

variable "task_memory" {
  description = "Memory of a task in MiB."
  type        = number
  default     = 512

  validation {
    condition = var.task_cpu == 256 ? contains([512, 1024, 2048], var.task_memory) : (
      var.task_memory % 1024 == 0 && var.task_memory >= var.task_cpu * 2 && var.task_memory <= var.task_cpu * 8
    )
    error_message = "Fargate does not support ${var.task_memory} MiB with ${var.task_cpu} CPU units. task_memory must be 2 to 8 MiB per CPU unit, in whole GiB; with 256 units, 512 MiB is allowed too."
  }
}

variable "cpu_architecture" {
  description = "CPU architecture that the image is built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "cpu_architecture must be X86_64 or ARM64."
  }
}

locals {
  # The settings of prop.toml.example, but for secrets and for those that this stack sets.
  settings = concat([
    "PROP_PUBLIC_READ",
    "PROP_HTTP__BODY_LIMIT_KIB", "PROP_HTTP__CORS_ORIGINS", "PROP_HTTP__MAX_CONNECTIONS", "PROP_HTTP__READ_TIMEOUT_SECONDS",
    "PROP_HTTP__WORKERS",
    "PROP_DATABASE__CONNECT_WAIT_SECONDS", "PROP_DATABASE__PREPARED_STATEMENTS", "PROP_DATABASE__QUEUE",
    "PROP_DATABASE__SLOW_STATEMENT_MS", "PROP_DATABASE__TIMEOUT_SECONDS",
    "PROP_LOG__FILTER",
    ], [
    for pair in setproduct(["DEVELOPMENT", "TESTING", "STAGING", "PRODUCTION"], [
      "ALLOW_SELF_APPROVAL", "APPROVAL_TTL_HOURS", "REQUIRED_APPROVALS", "REQUIRE_SCAN", "ROLLBACK_NEEDS_APPROVAL",
    ]) : "PROP_TIER__${pair[0]}__${pair[1]}"
  ])
}

variable "extra_environment" {
  description = "Further settings of prop as environment variables, such as { PROP_PUBLIC_READ = \"true\" }. prop.toml.example describes all. They take effect with the next deployment."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.extra_environment), local.settings)) == 0
    error_message = "extra_environment has settings that prop does not have or that this stack sets: ${join(", ", setsubtract(keys(var.extra_environment), local.settings))}."
  }
}

variable "min_tasks" {
  description = "Minimum number of running tasks."
  type        = number
  default     = 1

  validation {
    condition     = var.min_tasks >= 1 && floor(var.min_tasks) == var.min_tasks
    error_message = "min_tasks must be a whole number of at least 1. To stop an environment, use scripts/db.sh or auto_stop."
  }
}

variable "max_tasks" {
  description = "Maximum number of running tasks."
  type        = number
  default     = 4

  validation {
    condition     = var.max_tasks >= var.min_tasks && var.max_tasks <= (endswith(var.database_class, ".micro") ? 5 : 20)
    error_message = "max_tasks must be from min_tasks to 20, or to 5 with a micro database: a task uses 8 connections, a deployment doubles the number of tasks, and a micro database allows about 80 connections."
  }
}

variable "container_insights" {
  description = "Whether CloudWatch Container Insights collects metrics per task. AWS charges for each metric."
  type        = bool
  default     = false
}

# Database

variable "postgres_version" {
  description = "Major version of PostgreSQL: 15, 16 or 17. RDS chooses the latest minor version."
  type        = string
  default     = "17"

  validation {
    condition     = contains(["15", "16", "17"], var.postgres_version)
    error_message = "postgres_version must be 15, 16 or 17."
  }
}

variable "database_class" {
  description = "Instance class of the database."
  type        = string
  default     = "db.t3.micro"

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.database_class))
    error_message = "database_class must be an RDS instance class such as db.t3.micro."
  }
}

variable "database_storage" {
  description = "Initial storage of the database in GiB."
  type        = number
  default     = 20

  validation {
    condition     = var.database_storage >= 20 && floor(var.database_storage) == var.database_storage
    error_message = "database_storage must be a whole number of at least 20 GiB, the minimum for gp3 storage."
  }
}

variable "database_storage_ceiling" {
  description = "Maximum storage in GiB. RDS increases the storage automatically up to this size."
  type        = number
  default     = 100

  validation {
    condition     = var.database_storage_ceiling >= var.database_storage * 1.1
    error_message = "database_storage_ceiling must be at least 10 percent above database_storage; RDS requires it."
  }
}

variable "multi_az" {
  description = "Whether a standby database runs in another availability zone. It doubles the price of the database."
  type        = bool
}

variable "backup_days" {
  description = "Number of days, from 1 to 35, for which point-in-time restore is possible."
  type        = number

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days must be from 1 to 35. 0 would disable backups."
  }
}

variable "backup_window" {
  description = "Daily time window in UTC for RDS's backup. RDS takes no backup of a stopped database, so with auto_stop the window must be within working_hours."
  type        = string
  default     = "20:30-21:00" # 2:00 to 2:30 in India

  validation {
    condition     = can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$", var.backup_window))
    error_message = "backup_window must be two times of day in UTC, such as 20:30-21:00."
  }
}

variable "maintenance_window" {
  description = "Weekly time window in UTC in which RDS may interrupt the database for maintenance. It must not overlap backup_window, and with auto_stop it must be within working_hours."
  type        = string
  default     = "sun:21:30-sun:22:30"

  validation {
    condition     = can(regex("^(mon|tue|wed|thu|fri|sat|sun):[0-2][0-9]:[0-5][0-9]-(mon|tue|wed|thu|fri|sat|sun):[0-2][0-9]:[0-5][0-9]$", var.maintenance_window))
    error_message = "maintenance_window must be two times of the week in UTC, such as sun:21:30-sun:22:30."
  }
}

variable "backup_vault" {
  description = "Whether AWS Backup also takes a weekly snapshot and keeps it for three months in a separate vault. AWS charges for the storage."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Whether the database and the load balancer are protected from deletion. If true, a deleted database leaves a final snapshot, and a deleted secret can be restored for 30 days."
  type        = bool
}

variable "database_password" {
  description = "Password of the database's admin user, 16 to 128 characters. Set it with TF_VAR_database_password. Terraform sends it to RDS and Secrets Manager, but stores it neither in a plan nor in the state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = can(regex("^[!#-.0-?A-~]{16,128}$", var.database_password))
    error_message = "database_password must have 16 to 128 printable ASCII characters, without space, \", / and @, which RDS does not allow."
  }
}

variable "database_app_password" {
  description = "Password of the role that prop serves with, 16 to 128 characters. Set it with TF_VAR_database_app_password. Terraform sends it to Secrets Manager, but stores it neither in a plan nor in the state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = can(regex("^[!#-.0-?A-~]{16,128}$", var.database_app_password))
    error_message = "database_app_password must have 16 to 128 printable ASCII characters, without space, \", / and @, as database_password."
  }
}

variable "bootstrap_key" {
  description = "prop's first admin key, as `prop key generate` prints it. Set it with TF_VAR_bootstrap_key. Terraform sends it to Secrets Manager, but stores it neither in a plan nor in the state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = can(regex("^prop_[0-9A-Za-z]{36}$", var.bootstrap_key))
    error_message = "bootstrap_key must be a key as `prop key generate` prints it: prop_ and 36 letters or digits."
  }
}

variable "secrets_version" {
  description = "Version number of database_password, database_app_password and bootstrap_key. Raise it by one when one of them changes, because Terraform stores none and cannot detect the change."
  type        = number
  default     = 1

  validation {
    condition     = var.secrets_version >= 1 && floor(var.secrets_version) == var.secrets_version
    error_message = "secrets_version must be a whole number of at least 1."
  }
}

variable "github_webhook_version" {
  description = "Version number of github_webhook_secret. With 0, the default, prop rejects GitHub's webhooks. Raise it by one when the secret changes."
  type        = number
  default     = 0

  validation {
    condition     = var.github_webhook_version >= 0 && floor(var.github_webhook_version) == var.github_webhook_version
    error_message = "github_webhook_version must be a whole number of at least 0."
  }
}

variable "github_webhook_secret" {
  description = "Secret of the webhooks that GitHub sends to prop, 16 to 200 characters. Set it with TF_VAR_github_webhook_secret. Terraform sends it to Secrets Manager, but stores it neither in a plan nor in the state."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = var.github_webhook_secret == null ? var.github_webhook_version == 0 : can(regex("^[!-~]{16,200}$", var.github_webhook_secret))
    error_message = "github_webhook_secret must have 16 to 200 printable ASCII characters without spaces, and be set if github_webhook_version is not 0."
  }
}

variable "customer_managed_key" {
  description = "Whether a customer-managed KMS key (1 USD per month) encrypts database, secrets, logs, alarms and images instead of AWS-managed keys. Do not change it later: that replaces the database."
  type        = bool
  default     = false
}

# GitHub

variable "github_subject_prefix" {
  description = "Prefix of the subject in GitHub's OIDC tokens: repo:ORG/REPO, or repo:ORG@ID/REPO@ID for repositories created since 15 July 2026. The default, null, creates no roles for GitHub."
  type        = string
  default     = null

  validation {
    condition     = var.github_subject_prefix == null || can(regex("^repo:([A-Za-z0-9-]+/[A-Za-z0-9._-]+|[A-Za-z0-9-]+@[0-9]+/[A-Za-z0-9._-]+@[0-9]+)$", var.github_subject_prefix))
    error_message = "github_subject_prefix must be repo:ORG/REPO, or repo:ORG@ID/REPO@ID for repositories created since 15 July 2026, without wildcards and without anything after it."
  }
}

variable "state_bucket" {
  description = "Name of the S3 bucket with Terraform's state, as in envs/*.s3.tfbackend. The role for pull requests may read it."
  type        = string
  default     = "prop-terraform-state"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.state_bucket))
    error_message = "state_bucket must be the name of a bucket, not its ARN."
  }
}

variable "lock_table" {
  description = "Name of the DynamoDB table with the state's locks and digests, as in envs/*.s3.tfbackend. The role for pull requests may read it."
  type        = string
  default     = "prop-terraform-locks"

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]{3,255}$", var.lock_table))
    error_message = "lock_table must be the name of a table, not its ARN."
  }
}

variable "state_region" {
  description = "AWS region of the bucket and the table, as in envs/*.s3.tfbackend. The default, null, is the value of region."
  type        = string
  default     = null

  validation {
    condition     = var.state_region == null || can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.state_region))
    error_message = "state_region must be the name of a region such as ap-south-1, or null."
  }
}

# Monitoring and cost

variable "log_retention_days" {
  description = "Number of days for which CloudWatch keeps logs."
  type        = number

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a value that CloudWatch supports: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "alarm_email" {
  description = "E-mail address that receives alarms and the budget's alerts. AWS asks the address to confirm. The default, null, sends no e-mail."
  type        = string
  default     = null

  validation {
    condition     = var.alarm_email == null || can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", var.alarm_email))
    error_message = "alarm_email must be an e-mail address, or null."
  }
}

variable "monthly_budget" {
  description = "Monthly budget of the whole account in USD. An alert is sent at 80 percent, and when the forecast exceeds the budget. The environment with creates_account_resources creates the budget."
  type        = number
  default     = 150

  validation {
    condition     = var.monthly_budget > 0
    error_message = "monthly_budget must be more than 0 USD."
  }
}

variable "auto_stop" {
  description = "Whether tasks and database run during working_hours only. The default is to run always."
  type        = bool
  default     = false
}

variable "working_hours" {
  description = "Hours in which an environment with auto_stop runs. start and stop are hours from 1 to 23, days are weekdays in cron syntax, and zone is the time zone. The default is 8 to 20, Monday to Friday, in India."
  type = object({
    start = optional(number, 8)
    stop  = optional(number, 20)
    days  = optional(string, "MON-FRI")
    zone  = optional(string, "Asia/Kolkata")
  })
  default = {}

  validation {
    condition     = var.working_hours.start >= 1 && var.working_hours.start < var.working_hours.stop && var.working_hours.stop <= 23
    error_message = "working_hours.start must be at least 1, because the database starts half an hour before the tasks. working_hours.stop must be after it, and at most 23."
  }
  validation {
    condition     = can(regex("^(MON|TUE|WED|THU|FRI|SAT|SUN)([-,](MON|TUE|WED|THU|FRI|SAT|SUN))*$", var.working_hours.days))
    error_message = "working_hours.days must be weekdays in cron syntax, such as MON-FRI or MON,WED,FRI."
  }
  validation {
    condition     = can(regex("^(UTC|[A-Z][A-Za-z_]+(/[A-Za-z_-]+)+)$", var.working_hours.zone))
    error_message = "working_hours.zone must be a time zone name such as Asia/Kolkata."
  }
}
