//! What people are told to type: the README's commands, and the demo that it names.

use crate::harness::{ADMIN, TestApp};
use serde_json::Value;
use std::process::Command;

crate::on_both_databases! {
    the_readmes_commands_work_word_by_word
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

fn the_readmes_commands_work_word_by_word(app: &TestApp) {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    // The first block starts prop itself, and runs these tests.
    let script: String = blocks.skip(1).collect();
    assert!(
        script.contains("export PROP_URL=http://127.0.0.1:8080 PROP_KEY=prop_...\n"),
        "{script}"
    );
    let script = script.replace("http://127.0.0.1:8080", &app.url).replace("prop_...", ADMIN);
    let printed = bash(&["-euo", "pipefail", "-c", &script], app);
    assert!(!printed.contains("\"request_id\""), "a problem: {printed}");
    assert_eq!(live(app, "checkout", "staging")["version"], "1.4.2");
    // The gate's answer in the README is the one that its commands get.
    let sentence = "Needs 1 approval (0 of 1).";
    assert!(readme.contains(sentence) && printed.contains(sentence), "{printed}");
    assert!(printed.contains("\"status\":\"passed\""), "{printed}");
}

fn the_demo_fills_a_ledger_with_a_week_of_history(app: &TestApp) {
    let printed = bash(&[concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo.sh"), &app.url], app);
    assert!(
        printed
            .contains("catalog 1.2.0 to production answers 409: There is a freeze: Quarter end."),
        "{printed}"
    );
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
