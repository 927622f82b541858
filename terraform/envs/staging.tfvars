# Everything once, nothing kept: cheap, and gone with one command.
environment = "staging"

# The first environment in an account makes what the account has once: repository, GitHub's identity provider, budget.
creates_account_resources = true

endpoint_zones      = 1
multi_az            = false
backup_days         = 7
deletion_protection = false
log_retention_days  = 14

# Working hours, in the zone of working_hours: evenings and weekends cost no task and no database.
auto_stop = true

# While it is awake, in UTC: 12:30 and 13:30 in India.
backup_window      = "07:00-07:30"
maintenance_window = "wed:08:00-wed:09:00"
