# Everything in two availability zones, and protected from deletion.
environment = "production"

# Staging creates these in the same account. Set to true if production has its own account.
creates_account_resources = false

# Another address range than staging, so that the VPCs can be peered.
vpc_cidr = "10.30.0.0/16"

endpoint_zones      = 2
multi_az            = true
backup_days         = 14
deletion_protection = true
log_retention_days  = 90
access_logs         = true

auto_stop = false
