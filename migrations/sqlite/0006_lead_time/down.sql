DROP INDEX releases_by_commit;
ALTER TABLE releases DROP COLUMN last_commit_at;
