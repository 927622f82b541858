-- prop's statement for the freezes, incidents and approvals that concern a deployment.
SELECT 'freeze' AS fact, f.id AS id, f.reason AS label, '' AS approver,
    f.allow_rollback AS allow_rollback, false AS is_set,
    f.starts_at AS since, f.ends_at AS until, f.weekly AS weekly,
    (SELECT o.id FROM freeze_overrides o
        WHERE o.service = $1 AND o.environment = $2 AND f.starts_at <= $3
        AND o.freeze_id = f.id AND o.version = $4
        AND (o.consumed_by IS NULL OR o.consumed_by = $5)
        AND o.image_digest IS NOT DISTINCT FROM $6 AND o.expires_at > $3
        ORDER BY CASE WHEN o.consumed_by IS NULL THEN 1 ELSE 0 END, o.created_at, o.id
        LIMIT 1) AS overridden_by
FROM freezes f
WHERE f.ended_at IS NULL AND f.starts_at <= $3 AND (f.ends_at IS NULL OR f.ends_at > $3)
    AND (f.service IS NULL OR f.service = $1) AND (f.environment IS NULL OR f.environment = $2)
UNION ALL
SELECT 'incident', i.id, i.title, '', false,
    i.id = $7 OR EXISTS (SELECT 1 FROM incident_deployments l
        WHERE l.incident_id = i.id AND l.deployment_id = $5 AND l.role = 'fixed_by'),
    i.detected_at, CAST(NULL AS timestamptz), CAST(NULL AS jsonb), CAST(NULL AS uuid)
FROM incidents i
WHERE i.resolved_at IS NULL AND i.service = $1 AND i.environment = $2
UNION ALL
SELECT 'review', a.id, a.decision, a.approver, false, a.decision = 'approved',
    coalesce(a.at, a.created_at), a.expires_at, CAST(NULL AS jsonb), CAST(NULL AS uuid)
FROM approvals a
WHERE a.release_id = $8 AND a.environment = $2
    AND (a.consumed_by IS NULL OR a.consumed_by = $5)
    AND a.image_digest IS NOT DISTINCT FROM $6
ORDER BY 7, 2
