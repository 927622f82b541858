DROP TRIGGER events_keep_numbers;
DROP TRIGGER events_keep_order;
