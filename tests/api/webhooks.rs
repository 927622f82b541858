//! GitHub's webhooks: signed, kept once, and brought into the ledger whatever order they come in.

use crate::harness::{
    ADMIN, Answer, TestApp, WEBHOOK_SECRET, count, new_deployment, together, with,
};
use diesel::RunQueryDsl;
use hmac::{Hmac, Mac};
use prop::types::token::hex;
use serde_json::{Value, json};
use sha2::Sha256;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

crate::on_both_databases! {
    every_example_of_github_is_taken
    a_signature_is_checked_before_anything_else
    without_a_secret_nothing_is_taken
    a_secret_signs_only_for_its_repositories
    a_secret_is_replaced_without_losing_a_delivery
    what_is_no_delivery_is_refused
    a_delivery_is_done_once
    a_delivery_that_comes_twice_at_once_is_done_once
    deliveries_are_listed_and_read
    an_unknown_event_is_kept_and_does_nothing
    what_is_told_again_is_kept_once
    what_can_not_be_applied_is_kept_and_says_why
    a_deployment_goes_where_github_says
    any_order_ends_in_the_same_state
    deliveries_that_come_together_are_put_in_order
    a_late_success_does_not_replace_what_is_live
    a_success_that_turns_out_to_be_none_gives_its_place_back
    what_skipped_the_gate_is_flagged
    a_waiting_deployment_moves_on_with_a_review
    a_rejected_review_ends_what_waits
    a_run_that_is_done_again_is_reviewed_again
    a_review_counts_wherever_it_can
    a_review_is_for_the_services_of_its_run
    who_started_the_run_asked_for_it
    what_a_success_replaced_comes_back
    a_service_is_found_by_its_repository
    a_service_without_a_repository_is_nobodys
    a_failed_delivery_may_be_sent_again
    what_the_database_fails_for_is_not_kept
    a_tag_that_was_moved_makes_another_release
    a_rollout_that_its_script_recorded_is_not_recorded_twice
    a_script_adopts_what_a_webhook_told_of_its_run
    the_gate_lets_a_script_past_what_its_own_run_has_told
    a_script_that_the_gate_holds_back_ends_what_its_webhook_began
    what_a_webhook_had_used_up_is_given_back
    a_job_that_begins_ends_no_rollout_of_a_script
    the_end_of_a_run_ends_what_still_runs
    what_has_ended_is_not_started_again_by_what_comes_late
    a_redelivered_approval_does_not_beat_a_later_rejection
    jobs_that_deploy_nothing_are_ignored
    what_github_reported_as_gone_before_an_upgrade_stays_gone
    a_number_that_somebody_took_carries_no_delivery_there
    a_number_of_another_github_is_another_deployment
    a_run_is_reported_by_its_own_repository
    a_delivery_with_nul_is_recorded
}

const RUN: &str = "https://github.com/Codertocat/Hello-World/actions/runs/77";
const SHA: &str = "f95f852bd8fca8fcc58a9a2d6c842781e32a215e";

fn signature(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

/// A name that no other delivery has.
fn fresh() -> String {
    static DELIVERIES: AtomicU32 = AtomicU32::new(0);
    format!("72d3162e-cc78-11e3-81ab-{:012}", DELIVERIES.fetch_add(1, Ordering::Relaxed))
}

/// Sends a body with these headers.
#[track_caller]
fn post(app: &TestApp, body: &[u8], headers: &[(&str, &str)]) -> Answer {
    let mut request =
        app.request("POST", "/webhooks/github").header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(body.to_vec()).unwrap())
}

#[track_caller]
fn deliver_as(app: &TestApp, id: &str, event: &str, body: &[u8]) -> Answer {
    let signature = signature(WEBHOOK_SECRET, body);
    post(
        app,
        body,
        &[
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", id),
            ("X-Hub-Signature-256", &signature),
        ],
    )
}

/// Sends a payload as GitHub does, as a fresh delivery; returns what came of it.
#[track_caller]
pub fn deliver(app: &TestApp, event: &str, payload: &Value) -> Value {
    deliver_as(app, &fresh(), event, payload.to_string().as_bytes()).expect(202)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/payloads")
}

fn example(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(examples().join(path)).unwrap()).unwrap()
}

/// `second` seconds into the time of these tests: all in the past.
fn at(second: u32) -> String {
    format!("2026-02-03T04:{:02}:{:02}Z", second / 60, second % 60)
}

/// What GitHub reports of a deployment: with a status if `state` is not empty. Built upon its
/// example.
pub fn report(id: u64, environment: &str, state: &str, second: u32) -> (&'static str, Value) {
    let mut payload = example("deployment_status/payload.json");
    let deployment = &mut payload["deployment"];
    (deployment["id"], deployment["environment"]) = (json!(id), json!(environment));
    deployment["created_at"] = json!(at(0));
    if state.is_empty() {
        payload.as_object_mut().unwrap().remove("deployment_status");
        return ("deployment", payload);
    }
    let status = &mut payload["deployment_status"];
    (status["id"], status["state"], status["environment"]) =
        (json!(1000 + second), json!(state), json!(environment));
    status["created_at"] = json!(at(second));
    ("deployment_status", payload)
}

/// The same, of a workflow's run.
fn told_of_run(id: u64, environment: &str, state: &str, second: u32) -> (&'static str, Value) {
    let (event, mut payload) = report(id, environment, state, second);
    payload["workflow_run"] = json!({"html_url": RUN, "id": 77});
    (event, payload)
}

/// What GitHub reports of the end of a run.
fn run_ended(run: &str, conclusion: &str, updated: &str) -> (&'static str, Value) {
    let mut payload = example("workflow_run/completed.payload.json");
    let (repository, _) = run.split_once("/actions/").unwrap();
    payload["repository"]["html_url"] = json!(repository);
    let reported = &mut payload["workflow_run"];
    (reported["html_url"], reported["conclusion"], reported["updated_at"]) =
        (json!(run), json!(conclusion), json!(updated));
    ("workflow_run", payload)
}

/// Reports that a run has failed now, and returns what came of it.
#[track_caller]
pub fn deliver_run_ended(app: &TestApp, run: &str) -> Value {
    send(app, run_ended(run, "failure", &crate::gate::in_minutes(0)))
}

#[track_caller]
fn send(app: &TestApp, (event, payload): (&str, Value)) -> Value {
    deliver(app, event, &payload)
}

/// The only deployment of the ledger.
#[track_caller]
fn only(app: &TestApp) -> Value {
    let mut all = app.all("/v1/deployments");
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[track_caller]
fn states(app: &TestApp) -> Vec<String> {
    let mut all: Vec<_> = app
        .all("/v1/deployments")
        .iter()
        .map(|one| format!("{} {}", one["external_id"], one["state"]))
        .collect();
    all.sort();
    all.into_iter().map(|line| line.replace('"', "")).collect()
}

fn every_example_of_github_is_taken(app: &TestApp) {
    let mut taken = Vec::new();
    for event in ["deployment", "deployment_status", "ping", "workflow_run"] {
        let files = examples().join(event).read_dir().unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            let body = std::fs::read(&file).unwrap();
            let answer = deliver_as(app, &fresh(), event, &body).expect(202);
            let is_kept =
                app.get(&format!("/v1/deliveries/{}", answer["id"].as_str().unwrap())).expect(200);
            assert_eq!(is_kept["body"], String::from_utf8(body).unwrap(), "byte for byte");
            assert_ne!(answer["outcome"], "failed", "{}: {answer}", file.display());
            taken.push(format!("{event}: {}", answer["outcome"].as_str().unwrap()));
        }
    }
    assert_eq!(taken.len(), 13);
    assert_eq!(taken.iter().filter(|line| line.ends_with("ignored")).count(), 5, "{taken:?}");
    let pages = "/v1/services/hello-world/environments/github-pages";
    // The examples share one number, as the same deployment to two places can't: the first reported
    // one counts.
    assert_eq!(states(app), ["145988746 succeeded"]);
    assert!(
        app.get(pages).status == 200
            || app.get("/v1/services/hello-world/environments/production").status == 200
    );
}

fn a_signature_is_checked_before_anything_else(app: &TestApp) {
    let vectors: Value = example("signature-vectors.json");
    let vectors =
        vectors["vectors"].as_array().unwrap().iter().filter(|vector| vector["scheme"] == "github");
    let mut checked = 0;
    for vector in vectors {
        let text = |field: &str| vector[field].as_str().unwrap();
        assert_eq!(
            text("secret"),
            WEBHOOK_SECRET,
            "the apps of these tests have GitHub's own example for a secret"
        );
        assert_eq!(signature(text("secret"), text("payload").as_bytes()), text("expected"));
        // Signed as it should be; only then it shows that it is no JSON.
        let named = [
            ("X-GitHub-Event", "ping"),
            ("X-GitHub-Delivery", "1"),
            (text("header"), text("expected")),
        ];
        post(app, text("payload").as_bytes(), &named).expect_problem(400, "malformed_json");
        checked += 1;
    }
    assert_eq!(checked, 1);

    let body = example("ping/payload.json").to_string();
    let right = signature(WEBHOOK_SECRET, body.as_bytes());
    let named = [("X-GitHub-Event", "ping"), ("X-GitHub-Delivery", "1")];
    post(app, body.as_bytes(), &named).expect_problem(401, "invalid_signature");
    let flipped = right.replace(|digit: char| digit == right.chars().last().unwrap(), "z");
    let wrong = [
        signature("another secret altogether", body.as_bytes()),
        signature(WEBHOOK_SECRET, b"another body"),
        right[..right.len() - 2].to_owned(),
        right.replace("sha256=", "sha1="),
        right.replace("sha256=", ""),
        format!("{right}00"),
        flipped,
        "sha256=".into(),
        "sha256=é".into(),
    ];
    for wrong in wrong {
        let problem =
            post(app, body.as_bytes(), &[&named[..], &[("X-Hub-Signature-256", &wrong)]].concat());
        let reported = problem.expect_problem(401, "invalid_signature").to_string();
        assert!(
            !reported.contains(&right[7..]) && !reported.contains(WEBHOOK_SECRET),
            "{reported}"
        );
    }
    post(
        app,
        format!("{body} ").as_bytes(),
        &[&named[..], &[("X-Hub-Signature-256", &right)]].concat(),
    )
    .expect_problem(401, "invalid_signature");
    // A key is none.
    let request =
        app.request("POST", "/webhooks/github").header("Authorization", format!("Bearer {ADMIN}"));
    let request =
        request.header("Content-Type", "application/json").body(body.clone().into_bytes()).unwrap();
    app.send(request).expect_problem(401, "invalid_signature");
    assert!(app.all("/v1/deliveries").is_empty());
    let upper = format!("sha256={}", right[7..].to_uppercase());
    for right in [&right, &upper] {
        let answer =
            post(app, body.as_bytes(), &[&named[..], &[("X-Hub-Signature-256", right)]].concat());
        assert!(answer.status == 202 || answer.status == 200, "{}", answer.text);
    }
}

fn without_a_secret_nothing_is_taken(app: &TestApp) {
    let without = TestApp::start(&app.database_url, &[("PROP_GITHUB__WEBHOOK_SECRET", "")]);
    let body = example("ping/payload.json").to_string();
    deliver_as(&without, "1", "ping", body.as_bytes()).expect_problem(403, "webhooks_off");
    // Nor what an empty secret would have signed.
    let signature = signature("", body.as_bytes());
    let headers = [
        ("X-GitHub-Event", "ping"),
        ("X-GitHub-Delivery", "1"),
        ("X-Hub-Signature-256", signature.as_str()),
    ];
    post(&without, body.as_bytes(), &headers).expect_problem(403, "webhooks_off");
    assert!(without.all("/v1/deliveries").is_empty());
}

const SHOP: &str = "a secret of the owner acme";
const OTHER: &str = "a secret of one repository";

/// An app whose webhooks may have these secrets, as JSON.
fn with_secrets(app: &TestApp, single: &str, secrets: Value) -> TestApp {
    let secrets = secrets.to_string();
    let settings = [
        ("PROP_GITHUB__WEBHOOK_SECRET", single),
        ("PROP_GITHUB__WEBHOOK_SECRETS", secrets.as_str()),
    ];
    TestApp::start(&app.database_url, &settings)
}

/// Sends a payload that is signed with this secret.
#[track_caller]
fn signed(app: &TestApp, secret: &str, event: &str, body: &[u8]) -> Answer {
    let (id, signature) = (fresh(), signature(secret, body));
    let headers = [
        ("X-GitHub-Event", event),
        ("X-GitHub-Delivery", &id),
        ("X-Hub-Signature-256", &signature),
    ];
    post(app, body, &headers)
}

fn a_secret_signs_only_for_its_repositories(app: &TestApp) {
    let limited = with_secrets(
        app,
        "",
        json!([
            {"secret": SHOP, "repositories": ["Acme", "partner/store"]},
            {"secret": OTHER, "repositories": ["other/shop"]},
        ]),
    );
    let about = |number: u64, full_name: &str, html_url: &str| {
        let (event, mut payload) = report(number, "production", "success", 5);
        let name = full_name.split_once('/').map_or(full_name, |(_, name)| name);
        (payload["repository"]["name"], payload["repository"]["full_name"]) =
            (json!(name), json!(full_name));
        payload["repository"]["html_url"] = json!(html_url);
        (event, payload.to_string())
    };
    let of = |number, name: &str| about(number, name, &format!("https://github.com/{name}"));
    for (number, secret, name, is_taken) in [
        (1, SHOP, "acme/shop", true),
        (2, SHOP, "ACME/tools", true),
        (3, SHOP, "partner/store", true),
        (4, SHOP, "partner/other", false),
        (5, SHOP, "acme2/shop", false),
        (6, SHOP, "other/shop", false),
        (7, OTHER, "other/shop", true),
        (8, OTHER, "acme/shop", false),
        (9, OTHER, "other/shop2", false),
        (10, OTHER, "other", false),
        (11, WEBHOOK_SECRET, "acme/shop", false),
    ] {
        let (event, body) = of(number, name);
        let answer = signed(&limited, secret, event, body.as_bytes());
        if is_taken {
            assert_eq!(answer.expect(202)["outcome"], "applied", "{name}");
        } else {
            let problem = answer.expect_problem(401, "invalid_signature");
            // Word for word what a wrong signature is answered.
            let wrong = signed(&limited, "no secret at all", event, body.as_bytes());
            let wrong = wrong.expect_problem(401, "invalid_signature");
            assert_eq!(problem["detail"], wrong["detail"], "{name}");
        }
    }
    // The name is that of the own repository, and the URL, which finds the service, of another one.
    let (event, body) = about(12, "other/shop", "https://github.com/acme/shop");
    signed(&limited, OTHER, event, body.as_bytes()).expect_problem(401, "invalid_signature");
    // The run of another repository ends nothing.
    let (event, mut ended) = run_ended(RUN, "failure", &at(60));
    (ended["repository"]["full_name"], ended["repository"]["html_url"]) =
        (json!("other/shop"), json!("https://github.com/other/shop"));
    let answer = signed(&limited, OTHER, event, ended.to_string().as_bytes());
    assert_eq!(answer.expect(202)["outcome"], "failed");
    // A webhook of an organization says whose it is; one that does not say it is nobody's.
    let ping = |payload: Value| signed(&limited, SHOP, "ping", payload.to_string().as_bytes());
    assert_eq!(ping(json!({"organization": {"login": "acme"}})).status, 202);
    ping(json!({"organization": {"login": "other"}})).expect_problem(401, "invalid_signature");
    ping(json!({"zen": "Keep it logically awesome."})).expect_problem(401, "invalid_signature");
    ping(json!([])).expect_problem(401, "invalid_signature");
    signed(&limited, SHOP, "ping", b"{").expect_problem(400, "malformed_json");
    let failed = limited.all("/v1/deliveries?outcome=failed");
    assert_eq!((limited.all("/v1/deployments").len(), failed.len()), (4, 1));
}

fn a_secret_is_replaced_without_losing_a_delivery(app: &TestApp) {
    let send = |app: &TestApp, secret: &str, number: u64| {
        let (event, payload) = report(number, "production", "success", 5);
        signed(app, secret, event, payload.to_string().as_bytes()).status
    };
    // Old, old and new, new: as docs/webhooks.md says it.
    let both = with_secrets(app, WEBHOOK_SECRET, json!([{"secret": SHOP}]));
    assert_eq!((send(&both, WEBHOOK_SECRET, 1), send(&both, SHOP, 2)), (202, 202));
    let new = with_secrets(app, "", json!([{"secret": SHOP}]));
    assert_eq!((send(&new, WEBHOOK_SECRET, 3), send(&new, SHOP, 4)), (401, 202));
}

fn what_is_no_delivery_is_refused(app: &TestApp) {
    for (id, event) in
        [("", "ping"), ("1", ""), ("a b", "ping"), ("1", "ping/pong"), (&"x".repeat(101), "ping")]
    {
        deliver_as(app, id, event, b"{}").expect_problem(400, "invalid_delivery");
    }
    for body in [&b"{"[..], b"", b"Hello", b"{\"a\": 1} 2", b"\xff", b"{\"a\": \"\0\"}"] {
        deliver_as(app, &fresh(), "deployment", body).expect_problem(400, "malformed_json");
    }
    let signature = signature(WEBHOOK_SECRET, b"payload=%7B%7D");
    let form = app
        .request("POST", "/webhooks/github")
        .header("Content-Type", "application/x-www-form-urlencoded");
    let form = form
        .header("X-Hub-Signature-256", signature)
        .header("X-GitHub-Event", "ping")
        .header("X-GitHub-Delivery", "1");
    app.send(form.body(b"payload=%7B%7D".to_vec()).unwrap())
        .expect_problem(415, "unsupported_media_type");
    let small = TestApp::start(&app.database_url, &[("PROP_HTTP__BODY_LIMIT_KIB", "4")]);
    let payload = example("deployment/payload.json").to_string();
    deliver_as(&small, &fresh(), "deployment", payload.as_bytes())
        .expect_problem(413, "body_too_large");
    assert!(app.all("/v1/deliveries").is_empty() && app.all("/v1/deployments").is_empty());
}

fn a_delivery_is_done_once(app: &TestApp) {
    let (event, payload) = report(1, "production", "success", 5);
    let id = fresh();
    let first = deliver_as(app, &id, event, payload.to_string().as_bytes()).expect(202);
    let counts = app.counts();
    assert_eq!(deliver_as(app, &id, event, payload.to_string().as_bytes()).expect(200), first);
    // The name counts: GitHub sends the same body with it again.
    assert_eq!(deliver_as(app, &id, "ping", b"{}").expect(200), first);
    assert_eq!(app.counts(), counts);
    // The same reported under another name changes nothing either.
    let again = deliver(app, event, &payload);
    assert_eq!(
        (&again["outcome"], &again["deployment_id"]),
        (&json!("unchanged"), &first["deployment_id"])
    );
    let path = format!("/v1/deployments/{}", first["deployment_id"].as_str().unwrap());
    assert_eq!(only(app)["revision"], app.get(&path).json()["revision"]);
}

fn a_delivery_that_comes_twice_at_once_is_done_once(app: &TestApp) {
    let (event, payload) = report(1, "production", "in_progress", 5);
    let (id, body) = (fresh(), payload.to_string());
    let answers = together(6, |_| deliver_as(&app.another(), &id, event, body.as_bytes()).status);
    assert_eq!(answers.iter().filter(|status| **status == 202).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 5, "{answers:?}");
    assert_eq!(app.all("/v1/deliveries").len(), 1);
    assert_eq!(only(app)["state"], "running");
}

fn deliveries_are_listed_and_read(app: &TestApp) {
    send(app, report(1, "production", "in_progress", 5));
    deliver(app, "ping", &example("ping/payload.json"));
    let last = send(app, report(2, "staging", "success", 5));
    let listed = app.get("/v1/deliveries?limit=2").expect(200);
    assert_eq!(listed["items"][0], last);
    assert!(listed["items"][0].get("body").is_none() && listed["next"].is_string());
    assert_eq!(app.all("/v1/deliveries").len(), 3);
    let only_of = |query: &str| app.all(&format!("/v1/deliveries?{query}"));
    assert_eq!(only_of("event=ping").len(), 1);
    assert_eq!(only_of("outcome=applied").len(), 2);
    assert_eq!(
        only_of(&format!("deployment_id={}", last["deployment_id"].as_str().unwrap())),
        std::slice::from_ref(&last)
    );
    app.get("/v1/deliveries?outcome=lost").expect_problem(400, "invalid_query");
    app.get("/v1/deliveries/unknown").expect_problem(404, "not_found");

    let path = format!("/v1/deliveries/{}", last["id"].as_str().unwrap());
    let read = app.get(&path).expect(200);
    assert!(read["body"].as_str().unwrap().contains("Codertocat"));
    let operator = app.key("operator", &["operate", "read"]);
    assert_eq!(app.call("GET", "/v1/deliveries", &operator, None, &[]).status, 200);
    app.call("GET", &path, &operator, None, &[]).expect_problem(403, "missing_scope");
    let reader = app.key("reader", &["read"]);
    app.call("GET", "/v1/deliveries", &reader, None, &[]).expect_problem(403, "missing_scope");
}

fn an_unknown_event_is_kept_and_does_nothing(app: &TestApp) {
    for event in ["push", "star", "an_event_to_come"] {
        let answer =
            deliver(app, event, &json!({"action": "made", "sender": {"login": "someone"}}));
        assert_eq!((&answer["outcome"], &answer["action"]), (&json!("ignored"), &json!("made")));
    }
    let star = deliver(app, "star", &json!([1, 2]));
    assert_eq!(star["outcome"], "ignored");
    // What it said is nobody's business here.
    let kept = app.get(&format!("/v1/deliveries/{}", star["id"].as_str().unwrap())).expect(200);
    assert_eq!((&kept["event"], &kept["body"]), (&json!("star"), &Value::Null));
    assert_eq!(app.all("/v1/deliveries").len(), 4);
    assert!(app.all("/v1/services").is_empty() && app.all("/v1/deployments").is_empty());
}

fn what_is_told_again_is_kept_once(app: &TestApp) {
    let (event, payload) = report(1, "production", "success", 5);
    let first = deliver(app, event, &payload);
    for _ in 0..3 {
        let again = deliver(app, event, &payload);
        assert_eq!(
            again["detail"],
            format!("Delivery {} had the same body.", first["id"].as_str().unwrap())
        );
        assert_eq!(
            (&again["subject"], &again["deployment_id"]),
            (&Value::Null, &first["deployment_id"])
        );
        assert_eq!(
            app.get(&format!("/v1/deliveries/{}", again["id"].as_str().unwrap())).json()["body"],
            Value::Null
        );
    }
    // As another event it says something else, or nothing.
    assert_eq!(
        deliver(app, "deployment", &payload)["detail"],
        "The deployment is already succeeded, or a newer state is known."
    );
    assert_eq!(count(&mut app.db(), "deliveries WHERE body IS NOT NULL"), 2);
}

fn what_can_not_be_applied_is_kept_and_says_why(app: &TestApp) {
    let (event, whole) = report(1, "production", "success", 5);
    let mut lacking = whole.clone();
    lacking["deployment"].as_object_mut().unwrap().remove("created_at");
    let mut nameless = whole.clone();
    nameless["deployment"]["environment"] = json!("***");
    for (payload, why) in [(lacking, "created_at"), (nameless, "***"), (json!({}), "repository")] {
        let answer = deliver(app, event, &payload);
        assert_eq!(answer["outcome"], "failed", "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(why), "{answer}");
        assert!(
            app.get(&format!("/v1/deliveries/{}", answer["id"].as_str().unwrap())).json()["body"]
                .is_string()
        );
    }
    assert!(
        app.all("/v1/services").is_empty()
            && app.all("/v1/events").iter().all(|event| event["entity"] == "key")
    );
    assert_eq!(deliver(app, event, &whole)["outcome"], "applied");
}

fn a_deployment_goes_where_github_says(app: &TestApp) {
    let answer = send(app, report(7, "Preview / EU", "", 0));
    assert_eq!(answer["outcome"], "applied", "{answer}");
    let made = only(app);
    assert_eq!(
        (&made["state"], &made["environment"], &made["service"]),
        (&json!("approved"), &json!("preview-eu"), &json!("hello-world"))
    );
    assert_eq!(
        (&made["source"], &made["external_id"], &made["git_sha"]),
        (&json!("github"), &json!("7"), &json!(SHA))
    );
    assert_eq!(
        (&made["version"], &made["requested_by"]),
        (&json!("f95f852bd8fc"), &json!("Codertocat"))
    );
    let service = app.get("/v1/services/hello-world").expect(200);
    assert_eq!(service["repository_url"], "https://github.com/Codertocat/Hello-World");
    let steps = [
        ("waiting", 1, "approved", "unchanged"),
        ("queued", 2, "approved", "unchanged"),
        ("in_progress", 3, "running", "applied"),
        ("pending", 2, "running", "unchanged"),
        ("success", 9, "succeeded", "applied"),
        ("in_progress", 4, "succeeded", "unchanged"),
        ("inactive", 20, "superseded", "applied"),
        ("inactive", 21, "superseded", "unchanged"),
    ];
    for (state, second, expected, outcome) in steps {
        let answer = send(app, report(7, "Preview / EU", state, second));
        let now = only(app);
        assert_eq!(
            (&now["state"], &answer["outcome"]),
            (&json!(expected), &json!(outcome)),
            "{state}: {answer}"
        );
        assert_eq!(answer["deployment_id"], now["id"], "{state}: {answer}");
    }
    let ended = only(app);
    for (field, second) in [("requested_at", 0), ("started_at", 3), ("finished_at", 9)] {
        assert_eq!(ended[field], at(second).replace('Z', ".000000Z"), "{field}");
    }
    let events = app.all(&format!("/v1/deployments/{}/events", ended["id"].as_str().unwrap()));
    let actions: Vec<_> =
        events.iter().rev().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "deployment.requested",
            "deployment.started",
            "deployment.succeeded",
            "deployment.superseded"
        ]
    );
    assert!(events.iter().all(|event| event["actor"] == "github:Codertocat"), "{events:?}");
}

/// Numbers that look random: a xorshift generator.
fn shuffle<T>(items: &mut [T], seed: &mut u64) {
    for end in (1..items.len()).rev() {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        items.swap(end, (*seed >> 16) as usize % (end + 1));
    }
}

/// What any order must leave alike: everything but identifiers and when it was reported.
fn essence(deployment: &Value) -> Value {
    let fields = [
        "service",
        "environment",
        "version",
        "git_sha",
        "state",
        "source",
        "run_url",
        "reason",
        "requested_at",
        "started_at",
    ];
    let mut kept: serde_json::Map<_, _> =
        fields.iter().map(|field| ((*field).to_owned(), deployment[*field].clone())).collect();
    // What never started ends when prop hears of it.
    kept.insert("finished_at".into(), deployment["finished_at"].clone());
    Value::Object(kept)
}

fn any_order_ends_in_the_same_state(app: &TestApp) {
    let histories: [&[&str]; 11] = [
        &["", "waiting", "queued", "in_progress", "success"],
        &["", "queued", "in_progress", "failure"],
        &["in_progress", "error"],
        &["", "in_progress", "failure", "queued", "in_progress", "success", "inactive"],
        &["", "pending", "in_progress", "success", "failure"],
        &["", "waiting", "in_progress", "inactive"],
        &["success", "success"],
        &["", "queued", "in_progress", "run: failure"],
        &["", "in_progress", "failure", "run: failure"],
        &["", "in_progress", "run: cancelled", "success"],
        &["in_progress", "run: failure", "in_progress", "success", "run: success"],
    ];
    let (mut seed, mut number) = (20_260_203, 100);
    for history in histories {
        let mut expected = None;
        for round in 0..8 {
            number += 1;
            let (service, environment) = (format!("service-{number}"), "production");
            let mut facts: Vec<_> = history
                .iter()
                .enumerate()
                .map(|(second, state)| {
                    let run = format!("https://github.com/a/{service}/actions/runs/{number}");
                    if let Some(conclusion) = state.strip_prefix("run: ") {
                        return run_ended(&run, conclusion, &at(second as u32));
                    }
                    let (event, mut payload) =
                        told_of_run(number, environment, state, second as u32);
                    payload["workflow_run"]["html_url"] = json!(run);
                    payload["deployment"]["payload"] = json!({"service": service});
                    (payload["repository"]["html_url"], payload["repository"]["name"]) =
                        (json!(format!("https://github.com/a/{service}")), json!(service));
                    (event, payload)
                })
                .collect();
            if round > 0 {
                shuffle(&mut facts, &mut seed);
            }
            let state = |payload: &Value| {
                format!(
                    "{}{}",
                    payload["deployment_status"]["state"], payload["workflow_run"]["conclusion"]
                )
            };
            let order: Vec<_> = facts.iter().map(|(_, payload)| state(payload)).collect();
            // One of them comes again.
            facts.push(facts[0].clone());
            for fact in facts {
                let answer = send(app, fact);
                assert_ne!(answer["outcome"], "failed", "{order:?}: {answer}");
            }
            let all = app.all(&format!("/v1/deployments?service={service}"));
            assert_eq!(all.len(), 1, "{order:?}");
            let mut found = essence(&all[0]);
            (found["service"], found["run_url"]) = (json!("service"), json!("run"));
            assert_eq!(*expected.get_or_insert_with(|| found.clone()), found, "{order:?}");
        }
        let ends = ["succeeded", "failed", "superseded", "cancelled"];
        assert!(ends.contains(&expected.unwrap()["state"].as_str().unwrap()), "{history:?}");
    }
}

fn deliveries_that_come_together_are_put_in_order(app: &TestApp) {
    for round in 0..4 {
        let states = ["", "waiting", "queued", "in_progress", "success"];
        let answers = together(states.len(), |n| {
            let (event, mut payload) = report(500 + round, "production", states[n], n as u32);
            payload["repository"]["html_url"] =
                json!(format!("https://github.com/a/together-{round}"));
            payload["repository"]["name"] = json!(format!("together-{round}"));
            deliver_as(&app.another(), &fresh(), event, payload.to_string().as_bytes()).expect(202)
        });
        assert!(answers.iter().all(|answer| answer["outcome"] != "failed"), "{answers:?}");
        let all = app.all(&format!("/v1/deployments?service=together-{round}"));
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(
            (&all[0]["state"], &all[0]["started_at"]),
            (&json!("succeeded"), &json!(at(3).replace('Z', ".000000Z")))
        );
    }
}

fn a_late_success_does_not_replace_what_is_live(app: &TestApp) {
    send(app, report(2, "production", "in_progress", 30));
    // GitHub lost this one's deliveries, and somebody sends them again by hand.
    send(app, report(1, "production", "in_progress", 10));
    assert_eq!(states(app), ["1 cancelled", "2 running"]);
    send(app, report(2, "production", "success", 40));
    send(app, report(1, "production", "success", 20));
    assert_eq!(states(app), ["1 superseded", "2 succeeded"]);
    let place = app.get("/v1/services/hello-world/environments/production").expect(200);
    assert_eq!(place["live"]["external_id"], "2");
    // What starts later ends what was taken to run, and what succeeds later takes the place.
    send(app, report(3, "production", "in_progress", 50));
    send(app, report(4, "production", "in_progress", 60));
    assert_eq!(states(app), ["1 superseded", "2 succeeded", "3 cancelled", "4 running"]);
    send(app, report(4, "production", "success", 70));
    assert_eq!(states(app), ["1 superseded", "2 superseded", "3 cancelled", "4 succeeded"]);
}

fn a_success_that_turns_out_to_be_none_gives_its_place_back(app: &TestApp) {
    send(app, report(1, "production", "success", 10));
    send(app, report(2, "production", "success", 20));
    assert_eq!(states(app), ["1 superseded", "2 succeeded"]);
    send(app, report(2, "production", "failure", 30));
    assert_eq!(states(app), ["1 succeeded", "2 failed"]);
}

fn what_skipped_the_gate_is_flagged(app: &TestApp) {
    app.post(
        "/v1/environments",
        json!({"slug": "production", "tier": "production", "required_approvals": 1}),
    )
    .expect(201);
    let waits = send(app, report(1, "production", "", 0));
    assert_eq!(waits["outcome"], "unchanged", "without an image the gate refuses it: {waits}");
    assert!(waits["detail"].as_str().unwrap().starts_with("gate_blocked"), "{waits}");
    assert!(app.all("/v1/deployments").is_empty());
    assert_eq!(app.all("/v1/events?action=gate.blocked").len(), 1);
    send(app, report(1, "production", "queued", 1));
    assert_eq!(app.all("/v1/events?action=gate.blocked").len(), 1, "once is enough");
    send(app, report(1, "production", "in_progress", 2));
    let running =
        app.get(&format!("/v1/deployments/{}", only(app)["id"].as_str().unwrap())).expect(200);
    assert_eq!((&running["state"], &running["ungated"]), (&json!("running"), &json!(true)));
    assert_eq!(running["decision"]["allowed"], false);
    send(app, report(2, "staging", "success", 3));
    let free = app.all("/v1/deployments?environment=staging");
    assert_eq!((&free[0]["state"], &free[0]["ungated"]), (&json!("succeeded"), &json!(false)));
}

/// What GitHub reports of a review, after the schema of octokit/webhooks.
fn review(action: &str, approver: &str) -> Value {
    // It is given now, and its time is the same wherever it is reported again.
    static NOW: LazyLock<String> = LazyLock::new(|| crate::gate::in_minutes(0));
    let payload = example("deployment_status/payload.json");
    json!({
        "action": action, "since": at(5), "comment": "Looks good.", "approver": {"login": approver},
        "sender": {"login": approver},
        "repository": payload["repository"],
        "workflow_job_runs": [{"id": 1, "name": "deploy", "status": "waiting", "conclusion": null,
            "html_url": format!("{RUN}/job/1"),
            "created_at": at(1), "updated_at": at(1), "environment": "staging"}],
        "workflow_run": {"id": 77, "html_url": RUN, "head_branch": "master", "head_sha": SHA,
            "status": "waiting", "conclusion": null,
            "created_at": at(0), "updated_at": *NOW}
    })
}

fn guarded(app: &TestApp) {
    app.post(
        "/v1/environments",
        json!({"slug": "staging", "tier": "staging", "required_approvals": 1}),
    )
    .expect(201);
}

fn a_waiting_deployment_moves_on_with_a_review(app: &TestApp) {
    guarded(app);
    send(app, told_of_run(1, "staging", "waiting", 1));
    assert_eq!(only(app)["state"], "awaiting_approval");
    assert_eq!(
        deliver(app, "deployment_review", &review("requested", "bob"))["outcome"],
        "ignored"
    );
    let own = deliver(app, "deployment_review", &review("approved", "Codertocat"));
    assert_eq!(own["outcome"], "failed", "{own}");
    assert!(own["detail"].as_str().unwrap().starts_with("own_approval"), "{own}");
    let given = deliver(app, "deployment_review", &review("approved", "bob"));
    assert_eq!(
        (&given["outcome"], &given["deployment_id"]),
        (&json!("applied"), &only(app)["id"]),
        "{given}"
    );
    assert_eq!(only(app)["state"], "approved");
    // The same as the pipeline mirrors it.
    let mirrored = json!({"service": "hello-world", "version": only(app)["version"],
        "environment": "staging", "decision": "approved",
        "source": "github", "approver": "bob", "run_url": RUN});
    let approval = app.post("/v1/approvals", mirrored).expect(200);
    assert_eq!(
        (&approval["approver"], &approval["comment"], &approval["recorded_by"]),
        (&json!("bob"), &json!("Looks good."), &json!("github:bob"))
    );
    assert_eq!(
        deliver(app, "deployment_review", &review("approved", "bob"))["outcome"],
        "unchanged"
    );
    send(app, told_of_run(1, "staging", "in_progress", 7));
    let running = only(app);
    assert_eq!((&running["state"], &running["ungated"]), (&json!("running"), &json!(false)));
    assert_eq!(app.all("/v1/approvals")[0]["consumed_by"], running["id"]);
}

fn a_rejected_review_ends_what_waits(app: &TestApp) {
    guarded(app);
    send(app, told_of_run(1, "staging", "waiting", 1));
    assert_eq!(deliver(app, "deployment_review", &review("rejected", "bob"))["outcome"], "applied");
    assert_eq!(only(app)["state"], "rejected");
    // GitHub fails the job then: that is no failed rollout.
    send(app, told_of_run(1, "staging", "failure", 9));
    assert_eq!(only(app)["state"], "rejected");
    // One that runs all the same is a fact.
    send(app, told_of_run(1, "staging", "in_progress", 8));
    assert_eq!((&only(app)["state"], &only(app)["ungated"]), (&json!("failed"), &json!(true)));
    // A review may come first.
    let app = &TestApp::start(&app.database_url, &[]);
    let mut early = review("approved", "carol");
    early["repository"]["name"] = json!("early");
    early["repository"]["html_url"] = json!("https://github.com/a/early");
    early["workflow_run"]["html_url"] = json!("https://github.com/a/early/actions/runs/77");
    assert_eq!(deliver(app, "deployment_review", &early)["outcome"], "applied");
    assert_eq!(app.all("/v1/releases?service=early")[0]["git_sha"], SHA);
}

fn a_run_that_is_done_again_is_reviewed_again(app: &TestApp) {
    guarded(app);
    let attempt = |n: u32, state: &'static str, second: u32| {
        send(app, told_of_run(u64::from(n), "staging", "waiting", second));
        let mut again = review(state, "bob");
        again["workflow_run"]["run_attempt"] = json!(n);
        assert_eq!(deliver(app, "deployment_review", &again)["outcome"], "applied", "attempt {n}");
        // The pipeline mirrors the same one: as record-approval.sh counts them.
        let version = app.all("/v1/deployments").remove(0)["version"].clone();
        let mirrored = json!({"service": "hello-world", "version": version,
            "environment": "staging", "decision": state,
            "source": "github", "approver": "bob", "run_url": RUN,
            "review_id": format!("{RUN} bob {state} {n}")});
        app.post("/v1/approvals", mirrored.clone()).expect(200);
        // Under another name, as another webhook of the same repository sends it.
        assert_eq!(deliver(app, "deployment_review", &again)["outcome"], "unchanged");
        send(app, told_of_run(u64::from(n), "staging", "in_progress", second + 1));
        app.post("/v1/approvals", mirrored).expect_problem(409, "approval_used");
        assert_eq!(
            deliver(app, "deployment_review", &again)["outcome"],
            "unchanged",
            "used, and known"
        );
        send(app, told_of_run(u64::from(n), "staging", "failure", second + 2));
    };
    attempt(1, "approved", 10);
    attempt(2, "approved", 20);
    assert_eq!(app.all("/v1/approvals").len(), 2);
    assert!(
        app.all("/v1/deployments")
            .iter()
            .all(|one| one["ungated"] == false && one["state"] == "failed")
    );
}

fn a_review_counts_wherever_it_can(app: &TestApp) {
    guarded(app);
    app.post(
        "/v1/environments",
        json!({"slug": "production", "tier": "staging", "required_approvals": 1}),
    )
    .expect(201);
    send(app, told_of_run(1, "staging", "waiting", 1));
    send(app, told_of_run(2, "production", "waiting", 1));
    let mut both = review("approved", "bob");
    both["workflow_job_runs"] =
        json!([{"environment": "***"}, {"environment": "production"}, {"environment": "staging"}]);
    let answer = deliver(app, "deployment_review", &both);
    assert_eq!(answer["outcome"], "failed", "{answer}");
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains("bob approved the release for production, staging."),
        "{answer}"
    );
    assert!(app.all("/v1/deployments").iter().all(|one| one["state"] == "approved"));
}

fn a_review_is_for_the_services_of_its_run(app: &TestApp) {
    guarded(app);
    for slug in ["api", "web", "worker"] {
        app.post(
            "/v1/services",
            json!({"slug": slug, "repository_url": "https://github.com/Codertocat/Hello-World"}),
        )
        .expect(201);
    }
    for (id, slug) in [(1, "api"), (2, "web")] {
        let (event, mut payload) = told_of_run(id, "staging", "waiting", 1);
        payload["deployment"]["payload"] = json!({"service": slug});
        assert_eq!(deliver(app, event, &payload)["outcome"], "applied");
    }
    let answer = deliver(app, "deployment_review", &review("approved", "bob"));
    assert_eq!(answer["outcome"], "applied", "{answer}");
    let mut services: Vec<_> = app
        .all("/v1/approvals")
        .iter()
        .map(|one| one["service"].as_str().unwrap().to_owned())
        .collect();
    services.sort();
    assert_eq!(services, ["api", "web"]);
    assert!(app.all("/v1/deployments").iter().all(|one| one["state"] == "approved"));
}

fn who_started_the_run_asked_for_it(app: &TestApp) {
    let by = |id, state, second, triggered: Option<&str>| {
        let (event, mut payload) = report(id, "staging", state, second);
        payload["deployment"]["creator"]["login"] = json!("github-actions[bot]");
        if let Some(login) = triggered {
            payload["workflow_run"] = json!({"html_url": RUN, "id": 77, "actor": {"login": "alice"},
                "triggering_actor": {"login": login}});
        }
        (event, payload)
    };
    guarded(app);
    send(app, by(1, "waiting", 1, None));
    let made = only(app);
    assert_eq!(
        (&made["requested_by"], &made["run_url"]),
        (&json!("github-actions[bot]"), &Value::Null)
    );
    let reported = send(app, by(1, "queued", 2, Some("carol")));
    assert_eq!(reported["outcome"], "applied", "{reported}");
    let found = only(app);
    assert_eq!((&found["requested_by"], &found["run_url"]), (&json!("carol"), &json!(RUN)));
    assert_eq!(found["revision"].as_i64(), made["revision"].as_i64().map(|revision| revision + 1));
    assert_eq!(app.all("/v1/events?action=deployment.corrected").len(), 1);
    // So she can't approve it herself.
    assert_eq!(
        deliver(app, "deployment_review", &review("approved", "carol"))["outcome"],
        "failed"
    );
    // A bot that starts runs on somebody's behalf is not who asked.
    send(app, by(2, "in_progress", 3, Some("dependabot[bot]")));
    assert_eq!(app.all("/v1/deployments?state=running")[0]["requested_by"], "alice");
}

fn what_a_success_replaced_comes_back(app: &TestApp) {
    send(app, report(1, "production", "success", 10));
    // Two began together; the first of them had gone live when the second did.
    send(app, report(3, "production", "in_progress", 20));
    send(app, report(2, "production", "success", 30));
    send(app, report(3, "production", "success", 40));
    assert_eq!(states(app), ["1 superseded", "2 superseded", "3 succeeded"]);
    send(app, report(3, "production", "failure", 50));
    assert_eq!(
        states(app),
        ["1 superseded", "2 succeeded", "3 failed"],
        "what it replaced, not what it found when it began"
    );
}

fn a_service_is_found_by_its_repository(app: &TestApp) {
    let home = "https://github.com/codertocat/hello-world.git";
    app.post("/v1/services", json!({"slug": "greeter", "repository_url": home})).expect(201);
    let release = json!({"service": "greeter", "version": "1.4.2", "git_sha": SHA});
    app.post("/v1/releases", release).expect(201);
    send(app, report(1, "production", "success", 5));
    let live = only(app);
    assert_eq!(
        (&live["service"], &live["version"]),
        (&json!("greeter"), &json!("1.4.2")),
        "the release that has this commit"
    );
    // Two services of one repository: the deployment says which.
    app.post(
        "/v1/services",
        json!({"slug": "waver", "repository_url": "https://github.com/Codertocat/Hello-World"}),
    )
    .expect(201);
    let (event, mut unclear) = report(2, "production", "success", 6);
    let failed = deliver(app, event, &unclear);
    assert_eq!(failed["outcome"], "failed");
    assert!(failed["detail"].as_str().unwrap().contains("greeter, waver"), "{failed}");
    unclear["deployment"]["payload"] = json!({"service": "waver"});
    assert_eq!(deliver(app, event, &unclear)["outcome"], "applied");
    assert_eq!(app.all("/v1/deployments?service=waver").len(), 1);
    // Another repository of the same name is another service; and nobody takes a service that is
    // another's.
    let (event, mut theirs) = report(3, "production", "success", 7);
    theirs["repository"]["html_url"] = json!("https://github.com/other/greeter");
    (theirs["repository"]["name"], theirs["repository"]["full_name"]) =
        (json!("greeter"), json!("other/greeter"));
    assert_eq!(deliver(app, event, &theirs)["outcome"], "applied");
    assert_eq!(app.all("/v1/deployments?service=other-greeter").len(), 1);
    theirs["deployment"]["id"] = json!(4);
    theirs["deployment"]["payload"] = json!("{\"service\": \"waver\"}");
    let refused = deliver(app, event, &theirs);
    assert!(refused["detail"].as_str().unwrap().starts_with("already_exists"), "{refused}");
}

fn a_service_without_a_repository_is_nobodys(app: &TestApp) {
    // Its pipeline recorded it, or somebody did by hand.
    app.post("/v1/services", json!({"slug": "hello-world"})).expect(201);
    let (event, payload) = report(1, "production", "success", 5);
    let (id, body) = (fresh(), payload.to_string());
    let refused = deliver_as(app, &id, event, body.as_bytes()).expect(202);
    assert_eq!(refused["outcome"], "failed");
    assert!(
        refused["detail"].as_str().unwrap().contains("PATCH /v1/services/hello-world"),
        "{refused}"
    );
    let mut named = payload.clone();
    named["deployment"]["payload"] = json!({"service": "hello-world"});
    assert_eq!(deliver(app, event, &named)["outcome"], "failed");
    assert!(app.all("/v1/deployments").is_empty());
    app.patch(
        "/v1/services/hello-world",
        json!({"repository_url": "https://github.com/Codertocat/Hello-World"}),
        &[],
    )
    .expect(200);
    assert_eq!(
        deliver_as(app, &id, event, body.as_bytes()).expect(202)["outcome"],
        "applied",
        "sent again, it is applied"
    );
    assert_eq!(only(app)["state"], "succeeded");
}

fn a_failed_delivery_may_be_sent_again(app: &TestApp) {
    app.post(
        "/v1/services",
        json!({"slug": "hello-world", "repository_url": "https://github.com/other/hello-world"}),
    )
    .expect(201);
    app.post(
        "/v1/services",
        json!({"slug": "codertocat-hello-world", "repository_url": "https://github.com/other/two"}),
    )
    .expect(201);
    let (event, payload) = report(1, "production", "success", 5);
    let (id, body) = (fresh(), payload.to_string());
    let first = deliver_as(app, &id, event, body.as_bytes()).expect(202);
    assert_eq!(first["outcome"], "failed");
    assert_eq!(deliver_as(app, &id, event, body.as_bytes()).expect(202), first, "still in the way");
    app.patch(
        "/v1/services/hello-world",
        json!({"repository_url": "https://github.com/Codertocat/Hello-World"}),
        &[],
    )
    .expect(200);
    // Another body under its name is another matter.
    assert_eq!(deliver_as(app, &id, event, format!("{body} ").as_bytes()).expect(200), first);
    assert_eq!(deliver_as(app, &id, "deployment", body.as_bytes()).expect(200), first);
    let applied = deliver_as(app, &id, event, body.as_bytes()).expect(202);
    assert_eq!(
        (&applied["outcome"], &applied["deployment_id"]),
        (&json!("applied"), &only(app)["id"])
    );
    assert_eq!(applied["received_at"], first["received_at"]);
    assert_eq!(deliver_as(app, &id, event, body.as_bytes()).expect(200), applied);
    assert_eq!(app.all("/v1/deliveries").len(), 1);
}

fn what_the_database_fails_for_is_not_kept(app: &TestApp) {
    let (event, payload) = report(1, "production", "success", 5);
    let (id, body) = (fresh(), payload.to_string());
    execute(app, "ALTER TABLE environments RENAME COLUMN tier TO tier_away");
    deliver_as(app, &id, event, body.as_bytes()).expect_problem(500, "internal");
    execute(app, "ALTER TABLE environments RENAME COLUMN tier_away TO tier");
    assert!(app.all("/v1/deliveries").is_empty() && app.all("/v1/services").is_empty());
    assert_eq!(deliver_as(app, &id, event, body.as_bytes()).expect(202)["outcome"], "applied");
}

fn a_tag_that_was_moved_makes_another_release(app: &TestApp) {
    let (event, mut payload) = report(1, "production", "success", 5);
    payload["deployment"]["ref"] = json!("v1.4.2");
    assert_eq!(deliver(app, event, &payload)["outcome"], "applied");
    let moved = "0123456789abcdef0123456789abcdef01234567";
    (payload["deployment"]["id"], payload["deployment"]["sha"]) = (json!(2), json!(moved));
    let answer = deliver(app, event, &payload);
    assert_eq!(answer["outcome"], "applied", "{answer}");
    let versions: Vec<_> =
        app.all("/v1/deployments").iter().map(|one| one["version"].clone()).collect();
    assert!(
        versions.contains(&json!("v1.4.2")) && versions.contains(&json!("0123456789ab")),
        "{versions:?}"
    );
}

/// Runs one statement on the database of an app.
fn execute(app: &TestApp, sql: &str) {
    diesel::sql_query(sql).execute(&mut app.db()).unwrap();
}

/// The service of the repository of these tests.
fn ours(app: &TestApp) {
    app.post(
        "/v1/services",
        json!({"slug": "hello-world",
            "repository_url": "https://github.com/Codertocat/Hello-World"}),
    )
    .expect(201);
}

/// What a script asks for in a run.
fn scripted(run: &str) -> Value {
    with(
        new_deployment("hello-world", "staging", "1.4.2"),
        json!({"git_sha": SHA, "source": "script", "external_id": "77-1", "run_url": run,
            "start": true, "requested_by": "alice"}),
    )
}

fn a_rollout_that_its_script_recorded_is_not_recorded_twice(app: &TestApp) {
    ours(app);
    let run = format!("{RUN}/attempts/1");
    let mine = app.post("/v1/deployments", scripted(&run)).expect(201);
    for (state, second) in [("", 0), ("queued", 1), ("in_progress", 2)] {
        let answer = send(app, told_of_run(1, "staging", state, second));
        assert_eq!(
            (&answer["outcome"], &answer["deployment_id"]),
            (&json!("unchanged"), &mine["id"]),
            "{answer}"
        );
    }
    app.transition(&mine, "succeeded").expect(200);
    assert_eq!(send(app, told_of_run(1, "staging", "success", 5))["deployment_id"], mine["id"]);
    // A later step of the job failed: what the script said of the rollout stands.
    send(app, told_of_run(1, "staging", "failure", 6));
    assert_eq!(
        (&only(app)["state"], &only(app)["source"]),
        (&json!("succeeded"), &json!("script"))
    );
    // The run is done again: another deployment, there and here.
    let again = app
        .post("/v1/deployments", with(scripted(&run), json!({"external_id": "77-2"})))
        .expect(201);
    assert_eq!(
        send(app, told_of_run(2, "staging", "in_progress", 20))["deployment_id"],
        again["id"]
    );
    // The script was cut off: GitHub knows how it ended.
    let (event, mut ended) = told_of_run(2, "staging", "failure", 30);
    ended["deployment_status"]["created_at"] = json!("2999-01-01T00:00:00Z");
    ended["deployment_status"]["description"] = json!("The runner was lost.");
    let answer = deliver(app, event, &ended);
    assert_eq!(answer["outcome"], "applied", "{answer}");
    let found = app.get(&format!("/v1/deployments/{}", again["id"].as_str().unwrap())).expect(200);
    assert_eq!(
        (&found["state"], &found["reason"]),
        (&json!("failed"), &json!("The runner was lost."))
    );
    // Without a run, the commit that is on its way there now tells.
    let other = json!({"external_id": "x", "run_url": null});
    let third = app.post("/v1/deployments", with(scripted(&run), other)).expect(201);
    assert_eq!(send(app, report(3, "staging", "in_progress", 40))["deployment_id"], third["id"]);
    assert_eq!(app.all("/v1/deployments").len(), 3);
}

fn a_script_adopts_what_a_webhook_told_of_its_run(app: &TestApp) {
    guarded(app);
    send(app, told_of_run(1, "staging", "waiting", 1));
    // The pipeline has recorded the release meanwhile, and mirrors the approval for it.
    let release = json!({"service": "hello-world", "version": "1.4.2", "git_sha": SHA,
        "image_digest": crate::harness::image("1.4.2")});
    app.post("/v1/releases", release).expect(201);
    let mirrored = json!({"service": "hello-world", "version": "1.4.2", "environment": "staging",
        "decision": "approved",
        "source": "github", "approver": "bob", "run_url": RUN});
    app.post("/v1/approvals", mirrored).expect(201);
    send(app, told_of_run(1, "staging", "in_progress", 2));
    let reported = only(app);
    assert_eq!((&reported["state"], &reported["source"]), (&json!("running"), &json!("github")));

    let answer = app.post("/v1/deployments", scripted(&format!("{RUN}/job/5"))).expect(200);
    assert_eq!(answer["id"], reported["id"], "one rollout is one deployment");
    let adopted = only(app);
    let said = ["source", "external_id", "version", "requested_by", "state"]
        .map(|field| adopted[field].as_str().unwrap());
    assert_eq!(said, ["script", "77-1", "1.4.2", "alice", "running"]);
    assert_eq!(
        (&adopted["ungated"], &answer["decision"]["allowed"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(app.all("/v1/approvals")[0]["consumed_by"], adopted["id"]);
    // Sent again, it is the same.
    assert_eq!(app.post("/v1/deployments", scripted(RUN)).expect(200)["id"], reported["id"]);
    assert_eq!(
        send(app, told_of_run(1, "staging", "in_progress", 3))["deployment_id"],
        reported["id"]
    );
    app.transition(&adopted, "succeeded").expect(200);
    send(app, told_of_run(1, "staging", "success", 9));
    assert_eq!(only(app)["state"], "succeeded");
    let events = app.all(&format!("/v1/deployments/{}/events", reported["id"].as_str().unwrap()));
    let actions: Vec<_> =
        events.iter().rev().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "deployment.requested",
            "deployment.started",
            "deployment.adopted",
            "deployment.consumed",
            "deployment.succeeded"
        ],
        "awaited, then reported to run, then its script came"
    );
}

/// What the gate says to 1.4.2 in staging, as `scripts/lib/ledger.sh` asks.
#[track_caller]
fn gate(app: &TestApp, more: &str) -> Value {
    app.get(&format!(
        "/v1/gate?service=hello-world&environment=staging&version=1.4.2&requested_by=alice{more}"
    ))
    .expect(200)
}

/// Alice's 1.4.2 is recorded, and bob has approved it for staging.
fn approved_by_bob(app: &TestApp) {
    guarded(app);
    ours(app);
    let release = json!({"service": "hello-world", "version": "1.4.2", "git_sha": SHA,
        "image_digest": crate::harness::image("1.4.2")});
    app.post("/v1/releases", release).expect(201);
    let mirrored = json!({"service": "hello-world", "version": "1.4.2", "environment": "staging",
        "decision": "approved",
        "source": "github", "approver": "bob", "run_url": RUN});
    app.post("/v1/approvals", mirrored).expect(201);
}

fn the_gate_lets_a_script_past_what_its_own_run_has_told(app: &TestApp) {
    approved_by_bob(app);
    // GitHub tells of the job as soon as it begins, before its script has said a word.
    send(app, told_of_run(1, "staging", "in_progress", 2));
    let reported = only(app);
    assert_eq!((&reported["state"], &reported["ungated"]), (&json!("running"), &json!(false)));
    assert_eq!(app.all("/v1/approvals")[0]["consumed_by"], reported["id"]);
    let codes = |decision: Value| {
        decision["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|reason| reason["code"].clone())
            .collect::<Vec<_>>()
    };
    let stranger = gate(app, "");
    assert_eq!(codes(stranger), ["deployment_running", "approval_missing"]);
    let another = gate(app, "&run_url=https://github.com/Codertocat/Hello-World/actions/runs/78");
    assert_eq!(another["allowed"], false);
    for run in [RUN.to_owned(), format!("{RUN}/attempts/1"), format!("{RUN}/job/5")] {
        let decision = gate(app, &format!("&run_url={run}"));
        assert_eq!(decision["allowed"], true, "{run}: {decision}");
    }
    assert_eq!(app.post("/v1/deployments", scripted(RUN)).expect(200)["id"], reported["id"]);
    assert_eq!((&only(app)["state"], &only(app)["ungated"]), (&json!("running"), &json!(false)));
    // Adopted, it is a deployment like any other.
    assert_eq!(gate(app, &format!("&run_url={RUN}"))["allowed"], false);
    app.get("/v1/gate?service=hello-world&environment=staging&version=1.4.2&run_url=77")
        .expect_problem(400, "invalid_query");
}

fn a_script_that_the_gate_holds_back_ends_what_its_webhook_began(app: &TestApp) {
    guarded(app);
    send(app, told_of_run(1, "staging", "in_progress", 2));
    assert_eq!(only(app)["ungated"], true, "nobody approved it");
    let blocked = app.post("/v1/deployments", scripted(RUN)).expect_problem(409, "gate_blocked");
    assert_eq!(blocked["reasons"][0]["code"], "approval_missing");
    let held = only(app);
    assert_eq!(
        (&held["state"], &held["ungated"], &held["started_at"]),
        (&json!("cancelled"), &json!(false), &Value::Null)
    );
    // The job fails, since its script was refused: nothing was rolled out.
    send(app, told_of_run(1, "staging", "failure", 9));
    assert_eq!(only(app)["state"], "cancelled");
    // Approved in the meantime, the script may try again.
    let approval = json!({"service": "hello-world", "version": "1.4.2", "environment": "staging",
        "decision": "approved"});
    app.post(
        "/v1/releases",
        json!({"service": "hello-world", "version": "1.4.2",
            "image_digest": crate::harness::image("1.4.2")}),
    )
    .expect(201);
    let bob = app.key("bob", &["read", "approve"]);
    app.call("POST", "/v1/approvals", &bob, Some(&approval), &[]).expect(201);
    let started = app.post("/v1/deployments", scripted(RUN)).expect(201);
    assert_eq!(started["state"], "running");
}

fn what_a_webhook_had_used_up_is_given_back(app: &TestApp) {
    approved_by_bob(app);
    let freeze =
        app.post("/v1/freezes", json!({"reason": "Audit.", "service": "hello-world"})).expect(201);
    let path = format!("/v1/freezes/{}/overrides", freeze["id"].as_str().unwrap());
    let one = json!({"service": "hello-world", "environment": "staging", "version": "1.4.2",
        "reason": "The auditors agree."});
    app.post(&path, one).expect(201);
    send(app, told_of_run(1, "staging", "in_progress", 2));
    let reported = only(app);
    assert_eq!((&reported["state"], &reported["ungated"]), (&json!("running"), &json!(false)));
    let used = || {
        let overrides =
            |of: &str| count(&mut app.db(), &format!("freeze_overrides WHERE consumed_by {of}"));
        let by = app.all("/v1/approvals")[0]["consumed_by"].clone();
        let is_same =
            by.as_str().map_or_else(|| overrides("IS NULL"), |id| overrides(&format!("= '{id}'")));
        assert_eq!(is_same, 1, "the override goes with the approval");
        by
    };
    assert_eq!(used(), reported["id"]);
    // Something else is in the way of its script.
    let incident = json!({"service": "hello-world", "environment": "staging",
        "title": "It is down.", "severity": "critical"});
    let incident = app.post("/v1/incidents", incident).expect(201);
    let blocked = app.post("/v1/deployments", scripted(RUN)).expect_problem(409, "gate_blocked");
    assert_eq!(blocked["reasons"].as_array().unwrap().len(), 1, "{blocked}");
    assert_eq!((only(app)["state"].clone(), used()), (json!("cancelled"), Value::Null));
    // It is out of the way, and what was used up by nothing carries the next one.
    let end = json!({"resolved_at": incident["detected_at"]});
    app.patch(&format!("/v1/incidents/{}", incident["id"].as_str().unwrap()), end, &[]).expect(200);
    send(app, told_of_run(2, "staging", "in_progress", 3));
    let second = app.all("/v1/deployments?state=running").remove(0);
    assert_eq!(used(), second["id"]);
    // The script deploys another release: the approval of the first says nothing of it, and is
    // there still.
    let other = with(
        scripted(RUN),
        json!({"version": "1.4.3", "external_id": "77-2", "git_sha": null, "create_missing": true}),
    );
    app.post("/v1/deployments", other).expect_problem(409, "gate_blocked");
    assert_eq!(used(), Value::Null);
    assert_eq!(app.post("/v1/deployments", scripted(RUN)).expect(201)["ungated"], false);
}

fn a_job_that_begins_ends_no_rollout_of_a_script(app: &TestApp) {
    ours(app);
    let mine = app
        .post(
            "/v1/deployments",
            scripted("https://github.com/Codertocat/Hello-World/actions/runs/70"),
        )
        .expect(201);
    let now = |(event, mut payload): (&'static str, Value)| {
        payload["deployment_status"]["created_at"] = json!("2999-01-01T00:00:00Z");
        (event, payload)
    };
    let begun = send(app, now(told_of_run(1, "staging", "in_progress", 2)));
    assert_eq!(
        (&begun["outcome"], &begun["deployment_id"]),
        (&json!("unchanged"), &Value::Null),
        "{begun}"
    );
    let detail = begun["detail"].as_str().unwrap();
    assert!(detail.contains("is already running there"), "{begun}");
    assert_eq!(only(app)["state"], "running");
    // Its script is told the truth.
    let refused = app
        .post("/v1/deployments", with(scripted(RUN), json!({"external_id": "77-2"})))
        .expect_problem(409, "gate_blocked");
    assert_eq!(refused["reasons"][0]["code"], "deployment_running");
    // One that waited already, too; and its failure leaves the other alone.
    send(app, told_of_run(2, "staging", "queued", 2));
    assert_eq!(send(app, now(told_of_run(2, "staging", "in_progress", 3)))["outcome"], "unchanged");
    let mut failed = now(told_of_run(2, "staging", "failure", 4));
    failed.1["deployment_status"]["created_at"] = json!("2999-01-01T00:00:01Z");
    assert_eq!(send(app, failed)["outcome"], "applied");
    let state = |id: &Value| {
        app.get(&format!("/v1/deployments/{}", id.as_str().unwrap())).json()["state"].clone()
    };
    // It had started since: the script's own rollout counts as overtaken until the script reports
    // how it ended.
    assert_eq!(state(&mine["id"]), "cancelled");
    let mut live = now(told_of_run(1, "staging", "success", 9));
    live.1["deployment_status"]["created_at"] = json!("2999-01-01T00:00:02Z");
    assert_eq!(send(app, live)["outcome"], "applied");
    assert_eq!(state(&mine["id"]), "cancelled");
    assert_eq!(states(app), ["1 succeeded", "2 failed", "77-1 cancelled"]);
}

fn what_has_ended_is_not_started_again_by_what_comes_late(app: &TestApp) {
    send(app, told_of_run(1, "staging", "in_progress", 10));
    send(app, run_ended(RUN, "failure", &at(60)));
    assert_eq!(only(app)["state"], "failed");
    let late = send(app, told_of_run(1, "staging", "in_progress", 11));
    assert_eq!(
        (&late["outcome"], &only(app)["state"]),
        (&json!("unchanged"), &json!("failed")),
        "{late}"
    );
    // It does start again when that was later.
    assert_eq!(send(app, told_of_run(1, "staging", "in_progress", 70))["outcome"], "applied");
    assert_eq!(only(app)["state"], "running");
    // Given up by hand.
    let id = only(app)["id"].clone();
    app.transition(&only(app), "cancelled").expect(200);
    send(app, told_of_run(1, "staging", "in_progress", 71));
    assert_eq!(only(app)["state"], "cancelled");
    // The end of a run comes before the start of what ran in it.
    send(
        app,
        run_ended(
            "https://github.com/Codertocat/Hello-World/actions/runs/78",
            "cancelled",
            &at(90),
        ),
    );
    let (event, mut payload) = told_of_run(2, "production", "in_progress", 80);
    payload["workflow_run"]["html_url"] =
        json!("https://github.com/Codertocat/Hello-World/actions/runs/78");
    deliver(app, event, &payload);
    let second = app.all("/v1/deployments?environment=production").remove(0);
    assert_eq!(
        (&second["state"], &second["reason"]),
        (&json!("cancelled"), &json!("its run ended: cancelled"))
    );
    assert_eq!(second["finished_at"], at(90).replace('Z', ".000000Z"));
    assert_ne!(second["id"], id);
}

fn the_end_of_a_run_ends_what_still_runs(app: &TestApp) {
    let run = |conclusion: &str, updated: &str| run_ended(RUN, conclusion, updated).1;
    let late = at(600);
    send(app, told_of_run(1, "staging", "in_progress", 10));
    let other = app.deploy("other", "staging", "1", true);
    assert_eq!(deliver(app, "workflow_run", &run("success", &late))["outcome"], "unchanged");
    // An earlier attempt of the run, told late.
    assert_eq!(deliver(app, "workflow_run", &run("cancelled", &at(5)))["outcome"], "unchanged");
    assert_eq!(app.all("/v1/deployments?state=running").len(), 2);
    let ended = deliver(app, "workflow_run", &run("cancelled", &late));
    assert_eq!(ended["outcome"], "applied", "{ended}");
    let cancelled = app.all("/v1/deployments?service=hello-world").remove(0);
    assert_eq!(
        (&cancelled["state"], &cancelled["reason"]),
        (&json!("cancelled"), &json!("its run ended: cancelled"))
    );
    assert_eq!(app.all("/v1/deployments?state=running")[0]["id"], other["id"]);
    // The deployment's own word comes later and knows better.
    send(app, told_of_run(1, "staging", "success", 20));
    assert_eq!(app.all("/v1/deployments?service=hello-world")[0]["state"], "succeeded");
    send(app, told_of_run(2, "staging", "in_progress", 700));
    assert_eq!(deliver(app, "workflow_run", &run("failure", &at(800)))["outcome"], "applied");
    assert_eq!(app.all("/v1/deployments?state=failed").len(), 1);
}

fn a_redelivered_approval_does_not_beat_a_later_rejection(app: &TestApp) {
    guarded(app);
    send(app, told_of_run(1, "staging", "waiting", 1));
    let version = only(app)["version"].clone();
    let at = |minutes: i64, mut review: Value| {
        review["workflow_run"]["updated_at"] = json!(crate::gate::in_minutes(-minutes));
        review
    };
    let (yes, no) = (at(10, review("approved", "bob")), at(5, review("rejected", "bob")));
    let evaluate = || {
        let version = version.as_str().unwrap();
        app.get(&format!("/v1/gate?service=hello-world&environment=staging&version={version}"))
            .expect(200)
    };
    for order in [[&yes, &no, &yes], [&no, &yes, &no]] {
        for review in order {
            deliver(app, "deployment_review", review);
        }
        assert_eq!(crate::gate::codes(&evaluate()), ["approval_rejected"]);
        let times: Vec<_> = app.all("/v1/approvals").iter().map(|one| one["at"].clone()).collect();
        assert!(times.iter().all(Value::is_string) && times.len() == 2, "{times:?}");
        for table in ["approvals", "deliveries"] {
            crate::gate::sql(app, &format!("DELETE FROM {table} WHERE true"));
        }
    }
}

fn jobs_that_deploy_nothing_are_ignored(app: &TestApp) {
    let ignored = |delivery: &Value, which: &str| {
        assert_eq!(delivery["outcome"], "ignored", "{delivery}");
        let detail = delivery["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(which) && detail.contains("ignore_github_deployments"),
            "{detail}"
        );
    };
    let nightly = json!({"slug": "nightly", "tier": "testing", "ignore_github_deployments": true});
    let nightly = app.post("/v1/environments", nightly).expect(201);
    assert_eq!(nightly["ignore_github_deployments"], true);
    // In either order, and nothing is recorded: not even the service.
    for (id, second, order) in [(1, 10, ["", "success"]), (2, 20, ["success", ""])] {
        for state in order {
            ignored(&send(app, report(id, "nightly", state, second)), "nightly");
        }
    }
    assert_eq!(app.all("/v1/services"), [] as [Value; 0]);
    assert_eq!(app.all("/v1/deployments"), [] as [Value; 0]);
    // What the API reports is recorded.
    app.go_live("hello-world", "nightly", "9");
    let repository = json!({"repository_url": "https://github.com/Codertocat/Hello-World"});
    app.patch("/v1/services/hello-world", repository, &[]).expect(200);
    assert_eq!(states(app).len(), 1);
    // A deployment that was recorded before goes on to its end.
    send(app, report(3, "staging", "in_progress", 30));
    let set = |ignore: bool| {
        let body = json!({"ignore_github_deployments": ignore});
        app.patch("/v1/services/hello-world", body, &[]).expect(200)
    };
    assert_eq!(set(true)["ignore_github_deployments"], true);
    assert_eq!(send(app, report(3, "staging", "success", 31))["outcome"], "applied");
    ignored(&send(app, report(4, "staging", "success", 41)), "hello-world");
    ignored(&send(app, report(4, "staging", "in_progress", 40)), "hello-world");
    // Once the setting is gone, the next delivery brings what was ignored.
    set(false);
    assert_eq!(send(app, report(4, "staging", "", 42))["outcome"], "applied");
    let found = app.all("/v1/deployments?environment=staging");
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().any(|one| one["external_id"] == "4" && one["state"] == "succeeded"),
        "{found:?}"
    );
}

fn what_github_reported_as_gone_before_an_upgrade_stays_gone(app: &TestApp) {
    send(app, report(1, "production", "success", 10));
    send(app, report(1, "production", "inactive", 20));
    let gone = only(app);
    assert_eq!((&gone["state"], gone["retired_at"].is_string()), (&json!("superseded"), true));
    // An earlier version noted only the state.
    crate::gate::sql(app, "UPDATE deployments SET retired_at = NULL");
    let service = gone["service"].as_str().unwrap();
    let place = format!("('{service}', 'production')");
    let list = "INSERT INTO derived_places (service, environment) VALUES";
    crate::gate::sql(app, &format!("{list} {place}"));
    let derive = |db: &mut prop::db::Db| prop::ledger::backfill::derive(db, service, "production");
    assert_eq!(app.db().write(derive).unwrap(), (1, true));
    let derived = only(app);
    assert_eq!((&derived["state"], &derived["retired_at"]), (&gone["state"], &gone["retired_at"]));
}

fn a_number_that_somebody_took_carries_no_delivery_there(app: &TestApp) {
    ours(app);
    // As earlier versions let any key do it: in another service, another environment, and there.
    let places =
        [("decoy", "production"), ("hello-world", "staging"), ("hello-world", "production")];
    for (id, (service, environment)) in (4711..).zip(places) {
        let taken = app.deploy(service, environment, "evil", false);
        let taken = taken["id"].as_str().unwrap();
        crate::gate::sql(
            app,
            &format!(
                "UPDATE deployments SET source = 'github', external_id = '{id}' WHERE id = '{taken}'"
            ),
        );
        let before = app.get(&format!("/v1/deployments/{taken}")).expect(200);
        for (state, second, expected) in
            [("in_progress", 2, "running"), ("success", 5, "succeeded")]
        {
            let answer = send(app, report(id, "production", state, second));
            assert_eq!(answer["outcome"], "applied", "{service}/{environment}: {answer}");
            let path = format!("/v1/deployments/{}", answer["deployment_id"].as_str().unwrap());
            let made = app.get(&path).expect(200);
            assert_eq!(
                (&made["service"], &made["environment"], &made["state"], &made["git_sha"]),
                (&json!("hello-world"), &json!("production"), &json!(expected), &json!(SHA))
            );
            let url = "https://github.com/Codertocat/Hello-World";
            assert_eq!(made["external_id"], format!("{id}@{url}"), "the number is taken");
        }
        let after = app.get(&format!("/v1/deployments/{taken}")).expect(200);
        assert_eq!(after, before);
    }
}

fn a_number_of_another_github_is_another_deployment(app: &TestApp) {
    send(app, report(7, "production", "success", 5));
    let elsewhere = |state, second| {
        let (event, mut payload) = report(7, "production", state, second);
        payload["repository"]["html_url"] =
            json!("https://github.example.com/Codertocat/Hello-World");
        (event, payload)
    };
    assert_eq!(send(app, elsewhere("in_progress", 8))["outcome"], "applied");
    assert_eq!(send(app, elsewhere("failure", 9))["outcome"], "applied");
    let all = app.all("/v1/deployments");
    let found: Vec<_> = all.iter().map(|one| (&one["service"], &one["state"])).collect();
    assert_eq!(
        found,
        [
            (&json!("codertocat-hello-world"), &json!("failed")),
            (&json!("hello-world"), &json!("succeeded"))
        ]
    );
    assert_eq!(send(app, report(7, "production", "inactive", 10))["outcome"], "applied");
}

fn a_run_is_reported_by_its_own_repository(app: &TestApp) {
    guarded(app);
    send(app, told_of_run(1, "production", "in_progress", 10));
    send(app, told_of_run(2, "staging", "waiting", 10));
    let (event, mut ended) = run_ended(RUN, "failure", &at(60));
    ended["repository"]["html_url"] = json!("https://github.com/mallory/other");
    let mut yes = review("approved", "bob");
    yes["repository"]["html_url"] = json!("https://github.com/mallory/other");
    for (event, payload) in [(event, ended), ("deployment_review", yes)] {
        let answer = deliver(app, event, &payload);
        assert_eq!(answer["outcome"], "failed", "{answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains("is not one of the repository"), "{answer}");
    }
    assert_eq!(states(app), ["1 running", "2 awaiting_approval"]);
    assert!(app.all("/v1/approvals").is_empty());
    // Nor does it count when the next report about the deployment comes.
    assert_eq!(send(app, told_of_run(1, "production", "queued", 11))["outcome"], "unchanged");
    assert_eq!(send(app, run_ended(RUN, "failure", &at(60)))["outcome"], "applied");
    assert_eq!(states(app), ["1 failed", "2 awaiting_approval"]);
}

/// PostgreSQL stores no U+0000: what has one was answered 500, and lost.
fn a_delivery_with_nul_is_recorded(app: &TestApp) {
    let nul = |number: u64, pointer: &str| {
        let (event, mut payload) = report(number, "production", "failure", 5);
        let value = payload.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}"));
        *value = json!(format!("{}\0b\u{202E}", value.as_str().unwrap_or("a")));
        (event, payload)
    };
    for (number, pointer, outcome) in [
        (1, "/deployment_status/description", "applied"),
        (2, "/action", "applied"),
        (3, "/sender/login", "applied"),
        (4, "/repository/full_name", "applied"),
        (5, "/deployment/environment", "applied"),
        (6, "/deployment/payload", "applied"),
        (7, "/deployment/creator/login", "applied"),
        (8, "/deployment/sha", "applied"),
        (9, "/repository/html_url", "failed"),
    ] {
        let (event, payload) = nul(number, pointer);
        let (id, body) = (fresh(), payload.to_string());
        assert!(body.contains("\\u0000"), "{body}");
        let answer = deliver_as(app, &id, event, body.as_bytes()).expect(202);
        assert_eq!(answer["outcome"], outcome, "{pointer}: {answer}");
        let kept = app.get(&format!("/v1/deliveries/{id}")).expect(200);
        assert_eq!(kept["body"], body, "{pointer}: as it came");
        assert!(!kept.to_string().replace("\\\\u0000", "").contains("\\u0000"), "{kept}");
        let again = deliver_as(app, &id, event, body.as_bytes());
        assert_eq!(again.status, if outcome == "failed" { 202 } else { 200 }, "{pointer}");
    }
    let described = app.all("/v1/deployments").into_iter().find(|one| one["external_id"] == "1");
    assert_eq!(described.unwrap()["reason"], "\u{FFFD}b\u{FFFD}");
    let (actor, action) = ("github:Codertocat\u{FFFD}b\u{FFFD}", "created\u{FFFD}b\u{FFFD}");
    assert!(app.all("/v1/events").iter().any(|event| event["actor"] == actor));
    assert!(app.all("/v1/deliveries").iter().any(|one| one["action"] == action));
    // In an event that prop does not use, and in the text that `payload` may be.
    let ping = deliver(app, "push", &json!({"action": "a\0", "sender": {"login": "\0"}}));
    assert_eq!(ping["outcome"], "ignored");
    let (event, mut named) = report(10, "production", "success", 6);
    named["deployment"]["payload"] = json!("{\"service\": \"a\\u0000\"}");
    let refused = deliver(app, event, &named);
    assert_eq!(refused["outcome"], "failed", "{refused}");
    assert!(refused["detail"].as_str().unwrap().starts_with("invalid_slug"), "{refused}");
}
