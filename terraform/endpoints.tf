# Tasks have no internet access, so they need endpoints for the image (two of the registry, and S3 for the layers), for
# their secrets and for their log. ECS itself needs no endpoint on Fargate.

locals {
  interface_endpoints = toset(["ecr.api", "ecr.dkr", "logs", "secretsmanager"])

  # Not every service has endpoints in every availability zone.
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
      error_message = "${each.key} has no endpoint in ${join(" or ", local.zones)}, so tasks cannot start there. Choose another region."
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

# Gateway endpoints are free, unlike interface endpoints.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.main.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.region}.s3"
  route_table_ids   = [aws_route_table.private.id]

  # Allows only the bucket with the registry's image layers, so that no data can leave through this endpoint.
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
