-- The key and the request that caused an event. NULL for prop itself, for events of earlier versions and, the key, for webhooks.
ALTER TABLE events ADD COLUMN key_id uuid;
ALTER TABLE events ADD COLUMN request_id text;

-- Locks a service, and gives the time of the transaction: that of the database, after the lock was granted, and later than every
-- event of the service. It is a function because each of its statements sees what was committed before that statement; a single
-- statement would see only what was committed before it began to wait.
CREATE FUNCTION lock_service(locked text, OUT is_known boolean, OUT now timestamptz) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM services WHERE slug = locked FOR NO KEY UPDATE;
    is_known := FOUND;
    now := greatest(clock_timestamp(), (SELECT max(at) + interval '1 microsecond' FROM events WHERE service = locked));
END $$;
