//! Ways around the gate that were open once.

use crate::gate::{
    codes, deploy, evaluate, expect_blocked, go_live, person, post_review, production, release,
    with,
};
use crate::harness::TestApp;
use serde_json::{Value, json};

crate::on_both_databases! {
    what_was_rolled_back_is_no_way_back
    a_person_counts_once_however_often_they_said_yes
    a_rejection_that_was_taken_back_does_not_come_back
    a_run_may_review_two_services
    a_review_that_changed_its_mind_is_heard
    who_asks_under_another_name_does_not_approve_it
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
