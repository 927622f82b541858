-- The order of a service's releases: the time of the release's own commit or, if unknown, of the newest in its list.
-- A release that the previous version records while this one starts has no such time.
ALTER TABLE releases ADD COLUMN last_commit_at timestamptz;
