DROP INDEX events_of_service;
