# Allowed traffic: internet -> load balancer -> tasks -> database and endpoints. There are no other rules, inbound or outbound.

locals {
  listener_ports = toset(var.certificate_arn == null ? ["80"] : ["80", "443"])
}

resource "aws_security_group" "load_balancer" {
  name_prefix = "prop-load-balancer${local.suffix}-"
  description = "Load balancer: reached by the world, reaches tasks"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "prop-load-balancer${local.suffix}" }
  lifecycle { create_before_destroy = true }
}

resource "aws_vpc_security_group_ingress_rule" "load_balancer_from_world" {
  for_each = { for pair in setproduct(local.listener_ports, var.allowed_cidrs) : "${pair[0]} from ${pair[1]}" => pair }

  #checkov:skip=CKV_AWS_260:The assignment requires port 80; with a certificate it only redirects to HTTPS
  security_group_id = aws_security_group.load_balancer.id
  description       = "Clients, on port ${each.value[0]}"
  cidr_ipv4         = each.value[1]
  ip_protocol       = "tcp"
  from_port         = each.value[0]
  to_port           = each.value[0]
}

resource "aws_vpc_security_group_egress_rule" "load_balancer_to_tasks" {
  security_group_id            = aws_security_group.load_balancer.id
  description                  = "Requests and health checks to tasks"
  referenced_security_group_id = aws_security_group.tasks.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_security_group" "tasks" {
  name_prefix = "prop-tasks${local.suffix}-"
  description = "Tasks: reached by the load balancer, reach database and endpoints"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "prop-tasks${local.suffix}" }
  lifecycle { create_before_destroy = true }
}

resource "aws_vpc_security_group_ingress_rule" "tasks_from_load_balancer" {
  security_group_id            = aws_security_group.tasks.id
  description                  = "Requests and health checks from the load balancer"
  referenced_security_group_id = aws_security_group.load_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_vpc_security_group_egress_rule" "tasks_to_database" {
  security_group_id            = aws_security_group.tasks.id
  description                  = "PostgreSQL"
  referenced_security_group_id = aws_security_group.database.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_vpc_security_group_egress_rule" "tasks_to_endpoints" {
  security_group_id            = aws_security_group.tasks.id
  description                  = "Registry, logs and secrets"
  referenced_security_group_id = aws_security_group.endpoints.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "tasks_to_s3" {
  security_group_id = aws_security_group.tasks.id
  description       = "Image layers, through the gateway endpoint"
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_security_group" "database" {
  name_prefix = "prop-database${local.suffix}-"
  description = "Database: reached by tasks, reaches nothing"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "prop-database${local.suffix}" }
  lifecycle { create_before_destroy = true }
}

resource "aws_vpc_security_group_ingress_rule" "database_from_tasks" {
  security_group_id            = aws_security_group.database.id
  description                  = "PostgreSQL, from tasks"
  referenced_security_group_id = aws_security_group.tasks.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_security_group" "endpoints" {
  name_prefix = "prop-endpoints${local.suffix}-"
  description = "Endpoints of AWS services: reached by tasks, reach nothing"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "prop-endpoints${local.suffix}" }
  lifecycle { create_before_destroy = true }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints_from_tasks" {
  security_group_id            = aws_security_group.endpoints.id
  description                  = "HTTPS, from tasks"
  referenced_security_group_id = aws_security_group.tasks.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}
