//! When nothing goes where, and what goes all the same.

use crate::gate::{
    codes, deploy, evaluate, evaluate_rollback, expect_blocked, go_live, in_minutes, path, person,
    production, release, with,
};
use crate::harness::{ADMIN, TestApp, count, digest, together};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

crate::on_both_databases! {
    a_freeze_holds_until_it_ends
    an_override_lets_one_deployment_through
    of_concurrent_deployments_one_passes_with_an_override
    a_rollback_passes_a_freeze_that_allows_it
    a_weekly_freeze_holds_in_its_window
    a_freeze_covers_what_it_says
    no_deployment_slips_past_a_freeze
}

fn freeze(app: &TestApp, body: Value) -> Value {
    app.post("/v1/freezes", with(json!({"reason": "Quarter end"}), body)).expect(201)
}

fn change(app: &TestApp, freeze: &Value, body: Value) -> crate::harness::Answer {
    app.patch(&format!("/v1/freezes/{}", freeze["id"].as_str().unwrap()), body, &[])
}

fn let_through(app: &TestApp, key: &str, freeze: &Value, version: &str) -> crate::harness::Answer {
    let body = json!({"service": "checkout", "environment": "production", "version": version,
        "reason": "Payments are down."});
    app.call(
        "POST",
        &format!("/v1/freezes/{}/overrides", freeze["id"].as_str().unwrap()),
        key,
        Some(&body),
        &[],
    )
}

/// What exemptions a decision used: the code of what would have blocked, and why it did not.
fn exemptions(decision: &Value) -> Vec<(&str, &str)> {
    let all = decision["exemptions"].as_array().unwrap().iter();
    all.map(|it| (it["code"].as_str().unwrap(), it["by"].as_str().unwrap())).collect()
}

fn a_freeze_holds_until_it_ends(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    release(app, "1");
    let waiting = deploy(app, pipeline, "1", json!({})).expect(201);
    freeze(app, json!({"starts_at": in_minutes(60)}));
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true, "it does not hold yet");

    let end = in_minutes(60);
    let frozen = freeze(app, json!({"environment": "production", "ends_at": end}));
    let answers = [
        deploy(app, pipeline, "1", json!({})),
        deploy(app, pipeline, "1", json!({"start": true})),
        app.transition(&waiting, "running"),
    ];
    for answer in answers {
        let problem = expect_blocked(&answer, &["frozen"]);
        assert_eq!(
            (&problem["reasons"][0]["until"], &problem["reasons"][0]["id"]),
            (&json!(end), &frozen["id"])
        );
        assert_eq!(evaluate(app, pipeline, "1")["reasons"], problem["reasons"]);
    }
    let cell = &app.get("/v1/status").expect(200)["services"][0]["places"][0];
    assert_eq!(
        cell["frozen"],
        json!({"freeze_id": frozen["id"], "reason": "Quarter end", "until": end})
    );

    // Without an end, there is no telling until when.
    change(app, &frozen, json!({"ends_at": null})).expect(200);
    assert_eq!(evaluate(app, pipeline, "1")["reasons"][0].get("until"), None);
    assert_eq!(change(app, &frozen, json!({"ended": true})).expect(200)["revision"], 3);
    change(app, &frozen, json!({"reason": "Never mind"})).expect_problem(409, "freeze_ended");
    let_through(app, ADMIN, &frozen, "1").expect_problem(409, "freeze_ended");
    assert_eq!(
        app.get("/v1/status").expect(200)["services"][0]["places"][0]["frozen"],
        Value::Null
    );
    app.transition(&waiting, "running").expect(200);
}

fn an_override_lets_one_deployment_through(app: &TestApp) {
    production(app, json!({}));
    let (pipeline, guard) = (&person(app, "pipeline"), &app.key("guard", &["override"]));
    release(app, "1");
    release(app, "2");
    let frozen = freeze(app, json!({}));
    for key in [pipeline, &app.key("operator", &["operate"])] {
        let_through(app, key, &frozen, "1").expect_problem(403, "missing_scope");
    }
    let given = let_through(app, guard, &frozen, "1").expect(201);
    assert_eq!((&given["actor"], &given["consumed_by"]), (&json!("guard"), &Value::Null));
    expect_blocked(&deploy(app, pipeline, "2", json!({"start": true})), &["frozen"]);

    // The one that takes it when it is recorded may also start; no other one may.
    let first = deploy(app, pipeline, "1", json!({})).expect(201);
    assert_eq!(
        count(
            &mut app.db(),
            &format!("freeze_overrides WHERE consumed_by = '{}'", first["id"].as_str().unwrap())
        ),
        1
    );
    expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["frozen"]);
    app.transition(&first, "running").expect(200);
    app.transition(&first, "failed").expect(200);
    expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["frozen"]);

    // Two freezes take two overrides.
    let other = freeze(app, json!({"environment": "production"}));
    let_through(app, guard, &frozen, "1").expect(201);
    let problem = expect_blocked(&deploy(app, pipeline, "1", json!({})), &["frozen"]);
    assert_eq!(problem["reasons"][0]["id"], other["id"]);
    let_through(app, guard, &other, "1").expect(201);
    let started = deploy(app, pipeline, "1", json!({"start": true})).expect(201);
    assert_eq!(exemptions(&started["decision"]), [("frozen", "override"); 2]);
    let ids = started["decision"]["exemptions"].as_array().unwrap();
    let ids: Vec<_> = ids.iter().map(|exemption| &exemption["id"]).collect();
    assert_eq!(ids, [&frozen["id"], &other["id"]]);
    let overridden = app.all(&format!(
        "/v1/events?action=freeze.overridden&actor=guard&entity_id={}",
        frozen["id"].as_str().unwrap()
    ));
    assert_eq!(overridden.len(), 2);
    assert_eq!(overridden[0]["payload"]["reason"], "Payments are down.");
}

fn of_concurrent_deployments_one_passes_with_an_override(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    release(app, "1");
    let_through(app, ADMIN, &freeze(app, json!({})), "1").expect(201);
    let answers = together(8, |_| deploy(app, pipeline, "1", json!({})));
    let (won, lost): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!(won.len(), 1, "{won:?}");
    for answer in lost {
        expect_blocked(&answer, &["frozen"]);
    }
}

fn a_rollback_passes_a_freeze_that_allows_it(app: &TestApp) {
    production(app, json!({"required_approvals": 0}));
    let pipeline = &person(app, "pipeline");
    for version in ["1", "2"] {
        release(app, version);
        go_live(app, pipeline, version);
    }
    release(app, "3");
    let frozen = freeze(app, json!({}));
    assert_eq!(codes(&evaluate(app, pipeline, "3")), ["frozen"]);
    assert_eq!(
        codes(&evaluate(app, pipeline, "2")),
        ["frozen"],
        "what is live again is no rollback"
    );
    // An older version is a rollback only when the caller says so.
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["frozen"]);
    expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["frozen"]);
    let decision = evaluate_rollback(app, pipeline, "1");
    assert_eq!((&decision["allowed"], &decision["is_rollback"]), (&json!(true), &json!(true)));
    assert_eq!(exemptions(&decision), [("frozen", "rollback")]);
    let decision = evaluate_rollback(app, pipeline, "3");
    assert_eq!(exemptions(&decision), []);
    assert_eq!((codes(&decision), &decision["is_rollback"]), (vec!["frozen"], &json!(false)));
    let asked = json!({"rollback": true, "start": true});
    deploy(app, pipeline, "3", asked.clone()).expect_problem(422, "invalid_value");
    let back = deploy(app, pipeline, "1", asked.clone()).expect(201);
    assert_eq!((&back["kind"], &back["rollback"]), (&json!("rollback"), &json!(true)));
    app.transition(&back, "failed").expect(200);
    // One that starts later is remembered as a rollback; what was only observed is flagged.
    let later = deploy(app, pipeline, "1", json!({"rollback": true})).expect(201);
    let path = path(&later);
    let asked_about = app.get(&format!("/v1/gate?deployment={}", later["id"].as_str().unwrap()));
    assert_eq!(asked_about.expect(200)["is_rollback"], true);
    let started = app.transition(&later, "running").expect(200);
    assert_eq!((&started["ungated"], &started["state"]), (&json!(false), &json!("running")));
    app.transition(&later, "cancelled").expect(200);
    assert_eq!(app.get(&path).expect(200)["decision"]["facts"]["is_rollback"], true);
    let seen = |more: Value| deploy(app, pipeline, "1", with(json!({"state": "failed"}), more));
    assert_eq!(seen(json!({})).expect(201)["ungated"], true);
    assert_eq!(seen(json!({"rollback": true})).expect(201)["ungated"], false);
    change(app, &frozen, json!({"allow_rollback": false})).expect(200);
    assert_eq!(codes(&evaluate_rollback(app, pipeline, "1")), ["frozen"]);
    expect_blocked(&deploy(app, pipeline, "1", asked), &["frozen"]);
}

fn a_weekly_freeze_holds_in_its_window(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    release(app, "1");
    let zone = TimeZone::get("Asia/Kolkata").unwrap();
    let local = |minutes: i64| {
        (Timestamp::now() + SignedDuration::from_mins(minutes)).to_zoned(zone.clone())
    };
    let (from, to) = (local(-60), local(60));
    let window = |days: &[String]| {
        let (from, to) = (from.strftime("%H:%M").to_string(), to.strftime("%H:%M").to_string());
        json!({"weekly": {"days": days, "from": from, "to": to, "time_zone": "Asia/Kolkata"}})
    };
    let today = from.strftime("%a").to_string().to_lowercase();
    let others: Vec<_> = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        .map(String::from)
        .into_iter()
        .filter(|day| *day != today)
        .collect();
    freeze(app, window(&others));
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true, "on other days");
    let frozen = freeze(app, window(&[today]));
    let problem = expect_blocked(&deploy(app, pipeline, "1", json!({})), &["frozen"]);
    let end = to
        .round(jiff::ZonedRound::new().smallest(jiff::Unit::Minute).mode(jiff::RoundMode::Trunc))
        .unwrap()
        .timestamp();
    assert_eq!(
        (&problem["reasons"][0]["id"], &problem["reasons"][0]["until"]),
        (&frozen["id"], &json!(format!("{end:.6}")))
    );
    change(app, &frozen, json!({"ended": true})).expect(200);
    deploy(app, pipeline, "1", json!({"start": true})).expect(201);
}

fn a_freeze_covers_what_it_says(app: &TestApp) {
    let places = [
        ("checkout", "production"),
        ("checkout", "staging"),
        ("billing", "production"),
        ("billing", "staging"),
    ];
    let new = |(service, environment): (&str, &str)| {
        json!({"service": service, "environment": environment, "version": "1",
            "image_digest": digest(1), "create_missing": true})
    };
    for place in places {
        app.post("/v1/deployments", new(place)).expect(201);
    }
    for scope in [
        json!({}),
        json!({"service": "checkout"}),
        json!({"environment": "production"}),
        json!({"service": "checkout", "environment": "production"}),
    ] {
        let frozen = freeze(app, scope.clone());
        let covers = |(service, environment): (&str, &str)| {
            scope.get("service").is_none_or(|covered| covered == service)
                && scope.get("environment").is_none_or(|covered| covered == environment)
        };
        let grid = app.get("/v1/status").expect(200);
        for place in places {
            let answer = app.post("/v1/deployments", new(place));
            let row = grid["services"]
                .as_array()
                .unwrap()
                .iter()
                .find(|row| row["slug"] == place.0)
                .unwrap();
            let cell = row["places"]
                .as_array()
                .unwrap()
                .iter()
                .find(|cell| cell["environment"] == place.1)
                .unwrap();
            if covers(place) {
                expect_blocked(&answer, &["frozen"]);
                assert_eq!(cell["frozen"]["freeze_id"], frozen["id"], "{scope} {place:?}");
            } else {
                answer.expect(201);
                assert_eq!(cell["frozen"], Value::Null, "{scope} {place:?}");
                let problem = app.post(
                    &format!("/v1/freezes/{}/overrides", frozen["id"].as_str().unwrap()),
                    json!({"service": place.0, "environment": place.1, "version": "1",
                        "reason": "Never mind"}),
                );
                problem.expect_problem(422, "invalid_value");
            }
        }
        change(app, &frozen, json!({"ended": true})).expect(200);
    }
    let unknown = json!({"reason": "Quarter end", "service": "unknown"});
    app.post("/v1/freezes", unknown).expect_problem(404, "not_found");
}

/// What was asked for after the freeze was acknowledged is blocked; what was on its way may be
/// either.
fn no_deployment_slips_past_a_freeze(app: &TestApp) {
    production(app, json!({}));
    let pipeline = &person(app, "pipeline");
    release(app, "1");
    release(app, "2");
    let waiting: Vec<_> =
        (0..8).map(|_| deploy(app, pipeline, "2", json!({})).expect(201)).collect();
    let acknowledged = AtomicBool::new(false);
    let deadline = Instant::now() + Duration::from_secs(60);
    together(9, |i| {
        if i == 8 {
            freeze(app, json!({"environment": "production"}));
            acknowledged.store(true, Ordering::SeqCst);
            return;
        }
        let mut after = 0;
        while after < 5 {
            assert!(Instant::now() < deadline, "the freeze was not acknowledged");
            let is_frozen = acknowledged.load(Ordering::SeqCst);
            let answer = if i % 2 == 0 {
                deploy(app, pipeline, "1", json!({}))
            } else {
                app.transition(&waiting[i], "running")
            };
            if is_frozen {
                after += 1;
                // The start of one that runs already changes nothing.
                if answer.status != 200 {
                    assert!(
                        codes(&answer.expect_problem(409, "gate_blocked")).contains(&"frozen"),
                        "{}",
                        answer.text
                    );
                }
            }
        }
    });
}
