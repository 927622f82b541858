-- Instants are RFC 3339 text in UTC with six decimals, so that they sort as they happened; identifiers and documents are text.

CREATE TABLE keys (
    id           text NOT NULL PRIMARY KEY,
    name         text NOT NULL,
    scopes       text NOT NULL,
    prefix       text NOT NULL,
    hash         text NOT NULL UNIQUE,
    created_at   text NOT NULL,
    last_used_at text,
    revoked_at   text
) STRICT;

CREATE TABLE services (
    slug           text NOT NULL PRIMARY KEY,
    name           text NOT NULL,
    description    text,
    owner          text,
    repository_url text,
    created_at     text NOT NULL,
    updated_at     text NOT NULL,
    revision       integer NOT NULL
) STRICT;

CREATE TABLE environments (
    slug               text NOT NULL PRIMARY KEY,
    name               text NOT NULL,
    tier               text NOT NULL CHECK (tier IN ('development', 'testing', 'staging', 'production')),
    required_approvals integer NOT NULL CHECK (required_approvals BETWEEN 0 AND 10),
    created_at         text NOT NULL,
    updated_at         text NOT NULL,
    revision           integer NOT NULL
) STRICT;

CREATE TABLE releases (
    id           text NOT NULL PRIMARY KEY,
    service      text NOT NULL REFERENCES services (slug),
    version      text NOT NULL,
    git_sha      text,
    image_digest text,
    committed_at text,
    source_url   text,
    commits      text,
    scan         text NOT NULL,
    created_by   text NOT NULL,
    created_at   text NOT NULL,
    revision     integer NOT NULL,
    UNIQUE (service, version)
) STRICT;
CREATE INDEX releases_by_time ON releases (created_at DESC, id DESC);
CREATE INDEX releases_of_service ON releases (service, created_at DESC, id DESC);

CREATE TABLE deployments (
    id           text NOT NULL PRIMARY KEY,
    service      text NOT NULL REFERENCES services (slug),
    environment  text NOT NULL REFERENCES environments (slug),
    release_id   text NOT NULL REFERENCES releases (id),
    version      text NOT NULL,
    git_sha      text,
    image_digest text,
    state        text NOT NULL CHECK (state IN ('requested', 'awaiting_approval', 'approved', 'running', 'succeeded',
                                 'failed', 'cancelled', 'rejected', 'expired', 'superseded', 'rolled_back')),
    kind         text NOT NULL CHECK (kind IN ('normal', 'redeploy', 'rollback', 'hotfix')),
    unplanned    integer NOT NULL,
    requested_by text NOT NULL,
    source       text NOT NULL,
    external_id  text,
    run_url      text,
    reason       text,
    previous_id  text REFERENCES deployments (id),
    rollback_of  text REFERENCES deployments (id),
    requested_at text NOT NULL,
    started_at   text,
    finished_at  text,
    revision     integer NOT NULL,
    UNIQUE (source, external_id)
) STRICT;
-- At most one deployment runs, and at most one is live, in a place: kept by the database whatever the code does.
CREATE UNIQUE INDEX deployments_running ON deployments (service, environment) WHERE state = 'running';
CREATE UNIQUE INDEX deployments_live ON deployments (service, environment) WHERE state = 'succeeded';
CREATE INDEX deployments_waiting ON deployments (service, environment) WHERE state IN ('awaiting_approval', 'approved');
CREATE INDEX deployments_former ON deployments (service, environment, finished_at DESC) WHERE state = 'superseded';
CREATE INDEX deployments_by_time ON deployments (requested_at DESC, id DESC);
CREATE INDEX deployments_of_place ON deployments (service, environment, requested_at DESC, id DESC);
CREATE INDEX deployments_of_release ON deployments (release_id);

CREATE TABLE events (
    seq         integer PRIMARY KEY AUTOINCREMENT,
    at          text NOT NULL,
    actor       text NOT NULL,
    action      text NOT NULL,
    entity      text NOT NULL,
    entity_id   text NOT NULL,
    service     text,
    environment text,
    payload     text NOT NULL
) STRICT;
CREATE INDEX events_of_entity ON events (entity, entity_id, seq DESC);
CREATE INDEX events_by_time ON events (at);

CREATE TRIGGER events_keep_rows BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_keep_all BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

CREATE TABLE idempotency_keys (
    key_id      text NOT NULL REFERENCES keys (id),
    key         text NOT NULL,
    fingerprint text NOT NULL,
    status      integer NOT NULL,
    location    text,
    etag        text,
    body        text NOT NULL,
    expires_at  text NOT NULL,
    PRIMARY KEY (key_id, key)
) STRICT;
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
