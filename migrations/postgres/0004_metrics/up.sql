-- What finished in an environment in a stretch of time, for the measures: what is older costs nothing.
CREATE INDEX deployments_finished ON deployments (environment, finished_at);
