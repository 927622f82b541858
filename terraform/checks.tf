# Settings that are allowed but rarely intended. Each check adds a warning to every plan; none stops it.

check "keys_travel_encrypted" {
  assert {
    condition     = !local.production || var.certificate_arn != null
    error_message = "Production has no certificate_arn, so API keys are sent to the load balancer unencrypted."
  }
}

check "alarms_reach_somebody" {
  assert {
    condition     = var.alarm_email != null
    error_message = "alarm_email is not set, so nobody receives alarms and the budget's alerts."
  }
}

check "production_is_kept" {
  assert {
    condition     = !local.production || (var.deletion_protection && var.multi_az && !var.auto_stop)
    error_message = "Production should have deletion_protection and multi_az, and no auto_stop."
  }
}

check "one_zone_may_fail" {
  assert {
    condition     = !local.production || var.endpoint_zones >= 2
    error_message = "Production has endpoints in one availability zone only. If that zone fails, tasks cannot start in the others."
  }
}

check "github_may_deploy" {
  assert {
    condition     = local.github
    error_message = "github_subject_prefix is not set, so GitHub's workflows have no role and need access keys."
  }
}
