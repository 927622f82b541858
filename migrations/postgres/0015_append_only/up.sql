-- An event takes the number that the database has just given out, also with OVERRIDING SYSTEM VALUE.
CREATE FUNCTION events_take_next_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.seq <> currval(pg_get_serial_sequence(TG_RELID::regclass::text, 'seq')) THEN
        RAISE EXCEPTION 'events are append-only';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER events_keep_order BEFORE INSERT ON events
    FOR EACH ROW EXECUTE FUNCTION events_take_next_number();
