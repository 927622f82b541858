-- What prop sends for POST /v1/deployments. Colons in the event are escaped: pgbench would take them for variables.
\set s random(0, 199)
\set e random(0, 4)
\set v random(0, :deployments / 1000 - 1)
BEGIN;
SELECT "services"."slug" FROM "services" WHERE ("services"."slug" = 'service-' || :s) LIMIT :one FOR NO KEY UPDATE;
SELECT "environments"."slug", "environments"."name", "environments"."tier", "environments"."required_approvals", "environments"."created_at", "environments"."updated_at", "environments"."revision"
FROM "environments" WHERE ("environments"."slug" = 'environment-' || :e) LIMIT :one;
SELECT "releases"."id", "releases"."service", "releases"."version", "releases"."git_sha", "releases"."image_digest", "releases"."committed_at", "releases"."source_url", "releases"."scan", "releases"."created_by", "releases"."created_at", "releases"."revision"
FROM "releases" WHERE (("releases"."service" = 'service-' || :s) AND ("releases"."version" = '1.' || :v || '.0')) LIMIT :one;
SELECT "deployments"."id", "deployments"."release_id", "deployments"."state" FROM "deployments"
WHERE ((("deployments"."service" = 'service-' || :s) AND ("deployments"."environment" = 'environment-' || :e)) AND (("deployments"."state" = :live) OR ("deployments"."state" = :running)));
SELECT EXISTS (SELECT "deployments"."id", "deployments"."service", "deployments"."environment", "deployments"."release_id", "deployments"."version", "deployments"."git_sha", "deployments"."image_digest", "deployments"."state", "deployments"."kind", "deployments"."unplanned", "deployments"."requested_by", "deployments"."source", "deployments"."external_id", "deployments"."run_url", "deployments"."reason", "deployments"."previous_id", "deployments"."rollback_of", "deployments"."requested_at", "deployments"."started_at", "deployments"."finished_at", "deployments"."revision"
FROM "deployments" WHERE (((("deployments"."service" = 'service-' || :s) AND ("deployments"."environment" = 'environment-' || :e)) AND ("deployments"."release_id" = ('01999999-0000-7000-9000-' || lpad(to_hex(:v * 200 + :s), 12, '0'))::uuid)) AND (("deployments"."state" = :superseded) OR ("deployments"."state" = :rolled_back))));
INSERT INTO "deployments" ("id", "service", "environment", "release_id", "version", "git_sha", "image_digest", "state", "kind", "unplanned", "requested_by", "source", "external_id", "run_url", "reason", "previous_id", "rollback_of", "requested_at", "started_at", "finished_at", "revision")
VALUES ((lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7000' || substr(gen_random_uuid()::text, 20))::uuid, 'service-' || :s, 'environment-' || :e, ('01999999-0000-7000-9000-' || lpad(to_hex(:v * 200 + :s), 12, '0'))::uuid, '1.' || :v || '.0', repeat('0f', 32), 'sha256' || chr(58) || repeat('0f', 32), 'approved', 'normal', false, 'bench', 'api', DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, clock_timestamp(), DEFAULT, DEFAULT, 1);
INSERT INTO "events" ("at", "actor", "action", "entity", "entity_id", "service", "environment", "payload")
VALUES (clock_timestamp(), 'bench', 'deployment.requested', 'deployment', gen_random_uuid()::text, 'service-' || :s, 'environment-' || :e,
    '{"id": "01a20558-4d25-727e-a1d9-ce60e9b9beb1", "kind": "normal", "state": "approved", "reason": null, "source": "api", "git_sha": "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f", "run_url": null, "service": "service-100", "version": "1.500.0", "revision": 1, "unplanned": false, "release_id": "01a20558-4906-73bf-a82c-af1a61a2046b", "started_at": null, "environment": "environment-1", "external_id": null, "finished_at": null, "previous_id": "01a20558-4906-73bf-a82c-af1a61a2046b", "rollback_of": null, "image_digest": "sha256\u003a0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f", "requested_at": "2026-11-22T22\u003a20\u003a02.723811Z", "requested_by": "bench"}');
COMMIT;
