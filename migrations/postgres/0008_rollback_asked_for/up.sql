-- Whether the caller asked for a rollback: the gate exempts only what was asked for as one.
ALTER TABLE deployments ADD COLUMN rollback boolean NOT NULL DEFAULT false;
-- What waits already was exempt without the caller's word, and stays so.
UPDATE deployments SET rollback = true WHERE state IN ('awaiting_approval', 'approved') AND kind = 'rollback';
