//! The first start on an empty ledger: how somebody gets at a first key.

use crate::process::{Process, prop, run, sqlite_in, wait_for};
use serde_json::Value;
use std::process::Command;

/// The text between two others.
#[track_caller]
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from)
        .and_then(|(_, rest)| rest.split_once(to))
        .unwrap_or_else(|| panic!("{from:?} and {to:?} in {text}"))
        .0
}

/// Runs a command as somebody who pastes it into a shell.
#[track_caller]
fn paste(command: &str) -> Value {
    let output = Command::new("sh").args(["-c", command.trim()]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn development_prints_a_key_once_and_commands_that_work() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let mut process = Process::spawn(&mut prop(&[], &database, &[]));
    process.app();
    wait_for("the greeting", || process.stdout().contains("The API in a browser: ").then_some(()));
    let greeting = process.stdout();
    let key = between(&greeting, "export PROP_KEY=", "\n");
    let board = between(&greeting, "prop is running: ", "\n");
    assert!(greeting.starts_with("prop is running: http://127.0.0.1:") && board.ends_with('/'));

    let deployment = paste(between(&greeting, "environment):\n", "2. See what is live"));
    assert_eq!(
        (&deployment["state"], &deployment["service"]),
        (&"succeeded".into(), &"prop".into()),
        "{deployment}"
    );
    let status = paste(between(&greeting, "(sign in with the key):\n", "The API in a browser"));
    assert_eq!(status["services"][0]["places"][0]["live"]["id"], deployment["id"], "{status}");

    process.terminate();
    let ended = process.end();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains(key), "the key is in the log");

    let mut again = Process::spawn(&mut prop(&[], &database, &[]));
    let app = again.app();
    app.call("GET", "/v1/deployments", key, None, &[]).expect(200);
    again.terminate();
    let ended = again.end();
    let first = format!("prop is running: {}/", app.url);
    assert_eq!(ended.stdout.lines().next(), Some(first.as_str()), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 2, "{ended:?}");
    assert!(
        ended.stdout.contains("prop key create") && !ended.stdout.contains("prop_"),
        "{ended:?}"
    );
}

const PRODUCTION: [(&str, &str); 2] =
    [("PROP_ENVIRONMENT", "production"), ("PROP_HTTP__HOST", "127.0.0.1")];

#[test]
fn production_refuses_to_start_without_a_key_and_says_how_to_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let refused = run(&[], &database, &PRODUCTION);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    let sentence = refused.stderr.lines().last().unwrap();
    assert!(
        sentence.contains("PROP_BOOTSTRAP_KEY") && sentence.contains("`prop key generate`"),
        "{refused:?}"
    );
    assert!(sentence.contains("`prop key create`"), "{refused:?}");

    // The second of the two ways.
    let created = run(&["key", "create", "operator", "--scope", "admin"], &database, &PRODUCTION);
    let mut process = Process::spawn(&mut prop(&[], &database, &PRODUCTION));
    process.app().call("GET", "/v1/keys", created.stdout.trim(), None, &[]).expect(200);
}

#[test]
fn production_takes_the_bootstrap_key_and_prints_it_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let generated = run(&["key", "generate"], "", &[]).stdout;
    let key = generated.trim();
    // Twice: the second start finds the key known.
    for _ in 0..2 {
        let mut process =
            Process::spawn(prop(&[], &database, &PRODUCTION).env("PROP_BOOTSTRAP_KEY", key));
        let app = process.app();
        let keys = app.call("GET", "/v1/keys", key, None, &[]).expect(200);
        assert_eq!(keys["items"].as_array().unwrap().len(), 1, "{keys}");
        process.terminate();
        let ended = process.end();
        assert_eq!(ended.code, Some(0));
        assert!(!ended.stdout.contains(key) && !ended.stderr.contains(key), "{ended:?}");
        for line in ended.stderr.lines() {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "production logs JSON: {line}");
        }
    }
}

#[test]
fn an_old_bootstrap_key_stays_valid_and_prop_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let warning = "bootstrap keys are valid";
    let start = |key: &str| {
        let mut command = prop(&[], &database, &PRODUCTION);
        let mut process = Process::spawn(command.env("PROP_BOOTSTRAP_KEY", key));
        let app = process.app();
        (process, app)
    };
    let end = |process: Process| {
        process.terminate();
        process.end().stderr
    };
    let [old, new] = [(); 2].map(|()| run(&["key", "generate"], "", &[]).stdout.trim().to_owned());
    let (process, _) = start(&old);
    assert!(!end(process).contains(warning));
    let (process, app) = start(&new);
    let keys = app.call("GET", "/v1/keys", &old, None, &[]).expect(200);
    let first = keys["items"][1]["id"].as_str().unwrap();
    app.call("DELETE", &format!("/v1/keys/{first}"), &new, None, &[]).expect(200);
    assert!(end(process).contains(&format!("2 {warning}")));
    let (process, app) = start(&new);
    app.call("GET", "/v1/keys", &old, None, &[]).expect_problem(401, "revoked_key");
    assert!(!end(process).contains(warning));
}
