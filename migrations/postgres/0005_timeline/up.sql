-- A deployment's facts have their own times, and everything else follows from them: what happened in a place since a time.
ALTER TABLE deployments ADD COLUMN voided_at timestamptz;
ALTER TABLE deployments ADD COLUMN retired_at timestamptz;
CREATE INDEX deployments_starts ON deployments (service, environment, started_at);
CREATE INDEX deployments_ends ON deployments (service, environment, finished_at);
CREATE INDEX deployments_not_ended ON deployments (service, environment) WHERE finished_at IS NULL AND started_at IS NOT NULL;
