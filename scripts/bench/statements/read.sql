-- prop's statement for GET /v1/deployments/{id}.
SELECT id, service, environment, release_id, version, git_sha, image_digest, state, kind, unplanned,
       rollback, requested_by, source, external_id, run_url, reason, previous_id, rollback_of,
       requested_at, started_at, finished_at, revision, ungated, expires_at, recorded_by, voided_at,
       retired_at, before_commit, counts_from, image_added_later, decision
FROM deployments WHERE id = $1 LIMIT $2
