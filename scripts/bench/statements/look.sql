-- prop's statement for what the gate needs: the environment, the release, and the state of the place.
SELECT environments.slug, environments.name, environments.tier, environments.required_approvals,
    environments.allow_self_approval, environments.approval_ttl_hours, environments.require_scan,
    environments.predecessor, environments.soak_minutes, environments.rollback_needs_approval,
    environments.ignore_github_deployments, environments.created_at, environments.updated_at,
    environments.revision,
    releases.id AS release_id, releases.service, releases.version, releases.git_sha,
    releases.image_digest, releases.committed_at, releases.source_url, releases.scan,
    releases.created_by, releases.at, releases.created_at, releases.revision, releases.last_commit_at,
    (SELECT d.id FROM deployments d WHERE d.service = services.slug
        AND d.environment = environments.slug AND d.state = 'succeeded') AS live,
    (SELECT d.release_id FROM deployments d WHERE d.service = services.slug
        AND d.environment = environments.slug AND d.state = 'succeeded') AS live_release,
    (SELECT d.id FROM deployments d WHERE d.service = services.slug
        AND d.environment = environments.slug AND d.state = 'running') AS running,
    (SELECT d.state FROM deployments d WHERE d.release_id = releases.id
        AND d.environment = environments.slug AND d.state IN ('succeeded', 'superseded', 'rolled_back')
        AND d.state <> 'succeeded' ORDER BY d.finished_at DESC LIMIT 1) AS former,
    EXISTS (SELECT 1 FROM deployments d WHERE d.release_id = releases.id
        AND d.environment = environments.slug AND d.state IN ('succeeded', 'superseded', 'rolled_back')
        AND d.state = 'superseded' AND NOT d.ungated AND NOT d.image_added_later
        AND d.finished_at > coalesce((SELECT max(r.finished_at) FROM deployments r
            WHERE r.release_id = d.release_id AND r.environment = d.environment
            AND r.state IN ('succeeded', 'superseded', 'rolled_back')
            AND r.state = 'rolled_back'), '0001-01-01Z')),
    (SELECT min(coalesce(d.counts_from, d.finished_at)) FROM deployments d
        WHERE d.release_id = releases.id AND d.environment = environments.predecessor
        AND d.state IN ('succeeded', 'superseded', 'rolled_back')
        AND NOT d.ungated AND NOT d.image_added_later),
    (SELECT greatest(clock_timestamp(), max(e.at)) FROM events e WHERE e.service = services.slug)
FROM services
    LEFT OUTER JOIN environments ON environments.slug = $1
    LEFT OUTER JOIN releases ON releases.service = services.slug AND releases.version = $2
WHERE services.slug = $3 LIMIT $4
