//! The history: what happened, by whom, in order, and for good.

use crate::harness::{TestApp, count, digest, new_deployment, with};
use diesel::RunQueryDsl;
use prop::db::Db;
use serde_json::{Value, json};

crate::on_both_databases! {
    the_history_tells_everything_in_order_with_its_actor
    a_deployments_events_are_its_own
    a_list_is_filtered
    nothing_changes_or_deletes_an_event
    an_event_names_its_key_and_its_request
}

fn the_history_tells_everything_in_order_with_its_actor(app: &TestApp) {
    let operator = app.key("operator", &["operate"]);
    let pipeline = app.key("pipeline", &["deploy"]);
    let scanner = app.key("scanner", &["attest"]);
    let approver = app.key("approver", &["approve", "override"]);
    let send = |method: &str, path: &str, key: &str, body: Value| {
        app.call(method, path, key, Some(&body), &[])
    };
    send("POST", "/v1/services", &operator, json!({"slug": "checkout"})).expect(201);
    send(
        "PATCH",
        "/v1/services/checkout",
        &operator,
        json!({"owner": "payments", "description": null}),
    )
    .expect(200);
    send("POST", "/v1/environments", &operator, json!({"slug": "staging", "tier": "staging"}))
        .expect(201);
    send("PATCH", "/v1/environments/staging", &operator, json!({"name": "Staging"})).expect(200);
    let release =
        send("POST", "/v1/releases", &pipeline, json!({"service": "checkout", "version": "1"}))
            .expect(201);
    let release_path = format!("/v1/releases/{}", release["id"].as_str().unwrap());
    send(
        "PUT",
        &format!("{release_path}/scan"),
        &scanner,
        json!({"status": "passed", "tool": "trivy"}),
    )
    .expect(200);
    send(
        "POST",
        "/v1/releases",
        &pipeline,
        json!({"service": "checkout", "version": "1", "image_digest": digest(1)}),
    )
    .expect(200);
    let new = json!({"service": "checkout", "environment": "staging", "version": "1"});
    let first = send("POST", "/v1/deployments", &pipeline, new).expect(201);
    for to in ["running", "running", "succeeded"] {
        let path = format!("/v1/deployments/{}/transitions", first["id"].as_str().unwrap());
        send("POST", &path, &pipeline, json!({"to": to, "reason": "planned"})).expect(200);
    }
    send("POST", "/v1/deployments", &pipeline, new_deployment("checkout", "uat", "2")).expect(201);
    // With approvals: one that waits moves on, one that is to start at once is blocked.
    send("PATCH", "/v1/environments/uat", &operator, json!({"required_approvals": 1})).expect(200);
    let new = new_deployment("checkout", "uat", "3");
    let waiting = send("POST", "/v1/deployments", &pipeline, new.clone()).expect(201);
    send("POST", "/v1/deployments", &pipeline, with(new, json!({"start": true})))
        .expect_problem(409, "gate_blocked");
    let yes = json!({"service": "checkout", "version": "3", "environment": "uat",
        "decision": "approved"});
    let approval = send("POST", "/v1/approvals", &approver, yes).expect(201);
    let place = json!({"service": "checkout", "environment": "uat"});
    let freeze = send(
        "POST",
        "/v1/freezes",
        &operator,
        with(place.clone(), json!({"reason": "Quarter end"})),
    )
    .expect(201);
    let freeze_path = format!("/v1/freezes/{}", freeze["id"].as_str().unwrap());
    send("PATCH", &freeze_path, &operator, json!({"reason": "Year end"})).expect(200);
    let pass = with(place.clone(), json!({"version": "3", "reason": "Card payments are down."}));
    send("POST", &format!("{freeze_path}/overrides"), &approver, pass).expect(201);
    send("PATCH", &freeze_path, &operator, json!({"ended": true})).expect(200);
    let incident = with(place, json!({"title": "Cards fail", "severity": "minor"}));
    let incident = send("POST", "/v1/incidents", &operator, incident).expect(201);
    for change in
        [json!({"severity": "major"}), json!({"resolved": true}), json!({"title": "Cards failed"})]
    {
        send(
            "PATCH",
            &format!("/v1/incidents/{}", incident["id"].as_str().unwrap()),
            &operator,
            change,
        )
        .expect(200);
    }
    // What was refused is no part of it.
    send("POST", "/v1/services", &operator, json!({"slug": "checkout"}))
        .expect_problem(409, "already_exists");

    let mut events = app.all("/v1/events");
    events.reverse();
    let recorded: Vec<_> = events
        .iter()
        .map(|event| (event["action"].as_str().unwrap(), event["actor"].as_str().unwrap()))
        .collect();
    let expected = [
        ("key.created", "prop"),
        ("key.created", "bootstrap"),
        ("key.created", "bootstrap"),
        ("key.created", "bootstrap"),
        ("key.created", "bootstrap"),
        ("service.created", "operator"),
        ("service.updated", "operator"),
        ("environment.created", "operator"),
        ("environment.updated", "operator"),
        ("release.created", "pipeline"),
        ("release.scanned", "scanner"),
        ("release.completed", "pipeline"),
        ("deployment.requested", "pipeline"),
        ("deployment.started", "pipeline"),
        ("deployment.succeeded", "pipeline"),
        ("environment.created", "pipeline"),
        ("release.created", "pipeline"),
        ("deployment.requested", "pipeline"),
        ("environment.updated", "operator"),
        ("release.created", "pipeline"),
        ("deployment.requested", "pipeline"),
        ("gate.blocked", "pipeline"),
        ("approval.approved", "approver"),
        ("deployment.approved", "approver"),
        ("freeze.created", "operator"),
        ("freeze.updated", "operator"),
        ("freeze.overridden", "approver"),
        ("freeze.ended", "operator"),
        ("incident.opened", "operator"),
        ("incident.updated", "operator"),
        ("incident.resolved", "operator"),
        ("incident.updated", "operator"),
    ];
    assert_eq!(recorded, expected);
    let updated = &events[6]["payload"];
    assert_eq!(
        (&updated["owner"], &updated["description"], &updated["revision"]),
        (&json!("payments"), &json!(null), &json!(2)),
        "the service as it is now"
    );
    let succeeded = &events[14];
    assert_eq!(
        succeeded["payload"],
        json!({"from": "running", "to": "succeeded", "reason": "planned", "at": succeeded["at"],
            "ungated": false})
    );
    assert_eq!(
        (
            &succeeded["entity"],
            &succeeded["entity_id"],
            &succeeded["service"],
            &succeeded["environment"]
        ),
        (&json!("deployment"), &first["id"], &json!("checkout"), &json!("staging"))
    );
    let blocked = events.iter().find(|event| event["action"] == "gate.blocked").unwrap();
    assert_eq!(
        (&blocked["entity"], &blocked["entity_id"]),
        (&json!("gate"), &json!("checkout/uat"))
    );
    assert_eq!(
        (&blocked["payload"]["version"], &blocked["payload"]["step"]),
        (&json!("3"), &json!("start"))
    );
    let decision = &blocked["payload"]["decision"];
    assert_eq!(
        (&decision["allowed"], &decision["reasons"][0]["code"]),
        (&json!(false), &json!("approval_missing"))
    );
    let about = |action: &str| {
        events.iter().find(|event| event["action"] == action).unwrap()["entity_id"].clone()
    };
    assert_eq!(
        (about("approval.approved"), about("deployment.approved")),
        (approval["id"].clone(), waiting["id"].clone())
    );
    assert_eq!(
        (about("freeze.overridden"), about("incident.resolved")),
        (freeze["id"].clone(), incident["id"].clone())
    );
    for pair in events.windows(2) {
        assert!(pair[0]["seq"].as_i64() < pair[1]["seq"].as_i64());
        assert!(pair[0]["at"].as_str() <= pair[1]["at"].as_str());
    }
}

fn a_deployments_events_are_its_own(app: &TestApp) {
    app.go_live("checkout", "staging", "1");
    let second = app.deploy("checkout", "staging", "2", false);
    app.transition(&second, "running").expect(200);
    app.transition(&second, "succeeded").expect(200);
    app.go_live("checkout", "staging", "1");
    let path = format!("/v1/deployments/{}/events", second["id"].as_str().unwrap());
    let actions: Vec<_> =
        app.all(&path).iter().map(|event| event["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        actions,
        [
            "deployment.rolled_back",
            "deployment.succeeded",
            "deployment.started",
            "deployment.requested"
        ]
    );
    let page = app.get(&format!("{path}?limit=3")).expect(200);
    let rest =
        app.get(&format!("{path}?limit=3&cursor={}", page["next"].as_str().unwrap())).expect(200);
    assert_eq!(
        (rest["items"][0]["action"].as_str(), rest["next"].as_str()),
        (Some("deployment.requested"), None)
    );
}

fn a_list_is_filtered(app: &TestApp) {
    let pipeline = app.key("pipeline", &["deploy"]);
    app.post("/v1/services", json!({"slug": "checkout"})).expect(201);
    let new = json!({"service": "billing", "environment": "staging", "version": "1",
        "create_missing": true});
    let deployment = app.call("POST", "/v1/deployments", &pipeline, Some(&new), &[]).expect(201);
    let actions = |query: &str| {
        let events = app.all(&format!("/v1/events{query}"));
        events.iter().map(|event| event["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(actions("?service=checkout"), ["service.created"]);
    assert_eq!(actions("?service=billing&entity=service"), ["service.created"]);
    assert_eq!(actions("?environment=staging"), ["deployment.requested", "environment.created"]);
    assert_eq!(actions("?actor=pipeline&entity=release"), ["release.created"]);
    assert_eq!(actions("?actor=nobody"), [""; 0]);
    assert_eq!(actions("?action=service.created&actor=pipeline"), ["service.created"]);
    assert_eq!(
        actions(&format!("?entity_id={}", deployment["id"].as_str().unwrap())),
        ["deployment.requested"]
    );
    assert_eq!(actions("?entity=environment&entity_id=staging"), ["environment.created"]);
    let at = deployment["requested_at"].as_str().unwrap();
    assert_eq!(
        actions(&format!("?since={at}")),
        ["deployment.requested", "release.created", "environment.created", "service.created"],
        "one transaction has one time"
    );
    assert_eq!(actions(&format!("?until={at}")), ["service.created", "key.created", "key.created"]);
}

fn nothing_changes_or_deletes_an_event(app: &TestApp) {
    app.deploy("checkout", "staging", "1", false);
    let before = app.all("/v1/events");
    let mut db = app.db();
    let mut attempts = vec![
        "UPDATE events SET actor = 'nobody'",
        "UPDATE events SET seq = seq + 100",
        "DELETE FROM events",
        "DELETE FROM events WHERE seq = 1",
    ];
    if matches!(db, Db::Pg(_)) {
        attempts.extend(["TRUNCATE events", "TRUNCATE events RESTART IDENTITY CASCADE"]);
    }
    for attempt in attempts {
        let refused = diesel::sql_query(attempt).execute(&mut db);
        assert!(refused.is_err(), "{attempt}: {refused:?}");
    }
    assert_eq!(count(&mut db, "events") as usize, before.len());
    assert_eq!(app.all("/v1/events"), before);
}

fn an_event_names_its_key_and_its_request(app: &TestApp) {
    let made = |scopes: &[&str]| {
        app.post("/v1/keys", json!({"name": "pipeline", "scopes": scopes})).expect(201)
    };
    let leaked = made(&["deploy"]);
    let revoke = format!("/v1/keys/{}", leaked["id"].as_str().unwrap());
    let request = json!({"service": "checkout", "environment": "staging", "version": "1",
        "create_missing": true});
    let send = |key: &Value, request_id: &str| {
        let headers = [("X-Request-Id", request_id)];
        let key = key["key"].as_str().unwrap();
        app.call("POST", "/v1/deployments", key, Some(&request), &headers).expect(201)
    };
    let first = send(&leaked, "build-17");
    app.delete(&revoke).expect(200);
    let fresh = made(&["deploy"]);
    let second = send(&fresh, "build-18");
    let whose = |event: &Value| (event["key_id"].clone(), event["request_id"].clone());
    for (deployment, key, request_id) in
        [(&first, &leaked, "build-17"), (&second, &fresh, "build-18")]
    {
        let path = format!("/v1/deployments/{}/events", deployment["id"].as_str().unwrap());
        let events = app.all(&path);
        assert_eq!(events[0]["actor"], "pipeline");
        assert_eq!(whose(&events[0]), (key["id"].clone(), json!(request_id)));
    }
    // prop itself has neither. A webhook has no key.
    let id = second["id"].as_str().unwrap();
    let overdue = "UPDATE deployments SET expires_at = '2026-01-01T00:00:00.000000Z' WHERE id = ";
    crate::gate::sql(app, &format!("{overdue}'{id}'"));
    app.get(&format!("/v1/deployments/{id}")).expect(200);
    let pull = json!({"sender": {"login": "octocat"}, "repository": {
        "full_name": "shop/billing", "name": "billing", "html_url": "https://github.com/shop/billing"},
        "deployment": {"id": 1, "sha": crate::harness::sha(1), "ref": "main",
            "environment": "staging", "created_at": "2026-02-03T04:05:06Z",
            "creator": {"login": "octocat", "type": "User"}}});
    crate::webhooks::deliver(app, "deployment", &pull);
    let last = |query: &str| app.all(&format!("/v1/events{query}")).remove(0);
    let expired = last("?action=deployment.expired");
    assert_eq!(whose(&expired), (Value::Null, Value::Null), "{expired}");
    let delivered = last("?actor=github:octocat");
    assert_eq!(delivered["key_id"], Value::Null, "{delivered}");
    assert!(delivered["request_id"].is_string(), "{delivered}");
}
