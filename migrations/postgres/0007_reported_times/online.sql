-- The order of a service's releases, for what a place is behind.
CREATE INDEX CONCURRENTLY IF NOT EXISTS releases_in_order ON releases (service, coalesce(last_commit_at, at, created_at));
