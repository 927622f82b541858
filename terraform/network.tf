# Two zones, each with a public subnet for the load balancer and a private one for everything else. No NAT gateway:
# nothing in the private subnets has a way out, except to the AWS services of endpoints.tf.

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:The first zones by name are taken, so that a new one changes nothing
  state = "available"

  # Without local zones, which have to be opted into and lack most services.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  lifecycle {
    postcondition {
      condition     = length(self.names) >= length(var.private_subnet_cidrs)
      error_message = "${var.region} has fewer zones than there are private subnets."
    }
  }
}

locals {
  zones           = slice(data.aws_availability_zones.available.names, 0, length(var.private_subnet_cidrs))
  public_subnets  = zipmap(local.zones, var.public_subnet_cidrs)
  private_subnets = zipmap(local.zones, var.private_subnet_cidrs)
}

resource "aws_vpc" "main" {
  #checkov:skip=CKV2_AWS_11:Flow logs cost by the gigabyte, and would show what prop's access log has already
  cidr_block = var.vpc_cidr
  # Private names of the endpoints need both.
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = "prop${local.suffix}" }
}

# Whatever is put in a VPC without a security group gets this one, which admits nothing.
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

# No route but the VPC's own, and the one to S3 that its endpoint adds.
resource "aws_route_table" "private" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "prop-private${local.suffix}" }
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  route_table_id = aws_route_table.private.id
  subnet_id      = each.value.id
}
