-- prop's statement that stores a deployment.
INSERT INTO deployments (id, service, environment, release_id, version, git_sha, image_digest,
    state, kind, unplanned, rollback, requested_by, source, external_id, run_url, reason,
    previous_id, rollback_of, requested_at, started_at, finished_at, revision, ungated, expires_at,
    recorded_by, voided_at, retired_at, before_commit, counts_from, image_added_later, decision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31)
