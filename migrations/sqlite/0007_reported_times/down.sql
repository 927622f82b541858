DROP INDEX releases_in_order;
ALTER TABLE releases DROP COLUMN at;
ALTER TABLE approvals DROP COLUMN at;
