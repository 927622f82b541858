-- The pages of lists, each along one index in the order of the list. Some take the place of older ones. NULLS LAST, for
-- columns that have none, is an order of its own: PostgreSQL does not read the pages of, say, one service along these indexes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_newest ON events (at DESC NULLS LAST, seq DESC NULLS LAST);

CREATE INDEX CONCURRENTLY IF NOT EXISTS events_newest_of_entity ON events (entity_id, at DESC, seq DESC);

CREATE INDEX CONCURRENTLY IF NOT EXISTS events_newest_of_service ON events (service, at DESC, seq DESC);

CREATE INDEX CONCURRENTLY IF NOT EXISTS events_newest_of_actor ON events (lower(actor), at DESC, seq DESC);

CREATE INDEX CONCURRENTLY IF NOT EXISTS events_newest_of_action ON events (action, at DESC, seq DESC);

CREATE INDEX CONCURRENTLY IF NOT EXISTS deployments_newest ON deployments (requested_at DESC NULLS LAST, id DESC NULLS LAST);

CREATE INDEX CONCURRENTLY IF NOT EXISTS deployments_of_service ON deployments (service, requested_at DESC, id DESC);

CREATE INDEX CONCURRENTLY IF NOT EXISTS deployments_in_state ON deployments (state, requested_at DESC, id DESC);

CREATE INDEX CONCURRENTLY IF NOT EXISTS releases_of_commit ON releases (git_sha, created_at DESC, id DESC);

CREATE INDEX CONCURRENTLY IF NOT EXISTS approvals_of_service ON approvals (service, created_at DESC, id DESC);

CREATE INDEX CONCURRENTLY IF NOT EXISTS releases_newest ON releases (created_at DESC NULLS LAST, id DESC NULLS LAST);

CREATE INDEX CONCURRENTLY IF NOT EXISTS approvals_newest ON approvals (created_at DESC NULLS LAST, id DESC NULLS LAST);

CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_newest ON deliveries (received_at DESC NULLS LAST, id DESC NULLS LAST);

DROP INDEX CONCURRENTLY IF EXISTS events_by_time;

DROP INDEX CONCURRENTLY IF EXISTS events_of_entity;

DROP INDEX CONCURRENTLY IF EXISTS events_of_service;

DROP INDEX CONCURRENTLY IF EXISTS deployments_by_time;

DROP INDEX CONCURRENTLY IF EXISTS releases_by_time;

DROP INDEX CONCURRENTLY IF EXISTS approvals_by_time;

DROP INDEX CONCURRENTLY IF EXISTS deliveries_by_time;
