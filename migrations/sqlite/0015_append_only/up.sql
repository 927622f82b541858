-- REPLACE removes a row without a delete trigger. So an event takes the next number, whatever the statement asks for: not one
-- that is taken, and none below the newest.
CREATE TRIGGER events_keep_numbers BEFORE INSERT ON events
    WHEN NEW.seq > 0 AND EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_keep_order AFTER INSERT ON events
    WHEN NEW.seq < 1 OR EXISTS (SELECT 1 FROM events WHERE seq > NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
