# Each availability zone has a public subnet for the load balancer and a private one for everything else. There is no NAT
# gateway: from the private subnets, only the AWS services of endpoints.tf can be reached.

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:The first zones by name are used, so that a new zone of the region changes nothing
  state = "available"

  # Excludes local zones, which have to be enabled and do not have most services.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  lifecycle {
    postcondition {
      condition     = length(self.names) >= var.zones
      error_message = "${var.region} has fewer than ${var.zones} availability zones. Lower zones, or use another region."
    }
  }
}

locals {
  zones = slice(data.aws_availability_zones.available.names, 0, var.zones)

  # Eighths of the VPC. One half is for public subnets and the other for private ones, so that another zone moves none.
  public_subnets  = { for index, zone in local.zones : zone => cidrsubnet(var.vpc_cidr, 3, index) }
  private_subnets = { for index, zone in local.zones : zone => cidrsubnet(var.vpc_cidr, 3, index + 4) }
}

resource "aws_vpc" "main" {
  #checkov:skip=CKV2_AWS_11:Flow logs cost money per gigabyte, and prop's access log has the requests already
  cidr_block = var.vpc_cidr
  # Private DNS names of endpoints need both.
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = "prop${local.suffix}" }
}

# AWS uses this group for resources without a security group. It allows no traffic.
resource "aws_default_security_group" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "prop-unused${local.suffix}" }
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "prop${local.suffix}" }
}

resource "aws_subnet" "public" {
  for_each = local.public_subnets

  vpc_id            = aws_vpc.main.id
  availability_zone = each.key
  cidr_block        = each.value

  tags = { Name = "prop-public-${each.key}${local.suffix}" }
}

resource "aws_subnet" "private" {
  for_each = local.private_subnets

  vpc_id            = aws_vpc.main.id
  availability_zone = each.key
  cidr_block        = each.value

  tags = { Name = "prop-private-${each.key}${local.suffix}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "prop-public${local.suffix}" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  route_table_id = aws_route_table.public.id
  subnet_id      = each.value.id
}

# Only the VPC's local route, and the route to S3 that the endpoint adds.
resource "aws_route_table" "private" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "prop-private${local.suffix}" }
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  route_table_id = aws_route_table.private.id
  subnet_id      = each.value.id
}
