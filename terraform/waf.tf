# Optional: it costs more than the task that it protects, and prop validates every request and its key itself.

resource "aws_wafv2_web_acl" "main" {
  #checkov:skip=CKV2_AWS_31:Sampled requests and metrics are enabled; prop logs every request
  count = var.waf ? 1 : 0

  name        = "prop${local.suffix}"
  description = "In front of ${local.load_balancer}"
  scope       = "REGIONAL"

  default_action {
    allow {}
  }

  rule {
    name     = "rate"
    priority = 0

    action {
      block {}
    }
    statement {
      rate_based_statement {
        limit              = 2000 # requests from one address in five minutes
        aggregate_key_type = "IP"
      }
    }
    visibility_config {
      metric_name                = "prop-rate${local.suffix}"
      cloudwatch_metrics_enabled = true
      sampled_requests_enabled   = true
    }
  }

  dynamic "rule" {
    for_each = ["AWSManagedRulesKnownBadInputsRuleSet", "AWSManagedRulesAmazonIpReputationList"]

    content {
      name     = rule.value
      priority = rule.key + 1

      override_action {
        none {}
      }
      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.value
        }
      }
      visibility_config {
        metric_name                = "${rule.value}${local.suffix}"
        cloudwatch_metrics_enabled = true
        sampled_requests_enabled   = true
      }
    }
  }

  visibility_config {
    metric_name                = "prop${local.suffix}"
    cloudwatch_metrics_enabled = true
    sampled_requests_enabled   = true
  }
}

resource "aws_wafv2_web_acl_association" "main" {
  count = var.waf ? 1 : 0

  web_acl_arn  = aws_wafv2_web_acl.main[0].arn
  resource_arn = aws_lb.main.arn
}
