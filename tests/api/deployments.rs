//! A deployment from its request to its end.

use crate::harness::{TestApp, brief, digest, new_deployment as new, sha, together, with};
use diesel::RunQueryDsl;
use serde_json::{Value, json};

crate::on_both_databases! {
    a_deployment_goes_live_and_is_superseded
    every_move_is_made_or_refused_as_the_lifecycle_says
    a_failed_or_cancelled_rollout_leaves_what_is_live
    the_kind_follows_from_the_place
    going_back_rolls_back_what_was_live
    the_kind_is_derived_again_at_the_start
    what_is_missing_is_created_or_named
    first_deployments_that_create_the_same_things_at_once_all_succeed
    of_first_deployments_that_start_at_once_one_starts_and_the_others_learn_why
    a_first_deployment_meets_the_rules_of_an_environment_that_is_created_at_once
    a_tier_is_guessed_from_the_name
    a_deployment_adds_to_its_release_and_never_contradicts_it
    an_external_id_names_one_deployment
    a_deployment_without_its_approvals_waits
    one_deployment_runs_in_a_place
    of_concurrent_starts_exactly_one_wins
    of_concurrent_moves_all_agree_on_the_end
    a_list_is_filtered
    what_the_client_says_is_kept
    an_unknown_deployment_is_not_found
}

fn path(deployment: &Value) -> String {
    format!("/v1/deployments/{}", deployment["id"].as_str().unwrap())
}

/// The same of a release that names no image.
fn imageless(service: &str, environment: &str, version: &str) -> Value {
    with(new(service, environment, version), json!({"image_digest": null}))
}

/// Checks that the ledger is as it was `before`, but for `attempts` that the gate blocked: each is
/// in the history.
#[track_caller]
fn assert_blocked(app: &TestApp, before: &[(&str, i64)], attempts: i64) {
    let blocked = |counts: &[(&'static str, i64)]| {
        counts
            .iter()
            .map(|(table, rows)| (*table, rows - if *table == "events" { attempts } else { 0 }))
            .collect::<Vec<_>>()
    };
    assert_eq!(blocked(&app.counts()), before);
    let events = app.get(&format!("/v1/events?limit={attempts}")).expect(200);
    for event in events["items"].as_array().unwrap() {
        assert_eq!(
            (&event["action"], &event["entity"]),
            (&json!("gate.blocked"), &json!("gate")),
            "{event}"
        );
    }
}

/// An environment that requires approvals.
fn gated(app: &TestApp, slug: &str) {
    app.post(
        "/v1/environments",
        json!({"slug": slug, "tier": "production", "required_approvals": 2}),
    )
    .expect(201);
}

fn a_deployment_goes_live_and_is_superseded(app: &TestApp) {
    let first = app.go_live("checkout", "staging", "1.0.0");
    assert_eq!(first["state"], "succeeded");
    let second = app.go_live("checkout", "staging", "1.1.0");
    assert_eq!(second["previous_id"], first["id"]);
    assert_eq!(app.get(&path(&first)).expect(200)["state"], "superseded");
    let status = app.get("/v1/status").expect(200);
    assert_eq!(status["services"][0]["places"][0]["live"]["id"], second["id"]);
}

/// Every state that a caller can see, with the moves that a caller has from there.
const MOVES: [(&str, &[&str]); 10] = [
    ("awaiting_approval", &["cancelled"]),
    ("approved", &["running", "cancelled"]),
    ("running", &["succeeded", "failed", "cancelled"]),
    ("succeeded", &[]),
    ("failed", &[]),
    ("cancelled", &[]),
    ("rejected", &[]),
    ("expired", &[]),
    ("superseded", &[]),
    ("rolled_back", &[]),
];

const STATES: [&str; 11] = [
    "requested",
    "awaiting_approval",
    "approved",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "rejected",
    "expired",
    "superseded",
    "rolled_back",
];

/// A deployment in this state, in a place of its own.
fn in_state(app: &TestApp, state: &str, service: &str) -> Value {
    let deployment = match state {
        "awaiting_approval" => app.deploy(service, "gated", "1", false),
        "approved" => app.deploy(service, "staging", "1", false),
        "running" => app.deploy(service, "staging", "1", true),
        "succeeded" => app.go_live(service, "staging", "1"),
        "failed" | "cancelled" => {
            app.transition(&app.deploy(service, "staging", "1", true), state).expect(200)
        }
        "rejected" => {
            let waiting = app.deploy(service, "gated", "1", false);
            let no = json!({"service": service, "version": "1", "environment": "gated",
                "decision": "rejected"});
            app.post("/v1/approvals", no).expect(201);
            app.get(&path(&waiting)).expect(200)
        }
        "expired" => {
            let waiting = app.deploy(service, "staging", "1", false);
            let overdue = format!(
                "UPDATE deployments SET expires_at = '2026-01-01T00:00:00.000000Z' WHERE service = \
                    '{service}'"
            );
            assert_eq!(diesel::sql_query(overdue).execute(&mut app.db()).unwrap(), 1);
            app.get(&path(&waiting)).expect(200)
        }
        _ => {
            app.go_live(service, "staging", "1");
            let live = app.go_live(service, "staging", "2");
            app.go_live(service, "staging", if state == "rolled_back" { "1" } else { "3" });
            app.get(&path(&live)).expect(200)
        }
    };
    assert_eq!(deployment["state"], state);
    deployment
}

fn every_move_is_made_or_refused_as_the_lifecycle_says(app: &TestApp) {
    gated(app, "gated");
    for (from, moves) in MOVES {
        let resting = in_state(app, from, &format!("rests-{}", from.replace('_', "-")));
        for to in STATES {
            if moves.contains(&to) {
                let deployment = in_state(app, from, &format!("{from}-{to}").replace('_', "-"));
                let moved = app.transition(&deployment, to).expect(200);
                assert_eq!(moved["state"], to, "{from} -> {to}");
                assert_eq!(
                    moved["revision"].as_i64(),
                    deployment["revision"].as_i64().map(|r| r + 1),
                    "{from} -> {to}"
                );
                assert_eq!(moved["finished_at"].is_null(), to == "running", "{from} -> {to}");
                assert_eq!(app.get(&path(&deployment)).expect(200), moved, "{from} -> {to}");
                continue;
            }
            let before = app.counts();
            let answer = app.transition(&resting, to);
            if (from, to) == ("awaiting_approval", "running") {
                let problem = answer.expect_problem(409, "gate_blocked");
                assert_eq!(problem["reasons"].as_array().unwrap().len(), 1, "{problem}");
                assert_eq!(
                    (&problem["reasons"][0]["code"], &problem["reasons"][0]["missing"]),
                    (&json!("approval_missing"), &json!(2))
                );
                assert_blocked(app, &before, 1);
                assert_eq!(app.get(&path(&resting)).expect(200), resting, "{from} -> {to}");
                continue;
            }
            // Replaced since: its success is known already.
            let was_live = to == "succeeded" && matches!(from, "superseded" | "rolled_back");
            if to == from || was_live {
                assert_eq!(answer.expect(200), resting, "{from} again");
            } else {
                let problem = answer.expect_problem(409, "invalid_transition");
                assert_eq!(problem["state"], from, "{from} -> {to}");
                assert_eq!(problem["moves"], json!(moves), "{from} -> {to}");
            }
            assert_eq!(app.counts(), before, "{from} -> {to}");
            assert_eq!(app.get(&path(&resting)).expect(200), resting, "{from} -> {to}");
        }
    }
}

fn a_failed_or_cancelled_rollout_leaves_what_is_live(app: &TestApp) {
    let live = app.go_live("checkout", "staging", "1");
    for end in ["failed", "cancelled"] {
        let rollout = app.deploy("checkout", "staging", "2", true);
        let body = json!({"to": end, "reason": "The probe\nstayed red."});
        let ended = app.post(&format!("{}/transitions", path(&rollout)), body).expect(200);
        assert_eq!(ended["reason"], "The probe\nstayed red.");
        assert_eq!(app.get(&path(&live)).expect(200), live);
        assert_eq!(
            app.get("/v1/services/checkout/environments/staging").expect(200)["live"],
            brief(&live)
        );
    }
}

fn the_kind_follows_from_the_place(app: &TestApp) {
    let kind = |body: Value| app.post("/v1/deployments", body).expect(201)["kind"].clone();
    assert_eq!(kind(new("checkout", "staging", "1")), "normal");
    app.go_live("checkout", "staging", "1");
    assert_eq!(kind(new("checkout", "staging", "1")), "redeploy");
    assert_eq!(kind(with(new("checkout", "staging", "1"), json!({"unplanned": true}))), "redeploy");
    assert_eq!(kind(new("checkout", "staging", "2")), "normal");
    assert_eq!(kind(with(new("checkout", "staging", "2"), json!({"unplanned": true}))), "hotfix");
    app.go_live("checkout", "staging", "2");
    assert_eq!(kind(new("checkout", "staging", "1")), "rollback");
    assert_eq!(kind(with(new("checkout", "staging", "1"), json!({"unplanned": true}))), "rollback");
    // Another place, another service: nothing was live there.
    assert_eq!(kind(new("checkout", "production", "1")), "normal");
    assert_eq!(kind(new("billing", "staging", "1")), "normal");
    // A rollout that failed was never live.
    app.transition(&app.deploy("checkout", "staging", "3", true), "failed").expect(200);
    assert_eq!(kind(new("checkout", "staging", "3")), "normal");
}

fn going_back_rolls_back_what_was_live(app: &TestApp) {
    let first = app.go_live("checkout", "production", "1");
    let second = app.go_live("checkout", "production", "2");
    let back = app.go_live("checkout", "production", "1");
    assert_eq!(
        (&back["kind"], &back["rollback_of"], &back["previous_id"]),
        (&json!("rollback"), &second["id"], &second["id"])
    );
    assert_eq!(app.get(&path(&first)).expect(200)["state"], "superseded");
    assert_eq!(app.get(&path(&second)).expect(200)["state"], "rolled_back");
    assert_eq!(
        app.get("/v1/services/checkout/environments/production").expect(200)["live"]["id"],
        back["id"]
    );
    // What was rolled back was live too: coming back to it is a rollback of the rollback.
    let again = app.go_live("checkout", "production", "2");
    assert_eq!((&again["kind"], &again["rollback_of"]), (&json!("rollback"), &back["id"]));
    assert_eq!(app.get(&path(&back)).expect(200)["state"], "rolled_back");
}

fn the_kind_is_derived_again_at_the_start(app: &TestApp) {
    app.go_live("checkout", "staging", "1");
    let waiting = app.deploy("checkout", "staging", "1", false);
    assert_eq!(waiting["kind"], "redeploy");
    let second = app.go_live("checkout", "staging", "2");
    let started = app.transition(&waiting, "running").expect(200);
    assert_eq!(
        (&started["kind"], &started["rollback_of"], &started["previous_id"]),
        (&json!("rollback"), &second["id"], &second["id"])
    );
    app.transition(&started, "succeeded").expect(200);
    assert_eq!(app.get(&path(&second)).expect(200)["state"], "rolled_back");
}

fn what_is_missing_is_created_or_named(app: &TestApp) {
    let evaluate = |service: &str, environment: &str, version: &str| {
        let before = app.counts();
        let answer = app.post(
            "/v1/deployments",
            json!({"service": service, "environment": environment, "version": version}),
        );
        assert_eq!(app.counts(), before);
        answer.expect_problem(404, "not_found")["detail"].as_str().unwrap().to_owned()
    };
    assert!(evaluate("checkout", "staging", "1").contains("checkout"));
    app.post("/v1/services", json!({"slug": "checkout"})).expect(201);
    assert!(evaluate("checkout", "staging", "1").contains("staging"));
    app.post("/v1/environments", json!({"slug": "staging", "tier": "staging"})).expect(201);
    let detail = evaluate("checkout", "staging", "1.2.3");
    assert!(detail.contains("checkout") && detail.contains("1.2.3"), "{detail}");

    let made = app.post("/v1/deployments", new("billing", "production", "7")).expect(201);
    assert_eq!(app.get("/v1/services/billing").expect(200)["name"], "billing");
    assert_eq!(app.get("/v1/environments/production").expect(200)["name"], "production");
    let release =
        app.get(&format!("/v1/releases/{}", made["release_id"].as_str().unwrap())).expect(200);
    assert_eq!((&release["service"], &release["version"]), (&json!("billing"), &json!("7")));
}

fn first_deployments_that_create_the_same_things_at_once_all_succeed(app: &TestApp) {
    // The same service, environment and release; then the same environment for different services.
    for answer in together(8, |_| app.post("/v1/deployments", new("checkout", "staging", "1"))) {
        answer.expect(201);
    }
    for answer in together(8, |i| {
        app.post("/v1/deployments", new(&format!("service-{i}"), "production", "1"))
    }) {
        answer.expect(201);
    }
    assert_eq!(app.all("/v1/deployments").len(), 16);
    assert_eq!(app.all("/v1/environments").len(), 2);
}

fn of_first_deployments_that_start_at_once_one_starts_and_the_others_learn_why(app: &TestApp) {
    for round in 0..5 {
        let body = new(&format!("service-{round}"), &format!("anna-{round}"), "1");
        let body = with(body, json!({"start": true}));
        let answers = together(20, |_| app.post("/v1/deployments", body.clone()));
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(won.len(), 1, "{answers:?}");
        let running = won[0].json();
        for answer in lost {
            let problem = answer.expect_problem(409, "gate_blocked");
            let reason = &problem["reasons"][0];
            assert_eq!(
                (&reason["code"], &reason["id"]),
                (&json!("deployment_running"), &running["id"])
            );
        }
    }
    // The same one, repeated at once, is one.
    let body = with(new("billing", "staging", "1"), json!({"start": true, "external_id": "17"}));
    let mut answers = together(20, |_| app.post("/v1/deployments", body.clone()));
    answers.sort_by_key(|answer| answer.status);
    let last = answers.pop().unwrap().expect(201);
    for answer in answers {
        assert_eq!(answer.expect(200)["id"], last["id"]);
    }
}

fn a_first_deployment_meets_the_rules_of_an_environment_that_is_created_at_once(app: &TestApp) {
    let mut was_first = 0;
    for round in 0..20 {
        let environment = format!("anna-{round}");
        let rules = json!({"slug": environment, "tier": "development", "required_approvals": 1});
        let start = with(new("checkout", &environment, "1"), json!({"start": true}));
        let answers = together(4, |i| match i {
            0 => app.post("/v1/environments", rules.clone()),
            _ => app.post("/v1/deployments", start.clone()),
        });
        let is_made = answers[0].status == 201;
        was_first += usize::from(is_made);
        let started = answers[1..].iter().filter(|answer| answer.status == 201).count();
        assert_eq!(started, usize::from(!is_made), "round {round}: {answers:?}");
    }
    println!("the rules came first in {was_first} of 20 rounds");
}

fn a_tier_is_guessed_from_the_name(app: &TestApp) {
    for (slug, tier) in [
        ("eu-prod", "production"),
        ("preprod", "staging"),
        ("qa", "testing"),
        ("anna", "development"),
    ] {
        app.deploy("checkout", slug, "1", false);
        assert_eq!(
            app.get(&format!("/v1/environments/{slug}")).expect(200)["tier"],
            tier,
            "{slug}"
        );
    }
}

fn a_deployment_adds_to_its_release_and_never_contradicts_it(app: &TestApp) {
    let first = app.post("/v1/deployments", imageless("checkout", "staging", "1")).expect(201);
    assert_eq!(first["image_digest"], Value::Null);
    let body = with(
        new("checkout", "production", "1"),
        json!({"git_sha": sha(1), "image_digest": digest(1)}),
    );
    let second = app.post("/v1/deployments", body).expect(201);
    assert_eq!(second["release_id"], first["release_id"]);
    for deployment in [&first, &second] {
        let now = app.get(&path(deployment)).expect(200);
        assert_eq!((&now["git_sha"], &now["image_digest"]), (&json!(sha(1)), &json!(digest(1))));
    }
    for (field, value) in [("git_sha", sha(2)), ("image_digest", digest(2))] {
        let before = app.counts();
        let problem = app.post(
            "/v1/deployments",
            with(imageless("checkout", "staging", "1"), json!({field: value})),
        );
        let problem = problem.expect_problem(409, "release_conflict");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"));
        assert_eq!(problem["release_id"], first["release_id"]);
        assert_eq!(app.counts(), before);
    }
}

fn an_external_id_names_one_deployment(app: &TestApp) {
    let body = with(
        new("checkout", "staging", "1"),
        json!({"source": "jenkins", "external_id": "run-17"}),
    );
    // That of webhooks is theirs: a number taken in advance would lead them elsewhere.
    let theirs = with(body.clone(), json!({"source": "github", "external_id": "4711"}));
    let refused = app.post("/v1/deployments", theirs).expect_problem(422, "invalid_value");
    assert_eq!(refused["errors"][0]["pointer"], "/source");
    let answer = app.post("/v1/deployments", body.clone());
    let made = answer.expect(201);
    assert_eq!(answer.header("location"), path(&made));
    let before = app.counts();
    let again = app.post("/v1/deployments", body.clone());
    assert_eq!(again.expect(200), made);
    assert_eq!((again.header("location"), again.header("etag")), ("", answer.header("etag")));
    for other in [
        json!({"version": "2"}),
        json!({"environment": "production"}),
        json!({"service": "billing"}),
    ] {
        let problem = app
            .post("/v1/deployments", with(body.clone(), other))
            .expect_problem(409, "external_id_taken");
        assert_eq!(problem["deployment_id"], made["id"]);
    }
    assert_eq!(app.counts(), before);
    // The same id in another source, and no id at all, are other deployments.
    app.post("/v1/deployments", with(body.clone(), json!({"source": "gitlab"}))).expect(201);
    app.post("/v1/deployments", with(body, json!({"external_id": null}))).expect(201);
    assert_eq!(app.all("/v1/deployments").len(), 3);
}

fn a_deployment_without_its_approvals_waits(app: &TestApp) {
    gated(app, "production");
    let before = app.counts();
    let problem = app
        .post("/v1/deployments", with(new("checkout", "production", "1"), json!({"start": true})));
    let problem = problem.expect_problem(409, "gate_blocked");
    assert_eq!(
        (&problem["reasons"][0]["code"], &problem["reasons"][0]["missing"]),
        (&json!("approval_missing"), &json!(2))
    );
    assert_eq!(problem["reasons"].as_array().unwrap().len(), 1);
    // Nothing was created for a deployment that was not recorded.
    assert_blocked(app, &before, 1);
    let waiting = app.deploy("checkout", "production", "1", false);
    assert_eq!(
        (&waiting["state"], &waiting["started_at"]),
        (&json!("awaiting_approval"), &Value::Null)
    );
    let problem = app.transition(&waiting, "running").expect_problem(409, "gate_blocked");
    assert_eq!(
        (&problem["reasons"][0]["code"], &problem["reasons"][0]["missing"]),
        (&json!("approval_missing"), &json!(2))
    );
    assert_eq!(problem["reasons"].as_array().unwrap().len(), 1);
    assert_eq!(app.get(&path(&waiting)).expect(200), waiting);
    assert_eq!(
        app.get("/v1/status").expect(200)["services"][0]["places"][0]["waiting"][0]["id"],
        waiting["id"]
    );
}

fn one_deployment_runs_in_a_place(app: &TestApp) {
    let waiting = app.deploy("checkout", "staging", "2", false);
    let running = app.deploy("checkout", "staging", "1", true);
    let before = app.counts();
    let at_once =
        app.post("/v1/deployments", with(new("checkout", "staging", "2"), json!({"start": true})));
    let later = app.post("/v1/deployments", new("checkout", "staging", "2"));
    for answer in [app.transition(&waiting, "running"), at_once, later] {
        let problem = answer.expect_problem(409, "gate_blocked");
        assert_eq!(problem["reasons"][0]["code"], "deployment_running");
        assert_eq!(problem["reasons"][0]["id"], running["id"]);
    }
    assert_blocked(app, &before, 3);
    assert_eq!(app.get(&path(&waiting)).expect(200), waiting);
    // Other places are free, and this one is when the rollout has ended.
    app.deploy("checkout", "production", "1", true);
    app.deploy("billing", "staging", "1", true);
    app.transition(&running, "failed").expect(200);
    app.transition(&waiting, "running").expect(200);
}

fn of_concurrent_starts_exactly_one_wins(app: &TestApp) {
    let waiting: Vec<_> =
        (0..4).map(|n| app.deploy("checkout", "staging", &n.to_string(), false)).collect();
    // Half of the clients start what waits, the other half record and start something new.
    let answers = together(8, |i| match waiting.get(i) {
        Some(deployment) => app.transition(deployment, "running"),
        None => app.post(
            "/v1/deployments",
            with(new("checkout", "staging", "new"), json!({"start": true})),
        ),
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status < 400);
    assert_eq!(won.len(), 1, "{won:?}");
    for answer in lost {
        assert_eq!(
            answer.expect_problem(409, "gate_blocked")["reasons"][0]["code"],
            "deployment_running"
        );
    }
    let running = app.all("/v1/deployments?state=running");
    assert_eq!(running.len(), 1);
    assert_eq!(running[0]["id"], won[0].json()["id"]);
}

fn of_concurrent_moves_all_agree_on_the_end(app: &TestApp) {
    let running = app.deploy("checkout", "staging", "1", true);
    let ends = [
        "succeeded",
        "failed",
        "cancelled",
        "succeeded",
        "failed",
        "cancelled",
        "succeeded",
        "failed",
    ];
    let answers = together(ends.len(), |i| (ends[i], app.transition(&running, ends[i])));
    let now = app.get(&path(&running)).expect(200);
    assert_eq!(now["revision"], 2);
    for (end, answer) in answers {
        if now["state"] == end {
            assert_eq!(answer.expect(200), now);
        } else {
            answer.expect_problem(409, "invalid_transition");
        }
    }
    assert_eq!(
        app.all(&format!("{}/events", path(&running))).len(),
        3,
        "requested, started, ended"
    );
}

fn a_list_is_filtered(app: &TestApp) {
    let a = app.go_live("checkout", "staging", "1");
    let b = app.deploy("checkout", "production", "1", true);
    let c = app.deploy("billing", "staging", "1", false);
    let d = app.go_live("checkout", "staging", "2");
    let ids = |query: &str| {
        app.all(&format!("/v1/deployments{query}"))
            .iter()
            .map(|item| item["id"].clone())
            .collect::<Vec<_>>()
    };
    let expected = |deployments: &[&Value]| {
        deployments.iter().map(|deployment| deployment["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(""), expected(&[&d, &c, &b, &a]));
    assert_eq!(ids("?service=checkout"), expected(&[&d, &b, &a]));
    assert_eq!(ids("?environment=staging"), expected(&[&d, &c, &a]));
    assert_eq!(ids("?service=checkout&environment=staging"), expected(&[&d, &a]));
    assert_eq!(ids("?state=superseded"), expected(&[&a]));
    assert_eq!(ids("?state=approved&service=checkout"), expected(&[]));
    assert_eq!(ids("?service=unknown"), expected(&[]));
    let (at_b, at_d) = (b["requested_at"].as_str().unwrap(), d["requested_at"].as_str().unwrap());
    assert_eq!(
        ids(&format!("?since={at_b}")),
        expected(&[&d, &c, &b]),
        "`since` includes its instant"
    );
    assert_eq!(ids(&format!("?until={at_b}")), expected(&[&a]), "`until` does not");
    assert_eq!(ids(&format!("?since={at_b}&until={at_d}&environment=production")), expected(&[&b]));
    // The same instant, written with another offset.
    assert_eq!(ids(&format!("?since={}", at_d.replace('Z', "%2B00:00"))), expected(&[&d]));
    assert_eq!(ids("?since=2999-01-01T00:00:00Z"), expected(&[]));
}

fn what_the_client_says_is_kept(app: &TestApp) {
    let sent = json!({
        "requested_by": "Zoë", "source": "script", "external_id": "17 / 3",
        "run_url": "https://ci.example.org/runs/17", "unplanned": true,
        "reason": "Kasse steht.\n\tBestellungen gehen verloren. 🙈", "git_sha": sha(1),
        "image_digest": digest(1)
    });
    let made = app
        .post("/v1/deployments", with(new("checkout", "staging", "1.0+b_1"), sent.clone()))
        .expect(201);
    for (field, value) in sent.as_object().unwrap() {
        assert_eq!(made[field], *value, "{field}");
    }
    assert_eq!(app.get(&path(&made)).expect(200), made);
    let unsaid = app.post("/v1/deployments", new("checkout", "staging", "2")).expect(201);
    assert_eq!(
        (&unsaid["requested_by"], &unsaid["source"], &unsaid["unplanned"]),
        (&json!("bootstrap"), &json!("api"), &json!(false))
    );
}

fn an_unknown_deployment_is_not_found(app: &TestApp) {
    let unknown = json!({"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42"});
    app.get(&path(&unknown)).expect_problem(404, "not_found");
    app.get(&format!("{}/events", path(&unknown))).expect_problem(404, "not_found");
    app.transition(&unknown, "running").expect_problem(404, "not_found");
}
