//! What is wrong with a request is said in one problem, and nothing is written.

use crate::harness::{ADMIN, Answer, TestApp, digest, sha, together, with};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::io::{Read, Write};

crate::on_both_databases! {
    a_bad_body_is_refused
    a_body_that_is_not_json_is_refused
    a_bad_query_is_refused
    a_cursor_of_another_list_is_refused
    a_forged_cursor_breaks_nothing
    nul_in_a_query_or_a_path_breaks_nothing
    what_does_not_exist_is_not_found
    environments_that_would_come_before_themselves_are_refused
    of_concurrent_changes_none_closes_a_circle
    what_a_freeze_does_not_cover_is_not_let_through
    a_freeze_ends_once
    a_bad_or_missing_key_is_refused
    a_body_that_is_too_large_is_refused
    the_most_that_is_allowed_is_accepted
}

const UNKNOWN: &str = "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42";

/// The lists of what a request may change.
const LISTS: [&str; 7] =
    ["services", "environments", "releases", "deployments", "approvals", "freezes", "incidents"];

/// A service, an environment, a release and a deployment.
fn ledger(app: &TestApp) -> Value {
    app.deploy("checkout", "staging", "1", false)
}

/// Runs `attempts`, and checks that the ledger is as it was.
#[track_caller]
fn assert_untouched(app: &TestApp, attempts: impl FnOnce()) {
    let before = app.counts();
    let revisions = || LISTS.map(|list| app.get(&format!("/v1/{list}")).text);
    let resources = revisions();
    attempts();
    assert_eq!(app.counts(), before);
    assert_eq!(revisions(), resources);
}

/// A valid body, with one field as given; without it when the value is the word `<absent>`.
fn body(valid: &Value, pointer: &str, value: &Value) -> Value {
    let mut body = valid.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    // A list that the valid body lacks is made for its item.
    if let Some((owner, list)) = parent.rsplit_once('/').filter(|_| body.pointer(parent).is_none())
    {
        body.pointer_mut(owner).unwrap()[list] = json!([null]);
    }
    let parent = body.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[field.parse::<usize>().unwrap()] = value.clone(),
        _ if value == "<absent>" => drop(parent.as_object_mut().unwrap().remove(field)),
        _ => parent[field] = value.clone(),
    }
    body
}

fn a_bad_body_is_refused(app: &TestApp) {
    let deployment = ledger(app);
    let id = |field: &str| deployment[field].as_str().unwrap().to_owned();
    // Neither keeps anything back here: the freeze begins later, the incident is elsewhere.
    app.post("/v1/environments", json!({"slug": "qa", "tier": "testing"})).expect(201);
    let freeze = app
        .post("/v1/freezes", json!({"reason": "Quarter end", "starts_at": "2999-01-01T00:00:00Z"}))
        .expect(201);
    let freeze = format!("/v1/freezes/{}", freeze["id"].as_str().unwrap());
    let incident = json!({"service": "checkout", "environment": "qa", "title": "Cards fail",
        "severity": "minor"});
    let incident = app.post("/v1/incidents", incident).expect(201);
    let incident = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
    let place = json!({"service": "checkout", "environment": "staging"});
    let week =
        json!({"days": ["fri"], "from": "18:00", "to": "08:00", "time_zone": "Asia/Kolkata"});
    let review = json!({"version": "1", "decision": "approved", "source": "github",
        "approver": "alice", "run_url": "https://ci.example.org/17"});
    let bodies = [
        ("POST", "/v1/services".to_owned(), json!({"slug": "billing", "name": "Billing"})),
        ("PATCH", "/v1/services/checkout".to_owned(), json!({"name": "Checkout"})),
        (
            "POST",
            "/v1/environments".to_owned(),
            json!({"slug": "production", "tier": "production"}),
        ),
        ("PATCH", "/v1/environments/staging".to_owned(), json!({"name": "Staging"})),
        (
            "POST",
            "/v1/releases".to_owned(),
            json!({"service": "checkout", "version": "2",
                "commits": [{"sha": sha(1), "committed_at": "2026-02-03T04:05:06Z"}]}),
        ),
        (
            "PUT",
            format!("/v1/releases/{}/scan", id("release_id")),
            json!({"status": "passed", "tool": "trivy", "summary": {"high": 1}}),
        ),
        (
            "POST",
            "/v1/deployments".to_owned(),
            json!({"service": "checkout", "environment": "staging", "version": "1"}),
        ),
        ("POST", format!("/v1/deployments/{}/transitions", id("id")), json!({"to": "running"})),
        ("POST", "/v1/keys".to_owned(), json!({"name": "pipeline", "scopes": ["read"]})),
        (
            "POST",
            "/v1/approvals".to_owned(),
            with(place.clone(), json!({"version": "1", "decision": "approved"})),
        ),
        ("POST", "/v1/approvals".to_owned(), with(place.clone(), review)),
        (
            "POST",
            "/v1/freezes".to_owned(),
            json!({"reason": "Weekend", "starts_at": "2026-02-03T04:05:06Z", "weekly": week}),
        ),
        ("PATCH", freeze.clone(), json!({"reason": "Year end"})),
        (
            "POST",
            format!("{freeze}/overrides"),
            with(place.clone(), json!({"version": "1", "reason": "Card payments are down."})),
        ),
        (
            "POST",
            "/v1/incidents".to_owned(),
            with(place, json!({"title": "Card payments are down", "severity": "critical"})),
        ),
        ("PATCH", incident, json!({"title": "Card payments are down"})),
    ];
    let long = |n| Value::from("x".repeat(n));
    let absent = json!("<absent>");
    // The body by its number above, the field, what is wrong with it, and the code.
    let cases = [
        (0, "/slug", &[json!("")][..], "invalid_slug"),
        (
            0,
            "/slug",
            &[
                json!("Checkout"),
                json!("a_b"),
                json!("a b"),
                json!("ä"),
                json!("a\0"),
                json!("a\n"),
                long(64),
            ],
            "invalid_slug",
        ),
        (
            0,
            "/slug",
            &[json!(1), json!(null), json!({}), json!(["a"]), json!(true)],
            "invalid_type",
        ),
        (0, "/slug", std::slice::from_ref(&absent), "missing_field"),
        (
            0,
            "/name",
            &[json!(""), json!(" a"), json!("a\nb"), json!("a\0b"), json!("a\u{7f}"), long(201)],
            "invalid_text",
        ),
        (
            0,
            "/name",
            &[
                json!("a\u{202e}b"),
                json!("a\u{2066}b"),
                json!("a\u{200b}"),
                json!("a\u{200d}b"),
                json!("\u{feff}a"),
                json!("a\u{9b}31m"),
                json!("a\u{2028}b"),
                json!("a\u{ad}b"),
                json!("\u{3164}"),
                json!("\u{2764}\u{fe0f}"),
                json!("a\u{e0061}"),
            ],
            "invalid_text",
        ),
        (0, "/name", &[json!(1), json!([])], "invalid_type"),
        (
            0,
            "/description",
            &[json!("a\u{202e}b"), json!("a\u{2067}b"), json!("a\u{85}b"), json!("a\u{e0061}")],
            "invalid_text",
        ),
        (
            0,
            "/repository_url",
            &[
                json!("https://["),
                json!("https://]"),
                json!("https://a:b"),
                json!("https://a:65536"),
                json!("https://1.2.3.256"),
                json!("https://a%2"),
                json!("https://@"),
                json!("https:///a"),
                json!("https://xn--a"),
            ],
            "invalid_url",
        ),
        (
            0,
            "/description",
            &[json!(""), json!("a\0b"), json!("\u{1b}[31m"), long(4001)],
            "invalid_text",
        ),
        (0, "/owner", &[json!(""), json!("a\tb"), long(201)], "invalid_text"),
        (
            0,
            "/repository_url",
            &[
                json!(""),
                json!("git.example.org"),
                json!("javascript:alert(1)"),
                json!("https://"),
                json!("https://a b"),
                json!("https://a\"b"),
            ],
            "invalid_url",
        ),
        (
            0,
            "/repository_url",
            &[Value::from(format!("https://{}", "x".repeat(1993)))],
            "invalid_url",
        ),
        (0, "/revision", &[json!(7)], "unknown_field"),
        (0, "/a~1b", &[json!(7)], "unknown_field"),
        (1, "/name", &[json!(null), json!(7)], "invalid_type"),
        (1, "/name", &[json!("")], "invalid_text"),
        (1, "/slug", &[json!("billing")], "unknown_field"),
        (1, "/owner", &[json!("")], "invalid_text"),
        (1, "/repository_url", &[json!("ftp://a")], "invalid_url"),
        (2, "/tier", &[json!("prod"), json!("")], "invalid_value"),
        (2, "/tier", std::slice::from_ref(&absent), "missing_field"),
        (2, "/required_approvals", &[json!(-1), json!(11)], "invalid_value"),
        (2, "/required_approvals", &[json!("1"), json!(1.5)], "invalid_type"),
        (
            2,
            "/approval_ttl_hours",
            &[json!(0), json!(-1), json!(8761), json!(4_294_967_297_i64)],
            "invalid_value",
        ),
        (2, "/approval_ttl_hours", &[json!("72"), json!(0.5)], "invalid_type"),
        (2, "/soak_minutes", &[json!(-1), json!(43201)], "invalid_value"),
        (2, "/soak_minutes", &[json!("60"), json!(true)], "invalid_type"),
        (2, "/allow_self_approval", &[json!("yes"), json!(1), json!(null)], "invalid_type"),
        (2, "/require_scan", &[json!("yes"), json!(null)], "invalid_type"),
        (2, "/rollback_needs_approval", &[json!("yes"), json!(null)], "invalid_type"),
        (0, "/ignore_github_deployments", &[json!("yes"), json!(null)], "invalid_type"),
        (1, "/ignore_github_deployments", &[json!(null)], "invalid_type"),
        (2, "/ignore_github_deployments", &[json!("yes"), json!(null)], "invalid_type"),
        (3, "/ignore_github_deployments", &[json!(null)], "invalid_type"),
        (2, "/predecessor", &[json!("Staging"), json!("")], "invalid_slug"),
        (2, "/predecessor", &[json!("unknown")], "invalid_value"),
        (2, "/predecessor", &[json!("production")], "predecessor_circle"),
        (3, "/tier", &[json!(null)], "invalid_type"),
        (3, "/required_approvals", &[json!(null), json!("1")], "invalid_type"),
        (3, "/required_approvals", &[json!(-1), json!(11)], "invalid_value"),
        (3, "/approval_ttl_hours", &[json!(null), json!("72")], "invalid_type"),
        (3, "/approval_ttl_hours", &[json!(0), json!(8761)], "invalid_value"),
        (3, "/soak_minutes", &[json!(null)], "invalid_type"),
        (3, "/soak_minutes", &[json!(-1), json!(43201)], "invalid_value"),
        (3, "/allow_self_approval", &[json!(null), json!("no")], "invalid_type"),
        (3, "/require_scan", &[json!(null)], "invalid_type"),
        (3, "/rollback_needs_approval", &[json!(null)], "invalid_type"),
        (3, "/predecessor", &[json!("unknown")], "invalid_value"),
        (3, "/predecessor", &[json!("staging")], "predecessor_circle"),
        (4, "/service", &[json!("Checkout")], "invalid_slug"),
        (4, "/service", std::slice::from_ref(&absent), "missing_field"),
        (
            4,
            "/version",
            &[
                json!(""),
                json!("-1"),
                json!(".1"),
                json!("1 2"),
                json!("1/2"),
                json!("1\0"),
                long(129),
            ],
            "invalid_version",
        ),
        (
            4,
            "/git_sha",
            &[
                json!(""),
                json!("7fd1a60"),
                json!("A".repeat(40)),
                json!("g".repeat(40)),
                json!("a".repeat(41)),
            ],
            "invalid_sha",
        ),
        (
            4,
            "/image_digest",
            &[
                json!(""),
                json!("a".repeat(64)),
                json!(format!("sha256:{}", "A".repeat(64))),
                json!(format!("sha512:{}", "a".repeat(64))),
            ],
            "invalid_digest",
        ),
        (
            4,
            "/committed_at",
            &[
                json!(""),
                json!("yesterday"),
                json!("2026-02-03"),
                json!("2026-02-03T04:05:06"),
                json!("2026-02-03 04:05:06Z"),
                json!("2026-02-30T04:05:06Z"),
                json!("2026-02-03T04:05Z"),
                json!("2026-02-03T04Z"),
                json!("2026-02-03T04:05:06+01"),
                json!("2026-02-03T04:05:06[UTC]"),
                json!("-000001-12-31T23:59:59Z"),
                json!("0000-01-01T00:00:00+00:01"),
                json!("10000-01-01T00:00:00Z"),
                json!("2026-02-03T25:05:06Z"),
                json!("2026-02-03T04:05:06+01:00:30"),
            ],
            "invalid_time",
        ),
        (4, "/committed_at", &[json!(1_770_091_506)], "invalid_type"),
        (4, "/at", &[json!("now")], "invalid_time"),
        (4, "/commits", &[json!("a"), json!({})], "invalid_type"),
        (4, "/commits/0", &[json!("a"), json!(null)], "invalid_type"),
        (4, "/commits/0/sha", &[json!("7fd1a60")], "invalid_sha"),
        (4, "/commits/0/sha", std::slice::from_ref(&absent), "missing_field"),
        (4, "/commits/0/committed_at", &[json!("now")], "invalid_time"),
        (4, "/commits/0/author", &[json!("Anna")], "unknown_field"),
        (
            4,
            "/commits",
            &[json!(vec![json!({"sha": sha(1), "committed_at": "2026-02-03T04:05:06Z"}); 1001])],
            "invalid_value",
        ),
        (5, "/status", &[json!("missing"), json!("ok")], "invalid_value"),
        (5, "/tool", std::slice::from_ref(&absent), "missing_field"),
        (5, "/tool", &[json!(""), json!("a\nb"), long(201)], "invalid_text"),
        (5, "/summary/high", &[json!(-1), json!(1.5), json!(4_294_967_296_i64)], "invalid_value"),
        (5, "/summary", &[json!(1), json!(null)], "invalid_type"),
        (5, "/max_severity", &[json!("worst"), json!("")], "invalid_value"),
        (5, "/report_url", &[json!("report.json")], "invalid_url"),
        // No list of runs, and so no report.
        (5, "/runs", &[json!(1)], "unknown_field"),
        (5, "/summary/high", &[json!("1")], "invalid_type"),
        (5, "/summary/severe", &[json!(1)], "unknown_field"),
        (5, "/at", &[json!("now")], "invalid_time"),
        (6, "/environment", &[json!("Staging")], "invalid_slug"),
        (6, "/environment", std::slice::from_ref(&absent), "missing_field"),
        (6, "/version", &[json!(1)], "invalid_type"),
        (6, "/version", &[json!(null), absent.clone()], "missing_field"),
        (6, "/rollback", &[json!("yes"), json!(null)], "invalid_type"),
        (6, "/observed", &[json!(1), json!(null)], "invalid_type"),
        (6, "/fixes", &[json!(UNKNOWN), json!("17"), json!("")], "invalid_value"),
        (6, "/fixes", &[json!(17)], "invalid_type"),
        (6, "/source", &[json!("Git Hub")], "invalid_slug"),
        (6, "/external_id", &[json!(""), json!("a\0")], "invalid_text"),
        (6, "/requested_by", &[json!(""), long(201)], "invalid_text"),
        (6, "/run_url", &[json!("run 17")], "invalid_url"),
        (6, "/reason", &[json!(""), long(4001), json!("a\0")], "invalid_text"),
        (6, "/start", &[json!("true"), json!(1), json!(null)], "invalid_type"),
        (6, "/create_missing", &[json!("yes")], "invalid_type"),
        (6, "/state", &[json!("approved"), json!("success"), json!("")], "invalid_value"),
        (6, "/state", &[json!(true)], "invalid_type"),
        (6, "/finished_at", &[json!("now")], "invalid_time"),
        // Only what has ended has an end.
        (6, "/finished_at", &[json!("2026-02-03T04:05:06Z")], "invalid_value"),
        (7, "/to", &[json!("done"), json!("RUNNING")], "invalid_value"),
        (
            7,
            "/to",
            &[json!(null), json!(1), json!({"running": null}), json!(["running"])],
            "invalid_type",
        ),
        (7, "/to", std::slice::from_ref(&absent), "missing_field"),
        (7, "/by", &[json!("me")], "unknown_field"),
        (7, "/observed", &[json!("yes"), json!(null)], "invalid_type"),
        (8, "/scopes", &[json!([])], "invalid_value"),
        (8, "/scopes/0", &[json!("root")], "invalid_value"),
        (8, "/scopes", &[json!("read")], "invalid_type"),
        (8, "/name", &[json!(""), json!("a\n"), json!("admin\u{200b}")], "invalid_text"),
        (8, "/key", &[json!(ADMIN)], "unknown_field"),
        (9, "/service", std::slice::from_ref(&absent), "missing_field"),
        (9, "/version", &[json!("1 2")], "invalid_version"),
        (9, "/environment", &[json!("Staging")], "invalid_slug"),
        (9, "/decision", std::slice::from_ref(&absent), "missing_field"),
        (9, "/decision", &[json!("yes"), json!("APPROVED"), json!("")], "invalid_value"),
        (9, "/decision", &[json!(true), json!(null)], "invalid_type"),
        (9, "/comment", &[json!(""), json!("a\0"), json!("\u{202e}"), long(4001)], "invalid_text"),
        (9, "/at", &[json!("now")], "invalid_time"),
        (9, "/at", &[json!("9999-01-01T00:00:00Z")], "invalid_value"),
        (9, "/source", &[json!("gitlab")], "invalid_value"),
        (9, "/expires_at", &[json!("2999-01-01T00:00:00Z")], "unknown_field"),
        (10, "/approver", std::slice::from_ref(&absent), "missing_field"),
        (10, "/approver", &[json!(""), json!("a\nb"), long(201)], "invalid_text"),
        (10, "/run_url", std::slice::from_ref(&absent), "missing_field"),
        (10, "/run_url", &[json!("run 17")], "invalid_url"),
        (10, "/review_id", &[json!("")], "invalid_text"),
        // What was said here, by the caller, has no other approver and no run.
        (10, "/source", &[json!("api"), json!(null), absent.clone()], "invalid_value"),
        (11, "/reason", std::slice::from_ref(&absent), "missing_field"),
        (11, "/reason", &[json!(""), json!("a\nb"), json!("a\u{2028}"), long(201)], "invalid_text"),
        (11, "/environment", &[json!("Staging")], "invalid_slug"),
        (11, "/service", &[json!("")], "invalid_slug"),
        (11, "/starts_at", &[json!("now"), json!("2026-02-03")], "invalid_time"),
        (11, "/ends_at", &[json!("later")], "invalid_time"),
        (
            11,
            "/ends_at",
            &[
                json!("2026-02-03T04:05:05Z"),
                json!("2026-02-03T04:05:06Z"),
                json!("1999-01-01T00:00:00Z"),
            ],
            "invalid_value",
        ),
        (11, "/allow_rollback", &[json!("yes")], "invalid_type"),
        (11, "/ended", &[json!(true)], "unknown_field"),
        (11, "/weekly", &[json!("fri"), json!(1)], "invalid_type"),
        (11, "/weekly/days", &[json!([])], "invalid_value"),
        (11, "/weekly/days", &[json!("fri"), json!(null)], "invalid_type"),
        (11, "/weekly/days", std::slice::from_ref(&absent), "missing_field"),
        (11, "/weekly/days/0", &[json!("friday"), json!("Fri")], "invalid_value"),
        (
            11,
            "/weekly/from",
            &[
                json!("24:00"),
                json!("8:00"),
                json!("18:60"),
                json!("18:00:00"),
                json!("6 pm"),
                json!(""),
            ],
            "invalid_time",
        ),
        (11, "/weekly/from", &[json!(1800)], "invalid_type"),
        (11, "/weekly/to", &[json!("24:00"), json!("08.00")], "invalid_time"),
        (11, "/weekly/to", std::slice::from_ref(&absent), "missing_field"),
        (
            11,
            "/weekly/time_zone",
            &[json!("Mars/Olympus"), json!(""), json!("CEST"), json!("+01:00"), json!("a\0")],
            "invalid_time_zone",
        ),
        (11, "/weekly/time_zone", std::slice::from_ref(&absent), "missing_field"),
        (11, "/weekly/every", &[json!(2)], "unknown_field"),
        (12, "/reason", &[json!("")], "invalid_text"),
        (12, "/reason", &[json!(null)], "invalid_type"),
        (
            12,
            "/ends_at",
            &[json!("2998-12-31T23:59:59Z"), json!("2999-01-01T00:00:00Z")],
            "invalid_value",
        ),
        (12, "/ends_at", &[json!("never")], "invalid_time"),
        (12, "/allow_rollback", &[json!(null), json!("yes")], "invalid_type"),
        (12, "/ended", &[json!("yes"), json!(null)], "invalid_type"),
        (12, "/environment", &[json!("staging")], "unknown_field"),
        (12, "/weekly", &[json!(null)], "unknown_field"),
        (13, "/reason", std::slice::from_ref(&absent), "missing_field"),
        (13, "/reason", &[json!(""), long(201)], "invalid_text"),
        (13, "/service", std::slice::from_ref(&absent), "missing_field"),
        (13, "/environment", &[json!("Staging")], "invalid_slug"),
        (13, "/version", &[json!("-1")], "invalid_version"),
        (13, "/actor", &[json!("alice")], "unknown_field"),
        (14, "/title", std::slice::from_ref(&absent), "missing_field"),
        (14, "/title", &[json!(""), json!("a\nb"), json!("a\u{202e}"), long(201)], "invalid_text"),
        (14, "/severity", &[json!("high"), json!("")], "invalid_value"),
        (14, "/severity", std::slice::from_ref(&absent), "missing_field"),
        (14, "/detected_at", &[json!("now")], "invalid_time"),
        (14, "/caused_by", &[json!(UNKNOWN), json!(null)], "invalid_type"),
        (14, "/caused_by/0", &[json!("17"), json!("")], "invalid_value"),
        (14, "/caused_by", &[json!(vec![UNKNOWN; 101])], "invalid_value"),
        (14, "/resolved_at", &[json!("2999-01-01T00:00:00Z")], "unknown_field"),
        (15, "/title", &[json!(null)], "invalid_type"),
        (15, "/severity", &[json!("worst")], "invalid_value"),
        (15, "/caused_by", &[json!(null)], "invalid_type"),
        (15, "/fixed_by/0", &[json!("17")], "invalid_value"),
        (15, "/fixed_by", &[json!(vec![UNKNOWN; 101])], "invalid_value"),
        (15, "/resolved", &[json!("yes"), json!(null)], "invalid_type"),
        (15, "/resolved_at", &[json!(null)], "invalid_type"),
        (15, "/resolved_at", &[json!("now")], "invalid_time"),
        // Before it was noticed.
        (15, "/resolved_at", &[json!("2026-02-03T04:05:06Z")], "invalid_value"),
        (15, "/service", &[json!("checkout")], "unknown_field"),
    ];
    assert_untouched(app, || {
        for (number, pointer, values, code) in cases {
            let (method, path, valid) = &bodies[number];
            for value in values {
                // A field's name may hold what a pointer escapes.
                let body = if pointer == "/a~1b" {
                    json!({"slug": "billing", "a/b": 7})
                } else {
                    body(valid, pointer, value)
                };
                let answer = app.call(method, path, ADMIN, Some(&body), &[]);
                let shown = body.to_string().chars().take(200).collect::<String>();
                assert_eq!(
                    (answer.status, answer.json()["code"].as_str()),
                    (422, Some(code)),
                    "{method} {path} {shown}: {}",
                    answer.text
                );
                let problem = answer.expect_problem(422, code);
                assert_eq!(problem["errors"][0]["pointer"], pointer, "{shown}: {problem}");
                assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
            }
        }
    });
    // With nothing wrong, each is done.
    for (method, path, valid) in &bodies {
        let answer = app.call(method, path, ADMIN, Some(valid), &[]);
        assert!([200, 201].contains(&answer.status), "{method} {path} {valid}: {}", answer.text);
    }
}

fn a_body_that_is_not_json_is_refused(app: &TestApp) {
    ledger(app);
    let send = |content_type: Option<&str>, body: &[u8]| {
        let mut request =
            app.request("POST", "/v1/services").header("Authorization", format!("Bearer {ADMIN}"));
        if let Some(content_type) = content_type {
            request = request.header("Content-Type", content_type);
        }
        app.send(request.body(body.to_vec()).unwrap())
    };
    let valid = br#"{"slug":"billing"}"#;
    assert_untouched(app, || {
        let malformed: [&[u8]; 9] = [
            b"",
            b"{",
            b"slug=billing",
            b"{\"slug\":\"billing\"}{}",
            b"{\"slug\":\"billing\",}",
            b"{\"slug\":\"bill\xff\"}",
            b"{\"slug\":\"\\ud800\"}",
            b"{'slug':'billing'}",
            b"\xef\xbb\xbf{\"slug\":\"billing\"}",
        ];
        for body in malformed {
            let answer = send(Some("application/json"), body);
            assert_eq!(
                answer.json()["code"],
                "malformed_json",
                "{}: {}",
                String::from_utf8_lossy(body),
                answer.text
            );
            answer.expect_problem(400, "malformed_json");
        }
        // Deeper than any reader should follow.
        let deep = format!("{{\"slug\":{}", "[".repeat(100_000));
        assert!([400, 422].contains(&send(Some("application/json"), deep.as_bytes()).status));
        for (body, code) in [
            (&b"[]"[..], "invalid_type"),
            (b"null", "invalid_type"),
            (b"\"billing\"", "invalid_type"),
            (b"{}", "missing_field"),
        ] {
            send(Some("application/json"), body).expect_problem(422, code);
        }
        send(Some("application/json"), br#"{"slug":"billing","slug":"other"}"#)
            .expect_problem(422, "invalid_value");
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/jsonp"),
            Some(""),
        ] {
            let answer = send(content_type, valid);
            assert_eq!(answer.status, 415, "{content_type:?}: {}", answer.text);
            answer.expect_problem(415, "unsupported_media_type");
        }
    });
    // Media types are compared in any case (RFC 9110, section 8.3.1).
    send(Some("APPLICATION/json; charset=utf-8"), valid).expect(201);
    let encoded = |coding: &str, slug: &str| {
        let request = app.request("POST", "/v1/services").header("Content-Encoding", coding);
        let request = request.header("Authorization", format!("Bearer {ADMIN}"));
        let body = format!(r#"{{"slug":"{slug}"}}"#).into_bytes();
        app.send(request.header("Content-Type", "application/json").body(body).unwrap())
    };
    for coding in ["gzip", "br", "gzip, identity", ""] {
        let answer = encoded(coding, "compressed");
        answer.expect_problem(415, "unsupported_encoding");
        assert_eq!(answer.header("accept-encoding"), "identity");
    }
    encoded("Identity", "plain").expect(201);
}

fn a_bad_query_is_refused(app: &TestApp) {
    ledger(app);
    let lists = LISTS
        .into_iter()
        .chain(["events", "keys"])
        .map(|list| format!("/v1/{list}"))
        .collect::<Vec<_>>();
    let everywhere = [
        ("limit=0", "invalid_limit", "limit"),
        ("limit=101", "invalid_limit", "limit"),
        ("limit=-1", "invalid_limit", "limit"),
        ("limit=abc", "invalid_limit", "limit"),
        ("limit=+5", "invalid_limit", "limit"),
        ("limit=%2B5", "invalid_limit", "limit"),
        ("limit=5.0", "invalid_limit", "limit"),
        ("limit=", "invalid_limit", "limit"),
        ("limit=99999999999999999999", "invalid_limit", "limit"),
        ("cursor=", "invalid_cursor", "cursor"),
        ("cursor=garbage", "invalid_cursor", "cursor"),
        ("cursor=%00", "invalid_cursor", "cursor"),
        // `"\u0000"`, `[]` and `{}` in the cursor's alphabet.
        ("cursor=IlwwIg", "invalid_cursor", "cursor"),
        ("cursor=Ilx1MDAwMCI", "invalid_cursor", "cursor"),
        ("cursor=W10", "invalid_cursor", "cursor"),
        ("cursor=e30", "invalid_cursor", "cursor"),
        ("limit=5&limit=5", "invalid_query", "limit"),
        ("unknown=1", "invalid_query", "unknown"),
        ("LIMIT=5", "invalid_query", "LIMIT"),
    ];
    let own = [
        ("/v1/releases?service=Checkout", "service"),
        ("/v1/releases?version=-1", "version"),
        ("/v1/releases?git_sha=7fd1a60", "git_sha"),
        ("/v1/releases?git_sha=", "git_sha"),
        ("/v1/deployments?service=a%00", "service"),
        ("/v1/deployments?environment=", "environment"),
        ("/v1/deployments?state=done", "state"),
        ("/v1/deployments?since=yesterday", "since"),
        ("/v1/deployments?since=2026-02-03T04:05:06+01:00", "since"),
        ("/v1/deployments?until=2026-02-03", "until"),
        ("/v1/deployments?state=running&state=failed", "state"),
        ("/v1/events?entity=person", "entity"),
        ("/v1/events?entity_id=%00", "entity_id"),
        ("/v1/events?actor=", "actor"),
        ("/v1/events?action=a%0Ab", "action"),
        ("/v1/events?since=1770091506", "since"),
        ("/v1/approvals?service=Checkout", "service"),
        ("/v1/approvals?environment=", "environment"),
        ("/v1/approvals?decision=approved", "decision"),
        ("/v1/freezes?open=yes", "open"),
        ("/v1/freezes?open=", "open"),
        ("/v1/freezes?open=true&open=false", "open"),
        ("/v1/incidents?open=1", "open"),
        ("/v1/incidents?service=a%00", "service"),
        ("/v1/incidents?environment=Staging", "environment"),
        ("/v1/metrics/dora?service=Checkout", "service"),
        ("/v1/metrics/dora?environment=", "environment"),
        ("/v1/metrics/dora?tier=live", "tier"),
        ("/v1/metrics/dora?tier=production&environment=staging", "tier"),
        ("/v1/metrics/dora?since=2026-02-03", "since"),
        ("/v1/metrics/dora?until=now", "until"),
        ("/v1/metrics/dora?bucket=month", "bucket"),
        ("/v1/metrics/dora?cursor=W10", "cursor"),
        ("/v1/gate?environment=staging&version=1", "service"),
        ("/v1/gate?service=checkout&version=1", "environment"),
        ("/v1/gate?service=checkout&environment=staging", "version"),
        ("/v1/gate?service=Checkout&environment=staging&version=1", "service"),
        ("/v1/gate?service=checkout&environment=staging&version=-1", "version"),
        ("/v1/gate?service=checkout&environment=staging&version=1&requested_by=", "requested_by"),
        ("/v1/gate?service=checkout&environment=staging&version=1&rollback=yes", "rollback"),
        ("/v1/gate?service=checkout&environment=staging&version=1&limit=5", "limit"),
        ("/v1/gate?service=checkout&environment=staging&version=1&version=2", "version"),
    ];
    let scan = format!(
        "/v1/releases/{}/scan",
        app.get("/v1/releases").expect(200)["items"][0]["id"].as_str().unwrap()
    );
    assert_untouched(app, || {
        let check = |path: String, code: &str, name: &str| {
            let answer = app.get(&path);
            assert_eq!(
                (answer.status, answer.json()["code"].as_str()),
                (400, Some(code)),
                "{path}: {}",
                answer.text
            );
            assert_eq!(
                answer.expect_problem(400, code)["errors"][0]["pointer"],
                name,
                "{path}: {}",
                answer.text
            );
        };
        for list in &lists {
            for (query, code, name) in everywhere {
                check(format!("{list}?{query}"), code, name);
            }
        }
        for (path, name) in own {
            check(path.to_owned(), "invalid_query", name);
        }
        for limit in ["0", "101", "+5"] {
            check(format!("/v1/metrics/dora?limit={limit}"), "invalid_limit", "limit");
        }
        for (query, name) in [
            ("max_severity=worst", "max_severity"),
            ("report_url=report", "report_url"),
            ("severity=low", "severity"),
        ] {
            let problem = app
                .put(&format!("{scan}?{query}"), json!({"tool": "trivy"}))
                .expect_problem(400, "invalid_query");
            assert_eq!(problem["errors"][0]["pointer"], name, "{problem}");
        }
    });
}

fn a_cursor_of_another_list_is_refused(app: &TestApp) {
    for slug in ["a", "b"] {
        app.deploy(slug, slug, "1", false);
        app.key(slug, &["read"]);
        let place = json!({"service": slug, "environment": slug});
        app.post(
            "/v1/approvals",
            with(place.clone(), json!({"version": "1", "decision": "rejected"})),
        )
        .expect(201);
        app.post("/v1/freezes", with(place.clone(), json!({"reason": "Quarter end"}))).expect(201);
        app.post("/v1/incidents", with(place, json!({"title": "Cards fail", "severity": "minor"})))
            .expect(201);
    }
    // Lists in the same order have the same form of cursor.
    let by_time =
        ["/v1/releases", "/v1/deployments", "/v1/approvals", "/v1/freezes", "/v1/incidents"];
    let orders = [&["/v1/services", "/v1/environments"][..], &by_time, &["/v1/events"]];
    let cursor = |list: &str| {
        app.get(&format!("{list}?limit=1")).expect(200)["next"].as_str().unwrap().to_owned()
    };
    assert_untouched(app, || {
        for (i, lists) in orders.iter().enumerate() {
            for other in
                orders.iter().enumerate().filter(|(j, _)| *j != i).flat_map(|(_, others)| *others)
            {
                for list in *lists {
                    app.get(&format!("{list}?cursor={}", cursor(other)))
                        .expect_problem(400, "invalid_cursor");
                }
            }
        }
    });
}

/// Every GET operation of the document with its parameters.
fn questions() -> Vec<(String, Vec<Value>)> {
    let document: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let asked = paths.iter().filter_map(|(path, item)| {
        let parameters = item.get("get")?["parameters"].as_array()?.clone();
        Some((path.clone(), parameters))
    });
    asked.collect()
}

fn a_forged_cursor_breaks_nothing(app: &TestApp) {
    let forged = [
        json!(["2026-01-01T00:00:00Z", "\0"]),
        json!(["2026-01-01T00:00:00Z", "a\u{202E}"]),
        json!(["2026-01-01T00:00:00Z", UNKNOWN]),
        json!(["9999-12-31T23:59:59.999999Z", UNKNOWN]),
        json!(["0000-01-01T00:00:00Z", UNKNOWN]),
        json!("\0"),
        json!("a"),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(null),
        json!([[]]),
    ];
    let mut lists = 0;
    let deployment = ledger(app);
    for (path, parameters) in questions() {
        if !parameters.iter().any(|parameter| parameter["name"] == "cursor") {
            continue;
        }
        lists += 1;
        let path = path.replace("{id}", deployment["id"].as_str().unwrap());
        for key in &forged {
            let cursor = BASE64_URL_SAFE_NO_PAD.encode(key.to_string());
            let answer = app.get(&format!("{path}?cursor={cursor}"));
            if answer.status != 200 {
                answer.expect_problem(400, "invalid_cursor");
            }
        }
        for cursor in ["", "a", "%00", "%C3%A9", "%7B%7D"] {
            app.get(&format!("{path}?cursor={cursor}")).expect_problem(400, "invalid_cursor");
        }
    }
    assert_eq!(lists, 11);
}

fn nul_in_a_query_or_a_path_breaks_nothing(app: &TestApp) {
    let mut sent = 0;
    for (path, parameters) in questions() {
        for parameter in &parameters {
            let name = parameter["name"].as_str().unwrap();
            let asked = match parameter["in"].as_str().unwrap() {
                "query" => format!("{path}?{name}=%00"),
                "path" => path.replace(&format!("{{{name}}}"), "%00"),
                _ => continue,
            };
            let answer = app.get(&asked.replace(['{', '}'], ""));
            assert!((400..500).contains(&answer.status), "{asked}: {}", answer.text);
            sent += 1;
        }
    }
    assert!(sent > 50, "{sent}");
}

fn what_does_not_exist_is_not_found(app: &TestApp) {
    ledger(app);
    let scan = json!({"status": "passed", "tool": "trivy"});
    let to = json!({"to": "running"});
    let patch = json!({"name": "A"});
    let (freeze, incident) = (json!({"ended": true}), json!({"resolved": true}));
    let pass = json!({"service": "checkout", "environment": "staging", "version": "1",
        "reason": "Card payments are down."});
    let places = [
        ("GET", "/v1/services/{}", None),
        ("PATCH", "/v1/services/{}", Some(&patch)),
        ("GET", "/v1/environments/{}", None),
        ("PATCH", "/v1/environments/{}", Some(&patch)),
        ("GET", "/v1/services/{}/environments/staging", None),
        ("GET", "/v1/services/checkout/environments/{}", None),
        ("GET", "/v1/releases/{}", None),
        ("PUT", "/v1/releases/{}/scan", Some(&scan)),
        ("GET", "/v1/deployments/{}", None),
        ("GET", "/v1/deployments/{}/events", None),
        ("POST", "/v1/deployments/{}/transitions", Some(&to)),
        ("GET", "/v1/freezes/{}", None),
        ("PATCH", "/v1/freezes/{}", Some(&freeze)),
        ("POST", "/v1/freezes/{}/overrides", Some(&pass)),
        ("GET", "/v1/incidents/{}", None),
        ("PATCH", "/v1/incidents/{}", Some(&incident)),
        ("DELETE", "/v1/keys/{}", None),
    ];
    // What a body or a query names must be there as well.
    let place = json!({"service": "checkout", "environment": "staging"});
    let freeze = app
        .post("/v1/freezes", json!({"reason": "Quarter end", "starts_at": "2999-01-01T00:00:00Z"}))
        .expect(201);
    let overrides = format!("/v1/freezes/{}/overrides", freeze["id"].as_str().unwrap());
    let posts = [
        ("/v1/approvals", with(place.clone(), json!({"version": "1", "decision": "approved"}))),
        ("/v1/freezes", with(place.clone(), json!({"reason": "Quarter end"}))),
        (
            &overrides,
            with(place.clone(), json!({"version": "1", "reason": "Card payments are down."})),
        ),
        ("/v1/incidents", with(place, json!({"title": "Cards fail", "severity": "minor"}))),
    ];
    let long = "a".repeat(5000);
    assert_untouched(app, || {
        for (method, path, body) in places {
            for name in [
                UNKNOWN,
                "unknown",
                "17",
                "%00",
                "a%00b",
                "%ff",
                "..%2f..",
                "%27%20OR%201=1--",
                "%F0%9F%99%88",
                &long,
            ] {
                let answer = app.call(method, &path.replace("{}", name), ADMIN, body, &[]);
                assert_eq!(answer.status, 404, "{method} {path} {name}: {}", answer.text);
                answer.expect_problem(404, "not_found");
            }
        }
        let refused = |answer: Answer| {
            let problem = answer.expect_problem(404, "not_found");
            assert!(problem["detail"].as_str().unwrap().contains("unknown"), "{problem}");
        };
        for (path, valid) in &posts {
            for field in ["service", "environment"] {
                refused(app.post(path, with(valid.clone(), json!({field: "unknown"}))));
            }
        }
        refused(app.post("/v1/approvals", with(posts[0].1.clone(), json!({"version": "unknown"}))));
        let problem = app
            .post("/v1/incidents", with(posts[3].1.clone(), json!({"caused_by": [UNKNOWN]})))
            .expect_problem(404, "not_found");
        assert!(problem["detail"].as_str().unwrap().contains(UNKNOWN), "{problem}");
        for query in [
            "service=unknown&environment=staging&version=1",
            "service=checkout&environment=unknown&version=1",
            "service=checkout&environment=staging&version=unknown",
        ] {
            refused(app.get(&format!("/v1/gate?{query}")));
        }
    });
}

fn environments_that_would_come_before_themselves_are_refused(app: &TestApp) {
    for (slug, predecessor) in [("a", None), ("b", Some("a")), ("c", Some("b"))] {
        app.post(
            "/v1/environments",
            json!({"slug": slug, "tier": "testing", "predecessor": predecessor}),
        )
        .expect(201);
    }
    assert_untouched(app, || {
        for (slug, predecessor, circle) in
            [("a", "c", "a -> b -> c -> a"), ("a", "b", "a -> b -> a"), ("b", "c", "b -> c -> b")]
        {
            let answer = app.patch(
                &format!("/v1/environments/{slug}"),
                json!({"predecessor": predecessor}),
                &[],
            );
            let problem = answer.expect_problem(422, "predecessor_circle");
            assert_eq!(problem["errors"][0]["pointer"], "/predecessor");
            assert!(problem["detail"].as_str().unwrap().contains(circle), "{problem}");
        }
    });
    // Taken apart, it is none.
    let b = app.patch("/v1/environments/b", json!({"predecessor": null}), &[]).expect(200);
    assert_eq!(b["predecessor"], Value::Null);
    let a = app.patch("/v1/environments/a", json!({"predecessor": "c"}), &[]).expect(200);
    assert_eq!(a["predecessor"], "c");
}

fn of_concurrent_changes_none_closes_a_circle(app: &TestApp) {
    let slugs = ["a", "b", "c", "d"];
    for slug in slugs {
        app.post("/v1/environments", json!({"slug": slug, "tier": "testing"})).expect(201);
    }
    // Any three of these are right, all four together are not.
    let answers = together(4, |i| {
        app.patch(
            &format!("/v1/environments/{}", slugs[i]),
            json!({"predecessor": slugs[(i + 1) % 4]}),
            &[],
        )
    });
    let (changed, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((changed.len(), refused.len()), (3, 1), "{refused:?}");
    refused[0].expect_problem(422, "predecessor_circle");
}

fn what_a_freeze_does_not_cover_is_not_let_through(app: &TestApp) {
    for (service, environment) in [("checkout", "staging"), ("billing", "production")] {
        app.deploy(service, environment, "1", false);
    }
    let pass = |freeze: &Value, service: &str, environment: &str| {
        let body = json!({"service": service, "environment": environment, "version": "1",
            "reason": "Card payments are down."});
        app.post(&format!("/v1/freezes/{}/overrides", freeze["id"].as_str().unwrap()), body)
    };
    let scopes = [
        json!({"service": "checkout"}),
        json!({"environment": "staging"}),
        json!({"service": "checkout", "environment": "staging"}),
    ];
    for scope in scopes {
        let freeze = app
            .post("/v1/freezes", with(scope.clone(), json!({"reason": "Quarter end"})))
            .expect(201);
        assert_untouched(app, || {
            for (service, environment) in
                [("billing", "production"), ("billing", "staging"), ("checkout", "production")]
            {
                let is_covered = (scope.get("service").is_none_or(|covered| covered == service))
                    && (scope.get("environment").is_none_or(|covered| covered == environment));
                if !is_covered {
                    let problem =
                        pass(&freeze, service, environment).expect_problem(422, "invalid_value");
                    assert_eq!(
                        problem["errors"].as_array().unwrap().len(),
                        1,
                        "{scope}: {problem}"
                    );
                }
            }
        });
        pass(&freeze, "checkout", "staging").expect(201);
    }
    let everything = app.post("/v1/freezes", json!({"reason": "Quarter end"})).expect(201);
    pass(&everything, "billing", "production").expect(201);
}

fn a_freeze_ends_once(app: &TestApp) {
    ledger(app);
    let pass = json!({"service": "checkout", "environment": "staging", "version": "1",
        "reason": "Card payments are down."});
    let freeze = app.post("/v1/freezes", json!({"reason": "Quarter end"})).expect(201);
    let path = format!("/v1/freezes/{}", freeze["id"].as_str().unwrap());
    let ended = app.patch(&path, json!({"ended": true}), &[]).expect(200);
    assert!(ended["ended_at"].is_string(), "{ended}");
    assert_untouched(app, || {
        for change in [
            json!({"ended": true}),
            json!({"ended": false}),
            json!({"reason": "Year end"}),
            json!({"ends_at": null}),
        ] {
            app.patch(&path, change, &[]).expect_problem(409, "freeze_ended");
        }
        app.post(&format!("{path}/overrides"), pass.clone()).expect_problem(409, "freeze_ended");
    });
    assert_eq!(app.get(&path).expect(200), ended);
    // One that is over by itself is as little to be overridden.
    let past = json!({"reason": "Quarter end", "starts_at": "2026-01-01T00:00:00Z",
        "ends_at": "2026-01-02T00:00:00Z"});
    let past = app.post("/v1/freezes", past).expect(201);
    app.post(&format!("/v1/freezes/{}/overrides", past["id"].as_str().unwrap()), pass)
        .expect_problem(409, "freeze_ended");
}

fn a_bad_or_missing_key_is_refused(app: &TestApp) {
    ledger(app);
    let revoked = app.key("former", &["operate"]);
    let id = app.get("/v1/keys?limit=1").expect(200)["items"][0]["id"].as_str().unwrap().to_owned();
    app.delete(&format!("/v1/keys/{id}")).expect(200);
    let reader = app.key("reader", &["read"]);
    let unknown = prop::types::token::Token::generate().unwrap();
    let unknown = unknown.reveal();
    let typo = format!("{}x", &ADMIN[..40]);
    let send = |authorization: Option<&str>| {
        let mut request =
            app.request("POST", "/v1/services").header("Content-Type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        app.send(request.body(br#"{"slug":"billing"}"#.to_vec()).unwrap())
    };
    let refused = |authorization: Option<&str>, code: &str| {
        let answer = send(authorization);
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (401, Some(code)),
            "{authorization:?}: {}",
            answer.text
        );
        answer.expect_problem(401, code);
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    };
    assert_untouched(app, || {
        refused(None, "unauthenticated");
        let basic = format!("Basic {ADMIN}");
        let (bare, twice, cut) = (
            ADMIN.to_owned(),
            format!("Bearer Bearer {ADMIN}"),
            format!("Bearer {}", &ADMIN[..40]),
        );
        for malformed in [
            "Bearer",
            "Bearer ",
            "Bearer prop_",
            &basic,
            &bare,
            &twice,
            &cut,
            &format!("Bearer {typo}"),
        ] {
            refused(Some(malformed), "invalid_key");
        }
        refused(Some(&format!("Bearer {unknown}")), "invalid_key");
        refused(Some(&format!("Bearer {revoked}")), "revoked_key");
        let problem = send(Some(&format!("Bearer {reader}"))).expect_problem(403, "missing_scope");
        assert_eq!(problem["scopes"], json!(["operate"]));
    });
    // The scheme's case does not matter (RFC 9110, section 11.1).
    assert_eq!(send(Some(&format!("bearer {ADMIN}"))).status, 201);
}

/// Sends a body in chunks, without saying how long it is.
fn send_chunked(app: &TestApp, body: &[u8]) -> String {
    let address = app.url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let head = format!(
        "POST /v1/services HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {ADMIN}\r\n\
            Content-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for chunk in body.chunks(512) {
        write!(stream, "{:x}\r\n", chunk.len()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn a_body_that_is_too_large_is_refused(app: &TestApp) {
    let small = TestApp::start(&app.database_url, &[("PROP_HTTP__BODY_LIMIT_KIB", "1")]);
    let sized = |size: usize| {
        let frame = json!({"slug": "billing", "description": ""}).to_string().len();
        json!({"slug": "billing", "description": "x".repeat(size - frame)})
    };
    assert_untouched(app, || {
        small.post("/v1/services", sized(1025)).expect_problem(413, "body_too_large");
        let answer = send_chunked(&small, sized(1025).to_string().as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"),
            "{answer}"
        );
    });
    let answer = send_chunked(&small, sized(1024).to_string().as_bytes());
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    small.post("/v1/services", sized(1024)).expect_problem(409, "already_exists");
}

fn the_most_that_is_allowed_is_accepted(app: &TestApp) {
    let accepted = |answer: Answer| assert!([200, 201].contains(&answer.status), "{}", answer.text);
    let service = json!({
        "slug": "a".repeat(63), "name": "ü".repeat(200), "description": "🙈".repeat(4000),
        "owner": "x".repeat(200),
        "repository_url": format!("https://{}", "x".repeat(1992))
    });
    accepted(app.post("/v1/services", service.clone()));
    let kept = app.get(&format!("/v1/services/{}", "a".repeat(63))).expect(200);
    for (field, value) in service.as_object().unwrap() {
        assert_eq!(kept[field], *value, "{field}");
    }
    let most = json!({"slug": "0", "tier": "testing", "required_approvals": 10,
        "approval_ttl_hours": 8760, "soak_minutes": 43200});
    accepted(app.post("/v1/environments", most));
    // What is not said is what an environment asks if it asks nothing.
    let least = json!({"slug": "1", "tier": "testing", "required_approvals": null,
        "approval_ttl_hours": null, "soak_minutes": null, "predecessor": null});
    let least = app.post("/v1/environments", least).expect(201);
    assert_eq!(
        (&least["required_approvals"], &least["approval_ttl_hours"], &least["soak_minutes"]),
        (&json!(0), &json!(72), &json!(0))
    );
    accepted(app.patch(
        "/v1/environments/1",
        json!({"required_approvals": 0, "approval_ttl_hours": 1, "soak_minutes": 0}),
        &[],
    ));
    let release = json!({
        "service": "a".repeat(63), "version": "v".repeat(128), "git_sha": "a".repeat(64),
        "image_digest": digest(15),
        "committed_at": "9999-12-30T22:00:00.999999999Z"
    });
    accepted(app.post("/v1/releases", release.clone()));
    let oldest = with(release, json!({"version": "0", "committed_at": "0000-01-01T00:00:00Z"}));
    assert_eq!(
        app.post("/v1/releases", oldest).expect(201)["committed_at"],
        "0000-01-01T00:00:00.000000Z"
    );
    // Emoji of several parts are no names, but belong to what people write.
    app.deploy("cards", "staging", "1", false);
    let place = json!({"service": "cards", "environment": "staging"});
    let title =
        json!({"title": "\u{26a0}\u{fe0f} down \u{1f469}\u{200d}\u{1f692}", "severity": "minor"});
    accepted(app.post("/v1/incidents", with(place.clone(), title)));
    let comment = json!({"version": "1", "decision": "rejected",
        "comment": "\u{1f469}\u{200d}\u{1f692}\n\tnot\u{ad}yet \u{200e}\r\n"});
    accepted(app.post("/v1/approvals", with(place, comment)));
    accepted(app.get("/v1/services?limit=100"));
    accepted(app.get("/v1/services?limit=1"));
}
