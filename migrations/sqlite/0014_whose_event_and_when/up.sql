-- The key and the request that caused an event. NULL for prop itself, for events of earlier versions and, the key, for webhooks.
ALTER TABLE events ADD COLUMN key_id text;
ALTER TABLE events ADD COLUMN request_id text;
-- The newest event of a service, for the time of a transaction in it.
CREATE INDEX events_of_service ON events (service, at);
