-- What GitHub's webhooks delivered: each delivery once, as it came, with what came of it. `subject` is the GitHub deployment
-- that it tells of: all that was told of one is put in order by GitHub's own times, however it arrived.
CREATE TABLE deliveries (
    id            text NOT NULL PRIMARY KEY,
    event         text NOT NULL,
    action        text,
    repository    text,
    subject       text,
    outcome       text NOT NULL CHECK (outcome IN ('applied', 'unchanged', 'ignored', 'failed')),
    detail        text NOT NULL,
    deployment_id text REFERENCES deployments (id),
    body          text NOT NULL,
    received_at   text NOT NULL
) STRICT;
CREATE INDEX deliveries_by_time ON deliveries (received_at DESC, id DESC);
CREATE INDEX deliveries_of_subject ON deliveries (subject) WHERE subject IS NOT NULL;
CREATE INDEX deliveries_of_deployment ON deliveries (deployment_id) WHERE deployment_id IS NOT NULL;
