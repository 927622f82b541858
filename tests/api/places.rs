//! What runs where: the grid, and one place in full.

use crate::harness::{TestApp, brief};
use serde_json::{Value, json};

crate::on_both_databases! {
    the_grid_shows_what_is_live_running_and_waiting
    the_grid_has_columns_by_tier_and_rows_by_slug
    a_place_shows_what_a_rollback_goes_back_to
    a_place_shows_the_latest_ten
    an_empty_place_is_none_that_is_unknown
}

fn place(app: &TestApp) -> Value {
    app.get("/v1/services/checkout/environments/production").expect(200)
}

fn the_grid_shows_what_is_live_running_and_waiting(app: &TestApp) {
    let live = app.go_live("checkout", "production", "1");
    app.transition(&app.deploy("checkout", "production", "0", true), "failed").expect(200);
    let waiting = [app.deploy("checkout", "production", "3", false), app.deploy("checkout", "production", "4", false)];
    app.transition(&app.deploy("checkout", "production", "5", false), "cancelled").expect(200);
    let running = app.deploy("checkout", "production", "2", true);
    let grid = app.get("/v1/status").expect(200);
    let current = |deployment: &Value, since: &str| {
        let mut current = json!({"since": deployment[since]});
        for field in ["id", "release_id", "version", "git_sha", "image_digest", "state", "kind", "requested_by", "expires_at"] {
            current[field] = deployment[field].clone();
        }
        current
    };
    let cell = json!({
        "environment": "production", "live": current(&live, "finished_at"), "running": current(&running, "started_at"),
        "waiting": waiting.iter().map(|deployment| current(deployment, "requested_at")).collect::<Vec<_>>(), "frozen": null
    });
    assert_eq!(grid["services"], json!([{"slug": "checkout", "name": "checkout", "owner": null, "places": [cell]}]));
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
    let slugs = |field: &str| grid[field].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(slugs("environments"), ["anna", "qa", "staging", "prod-eu", "prod-us"]);
    assert_eq!(slugs("services"), ["a", "b-2", "b1", "checkout"]);
    assert_eq!(grid["services"][0]["places"], json!([]));
    assert_eq!(grid["services"][3]["places"].as_array().unwrap().len(), 5);
}

fn a_place_shows_what_a_rollback_goes_back_to(app: &TestApp) {
    let first = app.go_live("checkout", "production", "1");
    assert_eq!((&place(app)["live"], &place(app)["previous"]), (&brief(&first), &Value::Null));
    let second = app.go_live("checkout", "production", "2");
    let second_again = app.go_live("checkout", "production", "2");
    let view = place(app);
    assert_eq!(view["live"], brief(&second_again));
    assert_eq!(view["previous"]["id"], first["id"], "the same release again is nothing to go back to");
    let running = app.deploy("checkout", "production", "3", true);
    assert_eq!(place(app)["running"], brief(&running));
    assert_eq!(place(app)["live"], brief(&second_again));
    let third = app.transition(&running, "succeeded").expect(200);
    let view = place(app);
    assert_eq!((&view["live"], &view["running"], &view["previous"]["id"]), (&brief(&third), &Value::Null, &second_again["id"]));
    // Back to 2: what was rolled back is nothing to go back to, 1 still is.
    let back = app.go_live("checkout", "production", "2");
    let view = place(app);
    assert_eq!((&view["live"]["id"], &view["previous"]["id"]), (&back["id"], &first["id"]));
    assert_ne!(second["id"], second_again["id"]);
}

fn a_place_shows_the_latest_ten(app: &TestApp) {
    let mut made: Vec<_> = (0..12).map(|n| app.deploy("checkout", "production", &n.to_string(), false)["id"].clone()).collect();
    app.deploy("checkout", "staging", "0", false);
    app.deploy("billing", "production", "0", false);
    made.reverse();
    let latest: Vec<_> = place(app)["latest"].as_array().unwrap().iter().map(|deployment| deployment["id"].clone()).collect();
    assert_eq!(latest, made[..10]);
}

fn an_empty_place_is_none_that_is_unknown(app: &TestApp) {
    app.post("/v1/services", json!({"slug": "checkout"})).expect(201);
    let problem = app.get("/v1/services/checkout/environments/production").expect_problem(404, "not_found");
    assert!(problem["detail"].as_str().unwrap().contains("production"), "{problem}");
    app.post("/v1/environments", json!({"slug": "production", "tier": "production"})).expect(201);
    let empty = json!({"service": "checkout", "environment": "production", "live": null, "previous": null, "running": null, "latest": []});
    assert_eq!(place(app), empty);
    let problem = app.get("/v1/services/billing/environments/production").expect_problem(404, "not_found");
    assert!(problem["detail"].as_str().unwrap().contains("billing"), "{problem}");
}
