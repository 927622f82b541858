//! Ways around the gate that were open once.

use crate::gate::{
    after, codes, counts, deploy, evaluate, evaluate_rollback, expect_blocked, go_live, in_minutes,
    path, person, post_review, production, release, soak, sql, with,
};
use crate::harness::{Answer, TestApp, digest};
use serde_json::{Value, json};

crate::on_both_databases! {
    what_was_rolled_back_is_no_way_back
    a_person_counts_once_however_often_they_said_yes
    a_rejection_that_was_taken_back_does_not_come_back
    a_run_may_review_two_services
    a_review_that_changed_its_mind_is_heard
    who_asks_under_another_name_does_not_approve_it
    what_ran_against_the_gate_is_no_way_back
    what_ran_and_would_have_been_let_through_is_a_way_back
    an_image_that_was_added_later_is_no_way_back
    the_way_back_is_preferred_to_what_ran_against_the_gate
    a_soak_counts_from_when_prop_learned_of_the_success
    what_ran_against_the_gate_seasons_nothing
    an_image_that_was_added_later_is_not_seasoned
    an_older_success_that_is_reported_later_is_not_live
    a_scan_is_for_the_image_that_was_scanned
    an_override_is_for_the_image_that_it_was_given_for
    an_override_ends
    an_override_of_an_earlier_version_gets_its_image_and_its_end
    a_key_that_may_only_deploy_creates_no_production
    a_missing_environment_gets_the_rules_of_its_tier
}

fn what_was_rolled_back_is_no_way_back(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    for v in ["1", "2"] {
        release(app, v);
        go_live(app, pipeline, v);
    }
    go_live(app, pipeline, "1");
    app.patch(
        "/v1/environments/production",
        json!({"required_approvals": 2, "require_scan": false}),
        &[],
    )
    .expect(200);
    app.post("/v1/freezes", json!({"reason": "x"})).expect(201);
    app.post(
        "/v1/incidents",
        json!({"service": "checkout", "environment": "production",
            "title": "2 broke it", "severity": "critical"}),
    )
    .expect(201);
    let d = evaluate(app, pipeline, "2");
    assert_eq!(d["allowed"], false, "{d}");
}

fn a_person_counts_once_however_often_they_said_yes(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    for _ in 0..2 {
        post_review(app, alice, "1", "approved").expect(201);
    }
    go_live(app, pipeline, "1");
    expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["approval_missing"]);
}

fn a_rejection_that_was_taken_back_does_not_come_back(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    post_review(app, alice, "1", "rejected").expect(201);
    post_review(app, alice, "1", "approved").expect(201);
    go_live(app, pipeline, "1");
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_missing"]);
}

fn review() -> Value {
    json!({"service": "checkout", "environment": "production", "version": "1",
        "decision": "approved", "source": "github", "approver": "zoe",
        "run_url": "https://github.example.org/shop/checkout/actions/runs/17"})
}

fn a_run_may_review_two_services(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    release(app, "1");
    app.post("/v1/releases", json!({"service":"billing","version":"1","create_missing":true}))
        .expect(201);
    app.post("/v1/approvals", review()).expect(201);
    let a = app.post("/v1/approvals", with(review(), json!({"service": "billing"})));
    assert_eq!(a.json()["service"], "billing", "{a:?}");
}

fn a_review_that_changed_its_mind_is_heard(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    release(app, "1");
    app.post("/v1/approvals", with(review(), json!({"review_id":"17"}))).expect(201);
    let a =
        app.post("/v1/approvals", with(review(), json!({"review_id":"17","decision": "rejected"})));
    assert!(a.status == 409 || a.json()["decision"] == "rejected", "{a:?}");
}

fn who_asks_under_another_name_does_not_approve_it(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let alice = &person(app, "alice");
    release(app, "1");
    let d = deploy(app, alice, "1", json!({"requested_by": "ci"})).expect(201);
    post_review(app, alice, "1", "approved").expect_problem(403, "own_approval");
    assert_eq!(d["state"], "awaiting_approval");
}

/// A key of a pipeline, which can report anything and approve nothing.
fn pipeline(app: &TestApp) -> String {
    app.key("pipeline", &["read", "deploy", "attest"])
}

/// Reports that a version of checkout went live in an environment, whatever the gate says.
#[track_caller]
fn observe(app: &TestApp, key: &str, environment: &str, version: &str, more: Value) -> Value {
    let body = with(json!({"environment": environment, "state": "succeeded"}), more);
    deploy(app, key, version, body).expect(201)
}

/// Checks that a rollback to a version is decided without the exemption: the question, the request
/// and its start get these reasons.
#[track_caller]
fn expect_no_way_back(app: &TestApp, key: &str, version: &str, expected: &[&str]) {
    let decision = evaluate_rollback(app, key, version);
    assert_eq!((codes(&decision), &decision["is_rollback"]), (expected.to_vec(), &json!(false)));
    let start = deploy(app, key, version, json!({"rollback": true, "start": true}));
    expect_blocked(&start, expected);
}

fn what_ran_against_the_gate_is_no_way_back(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&pipeline(app), &person(app, "alice"));
    for version in ["evil", "2"] {
        release(app, version);
        let seen = observe(app, pipeline, "production", version, json!({}));
        assert_eq!(seen["ungated"], true);
    }
    app.post("/v1/freezes", json!({"reason": "Quarter end"})).expect(201);
    let place = json!({"service": "checkout", "environment": "production"});
    let incident = with(place, json!({"title": "Down", "severity": "major"}));
    app.post("/v1/incidents", incident).expect(201);
    expect_no_way_back(app, pipeline, "evil", &["frozen", "open_incident", "approval_missing"]);

    // The same release is a way back once it has passed the gate.
    for open in ["freezes", "incidents"] {
        let id = app.all(&format!("/v1/{open}?open=true"))[0]["id"].as_str().unwrap().to_owned();
        let end =
            if open == "freezes" { json!({"ended": true}) } else { json!({"resolved": true}) };
        app.patch(&format!("/v1/{open}/{id}"), end, &[]).expect(200);
    }
    release(app, "3");
    for version in ["evil", "3"] {
        post_review(app, alice, version, "approved").expect(201);
        go_live(app, pipeline, version);
    }
    app.post("/v1/freezes", json!({"reason": "Quarter end"})).expect(201);
    assert_eq!(codes(&evaluate(app, pipeline, "evil")), ["frozen", "approval_missing"]);
    let decision = evaluate_rollback(app, pipeline, "evil");
    assert_eq!((&decision["allowed"], &decision["is_rollback"]), (&json!(true), &json!(true)));
    let back = json!({"rollback": true, "start": true});
    assert_eq!(deploy(app, pipeline, "evil", back).expect(201)["ungated"], false);
}

/// Or a ledger that only webhooks feed could never roll back.
fn what_ran_and_would_have_been_let_through_is_a_way_back(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &pipeline(app);
    for version in ["1", "2"] {
        release(app, version);
        observe(app, pipeline, "production", version, json!({}));
    }
    app.post("/v1/freezes", json!({"reason": "Quarter end"})).expect(201);
    assert_eq!(evaluate_rollback(app, pipeline, "1")["allowed"], true);
}

fn an_image_that_was_added_later_is_no_way_back(app: &TestApp) {
    app.post("/v1/environments", json!({"slug": "staging", "tier": "staging"})).expect(201);
    let pipeline = &pipeline(app);
    let live = |version: &&str| {
        let body = json!({"environment": "staging", "start": true, "create_missing": true});
        let running = deploy(app, pipeline, version, body).expect(201);
        app.transition(&running, "succeeded").expect(200);
    };
    ["1", "2", "3"].iter().for_each(live);
    let freeze = app.post("/v1/freezes", json!({"reason": "Quarter end"})).expect(201);
    let back = |version: &str, more: Value| {
        let rollback = json!({"environment": "staging", "rollback": true, "start": true});
        deploy(app, pipeline, version, with(rollback, more))
    };
    // The request itself may bring the image.
    expect_blocked(&back("1", json!({"image_digest": digest(9)})), &["frozen"]);
    add_image(app, pipeline, "1");
    expect_blocked(&back("1", json!({})), &["frozen"]);
    let running = back("2", json!({})).expect(201);
    app.transition(&running, "failed").expect(200);

    // With its image, it has to pass the gate once.
    let freeze = format!("/v1/freezes/{}", freeze["id"].as_str().unwrap());
    app.patch(&freeze, json!({"ended": true}), &[]).expect(200);
    ["1", "4"].iter().for_each(live);
    app.post("/v1/freezes", json!({"reason": "Quarter end"})).expect(201);
    back("1", json!({})).expect(201);
}

fn the_way_back_is_preferred_to_what_ran_against_the_gate(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&pipeline(app), &person(app, "alice"));
    let approved = |version: &str| {
        release(app, version);
        post_review(app, alice, version, "approved").expect(201);
        go_live(app, pipeline, version)
    };
    let place = || app.get("/v1/services/checkout/environments/production").expect(200);
    release(app, "evil");
    observe(app, pipeline, "production", "evil", json!({}));
    approved("1");
    // There is nothing better.
    assert_eq!(place()["previous"]["version"], "evil");
    approved("2");
    release(app, "worse");
    observe(app, pipeline, "production", "worse", json!({}));
    release(app, "3");
    observe(app, pipeline, "production", "3", json!({}));
    assert_eq!(place()["previous"]["version"], "2");
    let back = deploy(app, pipeline, "2", json!({"version": null, "rollback": true}));
    assert_eq!(back.expect(201)["version"], "2");
}

/// Production, which wants a release to have been in staging for half an hour.
fn seasoning(app: &TestApp, staging: Value) {
    app.post("/v1/environments", with(json!({"slug": "staging", "tier": "staging"}), staging))
        .expect(201);
    production(app, json!({"predecessor": "staging", "soak_minutes": 30}));
}

fn a_soak_counts_from_when_prop_learned_of_the_success(app: &TestApp) {
    seasoning(app, json!({}));
    let pipeline = &pipeline(app);
    let began = in_minutes(30);
    let long_ago = json!({"at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T01:00:00Z"});
    let in_two_reports = |version: &str| {
        let start = json!({"environment": "staging", "observed": true, "at": long_ago["at"]});
        let running = deploy(app, pipeline, version, start).expect(201);
        let end = json!({"to": "succeeded", "observed": true, "at": long_ago["finished_at"]});
        let path = format!("{}/transitions", path(&running));
        app.call("POST", &path, pipeline, Some(&end), &[]).expect(200);
    };
    for version in ["1", "2"] {
        release(app, version);
        if version == "1" {
            observe(app, pipeline, "staging", version, long_ago.clone());
        } else {
            in_two_reports(version);
        }
        let decision = evaluate(app, pipeline, version);
        assert_eq!(codes(&decision), ["soaking"], "{version}");
        let until = decision["reasons"][0]["until"].as_str().unwrap();
        assert!(until >= &*began, "{until} counts from before {began}");
    }
    // A second report, of the same or of another success, neither shortens nor lengthens it.
    let until = evaluate(app, pipeline, "1")["reasons"][0]["until"].clone();
    observe(app, pipeline, "staging", "1", long_ago.clone());
    observe(app, pipeline, "staging", "1", json!({}));
    assert_eq!(evaluate(app, pipeline, "1")["reasons"][0]["until"], until);
    soak(app, 31);
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true);

    // What an earlier version recorded counts as it did then.
    let then = format!("counts_from = NULL, finished_at = '{}'", in_minutes(-31));
    sql(app, &format!("UPDATE deployments SET {then} WHERE version = '2'"));
    assert_eq!(evaluate(app, pipeline, "2")["allowed"], true);
}

fn what_ran_against_the_gate_seasons_nothing(app: &TestApp) {
    seasoning(app, json!({"required_approvals": 1}));
    let pipeline = &pipeline(app);
    release(app, "1");
    let seen = observe(app, pipeline, "staging", "1", json!({}));
    assert_eq!(seen["ungated"], true);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["not_in_predecessor"]);
    app.patch("/v1/environments/staging", json!({"required_approvals": 0}), &[]).expect(200);
    observe(app, pipeline, "staging", "1", json!({}));
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["soaking"]);
}

fn an_image_that_was_added_later_is_not_seasoned(app: &TestApp) {
    seasoning(app, json!({}));
    let pipeline = &pipeline(app);
    let staged = json!({"create_missing": true});
    observe(app, pipeline, "staging", "1", staged);
    soak(app, 31);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["digest_missing"]);
    let start = json!({"image_digest": digest(9), "start": true});
    expect_blocked(&deploy(app, pipeline, "1", start), &["not_in_predecessor"]);
    add_image(app, pipeline, "1");
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["not_in_predecessor"]);
    observe(app, pipeline, "staging", "1", json!({}));
    soak(app, 31);
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true);
}

/// As a pipeline reports after an outage.
fn an_older_success_that_is_reported_later_is_not_live(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &pipeline(app);
    let running = [("1", "10:00"), ("2", "20:00")].map(|(version, start)| {
        release(app, version);
        let at = format!("2026-03-02T{start}:00Z");
        deploy(app, pipeline, version, json!({"observed": true, "at": at})).expect(201)
    });
    for (deployment, end) in running.iter().zip(["10:05", "20:05"]).rev() {
        let end = json!({"to": "succeeded", "observed": true,
            "at": format!("2026-03-02T{end}:00Z")});
        let path = format!("{}/transitions", path(deployment));
        app.call("POST", &path, pipeline, Some(&end), &[]).expect(200);
    }
    let place = app.get("/v1/services/checkout/environments/production").expect(200);
    assert_eq!(
        (&place["live"]["version"], &place["previous"]["version"]),
        (&json!("2"), &json!("1"))
    );
    let backwards = json!({"state": "succeeded", "at": "2026-03-02T10:00:00Z",
        "finished_at": "2026-03-02T09:59:00Z"});
    let problem = deploy(app, pipeline, "1", backwards).expect_problem(422, "invalid_value");
    assert_eq!(problem["errors"][0]["pointer"], "/finished_at");
}

/// Records a release of checkout without an image.
fn release_without_image(app: &TestApp, key: &str, version: &str) -> Value {
    let body = json!({"service": "checkout", "version": version, "create_missing": true});
    app.call("POST", "/v1/releases", key, Some(&body), &[]).expect(201)
}

/// Adds an image to a release of checkout.
fn add_image(app: &TestApp, key: &str, version: &str) -> Value {
    let image = json!({"service": "checkout", "version": version, "image_digest": digest(9)});
    app.call("POST", "/v1/releases", key, Some(&image), &[]).expect(200)
}

fn a_scan_is_for_the_image_that_was_scanned(app: &TestApp) {
    production(app, json!({"require_scan": true}));
    let pipeline = &pipeline(app);
    let scan = |release: &Value| {
        let path = format!("/v1/releases/{}/scan", release["id"].as_str().unwrap());
        let body = json!({"tool": "trivy 0.66", "summary": {}});
        app.call("PUT", &path, pipeline, Some(&body), &[]).expect(200)
    };
    for version in ["1", "2"] {
        let scanned = scan(&release_without_image(app, pipeline, version));
        assert_eq!(scanned["scan"]["status"], "passed");
    }
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["digest_missing"]);
    let completed = add_image(app, pipeline, "1");
    assert_eq!(completed["scan"]["status"], "missing");
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["scan_missing"]);
    let start = json!({"start": true, "image_digest": digest(9)});
    expect_blocked(&deploy(app, pipeline, "2", start), &["scan_missing"]);
    // The history has both.
    let id = completed["id"].as_str().unwrap();
    let events = app.all(&format!("/v1/events?entity=release&entity_id={id}"));
    let seen = |n: usize| (&events[n]["action"], events[n].pointer("/payload/scan/status"));
    assert_eq!(seen(0), (&json!("release.completed"), Some(&json!("missing"))));
    assert_eq!(events[1]["action"], "release.scanned");
    assert_eq!(scan(&completed)["scan"]["status"], "passed");
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true);
    // What adds no image leaves the scan alone.
    let commit = json!({"service": "checkout", "version": "1", "git_sha": "a".repeat(40)});
    let same = app.call("POST", "/v1/releases", pipeline, Some(&commit), &[]).expect(200);
    assert_eq!(same["scan"]["status"], "passed");
}

/// A freeze of everything, and how its override is asked for.
fn frozen(app: &TestApp) -> impl Fn(&str, Value) -> Answer {
    let freeze = app.post("/v1/freezes", json!({"reason": "Quarter end"})).expect(201);
    let path = format!("/v1/freezes/{}/overrides", freeze["id"].as_str().unwrap());
    move |version, more| {
        let body = json!({"service": "checkout", "environment": "production", "version": version,
            "reason": "Payments are down."});
        app.post(&path, with(body, more))
    }
}

fn an_override_is_for_the_image_that_it_was_given_for(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &pipeline(app);
    release_without_image(app, pipeline, "1");
    let let_through = frozen(app);
    let_through("not-there-yet", json!({})).expect_problem(404, "not_found");
    let given = let_through("1", json!({})).expect(201);
    assert_eq!(given["image_digest"], Value::Null);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["digest_missing"]);
    let start = json!({"start": true, "image_digest": digest(9)});
    expect_blocked(&deploy(app, pipeline, "1", start.clone()), &["frozen"]);
    add_image(app, pipeline, "1");
    expect_blocked(&deploy(app, pipeline, "1", start.clone()), &["frozen"]);
    assert_eq!(let_through("1", json!({})).expect(201)["image_digest"], digest(9));
    deploy(app, pipeline, "1", start).expect(201);
}

fn an_override_ends(app: &TestApp) {
    production(app, json!({"approval_ttl_hours": 2}));
    let pipeline = &pipeline(app);
    release(app, "1");
    let let_through = frozen(app);
    let given = let_through("1", json!({})).expect(201);
    assert_eq!(given["expires_at"], after(&given["created_at"], 120));
    let expire =
        || sql(app, &format!("UPDATE freeze_overrides SET expires_at = '{}'", in_minutes(-1)));
    let waiting = deploy(app, pipeline, "1", json!({})).expect(201);
    expire();
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["frozen"]);
    expect_blocked(&app.transition(&waiting, "running"), &["frozen"]);
    expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["frozen"]);

    // The request may say when.
    let problem = let_through("1", json!({"expires_at": in_minutes(-1)}));
    let problem = problem.expect_problem(422, "invalid_value");
    assert_eq!(problem["errors"][0]["pointer"], "/expires_at");
    let end = in_minutes(5);
    let given = let_through("1", json!({"expires_at": end})).expect(201);
    assert_eq!(given["expires_at"], end);
    app.transition(&waiting, "running").expect(200);
}

fn an_override_of_an_earlier_version_gets_its_image_and_its_end(app: &TestApp) {
    production(app, json!({"approval_ttl_hours": 2}));
    let pipeline = &pipeline(app);
    release(app, "1");
    let let_through = frozen(app);
    let given = let_through("1", json!({})).expect(201);
    let columns = |what: &str| format!("UPDATE freeze_overrides SET {what}");
    sql(app, &columns("image_digest = NULL, expires_at = NULL"));
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["frozen"]);
    let [postgres, sqlite] = [
        include_str!("../../migrations/postgres/0013_overrides_of_images/up.sql"),
        include_str!("../../migrations/sqlite/0013_overrides_of_images/up.sql"),
    ];
    let migration = if app.database_url.starts_with("sqlite") { sqlite } else { postgres };
    let update = &migration[migration.find("UPDATE ").unwrap()..];
    sql(app, update);
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true);
    // As if it had been given two hours earlier.
    let created = given["created_at"].as_str().unwrap();
    let earlier: jiff::Timestamp = created.parse().unwrap();
    let earlier = format!("{:.6}", earlier - jiff::SignedDuration::from_mins(121));
    sql(app, &columns(&format!("created_at = '{earlier}'")));
    sql(app, update);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["frozen"]);
}

fn a_key_that_may_only_deploy_creates_no_production(app: &TestApp) {
    let pipeline = &pipeline(app);
    let before = counts(app);
    let new = json!({"create_missing": true, "image_digest": digest(1)});
    let ways = [json!({}), json!({"start": true}), json!({"state": "succeeded"})];
    for (environment, way) in ["production", "eu-prod", "live"]
        .iter()
        .flat_map(|it| ways.iter().map(move |way| (it, way)))
    {
        let body = with(with(new.clone(), way.clone()), json!({"environment": environment}));
        let problem = deploy(app, pipeline, "1", body).expect_problem(403, "missing_scope");
        assert_eq!(problem["scopes"], json!(["operate"]));
        assert!(problem["detail"].as_str().unwrap().contains(environment), "{problem}");
    }
    assert_eq!(counts(app), before, "nothing is left behind");
    let operator = &app.key("operator", &["deploy", "operate"]);
    deploy(app, operator, "1", new.clone()).expect(201);
    // Once there is one, its rules decide.
    deploy(app, pipeline, "1", with(new, json!({"start": true}))).expect(201);
}

fn a_missing_environment_gets_the_rules_of_its_tier(app: &TestApp) {
    let settings = [
        ("PROP_TIER__STAGING__REQUIRED_APPROVALS", "2"),
        ("PROP_TIER__STAGING__APPROVAL_TTL_HOURS", "5"),
        ("PROP_TIER__TESTING__REQUIRE_SCAN", "true"),
        ("PROP_TIER__PRODUCTION__REQUIRED_APPROVALS", "1"),
        ("PROP_TIER__PRODUCTION__ALLOW_SELF_APPROVAL", "true"),
        ("PROP_TIER__PRODUCTION__ROLLBACK_NEEDS_APPROVAL", "true"),
    ];
    let app = &TestApp::start(&app.database_url, &settings);
    let pipeline = &pipeline(app);
    let start = |environment: &str| {
        let body = json!({"environment": environment, "start": true, "create_missing": true,
            "image_digest": digest(1)});
        deploy(app, pipeline, "1", body)
    };
    expect_blocked(&start("staging"), &["approval_missing"]);
    expect_blocked(&start("qa"), &["scan_missing"]);
    start("anna").expect(201);
    // What was refused left no environment, and what is only asked for waits.
    let names = || {
        let all = app.all("/v1/environments");
        all.iter().map(|it| it["slug"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["anna"]);
    let waiting = json!({"environment": "staging", "create_missing": true});
    let waiting = deploy(app, pipeline, "1", waiting).expect(201);
    assert_eq!(waiting["state"], "awaiting_approval");
    let staging = app.get("/v1/environments/staging").expect(200);
    assert_eq!(
        (&staging["tier"], &staging["required_approvals"], &staging["approval_ttl_hours"]),
        (&json!("staging"), &json!(2), &json!(5))
    );
    // Who creates one with its rules says them all.
    app.post("/v1/environments", json!({"slug": "uat", "tier": "staging"})).expect(201);
    assert_eq!(app.get("/v1/environments/uat").expect(200)["required_approvals"], 0);

    // GitHub's signature is enough for production, which then has its rules too.
    let (event, payload) = crate::webhooks::report(1, "production", "in_progress", 2);
    let delivery = crate::webhooks::deliver(app, event, &payload);
    assert_eq!(delivery["outcome"], "applied", "{delivery}");
    let production = app.get("/v1/environments/production").expect(200);
    let rules = ["required_approvals", "allow_self_approval", "rollback_needs_approval"];
    assert_eq!(rules.map(|rule| &production[rule]), [&json!(1), &json!(true), &json!(true)]);
    let running = &app.all("/v1/deployments?environment=production")[0];
    assert_eq!((&running["state"], &running["ungated"]), (&json!("running"), &json!(true)));
}
