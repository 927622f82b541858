//! An upgrade while the previous version writes: nobody waits long, and nobody who starts gives up.
//!
//! The number of deployments is a variable:
//!
//! ```sh
//! MIGRATE_ROWS=5000000 cargo test --release --test process -- --nocapture migrating::an_upgrade
//! ```

use crate::harness::{ADMIN, Cluster, connect, count, fresh_postgres};
use crate::process::{Process, prop, run, sqlite_in};
use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sql_types::{Bool, Text};
use prop::db::Db;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What no write may take while a newer version migrates.
const LIMIT: Duration = Duration::from_secs(1);

/// The migrations of 0.1.0, the version before.
const BEFORE: [&str; 4] = ["0001_ledger", "0002_gate", "0003_webhooks", "0004_metrics"];

#[test]
fn who_starts_waits_for_the_one_that_migrates() {
    let Some(database) = fresh_postgres() else { return };
    let mut other = connect(&database);
    other.batch_execute("SELECT pg_advisory_lock(1886547824)").unwrap();
    let mut waiting: Vec<_> = (0..3)
        .map(|_| Process::spawn(&mut prop(&[], &database, &[("PROP_BOOTSTRAP_KEY", ADMIN)])))
        .collect();
    for process in &waiting {
        process.wait_for_log("migrations wait: another process migrates this database");
    }
    // Longer than `database.timeout_seconds`.
    std::thread::sleep(Duration::from_secs(12));
    drop(other);
    for process in &mut waiting {
        process.app().get("/readyz").expect(200);
        let lines = process.stderr();
        assert_eq!(lines.matches("migrations wait: ").count(), 1, "{lines}");
    }
    let migrated = waiting.iter().filter(|process| process.stderr().contains("applied migrations"));
    assert_eq!(migrated.count(), 1);
}

#[test]
fn who_starts_waits_for_the_one_that_migrates_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let mut other = connect(&database);
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let settings = [("PROP_BOOTSTRAP_KEY", ADMIN), ("PROP_DATABASE__TIMEOUT_SECONDS", "1")];
    let mut process = Process::spawn(&mut prop(&[], &database, &settings));
    process.wait_for_log("migrations wait: another process writes to this database");
    std::thread::sleep(Duration::from_secs(3));
    other.batch_execute("ROLLBACK").unwrap();
    process.app().get("/readyz").expect(200);
}

#[test]
fn an_index_whose_build_was_interrupted_is_built_again() {
    let Some(database) = fresh_postgres() else { return };
    let mut db = connect(&database);
    run(&["migrate"], &database, &[]);
    // As a kill leaves it: the index is there, invalid, and the part is not noted. A unique index
    // of what is not unique fails in the same place.
    db.batch_execute(
        "DELETE FROM __diesel_schema_migrations WHERE version = '0006.online';
         INSERT INTO services (slug, name, created_at, updated_at, revision)
             VALUES ('shop', 'shop', now(), now(), 1);
         INSERT INTO releases (id, service, version, scan, created_by, created_at, revision)
             SELECT gen_random_uuid(), 'shop', n::text, '{}', 'ci', now(), 1
             FROM generate_series(1, 2) n;
         DROP INDEX releases_by_commit",
    )
    .unwrap();
    db.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY releases_by_commit ON releases (service)")
        .unwrap_err();
    assert!(!is_valid(&mut db, "releases_by_commit"));
    let ended = run(&["migrate"], &database, &[]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "applied 0006.online\n"),
        "{ended:?}"
    );
    assert!(is_valid(&mut db, "releases_by_commit"));
}

fn is_valid(db: &mut Db, index: &str) -> bool {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        is_valid: bool,
    }
    let query =
        "SELECT indisvalid AND pg_get_indexdef(indexrelid) LIKE '%(service, last_commit_at)'
        AS is_valid FROM pg_index WHERE indexrelid = $1::regclass";
    diesel::sql_query(query).bind::<Text, _>(index).get_result::<Row>(db).unwrap().is_valid
}

/// What the sessions of the previous version waited for at most, and when that was over.
struct Waits {
    longest: Duration,
    at: Instant,
    writes: usize,
}

#[test]
fn an_upgrade_keeps_no_write_waiting() {
    let Some(cluster) = Cluster::start_durable() else { return };
    let rows: u64 = std::env::var("MIGRATE_ROWS").map_or(50_000, |rows| rows.parse().unwrap());
    let database = cluster.url();
    fill(&mut connect(&database), rows);
    let done = AtomicBool::new(false);
    let (began, took, waits) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn({
                    let (database, done) = (&database, &done);
                    move || write(database, n, done)
                })
            })
            .collect();
        // A transaction that stays open, as of a report or a backup.
        let slow = scope.spawn(|| keep_open(&database, &done));
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        let starters: Vec<_> =
            (0..3).map(|_| Process::spawn(&mut prop(&["migrate"], &database, &[]))).collect();
        let ended: Vec<_> = starters.into_iter().map(Process::end_of_long).collect();
        let took = began.elapsed();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
        let applied = ended.iter().filter(|ended| ended.stdout.starts_with("applied ")).count();
        assert_eq!(applied, 1, "{ended:?}");
        ended.iter().for_each(|ended| print!("{}", ended.stderr));
        slow.join().unwrap();
        (began, took, writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>())
    });
    let (longest, at) = waits.iter().map(|waits| (waits.longest, waits.at)).max().unwrap();
    let writes: usize = waits.iter().map(|waits| waits.writes).sum();
    println!(
        "{rows} deployments: migrated in {took:?}; {writes} writes, the longest {longest:?}, \
         {:?} after the start",
        at.saturating_duration_since(began)
    );
    let mut db = connect(&database);
    assert_eq!(
        count(
            &mut db,
            "releases WHERE committed_at IS NOT NULL AND last_commit_at IS NULL AND created_by = 'ci'"
        ),
        0
    );
    assert_eq!(count(&mut db, "pg_index WHERE NOT indisvalid"), 0);
    assert_eq!(count(&mut db, "derived_places"), 400);
    assert!(writes > 20 && longest < LIMIT, "a write took {longest:?}");
}

/// A ledger of the version before: 200 services in two environments.
fn fill(db: &mut Db, rows: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    for name in BEFORE {
        db.batch_execute(&std::fs::read_to_string(folder.join(name).join("up.sql")).unwrap())
            .unwrap();
    }
    db.batch_execute(&format!(
        "SET statement_timeout = 0;
         CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY NOT NULL,
             run_on timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP);
         INSERT INTO __diesel_schema_migrations (version)
             VALUES ('0001'), ('0002'), ('0003'), ('0004');
         INSERT INTO environments (slug, name, tier, required_approvals, created_at, updated_at,
                 revision)
             SELECT name, name, name, 0, now(), now(), 1
             FROM unnest(ARRAY['staging', 'production']) AS name;
         INSERT INTO services (slug, name, created_at, updated_at, revision)
             SELECT 's' || n, 's' || n, now(), now(), 1 FROM generate_series(0, 199) n;
         INSERT INTO releases (id, service, version, git_sha, image_digest, committed_at, scan,
                 created_by, created_at, revision)
             SELECT ('01999999-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 's' || n % 200,
                 n::text, repeat('0f', 20), 'sha256:' || repeat('0f', 32), now(), '{{}}', 'ci',
                 now(), 1
             FROM generate_series(0, {rows} / 2) n;
         INSERT INTO deployments (id, service, environment, release_id, version, state, kind,
                 unplanned, requested_by, source, requested_at, started_at, finished_at, revision)
             SELECT ('01999999-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid,
                 's' || n / 2 % 200, CASE n % 2 WHEN 0 THEN 'staging' ELSE 'production' END,
                 ('01999999-0000-7000-8000-' || lpad(to_hex(n / 2), 12, '0'))::uuid, (n / 2)::text,
                 'superseded', 'normal', false, 'ci', 'api', at, at, at + interval '1 minute', 1
             FROM (SELECT n, now() - (n || ' seconds')::interval AS at
                 FROM generate_series(0, {rows} - 1) n) AS numbered;
         ANALYZE; CHECKPOINT"
    ))
    .unwrap();
}

/// Writes as the previous version does, until `done`: a release, a deployment of it, its start and
/// an event, in a transaction that begins with the service's lock; then the scan of the release,
/// and a new approval.
fn write(database: &str, writer: u32, done: &AtomicBool) -> Waits {
    let mut db = connect(database);
    let mut waits = Waits { longest: Duration::ZERO, at: Instant::now(), writes: 0 };
    while !done.load(Ordering::Relaxed) {
        let service = (waits.writes as u32 * 4 + writer) % 200;
        let began = Instant::now();
        db.batch_execute(&format!(
            "BEGIN;
             SELECT slug FROM services WHERE slug = 's{service}' FOR NO KEY UPDATE;
             INSERT INTO releases (id, service, version, scan, created_by, created_at, revision)
                 VALUES (gen_random_uuid(), 's{service}', gen_random_uuid()::text, '{{}}', 'old',
                     now(), 1);
             INSERT INTO deployments (id, service, environment, release_id, version, state, kind,
                     unplanned, requested_by, source, requested_at, started_at, finished_at,
                     revision)
                 SELECT gen_random_uuid(), service, 'staging', id, version, 'failed', 'normal',
                     false, 'old', 'api', now(), now(), now(), 1
                 FROM releases WHERE service = 's{service}' ORDER BY created_at DESC LIMIT 1;
             INSERT INTO events (at, actor, action, entity, entity_id, payload)
                 VALUES (now(), 'old', 'deployment.requested', 'deployment', 'x', '{{}}');
             COMMIT"
        ))
        .unwrap();
        waits.note(began);
        let began = Instant::now();
        let release = format!("01999999-0000-7000-8000-{:012x}", waits.writes as u32 * 4 + writer);
        db.batch_execute(&format!(
            "UPDATE releases SET scan = '{{\"status\": \"passed\"}}', revision = revision + 1
                 WHERE id = '{release}';
             INSERT INTO approvals (id, release_id, service, environment, decision, approver,
                     source, recorded_by, created_at, expires_at)
                 SELECT gen_random_uuid(), id, service, 'staging', 'approved', 'old', 'api', 'old',
                     now(), now() FROM releases WHERE id = '{release}';
             UPDATE services SET updated_at = now() WHERE slug = 's{service}'"
        ))
        .unwrap();
        waits.note(began);
        std::thread::sleep(Duration::from_millis(5));
    }
    waits
}

impl Waits {
    fn note(&mut self, began: Instant) {
        let took = began.elapsed();
        if took > self.longest {
            (self.longest, self.at) = (took, Instant::now());
        }
        self.writes += 1;
    }
}

/// Transactions that have written and stay open for a few seconds, until `done`.
fn keep_open(database: &str, done: &AtomicBool) {
    let mut db = connect(database);
    let release = "01999999-0000-7000-8000-0000000007d0";
    for seconds in [3, 5, 1] {
        db.batch_execute(&format!(
            "BEGIN; UPDATE releases SET revision = revision + 1 WHERE id = '{release}';
             UPDATE deployments SET revision = revision + 1 WHERE release_id = '{release}'"
        ))
        .unwrap();
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until && !done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        db.batch_execute("COMMIT").unwrap();
    }
}
