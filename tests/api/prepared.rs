//! PostgreSQL prepares the statements of hot requests once for each connection.

use crate::harness::{ADMIN, Cluster, TestApp, behind_pooler, new_deployment};
use diesel::connection::SimpleConnection;

/// What PostgreSQL logs before the text of a statement that is not kept.
const NOT_KEPT: &str = "execute <unnamed>: ";

/// A ledger whose PostgreSQL logs each statement after those of `prepare`. `None` without
/// PostgreSQL, and behind a pooler in transaction mode, which keeps no statement.
fn logging(prepare: impl FnOnce(&TestApp)) -> Option<(Cluster, TestApp)> {
    let cluster = Cluster::start().filter(|_| behind_pooler().is_none())?;
    let app = TestApp::start(&cluster.url(), &[]);
    prepare(&app);
    let mut db = app.db();
    db.batch_execute("ALTER SYSTEM SET log_statement = 'all'").unwrap();
    db.batch_execute("SELECT pg_reload_conf()").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    Some((cluster, app))
}

/// Checks that PostgreSQL keeps each statement of the request that `send` sends.
#[track_caller]
fn expect_kept(cluster: &Cluster, what: &str, send: impl FnOnce()) {
    let logged = std::fs::read_to_string(cluster.log()).unwrap().len();
    send();
    let log = std::fs::read_to_string(cluster.log()).unwrap();
    let log = &log[logged..];
    assert!(log.contains("execute __diesel_stmt_"), "{what}: {log}");
    let not_kept: Vec<&str> = log.lines().filter(|line| line.contains(NOT_KEPT)).collect();
    assert!(not_kept.is_empty(), "{what}: {not_kept:?}");
}

#[test]
fn what_is_read_often_is_kept_prepared() {
    let Some((cluster, app)) = logging(|app| {
        app.go_live("checkout", "production", "1");
        app.go_live("checkout", "production", "2");
    }) else {
        return;
    };
    let live = app.get("/v1/services/checkout/environments/production").expect(200);
    let url = |path: &str| format!("/v1/{path}");
    let paths = [
        url(&format!("deployments/{}", live["live"]["id"].as_str().unwrap())),
        url("deployments"),
        url("deployments?service=checkout"),
        url("services/checkout/environments/production"),
        url("status"),
    ];
    for path in paths {
        expect_kept(&cluster, &path, || drop(app.get(&path).expect(200)));
    }
}

#[test]
fn what_is_written_with_a_key_is_kept_prepared() {
    let Some((cluster, app)) = logging(|app| drop(app.go_live("checkout", "production", "1")))
    else {
        return;
    };
    let body = new_deployment("checkout", "production", "1");
    for key in ["one", "another"] {
        expect_kept(&cluster, key, || {
            let headers = [("Idempotency-Key", key)];
            let answer = app.call("POST", "/v1/deployments", ADMIN, Some(&body), &headers);
            answer.expect(201);
        });
    }
}
