-- Slugs, versions and identifiers sort by byte ("C"), as they do on SQLite.

CREATE TABLE keys (
    id           uuid PRIMARY KEY,
    name         text        NOT NULL,
    scopes       text        NOT NULL,
    prefix       text        NOT NULL,
    hash         text        NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz
);

CREATE TABLE services (
    slug           text COLLATE "C" PRIMARY KEY,
    name           text        NOT NULL,
    description    text,
    owner          text,
    repository_url text,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    revision       integer     NOT NULL
);

CREATE TABLE environments (
    slug               text COLLATE "C" PRIMARY KEY,
    name               text        NOT NULL,
    tier               text        NOT NULL CHECK (tier IN ('development', 'testing', 'staging', 'production')),
    required_approvals integer     NOT NULL CHECK (required_approvals BETWEEN 0 AND 10),
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    revision           integer     NOT NULL
);

CREATE TABLE releases (
    id           uuid PRIMARY KEY,
    service      text COLLATE "C" NOT NULL REFERENCES services (slug),
    version      text COLLATE "C" NOT NULL,
    git_sha      text,
    image_digest text,
    committed_at timestamptz,
    source_url   text,
    commits      jsonb,
    scan         jsonb       NOT NULL,
    created_by   text        NOT NULL,
    created_at   timestamptz NOT NULL,
    revision     integer     NOT NULL,
    UNIQUE (service, version)
);
CREATE INDEX releases_by_time ON releases (created_at DESC, id DESC);
CREATE INDEX releases_of_service ON releases (service, created_at DESC, id DESC);

CREATE TABLE deployments (
    id           uuid PRIMARY KEY,
    service      text COLLATE "C" NOT NULL REFERENCES services (slug),
    environment  text COLLATE "C" NOT NULL REFERENCES environments (slug),
    release_id   uuid        NOT NULL REFERENCES releases (id),
    version      text COLLATE "C" NOT NULL,
    git_sha      text,
    image_digest text,
    state        text        NOT NULL CHECK (state IN ('requested', 'awaiting_approval', 'approved', 'running', 'succeeded',
                                 'failed', 'cancelled', 'rejected', 'expired', 'superseded', 'rolled_back')),
    kind         text        NOT NULL CHECK (kind IN ('normal', 'redeploy', 'rollback', 'hotfix')),
    unplanned    boolean     NOT NULL,
    requested_by text        NOT NULL,
    source       text        NOT NULL,
    external_id  text,
    run_url      text,
    reason       text,
    previous_id  uuid REFERENCES deployments (id),
    rollback_of  uuid REFERENCES deployments (id),
    requested_at timestamptz NOT NULL,
    started_at   timestamptz,
    finished_at  timestamptz,
    revision     integer     NOT NULL,
    UNIQUE (source, external_id)
);
-- At most one deployment runs, and at most one is live, in a place: kept by the database whatever the code does.
CREATE UNIQUE INDEX deployments_running ON deployments (service, environment) WHERE state = 'running';
CREATE UNIQUE INDEX deployments_live ON deployments (service, environment) WHERE state = 'succeeded';
CREATE INDEX deployments_waiting ON deployments (service, environment) WHERE state IN ('awaiting_approval', 'approved');
CREATE INDEX deployments_former ON deployments (service, environment, finished_at DESC) WHERE state = 'superseded';
CREATE INDEX deployments_by_time ON deployments (requested_at DESC, id DESC);
CREATE INDEX deployments_of_place ON deployments (service, environment, requested_at DESC, id DESC);
CREATE INDEX deployments_of_release ON deployments (release_id);

CREATE TABLE events (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    actor       text        NOT NULL,
    action      text        NOT NULL,
    entity      text        NOT NULL,
    entity_id   text        NOT NULL,
    service     text COLLATE "C",
    environment text COLLATE "C",
    payload     jsonb       NOT NULL
);
CREATE INDEX events_of_entity ON events (entity, entity_id, seq DESC);
CREATE INDEX events_by_time ON events (at);

CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are append-only';
END
$$;
CREATE TRIGGER events_keep_rows BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_are_append_only();
CREATE TRIGGER events_keep_all BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only();

CREATE TABLE idempotency_keys (
    key_id      uuid        NOT NULL REFERENCES keys (id),
    key         text        NOT NULL,
    fingerprint text        NOT NULL,
    status      integer     NOT NULL,
    location    text,
    etag        text,
    body        text        NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (key_id, key)
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
