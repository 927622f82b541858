-- Where jobs on GitHub use an environment for its secrets and deploy nothing.
ALTER TABLE services ADD COLUMN ignore_github_deployments integer NOT NULL DEFAULT 0;
ALTER TABLE environments ADD COLUMN ignore_github_deployments integer NOT NULL DEFAULT 0;
