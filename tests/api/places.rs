//! What runs where: the grid, and one place in full.

use crate::harness::{TestApp, brief, image, new_deployment, with};
use serde_json::{Value, json};

crate::on_both_databases! {
    the_grid_shows_what_is_live_running_and_waiting
    the_grid_shows_the_last_failure_until_a_later_success
    the_grid_says_what_blocks_a_waiting_deployment
    the_grid_has_columns_by_tier_and_rows_by_slug
    the_grid_shows_scans_and_open_incidents
    the_grid_shows_how_far_a_place_is_behind
    production_is_compared_with_staging_where_nothing_else_is_said
    a_place_shows_what_a_rollback_goes_back_to
    a_place_shows_the_latest_ten
    an_empty_place_is_none_that_is_unknown
}

fn place(app: &TestApp) -> Value {
    app.get("/v1/services/checkout/environments/production").expect(200)
}

fn the_grid_shows_what_is_live_running_and_waiting(app: &TestApp) {
    let live = app.go_live("checkout", "production", "1");
    let failed =
        app.transition(&app.deploy("checkout", "production", "0", true), "failed").expect(200);
    let waiting = [
        app.deploy("checkout", "production", "3", false),
        app.deploy("checkout", "production", "4", false),
    ];
    app.transition(&app.deploy("checkout", "production", "5", false), "cancelled").expect(200);
    let running = app.deploy("checkout", "production", "2", true);
    let grid = app.get("/v1/status").expect(200);
    let current = |deployment: &Value, since: &str| {
        let mut current = json!({"since": deployment[since]});
        for field in [
            "id",
            "release_id",
            "version",
            "git_sha",
            "image_digest",
            "state",
            "kind",
            "requested_by",
            "expires_at",
            "ungated",
        ] {
            current[field] = deployment[field].clone();
        }
        current["scan"] = json!("missing");
        current["blocked"] = Value::Null;
        current
    };
    let blocked = |deployment| {
        with(current(deployment, "requested_at"), json!({"blocked": ["deployment_running"]}))
    };
    let cell = json!({
        "environment": "production", "live": current(&live, "finished_at"),
        "running": current(&running, "started_at"),
        "waiting": waiting.iter().map(blocked).collect::<Vec<_>>(), "more_waiting": 0,
        "last_failed": current(&failed, "finished_at"), "frozen": null, "incident": null,
        "behind": null
    });
    assert_eq!(
        grid["services"],
        json!([{"slug": "checkout", "name": "checkout", "owner": null, "places": [cell]}])
    );
}

fn the_grid_has_columns_by_tier_and_rows_by_slug(app: &TestApp) {
    assert_eq!(app.get("/v1/status").expect(200), json!({"environments": [], "services": []}));
    for slug in ["prod-us", "staging", "prod-eu", "anna", "qa"] {
        app.deploy("checkout", slug, "1", false);
    }
    // Hyphens sort before digits and letters on both databases.
    for slug in ["b1", "b-2", "a"] {
        app.post("/v1/services", json!({"slug": slug})).expect(201);
    }
    let grid = app.get("/v1/status").expect(200);
    let slugs = |field: &str| {
        grid[field]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["slug"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(slugs("environments"), ["anna", "qa", "staging", "prod-eu", "prod-us"]);
    assert_eq!(slugs("services"), ["a", "b-2", "b1", "checkout"]);
    assert_eq!(grid["services"][0]["places"], json!([]));
    assert_eq!(grid["services"][3]["places"].as_array().unwrap().len(), 5);
}

/// A place in the grid, or `null`.
fn cell(app: &TestApp, service: &str, environment: &str) -> Value {
    let grid = app.get("/v1/status").expect(200);
    let row = grid["services"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["slug"] == service)
        .unwrap()
        .clone();
    row["places"]
        .as_array()
        .unwrap()
        .iter()
        .find(|cell| cell["environment"] == environment)
        .cloned()
        .unwrap_or_default()
}

fn the_grid_says_what_blocks_a_waiting_deployment(app: &TestApp) {
    let policy = json!({"slug": "production", "tier": "production", "required_approvals": 1});
    app.post("/v1/environments", policy).expect(201);
    let waiting = app.deploy("checkout", "production", "1", false);
    let alice = &app.key("alice", &["read", "approve"]);
    let review = |decision: &str| {
        let body = json!({"service": "checkout", "environment": "production", "version": "1",
            "decision": decision});
        app.call("POST", "/v1/approvals", alice, Some(&body), &[]).expect(201);
    };
    let expect = |state: &str, codes: Value| {
        let place = cell(app, "checkout", "production");
        let seen = &place["waiting"][0];
        assert_eq!((&seen["id"], &seen["state"]), (&waiting["id"], &json!(state)), "{place}");
        assert_eq!(seen["blocked"], codes);
        let grid = app.call("GET", "/v1/status", alice, None, &[]).expect(200);
        assert_eq!(grid["services"][0]["places"][0], place, "the approver sees the same");
    };
    expect("awaiting_approval", json!(["approval_missing"]));
    review("approved");
    expect("approved", json!([]));
    app.post("/v1/freezes", json!({"reason": "Inventory"})).expect(201);
    expect("approved", json!(["frozen"]));
    review("rejected");
    expect("awaiting_approval", json!(["frozen", "approval_rejected"]));
    // The gate is evaluated for those that have waited longest.
    let freeze = app.all("/v1/freezes")[0]["id"].as_str().unwrap().to_owned();
    app.patch(&format!("/v1/freezes/{freeze}"), json!({"ended": true}), &[]).expect(200);
    let environments = ["staging", "testing"];
    for environment in environments {
        for version in 1..=10 {
            app.deploy("billing", environment, &version.to_string(), false);
        }
    }
    let evaluated = environments.map(|environment| {
        let waiting = cell(app, "billing", environment)["waiting"].as_array().unwrap().clone();
        waiting.iter().map(|current| current["blocked"].is_array()).collect::<Vec<_>>()
    });
    assert_eq!(evaluated.concat(), [vec![true; 19], vec![false]].concat());
}

fn the_grid_shows_the_last_failure_until_a_later_success(app: &TestApp) {
    let fail = |version: &str| {
        app.transition(&app.deploy("checkout", "production", version, true), "failed").expect(200)
    };
    let last_failed = || cell(app, "checkout", "production")["last_failed"].clone();
    fail("1");
    assert_eq!(last_failed()["version"], "1", "where nothing was ever live");
    fail("2");
    let cancelled = app.deploy("checkout", "production", "3", true);
    app.transition(&cancelled, "cancelled").expect(200);
    assert_eq!(
        (&last_failed()["version"], &last_failed()["state"]),
        (&json!("2"), &json!("failed"))
    );
    assert_eq!(cell(app, "checkout", "staging"), Value::Null);

    app.go_live("checkout", "production", "4");
    assert_eq!(last_failed(), Value::Null, "the live deployment is newer");
    app.deploy("checkout", "staging", "4", false);
    assert_eq!(cell(app, "checkout", "staging")["last_failed"], Value::Null);
    let last = fail("5");
    assert_eq!(last_failed()["id"], last["id"]);
    // A failure that is reported late is older than what is live.
    let late = with(
        new_deployment("billing", "production", "1"),
        json!({"state": "failed", "at": "2026-02-03T05:00:00Z",
            "finished_at": "2026-02-03T05:10:00Z"}),
    );
    app.go_live("billing", "production", "2");
    app.post("/v1/deployments", late).expect(201);
    assert_eq!(cell(app, "billing", "production")["last_failed"], Value::Null);
}

fn the_grid_shows_scans_and_open_incidents(app: &TestApp) {
    let live = app.go_live("checkout", "production", "1");
    app.post("/v1/services", json!({"slug": "billing"})).expect(201);
    let scan = |summary: Value| {
        let path = format!("/v1/releases/{}/scan", live["release_id"].as_str().unwrap());
        app.put(&path, json!({"tool": "trivy 0.66", "summary": summary})).expect(200);
        cell(app, "checkout", "production")["live"]["scan"].clone()
    };
    assert_eq!(
        (scan(json!({"low": 1})), scan(json!({"critical": 1}))),
        (json!("passed"), json!("failed"))
    );

    let open = |service: &str, title: &str, severity: &str, at: &str| {
        let place = json!({"service": service, "environment": "production"});
        app.post(
            "/v1/incidents",
            with(place, json!({"title": title, "severity": severity, "detected_at": at})),
        )
        .expect(201)
    };
    let later = open("checkout", "Slow", "minor", "2026-02-03T06:00:00Z");
    let first = open("checkout", "Down", "critical", "2026-02-03T05:00:00Z");
    let incident = |incident: &Value| {
        json!({"id": incident["id"], "title": incident["title"],
            "severity": incident["severity"], "since": incident["detected_at"]})
    };
    assert_eq!(cell(app, "checkout", "production")["incident"], incident(&first));
    let resolve = |incident: &Value| {
        let path = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
        app.patch(&path, json!({"resolved": true}), &[]).expect(200);
    };
    resolve(&first);
    assert_eq!(cell(app, "checkout", "production")["incident"], incident(&later));
    resolve(&later);
    assert_eq!(cell(app, "checkout", "production")["incident"], Value::Null);

    // Where nothing is live something may be wrong all the same.
    let without = open("billing", "No invoices", "major", "2026-02-03T05:00:00Z");
    let place = cell(app, "billing", "production");
    assert_eq!(
        (&place["incident"], &place["live"], &place["waiting"]),
        (&incident(&without), &Value::Null, &json!([]))
    );
    resolve(&without);
    assert_eq!(cell(app, "billing", "production"), Value::Null);
}

/// A release, by its commit's time if that is said.
fn release(app: &TestApp, version: &str, committed_at: Option<&str>) {
    let release = json!({"service": "checkout", "version": version, "image_digest": image(version),
        "create_missing": true});
    app.post("/v1/releases", with(release, json!({"committed_at": committed_at}))).expect(201);
}

fn the_grid_shows_how_far_a_place_is_behind(app: &TestApp) {
    app.post("/v1/environments", json!({"slug": "qa", "tier": "testing"})).expect(201);
    app.post(
        "/v1/environments",
        json!({"slug": "production", "tier": "production", "predecessor": "qa"}),
    )
    .expect(201);
    let behind = || cell(app, "checkout", "production")["behind"].clone();
    release(app, "1", Some("2026-02-02T05:00:00Z"));
    app.go_live("checkout", "qa", "1");
    app.go_live("checkout", "production", "1");
    assert_eq!(behind(), Value::Null, "the same");
    // One that never came far counts: its commits are on their way, too.
    release(app, "2", Some("2026-02-03T05:00:00Z"));
    release(app, "3", Some("2026-02-04T05:00:00Z"));
    assert_eq!(behind(), Value::Null, "not live before it yet");
    app.go_live("checkout", "qa", "3");
    let lag = json!({"environment": "qa", "version": "3", "releases": 2,
        "since": "2026-02-03T05:00:00.000000Z"});
    assert_eq!(behind(), lag);
    assert_eq!(cell(app, "checkout", "qa")["behind"], Value::Null);
    // Another service is another matter, and so is a deployment on its way.
    app.go_live("billing", "qa", "1");
    app.go_live("billing", "production", "1");
    let past_the_gate =
        with(new_deployment("checkout", "production", "2"), json!({"observed": true}));
    let running = app.post("/v1/deployments", past_the_gate).expect(201);
    assert_eq!(behind(), lag);
    app.transition(&running, "succeeded").expect(200);
    assert_eq!(
        (&behind()["releases"], &behind()["since"]),
        (&json!(1), &json!("2026-02-04T05:00:00.000000Z"))
    );
    // Where the commit's time is not known, since it was recorded.
    app.go_live("checkout", "production", "3");
    release(app, "4", None);
    app.go_live("checkout", "qa", "4");
    let recorded =
        app.get("/v1/releases?service=checkout&version=4").expect(200)["items"][0]["created_at"]
            .clone();
    assert_eq!(behind()["since"], recorded);
}

fn production_is_compared_with_staging_where_nothing_else_is_said(app: &TestApp) {
    for environment in ["testing", "staging", "production"] {
        app.post("/v1/environments", json!({"slug": environment, "tier": environment})).expect(201);
    }
    let compared = || {
        ["testing", "staging", "production"]
            .map(|environment| cell(app, "checkout", environment)["behind"]["environment"].clone())
    };
    for (version, environments) in [
        ("1", vec!["testing", "staging", "production"]),
        ("2", vec!["testing", "staging"]),
        ("3", vec!["testing"]),
    ] {
        environments
            .iter()
            .for_each(|environment| drop(app.go_live("checkout", environment, version)));
    }
    assert_eq!(compared(), [Value::Null, Value::Null, json!("staging")]);
    assert_eq!(cell(app, "checkout", "production")["behind"]["releases"], 1);
    // What is ahead is not behind.
    app.go_live("checkout", "production", "3");
    assert_eq!(compared(), [Value::Null, Value::Null, Value::Null]);
    app.patch("/v1/environments/staging", json!({"predecessor": "testing"}), &[]).expect(200);
    assert_eq!(compared(), [Value::Null, json!("testing"), Value::Null]);
}

fn a_place_shows_what_a_rollback_goes_back_to(app: &TestApp) {
    let first = app.go_live("checkout", "production", "1");
    assert_eq!((&place(app)["live"], &place(app)["previous"]), (&brief(&first), &Value::Null));
    let second = app.go_live("checkout", "production", "2");
    let second_again = app.go_live("checkout", "production", "2");
    let view = place(app);
    assert_eq!(view["live"], brief(&second_again));
    assert_eq!(
        view["previous"]["id"], first["id"],
        "the same release again is nothing to go back to"
    );
    let running = app.deploy("checkout", "production", "3", true);
    assert_eq!(place(app)["running"], brief(&running));
    assert_eq!(place(app)["live"], brief(&second_again));
    let third = app.transition(&running, "succeeded").expect(200);
    let view = place(app);
    assert_eq!(
        (&view["live"], &view["running"], &view["previous"]["id"]),
        (&brief(&third), &Value::Null, &second_again["id"])
    );
    // Back to 2: what was rolled back is nothing to go back to, 1 still is.
    let back = app.go_live("checkout", "production", "2");
    let view = place(app);
    assert_eq!((&view["live"]["id"], &view["previous"]["id"]), (&back["id"], &first["id"]));
    assert_ne!(second["id"], second_again["id"]);
}

fn a_place_shows_the_latest_ten(app: &TestApp) {
    let mut made: Vec<_> = (0..12)
        .map(|n| app.deploy("checkout", "production", &n.to_string(), false)["id"].clone())
        .collect();
    app.deploy("checkout", "staging", "0", false);
    app.deploy("billing", "production", "0", false);
    made.reverse();
    let latest: Vec<_> = place(app)["latest"]
        .as_array()
        .unwrap()
        .iter()
        .map(|deployment| deployment["id"].clone())
        .collect();
    assert_eq!(latest, made[..10]);
}

fn an_empty_place_is_none_that_is_unknown(app: &TestApp) {
    app.post("/v1/services", json!({"slug": "checkout"})).expect(201);
    let problem =
        app.get("/v1/services/checkout/environments/production").expect_problem(404, "not_found");
    assert!(problem["detail"].as_str().unwrap().contains("production"), "{problem}");
    app.post("/v1/environments", json!({"slug": "production", "tier": "production"})).expect(201);
    let empty = json!({"service": "checkout", "environment": "production", "live": null,
        "previous": null, "running": null, "latest": []});
    assert_eq!(place(app), empty);
    let problem =
        app.get("/v1/services/billing/environments/production").expect_problem(404, "not_found");
    assert!(problem["detail"].as_str().unwrap().contains("billing"), "{problem}");
}
