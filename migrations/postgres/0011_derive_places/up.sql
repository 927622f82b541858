-- The places that an earlier version kept report by report, and when each was derived from its facts; NULL until then.
CREATE TABLE derived_places (
    service     text COLLATE "C" NOT NULL REFERENCES services (slug),
    environment text COLLATE "C" NOT NULL REFERENCES environments (slug),
    derived_at  timestamptz,
    PRIMARY KEY (service, environment)
);
