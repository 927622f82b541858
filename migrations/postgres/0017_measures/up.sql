-- Only the index in online.sql.
SELECT 1;
