//! Deployments that waited too long: whoever looks, sees them expired.

use crate::gate::{deploy, in_minutes, now, path, person, post_review, production, release, sql};
use crate::harness::{TestApp, count, new_deployment, together};
use serde_json::{Value, json};

crate::on_both_databases! {
    who_reads_sees_it_expired
    who_moves_it_learns_that_it_expired
    an_approval_comes_too_late
    it_expires_once
    many_expire_in_a_few_statements
    what_expired_keeps_nobody_from_approving
}

/// A deployment that has waited too long, while nobody looked.
fn overdue(app: &TestApp, key: &str) -> Value {
    let waiting = deploy(app, key, "1", json!({})).expect(201);
    let id = waiting["id"].as_str().unwrap();
    sql(
        app,
        &format!("UPDATE deployments SET expires_at = '{}' WHERE id = '{id}'", in_minutes(-1)),
    );
    waiting
}

/// Checks that it expired by itself, and once.
#[track_caller]
fn expect_expired(app: &TestApp, deployment: &Value) {
    let events = app.all(&format!("{}/events", path(deployment)));
    let brief: Vec<_> = events
        .iter()
        .map(|event| (event["action"].as_str().unwrap(), event["actor"].as_str().unwrap()))
        .collect();
    assert_eq!(brief, [("deployment.expired", "prop"), ("deployment.requested", "pipeline")]);
    let expired = now(app, deployment);
    assert_eq!(
        (&expired["state"], &expired["expires_at"], &expired["revision"]),
        (&json!("expired"), &Value::Null, &json!(2))
    );
    assert!(expired["finished_at"].is_string(), "{expired}");
}

fn who_reads_sees_it_expired(app: &TestApp) {
    let environment = production(app, json!({}));
    let (pipeline, reader) = (&person(app, "pipeline"), &app.key("reader", &["read"]));
    release(app, "1");
    for (required, state) in [(0, "approved"), (1, "awaiting_approval")] {
        let slug = environment["slug"].as_str().unwrap();
        app.patch(
            &format!("/v1/environments/{slug}"),
            json!({"required_approvals": required}),
            &[],
        )
        .expect(200);
        let read = |path: &str| app.call("GET", path, reader, None, &[]).expect(200);
        let seen = |page: Value, of: &Value| {
            page["items"].as_array().unwrap().iter().find(|item| item["id"] == of["id"]).cloned()
        };

        let deployment = overdue(app, pipeline);
        assert_eq!(deployment["state"], state);
        assert_eq!(read(&path(&deployment))["state"], "expired");
        expect_expired(app, &deployment);

        let deployment = overdue(app, pipeline);
        assert_eq!(seen(read("/v1/deployments"), &deployment).unwrap()["state"], "expired");
        expect_expired(app, &deployment);

        let deployment = overdue(app, pipeline);
        assert_eq!(
            seen(read("/v1/deployments?state=expired"), &deployment).unwrap()["state"],
            "expired"
        );
        expect_expired(app, &deployment);

        let deployment = overdue(app, pipeline);
        assert_eq!(seen(read(&format!("/v1/deployments?state={state}")), &deployment), None);
        expect_expired(app, &deployment);

        let deployment = overdue(app, pipeline);
        assert_eq!(read("/v1/status")["services"][0]["places"], json!([]));
        expect_expired(app, &deployment);

        let deployment = overdue(app, pipeline);
        assert_eq!(
            read("/v1/services/checkout/environments/production")["latest"][0]["state"],
            "expired"
        );
        expect_expired(app, &deployment);
    }
}

fn who_moves_it_learns_that_it_expired(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    release(app, "1");
    for to in ["running", "cancelled"] {
        let deployment = overdue(app, pipeline);
        let problem = app.transition(&deployment, to).expect_problem(409, "invalid_transition");
        assert_eq!((&problem["state"], &problem["moves"]), (&json!("expired"), &json!([])));
        // Kept, although the request was refused: its event is there before anybody reads the
        // deployment.
        expect_expired(app, &deployment);
    }
}

fn an_approval_comes_too_late(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    let late = overdue(app, pipeline);
    let in_time = deploy(app, pipeline, "1", json!({})).expect(201);
    post_review(app, alice, "1", "approved").expect(201);
    expect_expired(app, &late);
    assert_eq!(now(app, &in_time)["state"], "approved");
}

fn it_expires_once(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    release(app, "1");
    let deployments = [overdue(app, pipeline), overdue(app, pipeline)];
    let ways = [
        path(&deployments[0]),
        "/v1/deployments".into(),
        "/v1/deployments?state=expired".into(),
        "/v1/status".into(),
    ];
    together(10, |i| app.get(&ways[i % ways.len()]).expect(200));
    for deployment in &deployments {
        expect_expired(app, deployment);
    }
}

fn many_expire_in_a_few_statements(app: &TestApp) {
    const MANY: i64 = 230;
    for service in ["checkout", "cart"] {
        let body = new_deployment(service, "staging", "1");
        together(MANY as usize / 2, |_| app.post("/v1/deployments", body.clone()).expect(201));
    }
    sql(app, &format!("UPDATE deployments SET expires_at = '{}'", in_minutes(-1)));
    let before = app.statements();
    assert_eq!(app.get("/v1/deployments?state=approved").expect(200)["items"], json!([]));
    let statements = app.statements() - before;
    // SQLite writes the events one by one.
    let most = if app.database_url.starts_with("sqlite:") { MANY as u64 + 50 } else { 50 };
    assert!(statements < most, "{statements}");
    assert_eq!(app.all("/v1/deployments?state=expired").len(), MANY as usize);
    let mut db = app.db();
    assert_eq!(count(&mut db, "deployments WHERE state = 'expired' AND revision = 2"), MANY);
    let is_expiry = "events WHERE action = 'deployment.expired'";
    assert_eq!(count(&mut db, is_expiry), MANY);
    // The time is that of the transaction.
    let most = format!("(SELECT at FROM {is_expiry} GROUP BY at HAVING count(*) > 100) AS longest");
    assert_eq!(count(&mut db, &most), 0);
}

fn what_expired_keeps_nobody_from_approving(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    let late = overdue(app, pipeline);
    post_review(app, pipeline, "1", "approved").expect(201);
    expect_expired(app, &late);
    assert_eq!(deploy(app, alice, "1", json!({})).expect(201)["state"], "approved");
}
