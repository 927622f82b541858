//! Correcting the record: deployments that did not take place, links that were set by mistake,
//! incidents that go on.

use crate::harness::TestApp;
use serde_json::{Value, json};

crate::on_both_databases! {
    a_void_deployment_counts_for_nothing
    a_void_deployment_releases_its_approval
    only_operators_declare_void
    a_fix_that_is_linked_later_is_a_hotfix_until_the_link_is_removed
    one_request_moves_the_cause_of_an_incident
    an_incident_that_was_resolved_by_mistake_is_reopened
}

fn read(app: &TestApp, deployment: &Value) -> Value {
    app.get(&format!("/v1/deployments/{}", deployment["id"].as_str().unwrap())).expect(200)
}

fn void(app: &TestApp, deployment: &Value) -> Value {
    let path = format!("/v1/deployments/{}/void", deployment["id"].as_str().unwrap());
    app.post(&path, json!({"reason": "It deployed nothing."})).expect(200)
}

fn a_void_deployment_counts_for_nothing(app: &TestApp) {
    let first = app.go_live("checkout", "production", "1");
    let bogus = app.go_live("checkout", "production", "2");
    let again = app.go_live("checkout", "production", "1");
    assert_eq!(
        (&again["kind"], &read(app, &bogus)["state"]),
        (&json!("rollback"), &json!("rolled_back"))
    );

    let voided = void(app, &bogus);
    assert_eq!(
        (&voided["state"], &voided["reason"]),
        (&json!("cancelled"), &json!("It deployed nothing."))
    );
    assert!(voided["voided_at"].is_string(), "{voided}");
    let again = read(app, &again);
    assert_eq!(
        (&again["kind"], &again["previous_id"], &again["rollback_of"]),
        (&json!("redeploy"), &first["id"], &Value::Null)
    );
    assert_eq!(read(app, &first)["state"], "superseded");
    let measures = app.get("/v1/metrics/dora").expect(200);
    assert_eq!(
        (&measures["change_fail_rate"]["failed"], &measures["deployment_frequency"]["n"]),
        (&json!(0), &json!(1))
    );

    // Both facts are in its history, and a second void changes nothing.
    let path = format!("/v1/deployments/{}/events", bogus["id"].as_str().unwrap());
    let actions: Vec<Value> = app.all(&path).iter().map(|event| event["action"].clone()).collect();
    assert_eq!(actions[0], "deployment.voided");
    assert!(actions.contains(&json!("deployment.succeeded")), "{actions:?}");
    let before = app.counts();
    assert_eq!(void(app, &bogus), voided);
    assert_eq!(app.counts(), before);
    app.transition(&bogus, "succeeded").expect_problem(409, "invalid_transition");

    // What is live becomes void: what it replaced is live again.
    void(app, &again);
    let place = app.get("/v1/services/checkout/environments/production").expect(200);
    assert_eq!(place["live"]["id"], first["id"]);
}

fn a_void_deployment_releases_its_approval(app: &TestApp) {
    app.post(
        "/v1/environments",
        json!({"slug": "gated", "tier": "staging", "required_approvals": 1}),
    )
    .expect(201);
    let waiting = app.deploy("checkout", "gated", "1", false);
    let alice = app.key("alice", &["approve"]);
    let yes = json!({"service": "checkout", "version": "1", "environment": "gated",
        "decision": "approved"});
    let yes = app.call("POST", "/v1/approvals", &alice, Some(&yes), &[]).expect(201);
    app.transition(&waiting, "running").expect(200);
    let used = || {
        let all = app.all("/v1/approvals");
        all.iter().find(|one| one["id"] == yes["id"]).unwrap()["consumed_by"].clone()
    };
    assert_eq!(used(), waiting["id"]);
    void(app, &waiting);
    assert_eq!(used(), Value::Null);
}

fn only_operators_declare_void(app: &TestApp) {
    let live = app.go_live("checkout", "production", "1");
    let path = format!("/v1/deployments/{}/void", live["id"].as_str().unwrap());
    let pipeline = app.key("pipeline", &["read", "deploy", "attest"]);
    let reason = json!({"reason": "A mistake."});
    app.call("POST", &path, &pipeline, Some(&reason), &[]).expect_problem(403, "missing_scope");
    app.post(&path, json!({})).expect_problem(422, "missing_field");
    let unknown = "/v1/deployments/019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42/void";
    app.post(unknown, reason).expect_problem(404, "not_found");
    assert_eq!(read(app, &live)["state"], "succeeded");
}

fn a_fix_that_is_linked_later_is_a_hotfix_until_the_link_is_removed(app: &TestApp) {
    app.go_live("checkout", "production", "1");
    let bad = app.go_live("checkout", "production", "2");
    let fix = app.go_live("checkout", "production", "3");
    assert_eq!(fix["kind"], "normal");
    let incident = json!({"service": "checkout", "environment": "production", "title": "Errors",
        "severity": "major", "caused_by": [bad["id"]]});
    let incident = app.post("/v1/incidents", incident).expect(201);
    let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
    app.patch(&path, json!({"fixed_by": [fix["id"]], "resolved": true}), &[]).expect(200);
    assert_eq!(read(app, &fix)["kind"], "hotfix");
    let rework =
        || app.get("/v1/metrics/dora").expect(200)["deployment_rework_rate"]["hotfixes"].clone();
    assert_eq!(rework(), 1);

    let link = format!("{path}/deployments/{}", fix["id"].as_str().unwrap());
    assert_eq!(app.delete(&link).expect(200)["fixed_by"], json!([]));
    assert_eq!((&read(app, &fix)["kind"], rework()), (&json!("normal"), json!(0)));
    app.delete(&link).expect_problem(404, "not_found");
    let link = format!("{path}/deployments/{}", bad["id"].as_str().unwrap());
    app.delete(&link).expect(200);
    assert_eq!(app.get("/v1/metrics/dora").expect(200)["change_fail_rate"]["failed"], 0);
    let actions: Vec<Value> = app
        .all(&format!("/v1/events?entity=incident&entity_id={}", incident["id"].as_str().unwrap()))
        .iter()
        .map(|event| event["action"].clone())
        .collect();
    assert_eq!(
        actions,
        ["incident.unlinked", "incident.unlinked", "incident.resolved", "incident.opened"]
    );
}

fn one_request_moves_the_cause_of_an_incident(app: &TestApp) {
    let good = app.go_live("checkout", "production", "1");
    let bad = app.go_live("checkout", "production", "2");
    let incident = json!({"service": "checkout", "environment": "production", "title": "Errors",
        "severity": "major", "caused_by": [good["id"]]});
    let incident = app.post("/v1/incidents", incident).expect(201);
    let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
    let moved = json!({"caused_by": [bad["id"]], "not_caused_by": [good["id"]]});
    assert_eq!(app.patch(&path, moved, &[]).expect(200)["caused_by"], json!([bad["id"]]));
    // Only links in the named role are removed, and what is not linked is an error.
    let before = app.counts();
    app.patch(&path, json!({"not_fixed_by": [bad["id"]]}), &[]).expect_problem(404, "not_found");
    let half = json!({"not_caused_by": [bad["id"], good["id"]]});
    app.patch(&path, half, &[]).expect_problem(404, "not_found");
    assert_eq!(app.counts(), before);
    assert_eq!(app.get(&path).expect(200)["caused_by"], json!([bad["id"]]));
    let fix = json!({"fixed_by": [bad["id"]]});
    assert_eq!(app.patch(&path, fix, &[]).expect(200)["fixed_by"], json!([bad["id"]]));
    let none = app.patch(&path, json!({"not_fixed_by": [bad["id"]]}), &[]).expect(200);
    assert_eq!((&none["caused_by"], &none["fixed_by"]), (&json!([bad["id"]]), &json!([])));
}

fn an_incident_that_was_resolved_by_mistake_is_reopened(app: &TestApp) {
    app.go_live("checkout", "production", "1");
    let incident = json!({"service": "checkout", "environment": "production", "title": "Errors",
        "severity": "major"});
    let incident = app.post("/v1/incidents", incident).expect(201);
    let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
    app.patch(&path, json!({"resolved": true}), &[]).expect(200);
    let open = app.patch(&path, json!({"resolved": false}), &[]).expect(200);
    assert_eq!(open["resolved_at"], Value::Null);
    let next = crate::harness::new_deployment("checkout", "production", "1");
    let blocked = app.post("/v1/deployments", next).expect_problem(409, "gate_blocked");
    assert_eq!(blocked["reasons"][0]["code"], "open_incident");
    // The time of a resolution can be corrected; it can't be given to an incident that is reopened.
    let end = crate::gate::in_minutes(0);
    app.patch(&path, json!({"resolved": false, "resolved_at": end}), &[])
        .expect_problem(422, "invalid_value");
    app.patch(&path, json!({"resolved": true}), &[]).expect(200);
    assert_eq!(app.patch(&path, json!({"resolved_at": end}), &[]).expect(200)["resolved_at"], end);
}
