-- What an environment asks of a release. The defaults ask nothing, so that the version before goes on working.
ALTER TABLE environments ADD COLUMN allow_self_approval integer NOT NULL DEFAULT 0;
ALTER TABLE environments ADD COLUMN approval_ttl_hours integer NOT NULL DEFAULT 72;
ALTER TABLE environments ADD COLUMN require_scan integer NOT NULL DEFAULT 0;
ALTER TABLE environments ADD COLUMN predecessor text;
ALTER TABLE environments ADD COLUMN soak_minutes integer NOT NULL DEFAULT 0;
ALTER TABLE environments ADD COLUMN rollback_needs_approval integer NOT NULL DEFAULT 0;

ALTER TABLE deployments ADD COLUMN decision text;
ALTER TABLE deployments ADD COLUMN ungated integer NOT NULL DEFAULT 0;
ALTER TABLE deployments ADD COLUMN expires_at text;
ALTER TABLE deployments ADD COLUMN recorded_by text;
CREATE INDEX deployments_overdue ON deployments (expires_at) WHERE state IN ('awaiting_approval', 'approved');
-- The first success of a release in a place, for soaking.
CREATE INDEX deployments_successes ON deployments (release_id, environment, finished_at)
    WHERE state IN ('succeeded', 'superseded', 'rolled_back');

CREATE TABLE approvals (
    id           text NOT NULL PRIMARY KEY,
    release_id   text NOT NULL REFERENCES releases (id),
    service      text NOT NULL REFERENCES services (slug),
    environment  text NOT NULL REFERENCES environments (slug),
    image_digest text,
    decision     text NOT NULL CHECK (decision IN ('approved', 'rejected')),
    approver     text NOT NULL,
    comment      text,
    source       text NOT NULL CHECK (source IN ('api', 'github')),
    run_url      text,
    review_id    text,
    recorded_by  text NOT NULL,
    created_at   text NOT NULL,
    expires_at   text NOT NULL,
    consumed_by  text REFERENCES deployments (id),
    UNIQUE (release_id, environment, review_id)
) STRICT;
CREATE INDEX approvals_by_time ON approvals (created_at DESC, id DESC);
CREATE INDEX approvals_unused ON approvals (release_id, environment) WHERE consumed_by IS NULL;

CREATE TABLE freezes (
    id             text NOT NULL PRIMARY KEY,
    environment    text REFERENCES environments (slug),
    service        text REFERENCES services (slug),
    reason         text NOT NULL,
    starts_at      text NOT NULL,
    ends_at        text,
    weekly         text,
    allow_rollback integer NOT NULL,
    ended_at       text,
    created_by     text NOT NULL,
    created_at     text NOT NULL,
    revision       integer NOT NULL
) STRICT;
CREATE INDEX freezes_by_time ON freezes (created_at DESC, id DESC);
CREATE INDEX freezes_open ON freezes (ends_at) WHERE ended_at IS NULL;

CREATE TABLE freeze_overrides (
    id          text NOT NULL PRIMARY KEY,
    freeze_id   text NOT NULL REFERENCES freezes (id),
    service     text NOT NULL REFERENCES services (slug),
    environment text NOT NULL REFERENCES environments (slug),
    version     text NOT NULL,
    actor       text NOT NULL,
    reason      text NOT NULL,
    created_at  text NOT NULL,
    consumed_by text REFERENCES deployments (id)
) STRICT;
CREATE INDEX freeze_overrides_of_place ON freeze_overrides (service, environment, version);

CREATE TABLE incidents (
    id          text NOT NULL PRIMARY KEY,
    service     text NOT NULL REFERENCES services (slug),
    environment text NOT NULL REFERENCES environments (slug),
    title       text NOT NULL,
    severity    text NOT NULL CHECK (severity IN ('critical', 'major', 'minor')),
    detected_at text NOT NULL,
    resolved_at text,
    created_by  text NOT NULL,
    created_at  text NOT NULL,
    revision    integer NOT NULL
) STRICT;
CREATE INDEX incidents_by_time ON incidents (detected_at DESC, id DESC);
CREATE INDEX incidents_open ON incidents (service, environment) WHERE resolved_at IS NULL;

CREATE TABLE incident_deployments (
    incident_id   text NOT NULL REFERENCES incidents (id),
    deployment_id text NOT NULL REFERENCES deployments (id),
    role          text NOT NULL CHECK (role IN ('caused_by', 'fixed_by')),
    PRIMARY KEY (incident_id, deployment_id, role)
) STRICT;
CREATE INDEX incident_deployments_of_deployment ON incident_deployments (deployment_id);
