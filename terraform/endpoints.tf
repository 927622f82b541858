# What a task needs before it runs, and has no internet to get: its image (the registry's two endpoints, and S3 for the
# layers), its secrets, and a place for its log. ECS itself needs none on Fargate.

locals {
  interface_endpoints = toset(concat(
    ["ecr.api", "ecr.dkr", "logs", "secretsmanager"],
    var.execute_command ? ["ssmmessages"] : [],
  ))

  # Not every service is in every zone.
  endpoint_zones = {
    for name, service in data.aws_vpc_endpoint_service.interface : name => slice(
      [for zone in local.zones : zone if contains(service.availability_zones, zone)],
      0, min(var.endpoint_zones, length([for zone in local.zones : zone if contains(service.availability_zones, zone)])),
    )
  }
}

data "aws_vpc_endpoint_service" "interface" {
  for_each = local.interface_endpoints

  service      = each.key
  service_type = "Interface"

  lifecycle {
    postcondition {
      condition     = length(setintersection(self.availability_zones, local.zones)) > 0
      error_message = "${each.key} has no endpoint in ${join(" or ", local.zones)}, so tasks there could not start."
    }
  }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_endpoints

  vpc_id              = aws_vpc.main.id
  vpc_endpoint_type   = "Interface"
  service_name        = data.aws_vpc_endpoint_service.interface[each.key].service_name
  subnet_ids          = [for zone in local.endpoint_zones[each.key] : aws_subnet.private[zone].id]
  security_group_ids  = [aws_security_group.endpoints.id]
  private_dns_enabled = true

  tags = { Name = "prop-${each.key}${local.suffix}" }
}

# Free, unlike the others.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.main.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.region}.s3"
  route_table_ids   = [aws_route_table.private.id]

  # The bucket that the registry keeps layers in, and no other: not a way out for data.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "ImageLayers"
      Effect    = "Allow"
      Principal = "*"
      Action    = "s3:GetObject"
      Resource  = "arn:${local.partition}:s3:::prod-${var.region}-starport-layer-bucket/*"
    }]
  })

  tags = { Name = "prop-s3${local.suffix}" }
}
