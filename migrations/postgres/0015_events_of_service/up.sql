CREATE INDEX IF NOT EXISTS events_of_service ON events (service, at);
