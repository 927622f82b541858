-- Whether the caller asked for a rollback: the gate exempts only what was asked for as one.
ALTER TABLE deployments ADD COLUMN rollback integer NOT NULL DEFAULT 0;
-- What waits already was exempt without the caller's word, and stays so.
UPDATE deployments SET rollback = 1 WHERE state IN ('awaiting_approval', 'approved') AND kind = 'rollback';
