DROP INDEX deployments_measured;
CREATE INDEX deployments_finished ON deployments (environment, finished_at);
