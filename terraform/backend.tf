# envs/*.s3.tfbackend sets bucket, key and lock table of each environment. scripts/bootstrap.sh creates bucket and table.
terraform {
  backend "s3" {
    encrypt = true
    # Both kinds of lock: the DynamoDB table, and a lock file in the bucket, which replaces the table in future Terraform versions.
    # For the table, init warns that dynamodb_table is deprecated. It still works, and the assignment asks for it.
    use_lockfile = true
  }
}
