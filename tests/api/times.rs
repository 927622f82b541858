//! Reviews, scans, releases and incidents have times of their own: the order of these decides, not
//! the order of the reports.

use crate::gate::{
    codes, deploy, evaluate, in_minutes, now, path, person, production, release, sql, with,
};
use crate::harness::{ADMIN, Answer, TestApp};
use serde_json::{Value, json};

crate::on_both_databases! {
    the_last_review_of_a_person_counts
    a_late_review_changes_no_deployment_that_a_later_one_decided
    a_late_approval_is_used_by_the_start_before_it_was_known
    an_approval_expires_counted_from_its_time
    the_time_of_a_review_can_be_added
    the_last_scan_counts
    a_place_is_behind_by_commits
    a_start_before_its_commit_is_flagged
    an_incident_ends_after_it_was_detected
    what_is_in_the_future_is_refused
}

/// All orders of some items.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let Some((first, rest)) = items.split_first() else { return vec![Vec::new()] };
    let with_first = |order: Vec<T>| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, first.clone());
            order
        })
    };
    orders(rest).into_iter().flat_map(with_first).collect()
}

/// A review on GitHub of a release of checkout for production.
fn review(version: &str, approver: &str, decision: &str, at: Value) -> Value {
    json!({"service": "checkout", "environment": "production", "version": version, "at": at,
        "source": "github", "approver": approver, "decision": decision,
        "review_id": format!("{approver} {at}"),
        "run_url": "https://github.com/shop/checkout/actions/runs/1"})
}

fn record(app: &TestApp, review: Value) -> Answer {
    app.post("/v1/approvals", review)
}

/// A review so many minutes ago.
fn ago(version: &str, approver: &str, decision: &str, minutes: i64) -> Value {
    review(version, approver, decision, json!(in_minutes(-minutes)))
}

fn the_last_review_of_a_person_counts(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    release(app, "1");
    let pipeline = &person(app, "pipeline");
    let reviews = |story: &[(&str, &str, i64)]| -> Vec<Value> {
        story.iter().map(|(who, what, minutes)| ago("1", who, what, *minutes)).collect()
    };
    let (yes, no) = ("approved", "rejected");
    let stories: [(&[_], &[&str]); 3] = [
        (&[("alice", yes, 10), ("alice", no, 5), ("bob", yes, 8)], &["approval_rejected"]),
        (&[("alice", no, 10), ("alice", yes, 5), ("bob", yes, 30)], &[]),
        (&[("alice", no, 10), ("bob", yes, 5), ("alice", yes, 60)], &[]),
    ];
    for (story, expected) in stories {
        for order in orders(&reviews(story)) {
            for review in &order {
                record(app, review.clone()).expect(201);
            }
            assert_eq!(codes(&evaluate(app, pipeline, "1")), expected, "{order:#?}");
            sql(app, "DELETE FROM approvals");
        }
    }
}

fn a_late_review_changes_no_deployment_that_a_later_one_decided(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    let pipeline = &person(app, "pipeline");
    for version in ["1", "2"] {
        release(app, version);
    }
    // A redelivered approval does not beat the later rejection.
    record(app, ago("1", "alice", "rejected", 5)).expect(201);
    let waiting = deploy(app, pipeline, "1", json!({})).expect(201);
    record(app, ago("1", "alice", "approved", 10)).expect(201);
    assert_eq!(now(app, &waiting)["state"], "awaiting_approval");
    // A late rejection does not take back what was approved after it, nor reject what waits.
    record(app, ago("2", "alice", "approved", 5)).expect(201);
    let approved = deploy(app, pipeline, "2", json!({})).expect(201);
    record(app, ago("2", "alice", "rejected", 10)).expect(201);
    assert_eq!(now(app, &approved)["state"], "approved");
    assert_eq!(evaluate(app, pipeline, "2")["allowed"], true);
    // One that was given after it does both.
    record(app, ago("2", "bob", "rejected", 1)).expect(201);
    assert_eq!(now(app, &approved)["state"], "awaiting_approval");
    record(app, ago("2", "carol", "rejected", 0)).expect(201);
    assert_eq!(now(app, &approved)["state"], "rejected");
}

fn a_late_approval_is_used_by_the_start_before_it_was_known(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    release(app, "1");
    let pipeline = &person(app, "pipeline");
    let seen = json!({"state": "succeeded", "at": in_minutes(-60), "finished_at": in_minutes(-55)});
    let started = deploy(app, pipeline, "1", seen).expect(201);
    assert_eq!(started["ungated"], true);
    let late = record(app, ago("1", "alice", "approved", 90)).expect(201);
    assert_eq!(late["consumed_by"], started["id"]);
    assert_eq!(now(app, &started), started, "it stays what it was when prop learned of it");
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_missing"]);
    // One that was given after the start is for the next one.
    let next = record(app, ago("1", "alice", "approved", 30)).expect(201);
    assert_eq!(next["consumed_by"], Value::Null);
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true);
}

fn an_approval_expires_counted_from_its_time(app: &TestApp) {
    production(app, json!({"required_approvals": 1, "approval_ttl_hours": 1}));
    release(app, "1");
    let pipeline = &person(app, "pipeline");
    record(app, ago("1", "alice", "approved", 61)).expect(201);
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_expired"]);
    record(app, ago("1", "alice", "approved", 59)).expect(201);
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true);
}

fn the_time_of_a_review_can_be_added(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    release(app, "1");
    let pipeline = &person(app, "pipeline");
    // The pipeline's script knows no times; the webhook of the same review does.
    let mut untimed = ago("1", "alice", "approved", 10);
    untimed["review_id"] = json!("1");
    untimed["at"] = Value::Null;
    let timed = |minutes: i64| with(untimed.clone(), json!({"at": in_minutes(-minutes)}));
    let first = record(app, untimed.clone()).expect(201);
    assert_eq!(first["at"], Value::Null);
    let approved = deploy(app, pipeline, "1", json!({})).expect(201);
    assert_eq!(approved["state"], "approved");
    record(app, ago("1", "alice", "rejected", 5)).expect(201);
    assert_eq!(now(app, &approved)["state"], "approved", "the approval was recorded after it");
    let body = timed(10);
    let known = record(app, body.clone()).expect(200);
    assert_eq!(known["at"], body["at"]);
    assert!(known["expires_at"].as_str() < first["expires_at"].as_str(), "{known}");
    assert_eq!(now(app, &approved)["state"], "awaiting_approval");
    assert_eq!(app.all("/v1/events?action=approval.corrected").len(), 1);
    // What is known stays.
    for again in [untimed.clone(), timed(3)] {
        assert_eq!(record(app, again).expect(200), known);
    }
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_rejected"]);
}

fn the_last_scan_counts(app: &TestApp) {
    let scan = |status: &str, minutes: i64| {
        let at = in_minutes(-minutes);
        json!({"tool": "trivy", "status": status, "at": at})
    };
    let scans = [scan("failed", 10), scan("passed", 5), scan("failed", 7)];
    for (n, order) in orders(&scans).into_iter().enumerate() {
        let version = n.to_string();
        let path = format!("/v1/releases/{}/scan", release(app, &version)["id"].as_str().unwrap());
        let mut last = Value::Null;
        for scan in &order {
            last = app.put(&path, scan.clone()).expect(200)["scan"].clone();
        }
        assert_eq!(
            (&last["status"], &last["at"]),
            (&json!("passed"), &scans[1]["at"]),
            "{order:?}"
        );
        assert!(last["recorded_at"].as_str() > last["at"].as_str(), "{last}");
    }
    // The history keeps what was reported late: of six orders, three begin with the last scan, and
    // in three it follows the first.
    let late = app.all("/v1/events?action=release.scan_superseded").len();
    assert_eq!(late + app.all("/v1/events?action=release.scanned").len(), 18);
    assert!(late >= 6, "{late}");
    // A report as the tool wrote it has its time in the query.
    let path = format!("/v1/releases/{}/scan", release(app, "report")["id"].as_str().unwrap());
    let run = json!({"tool": {"driver": {"name": "grype"}}, "results": []});
    let report = json!({"version": "2.1.0", "runs": [run]});
    let at = in_minutes(-20);
    let scanned = app.put(&format!("{path}?at={at}"), report).expect(200);
    assert_eq!(scanned["scan"]["at"], at);
}

fn a_place_is_behind_by_commits(app: &TestApp) {
    app.post("/v1/environments", json!({"slug": "staging", "tier": "staging"})).expect(201);
    production(app, json!({"predecessor": "staging"}));
    // The last one names no commit, but when it was made.
    let releases = [
        json!({"version": "1", "committed_at": in_minutes(-300)}),
        json!({"version": "2", "committed_at": in_minutes(-200)}),
        json!({"version": "3", "at": in_minutes(-100)}),
    ];
    for (n, order) in orders(&releases).into_iter().enumerate() {
        let service = format!("service-{n}");
        for release in &order {
            let body = with(json!({"service": service, "create_missing": true}), release.clone());
            let recorded = app.post("/v1/releases", body).expect(201);
            assert_eq!(recorded["at"], *release.get("at").unwrap_or(&Value::Null));
        }
        app.go_live(&service, "staging", "3");
        let seen = json!({"service": service, "environment": "production", "version": "1",
            "state": "succeeded"});
        app.post("/v1/deployments", seen).expect(201);
        let status = app.get("/v1/status").expect(200);
        let row = status["services"].as_array().unwrap();
        let row = row.iter().find(|row| row["slug"] == service.as_str()).unwrap();
        let expected = json!({"environment": "staging", "version": "3", "releases": 2,
            "since": releases[1]["committed_at"]});
        assert_eq!(row["places"][0]["behind"], expected, "{order:?}");
    }
}

fn a_start_before_its_commit_is_flagged(app: &TestApp) {
    let seen = |version: &str, at: &str| {
        let body = json!({"service": "checkout", "environment": "production", "version": version,
            "state": "succeeded", "at": at, "create_missing": true});
        app.post("/v1/deployments", body).expect(201)
    };
    let commit = |version: &str, status: u16| {
        let body = json!({"service": "checkout", "version": version, "create_missing": true,
            "commits": [{"sha": crate::harness::sha(1), "committed_at": "2026-03-05T12:00:00Z"}]});
        app.post("/v1/releases", body).expect(status)
    };
    commit("1", 201);
    assert_eq!(seen("1", "2026-03-04T12:00:00Z")["before_commit"], false, "clocks differ");
    let early = seen("1", "2026-03-04T11:59:59Z");
    assert_eq!((&early["before_commit"], &early["ungated"]), (&json!(true), &json!(true)));
    // The commit may be reported later.
    let unknown = seen("2", "2026-03-01T00:00:00Z");
    assert_eq!(unknown["before_commit"], false);
    commit("2", 200);
    let flagged = now(app, &unknown);
    let revision = |one: &Value| one["revision"].as_i64().unwrap();
    assert_eq!(flagged["before_commit"], true);
    assert_eq!(revision(&flagged), revision(&unknown) + 1, "it has changed, and so has its ETag");
    let listed = app.all("/v1/deployments?service=checkout");
    assert_eq!(listed.iter().filter(|one| one["before_commit"] == true).count(), 2);
    // A start that is known later is compared as well.
    commit("3", 201);
    let waiting = app.deploy("checkout", "staging", "3", false);
    let path = format!("{}/transitions", crate::gate::path(&waiting));
    let start = json!({"to": "running", "observed": true, "at": "2026-03-01T00:00:00Z"});
    assert_eq!(app.post(&path, start).expect(200)["before_commit"], true);
    // The measures leave its commits out, by name.
    let window = "service=checkout&since=2026-02-28T00:00:00Z&until=2026-03-06T00:00:00Z";
    let measures = app.get(&format!("/v1/metrics/dora?{window}")).expect(200);
    let left_out = &measures["change_lead_time"]["left_out"];
    assert!(left_out.to_string().contains("committed_after"), "{left_out}");
}

fn an_incident_ends_after_it_was_detected(app: &TestApp) {
    let cause = app.go_live("checkout", "production", "1");
    let fix = app.go_live("checkout", "production", "2");
    let links = [json!({"caused_by": [cause["id"]]}), json!({"fixed_by": [fix["id"]]})];
    let resolved = json!({"resolved_at": in_minutes(-1)});
    let mut expected: Option<Value> = None;
    for order in orders(&[links[0].clone(), links[1].clone(), resolved]) {
        let incident = json!({"service": "checkout", "environment": "production", "title": "Down",
            "severity": "major", "detected_at": in_minutes(-30)});
        let opened = app.post("/v1/incidents", incident).expect(201);
        let path = format!("/v1/incidents/{}", opened["id"].as_str().unwrap());
        let early = json!({"resolved_at": in_minutes(-31)});
        let problem = app.patch(&path, early, &[]).expect_problem(422, "invalid_value");
        assert_eq!(problem["errors"][0]["pointer"], "/resolved_at");
        for change in &order {
            app.patch(&path, change.clone(), &[]).expect(200);
        }
        let found = app.get(&path).expect(200);
        let seen = json!([
            found["caused_by"],
            found["fixed_by"],
            found["resolved_at"].is_string(),
            now(app, &fix)["kind"]
        ]);
        assert_eq!(*expected.get_or_insert(seen.clone()), seen, "{order:?}");
        app.delete(&format!("{path}/deployments/{}", fix["id"].as_str().unwrap())).expect(200);
    }
    assert_eq!(expected.unwrap()[3], "hotfix");
}

fn what_is_in_the_future_is_refused(app: &TestApp) {
    production(app, json!({}));
    let recorded = release(app, "1");
    let running = path(&app.deploy("checkout", "staging", "3", true));
    let seconds = |n: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(n);
        json!(format!("{at:.6}"))
    };
    let scan = format!("/v1/releases/{}/scan", recorded["id"].as_str().unwrap());
    let incident = |at: Value| {
        json!({"service": "checkout", "environment": "production", "title": "Down",
            "severity": "major", "detected_at": at})
    };
    let opened = app.post("/v1/incidents", incident(seconds(-60))).expect(201);
    let opened = format!("/v1/incidents/{}", opened["id"].as_str().unwrap());
    let observed =
        |more: Value| with(crate::harness::new_deployment("checkout", "staging", "4"), more);
    let send = |what: &str, at: Value| match what {
        "review" => record(app, review("1", "alice", "approved", at)),
        "scan" => app.put(&scan, json!({"tool": "trivy", "at": at})),
        "scan in the query" => {
            let report = json!({"tool": "trivy", "summary": {}});
            app.put(&format!("{scan}?at={}", at.as_str().unwrap()), report)
        }
        "release" => {
            app.post("/v1/releases", json!({"service": "checkout", "version": "2", "at": at}))
        }
        "start" => app.post("/v1/deployments", observed(json!({"observed": true, "at": at}))),
        "course" => {
            let course = json!({"state": "failed", "at": seconds(-60), "finished_at": at});
            app.post("/v1/deployments", observed(course))
        }
        "end" => {
            let end = json!({"to": "failed", "observed": true, "at": at});
            app.post(&format!("{running}/transitions"), end)
        }
        "resolution" => app.patch(&opened, json!({"resolved_at": at}), &[]),
        _ => app.call("POST", "/v1/incidents", ADMIN, Some(&incident(at)), &[]),
    };
    // What is sent, the field that is refused, and where the answer has the time.
    let inputs = [
        ("review", "/at", "/at"),
        ("scan", "/at", "/scan/at"),
        ("scan in the query", "/at", "/scan/at"),
        ("release", "/at", "/at"),
        ("start", "/at", "/started_at"),
        ("course", "/finished_at", "/finished_at"),
        ("end", "/at", "/finished_at"),
        ("incident", "/detected_at", "/detected_at"),
        ("resolution", "/resolved_at", "/resolved_at"),
    ];
    for (what, field, place) in inputs {
        let problem = send(what, seconds(90)).expect_problem(422, "invalid_value");
        assert_eq!(problem["errors"][0]["pointer"], field, "{what}");
        let (before, answer) = (seconds(0), send(what, seconds(30)));
        assert!(answer.status < 300, "{what}: {}", answer.text);
        let found = answer.json();
        let at = found.pointer(place).and_then(Value::as_str);
        assert!(before.as_str() <= at && at <= seconds(0).as_str(), "{what}: {found}");
    }
}
