ALTER TABLE environments DROP COLUMN ignore_github_deployments;
ALTER TABLE services DROP COLUMN ignore_github_deployments;
