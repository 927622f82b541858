//! Releases: recorded once, completed later, never contradicted.

use crate::harness::{TestApp, digest, sha, together};
use serde_json::{Value, json};

crate::on_both_databases! {
    the_same_release_again_changes_nothing
    what_becomes_known_is_added_here_and_on_the_deployments
    what_is_known_does_not_change
    commits_are_kept_and_given_back
    a_scan_is_recorded_and_the_latest_counts
    a_report_is_counted_as_it_comes_from_the_tool
    what_passes_is_for_the_sender_to_say
    a_list_is_filtered
    of_concurrent_recordings_one_creates
    an_unknown_release_or_service_is_not_found
}

fn path(release: &Value) -> String {
    format!("/v1/releases/{}", release["id"].as_str().unwrap())
}

fn record(app: &TestApp, service: &str, version: &str) -> Value {
    app.post(
        "/v1/releases",
        json!({"service": service, "version": version, "create_missing": true}),
    )
    .expect(201)
}

fn the_same_release_again_changes_nothing(app: &TestApp) {
    let body = json!({
        "service": "checkout", "version": "1.4.2", "git_sha": sha(1), "image_digest": digest(1),
        "create_missing": true,
        "committed_at": "2026-02-03T04:05:06.123456+01:00",
        "source_url": "https://git.example.org/tree/1.4.2"
    });
    let answer = app.post("/v1/releases", body.clone());
    let made = answer.expect(201);
    assert_eq!((answer.header("location"), answer.header("etag")), (path(&made).as_str(), "\"1\""));
    assert_eq!(made["committed_at"], "2026-02-03T03:05:06.123456Z");
    assert_eq!(made["scan"]["status"], "missing");
    let before = app.counts();
    let again = app.post("/v1/releases", body);
    assert_eq!(again.expect(200), made);
    // Less than is known is no contradiction.
    let less = app
        .post("/v1/releases", json!({"service": "checkout", "version": "1.4.2", "git_sha": null}));
    assert_eq!(less.expect(200), made);
    assert_eq!(app.counts(), before);
    assert_eq!(app.get(&path(&made)).expect(200), made);
}

fn what_becomes_known_is_added_here_and_on_the_deployments(app: &TestApp) {
    let imageless = json!({"service": "checkout", "environment": "staging", "version": "1",
        "create_missing": true});
    let deployed = app.post("/v1/deployments", imageless).expect(201);
    assert_eq!(deployed["image_digest"], Value::Null);
    let body = json!({"service": "checkout", "version": "1", "image_digest": digest(1)});
    let completed = app.post("/v1/releases", body).expect(200);
    assert_eq!(
        (&completed["image_digest"], &completed["revision"]),
        (&json!(digest(1)), &json!(2))
    );
    let body = json!({"service": "checkout", "version": "1", "git_sha": sha(1), "commits": []});
    let completed = app.post("/v1/releases", body).expect(200);
    assert_eq!(
        (&completed["git_sha"], &completed["image_digest"], &completed["commits"]),
        (&json!(sha(1)), &json!(digest(1)), &json!([]))
    );
    let deployed =
        app.get(&format!("/v1/deployments/{}", deployed["id"].as_str().unwrap())).expect(200);
    assert_eq!(
        (&deployed["git_sha"], &deployed["image_digest"]),
        (&json!(sha(1)), &json!(digest(1)))
    );
    let events = app.all("/v1/events?action=release.completed");
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["payload"], json!({"image_digest": digest(1)}));
}

fn what_is_known_does_not_change(app: &TestApp) {
    let commit = json!({"sha": sha(1), "committed_at": "2026-02-03T04:05:06Z"});
    let body = json!({
        "service": "checkout", "version": "1", "git_sha": sha(1), "image_digest": digest(1),
        "committed_at": "2026-02-03T04:05:06Z",
        "source_url": "https://git.example.org/1", "commits": [commit], "create_missing": true
    });
    let known = app.post("/v1/releases", body.clone()).expect(201);
    let before = app.counts();
    let others = json!({
        "git_sha": sha(2), "image_digest": digest(2), "committed_at": "2026-02-03T04:05:07Z",
        "source_url": "https://git.example.org/2",
        "commits": []
    });
    for (field, other) in others.as_object().unwrap() {
        let mut changed = body.clone();
        changed[field] = other.clone();
        let problem = app.post("/v1/releases", changed).expect_problem(409, "release_conflict");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"));
        assert_eq!(problem["release_id"], known["id"]);
    }
    assert_eq!(app.counts(), before);
    assert_eq!(app.get(&path(&known)).expect(200), known);
    // The same version of another service is another release.
    let mut elsewhere = body;
    elsewhere["service"] = json!("billing");
    elsewhere["image_digest"] = json!(digest(2));
    assert_ne!(app.post("/v1/releases", elsewhere).expect(201)["id"], known["id"]);
}

fn commits_are_kept_and_given_back(app: &TestApp) {
    let commit = |n: u32| {
        json!({"sha": format!("{n:040x}"),
            "committed_at": format!("2026-02-03T04:{:02}:{:02}.000000Z", n / 60, n % 60),
            "is_merge": n.is_multiple_of(2)})
    };
    let commits: Vec<_> = (0..1000).map(commit).collect();
    let body =
        json!({"service": "checkout", "version": "1", "commits": commits, "create_missing": true});
    let made = app.post("/v1/releases", body).expect(201);
    assert_eq!(made["commits"], json!(commits));
    assert_eq!(app.get(&path(&made)).expect(200)["commits"], json!(commits));
    assert_eq!(
        app.get("/v1/releases").expect(200)["items"][0].get("commits"),
        None,
        "a list does not carry them"
    );
    let untold = record(app, "checkout", "2");
    assert_eq!(untold["commits"], Value::Null);
}

fn a_scan_is_recorded_and_the_latest_counts(app: &TestApp) {
    let release = record(app, "checkout", "1");
    let scans = format!("{}/scan", path(&release));
    let failed = app.put(
        &scans,
        json!({"status": "failed", "tool": "trivy 0.66", "summary": {"critical": 1},
            "at": "2026-02-03T04:05:06Z"}),
    );
    assert_eq!(failed.header("etag"), "\"2\"");
    let scan = failed.expect(200)["scan"].clone();
    assert_eq!(
        scan,
        json!({"recorded_at": scan["recorded_at"], "status": "failed", "tool": "trivy 0.66",
            "max_severity": "medium", "report_url": null, "at": "2026-02-03T04:05:06.000000Z",
            "summary": {"critical": 1, "high": 0, "medium": 0, "low": 0, "unknown": 0}})
    );
    let passed = app
        .put(
            &scans,
            json!({"status": "passed", "tool": "trivy 0.67",
                "report_url": "https://ci.example.org/report"}),
        )
        .expect(200);
    assert_eq!((&passed["scan"]["status"], &passed["revision"]), (&json!("passed"), &json!(3)));
    assert_eq!(passed["scan"]["report_url"], "https://ci.example.org/report");
    assert!(
        passed["scan"]["at"].as_str().unwrap() > release["created_at"].as_str().unwrap(),
        "now, since it was not said"
    );
    assert_eq!(app.get(&path(&release)).expect(200), passed);
    let events = app.all("/v1/events?action=release.scanned");
    assert_eq!(
        events.iter().map(|event| &event["payload"]["status"]).collect::<Vec<_>>(),
        ["passed", "failed"]
    );
}

fn a_report_is_counted_as_it_comes_from_the_tool(app: &TestApp) {
    let release = record(app, "checkout", "1");
    let scans = format!("{}/scan", path(&release));
    let sarif = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "Trivy", "version": "0.66.0",
                "rules": [{"id": "CVE-1", "properties": {"security-severity": "9.8"}}]}},
            "results": [{"ruleId": "CVE-1", "ruleIndex": 0, "level": "error"},
                {"ruleId": "R2", "level": "note"}]
        }]
    });
    let scanned = app
        .put(&format!("{scans}?report_url=https://ci.example.org/report"), sarif)
        .expect(200)["scan"]
        .clone();
    let summary = json!({"critical": 1, "high": 0, "medium": 0, "low": 1, "unknown": 0});
    assert_eq!(
        (&scanned["status"], &scanned["tool"], &scanned["summary"]),
        (&json!("failed"), &json!("Trivy 0.66.0"), &summary)
    );
    assert_eq!(
        (&scanned["max_severity"], &scanned["report_url"]),
        (&json!("medium"), &json!("https://ci.example.org/report"))
    );
    let trivy = json!({
        "SchemaVersion": 2, "ArtifactName": "checkout:1", "ArtifactType": "container_image",
        "Trivy": {"Version": "0.66.0"},
        "Results": [{"Target": "debian", "Class": "os-pkgs", "Vulnerabilities": [
            {"VulnerabilityID": "CVE-1", "Severity": "HIGH"},
            {"VulnerabilityID": "CVE-2", "Severity": "UNKNOWN"}
        ]}]
    });
    let summary = json!({"critical": 0, "high": 1, "medium": 0, "low": 0, "unknown": 1});
    for (most, status) in [
        ("", "failed"),
        ("?max_severity=medium", "failed"),
        ("?max_severity=high", "passed"),
        ("?max_severity=low", "failed"),
    ] {
        let scanned = app.put(&format!("{scans}{most}"), trivy.clone()).expect(200)["scan"].clone();
        assert_eq!(
            (&scanned["status"], &scanned["tool"], &scanned["summary"]),
            (&json!(status), &json!("trivy 0.66.0"), &summary),
            "{most}"
        );
        assert!(scanned["at"].as_str().unwrap() > release["created_at"].as_str().unwrap(), "now");
    }
}

fn what_passes_is_for_the_sender_to_say(app: &TestApp) {
    let scans = format!("{}/scan", path(&record(app, "checkout", "1")));
    let status = |query: &str, body: Value| {
        let scan = app.put(&format!("{scans}{query}"), body).expect(200)["scan"].clone();
        (
            scan["status"].as_str().unwrap().to_owned(),
            scan["max_severity"].as_str().unwrap().to_owned(),
        )
    };
    let found = |count: Value| json!({"tool": "trivy", "summary": count});
    let is = |status: &str, most: &str| (status.to_owned(), most.to_owned());
    assert_eq!(status("", json!({"tool": "trivy"})), is("passed", "medium"), "nothing was found");
    assert_eq!(status("", found(json!({"medium": 9, "unknown": 9}))), is("passed", "medium"));
    assert_eq!(status("", found(json!({"high": 1}))), is("failed", "medium"));
    assert_eq!(status("?max_severity=high", found(json!({"high": 1.0}))), is("passed", "high"));
    assert_eq!(status("?max_severity=low", found(json!({"medium": 1}))), is("failed", "low"));
    // The body overrides the query, and the sender's own verdict what follows from the findings.
    let both = json!({"tool": "trivy", "summary": {"high": 1}, "max_severity": "critical"});
    assert_eq!(status("?max_severity=low", both), is("passed", "critical"));
    assert_eq!(
        status("", json!({"tool": "trivy", "summary": {"critical": 1}, "status": "passed"})),
        is("passed", "medium")
    );
    assert_eq!(status("", json!({"tool": "trivy", "status": "failed"})), is("failed", "medium"));
}

fn a_list_is_filtered(app: &TestApp) {
    let a = app
        .post(
            "/v1/releases",
            json!({"service": "checkout", "version": "1",
                "git_sha": sha(1), "create_missing": true}),
        )
        .expect(201);
    let b = app
        .post(
            "/v1/releases",
            json!({"service": "billing", "version": "1", "git_sha": sha(1),
                "create_missing": true}),
        )
        .expect(201);
    let c = record(app, "checkout", "2");
    let ids = |query: &str| {
        app.all(&format!("/v1/releases{query}"))
            .iter()
            .map(|item| item["id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(""), [c["id"].clone(), b["id"].clone(), a["id"].clone()]);
    assert_eq!(ids("?service=checkout"), [c["id"].clone(), a["id"].clone()]);
    assert_eq!(ids("?version=1"), [b["id"].clone(), a["id"].clone()]);
    assert_eq!(ids(&format!("?git_sha={}&service=checkout", sha(1))), [a["id"].clone()]);
    assert!(ids(&format!("?git_sha={}", sha(2))).is_empty());
}

fn of_concurrent_recordings_one_creates(app: &TestApp) {
    let body = json!({"service": "checkout", "version": "1", "create_missing": true});
    let answers = together(8, |_| app.post("/v1/releases", body.clone()));
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for answer in &answers {
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.json()["id"], answers[0].json()["id"]);
    }
}

fn an_unknown_release_or_service_is_not_found(app: &TestApp) {
    let unknown = json!({"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41"});
    app.get(&path(&unknown)).expect_problem(404, "not_found");
    app.put(&format!("{}/scan", path(&unknown)), json!({"status": "passed", "tool": "trivy"}))
        .expect_problem(404, "not_found");
    let problem = app
        .post("/v1/releases", json!({"service": "checkout", "version": "1"}))
        .expect_problem(404, "not_found");
    assert!(problem["detail"].as_str().unwrap().contains("checkout"), "{problem}");
}
