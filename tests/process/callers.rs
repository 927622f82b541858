//! What becomes of the work for a caller that is gone.

use crate::harness::{ADMIN, TestApp, behind_pooler, count, fresh_postgres};
use crate::process::{serve, wait_for};
use diesel::connection::SimpleConnection;
use prop::db::Db;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// The statements of this database that wait for a lock.
const WAITING: &str = "pg_locks WHERE NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

fn wait_for_statements(db: &mut Db, n: i64) {
    wait_for(&format!("{n} waiting statements"), || (count(db, WAITING) == n).then_some(()));
}

fn send(app: &TestApp, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: prop\r\nAuthorization: Bearer {ADMIN}\r\n\
            Connection: close\r\nContent-Type: application/json\r\n\
            Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// A server whose statements have two minutes, and a connection that holds a lock for which they wait.
fn with_a_lock(test: impl FnOnce(&TestApp, &mut Db, &mut Db)) {
    let Some(database) = fresh_postgres() else { return };
    // Behind a pooler no one knows which connection of the database runs a statement.
    if behind_pooler().is_some() {
        return;
    }
    let (_process, app) = serve(&database, &[("PROP_DATABASE__TIMEOUT_SECONDS", "120")]);
    let (mut holder, mut watcher) = (app.db(), app.db());
    holder.batch_execute("BEGIN; LOCK TABLE services").unwrap();
    test(&app, &mut holder, &mut watcher);
}

#[test]
fn a_read_ends_when_its_caller_disconnects() {
    with_a_lock(|app, holder, watcher| {
        let callers: Vec<_> = (0..3).map(|_| send(app, "GET", "/v1/services", "")).collect();
        wait_for_statements(watcher, 3);
        drop(callers);
        wait_for_statements(watcher, 0);
        holder.batch_execute("ROLLBACK").unwrap();
        for _ in 0..20 {
            app.get("/v1/services").expect(200);
        }
    });
}

#[test]
fn a_caller_that_only_sends_no_more_gets_its_answer() {
    with_a_lock(|app, holder, watcher| {
        let mut caller = send(app, "GET", "/v1/services", "");
        caller.shutdown(Shutdown::Write).unwrap();
        wait_for_statements(watcher, 1);
        holder.batch_execute("ROLLBACK").unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

#[test]
fn a_write_goes_on_when_its_caller_disconnects() {
    with_a_lock(|app, holder, watcher| {
        let body = json!({"slug": "checkout"}).to_string();
        let writer = send(app, "POST", "/v1/services", &body);
        let reader = send(app, "GET", "/v1/services", "");
        wait_for_statements(watcher, 2);
        drop((writer, reader));
        wait_for_statements(watcher, 1);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(count(watcher, WAITING), 1, "the write was ended");
        holder.batch_execute("ROLLBACK").unwrap();
        wait_for("the service", || {
            let answer = app.get("/v1/services/checkout");
            (answer.status == 200).then_some(())
        });
    });
}
