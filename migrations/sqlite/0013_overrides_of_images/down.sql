ALTER TABLE freeze_overrides DROP COLUMN expires_at;
ALTER TABLE freeze_overrides DROP COLUMN image_digest;
