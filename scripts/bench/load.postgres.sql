-- Creates :deployments deployments, 30 seconds apart (a million takes 347 days), in 200 services and 5 environments in turn, and
-- an event of each. In each place, the last one is live. Before it, one in ten failed, one in ten was cancelled, and the others
-- were superseded.
-- Without checking foreign keys, and with the indexes created afterwards, it takes a third of the time.
SET session_replication_role = replica;
CREATE TEMP TABLE created_afterwards AS
SELECT indexname, indexdef FROM pg_indexes
WHERE tablename IN ('deployments', 'events')
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexname::regclass);
SELECT format('DROP INDEX %I', indexname) FROM created_afterwards \gexec

INSERT INTO services (slug, name, created_at, updated_at, revision)
SELECT 'service-' || s, 'Service ' || s, '2025-10-01Z', '2025-10-01Z', 1 FROM generate_series(0, 199) s;

INSERT INTO environments (slug, name, tier, required_approvals, created_at, updated_at, revision)
SELECT 'environment-' || e, 'Environment ' || e, 'development', 0, '2025-10-01Z', '2025-10-01Z', 1 FROM generate_series(0, 4) e;

INSERT INTO releases (id, service, version, git_sha, image_digest, scan, created_by, created_at, revision, committed_at,
                      last_commit_at)
SELECT ('01999999-0000-7000-9000-' || lpad(to_hex(v * 200 + s), 12, '0'))::uuid, 'service-' || s, '1.' || v || '.0',
       encode(sha256(int8send(v * 200 + s)), 'hex'), 'sha256:' || encode(sha256(int8send(v * 200 + s)), 'hex'),
       '{"at": null, "tool": null, "status": "missing", "summary": null, "report_url": null}', 'bench',
       timestamptz '2025-10-01Z' + v * 1000 * interval '30 s', 1,
       timestamptz '2025-10-01Z' + v * 1000 * interval '30 s' - interval '1 h',
       timestamptz '2025-10-01Z' + v * 1000 * interval '30 s' - interval '1 h'
FROM generate_series(0, :deployments / 1000 - 1) v, generate_series(0, 199) s;

INSERT INTO deployments (id, service, environment, release_id, version, git_sha, image_digest, state, kind, unplanned,
                         requested_by, source, run_url, requested_at, started_at, finished_at, revision)
SELECT (lpad(to_hex(1759276800000 + n * 30000), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
       'service-' || s, 'environment-' || e, ('01999999-0000-7000-9000-' || lpad(to_hex(v * 200 + s), 12, '0'))::uuid,
       '1.' || v || '.0', encode(sha256(int8send(v * 200 + s)), 'hex'), 'sha256:' || encode(sha256(int8send(v * 200 + s)), 'hex'),
       CASE WHEN v = :deployments / 1000 - 1 THEN 'succeeded' WHEN v % 10 = 3 THEN 'failed' WHEN v % 10 = 7 THEN 'cancelled'
            ELSE 'superseded' END,
       'normal', false, 'bench', 'api', 'https://ci.example.org/runs/' || n, at, at, at + interval '20 s', 3
FROM (SELECT n, (n - 1) / 1000 AS v, (n - 1) % 1000 / 5 AS s, (n - 1) % 5 AS e,
             timestamptz '2025-10-01Z' + n * interval '30 s' AS at
      FROM generate_series(1::bigint, :deployments) n) rows;

INSERT INTO events (at, actor, action, entity, entity_id, service, environment, payload)
SELECT requested_at, 'bench', 'deployment.requested', 'deployment', id::text, service, environment,
       jsonb_build_object('id', id, 'version', version, 'state', 'approved')
FROM deployments ORDER BY requested_at;

SELECT indexdef FROM created_afterwards \gexec
VACUUM ANALYZE;
