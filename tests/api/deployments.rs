//! A deployment from its request to its end.

use crate::harness::TestApp;

crate::on_both_databases! { a_deployment_goes_live_and_is_superseded }

fn a_deployment_goes_live_and_is_superseded(app: &TestApp) {
    let first = app.go_live("checkout", "staging", "1.0.0");
    assert_eq!(first["state"], "succeeded");
    let second = app.go_live("checkout", "staging", "1.1.0");
    assert_eq!(second["previous_id"], first["id"]);
    let path = format!("/v1/deployments/{}", first["id"].as_str().unwrap());
    assert_eq!(app.get(&path).expect(200)["state"], "superseded");
    let status = app.get("/v1/status").expect(200);
    assert_eq!(status["services"][0]["places"][0]["live"]["id"], second["id"]);
}
