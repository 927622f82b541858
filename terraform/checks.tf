# What is allowed, but seldom meant: each is a warning of every plan, and stops nothing.

check "keys_travel_encrypted" {
  assert {
    condition     = !local.production || var.certificate_arn != null
    error_message = "Production has no certificate_arn: keys travel in clear text to the load balancer."
  }
}

check "alarms_reach_somebody" {
  assert {
    condition     = var.alarm_email != null
    error_message = "There is no alarm_email: alarms and the budget's alert reach nobody."
  }
}

check "production_is_kept" {
  assert {
    condition     = !local.production || (var.deletion_protection && var.multi_az && !var.auto_stop)
    error_message = "Production lacks deletion_protection or multi_az, or has auto_stop."
  }
}

check "one_zone_may_fail" {
  assert {
    condition     = !local.production || var.endpoint_zones >= 2
    error_message = "Production has endpoints in one zone only: when it fails, no task starts in the others."
  }
}

check "github_may_deploy" {
  assert {
    condition     = local.github
    error_message = "There is no github_subject_prefix: GitHub's workflows get no role, and need access keys."
  }
}
