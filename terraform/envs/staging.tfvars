# One of everything and no deletion protection: cheap, and deleted with one command.
environment = "staging"

# The first environment in an account creates the shared resources: image repository, GitHub's identity provider, budget.
creates_account_resources = true

endpoint_zones      = 1
multi_az            = false
backup_days         = 7
deletion_protection = false
log_retention_days  = 14

# Tasks and database run during working_hours only, so evenings and weekends cost less.
auto_stop = true

# Within working_hours, in UTC: 12:30 and 13:30 in India.
backup_window      = "07:00-07:30"
maintenance_window = "wed:08:00-wed:09:00"
