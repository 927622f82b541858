//! What is reported late, twice or in another order ends in the same rows.

use crate::harness::TestApp;
use serde_json::{Value, json};

crate::on_both_databases! {
    an_import_of_the_past_leaves_the_present_alone
    any_order_of_reporting_ends_the_same
    a_late_end_of_what_was_overtaken_counts
    a_repeated_report_adds_the_end
    clocks_may_be_a_little_ahead_and_ends_follow_starts
}

/// How many stories are reported, and in how many orders each. `ORDER_STORIES=200` reports as many.
fn stories() -> u64 {
    std::env::var("ORDER_STORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}
const ORDERS: usize = 5;

/// A small generator (xorshift64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, usize::try_from(self.below(at as u64 + 1)).unwrap());
        }
    }
}

fn minute(n: u64) -> String {
    format!("2026-03-02T{:02}:{:02}:00Z", n / 60, n % 60)
}

/// The reports of up to ten deployments of four versions: of each its start, its end or both, some
/// of them twice.
fn story(random: &mut Random) -> Vec<Value> {
    let mut reports = Vec::new();
    for n in 0..2 + random.below(9) {
        // No two start in the same minute: what happened at the same time has no order of its own.
        let start = 11 * random.below(27) + n;
        let report = json!({
            "service": "checkout", "environment": "production", "create_missing": true,
            "observed": true,
            "version": format!("1.{}", random.below(4)), "external_id": format!("run-{n}"),
            "at": minute(start), "unplanned": n % 5 == 0,
        });
        let mut ended = report.clone();
        let outcome = ["succeeded", "succeeded", "succeeded", "failed", "cancelled"];
        ended["state"] = json!(outcome[usize::try_from(random.below(5)).unwrap()]);
        ended["finished_at"] = json!(minute(start + random.below(20)));
        match random.below(6) {
            0 => reports.push(report),
            1 | 2 => reports.push(ended),
            _ => reports.extend([report, ended.clone(), ended]),
        }
    }
    reports
}

/// What a reader sees of a ledger, without what names the moment of recording.
fn seen(app: &TestApp) -> Value {
    let deployments = app.all("/v1/deployments");
    let name = |id: &Value| {
        let of_it = deployments.iter().find(|one| one["id"] == *id);
        of_it.map_or(Value::Null, |one| one["external_id"].clone())
    };
    let brief = |one: &Value| {
        json!([
            one["external_id"],
            one["version"],
            one["state"],
            one["kind"],
            name(&one["previous_id"]),
            name(&one["rollback_of"]),
            one["started_at"],
            one["finished_at"],
            one["ungated"],
        ])
    };
    let mut list: Vec<Value> = deployments.iter().map(brief).collect();
    list.sort_by_key(ToString::to_string);
    let place = app.get("/v1/services/checkout/environments/production").expect(200);
    let parts = ["live", "previous", "running"].map(|part| name(&place[part]["id"]));
    let status = app.get("/v1/status").expect(200);
    let cell = status.pointer("/services/0/places/0").cloned().unwrap_or_default();
    let status = ["live", "running", "last_failed"].map(|part| name(&cell[part]["id"]));
    let window = "since=2026-03-01T00:00:00Z&until=2026-03-04T00:00:00Z";
    let mut measures = app.get(&format!("/v1/metrics/dora?{window}")).expect(200);
    without_ids(&mut measures);
    json!({"list": list, "place": parts, "status": status, "measures": measures})
}

/// Removes identifiers, which differ from ledger to ledger, and the order of what happened in the
/// same minute.
fn without_ids(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| name != "id" && name != "fixed_by");
            members.values_mut().for_each(without_ids);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(without_ids);
            items.sort_by_key(ToString::to_string);
        }
        _ => {}
    }
}

fn any_order_of_reporting_ends_the_same(app: &TestApp) {
    for seed in 1..=stories() {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut reports = story(&mut random);
        let mut expected: Option<Value> = None;
        for order in 0..ORDERS {
            clear(app);
            for report in &reports {
                let answer = app.post("/v1/deployments", report.clone());
                assert!(matches!(answer.status, 200 | 201), "{seed}: {report}: {}", answer.text);
            }
            let seen = seen(app);
            match &expected {
                Some(expected) => {
                    assert_eq!(seen, *expected, "story {seed}, order {order}: {reports:#?}");
                }
                None => expected = Some(seen),
            }
            random.shuffle(&mut reports);
        }
    }
}

/// Empties the ledger's deployments, so that the next story begins anew.
fn clear(app: &TestApp) {
    for table in ["deployments", "releases"] {
        crate::gate::sql(app, &format!("DELETE FROM {table}"));
    }
}

fn an_import_of_the_past_leaves_the_present_alone(app: &TestApp) {
    let live = app.go_live("checkout", "staging", "9");
    let running = app.deploy("checkout", "staging", "10", true);
    let old = json!({"service": "checkout", "environment": "staging", "version": "2",
        "create_missing": true,
        "state": "succeeded", "at": "2026-01-02T10:00:00Z", "finished_at": "2026-01-02T10:05:00Z"});
    let imported = app.post("/v1/deployments", old).expect(201);
    assert_eq!((&imported["state"], &imported["kind"]), (&json!("superseded"), &json!("normal")));
    let state = |of: &Value| {
        app.get(&format!("/v1/deployments/{}", of["id"].as_str().unwrap())).expect(200)
    };
    assert_eq!(state(&live)["state"], "succeeded");
    assert_eq!(state(&live)["previous_id"], imported["id"]);
    assert_eq!(state(&running)["state"], "running");
    // What follows for another deployment is in its history, with its cause.
    let events =
        app.get(&format!("/v1/deployments/{}/events", live["id"].as_str().unwrap())).expect(200);
    let rederived = &events["items"][0];
    assert_eq!(rederived["action"], "deployment.rederived");
    assert_eq!(rederived["payload"]["because_of"], imported["id"]);
}

fn a_late_end_of_what_was_overtaken_counts(app: &TestApp) {
    let first = app.deploy("checkout", "staging", "1", true);
    let second = json!({"service": "checkout", "environment": "staging", "version": "2",
        "observed": true, "create_missing": true});
    let second = app.post("/v1/deployments", second).expect(201);
    let state = |of: &Value| {
        app.get(&format!("/v1/deployments/{}", of["id"].as_str().unwrap())).expect(200)["state"]
            .clone()
    };
    assert_eq!((state(&first), state(&second)), (json!("cancelled"), json!("running")));
    assert_eq!(app.transition(&first, "succeeded").expect(200)["state"], "succeeded");
    assert_eq!(app.transition(&second, "succeeded").expect(200)["previous_id"], first["id"]);
    assert_eq!(state(&first), "superseded");
    // The same again, and what contradicts it.
    assert_eq!(app.transition(&first, "succeeded").expect(200)["state"], "superseded");
    app.transition(&first, "failed").expect_problem(409, "invalid_transition");
}

fn a_repeated_report_adds_the_end(app: &TestApp) {
    let start = json!({"service": "checkout", "environment": "staging", "version": "1",
        "external_id": "run-1",
        "observed": true, "at": "2026-03-02T10:00:00Z", "create_missing": true});
    let first = app.post("/v1/deployments", start.clone()).expect(201);
    let mut end = start.clone();
    end["state"] = json!("succeeded");
    end["finished_at"] = json!("2026-03-02T10:05:00Z");
    for report in [&end, &start, &end] {
        let again = app.post("/v1/deployments", report.clone()).expect(200);
        assert_eq!((&again["id"], &again["state"]), (&first["id"], &json!("succeeded")));
        assert_eq!(again["finished_at"], "2026-03-02T10:05:00.000000Z");
    }
}

fn clocks_may_be_a_little_ahead_and_ends_follow_starts(app: &TestApp) {
    let ahead = |seconds: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        json!({"service": "checkout", "environment": "staging", "version": "1", "observed": true,
            "at": at.to_string(), "create_missing": true})
    };
    let soon = app.post("/v1/deployments", ahead(30)).expect(201);
    assert!(
        soon["started_at"].as_str().unwrap() <= jiff::Timestamp::now().to_string().as_str(),
        "{soon}"
    );
    let problem = app.post("/v1/deployments", ahead(90)).expect_problem(422, "invalid_value");
    assert_eq!(problem["errors"][0]["pointer"], "/at");
    let early = json!({"to": "succeeded", "observed": true, "at": "2026-01-01T00:00:00Z"});
    let path = format!("/v1/deployments/{}/transitions", soon["id"].as_str().unwrap());
    let problem = app.post(&path, early).expect_problem(422, "invalid_value");
    assert_eq!(problem["errors"][0]["pointer"], "/at");
}
