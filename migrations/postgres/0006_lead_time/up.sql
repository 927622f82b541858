-- The order of a service's releases: the time of the release's own commit or, if unknown, of the newest in its list.
-- A release that the previous version records while this one starts has no such time.
ALTER TABLE releases ADD COLUMN last_commit_at timestamptz;
UPDATE releases SET last_commit_at = coalesce(committed_at, (SELECT max((value->>'committed_at')::timestamptz) FROM jsonb_array_elements(commits)))
WHERE committed_at IS NOT NULL OR commits IS NOT NULL;
CREATE INDEX releases_by_commit ON releases (service, last_commit_at);
