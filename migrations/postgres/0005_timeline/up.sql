-- A deployment's facts have their own times, and everything else follows from them: what happened in a place since a time.
ALTER TABLE deployments ADD COLUMN voided_at timestamptz;
ALTER TABLE deployments ADD COLUMN retired_at timestamptz;
