//! DORA's five measures, checked against a month that was counted by hand.

use crate::gate::{cost, in_minutes, sql};
use crate::harness::{TestApp, behind_pooler, count, image, sha, with};
use diesel::connection::InstrumentationEvent;
use diesel::sql_types::Text;
use diesel::{Connection, RunQueryDsl};
use prop::db::Db;
use prop::ledger::views::dora::{Question, measure};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

crate::on_both_databases! {
    a_month_is_what_was_counted_by_hand
    a_hotfix_mends_what_it_is_linked_to
    a_window_is_half_open
    the_last_ninety_days_are_measured_unless_told_otherwise
    a_window_that_can_not_be_measured_is_refused
    measures_are_of_what_was_asked_for
    a_deployment_delivers_the_releases_that_it_skipped
    a_release_without_commit_times_hides_what_was_skipped
    an_empty_ledger_has_no_figures
    a_measure_names_the_newest_behind_it
    measuring_costs_the_same_whatever_the_history
    what_is_older_is_not_read
}

/// A release of checkout.
fn release(app: &TestApp, version: &str, more: Value) {
    let body = json!({"service": "checkout", "version": version, "image_digest": image(version),
        "create_missing": true});
    app.post("/v1/releases", with(body, more)).expect(201);
}

/// A deployment of the past that was observed: when it finished, and how. It took a minute.
fn happened(app: &TestApp, version: &str, finished_at: &str, to: &str, more: Value) -> Value {
    let started_at: jiff::Timestamp = finished_at.parse().unwrap();
    let started_at = started_at - jiff::SignedDuration::from_mins(1);
    let body = json!({"service": "checkout", "environment": "production", "version": version,
        "observed": true, "at": started_at,
        "create_missing": true});
    let running = app.post("/v1/deployments", with(body, more)).expect(201);
    let path = format!("/v1/deployments/{}/transitions", running["id"].as_str().unwrap());
    app.post(&path, json!({"to": to, "observed": true, "at": finished_at})).expect(200)
}

fn live(app: &TestApp, version: &str, finished_at: &str) -> Value {
    happened(app, version, finished_at, "succeeded", json!({}))
}

/// An incident that a deployment caused, over or not.
fn incident(app: &TestApp, cause: &Value, detected_at: &str, resolved_at: Option<&str>) -> Value {
    let body = json!({"service": "checkout", "environment": "production", "title": "Cards fail",
        "severity": "major",
        "detected_at": detected_at, "caused_by": [cause["id"]]});
    let answer = app.post("/v1/incidents", body);
    let opened = answer.expect(201);
    match resolved_at {
        Some(at) => {
            app.patch(answer.header("location"), json!({"resolved_at": at}), &[]).expect(200)
        }
        None => opened,
    }
}

/// Some weeks of checkout in production, and beside them some of what is not counted.
struct Story {
    second: Value,
    third: Value,
    rollback: Value,
    fifth: Value,
    hotfix: Value,
    seventh: Value,
    eighth: Value,
    ninth: Value,
    ended: Value,
    open: Value,
}

fn story(app: &TestApp) -> Story {
    let commit = |n: u8, at: &str| json!({"sha": sha(n), "committed_at": at});
    let merge = with(commit(15, "2025-03-03T09:00:00Z"), json!({"is_merge": true}));
    release(app, "1", json!({"commits": [commit(1, "2025-02-19T10:00:00Z")]}));
    // One commit was delivered before; of the others, one took a day and one two hours; the merge
    // counts for nothing.
    let commits = [
        commit(1, "2025-02-19T10:00:00Z"),
        commit(2, "2025-03-02T10:00:00Z"),
        commit(3, "2025-03-03T08:00:00Z"),
        merge,
    ];
    release(app, "2", json!({"commits": commits}));
    release(app, "3", json!({"committed_at": "2025-03-05T06:00:00Z", "git_sha": sha(4)}));
    release(app, "6", json!({"committed_at": "2025-03-11T09:00:00Z"}));
    release(app, "7", json!({"committed_at": "2025-03-21T09:00:00Z"}));
    release(app, "8", json!({"committed_at": "2025-03-31T21:59:59.999999Z"}));

    live(app, "1", "2025-02-20T10:00:00Z");
    let second = live(app, "2", "2025-03-03T10:00:00Z");
    live(app, "2", "2025-03-04T09:00:00Z");
    let third = live(app, "3", "2025-03-05T12:00:00Z");
    let rollback = live(app, "1", "2025-03-05T13:00:00Z");
    happened(app, "4", "2025-03-06T10:00:00Z", "failed", json!({}));
    let fifth = live(app, "5", "2025-03-10T10:00:00Z");
    let ended = incident(app, &fifth, "2025-03-10T10:30:00Z", Some("2025-03-10T12:00:00Z"));
    let hotfix =
        happened(app, "6", "2025-03-11T10:00:00Z", "succeeded", json!({"unplanned": true}));
    let seventh = live(app, "7", "2025-03-20T10:00:00Z");
    let open = incident(app, &seventh, "2025-03-20T11:00:00Z", None);
    let eighth = live(app, "8", "2025-03-31T23:59:59.999999Z");
    let ninth = happened(app, "9", "2025-04-01T00:00:00Z", "succeeded", json!({"unplanned": true}));

    happened(app, "5", "2025-03-09T10:00:00Z", "succeeded", json!({"environment": "staging"}));
    happened(
        app,
        "1",
        "2025-03-12T10:00:00Z",
        "succeeded",
        json!({"service": "billing", "version": "1"}),
    );
    Story { second, third, rollback, fifth, hotfix, seventh, eighth, ninth, ended, open }
}

const MARCH: &str = "since=2025-03-01T00:00:00Z&until=2025-04-01T00:00:00Z";

fn dora(app: &TestApp, query: &str) -> Value {
    app.get(&format!("/v1/metrics/dora?{query}")).expect(200)
}

/// A measure without its deployments.
fn figures(measures: &Value, measure: &str) -> Value {
    let mut figures = measures[measure].clone();
    figures.as_object_mut().unwrap().remove("deployments");
    figures
}

/// A field of each deployment that a measure names, the newest first.
fn named<'a>(measures: &'a Value, measure: &str, field: &str) -> Vec<&'a Value> {
    measures[measure]["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|deployment| &deployment[field])
        .collect()
}

fn a_month_is_what_was_counted_by_hand(app: &TestApp) {
    let story = story(app);
    let march = dora(app, &format!("{MARCH}&service=checkout"));
    assert_eq!(
        (&march["service"], &march["environments"]),
        (&json!("checkout"), &json!(["production"]))
    );
    assert_eq!(
        (&march["since"], &march["until"]),
        (&json!("2025-03-01T00:00:00.000000Z"), &json!("2025-04-01T00:00:00.000000Z"))
    );

    // 2, 3, 5, 6, 7, 8 in 31 days; not the redeploy of 2, the rollback to 1, and 4, of which the
    // rollout failed.
    let left_out = json!([{"reason": "redeploy", "n": 1}, {"reason": "rollback", "n": 1},
        {"reason": "failed", "n": 1}]);
    assert_eq!(
        figures(&march, "deployment_frequency"),
        json!({"per_day": 6.0 / 31.0, "n": 6, "left_out": left_out})
    );
    let versions = named(&march, "deployment_frequency", "version");
    assert_eq!(versions, ["8", "7", "6", "5", "3", "2"]);

    // In hours: 24 and 2 with 2, 6 with 3, 1 with 6, 2 with 8. The commits of 5 are unknown, and so
    // is what lies between 5 and 6.
    let lead_time = json!({"p50_seconds": 2 * 3600, "p90_seconds": 24 * 3600, "n": 5,
        "basis": {"commits": 2, "release": 3}, "left_out": [
        {"reason": "merge_commit", "n": 1}, {"reason": "delivered_before", "n": 1},
        {"reason": "no_commit_time", "n": 1}, {"reason": "order_unknown", "n": 1},
        {"reason": "committed_after", "n": 1}]});
    assert_eq!(figures(&march, "change_lead_time"), lead_time);
    assert_eq!(named(&march, "change_lead_time", "version"), ["8", "6", "3", "2"]);
    assert_eq!(
        named(&march, "change_lead_time", "basis"),
        ["release", "release", "release", "commits"]
    );
    assert_eq!(
        named(&march, "change_lead_time", "p50_seconds"),
        [2 * 3600, 3600, 6 * 3600, 2 * 3600]
    );

    // All but 6: 2 and 3 by the rollback past both, 5 and 7 by their incidents, 8 by the hotfix
    // that came next.
    assert_eq!(
        figures(&march, "change_fail_rate"),
        json!({"rate": 5.0 / 6.0, "failed": 5, "n": 6, "left_out": left_out})
    );
    let failed = [&story.eighth, &story.seventh, &story.fifth, &story.third, &story.second];
    assert_eq!(named(&march, "change_fail_rate", "id"), failed.map(|deployment| &deployment["id"]));
    let because = [
        json!(["hotfixed"]),
        json!(["incident"]),
        json!(["incident", "hotfixed"]),
        json!(["rolled_back"]),
        json!(["rolled_back"]),
    ];
    assert_eq!(named(&march, "change_fail_rate", "because"), because.iter().collect::<Vec<_>>());
    let incidents =
        [json!([]), json!([story.open["id"]]), json!([story.ended["id"]]), json!([]), json!([])];
    assert_eq!(
        named(&march, "change_fail_rate", "incidents"),
        incidents.iter().collect::<Vec<_>>()
    );

    // 8 was fixed at once, in April; 5 when its incident was over; 3 after an hour, 2 after 51;
    // the incident of 7 goes on.
    let recovery =
        json!({"p50_seconds": 3600, "p90_seconds": 51 * 3600, "n": 4, "open": 1, "left_out": []});
    assert_eq!(figures(&march, "failed_deployment_recovery_time"), recovery);
    assert_eq!(
        named(&march, "failed_deployment_recovery_time", "id"),
        failed.map(|deployment| &deployment["id"])
    );
    let seconds = [json!(0), Value::Null, json!(2 * 3600), json!(3600), json!(51 * 3600)];
    assert_eq!(
        named(&march, "failed_deployment_recovery_time", "seconds"),
        seconds.iter().collect::<Vec<_>>()
    );
    let fixes = [
        &story.ninth["id"],
        &Value::Null,
        &Value::Null,
        &story.rollback["id"],
        &story.rollback["id"],
    ];
    assert_eq!(named(&march, "failed_deployment_recovery_time", "fixed_by"), fixes);
    let basis = [json!("fix"), Value::Null, json!("incident"), json!("fix"), json!("fix")];
    assert_eq!(
        named(&march, "failed_deployment_recovery_time", "basis"),
        basis.iter().collect::<Vec<_>>()
    );
    assert_eq!(
        march["failed_deployment_recovery_time"]["deployments"][2]["recovered_at"],
        "2025-03-10T12:00:00.000000Z"
    );

    let rework = json!({"rate": 0.25, "hotfixes": 1, "rollbacks": 1, "n": 8,
        "left_out": [{"reason": "failed", "n": 1}]});
    assert_eq!(figures(&march, "deployment_rework_rate"), rework);
    assert_eq!(
        named(&march, "deployment_rework_rate", "id"),
        [&story.hotfix["id"], &story.rollback["id"]]
    );

    assert_eq!(march["series"]["bucket"], "day");
    let days = march["series"]["buckets"].as_array().unwrap();
    assert_eq!(days.len(), 31);
    let fifth = json!({"from": "2025-03-05T00:00:00.000000Z",
        "until": "2025-03-06T00:00:00.000000Z", "deployments": 1, "failed": 1,
        "went_live": 2, "rework": 1, "lead_time_p50_seconds": 6 * 3600,
        "recovery_p50_seconds": 3600});
    assert_eq!(days[4], fifth);
    let weekly = dora(app, &format!("{MARCH}&service=checkout&bucket=week"));
    let by_week: Vec<_> = weekly["series"]["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|week| week["deployments"].clone())
        .collect();
    assert_eq!(by_week, [0, 2, 2, 1, 0, 1], "the first is two days long, the last one");
    assert_eq!(with(weekly, json!({"series": null})), with(march, json!({"series": null})));
}

fn a_hotfix_mends_what_it_is_linked_to(app: &TestApp) {
    let first = live(app, "1", "2024-11-04T10:00:00Z");
    live(app, "2", "2025-03-03T10:00:00Z");
    let incident = incident(app, &first, "2025-03-03T11:00:00Z", None);
    let fix = json!({"fixes": incident["id"]});
    let fix = happened(app, "3", "2025-03-03T12:00:00Z", "succeeded", fix);
    assert_eq!(fix["kind"], "hotfix");
    // What broke months ago is not in March, and what was live before the fix is not to blame.
    let march = dora(app, MARCH);
    assert_eq!(
        figures(&march, "change_fail_rate"),
        json!({"rate": 0.0, "failed": 0, "n": 2, "left_out": []})
    );
    assert_eq!(march["deployment_rework_rate"]["hotfixes"], 1);
    // Where it broke, it failed; the incident goes on.
    let november = dora(app, "since=2024-11-01T00:00:00Z&until=2024-12-01T00:00:00Z");
    assert_eq!(named(&november, "change_fail_rate", "id"), [&first["id"]]);
    assert_eq!(november["failed_deployment_recovery_time"]["open"], 1);
    let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
    app.patch(&path, json!({"resolved_at": "2025-03-03T15:00:00Z"}), &[]).expect(200);
    let november = dora(app, "since=2024-11-01T00:00:00Z&until=2024-12-01T00:00:00Z");
    assert_eq!(named(&november, "failed_deployment_recovery_time", "fixed_by"), [&fix["id"]]);
    assert_eq!(
        named(&november, "failed_deployment_recovery_time", "recovered_at"),
        ["2025-03-03T12:00:00.000000Z"]
    );
}

fn a_window_is_half_open(app: &TestApp) {
    story(app);
    let versions = |query: &str| {
        let measures = dora(app, &format!("service=checkout&{query}"));
        named(&measures, "deployment_frequency", "version")
            .into_iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(versions("since=2025-03-31T23:59:59.999999Z&until=2025-04-01T00:00:00Z"), ["8"]);
    assert_eq!(
        versions("since=2025-03-20T10:00:00.000001Z&until=2025-03-31T23:59:59.999999Z"),
        [] as [&str; 0]
    );
    assert_eq!(versions("since=2025-03-20T10:00:00Z&until=2025-03-31T23:59:59.999999Z"), ["7"]);
    assert_eq!(versions("since=2025-04-01T00:00:00Z&until=2025-05-01T00:00:00Z"), ["9"]);
    // Midnight in India is 18:30 in UTC, of the day before; an offset is written with `%2B` for its
    // `+`.
    assert_eq!(
        versions("since=2025-03-20T15:30:00%2B05:30&until=2025-03-20T15:30:00.000001%2B05:30"),
        ["7"]
    );
    // Windows that meet share nothing and miss nothing.
    let parts = [
        "since=2025-03-01T00:00:00Z&until=2025-03-11T10:00:00Z",
        "since=2025-03-11T10:00:00Z&until=2025-04-01T00:00:00Z",
    ];
    for (measure, fields) in [
        ("deployment_frequency", &["n"][..]),
        ("change_lead_time", &["n"]),
        ("change_fail_rate", &["failed", "n"]),
        ("failed_deployment_recovery_time", &["n", "open"]),
        ("deployment_rework_rate", &["hotfixes", "rollbacks", "n"]),
    ] {
        for field in fields {
            let of = |query: &str| dora(app, query)[measure][field].as_u64().unwrap();
            assert_eq!(parts.map(of).iter().sum::<u64>(), of(MARCH), "{measure} {field}");
        }
    }
}

fn the_last_ninety_days_are_measured_unless_told_otherwise(app: &TestApp) {
    const DAY: i64 = 24 * 60;
    for (version, minutes) in [("1", -91 * DAY + 5), ("2", -90 * DAY + 5), ("3", -1)] {
        live(app, version, &in_minutes(minutes));
    }
    let now = |measures: &Value| -> jiff::Timestamp {
        measures["until"].as_str().unwrap().parse().unwrap()
    };
    let before = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    let measures = dora(app, "");
    assert_eq!(
        (&measures["service"], &measures["environments"]),
        (&Value::Null, &json!(["production"]))
    );
    assert_eq!(named(&measures, "deployment_frequency", "version"), ["3", "2"]);
    assert!(
        before < now(&measures) && now(&measures) <= jiff::Timestamp::now(),
        "{}",
        measures["until"]
    );
    let since: jiff::Timestamp = measures["since"].as_str().unwrap().parse().unwrap();
    assert_eq!(now(&measures).duration_since(since), jiff::SignedDuration::from_hours(90 * 24));
    assert_eq!(measures["deployment_frequency"]["per_day"], 2.0 / 90.0);
    assert_eq!(measures["series"]["bucket"], "week");

    // What is to come has not been measured: a month that goes on ends now.
    let measures = dora(app, "until=2999-01-01T00:00:00Z");
    assert!(now(&measures) <= jiff::Timestamp::now(), "{}", measures["until"]);
    let measures = dora(app, &format!("since={}", in_minutes(-2)));
    assert_eq!(named(&measures, "deployment_frequency", "version"), ["3"]);
    let measures = dora(app, &format!("until={}", in_minutes(-DAY)));
    assert_eq!(named(&measures, "deployment_frequency", "version"), ["2", "1"]);
}

fn a_window_that_can_not_be_measured_is_refused(app: &TestApp) {
    let year = "since=2024-01-01T00:00:00Z&until=2025-01-01T00:00:00Z";
    assert_eq!(dora(app, year)["series"]["buckets"].as_array().unwrap().len(), 53);
    for window in [
        "since=2023-12-31T23:59:59.999999Z&until=2025-01-01T00:00:00Z".to_owned(),
        "since=2025-01-01T00:00:00Z&until=2025-01-01T00:00:00Z".to_owned(),
        "since=2025-01-02T00:00:00Z&until=2025-01-01T00:00:00Z".to_owned(),
        "since=0000-01-01T00:00:00Z&until=9999-01-01T00:00:00Z".to_owned(),
        format!("since={}&until={}", in_minutes(60), in_minutes(120)),
        format!("since={}", in_minutes(-367 * 24 * 60)),
    ] {
        let problem =
            app.get(&format!("/v1/metrics/dora?{window}")).expect_problem(400, "invalid_window");
        assert_eq!(problem["errors"][0]["pointer"], "since", "{window}");
    }
    // At the edges of the calendar there is little to measure, and nothing breaks.
    for until in ["0000-01-02T00:00:00Z", "0001-01-01T00:00:00Z"] {
        assert_eq!(
            dora(app, &format!("since=0000-01-01T00:00:00Z&until={until}"))["deployment_frequency"]
                ["n"],
            0
        );
    }
}

fn measures_are_of_what_was_asked_for(app: &TestApp) {
    story(app);
    app.post("/v1/environments", json!({"slug": "eu", "tier": "production"})).expect(201);
    happened(app, "3", "2025-03-07T10:00:00Z", "succeeded", json!({"environment": "eu"}));
    let of = |query: &str| {
        let measures = dora(app, &format!("{MARCH}&{query}"));
        (measures["environments"].clone(), measures["deployment_frequency"]["n"].as_u64().unwrap())
    };
    assert_eq!(of(""), (json!(["eu", "production"]), 8));
    assert_eq!(of("tier=production&service=checkout"), (json!(["eu", "production"]), 7));
    assert_eq!(of("service=billing"), (json!(["eu", "production"]), 1));
    assert_eq!(of("environment=eu"), (json!(["eu"]), 1));
    assert_eq!(of("environment=eu&service=billing"), (json!(["eu"]), 0));
    assert_eq!(of("environment=staging"), (json!(["staging"]), 1));
    assert_eq!(of("tier=staging"), (json!(["staging"]), 1));
    assert_eq!(of("tier=testing"), (json!([]), 0));
    // The commit of 3 was delivered in production before it came to eu.
    let measures = dora(app, &format!("{MARCH}&environment=eu"));
    assert_eq!(measures["change_lead_time"]["n"], 1);
    assert_eq!(
        dora(app, MARCH)["change_lead_time"]["left_out"][1],
        json!({"reason": "delivered_before", "n": 2})
    );
    for unknown in [
        "service=unknown",
        "environment=unknown",
        "environment=eu&service=unknown",
        "tier=testing&service=unknown",
    ] {
        app.get(&format!("/v1/metrics/dora?{unknown}")).expect_problem(404, "not_found");
    }
    let deployer = app.key("deployer", &["deploy"]);
    app.call("GET", "/v1/metrics/dora", &deployer, None, &[]).expect_problem(403, "missing_scope");
    // The same window again is not sent again.
    let path = format!("/v1/metrics/dora?{MARCH}");
    let tag = app.get(&path).header("etag").to_owned();
    assert_eq!(
        app.call("GET", &path, crate::harness::ADMIN, None, &[("If-None-Match", &tag)]).status,
        304
    );
}

/// The lead times of a service in March: how many, their median in hours, and what is left out.
fn lead_time(app: &TestApp, query: &str) -> (u64, Option<i64>, Value) {
    let lead = figures(&dora(app, &format!("{MARCH}&{query}")), "change_lead_time");
    let median = lead["p50_seconds"].as_i64().map(|seconds| seconds / 3600);
    (lead["n"].as_u64().unwrap(), median, lead["left_out"].clone())
}

fn a_deployment_delivers_the_releases_that_it_skipped(app: &TestApp) {
    let commit = |n: u8, at: &str| json!([{"sha": sha(n), "committed_at": at}]);
    // Recorded in another order than made, with and without lists.
    release(app, "4", json!({"commits": commit(4, "2025-03-04T10:00:00Z")}));
    release(app, "3", json!({"committed_at": "2025-03-03T10:00:00Z", "git_sha": sha(3)}));
    release(app, "2", json!({"commits": commit(2, "2025-03-02T10:00:00Z")}));
    release(app, "1", json!({"commits": commit(1, "2024-12-01T10:00:00Z")}));
    release(app, "5", json!({"commits": commit(5, "2025-03-05T10:00:00Z")}));
    let billing = json!({"service": "billing", "commits": commit(9, "2025-03-03T10:00:00Z")});
    release(app, "b", billing);

    // What was live went live long before the window.
    live(app, "1", "2024-12-02T10:00:00Z");
    let staging = json!({"environment": "staging"});
    happened(app, "2", "2025-03-02T10:00:00Z", "succeeded", staging);
    happened(app, "3", "2025-03-03T10:00:00Z", "failed", json!({}));
    live(app, "4", "2025-03-04T10:00:00Z");
    assert_eq!(lead_time(app, "service=checkout"), (3, Some(24), json!([])));
    let lead = &dora(app, MARCH)["change_lead_time"];
    assert_eq!(lead["basis"], json!({"commits": 2, "release": 1}));
    assert_eq!(
        (&lead["deployments"][0]["version"], &lead["deployments"][0]["n"]),
        (&json!("4"), &json!(3))
    );
    assert_eq!(lead["deployments"].as_array().unwrap().len(), 1);
    assert_eq!(lead_time(app, "environment=staging"), (1, Some(0), json!([])));

    // After a rollback, the way forward delivers only what was never live.
    live(app, "1", "2025-03-04T11:00:00Z");
    live(app, "5", "2025-03-06T10:00:00Z");
    let before = json!([{"reason": "delivered_before", "n": 3}]);
    assert_eq!(lead_time(app, "service=checkout"), (4, Some(24), before));
    // A release that is recorded later lies between all the same.
    release(app, "4.1", json!({"commits": commit(6, "2025-03-05T09:00:00Z")}));
    assert_eq!(lead_time(app, "service=checkout").0, 5);
}

fn a_release_without_commit_times_hides_what_was_skipped(app: &TestApp) {
    let commit = |n: u8, at: &str| json!([{"sha": sha(n), "committed_at": at}]);
    release(app, "2", json!({"commits": commit(2, "2025-03-02T10:00:00Z")}));
    release(app, "3", json!({"commits": commit(3, "2025-03-03T10:00:00Z")}));
    live(app, "1", "2025-03-01T10:00:00Z");
    live(app, "3", "2025-03-03T12:00:00Z");
    let unknown =
        json!([{"reason": "no_commit_time", "n": 1}, {"reason": "order_unknown", "n": 1}]);
    assert_eq!(lead_time(app, "service=checkout"), (1, Some(2), unknown));
    let complete = |more: Value| {
        let body = json!({"service": "checkout", "version": "1"});
        app.post("/v1/releases", with(body, more)).expect(200)
    };
    // The time of what was live is reported later: what was skipped is known from then on.
    complete(json!({"committed_at": "2025-03-01T08:00:00Z"}));
    assert_eq!(lead_time(app, "service=checkout"), (3, Some(2), json!([])));
    // A list that is added later does not change the order: the release's own commit goes first.
    complete(json!({"commits": commit(1, "2025-03-01T07:00:00Z")}));
    assert_eq!(lead_time(app, "service=checkout"), (3, Some(3), json!([])));
}

fn an_empty_ledger_has_no_figures(app: &TestApp) {
    let measures = dora(app, "since=2025-03-01T00:00:00Z&until=2025-03-03T00:00:00Z");
    let day = |from: &str, until: &str| {
        json!({"from": from, "until": until, "deployments": 0, "failed": 0, "went_live": 0,
            "rework": 0,
            "lead_time_p50_seconds": null, "recovery_p50_seconds": null})
    };
    let days = [
        "2025-03-01T00:00:00.000000Z",
        "2025-03-02T00:00:00.000000Z",
        "2025-03-03T00:00:00.000000Z",
    ];
    let expected = json!({
        "service": null, "environments": [], "since": days[0], "until": days[2],
        "deployment_frequency": {"per_day": 0.0, "n": 0, "left_out": [], "deployments": []},
        "change_lead_time": {"p50_seconds": null, "p90_seconds": null, "n": 0,
            "basis": {"commits": 0, "release": 0},
            "left_out": [], "deployments": []},
        "change_fail_rate": {"rate": null, "failed": 0, "n": 0, "left_out": [], "deployments": []},
        "failed_deployment_recovery_time": {"p50_seconds": null, "p90_seconds": null, "n": 0,
            "open": 0, "left_out": [], "deployments": []},
        "deployment_rework_rate": {"rate": null, "hotfixes": 0, "rollbacks": 0, "n": 0,
            "left_out": [], "deployments": []},
        "series": {"bucket": "day", "buckets": [day(days[0], days[1]), day(days[1], days[2])]}
    });
    assert_eq!(measures, expected);
}

fn a_measure_names_the_newest_behind_it(app: &TestApp) {
    story(app);
    let measures = dora(app, &format!("{MARCH}&service=checkout&limit=1"));
    for (measure, n, version) in [
        ("deployment_frequency", 6, "8"),
        ("change_lead_time", 5, "8"),
        ("change_fail_rate", 6, "8"),
        ("failed_deployment_recovery_time", 4, "8"),
        ("deployment_rework_rate", 8, "6"),
    ] {
        assert_eq!(
            (&measures[measure]["n"], named(&measures, measure, "version")),
            (&json!(n), vec![&json!(version)]),
            "{measure}"
        );
    }
}

/// Releases of checkout that were in production long before the window, and an incident that each
/// of them caused.
fn much_history(app: &TestApp, rows: usize) {
    let ids: Vec<_> = (0..rows).map(|_| uuid::Uuid::now_v7()).collect();
    let insert = |table: &str, columns: &str, row: &dyn Fn(usize, uuid::Uuid) -> String| {
        let rows: Vec<_> =
            ids.iter().enumerate().map(|(n, id)| format!("({})", row(n, *id))).collect();
        sql(app, &format!("INSERT INTO {table} ({columns}) VALUES {}", rows.join(", ")));
    };
    let at = |n: usize| {
        format!(
            "20{:02}-{:02}-{:02}T04:05:06.000000Z",
            10 + n % 10,
            1 + n / 10 % 12,
            1 + n / 120 % 28
        )
    };
    insert("releases", "id, service, version, scan, created_by, created_at, revision", &|n, id| {
        format!(
            "'{id}', 'checkout', 'old-{n}', '{{\"status\":\"missing\"}}', 'pipeline', '{}', 1",
            at(n)
        )
    });
    let columns = "id, service, environment, release_id, version, state, kind, unplanned, \
        requested_by, source, requested_at, finished_at, revision";
    insert("deployments", columns, &|n, id| {
        let at = at(n);
        format!(
            "'{id}', 'checkout', 'production', '{id}', 'old-{n}', 'superseded', 'normal', false, \
                'pipeline', 'api', '{at}', '{at}', 2"
        )
    });
    let columns = "id, service, environment, title, severity, detected_at, resolved_at, \
        created_by, created_at, revision";
    insert("incidents", columns, &|n, id| {
        let at = at(n);
        format!(
            "'{id}', 'checkout', 'production', 'Down', 'minor', '{at}', '{at}', 'anna', '{at}', 1"
        )
    });
    insert("incident_deployments", "incident_id, deployment_id, role", &|_, id| {
        format!("'{id}', '{id}', 'caused_by'")
    });
}

fn measuring_costs_the_same_whatever_the_history(app: &TestApp) {
    story(app);
    let path = format!("/v1/metrics/dora?{MARCH}");
    let of_service = format!("{path}&service=checkout");
    // Behind a pooler, each read is a transaction: two statements more.
    let transaction = if behind_pooler().is_some() { 2 } else { 0 };
    let costs = || [cost(app, &path), cost(app, &of_service)].map(|cost| cost - transaction);
    let before = (app.get(&of_service).expect(200), costs());
    // The environments and the service; its deployments, whether its releases have commit times,
    // and the incidents; the releases of the deployments, what was live before, what was skipped,
    // two times, and the lists of commits. There is one other service, which has no commit times:
    // its deployments and incidents.
    assert_eq!(before.1, [13, 10]);
    much_history(app, 2000);
    assert!(count(&mut app.db(), "deployments") > 2000);
    assert_eq!((app.get(&of_service).expect(200), costs()), before);
}

/// The statements of a measurement, without their values.
fn statements(db: &mut Db, query: &str) -> Vec<String> {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = seen.clone();
    db.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            noted
                .lock()
                .unwrap()
                .push(query.to_string().split(" -- binds").next().unwrap().to_owned());
        }
    });
    let question: Question = serde_urlencoded::from_str(query).unwrap();
    measure(db, &question, 1000).unwrap();
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[derive(diesel::QueryableByName)]
struct ShortText {
    #[diesel(sql_type = Text)]
    line: String,
}

/// How a database would find the answer.
fn plan(db: &mut Db, statement: &str) -> String {
    let lines: Vec<String> = match db {
        Db::Sqlite(c) => {
            #[derive(diesel::QueryableByName)]
            struct Step {
                #[diesel(sql_type = Text)]
                detail: String,
            }
            let steps: Vec<Step> =
                diesel::sql_query(format!("EXPLAIN QUERY PLAN {statement}")).load(c).unwrap();
            steps.into_iter().map(|step| step.detail).collect()
        }
        Db::Pg(c) => {
            // The plan for any values, which PostgreSQL makes when it has seen a few.
            let values = (1..).take_while(|n| statement.contains(&format!("${n}")));
            let given = values.map(|_| "NULL").collect::<Vec<_>>().join(", ");
            let statements = [
                "SET plan_cache_mode = force_generic_plan".to_owned(),
                format!("PREPARE measuring AS {statement}"),
                "CREATE TEMPORARY TABLE plan_lines (line text)".to_owned(),
                format!(
                    "DO $do$ DECLARE line text; BEGIN FOR line IN EXPLAIN EXECUTE \
                        measuring({given}) LOOP INSERT INTO plan_lines VALUES (line); END LOOP; \
                        END $do$"
                ),
            ];
            for statement in statements {
                diesel::sql_query(statement).execute(c).unwrap();
            }
            let lines: Vec<ShortText> =
                diesel::sql_query("SELECT line FROM plan_lines").load(c).unwrap();
            diesel::sql_query("DROP TABLE plan_lines").execute(c).unwrap();
            diesel::sql_query("DEALLOCATE measuring").execute(c).unwrap();
            lines.into_iter().map(|line| line.line).collect()
        }
    };
    lines.join("\n")
}

fn what_is_older_is_not_read(app: &TestApp) {
    story(app);
    much_history(app, 20_000);
    let mut db = app.db();
    sql(app, "ANALYZE");
    for query in [MARCH.to_owned(), format!("{MARCH}&service=checkout")] {
        let statements = statements(&mut db, &query);
        for statement in statements {
            let plain = statement.replace(['"', '`'], "");
            if !["deployments.", "releases."].iter().any(|table| plain.contains(table)) {
                continue;
            }
            let plan = plan(&mut db, &statement);
            if plain.contains("ORDER BY deployments.finished_at") {
                assert!(plan.contains("deployments_measured"), "{statement}\n{plan}");
                assert!(!plan.contains("SEARCH") || plan.contains("COVERING"), "{plan}");
            }
            // A table that is read from its beginning to its end.
            let whole = [
                "Seq Scan on",
                "SCAN deployments",
                "SCAN finished",
                "SCAN incident",
                "SCAN links",
                "SCAN releases",
                "SCAN previous",
                "SCAN replaced",
                "SCAN deployed",
            ];
            assert!(!whole.iter().any(|whole| plan.contains(whole)), "{statement}\n{plan}");
        }
    }
}
