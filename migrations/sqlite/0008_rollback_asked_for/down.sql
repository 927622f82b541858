ALTER TABLE deployments DROP COLUMN rollback;
