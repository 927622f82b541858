-- The newest event of a service, for the time of a transaction in it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS events_of_service ON events (service, at);
