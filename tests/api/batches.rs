//! The DORA measures of many deployments: of more than are in memory at once, and of fewer.

use crate::gate::sql;
use crate::harness::{TestApp, behind_pooler};
use jiff::{SignedDuration, Timestamp};
use prop::ledger::views::dora::{Question, measure};
use serde_json::{Value, json};

crate::on_both_databases! {
    a_batch_ends_between_two_times
    a_service_of_one_batch_is_read_once
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
/// their identifiers have the reverse order. The change skips a release that lists two commits, and
/// the hotfix lists one of them again, with a new one.
fn record(app: &TestApp) {
    let (mut releases, mut deployments) = (Vec::new(), Vec::new());
    for n in 0..TIMES {
        let at = minute(n * 10);
        for (i, name) in (0..).zip(["skipped", "change", "hotfix"]) {
            let (id, committed_at) = (id(n * 3 + i), minute(n * 10 - 9 + i));
            let list = |shas: [&str; 2]| {
                let commits =
                    shas.map(|it| json!({"sha": format!("{it}{n}"), "committed_at": committed_at}));
                format!("'{}'", json!(commits))
            };
            let commits = match name {
                "skipped" => list(["a", "b"]),
                "hotfix" => list(["a", "c"]),
                _ => "NULL".into(),
            };
            releases.push(format!(
                "('{id}', 'checkout', '{name}-{n}', '{{\"status\":\"missing\"}}', 'test', '{at}', \
                    '{committed_at}', '{committed_at}', {commits}, 1)"
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
        last_commit_at, commits, revision";
    insert(app, "releases", columns, &releases);
    let columns = "id, service, environment, release_id, version, state, kind, unplanned, \
        requested_by, source, requested_at, started_at, finished_at, revision";
    insert(app, "deployments", columns, &deployments);
}

const WINDOW: [&str; 2] = ["2025-03-01T00:00:00Z", "2025-03-15T00:00:00Z"];

/// The measures as the API answers them.
fn measures(app: &TestApp) -> Value {
    let [since, until] = WINDOW;
    app.get(&format!("/v1/metrics/dora?since={since}&until={until}")).expect(200)
}

fn recorded(app: &TestApp) {
    app.post("/v1/environments", json!({"slug": "production", "tier": "production"})).expect(201);
    app.post("/v1/services", json!({"slug": "checkout"})).expect(201);
    record(app);
}

fn a_batch_ends_between_two_times(app: &TestApp) {
    recorded(app);
    let whole = measures(app);
    assert_eq!(whole["deployment_frequency"]["n"], 2 * TIMES);
    assert_eq!(whole["deployment_rework_rate"]["n"], 3 * TIMES);
    // The first change skips nothing, because nothing is known to have been live before it.
    assert_eq!(whole["change_lead_time"]["n"], 4 * TIMES - 1);
    let left_out = json!([{"reason": "delivered_before", "n": TIMES - 1}]);
    assert_eq!(whole["change_lead_time"]["left_out"], left_out);
    assert_eq!(whole["change_lead_time"]["basis"]["release"], TIMES);
    assert_eq!(whole["change_fail_rate"]["failed"], TIMES);
    assert_eq!(whole["failed_deployment_recovery_time"]["n"], TIMES);
    let failed = whole["change_fail_rate"]["deployments"].as_array().unwrap();
    assert!(failed.iter().all(|it| it["kind"] == "normal"), "{failed:?}");

    let [since, until] = WINDOW;
    let question: Question =
        serde_json::from_value(json!({"since": since, "until": until})).unwrap();
    for batch in [2, 7, 1000, 3000, 3001] {
        let measures = measure(&mut app.db(), &question, batch).unwrap();
        assert_eq!(serde_json::to_value(measures).unwrap(), whole, "batches of {batch}");
    }
}

/// All that the API reads: the environments, the services, the deployments, whether there are
/// commit times, the incidents, the releases that went live, the one before the first, those
/// skipped, and 30 times the lists of a hundred deployments.
fn a_service_of_one_batch_is_read_once(app: &TestApp) {
    if behind_pooler().is_some() {
        return; // There each read is a transaction.
    }
    recorded(app);
    let cost = |_| {
        let before = app.statements();
        measures(app);
        app.statements() - before
    };
    // prop also notes the use of keys, now and then.
    assert_eq!((0..3).map(cost).min(), Some(8 + 3 * TIMES as u64 / 100));
}
