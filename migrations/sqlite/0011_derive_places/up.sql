-- The places that an earlier version kept report by report, and when each was derived from its facts; NULL until then.
CREATE TABLE derived_places (
    service     text NOT NULL REFERENCES services (slug),
    environment text NOT NULL REFERENCES environments (slug),
    derived_at  text,
    PRIMARY KEY (service, environment)
) STRICT;
INSERT INTO derived_places (service, environment)
SELECT DISTINCT service, environment FROM deployments WHERE started_at IS NOT NULL;
