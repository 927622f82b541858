# Bucket, key and lock table differ by environment: envs/*.s3.tfbackend. scripts/bootstrap.sh makes them.
terraform {
  backend "s3" {
    encrypt = true
    # Both locks: DynamoDB's, and a lock file in the bucket, which is to replace it in Terraform.
    use_lockfile = true
  }
}
