//! The DORA measures of more deployments than are in memory at once.

use crate::gate::sql;
use crate::harness::TestApp;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

crate::on_both_databases! {
    a_batch_ends_between_two_times
}

/// How many times deployments finished, three each time.
const TIMES: i64 = 1000;

/// The time after so many minutes, as prop writes it.
fn minute(n: i64) -> String {
    let start: Timestamp = "2025-03-01T00:00:00Z".parse().unwrap();
    format!("{:.6}", start + SignedDuration::from_mins(n))
}

fn id(n: i64) -> String {
    format!("00000000-0000-7000-8000-{n:012}")
}

fn insert(app: &TestApp, table: &str, columns: &str, rows: &[String]) {
    sql(app, &format!("INSERT INTO {table} ({columns}) VALUES {}", rows.join(", ")));
}

/// At each time, a change, a hotfix of it and a rollback finish. They started in this order, and
/// their identifiers have the reverse order. The change skips a release.
fn record(app: &TestApp) {
    let (mut releases, mut deployments) = (Vec::new(), Vec::new());
    for n in 0..TIMES {
        let at = minute(n * 10);
        for (i, name) in (0..).zip(["skipped", "change", "hotfix"]) {
            let (id, committed_at) = (id(n * 3 + i), minute(n * 10 - 9 + i));
            releases.push(format!(
                "('{id}', 'checkout', '{name}-{n}', '{{\"status\":\"missing\"}}', 'test', '{at}', \
                    '{committed_at}', '{committed_at}', 1)"
            ));
        }
        for (i, (release, name, kind)) in
            (0..).zip([(1, "change", "normal"), (2, "hotfix", "hotfix"), (2, "hotfix", "rollback")])
        {
            let (id, release) = (id(n * 3 + 2 - i), id(n * 3 + release));
            let started_at = minute(n * 10 - 5 + i);
            deployments.push(format!(
                "('{id}', 'checkout', 'production', '{release}', '{name}-{n}', 'superseded', \
                    '{kind}', false, 'test', 'api', '{at}', '{started_at}', '{at}', 1)"
            ));
        }
    }
    let columns = "id, service, version, scan, created_by, created_at, committed_at, \
        last_commit_at, revision";
    insert(app, "releases", columns, &releases);
    let columns = "id, service, environment, release_id, version, state, kind, unplanned, \
        requested_by, source, requested_at, started_at, finished_at, revision";
    insert(app, "deployments", columns, &deployments);
}

fn a_batch_ends_between_two_times(app: &TestApp) {
    app.post("/v1/environments", json!({"slug": "production", "tier": "production"})).expect(201);
    app.post("/v1/services", json!({"slug": "checkout"})).expect(201);
    record(app);
    let path = "/v1/metrics/dora?since=2025-03-01T00:00:00Z&until=2025-03-15T00:00:00Z";
    let measures = app.get(path).expect(200);
    assert_eq!(measures["deployment_frequency"]["n"], 2 * TIMES);
    assert_eq!(measures["deployment_rework_rate"]["n"], 3 * TIMES);
    // The first change skips nothing, because nothing is known to have been live before it.
    assert_eq!(measures["change_lead_time"]["n"], 3 * TIMES - 1);
    assert_eq!(measures["change_lead_time"]["left_out"], json!([]));
    assert_eq!(measures["change_fail_rate"]["failed"], TIMES);
    assert_eq!(measures["failed_deployment_recovery_time"]["n"], TIMES);
    let failed = measures["change_fail_rate"]["deployments"].as_array().unwrap();
    assert!(failed.iter().all(|it| it["kind"] == "normal"), "{failed:?}");
}
