DROP TRIGGER events_keep_order ON events;
DROP FUNCTION events_take_next_number();
