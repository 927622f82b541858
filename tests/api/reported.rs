//! Deployments that are recorded when they are over, or while they run: `state` of `POST
//! /v1/deployments`.

use crate::harness::{ADMIN, TestApp, digest, new_deployment, with};
use serde_json::{Value, json};

crate::on_both_databases! {
    one_call_records_a_success_and_makes_it_live
    one_call_records_every_other_state
    times_are_those_that_were_reported
    a_report_that_contradicts_itself_is_refused
    the_kind_follows_from_what_was_live
    what_the_gate_would_have_blocked_is_flagged
    a_report_is_recorded_once
    a_late_report_replaces_nothing
    what_started_later_overtakes_what_was_running
}

/// Reports version `version` of checkout in staging.
fn report(version: &str, state: &str, more: Value) -> Value {
    let body = with(new_deployment("checkout", "staging", version), json!({"state": state}));
    with(body, more)
}

fn place(app: &TestApp) -> Value {
    app.get("/v1/services/checkout/environments/staging").expect(200)
}

fn verbs(app: &TestApp, deployment: &Value) -> Vec<String> {
    let path = format!("/v1/deployments/{}/events", deployment["id"].as_str().unwrap());
    let mut events = app.all(&path);
    events.reverse();
    events.iter().map(|event| event["action"].as_str().unwrap().to_owned()).collect()
}

fn one_call_records_a_success_and_makes_it_live(app: &TestApp) {
    let answer = app.post("/v1/deployments", report("1", "succeeded", json!({})));
    let recorded = answer.expect(201);
    let path = format!("/v1/deployments/{}", recorded["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), path);
    assert_eq!((&recorded["state"], &recorded["ungated"]), (&json!("succeeded"), &json!(false)));
    assert_eq!(recorded["decision"]["allowed"], true);
    assert_eq!(app.get(&path).expect(200), recorded);
    assert_eq!(app.get(&path).header("etag"), answer.header("etag"));
    assert_eq!(place(app)["live"]["id"], recorded["id"]);
    assert_eq!(place(app)["running"], Value::Null);
    let verbs = verbs(app, &recorded);
    assert_eq!(verbs, ["deployment.requested", "deployment.started", "deployment.succeeded"]);
}

fn one_call_records_every_other_state(app: &TestApp) {
    let live = app.post("/v1/deployments", report("1", "succeeded", json!({}))).expect(201);
    for state in ["failed", "cancelled"] {
        let more = json!({"reason": "Out of memory."});
        let ended = app.post("/v1/deployments", report("2", state, more)).expect(201);
        assert_eq!((&ended["state"], &ended["reason"]), (&json!(state), &"Out of memory.".into()));
        assert!(ended["finished_at"].is_string() && ended["started_at"].is_string(), "{ended}");
        assert_eq!(place(app)["live"]["id"], live["id"], "{state}");
    }
    let running = app.post("/v1/deployments", report("2", "running", json!({}))).expect(201);
    assert_eq!((&running["state"], &running["finished_at"]), (&json!("running"), &Value::Null));
    assert_eq!(place(app)["running"]["id"], running["id"]);
    // It goes on from there as any other.
    assert_eq!(app.transition(&running, "succeeded").expect(200)["state"], "succeeded");
}

fn times_are_those_that_were_reported(app: &TestApp) {
    let (started, ended) = ("2026-02-03T04:05:06.000000Z", "2026-02-03T04:09:00.000000Z");
    let send = |version, more| {
        let sent = app.post("/v1/deployments", report(version, "succeeded", more)).expect(201);
        (sent["started_at"].clone(), sent["finished_at"].clone())
    };
    let both = send("1", json!({"at": started, "finished_at": ended}));
    assert_eq!(both, (json!(started), json!(ended)));
    assert_eq!(send("2", json!({"at": ended})), (json!(ended), json!(ended)));
    let later = "2026-02-03T05:00:00.000000Z";
    assert_eq!(send("3", json!({"finished_at": later})), (json!(later), json!(later)));
    let (from, to) = send("4", json!({}));
    assert!(from.as_str().unwrap() > later && from == to, "{from} {to}");
}

fn a_report_that_contradicts_itself_is_refused(app: &TestApp) {
    app.deploy("checkout", "staging", "0", false);
    let before = app.counts();
    let (early, late) = ("2026-02-03T04:05:06Z", "2026-02-03T04:09:00Z");
    for (pointer, state, more) in [
        ("/state", "succeeded", json!({"start": true})),
        ("/state", "running", json!({"start": true})),
        ("/finished_at", "running", json!({"finished_at": late})),
        ("/finished_at", "succeeded", json!({"at": late, "finished_at": early})),
        ("/finished_at", "failed", json!({"finished_at": "2999-01-01T00:00:00Z"})),
        ("/at", "succeeded", json!({"at": "2999-01-01T00:00:00Z"})),
        ("/at", "running", json!({"at": "2999-01-01T00:00:00Z"})),
    ] {
        let answer = app.post("/v1/deployments", report("1", state, more));
        let problem = answer.expect_problem(422, "invalid_value");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert_eq!(app.counts(), before);
}

fn the_kind_follows_from_what_was_live(app: &TestApp) {
    let send = |version, more| {
        let sent = app.post("/v1/deployments", report(version, "succeeded", more)).expect(201);
        (sent["kind"].as_str().unwrap().to_owned(), sent)
    };
    assert_eq!(send("1", json!({})).0, "normal");
    assert_eq!(send("1", json!({})).0, "redeploy");
    let (kind, second) = send("2", json!({"unplanned": true}));
    assert_eq!(kind, "hotfix");
    // Without a version, a rollback finds it itself.
    let mut body = report("1", "succeeded", json!({"rollback": true}));
    for field in ["version", "image_digest"] {
        body.as_object_mut().unwrap().remove(field);
    }
    let back = app.post("/v1/deployments", body).expect(201);
    assert_eq!((&back["kind"], &back["version"]), (&json!("rollback"), &json!("1")));
    assert_eq!(back["rollback_of"], second["id"]);
    let path = format!("/v1/deployments/{}", second["id"].as_str().unwrap());
    assert_eq!(app.get(&path).expect(200)["state"], "rolled_back");
}

fn what_the_gate_would_have_blocked_is_flagged(app: &TestApp) {
    let frozen = json!({"reason": "Quarter end"});
    app.post("/v1/freezes", frozen).expect(201);
    for state in ["succeeded", "failed", "running"] {
        let sent = app.post("/v1/deployments", report("1", state, json!({}))).expect(201);
        assert_eq!((&sent["state"], &sent["ungated"]), (&json!(state), &json!(true)), "{sent}");
        assert_eq!(sent["decision"]["reasons"][0]["code"], "frozen");
    }
}

fn a_report_is_recorded_once(app: &TestApp) {
    let body = report("1", "succeeded", json!({"external_id": "run-17"}));
    let first = app.post("/v1/deployments", body.clone()).expect(201);
    let counts = app.counts();
    assert_eq!(app.post("/v1/deployments", body.clone()).expect(200), first);
    assert_eq!(app.counts(), counts);
    // What is live by now stays so.
    app.post("/v1/deployments", report("2", "succeeded", json!({}))).expect(201);
    let again = app.post("/v1/deployments", body.clone()).expect(200);
    assert_eq!(again["state"], "superseded");
    let other = with(body, json!({"version": "3", "image_digest": digest(3)}));
    app.post("/v1/deployments", other).expect_problem(409, "external_id_taken");

    let keyed = |body: &Value| {
        let headers = [("Idempotency-Key", "8d7f")];
        app.call("POST", "/v1/deployments", ADMIN, Some(body), &headers)
    };
    let body = report("4", "succeeded", json!({}));
    let (first, second) = (keyed(&body), keyed(&body));
    assert_eq!((first.status, second.status), (201, 201));
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(first.text, second.text);
}

fn a_late_report_replaces_nothing(app: &TestApp) {
    let live = app.post("/v1/deployments", report("2", "succeeded", json!({}))).expect(201);
    let late = json!({"at": "2026-02-03T04:05:06Z", "finished_at": "2026-02-03T04:09:00Z"});
    let late = app.post("/v1/deployments", report("1", "succeeded", late)).expect(201);
    assert_eq!(late["state"], "superseded");
    assert_eq!(place(app)["live"]["id"], live["id"]);
}

fn what_started_later_overtakes_what_was_running(app: &TestApp) {
    let running = app.deploy("checkout", "staging", "1", true);
    let past = json!({"at": "2026-02-03T04:05:06Z", "finished_at": "2026-02-03T04:09:00Z"});
    app.post("/v1/deployments", report("2", "succeeded", past)).expect(201);
    assert_eq!(place(app)["running"]["id"], running["id"]);
    app.post("/v1/deployments", report("3", "succeeded", json!({}))).expect(201);
    let path = format!("/v1/deployments/{}", running["id"].as_str().unwrap());
    assert_eq!(app.get(&path).expect(200)["state"], "cancelled");
    assert_eq!(place(app)["running"], Value::Null);
    // Until its own end is reported.
    assert_eq!(app.transition(&running, "failed").expect(200)["state"], "failed");
}
