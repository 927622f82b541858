-- What GitHub's webhooks delivered: each delivery once, as it came, with what came of it. `subject` is the GitHub deployment
-- or the run that it tells of: all that was told of one is put in order by GitHub's own times, however it arrived. `digest` is
-- the SHA-256 of the body, by which the same told under another name is known. Events of no use are kept without their body.
CREATE TABLE deliveries (
    id            text COLLATE "C" PRIMARY KEY,
    event         text        NOT NULL,
    action        text,
    repository    text,
    subject       text,
    outcome       text        NOT NULL CHECK (outcome IN ('applied', 'unchanged', 'ignored', 'failed')),
    detail        text        NOT NULL,
    deployment_id uuid REFERENCES deployments (id),
    digest        text        NOT NULL,
    body          text,
    received_at   timestamptz NOT NULL
);
CREATE INDEX deliveries_by_time ON deliveries (received_at DESC, id DESC);
CREATE INDEX deliveries_by_outcome ON deliveries (outcome, received_at DESC, id DESC);
CREATE INDEX deliveries_by_digest ON deliveries (digest);
CREATE INDEX deliveries_of_subject ON deliveries (subject) WHERE subject IS NOT NULL;
CREATE INDEX deliveries_of_deployment ON deliveries (deployment_id) WHERE deployment_id IS NOT NULL;
