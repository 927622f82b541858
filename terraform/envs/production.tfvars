# Everything in two availability zones, and protected from deletion.
environment = "production"

# Staging creates these in the same account. Set to true if production has its own account.
creates_account_resources = false

# Other address ranges than staging, so that the VPCs can be peered.
vpc_cidr             = "10.30.0.0/16"
public_subnet_cidrs  = ["10.30.0.0/24", "10.30.1.0/24"]
private_subnet_cidrs = ["10.30.16.0/20", "10.30.32.0/20"]

endpoint_zones      = 2
multi_az            = true
backup_days         = 14
deletion_protection = true
log_retention_days  = 90

auto_stop = false
