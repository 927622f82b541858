-- Whether a deployment started more than a day before the newest commit of its release: one of the two clocks was wrong.
ALTER TABLE deployments ADD COLUMN before_commit integer NOT NULL DEFAULT 0;
