//! The gate on a release's way into production, and what other files need to walk it.

use crate::harness::{Answer, TABLES, TestApp, behind_pooler, count, digest};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

crate::on_both_databases! {
    a_release_goes_through_staging_its_scan_and_an_approval
    a_blocked_attempt_is_in_the_history_and_leaves_nothing_else
    production_runs_images_by_digest
    what_is_unknown_is_not_asked_about
    everybody_gets_the_same_answer_about_a_deployment
    a_deployment_that_has_started_is_not_asked_about
    what_happened_anyway_is_recorded_and_flagged
    an_observed_start_is_flagged_too
    the_gate_costs_the_same_whatever_the_history
}

/// What a deployment, or a question of the gate, is about.
pub const PLACE: (&str, &str) = ("checkout", "production");

/// A key that may read, deploy and approve.
pub fn person(app: &TestApp, name: &str) -> String {
    app.key(name, &["read", "deploy", "approve"])
}

/// Records an environment of the production tier with this policy.
pub fn production(app: &TestApp, policy: Value) -> Value {
    app.post("/v1/environments", with(json!({"slug": "production", "tier": "production"}), policy))
        .expect(201)
}

/// The first object, with the fields of the second.
pub fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Records a release of checkout, with an image.
pub fn release(app: &TestApp, version: &str) -> Value {
    let body = json!({"service": "checkout", "version": version, "image_digest": digest(1),
        "create_missing": true});
    app.post("/v1/releases", body).expect(201)
}

/// Asks for a deployment of checkout to production, as the holder of `key`.
#[track_caller]
pub fn deploy(app: &TestApp, key: &str, version: &str, more: Value) -> Answer {
    let body = with(json!({"service": PLACE.0, "environment": PLACE.1, "version": version}), more);
    app.call("POST", "/v1/deployments", key, Some(&body), &[])
}

/// A deployment of checkout to production that is live.
#[track_caller]
pub fn go_live(app: &TestApp, key: &str, version: &str) -> Value {
    let running = deploy(app, key, version, json!({"start": true})).expect(201);
    app.transition(&running, "succeeded").expect(200)
}

/// Says yes or no to a release in production, as the holder of `key`.
#[track_caller]
pub fn post_review(app: &TestApp, key: &str, version: &str, decision: &str) -> Answer {
    let body = json!({"service": PLACE.0, "environment": PLACE.1, "version": version,
        "decision": decision});
    app.call("POST", "/v1/approvals", key, Some(&body), &[])
}

/// The path of a deployment.
pub fn path(deployment: &Value) -> String {
    format!("/v1/deployments/{}", deployment["id"].as_str().unwrap())
}

/// A deployment as it is now.
#[track_caller]
pub fn now(app: &TestApp, deployment: &Value) -> Value {
    app.get(&path(deployment)).expect(200)
}

/// The codes of an answer's reasons.
pub fn codes(decision: &Value) -> Vec<&str> {
    decision["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| reason["code"].as_str().unwrap())
        .collect()
}

/// Checks that the gate refused, for exactly these reasons; returns the problem.
#[track_caller]
pub fn expect_blocked(answer: &Answer, expected: &[&str]) -> Value {
    let problem = answer.expect_problem(409, "gate_blocked");
    assert_eq!(codes(&problem), expected, "{problem}");
    problem
}

/// What the gate says of a release of checkout in production. It changes nothing.
#[track_caller]
pub fn evaluate(app: &TestApp, key: &str, version: &str) -> Value {
    evaluate_in(app, key, PLACE.1, version)
}

/// What the gate answers to the question for a rollback to a version.
#[track_caller]
pub fn evaluate_rollback(app: &TestApp, key: &str, version: &str) -> Value {
    let (service, environment) = PLACE;
    let question = format!("service={service}&environment={environment}&version={version}");
    let path = format!("/v1/gate?{question}&rollback=true");
    app.call("GET", &path, key, None, &[]).expect(200)
}

#[track_caller]
fn evaluate_in(app: &TestApp, key: &str, environment: &str, version: &str) -> Value {
    let before = counts(app);
    let decision = app
        .call(
            "GET",
            &format!("/v1/gate?service={}&environment={environment}&version={version}", PLACE.0),
            key,
            None,
            &[],
        )
        .expect(200);
    assert_eq!(counts(app), before, "a question changes nothing");
    assert_eq!(decision["allowed"], codes(&decision).is_empty(), "{decision}");
    decision
}

/// Checks that the gate gives these reasons, and that an attempt to start a deployment then meets
/// the same ones.
#[track_caller]
fn expect_kept_back(
    app: &TestApp,
    key: &str,
    environment: &str,
    version: &str,
    expected: &[&str],
) -> Value {
    let decision = evaluate_in(app, key, environment, version);
    assert_eq!(codes(&decision), expected, "{decision}");
    let problem = expect_blocked(
        &deploy(app, key, version, json!({"environment": environment, "start": true})),
        expected,
    );
    assert_eq!(problem["reasons"], decision["reasons"]);
    decision
}

/// How many rows each table has, those of the gate among them.
pub fn counts(app: &TestApp) -> Vec<(&'static str, i64)> {
    let mut db = app.db();
    let gate = ["approvals", "freezes", "freeze_overrides", "incidents", "incident_deployments"];
    TABLES.into_iter().chain(gate).map(|table| (table, count(&mut db, table))).collect()
}

/// Changes rows from the side: what only the passing of time does.
pub fn sql(app: &TestApp, statement: &str) {
    diesel::RunQueryDsl::execute(diesel::sql_query(statement), &mut app.db()).unwrap();
}

/// Lets so many minutes pass since every success in staging, and since prop learned of it.
pub fn soak(app: &TestApp, minutes: i64) {
    let then = in_minutes(-minutes);
    let set = format!("finished_at = '{then}', counts_from = '{then}'");
    sql(app, &format!("UPDATE deployments SET {set} WHERE environment = 'staging'"));
}

/// An instant in the future, or the past, as prop writes it.
pub fn in_minutes(minutes: i64) -> String {
    format!("{:.6}", Timestamp::now() + SignedDuration::from_mins(minutes))
}

/// An instant some minutes after another.
pub fn after(at: &Value, minutes: i64) -> String {
    let at: Timestamp = at.as_str().unwrap().parse().unwrap();
    format!("{:.6}", at + SignedDuration::from_mins(minutes))
}

fn scan(app: &TestApp, release: &Value, summary: Value) {
    let body = json!({"tool": "trivy 0.66", "summary": summary});
    app.put(&format!("/v1/releases/{}/scan", release["id"].as_str().unwrap()), body).expect(200);
}

/// A release that has been in staging for long enough, and passed its scan.
fn season(app: &TestApp, pipeline: &str, release: &Value) {
    let version = release["version"].as_str().unwrap();
    let staged = deploy(app, pipeline, version, json!({"environment": "staging", "start": true}))
        .expect(201);
    app.transition(&staged, "succeeded").expect(200);
    soak(app, 31);
    scan(app, release, json!({"medium": 2}));
}

fn a_release_goes_through_staging_its_scan_and_an_approval(app: &TestApp) {
    app.post("/v1/environments", json!({"slug": "staging", "tier": "staging"})).expect(201);
    production(
        app,
        json!({"predecessor": "staging", "soak_minutes": 30, "required_approvals": 1,
            "require_scan": true}),
    );
    let (pipeline, alice) = (&app.key("pipeline", &["read", "deploy"]), &person(app, "alice"));
    let first = release(app, "1");

    expect_kept_back(
        app,
        pipeline,
        "production",
        "1",
        &["scan_missing", "not_in_predecessor", "approval_missing"],
    );
    // Missing approvals keep no deployment from being recorded; the rest does.
    expect_blocked(&deploy(app, pipeline, "1", json!({})), &["scan_missing", "not_in_predecessor"]);

    assert_eq!(evaluate_in(app, pipeline, "staging", "1")["allowed"], true);
    let staged =
        deploy(app, pipeline, "1", json!({"environment": "staging", "start": true})).expect(201);
    expect_kept_back(
        app,
        pipeline,
        "production",
        "1",
        &["scan_missing", "not_in_predecessor", "approval_missing"],
    );
    let staged = app.transition(&staged, "succeeded").expect(200);
    let decision = expect_kept_back(
        app,
        pipeline,
        "production",
        "1",
        &["scan_missing", "soaking", "approval_missing"],
    );
    assert_eq!(decision["reasons"][1]["until"], after(&staged["finished_at"], 30));
    assert_eq!(decision["reasons"][2]["missing"], 1);
    soak(app, 31);
    expect_kept_back(app, pipeline, "production", "1", &["scan_missing", "approval_missing"]);

    scan(app, &first, json!({"high": 1}));
    expect_kept_back(app, pipeline, "production", "1", &["scan_failed", "approval_missing"]);
    scan(app, &first, json!({"medium": 7}));
    expect_kept_back(app, pipeline, "production", "1", &["approval_missing"]);

    let waiting = deploy(app, pipeline, "1", json!({})).expect(201);
    assert_eq!(waiting["state"], "awaiting_approval");
    expect_blocked(&app.transition(&waiting, "running"), &["approval_missing"]);
    let approval = post_review(app, alice, "1", "approved").expect(201);
    let approved = now(app, &waiting);
    assert_eq!(approved["state"], "approved");
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true);
    assert_eq!(
        codes(&evaluate(app, alice, "1")),
        ["approval_missing"],
        "her own approval does not count for her"
    );

    let running = app.transition(&waiting, "running").expect(200);
    assert_eq!((&running["state"], &running["ungated"]), (&json!("running"), &json!(false)));
    assert_eq!(running["decision"]["allowed"], true);
    assert_eq!(running["decision"]["facts"]["reviews"][0]["id"], approval["id"]);
    let decision = expect_kept_back(
        app,
        pipeline,
        "production",
        "1",
        &["deployment_running", "approval_missing"],
    );
    assert_eq!(decision["reasons"][0]["id"], running["id"]);
    app.transition(&running, "succeeded").expect(200);
    expect_kept_back(app, pipeline, "production", "1", &["approval_missing"]);

    // The next one, approved before it is asked for.
    season(app, pipeline, &release(app, "2"));
    post_review(app, alice, "2", "approved").expect(201);
    assert_eq!(evaluate(app, pipeline, "2")["allowed"], true);
    let second = go_live(app, pipeline, "2");
    assert_eq!(second["previous_id"], running["id"]);
    assert_eq!(now(app, &running)["state"], "superseded");
}

fn a_blocked_attempt_is_in_the_history_and_leaves_nothing_else(app: &TestApp) {
    production(app, json!({"require_scan": true, "required_approvals": 2}));
    let pipeline = app.key("pipeline", &["read", "deploy"]);
    let before = counts(app);
    let new = json!({"service": "unknown", "create_missing": true, "image_digest": digest(2),
        "start": true});
    let problem =
        expect_blocked(&deploy(app, &pipeline, "1", new), &["scan_missing", "approval_missing"]);
    let after = counts(app);
    let with_one_event: Vec<_> =
        before.iter().map(|(table, rows)| (*table, rows + i64::from(*table == "events"))).collect();
    assert_eq!(after, with_one_event);
    app.get("/v1/services/unknown").expect_problem(404, "not_found");

    let event = &app.all("/v1/events?action=gate.blocked")[0];
    assert_eq!(
        (&event["actor"], &event["entity"], &event["entity_id"]),
        (&json!("pipeline"), &json!("gate"), &json!("unknown/production"))
    );
    let payload = &event["payload"];
    assert_eq!(
        (&payload["step"], &payload["version"], &payload["deployment_id"]),
        (&json!("start"), &json!("1"), &Value::Null)
    );
    assert_eq!(payload["decision"]["allowed"], false);
    assert_eq!(payload["decision"]["reasons"], problem["reasons"]);
    assert_eq!(payload["decision"]["facts"]["policy"]["required_approvals"], 2);
    assert_eq!(payload["decision"]["facts"]["release"]["image_digest"], digest(2));

    // An environment that is named for the first time does not stay either.
    app.post("/v1/freezes", json!({"reason": "Inventory"})).expect(201);
    let before = counts(app);
    let new = json!({"service": "unknown", "environment": "anna", "create_missing": true});
    expect_blocked(&deploy(app, &pipeline, "1", new), &["frozen"]);
    assert_eq!(counts(app)[1..5], before[1..5]);
    app.get("/v1/environments/anna").expect_problem(404, "not_found");

    // Sent again with the same idempotency key, it is decided again.
    let body = json!({"service": "unknown", "environment": "anna", "version": "1",
        "create_missing": true});
    let again = || {
        app.call("POST", "/v1/deployments", &pipeline, Some(&body), &[("Idempotency-Key", "again")])
    };
    expect_blocked(&again(), &["frozen"]);
    let freeze = app.all("/v1/freezes")[0]["id"].as_str().unwrap().to_owned();
    app.patch(&format!("/v1/freezes/{freeze}"), json!({"ended": true}), &[]).expect(200);
    again().expect(201);
}

fn production_runs_images_by_digest(app: &TestApp) {
    production(app, json!({}));
    let pipeline = person(app, "pipeline");
    app.post(
        "/v1/releases",
        json!({"service": "checkout", "version": "1", "create_missing": true}),
    )
    .expect(201);
    expect_kept_back(app, &pipeline, "production", "1", &["digest_missing"]);
    let running =
        deploy(app, &pipeline, "1", json!({"image_digest": digest(1), "start": true})).expect(201);
    assert_eq!(running["image_digest"], digest(1));
}

fn what_is_unknown_is_not_asked_about(app: &TestApp) {
    production(app, json!({}));
    release(app, "1");
    for (question, unknown) in [
        ("service=billing&environment=production&version=1", "billing"),
        ("service=checkout&environment=anna&version=1", "anna"),
        ("service=checkout&environment=production&version=2", "2"),
    ] {
        let problem = app.get(&format!("/v1/gate?{question}")).expect_problem(404, "not_found");
        assert!(problem["detail"].as_str().unwrap().contains(unknown), "{problem}");
    }
}

/// The question about a recorded deployment.
fn about(deployment: &Value) -> String {
    format!("/v1/gate?deployment={}", deployment["id"].as_str().unwrap())
}

fn everybody_gets_the_same_answer_about_a_deployment(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    let reader = &app.key("reader", &["read"]);
    release(app, "1");
    let waiting = deploy(app, pipeline, "1", json!({"requested_by": "dana"})).expect(201);
    let expect = |expected: &[&str]| {
        for key in [pipeline, alice, reader] {
            let before = counts(app);
            let decision = app.call("GET", &about(&waiting), key, None, &[]).expect(200);
            assert_eq!(codes(&decision), expected, "{decision}");
            assert_eq!(counts(app), before, "a question changes nothing");
        }
    };
    expect(&["approval_missing"]);
    post_review(app, alice, "1", "approved").expect(201);
    assert_eq!(codes(&evaluate(app, alice, "1")), ["approval_missing"], "for a request of her own");
    expect(&[]);
    app.post("/v1/freezes", json!({"reason": "Inventory"})).expect(201);
    expect(&["frozen"]);
    // Behind a pooler, each read is a transaction: two statements more.
    let transaction = if behind_pooler().is_some() { 2 } else { 0 };
    assert_eq!(cost(app, &about(&waiting)) - transaction, of_gate(app));
}

fn a_deployment_that_has_started_is_not_asked_about(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    release(app, "1");
    let waiting = deploy(app, pipeline, "1", json!({})).expect(201);
    for more in ["service=checkout", "environment=production", "version=1", "requested_by=dana"] {
        let problem =
            app.get(&format!("{}&{more}", about(&waiting))).expect_problem(400, "invalid_query");
        assert_eq!(problem["errors"][0]["pointer"], more.split_once('=').unwrap().0);
    }
    app.get("/v1/gate?deployment=1").expect_problem(400, "invalid_query");
    app.get("/v1/gate?deployment=019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42")
        .expect_problem(404, "not_found");
    app.transition(&waiting, "running").expect(200);
    let problem = app.get(&about(&waiting)).expect_problem(400, "invalid_query");
    assert_eq!(problem["errors"][0]["pointer"], "deployment");
    assert!(problem["detail"].as_str().unwrap().contains("running"), "{problem}");
}

fn what_happened_anyway_is_recorded_and_flagged(app: &TestApp) {
    production(app, json!({"require_scan": true}));
    let pipeline = &app.key("pipeline", &["read", "deploy"]);
    release(app, "1");
    let seen = deploy(app, pipeline, "1", json!({"observed": true})).expect(201);
    assert_eq!((&seen["state"], &seen["ungated"]), (&json!("running"), &json!(true)));
    assert_eq!(codes(&seen["decision"]), ["scan_missing"]);
    let events = app.all(&format!("{}/events", path(&seen)));
    assert_eq!(
        (&events[0]["action"], &events[0]["payload"]["ungated"]),
        (&json!("deployment.started"), &json!(true))
    );

    // There is one at a time: what prop took for running can't be.
    release(app, "2");
    let other = deploy(app, pipeline, "2", json!({"observed": true})).expect(201);
    assert_eq!(now(app, &seen)["state"], "cancelled");
    let overtaken = app.all(&format!("{}/events", path(&seen)));
    assert_eq!(overtaken[0]["action"], "deployment.cancelled");
    assert_eq!(overtaken[0]["payload"]["because_of"], other["id"]);
    // Only what is asked for must wait for what runs.
    assert_eq!(codes(&other["decision"]), ["scan_missing"]);
    app.transition(&other, "succeeded").expect(200);
    assert_eq!(now(app, &other)["ungated"], true, "it stays flagged");

    // Where the gate would have let it go, nothing is wrong with it.
    scan(app, &release(app, "3"), json!({}));
    let fine = deploy(app, pipeline, "3", json!({"observed": true})).expect(201);
    assert_eq!((&fine["ungated"], &fine["decision"]["allowed"]), (&json!(false), &json!(true)));
}

fn an_observed_start_is_flagged_too(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let pipeline = &app.key("pipeline", &["read", "deploy"]);
    release(app, "1");
    let waiting = deploy(app, pipeline, "1", json!({})).expect(201);
    let start = |observed: bool| {
        let body = json!({"to": "running", "observed": observed, "reason": "by hand"});
        app.call("POST", &format!("{}/transitions", path(&waiting)), pipeline, Some(&body), &[])
    };
    expect_blocked(&start(false), &["approval_missing"]);
    let running = start(true).expect(200);
    assert_eq!(
        (&running["state"], &running["ungated"], &running["reason"]),
        (&json!("running"), &json!(true), &json!("by hand"))
    );
    let actions: Vec<_> = app
        .all(&format!("{}/events", path(&waiting)))
        .iter()
        .map(|event| event["action"].clone())
        .collect();
    assert_eq!(actions, ["deployment.started", "deployment.approved", "deployment.requested"]);
}

/// How many statements the gate takes. SQLite gets the time from one of its own.
fn of_gate(app: &TestApp) -> u64 {
    if app.database_url.starts_with("sqlite:") { 2 } else { 1 }
}

/// How many statements a GET takes: the least of a few times, since prop also notes the use of keys
/// and tidies up.
pub fn cost(app: &TestApp, path: &str) -> u64 {
    let measure = |_| {
        app.get(path).expect(200);
        let before = app.statements();
        app.get(path).expect(200);
        app.statements() - before
    };
    (0..5).map(measure).min().unwrap()
}

fn the_gate_costs_the_same_whatever_the_history(app: &TestApp) {
    app.post("/v1/environments", json!({"slug": "staging", "tier": "staging"})).expect(201);
    production(
        app,
        json!({"predecessor": "staging", "required_approvals": 1, "require_scan": true}),
    );
    let release = release(app, "1");
    let body =
        json!({"service": "checkout", "environment": "staging", "version": "1", "start": true});
    let staged = app.post("/v1/deployments", body).expect(201);
    // Behind a pooler, each read is a transaction: two statements more.
    let transaction = if behind_pooler().is_some() { 2 } else { 0 };
    let costs = || {
        let gate = cost(app, "/v1/gate?service=checkout&environment=production&version=1");
        [gate, cost(app, "/v1/deployments?limit=100"), cost(app, &path(&staged))]
            .map(|cost| cost - transaction)
    };
    assert_eq!(costs(), [of_gate(app), 1, 1]);

    let release_id = release["id"].as_str().unwrap();
    let rows: Vec<_> = (0..2000)
        .map(|n| {
            let (id, at, environment) = (
                uuid::Uuid::now_v7(),
                in_minutes(n - 3000),
                ["staging", "production"][n as usize % 2],
            );
            format!(
                "('{id}', 'checkout', '{environment}', '{release_id}', '1', 'superseded', \
                    'normal', false, 'pipeline', 'api', '{at}', '{at}', 2)"
            )
        })
        .collect();
    let columns = "id, service, environment, release_id, version, state, kind, unplanned, \
        requested_by, source, requested_at, finished_at, revision";
    sql(app, &format!("INSERT INTO deployments ({columns}) VALUES {}", rows.join(", ")));
    assert_eq!(count(&mut app.db(), "deployments"), 2001);
    assert_eq!(costs(), [of_gate(app), 1, 1]);
}
