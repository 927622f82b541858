CREATE INDEX CONCURRENTLY IF NOT EXISTS deployments_starts ON deployments (service, environment, started_at);

CREATE INDEX CONCURRENTLY IF NOT EXISTS deployments_ends ON deployments (service, environment, finished_at);

CREATE INDEX CONCURRENTLY IF NOT EXISTS deployments_not_ended ON deployments (service, environment)
    WHERE finished_at IS NULL AND started_at IS NOT NULL;
