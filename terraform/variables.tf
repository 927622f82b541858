# What can be set, by subject. A default suits a small environment; envs/*.tfvars say what differs.

# Where

variable "environment" {
  description = "Name of the environment; it has a file envs/<name>.tfvars."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,15}$", var.environment)) && fileexists("${path.module}/envs/${var.environment}.tfvars")
    error_message = "There is no environment \"${var.environment}\": an environment has a file envs/<name>.tfvars."
  }
}

variable "region" {
  description = "AWS region of everything."
  type        = string
  default     = "ap-south-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "\"${var.region}\" is no region; one looks like ap-south-1."
  }
}

variable "account_id" {
  description = "The one AWS account this environment may be made in; null allows any."
  type        = string
  default     = null

  validation {
    condition     = var.account_id == null || can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id is the 12 digits of an AWS account."
  }
}

variable "creates_account_resources" {
  description = "Whether this environment makes what an account has once (image repository, GitHub's identity provider, budget) or looks it up."
  type        = bool
}

# Network

variable "vpc_cidr" {
  description = "Addresses of the VPC."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 0, 0)) && try(cidrsubnet(var.vpc_cidr, 0, 0) == var.vpc_cidr, false)
    error_message = "vpc_cidr is a network such as 10.20.0.0/16, with no bits set behind its prefix."
  }
  validation {
    condition     = try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 24, false)
    error_message = "vpc_cidr is between /16, the largest AWS allows, and /24, the smallest that holds four subnets of /26."
  }
}

variable "public_subnet_cidrs" {
  description = "Addresses of the public subnets, one per zone; the load balancer is there."
  type        = list(string)
  default     = ["10.20.0.0/24", "10.20.1.0/24"]

  validation {
    condition     = length(var.public_subnet_cidrs) >= 2
    error_message = "A load balancer wants public subnets in at least two zones."
  }
}

variable "private_subnet_cidrs" {
  description = "Addresses of the private subnets, one per zone; tasks, database and endpoints are there."
  type        = list(string)
  default     = ["10.20.16.0/20", "10.20.32.0/20"]

  validation {
    condition     = length(var.private_subnet_cidrs) == length(var.public_subnet_cidrs)
    error_message = "There is one private subnet for each public one: they share a zone."
  }
  validation {
    condition = alltrue([
      for cidr in concat(var.public_subnet_cidrs, var.private_subnet_cidrs) : try(cidrsubnet(cidr, 0, 0) == cidr, false)
    ])
    error_message = "Every subnet is a network such as 10.20.16.0/20, with no bits set behind its prefix."
  }
  validation {
    condition = alltrue([
      for cidr in concat(var.public_subnet_cidrs, var.private_subnet_cidrs) : try(tonumber(split("/", cidr)[1]) <= 26, true)
    ])
    error_message = "A subnet smaller than /26 is too small: AWS keeps 5 addresses, a load balancer wants 8 free, and deployments double the tasks."
  }
  # A network lies in another if, cut to the other's prefix, it is the other.
  validation {
    condition = alltrue([
      for cidr in concat(var.public_subnet_cidrs, var.private_subnet_cidrs) : try(
        tonumber(split("/", cidr)[1]) >= tonumber(split("/", var.vpc_cidr)[1]) &&
        cidrsubnet("${split("/", cidr)[0]}/${split("/", var.vpc_cidr)[1]}", 0, 0) == var.vpc_cidr, true
      )
    ])
    error_message = "Every subnet lies within vpc_cidr, ${var.vpc_cidr}."
  }
  # Two networks overlap if they are the same, cut to the shorter of their prefixes.
  validation {
    condition = alltrue([
      for pair in setproduct(
        range(length(var.public_subnet_cidrs) + length(var.private_subnet_cidrs)),
        range(length(var.public_subnet_cidrs) + length(var.private_subnet_cidrs))
        ) : pair[0] >= pair[1] ? true : try(length(distinct([
          for index in pair : cidrsubnet(format("%s/%d",
            split("/", concat(var.public_subnet_cidrs, var.private_subnet_cidrs)[index])[0],
            min([for other in pair : tonumber(split("/", concat(var.public_subnet_cidrs, var.private_subnet_cidrs)[other])[1])]...)
          ), 0, 0)
      ])) == 2, true)
    ])
    error_message = "No two subnets overlap; public: ${join(", ", var.public_subnet_cidrs)}; private: ${join(", ", var.private_subnet_cidrs)}."
  }
}

variable "endpoint_zones" {
  description = "Zones that have interface endpoints; each endpoint costs by the hour and zone. Tasks in other zones use them across zones."
  type        = number
  default     = 1

  validation {
    condition     = var.endpoint_zones >= 1 && var.endpoint_zones <= length(var.private_subnet_cidrs) && floor(var.endpoint_zones) == var.endpoint_zones
    error_message = "endpoint_zones is from 1 to the number of private subnets, ${length(var.private_subnet_cidrs)}."
  }
}

# Load balancer

variable "allowed_cidrs" {
  description = "Who may reach the load balancer."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : try(cidrsubnet(cidr, 0, 0) == cidr, false)])
    error_message = "allowed_cidrs has at least one network, each such as 203.0.113.0/24, with no bits set behind its prefix."
  }
}

variable "certificate_arn" {
  description = "ACM certificate for HTTPS; with one, HTTP redirects. null serves HTTP only."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]{36}$", var.certificate_arn))
    error_message = "certificate_arn is the ARN of an ACM certificate."
  }
  validation {
    condition     = var.certificate_arn == null || try(split(":", var.certificate_arn)[3] == var.region, true)
    error_message = "A load balancer takes certificates of its own region only: certificate_arn is not one of ${var.region}."
  }
}

variable "access_log_bucket" {
  description = "S3 bucket, with the policy that load balancers need, for access logs; null keeps none (prop logs each request itself)."
  type        = string
  default     = null

  validation {
    condition     = var.access_log_bucket == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.access_log_bucket))
    error_message = "access_log_bucket is the name of a bucket, not its ARN."
  }
}

variable "waf" {
  description = "Whether a web application firewall stands before the load balancer (about 8 USD a month, and by the request)."
  type        = bool
  default     = false
}

# Tasks

variable "container_port" {
  description = "Port that prop listens on; above 1023, since its user is an ordinary one."
  type        = number
  default     = 8080

  validation {
    condition     = var.container_port >= 1024 && var.container_port <= 65535
    error_message = "container_port is from 1024 to 65535: prop runs as a user that can't bind lower ones."
  }
}

variable "task_cpu" {
  description = "CPU units of a task; 1024 are one core."
  type        = number
  default     = 256

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.task_cpu)
    error_message = "task_cpu is 256, 512, 1024, 2048 or 4096."
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
    error_message = "Fargate has no task of ${var.task_cpu} CPU units and ${var.task_memory} MiB: 2 to 8 MiB per unit, in whole GiB (512 MiB with 256 units)."
  }
}

variable "cpu_architecture" {
  description = "What the image is built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "cpu_architecture is X86_64 or ARM64."
  }
}

variable "min_tasks" {
  description = "Tasks that run when there is little to do."
  type        = number
  default     = 1

  validation {
    condition     = var.min_tasks >= 1 && floor(var.min_tasks) == var.min_tasks
    error_message = "min_tasks is at least 1; to stop an environment, use scripts/db.sh or auto_stop."
  }
}

variable "max_tasks" {
  description = "Tasks that run at most."
  type        = number
  default     = 4

  validation {
    condition     = var.max_tasks >= var.min_tasks && var.max_tasks <= (endswith(var.database_class, ".micro") ? 5 : 20)
    error_message = "max_tasks is from min_tasks to 5 with a micro database, else to 20: a task holds 8 connections, a deployment doubles the tasks, and a micro admits about 80."
  }
}

variable "container_insights" {
  description = "Whether CloudWatch collects metrics per task (paid)."
  type        = bool
  default     = false
}

variable "execute_command" {
  description = "Whether `aws ecs execute-command` can open a shell in a task; its root file system is writable then."
  type        = bool
  default     = false
}

# Database

variable "postgres_version" {
  description = "Major version of PostgreSQL; RDS takes the latest minor one."
  type        = string
  default     = "17"

  validation {
    condition     = contains(["15", "16", "17"], var.postgres_version)
    error_message = "postgres_version is a major version that prop is used with: 15, 16 or 17."
  }
}

variable "database_class" {
  description = "Size of the database instance."
  type        = string
  default     = "db.t3.micro"

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.database_class))
    error_message = "database_class is an instance class such as db.t3.micro."
  }
}

variable "database_storage" {
  description = "Storage of the database in GiB."
  type        = number
  default     = 20

  validation {
    condition     = var.database_storage >= 20 && floor(var.database_storage) == var.database_storage
    error_message = "database_storage is at least 20 GiB, the least that RDS gives on gp3."
  }
}

variable "database_storage_ceiling" {
  description = "GiB up to which RDS grows the storage by itself."
  type        = number
  default     = 100

  validation {
    condition     = var.database_storage_ceiling >= var.database_storage * 1.1
    error_message = "database_storage_ceiling is at least a tenth above database_storage, or RDS refuses it."
  }
}

variable "multi_az" {
  description = "Whether a second database stands by in another zone (doubles its price)."
  type        = bool
}

variable "backup_days" {
  description = "Days that point-in-time restore reaches back."
  type        = number

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days is from 1 to 35; 0 would switch backups off."
  }
}

variable "backup_window" {
  description = "When RDS takes its daily backup, in UTC. It takes none of a database that is stopped: with auto_stop, within working_hours."
  type        = string
  default     = "20:30-21:00" # night in India

  validation {
    condition     = can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$", var.backup_window))
    error_message = "backup_window is two times of day in UTC, as in 20:30-21:00."
  }
}

variable "maintenance_window" {
  description = "When RDS may be down for maintenance, in UTC; apart from backup_window, and within working_hours with auto_stop."
  type        = string
  default     = "sun:21:30-sun:22:30"

  validation {
    condition     = can(regex("^(mon|tue|wed|thu|fri|sat|sun):[0-2][0-9]:[0-5][0-9]-(mon|tue|wed|thu|fri|sat|sun):[0-2][0-9]:[0-5][0-9]$", var.maintenance_window))
    error_message = "maintenance_window is two times of the week in UTC, as in sun:21:30-sun:22:30."
  }
}

variable "backup_vault" {
  description = "Whether AWS Backup also keeps a snapshot a week for a quarter, in a vault of its own (paid)."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Whether database and load balancer refuse to be deleted, a deleted database leaves a snapshot, and a deleted secret can be had back."
  type        = bool
}

variable "database_password" {
  description = "Password of the database's admin user: TF_VAR_database_password. Goes to RDS and Secrets Manager, never to plan or state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = can(regex("^[!#-.0-?A-~]{16,128}$", var.database_password))
    error_message = "database_password has 16 to 128 printable characters, without space, \", / and @, which RDS refuses."
  }
}

variable "bootstrap_key" {
  description = "prop's first admin key, as `prop key generate` prints it: TF_VAR_bootstrap_key. Goes to Secrets Manager, never to plan or state."
  type        = string
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = can(regex("^prop_[0-9A-Za-z]{36}$", var.bootstrap_key))
    error_message = "bootstrap_key is a key as `prop key generate` prints it."
  }
}

variable "secrets_version" {
  description = "Raise by one whenever database_password or bootstrap_key changed: Terraform can't see it, since it keeps neither."
  type        = number
  default     = 1

  validation {
    condition     = var.secrets_version >= 1 && floor(var.secrets_version) == var.secrets_version
    error_message = "secrets_version is a whole number from 1."
  }
}

variable "customer_managed_key" {
  description = "Whether database, secrets, logs, alarms and images are encrypted with a key of our own (1 USD a month) instead of AWS's. Not to be changed later: the database would be made anew."
  type        = bool
  default     = false
}

# GitHub

variable "github_subject_prefix" {
  description = "What GitHub's tokens for this repository begin with; null makes no roles for GitHub. Repositories made since 15 July 2026 carry ids: repo:ORG@ID/REPO@ID."
  type        = string
  default     = null

  validation {
    condition     = var.github_subject_prefix == null || can(regex("^repo:([A-Za-z0-9-]+/[A-Za-z0-9._-]+|[A-Za-z0-9-]+@[0-9]+/[A-Za-z0-9._-]+@[0-9]+)$", var.github_subject_prefix))
    error_message = "github_subject_prefix is repo:ORG/REPO, or repo:ORG@ID/REPO@ID for repositories made since 15 July 2026; no wildcards, and nothing behind."
  }
}

variable "state_bucket" {
  description = "Bucket that the state is in, which pull requests may read; as in envs/*.s3.tfbackend."
  type        = string
  default     = "prop-terraform-state"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.state_bucket))
    error_message = "state_bucket is the name of a bucket, not its ARN."
  }
}

variable "lock_table" {
  description = "DynamoDB table of the state's locks and digests; as in envs/*.s3.tfbackend."
  type        = string
  default     = "prop-terraform-locks"

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]{3,255}$", var.lock_table))
    error_message = "lock_table is the name of a table, not its ARN."
  }
}

# Watching and cost

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of the numbers that CloudWatch knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 and above; logs are never kept forever."
  }
}

variable "alarm_email" {
  description = "Where alarms and the budget's alert go; AWS asks the address to confirm. null tells nobody."
  type        = string
  default     = null

  validation {
    condition     = var.alarm_email == null || can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", var.alarm_email))
    error_message = "alarm_email is an e-mail address."
  }
}

variable "monthly_budget" {
  description = "USD a month for the whole account; an alert at 80 percent, and when the forecast passes it. Made by the environment that makes the account's resources."
  type        = number
  default     = 150

  validation {
    condition     = var.monthly_budget > 0
    error_message = "monthly_budget is more than 0 USD."
  }
}

variable "auto_stop" {
  description = "Whether tasks and database run in working_hours only."
  type        = bool
  default     = false
}

variable "working_hours" {
  description = "When an environment with auto_stop runs: hours (0-23), days as cron has them, and the time zone they are meant in."
  type = object({
    start = optional(number, 8)
    stop  = optional(number, 20)
    days  = optional(string, "MON-FRI")
    zone  = optional(string, "Asia/Kolkata")
  })
  default = {}

  validation {
    condition     = var.working_hours.start >= 1 && var.working_hours.start < var.working_hours.stop && var.working_hours.stop <= 23
    error_message = "working_hours start at 1 or later, since the database starts half an hour before the tasks, and stop after that, at 23 at the latest."
  }
  validation {
    condition     = can(regex("^(MON|TUE|WED|THU|FRI|SAT|SUN)([-,](MON|TUE|WED|THU|FRI|SAT|SUN))*$", var.working_hours.days))
    error_message = "working_hours.days is as cron has it: MON-FRI, or MON,WED,FRI."
  }
  validation {
    condition     = can(regex("^(UTC|[A-Z][A-Za-z_]+(/[A-Za-z_-]+)+)$", var.working_hours.zone))
    error_message = "working_hours.zone is a time zone such as Asia/Kolkata."
  }
}
