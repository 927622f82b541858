-- Creates the same rows as load.postgres.sql, except that hashes are hexadecimal numbers. Parameter: @deployments.
PRAGMA foreign_keys = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -1000000;
BEGIN;
WITH RECURSIVE numbers (s) AS (SELECT 0 UNION ALL SELECT s + 1 FROM numbers WHERE s < 199)
INSERT INTO services (slug, name, created_at, updated_at, revision)
SELECT 'service-' || s, 'Service ' || s, '2025-10-01T00:00:00.000000Z', '2025-10-01T00:00:00.000000Z', 1 FROM numbers;

WITH RECURSIVE numbers (e) AS (SELECT 0 UNION ALL SELECT e + 1 FROM numbers WHERE e < 4)
INSERT INTO environments (slug, name, tier, required_approvals, created_at, updated_at, revision)
SELECT 'environment-' || e, 'Environment ' || e, 'development', 0, '2025-10-01T00:00:00.000000Z', '2025-10-01T00:00:00.000000Z', 1
FROM numbers;

WITH RECURSIVE numbers (r) AS (SELECT 0 UNION ALL SELECT r + 1 FROM numbers WHERE r < @deployments / 5 - 1)
INSERT INTO releases (id, service, version, git_sha, image_digest, scan, created_by, created_at, revision, committed_at,
                      last_commit_at)
SELECT format('01999999-0000-7000-9000-%012x', r), 'service-' || (r % 200), '1.' || (r / 200) || '.0',
       format('%064x', r), format('sha256:%064x', r),
       '{"status":"missing","tool":null,"summary":null,"report_url":null,"at":null}', 'bench',
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1759276800 + r / 200 * 30000, 'unixepoch'), 1,
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1759276800 + r / 200 * 30000 - 3600, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1759276800 + r / 200 * 30000 - 3600, 'unixepoch')
FROM numbers;

WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < @deployments),
     rows AS (SELECT n, (n - 1) / 1000 AS v, (n - 1) % 1000 / 5 AS s, (n - 1) % 5 AS e, 1759276800 + n * 30 AS at FROM numbers)
INSERT INTO deployments (id, service, environment, release_id, version, git_sha, image_digest, state, kind, unplanned,
                         requested_by, source, run_url, requested_at, started_at, finished_at, revision)
SELECT format('%08x-%04x-7000-8000-%012x', at * 1000 / 65536, at * 1000 % 65536, n), 'service-' || s, 'environment-' || e,
       format('01999999-0000-7000-9000-%012x', v * 200 + s), '1.' || v || '.0', format('%064x', v * 200 + s),
       format('sha256:%064x', v * 200 + s),
       CASE WHEN v = @deployments / 1000 - 1 THEN 'succeeded' WHEN v % 10 = 3 THEN 'failed' WHEN v % 10 = 7 THEN 'cancelled'
            ELSE 'superseded' END,
       'normal', 0, 'bench', 'api', 'https://ci.example.org/runs/' || n, strftime('%Y-%m-%dT%H:%M:%S.000000Z', at, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', at, 'unixepoch'), strftime('%Y-%m-%dT%H:%M:%S.000000Z', at + 20, 'unixepoch'), 3
FROM rows;

INSERT INTO events (at, actor, action, entity, entity_id, service, environment, payload)
SELECT requested_at, 'bench', 'deployment.requested', 'deployment', id, service, environment,
       json_object('id', id, 'version', version, 'state', 'approved')
FROM deployments ORDER BY requested_at;
COMMIT;
ANALYZE;
