//! A transaction that PostgreSQL ends for the sake of another one is repeated, and so is a read
//! whose connection is broken. SQLite has neither.

use crate::harness::{TestApp, connect, fresh_postgres, nobody, together, with};
use crate::webhooks::deliver_run_ended;
use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use prop::db::connection::{Options, Target};
use prop::db::pool::{Database, Limits};
use prop::error::{Code, Error};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const RUN: &str = "https://github.com/o/shop/actions/runs/7";

/// Runs `work` while another transaction holds the lock of `beta` and then asks for that of
/// `alpha`. It waits longer than prop before it looks for a deadlock, so prop is the one to give
/// way.
fn against_another<T: Send>(app: &TestApp, work: impl FnOnce() -> T + Send) -> T {
    let mut other = connect(&app.database_url);
    let lock =
        |slug: &str| format!("SELECT slug FROM services WHERE slug = '{slug}' FOR NO KEY UPDATE;");
    other.batch_execute(&format!("SET deadlock_timeout = '20s'; BEGIN; {}", lock("beta"))).unwrap();
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        // prop holds alpha by then, and waits for beta.
        std::thread::sleep(Duration::from_millis(500));
        other.batch_execute(&lock("alpha")).unwrap();
        other.batch_execute("COMMIT").unwrap();
        working.join().unwrap()
    })
}

#[test]
fn a_deadlock_repeats_the_transaction() {
    let Some(app) = TestApp::on_postgres() else { return };
    let run = json!({"run_url": RUN, "start": true});
    let deployments = ["alpha", "beta"].map(|slug| {
        let body = with(crate::harness::new_deployment(slug, "staging", "1"), run.clone());
        app.post("/v1/deployments", body).expect(201)
    });
    // Of the API: an incident in alpha, caused by a deployment of beta.
    let incident = json!({"service": "alpha", "environment": "staging", "title": "It is down.",
        "severity": "minor", "caused_by": [deployments[1]["id"]]});
    let another = app.another();
    let answer = against_another(&app, move || {
        let headers = [("Idempotency-Key", "once")];
        another.call("POST", "/v1/incidents", crate::harness::ADMIN, Some(&incident), &headers)
    });
    assert_eq!(answer.expect(201)["caused_by"], json!([deployments[1]["id"]]));
    assert_eq!(app.all("/v1/incidents").len(), 1);
    // Of a webhook: the end of a run that deploys both.
    let another = app.another();
    let delivery = against_another(&app, move || deliver_run_ended(&another, RUN));
    assert_eq!(delivery["outcome"], "applied", "{delivery}");
    assert_eq!(app.all("/v1/deployments?state=failed").len(), 2);
}

#[test]
fn repetitions_end_and_say_so() {
    let Some(url) = fresh_postgres() else { return };
    let time = Duration::from_secs(30);
    let options =
        Options { prepared_statements: true, statement_timeout: time, slow_statement: time };
    let limits = Limits { connections: 1, queue: 1, time };
    let target = Target::from_url(&url).unwrap();
    let database = Database::start(target, options, &limits, None, nobody()).unwrap();
    let count = |fails: u32, kind: fn() -> DatabaseErrorKind, message: &'static str| {
        let (runs, database) = (Arc::new(AtomicU32::new(0)), database.clone());
        let counted = runs.clone();
        let work = move |_: &mut prop::db::Db| {
            if counted.fetch_add(1, Ordering::Relaxed) < fails {
                let cause = Box::new(message.to_owned());
                return Err(Error::from(DieselError::DatabaseError(kind(), cause)));
            }
            Ok(())
        };
        let result = actix_web::rt::System::new().block_on(database.write(work));
        (result.map_err(|error| error.code), runs.load(Ordering::Relaxed))
    };
    let serialization = || DatabaseErrorKind::SerializationFailure;
    let unknown = || DatabaseErrorKind::Unknown;
    assert_eq!(count(4, serialization, "could not serialize access"), (Ok(()), 5));
    assert_eq!(count(9, unknown, "deadlock detected"), (Err(Code::Overloaded), 5));
    assert_eq!(count(9, unknown, "something else"), (Err(Code::Internal), 1));
    let unique = || DatabaseErrorKind::UniqueViolation;
    assert_eq!(count(9, unique, "duplicate key"), (Err(Code::Internal), 1));
}

#[test]
fn a_broken_connection_is_replaced() {
    let Some(app) = TestApp::on_postgres() else { return };
    let known = app.deploy("checkout", "staging", "1", false);
    let path = format!("/v1/deployments/{}", known["id"].as_str().unwrap());
    // Of so many at a time that there are several connections.
    together(8, |_| app.another().get(&path).expect(200));
    let name = app.database_url.rsplit('/').next().unwrap().split('?').next().unwrap();
    app.db()
        .batch_execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        ))
        .unwrap();
    for answer in together(8, |_| app.another().get(&path)) {
        assert_eq!(answer.expect(200), known);
    }
}
