//! PostgreSQL prepares the statements of hot requests once for each connection.

use crate::harness::{Cluster, TestApp, behind_pooler};
use diesel::connection::SimpleConnection;

/// What PostgreSQL logs before the text of a statement that is not kept.
const NOT_KEPT: &str = "execute <unnamed>: ";

#[test]
fn what_is_read_often_is_kept_prepared() {
    // A pooler in transaction mode keeps no statement.
    let Some(cluster) = Cluster::start().filter(|_| behind_pooler().is_none()) else { return };
    let app = TestApp::start(&cluster.url(), &[]);
    let live = app.go_live("checkout", "production", "1");
    app.go_live("checkout", "production", "2");
    let url = |path: &str| format!("/v1/{path}");
    let paths = [
        url(&format!("deployments/{}", live["id"].as_str().unwrap())),
        url("deployments"),
        url("deployments?service=checkout"),
        url("services/checkout/environments/production"),
        url("status"),
    ];
    let mut db = app.db();
    db.batch_execute("ALTER SYSTEM SET log_statement = 'all'").unwrap();
    db.batch_execute("SELECT pg_reload_conf()").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    for path in paths {
        let logged = std::fs::read_to_string(cluster.log()).unwrap().len();
        app.get(&path).expect(200);
        let log = std::fs::read_to_string(cluster.log()).unwrap();
        let log = &log[logged..];
        assert!(log.contains("execute __diesel_stmt_"), "{path}: {log}");
        let not_kept: Vec<&str> = log.lines().filter(|line| line.contains(NOT_KEPT)).collect();
        assert!(not_kept.is_empty(), "{path}: {not_kept:?}");
    }
}
