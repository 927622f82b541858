//! A database that cannot write: its disk is full, or its connection breaks while it writes.

use crate::harness::{ADMIN, Answer, TestApp, connect, fresh_postgres};
use crate::process::{Process, prop, serve, sqlite_in, wait_for};
use diesel::connection::SimpleConnection;
use serde_json::{Value, json};
use std::process::Command;

fn record(app: &TestApp, version: usize) -> Answer {
    let body = json!({"service": "shop", "environment": "staging", "version": version.to_string(),
        "create_missing": true});
    app.post("/v1/deployments", body)
}

/// Checks the answers of a server whose database cannot write, and that its log names the request.
fn expect_unwritable(process: &Process, app: &TestApp, refused: &Answer) {
    let problem = refused.expect_problem(503, "database_unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(problem["detail"].as_str().unwrap().contains("cannot write"), "{problem}");
    app.get("/readyz").expect_problem(503, "database_unavailable");
    app.get("/livez").expect(200);
    app.get("/v1/deployments").expect(200);

    let id = refused.header("x-request-id");
    let errors: Vec<Value> = process
        .stderr()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["level"] == "ERROR")
        .collect();
    assert!(errors.iter().any(|line| line["request_id"] == id), "{id}: {errors:?}");
    assert!(errors.iter().all(|line| line["request_id"].is_string()), "{errors:?}");
}

#[test]
fn a_file_that_may_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let (process, app) = serve(&database, &[]);
    record(&app, 0).expect(201);
    process.terminate();
    process.end();

    // Units of 512 bytes: a database with one deployment, and a write-ahead log of 1 MiB.
    let plain =
        prop(&[], &database, &[("PROP_BOOTSTRAP_KEY", ADMIN), ("PROP_LOG__FORMAT", "json")]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -f 2048; exec \"$0\""]).arg(plain.get_program()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut process = Process::spawn(&mut command);
    let app = process.app();
    let refused = (1..1000).map(|n| record(&app, n)).find(|answer| answer.status != 201);
    expect_unwritable(&process, &app, &refused.expect("it never became full"));
    // Those that share a transaction: each gets the answer, and names its request in the log.
    let recorded = app.all("/v1/deployments").len();
    let clients: Vec<_> = (0..8).map(|_| app.another()).collect();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let send = |(n, app)| scope.spawn(move || record(app, 2000 + n));
        let sent: Vec<_> = clients.iter().enumerate().map(send).collect();
        sent.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    let (fitted, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(app.all("/v1/deployments").len(), recorded + fitted.len());
    for refused in refused {
        expect_unwritable(&process, &app, refused);
    }

    // Whoever is not ready gets no writes; it finds out by itself.
    let raised = Command::new("prlimit")
        .args([format!("--pid={}", process.id()), "--fsize=unlimited".into()])
        .status()
        .unwrap();
    assert!(raised.success());
    app.get("/readyz").expect(200);
    record(&app, 1001).expect(201);
    process.terminate();
    assert_eq!(process.end().code, Some(0));
}

/// Runs this when a service is created, in the transaction or at its commit.
fn on_new_service(database: &str, constraint: &str, when: &str, body: &str) {
    connect(database)
        .batch_execute(&format!(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN {body} RETURN NEW; END $$;
            CREATE {constraint} TRIGGER fail AFTER INSERT ON services {when}
                FOR EACH ROW EXECUTE FUNCTION fail()"
        ))
        .unwrap();
}

#[test]
fn a_full_disk_of_postgresql() {
    let Some(database) = fresh_postgres() else { return };
    let (process, app) = serve(&database, &[("PROP_LOG__FORMAT", "json")]);
    let full = "RAISE EXCEPTION USING ERRCODE = 'disk_full', \
        MESSAGE = 'could not extend file \"base/5/16401\": No space left on device';";
    on_new_service(&database, "", "", full);
    let refused = record(&app, 0);
    // A probing write succeeds here, since only services are refused.
    let problem = refused.expect_problem(503, "database_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("cannot write"), "{problem}");
    app.get("/readyz").expect(200);

    connect(&database)
        .batch_execute(
            "CREATE TRIGGER fail AFTER INSERT ON idempotency_keys
                FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .unwrap();
    let refused = record(&app, 1);
    expect_unwritable(&process, &app, &refused);
    connect(&database)
        .batch_execute("DROP TRIGGER fail ON services; DROP TRIGGER fail ON idempotency_keys")
        .unwrap();
    app.get("/readyz").expect(200);
    record(&app, 2).expect(201);
}

#[test]
fn a_connection_that_breaks_before_or_during_the_commit() {
    let Some(database) = fresh_postgres() else { return };
    let (_process, app) = serve(&database, &[]);
    let end = "PERFORM pg_terminate_backend(pg_backend_pid());";
    on_new_service(&database, "", "", end);
    let refused = record(&app, 0).expect_problem(503, "database_unavailable");
    assert!(refused["detail"].as_str().unwrap().contains("Nothing was changed"), "{refused}");
    connect(&database).batch_execute("DROP TRIGGER fail ON services").unwrap();

    on_new_service(&database, "CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED", end);
    let refused = record(&app, 0);
    refused.expect_problem(503, "outcome_unknown");
    assert_eq!(refused.header("retry-after"), "1");
    connect(&database).batch_execute("DROP TRIGGER fail ON services").unwrap();
    wait_for("writes", || (record(&app, 0).status == 201).then_some(()));
}
