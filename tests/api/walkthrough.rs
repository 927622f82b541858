//! The demo that the README names, run as a person would. tests/newcomer runs the README's own
//! commands.

use crate::harness::{ADMIN, TestApp};
use serde_json::Value;
use std::process::Command;

crate::on_both_databases! {
    the_demo_fills_a_ledger_with_a_week_of_history
}

/// Runs a script as somebody would who pastes it into a shell; what it printed.
#[track_caller]
fn bash(arguments: &[&str], app: &TestApp) -> String {
    let output = Command::new("bash")
        .args(arguments)
        .env("PROP_KEY", ADMIN)
        .env("PROP_URL", &app.url)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

fn live(app: &TestApp, service: &str, environment: &str) -> Value {
    app.get(&format!("/v1/services/{service}/environments/{environment}")).expect(200)["live"]
        .take()
}

fn the_demo_fills_a_ledger_with_a_week_of_history(app: &TestApp) {
    let printed = bash(&[concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo.sh"), &app.url], app);
    let blocked = printed.lines().find(|line| line.contains("catalog 1.2.0 to production answers"));
    let (_, freeze) = blocked.unwrap().split_once("answers 409: Frozen until ").unwrap();
    assert!(freeze.ends_with(" UTC: Quarter end."), "{printed}");
    // It ends with a command to paste, and the board.
    let mut last = printed.trim_end().lines().rev();
    assert_eq!(last.next().unwrap().trim(), format!("{}/", app.url));
    let status: Value =
        serde_json::from_str(&bash(&["-c", last.next().unwrap().trim()], app)).unwrap();
    assert_eq!(status["services"].as_array().unwrap().len(), 3, "{status}");
    let status = app.get("/v1/status").expect(200);
    assert_eq!(
        (
            status["services"].as_array().unwrap().len(),
            status["environments"].as_array().unwrap().len()
        ),
        (3, 3)
    );
    assert_eq!(live(app, "catalog", "production")["version"], "1.2.0");
    let past_the_gate = live(app, "accounts", "production");
    assert_eq!(
        (&past_the_gate["ungated"], &past_the_gate["requested_by"]),
        (&true.into(), &"erin".into())
    );
    let rolled_back = app.get("/v1/deployments?state=rolled_back").expect(200);
    assert_eq!(rolled_back["items"][0]["version"], "1.1.0");
    let first =
        app.get("/v1/deployments?service=checkout&environment=testing").expect(200)["items"][0]
            .take();
    let now = app.get("/v1/gate?service=checkout&environment=production&version=1.2.0").expect(200)
        ["evaluated_at"]
        .take();
    assert!(
        first["started_at"].as_str().unwrap()[..10] < now.as_str().unwrap()[..10],
        "a past: {first}"
    );
}
