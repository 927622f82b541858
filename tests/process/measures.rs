//! What it takes to measure a year of many deployments.

use crate::harness::{ADMIN, TestApp, fresh_postgres};
use crate::process::{Process, serve, sqlite_in};
use diesel::connection::SimpleConnection;
use prop::db::Db;

/// How many deployments the year has, of how many services, and how many commits a release lists.
struct Year {
    deployments: u32,
    services: u32,
    commits: u32,
}

/// Many services.
const MANY: Year = Year { deployments: 100_000, services: 10, commits: 0 };

/// One busy service.
const ONE: Year = Year { deployments: 150_000, services: 1, commits: 0 };

/// Long lists of commits, of some 100 bytes each.
const LISTS: Year = Year { deployments: 400, services: 1, commits: 1000 };

/// How much memory a process may take to measure a year, in KiB. All of its rows are several times
/// as much.
const MOST: u64 = 16 * 1024;

/// Services in one environment, with a release for every second deployment. Each release has a
/// commit of its own, and lists some.
fn fill(app: &TestApp, Year { deployments, services, commits }: &Year) {
    let mut db = app.db();
    let (numbers, at, begin, [array, object]) = match &db {
        Db::Pg(_) => (
            format!("(SELECT n FROM generate_series(1, {deployments}) n) numbers"),
            "timestamptz '2025-01-01Z' + n * interval '2 minutes'",
            "SET statement_timeout = 0; BEGIN",
            ["jsonb_agg", "jsonb_build_object"],
        ),
        Db::Sqlite(_) => (
            format!(
                "(WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers \
                    WHERE n < {deployments}) SELECT n FROM numbers) numbers"
            ),
            "strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1735689600 + n * 120, 'unixepoch')",
            "BEGIN IMMEDIATE",
            ["json_group_array", "json_object"],
        ),
    };
    let id = |kind: &str, n: &str| {
        let text = format!("'00000000-0000-7000-{kind}-' || substr('' || (100000000000 + {n}), 1)");
        match &db {
            Db::Pg(_) => format!("({text})::uuid"),
            Db::Sqlite(_) => text,
        }
    };
    let number = format!("n / (2 * {services}) * {services} + n % {services}");
    let (deployment, release) = (id("8000", "n"), id("9000", &number));
    let (service, version) =
        (format!("'service-' || (n % {services})"), format!("'1.' || ({number})"));
    let is_new = format!("n % (2 * {services}) < {services}");
    let list = format!(
        "(WITH RECURSIVE listed (c) AS (SELECT 1 UNION ALL SELECT c + 1 FROM listed
            WHERE c < {commits})
            SELECT {array}({object}('sha', ({number}) || '-' || c, 'committed_at', {at}))
            FROM listed)"
    );
    let list = if *commits > 0 { list } else { "NULL".into() };
    let insert = format!(
        "{begin};
        INSERT INTO environments (slug, name, tier, required_approvals, created_at, updated_at,
            revision) SELECT 'production', 'Production', 'production', 0, {at}, {at}, 1
            FROM {numbers} WHERE n = 1;
        INSERT INTO services (slug, name, created_at, updated_at, revision)
            SELECT {service}, 'Service', {at}, {at}, 1 FROM {numbers} WHERE n <= {services};
        INSERT INTO releases (id, service, version, git_sha, scan, created_by, created_at,
            committed_at, last_commit_at, commits, revision)
            SELECT {release}, {service}, {version}, {version},
            '{{\"status\":\"missing\"}}', 'test', {at}, {at}, {at}, {list}, 1 FROM {numbers}
            WHERE n = {services} OR {is_new};
        INSERT INTO deployments (id, service, environment, release_id, version, state, kind,
            unplanned, requested_by, source, requested_at, started_at, finished_at, revision)
            SELECT {deployment}, {service}, 'production', {release}, {version},
            'superseded', CASE WHEN {is_new} THEN 'normal' ELSE 'redeploy' END, false, 'test',
            'api', {at}, {at}, {at}, 1 FROM {numbers};
        COMMIT"
    );
    db.batch_execute(&insert).unwrap();
    db.batch_execute("ANALYZE").unwrap();
}

/// The memory that the process holds, and the most that it has held so far, in KiB.
fn memory(process: &Process) -> [u64; 2] {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

#[track_caller]
fn measure(database_url: &str, year: &Year) {
    let (process, app) = serve(database_url, &[("PROP_DATABASE__TIMEOUT_SECONDS", "60")]);
    fill(&app, year);
    let path = "/v1/metrics/dora?since=2025-01-01T00:00:00Z&until=2026-01-01T00:00:00Z";
    let [before, _] = memory(&process);
    let measures = app.call("GET", path, ADMIN, None, &[]).expect(200);
    let [_, peak] = memory(&process);
    println!("{} deployments: {before} KiB before, {} more", year.deployments, peak - before);
    assert_eq!(measures["deployment_frequency"]["n"], year.deployments / 2);
    assert_eq!(measures["change_lead_time"]["n"], year.deployments / 2 * year.commits.max(1));
    assert!(peak - before < MOST, "{} KiB more", peak - before);
}

#[test]
fn a_year_of_deployments_is_measured_in_little_memory_on_postgres() {
    for year in [MANY, ONE, LISTS] {
        if let Some(database) = fresh_postgres() {
            measure(&database, &year);
        }
    }
}

#[test]
fn a_year_of_deployments_is_measured_in_little_memory_on_sqlite() {
    for year in [MANY, ONE, LISTS] {
        let directory = tempfile::tempdir().unwrap();
        measure(&sqlite_in(&directory), &year);
    }
}
