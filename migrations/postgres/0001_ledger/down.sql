DROP TABLE idempotency_keys;
DROP TABLE events;
DROP FUNCTION events_are_append_only();
DROP TABLE deployments;
DROP TABLE releases;
DROP TABLE environments;
DROP TABLE services;
DROP TABLE keys;
