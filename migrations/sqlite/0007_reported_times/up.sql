-- When a review was given and a release was made, if that was reported; otherwise the time of recording counts.
ALTER TABLE approvals ADD COLUMN at text;
ALTER TABLE releases ADD COLUMN at text;
-- The order of a service's releases, for what a place is behind.
CREATE INDEX releases_in_order ON releases (service, coalesce(last_commit_at, at, created_at));
