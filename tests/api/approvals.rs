//! Who may approve what, and how often an approval counts.

use crate::gate::{
    codes, deploy, evaluate, expect_blocked, go_live, in_minutes, now, person, post_review,
    production, release, sql, with,
};
use crate::harness::{TestApp, count, digest, together};
use serde_json::{Value, json};

crate::on_both_databases! {
    of_concurrent_starts_with_one_approval_exactly_one_runs
    of_concurrent_new_deployments_with_one_approval_exactly_one_runs
    an_approval_is_used_up_by_a_start
    an_approval_is_bound_to_the_image
    an_approval_is_bound_to_the_environment
    nobody_approves_their_own_deployment
    an_environment_may_allow_ones_own_approval
    two_approvals_are_two_people
    a_rejection_holds_until_a_later_approval
    a_rejection_takes_back_only_what_needs_approval
    an_approval_runs_out
    an_approval_lets_what_waits_for_it_move_on
    a_review_is_mirrored_once
    a_list_of_approvals_is_filtered
    one_person_is_one_in_any_case
}

/// Checks that exactly one of the answers is a deployment that runs, that the approval was used for
/// it, and that the others met the gate.
#[track_caller]
fn expect_one_runs(app: &TestApp, answers: Vec<crate::harness::Answer>, approval: &Value) {
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status < 400);
    assert_eq!(won.len(), 1, "{won:?}");
    let running = won[0].json();
    for answer in lost {
        expect_blocked(&answer, &["deployment_running", "approval_missing"]);
    }
    let all: Vec<_> = app
        .all("/v1/deployments?state=running")
        .iter()
        .map(|deployment| deployment["id"].clone())
        .collect();
    assert_eq!(all, [running["id"].clone()]);
    let approvals = app.all("/v1/approvals");
    assert_eq!(approvals.len(), 1);
    assert_eq!(
        (&approvals[0]["id"], &approvals[0]["consumed_by"]),
        (&approval["id"], &running["id"])
    );
}

fn of_concurrent_starts_with_one_approval_exactly_one_runs(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    // Half of them wait for the approval, the other half is recorded with it.
    let mut waiting: Vec<_> =
        (0..10).map(|_| deploy(app, pipeline, "1", json!({})).expect(201)).collect();
    let approval = post_review(app, alice, "1", "approved").expect(201);
    waiting.extend((0..10).map(|_| deploy(app, pipeline, "1", json!({})).expect(201)));
    assert_eq!(app.all("/v1/deployments?state=approved").len(), 20);
    expect_one_runs(app, together(20, |i| app.transition(&waiting[i], "running")), &approval);
}

fn of_concurrent_new_deployments_with_one_approval_exactly_one_runs(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    let approval = post_review(app, alice, "1", "approved").expect(201);
    expect_one_runs(
        app,
        together(10, |_| deploy(app, pipeline, "1", json!({"start": true}))),
        &approval,
    );
}

fn an_approval_is_used_up_by_a_start(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    let approval = post_review(app, alice, "1", "approved").expect(201);
    assert_eq!(approval["consumed_by"], Value::Null);
    let running = deploy(app, pipeline, "1", json!({"start": true})).expect(201);
    assert_eq!(app.all("/v1/approvals")[0]["consumed_by"], running["id"]);
    // A rollout that failed has used it up as well.
    app.transition(&running, "failed").expect(200);
    expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["approval_missing"]);
    post_review(app, alice, "1", "approved").expect(201);
    go_live(app, pipeline, "1");
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_missing"]);
    assert_eq!(count(&mut app.db(), "approvals WHERE consumed_by IS NULL"), 0);
}

fn an_approval_is_bound_to_the_image(app: &TestApp) {
    // Of the staging tier, where a release need not name an image.
    app.post(
        "/v1/environments",
        json!({"slug": "production", "tier": "staging", "required_approvals": 1}),
    )
    .expect(201);
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    let nameless = json!({"service": "checkout", "version": "1", "create_missing": true});
    app.post("/v1/releases", nameless.clone()).expect(201);
    post_review(app, alice, "1", "approved").expect(201);
    let approved = deploy(app, pipeline, "1", json!({})).expect(201);
    assert_eq!(
        (&approved["state"], &evaluate(app, pipeline, "1")["allowed"]),
        (&json!("approved"), &json!(true))
    );

    // With the deployment itself, or before it: an image that nobody has approved.
    let named = json!({"image_digest": digest(1)});
    expect_blocked(
        &deploy(app, pipeline, "1", with(named.clone(), json!({"start": true}))),
        &["approval_missing"],
    );
    app.post("/v1/releases", with(nameless, named)).expect(200);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_missing"]);
    expect_blocked(&app.transition(&approved, "running"), &["approval_missing"]);
    let approval = post_review(app, alice, "1", "approved").expect(201);
    assert_eq!(approval["image_digest"], digest(1));
    app.transition(&approved, "running").expect(200);
}

fn an_approval_is_bound_to_the_environment(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    app.post(
        "/v1/environments",
        json!({"slug": "staging", "tier": "staging", "required_approvals": 1}),
    )
    .expect(201);
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    release(app, "2");
    let body = json!({"service": "checkout", "environment": "staging", "version": "1",
        "decision": "approved"});
    app.call("POST", "/v1/approvals", alice, Some(&body), &[]).expect(201);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_missing"]);
    deploy(app, pipeline, "1", json!({"environment": "staging", "start": true})).expect(201);
    post_review(app, alice, "1", "approved").expect(201);
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true);
    assert_eq!(codes(&evaluate(app, pipeline, "2")), ["approval_missing"], "another release");
}

fn nobody_approves_their_own_deployment(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (alice, bob) = (&person(app, "alice"), &person(app, "bob"));
    release(app, "1");
    // Given before the request, it is recorded: it counts for others.
    post_review(app, alice, "1", "approved").expect(201);
    let waiting = deploy(app, alice, "1", json!({})).expect(201);
    assert_eq!(waiting["state"], "awaiting_approval");
    expect_blocked(&app.transition(&waiting, "running"), &["approval_missing"]);
    post_review(app, alice, "1", "approved").expect_problem(403, "own_approval");
    let nobody = app.key("nobody", &["read", "deploy", "mirror"]);
    post_review(app, &nobody, "1", "approved").expect_problem(403, "missing_scope");
    assert_eq!(now(app, &waiting)["state"], "awaiting_approval");
    post_review(app, bob, "1", "approved").expect(201);
    app.transition(&waiting, "running").expect(200);
    assert_eq!(
        count(&mut app.db(), "approvals WHERE consumed_by IS NOT NULL AND approver = 'alice'"),
        0
    );
}

fn an_environment_may_allow_ones_own_approval(app: &TestApp) {
    production(app, json!({"required_approvals": 1, "allow_self_approval": true}));
    let alice = &person(app, "alice");
    release(app, "1");
    let waiting = deploy(app, alice, "1", json!({})).expect(201);
    post_review(app, alice, "1", "approved").expect(201);
    assert_eq!(now(app, &waiting)["state"], "approved");
    app.transition(&waiting, "running").expect(200);
}

fn two_approvals_are_two_people(app: &TestApp) {
    production(app, json!({"required_approvals": 2}));
    let (pipeline, alice, bob) =
        (&person(app, "pipeline"), &person(app, "alice"), &person(app, "bob"));
    release(app, "1");
    let waiting = deploy(app, pipeline, "1", json!({})).expect(201);
    for _ in 0..2 {
        post_review(app, alice, "1", "approved").expect(201);
        assert_eq!(now(app, &waiting)["state"], "awaiting_approval");
        assert_eq!(evaluate(app, pipeline, "1")["reasons"][0]["missing"], 1);
    }
    post_review(app, bob, "1", "approved").expect(201);
    app.transition(&waiting, "running").expect(200);
}

fn a_rejection_holds_until_a_later_approval(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice, bob) =
        (&person(app, "pipeline"), &person(app, "alice"), &person(app, "bob"));
    release(app, "1");
    let waiting: Vec<_> =
        (0..2).map(|_| deploy(app, pipeline, "1", json!({})).expect(201)).collect();
    let rejection = post_review(app, alice, "1", "rejected").expect(201);
    for deployment in &waiting {
        assert_eq!(now(app, deployment)["state"], "rejected");
        app.transition(deployment, "running").expect_problem(409, "invalid_transition");
    }
    let problem =
        expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["approval_rejected"]);
    assert_eq!(problem["reasons"][0]["id"], rejection["id"]);
    post_review(app, bob, "1", "approved").expect(201);
    let running = deploy(app, pipeline, "1", json!({"start": true})).expect(201);
    app.transition(&running, "failed").expect(200);

    // A rejection after an approval holds too, and its author may take it back. A deployment that
    // was approved waits again.
    release(app, "2");
    post_review(app, bob, "2", "approved").expect(201);
    let approved = deploy(app, pipeline, "2", json!({})).expect(201);
    assert_eq!(approved["state"], "approved");
    post_review(app, alice, "2", "rejected").expect(201);
    let waiting = now(app, &approved);
    assert_eq!(waiting["state"], "awaiting_approval");
    assert!(waiting["expires_at"].is_string(), "{waiting}");
    let event =
        &app.all(&format!("/v1/deployments/{}/events", approved["id"].as_str().unwrap()))[0];
    assert_eq!(
        (&event["action"], &event["actor"], &event["payload"]["from"], &event["payload"]["to"]),
        (
            &json!("deployment.approval_withdrawn"),
            &json!("alice"),
            &json!("approved"),
            &json!("awaiting_approval")
        )
    );
    expect_blocked(&app.transition(&approved, "running"), &["approval_rejected"]);
    post_review(app, alice, "2", "approved").expect(201);
    assert_eq!(now(app, &approved)["state"], "approved");
    app.transition(&approved, "running").expect(200);
}

fn a_rejection_takes_back_only_what_needs_approval(app: &TestApp) {
    production(app, json!({}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    release(app, "2");
    let free = deploy(app, pipeline, "1", json!({})).expect(201);
    let other = deploy(app, pipeline, "2", json!({})).expect(201);
    post_review(app, alice, "1", "rejected").expect(201);
    for deployment in [&free, &other] {
        assert_eq!(now(app, deployment), *deployment, "the environment requires no approval");
    }

    // A second rejection is about a deployment that waits.
    sql(app, "UPDATE environments SET required_approvals = 1");
    post_review(app, alice, "2", "approved").expect(201);
    post_review(app, alice, "2", "rejected").expect(201);
    assert_eq!(now(app, &other)["state"], "awaiting_approval");
    post_review(app, alice, "2", "rejected").expect(201);
    assert_eq!(now(app, &other)["state"], "rejected");
}

fn an_approval_runs_out(app: &TestApp) {
    production(app, json!({"required_approvals": 1, "approval_ttl_hours": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    release(app, "1");
    let approval = post_review(app, alice, "1", "approved").expect(201);
    let hour = |from: &str, to: &str| {
        let at =
            |field: &str| approval[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        at(to).duration_since(at(from))
    };
    assert_eq!(hour("created_at", "expires_at"), jiff::SignedDuration::from_hours(1));
    let approved = deploy(app, pipeline, "1", json!({})).expect(201);
    let (made, past) = (in_minutes(-120), in_minutes(-60));
    sql(app, &format!("UPDATE approvals SET created_at = '{made}', expires_at = '{past}'"));
    let problem = expect_blocked(&app.transition(&approved, "running"), &["approval_expired"]);
    assert_eq!(problem["reasons"][0]["missing"], 1);
    assert_eq!(evaluate(app, pipeline, "1")["reasons"], problem["reasons"]);
    post_review(app, alice, "1", "approved").expect(201);
    app.transition(&approved, "running").expect(200);
}

fn an_approval_lets_what_waits_for_it_move_on(app: &TestApp) {
    production(app, json!({"required_approvals": 1, "approval_ttl_hours": 2}));
    let (alice, bob) = (&person(app, "alice"), &person(app, "bob"));
    release(app, "1");
    release(app, "2");
    let of_alice = deploy(app, alice, "1", json!({})).expect(201);
    let of_bob = deploy(app, bob, "1", json!({})).expect(201);
    let other = deploy(app, bob, "2", json!({})).expect(201);
    // Hers counts for his alone.
    post_review(app, alice, "1", "approved").expect(201);
    let states =
        || [&of_alice, &of_bob, &other].map(|deployment| now(app, deployment)["state"].clone());
    assert_eq!(states(), ["awaiting_approval", "approved", "awaiting_approval"]);
    let events = app.all(&format!("/v1/deployments/{}/events", of_bob["id"].as_str().unwrap()));
    assert_eq!(
        (&events[0]["action"], &events[0]["actor"]),
        (&json!("deployment.approved"), &json!("alice"))
    );
    assert!(
        now(app, &of_bob)["expires_at"].as_str() > of_bob["expires_at"].as_str(),
        "it may wait anew for its start"
    );
    post_review(app, bob, "1", "approved").expect(201);
    assert_eq!(states(), ["approved", "approved", "awaiting_approval"]);
}

fn a_review_is_mirrored_once(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    let mirror = &app.key("mirror", &["mirror"]);
    release(app, "1");
    let review = json!({
        "service": "checkout", "environment": "production", "version": "1", "decision": "approved",
        "source": "github", "approver": "zoe",
        "run_url": "https://github.example.org/shop/checkout/actions/runs/17"
    });
    let send = |key: &str, body: &Value| app.call("POST", "/v1/approvals", key, Some(body), &[]);
    send(alice, &review).expect_problem(403, "missing_scope");
    post_review(app, mirror, "1", "approved").expect_problem(403, "missing_scope");
    for missing in ["approver", "run_url"] {
        let mut partial = review.clone();
        partial.as_object_mut().unwrap().remove(missing);
        let problem = send(mirror, &partial).expect_problem(422, "missing_field");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{missing}"));
    }
    // A key with a person's own name cannot report the reviews of others.
    send(alice, &with(review.clone(), json!({"source": "api"})))
        .expect_problem(422, "invalid_value");

    let answers = crate::harness::together(4, |_| send(mirror, &review));
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
    let approval = answers[0].json();
    assert!(answers.iter().all(|answer| answer.json() == approval));
    assert_eq!(
        (&approval["approver"], &approval["recorded_by"], &approval["source"]),
        (&json!("zoe"), &json!("mirror"), &json!("github"))
    );
    assert_eq!(app.all("/v1/approvals").len(), 1);

    let running = deploy(app, pipeline, "1", json!({"start": true})).expect(201);
    let problem = send(mirror, &review).expect_problem(409, "approval_used");
    assert_eq!(problem["deployment_id"], running["id"]);
    app.transition(&running, "failed").expect(200);
    expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["approval_missing"]);
    // The approver of a review counts as the person, not the key that reported it.
    send(mirror, &with(review, json!({"review_id": "18", "approver": "pipeline"}))).expect(201);
    expect_blocked(&deploy(app, pipeline, "1", json!({"start": true})), &["approval_missing"]);
}

fn a_list_of_approvals_is_filtered(app: &TestApp) {
    production(app, json!({}));
    let alice = &person(app, "alice");
    release(app, "1");
    let mut made: Vec<_> = ["approved", "rejected", "approved"]
        .map(|decision| post_review(app, alice, "1", decision).expect(201))
        .into();
    made.reverse();
    assert_eq!(app.all("/v1/approvals?service=checkout&environment=production"), made);
    let release = made[0]["release_id"].as_str().unwrap();
    assert_eq!(app.all(&format!("/v1/approvals?release_id={release}")), made);
    assert_eq!(
        app.all("/v1/approvals?release_id=019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41"),
        [] as [Value; 0]
    );
    assert_eq!(app.all("/v1/approvals?service=billing"), [] as [Value; 0]);
    assert_eq!(app.all("/v1/approvals?environment=staging"), [] as [Value; 0]);
}

fn one_person_is_one_in_any_case(app: &TestApp) {
    production(app, json!({"required_approvals": 2}));
    release(app, "1");
    let (pipeline, alice) = (&person(app, "pipeline"), &person(app, "alice"));
    let mirrored = |approver: &str, decision: &str| {
        let review = json!({"service": "checkout", "environment": "production", "version": "1",
            "source": "github", "approver": approver, "decision": decision,
            "run_url": "https://github.com/shop/checkout/actions/runs/1"});
        app.post("/v1/approvals", review)
    };
    post_review(app, alice, "1", "approved").expect(201);
    let of_github = mirrored("Alice", "approved").expect(201);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_missing"]);
    // The identifier that prop makes of the run, the approver and the decision is one too.
    let again = mirrored("ALICE", "approved").expect(200);
    assert_eq!((&again["id"], &again["approver"]), (&of_github["id"], &json!("Alice")));
    let named = |review_id: &str, approver: &str| {
        let review = json!({"service": "checkout", "environment": "production", "version": "1",
            "source": "github", "approver": approver, "decision": "approved",
            "run_url": "https://github.com/shop/checkout/actions/runs/2", "review_id": review_id});
        app.post("/v1/approvals", review)
    };
    named("run 2 Dora approved 1", "Dora").expect(201);
    named("run 2 dora approved 1", "dora").expect(200);
    // Whoever rejects withdraws their own approval, and the other way round.
    let bob = &person(app, "Bob");
    mirrored("bob", "rejected").expect(201);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_rejected"]);
    post_review(app, bob, "1", "approved").expect(201);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), [""; 0]);
    // Who requested it does not approve it, and finds their events, in any case.
    sql(app, "DELETE FROM approvals");
    app.patch("/v1/environments/production", json!({"required_approvals": 1}), &[]).expect(200);
    deploy(app, pipeline, "1", json!({"requested_by": "BOB"})).expect(201);
    post_review(app, bob, "1", "approved").expect_problem(403, "own_approval");
    mirrored("bOb", "approved").expect_problem(403, "own_approval");
    let of_bob = |name: &str| app.all(&format!("/v1/events?actor={name}")).len();
    assert_eq!((of_bob("Bob"), of_bob("bob"), of_bob("bo")), (1, 1, 0));
}
