DO $$
DECLARE
    first uuid := '00000000-0000-0000-0000-000000000000';
    last uuid;
BEGIN
    LOOP
        -- Nothing waits long for the rows of a batch, and the batch not for those of others.
        PERFORM set_config('lock_timeout', '200ms', true);
        last := (SELECT id FROM releases WHERE id > first ORDER BY id OFFSET 999 LIMIT 1);
        UPDATE releases SET last_commit_at = coalesce(committed_at,
            (SELECT max((value->>'committed_at')::timestamptz) FROM jsonb_array_elements(commits)))
        WHERE id > first AND (last IS NULL OR id <= last) AND last_commit_at IS NULL
            AND (committed_at IS NOT NULL OR commits IS NOT NULL);
        COMMIT;
        EXIT WHEN last IS NULL;
        first := last;
    END LOOP;
END
$$;

CREATE INDEX CONCURRENTLY IF NOT EXISTS releases_by_commit ON releases (service, last_commit_at);
