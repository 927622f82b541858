//! Processes whose clocks differ: the order of what happens in a service is that of the commits,
//! whatever a clock says.

use crate::harness::{ADMIN, Answer, TestApp, digest, fresh_postgres};
use crate::process::{Process, prop, serve, sqlite_in};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// Starts a server whose clock is ahead by so many seconds, or behind by a negative number.
fn serve_ahead(database_url: &str, seconds: i64) -> (Process, TestApp) {
    let mut command = prop(&[], database_url, &[("PROP_BOOTSTRAP_KEY", ADMIN)]);
    command.env("LD_PRELOAD", &*SHIM).env("CLOCK_AHEAD_SECONDS", seconds.to_string());
    let mut process = Process::spawn(&mut command);
    let app = process.app();
    (process, app)
}

/// The library that moves a process's clock. Building prop needs a C compiler too, for SQLite.
static SHIM: LazyLock<PathBuf> = LazyLock::new(|| {
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/clock.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(built.unwrap().success());
    library
});

/// A release of checkout that production wants one approval for; gives the key of a person.
fn release(app: &TestApp, person: &str) -> String {
    app.post(
        "/v1/environments",
        json!({"slug": "production", "tier": "production", "required_approvals": 1}),
    )
    .expect(201);
    let new = json!({"service": "checkout", "version": "1", "image_digest": digest(1),
        "create_missing": true});
    app.post("/v1/releases", new).expect(201);
    app.key(person, &["read", "approve"])
}

fn review(app: &TestApp, key: &str, decision: &str) -> Value {
    let review = json!({"service": "checkout", "environment": "production", "version": "1",
        "decision": decision});
    app.call("POST", "/v1/approvals", key, Some(&review), &[]).expect(201)
}

fn start(app: &TestApp) -> Answer {
    let new = json!({"service": "checkout", "environment": "production", "version": "1",
        "start": true});
    app.post("/v1/deployments", new)
}

#[track_caller]
fn expect_rejected(app: &TestApp) {
    let gate = app.get("/v1/gate?service=checkout&environment=production&version=1").expect(200);
    assert_eq!(gate["reasons"][0]["code"], "approval_rejected", "{gate}");
    let refused = start(app).expect_problem(409, "gate_blocked");
    assert_eq!(refused["reasons"][0]["code"], "approval_rejected", "{refused}");
}

/// The events in the order of their numbers have the times of prop in the same order.
#[track_caller]
fn expect_ordered_events(app: &TestApp) {
    let events = app.all("/v1/events?service=checkout");
    let times: Vec<_> = events.iter().map(|event| event["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:#?}");
}

#[test]
fn a_rejection_counts_although_another_process_is_ahead() {
    let Some(database) = fresh_postgres() else { return };
    let (_here, here) = serve(&database, &[]);
    let (_ahead, ahead) = serve_ahead(&database, 3);
    let bob = release(&here, "bob");
    let approved = review(&ahead, &bob, "approved");
    let rejected = review(&here, &bob, "rejected");
    assert!(approved["created_at"].as_str() < rejected["created_at"].as_str(), "{rejected}");
    expect_rejected(&here);
    expect_rejected(&ahead);
    expect_ordered_events(&here);
}

#[test]
fn a_review_is_seen_at_once_by_a_process_that_is_behind() {
    let Some(database) = fresh_postgres() else { return };
    let (_here, here) = serve(&database, &[]);
    let (_behind, behind) = serve_ahead(&database, -3);
    let bob = release(&here, "bob");
    review(&here, &bob, "approved");
    let gate = behind.get("/v1/gate?service=checkout&environment=production&version=1");
    assert_eq!(gate.expect(200)["allowed"], true, "{}", gate.text);
    let frozen = json!({"reason": "Quarter end", "environment": "production"});
    here.post("/v1/freezes", frozen).expect(201);
    let gate = behind.get("/v1/gate?service=checkout&environment=production&version=1");
    assert_eq!(gate.expect(200)["reasons"][0]["code"], "frozen", "{}", gate.text);
    start(&behind).expect_problem(409, "gate_blocked");
}

/// The clock of the only process, or of the database itself, jumps back by two hours.
#[test]
fn a_rejection_counts_although_the_clock_jumped_back() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let (process, app) = serve_ahead(&database, 2 * 60 * 60);
    let bob = release(&app, "bob");
    review(&app, &bob, "approved");
    process.terminate();
    process.end();
    let (_process, app) = serve(&database, &[]);
    review(&app, &bob, "rejected");
    expect_rejected(&app);
    review(&app, &bob, "approved");
    start(&app).expect(201);
    expect_ordered_events(&app);
}
