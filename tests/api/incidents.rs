//! What is wrong in a place, and the way back.

use crate::gate::{
    codes, deploy, evaluate, evaluate_rollback, expect_blocked, go_live, now, person, production,
    release,
};
use crate::harness::{ADMIN, TestApp, count, with};
use serde_json::{Value, json};

crate::on_both_databases! {
    an_open_incident_lets_only_its_fix_and_a_rollback_through
    a_fix_may_wait_for_its_approval
    a_rollback_finds_its_release_itself
    a_rollback_needs_approval_where_the_environment_says_so
    one_detected_in_the_future_can_be_resolved
}

fn open(app: &TestApp, body: Value) -> Value {
    let incident = json!({"service": "checkout", "environment": "production",
        "title": "Payments are down", "severity": "critical"});
    app.post("/v1/incidents", crate::gate::with(incident, body)).expect(201)
}

fn path(incident: &Value) -> String {
    format!("/v1/incidents/{}", incident["id"].as_str().unwrap())
}

fn an_open_incident_lets_only_its_fix_and_a_rollback_through(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    for version in ["1", "2"] {
        release(app, version);
        go_live(app, pipeline, version);
    }
    release(app, "3");
    let culprit =
        app.get("/v1/services/checkout/environments/production").expect(200)["live"].clone();
    let incident = open(app, json!({"caused_by": [culprit["id"]]}));
    assert_eq!(
        (&incident["caused_by"], &incident["fixed_by"]),
        (&json!([culprit["id"]]), &json!([]))
    );
    let other = open(app, json!({"title": "Another one"}));
    app.patch(&path(&other), json!({"resolved": true}), &[]).expect(200);

    let problem = expect_blocked(&deploy(app, pipeline, "3", json!({})), &["open_incident"]);
    assert_eq!(problem["reasons"][0]["id"], incident["id"]);
    expect_blocked(&deploy(app, pipeline, "2", json!({"start": true})), &["open_incident"]);
    assert_eq!(codes(&evaluate(app, pipeline, "3")), ["open_incident"]);
    assert_eq!(
        codes(&evaluate(app, pipeline, "1")),
        ["open_incident"],
        "not asked for as a rollback"
    );
    assert_eq!(evaluate_rollback(app, pipeline, "1")["allowed"], true, "a rollback");
    release(app, "4");
    deploy(app, pipeline, "4", json!({"environment": "staging", "create_missing": true}))
        .expect(201);

    let back = deploy(app, pipeline, "1", json!({"rollback": true, "start": true})).expect(201);
    assert_eq!(back["kind"], "rollback");
    app.transition(&back, "failed").expect(200);
    for nothing in [&other["id"], &culprit["id"]] {
        let problem = deploy(app, pipeline, "3", json!({"fixes": nothing, "start": true}))
            .expect_problem(422, "invalid_value");
        assert_eq!(problem["errors"][0]["pointer"], "/fixes");
    }
    let fix =
        deploy(app, pipeline, "3", json!({"fixes": incident["id"], "start": true})).expect(201);
    assert_eq!((&fix["kind"], &fix["ungated"]), (&json!("hotfix"), &json!(false)));
    app.transition(&fix, "succeeded").expect(200);
    let linked = app.get(&path(&incident)).expect(200);
    assert_eq!(
        (&linked["caused_by"], &linked["fixed_by"]),
        (&json!([culprit["id"]]), &json!([fix["id"]]))
    );

    // It is over when somebody says so.
    expect_blocked(&deploy(app, pipeline, "4", json!({})), &["open_incident"]);
    let resolved = app.patch(&path(&incident), json!({"resolved": true}), &[]).expect(200);
    assert!(resolved["resolved_at"].is_string(), "{resolved}");
    assert_eq!(app.all("/v1/incidents?open=true"), [] as [Value; 0]);
    deploy(app, pipeline, "4", json!({"start": true})).expect(201);
}

fn a_fix_may_wait_for_its_approval(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    let incident = open(app, json!({}));
    let fix = deploy(app, pipeline, "1", json!({"fixes": incident["id"]})).expect(201);
    assert_eq!((&fix["state"], &fix["kind"]), (&json!("awaiting_approval"), &json!("hotfix")));
    expect_blocked(&app.transition(&fix, "running"), &["approval_missing"]);
    crate::gate::post_review(app, alice, "1", "approved").expect(201);
    let running = app.transition(&fix, "running").expect(200);
    assert_eq!(running["kind"], "hotfix");
}

fn a_rollback_finds_its_release_itself(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    let back =
        || deploy(app, pipeline, "1", json!({"version": null, "rollback": true, "start": true}));
    release(app, "1");
    back().expect_problem(409, "nothing_to_roll_back_to");
    let first = go_live(app, pipeline, "1");
    back().expect_problem(409, "nothing_to_roll_back_to");
    deploy(app, pipeline, "1", json!({"version": null})).expect_problem(422, "missing_field");
    release(app, "2");
    let second = go_live(app, pipeline, "2");
    let running = back().expect(201);
    assert_eq!(
        (&running["version"], &running["kind"], &running["rollback_of"]),
        (&json!("1"), &json!("rollback"), &second["id"])
    );
    app.transition(&running, "succeeded").expect(200);
    assert_eq!(
        [&first, &second].map(|deployment| now(app, deployment)["state"].clone()),
        ["superseded", "rolled_back"]
    );
    // What was rolled back is nothing to go back to.
    back().expect_problem(409, "nothing_to_roll_back_to");
    assert_eq!(count(&mut app.db(), "deployments"), 3);
}

fn a_rollback_needs_approval_where_the_environment_says_so(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    for version in ["1", "2"] {
        release(app, version);
        go_live(app, pipeline, version);
    }
    let asks = |policy: Value| app.patch("/v1/environments/production", policy, &[]).expect(200);
    asks(json!({"required_approvals": 1}));
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_missing"], "not asked for as one");
    let waiting = deploy(app, pipeline, "1", json!({})).expect(201);
    assert_eq!(
        (&waiting["state"], &waiting["kind"]),
        (&json!("awaiting_approval"), &json!("rollback"))
    );
    assert_eq!(evaluate_rollback(app, pipeline, "1")["allowed"], true);
    asks(json!({"rollback_needs_approval": true}));
    let back = json!({"rollback": true, "start": true});
    expect_blocked(&deploy(app, pipeline, "1", back.clone()), &["approval_missing"]);
    crate::gate::post_review(app, ADMIN, "1", "approved").expect(201);
    assert_eq!(deploy(app, pipeline, "1", back).expect(201)["kind"], "rollback");
}

fn one_detected_in_the_future_can_be_resolved(app: &TestApp) {
    app.deploy("checkout", "staging", "1", false);
    let body = json!({"service": "checkout", "environment": "staging", "title": "Cards fail",
        "severity": "minor"});
    let ahead = with(body.clone(), json!({"detected_at": "9999-01-01T00:00:00Z"}));
    app.post("/v1/incidents", ahead).expect_problem(422, "invalid_value");
    let incident = app.post("/v1/incidents", body).expect(201);
    // As earlier versions took it.
    let ahead = "UPDATE incidents SET detected_at = '9999-01-01T00:00:00.000000Z'";
    crate::gate::sql(app, ahead);
    let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
    let resolved = app.patch(&path, json!({"resolved": true}), &[]).expect(200);
    assert!(resolved["resolved_at"].is_string(), "{resolved}");
}
