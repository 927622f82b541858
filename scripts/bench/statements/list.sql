-- prop's statement for GET /v1/deployments?service=..&environment=..&limit=..
SELECT id, service, environment, release_id, version, git_sha, image_digest, state, kind, unplanned,
       rollback, requested_by, source, external_id, run_url, reason, previous_id, rollback_of,
       requested_at, started_at, finished_at, revision, ungated, expires_at, recorded_by, voided_at,
       retired_at, before_commit, counts_from, image_added_later
FROM deployments WHERE service = $1 AND environment = $2
ORDER BY requested_at DESC, id DESC LIMIT $3
