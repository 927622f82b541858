# Everything in two zones, and nothing lost by mistake.
environment = "production"

# The same account as staging, which has made these. Set to true for an account of its own.
creates_account_resources = false

# Networks of its own, so that the two can be peered one day.
vpc_cidr             = "10.30.0.0/16"
public_subnet_cidrs  = ["10.30.0.0/24", "10.30.1.0/24"]
private_subnet_cidrs = ["10.30.16.0/20", "10.30.32.0/20"]

endpoint_zones      = 2
multi_az            = true
backup_days         = 14
deletion_protection = true
log_retention_days  = 90

auto_stop = false
