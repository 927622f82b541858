resource "aws_lb" "main" {
  #checkov:skip=CKV2_AWS_76:The firewall is optional and has the required rule set, but checkov cannot evaluate the loop in waf.tf
  name               = local.load_balancer
  internal           = false
  load_balancer_type = "application"
  subnets            = [for subnet in aws_subnet.public : subnet.id]
  security_groups    = [aws_security_group.load_balancer.id]

  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection

  # In seconds. prop must keep idle connections longer (http.keep_alive_seconds, 75 by default): a request on a connection
  # that prop is closing is answered 502.
  idle_timeout = 60

  dynamic "access_logs" {
    for_each = aws_s3_bucket.access_logs

    content {
      enabled = true
      bucket  = access_logs.value.bucket
    }
  }

  # AWS rejects an internet-facing load balancer in a VPC without an internet gateway, and access logs that it cannot write.
  depends_on = [aws_route.internet, aws_s3_bucket_policy.access_logs]
}

resource "aws_lb_target_group" "tasks" {
  #checkov:skip=CKV_AWS_378:TLS ends at the load balancer; security groups allow only its traffic to the tasks
  name_prefix = "prop-"
  vpc_id      = aws_vpc.main.id
  target_type = "ip"
  protocol    = "HTTP"
  port        = local.port

  # /readyz needs the database, and ECS replaces a task that is unhealthy here. A failover of the database takes up to 120 s,
  # so ten failures in 135 s are needed. Two successes suffice: a new task receives requests after 30 s.
  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 15
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 10
  }

  # Time for a stopping task to finish running requests. Equal to the time that prop itself allows, local.drain_seconds.
  deregistration_delay = local.drain_seconds

  # A change of the port replaces the target group. The listener must switch before the old one is deleted.
  lifecycle { create_before_destroy = true }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.main.arn
  protocol          = "HTTP"
  port              = 80

  default_action {
    type             = var.certificate_arn == null ? "forward" : "redirect"
    target_group_arn = var.certificate_arn == null ? aws_lb_target_group.tasks.arn : null

    dynamic "redirect" {
      for_each = var.certificate_arn[*]

      content {
        protocol    = "HTTPS"
        port        = "443"
        status_code = "HTTP_301"
      }
    }
  }
}

resource "aws_lb_listener" "https" {
  count = var.certificate_arn == null ? 0 : 1

  load_balancer_arn = aws_lb.main.arn
  protocol          = "HTTPS"
  port              = 443
  certificate_arn   = var.certificate_arn
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"

  # For a year, browsers use https here only.
  routing_http_response_strict_transport_security_header_value = "max-age=31536000"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.tasks.arn
  }
}

# /metrics needs no key, and says how much prop is used. CloudWatch has what the dashboards show.
resource "aws_lb_listener_rule" "metrics" {
  listener_arn = var.certificate_arn == null ? aws_lb_listener.http.arn : aws_lb_listener.https[0].arn
  priority     = 1

  condition {
    path_pattern {
      values = ["/metrics"]
    }
  }
  action {
    type = "fixed-response"

    fixed_response {
      status_code  = "404"
      content_type = "text/plain"
      message_body = "Not found"
    }
  }

  tags = { Name = "prop-metrics${local.suffix}" }
}
