DROP INDEX events_of_service;
ALTER TABLE events DROP COLUMN request_id;
ALTER TABLE events DROP COLUMN key_id;
