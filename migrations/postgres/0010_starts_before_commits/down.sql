ALTER TABLE deployments DROP COLUMN before_commit;
