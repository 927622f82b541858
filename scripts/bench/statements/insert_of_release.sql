-- The bare variant's statement that stores a deployment of a release, if there is one.
INSERT INTO deployments (id, service, environment, release_id, version, git_sha, image_digest,
    state, kind, unplanned, requested_by, source, requested_at, revision, expires_at, recorded_by)
SELECT $1, service, $2, id, version, git_sha, image_digest, 'approved', 'normal', false, $3, 'api', $4, 1,
    $5, $3
FROM releases WHERE service = $6 AND version = $7
RETURNING release_id
