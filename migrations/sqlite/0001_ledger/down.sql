DROP TABLE idempotency_keys;
DROP TABLE events;
DROP TABLE deployments;
DROP TABLE releases;
DROP TABLE environments;
DROP TABLE services;
DROP TABLE keys;
