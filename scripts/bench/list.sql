-- The statement of prop for GET /v1/deployments?service=..&environment=..&limit=50.
\set s random(0, 199)
\set e random(0, 4)
SELECT "deployments"."id", "deployments"."service", "deployments"."environment", "deployments"."release_id", "deployments"."version", "deployments"."git_sha", "deployments"."image_digest", "deployments"."state", "deployments"."kind", "deployments"."unplanned", "deployments"."requested_by", "deployments"."source", "deployments"."external_id", "deployments"."run_url", "deployments"."reason", "deployments"."previous_id", "deployments"."rollback_of", "deployments"."requested_at", "deployments"."started_at", "deployments"."finished_at", "deployments"."revision", "deployments"."ungated", "deployments"."expires_at", "deployments"."recorded_by"
FROM "deployments" WHERE (("deployments"."service" = 'service-' || :s) AND ("deployments"."environment" = 'environment-' || :e))
ORDER BY "deployments"."requested_at" DESC, "deployments"."id" DESC LIMIT :page;
