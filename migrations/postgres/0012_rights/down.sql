ALTER TABLE deployments DROP COLUMN image_added_later;
ALTER TABLE deployments DROP COLUMN counts_from;
