-- An override is for the image that the release had, and ends. Those that exist get the image that their release has now,
-- and end as approvals of their environment do.
ALTER TABLE freeze_overrides ADD COLUMN image_digest text;
ALTER TABLE freeze_overrides ADD COLUMN expires_at timestamptz;
UPDATE freeze_overrides SET
    image_digest = (SELECT r.image_digest FROM releases r
        WHERE r.service = freeze_overrides.service AND r.version = freeze_overrides.version),
    expires_at = created_at + (SELECT e.approval_ttl_hours FROM environments e
        WHERE e.slug = freeze_overrides.environment) * interval '1 hour';
