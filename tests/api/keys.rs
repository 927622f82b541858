//! Keys: who may do what, at once and no longer than they may; and their secrets stay secret.

use crate::harness::{ADMIN, Answer, TestApp, count, migrate, together, with};
use prop::types::token::Token;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

crate::on_both_databases! {
    every_operation_needs_its_scope
    who_may_approve_may_not_mirror_and_the_other_way_round
    a_revoked_key_is_refused_at_once
    revoking_again_changes_nothing
    the_last_admin_key_can_not_be_revoked
    the_last_use_is_noted
    a_made_key_shows_its_secret_once
    scopes_are_kept_in_one_order_and_once
    a_name_of_prop_is_nobody_elses
    valid_keys_have_different_names
    a_rotated_bootstrap_key_has_a_name_of_its_own
}

const UNKNOWN: &str = "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42";
const SCOPES: [&str; 7] = ["read", "deploy", "attest", "approve", "mirror", "operate", "override"];

/// Asks for an operation of the document, with its example as the body and nothing at the end of
/// its path.
fn evaluate(
    app: &TestApp,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: Option<&Value>,
) -> Answer {
    let path = path
        .split('/')
        .map(|part| if part.starts_with('{') { UNKNOWN } else { part })
        .collect::<Vec<_>>()
        .join("/");
    let mut request = app.request(&method.to_uppercase(), &path);
    if let Some(key) = key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    if body.is_some() {
        request = request.header("Content-Type", "application/json");
    }
    app.send(
        request.body(body.map(|body| body.to_string().into_bytes()).unwrap_or_default()).unwrap(),
    )
}

fn every_operation_needs_its_scope(app: &TestApp) {
    let keys = SCOPES.map(|scope| (scope, app.key(scope, &[scope])));
    let document: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            let any_of: Vec<_> = match operation.get("security") {
                // A webhook brings a signature; no key stands for it.
                Some(security) if security[0].get("signature").is_some() => {
                    evaluate(app, method, path, Some(ADMIN), Some(&json!({})))
                        .expect_problem(401, "invalid_signature");
                    continue;
                }
                // Each alternative is one scope.
                Some(security) => {
                    let scopes =
                        |alternative: &Value| alternative["key"].as_array().unwrap().clone();
                    let alternatives: Vec<_> =
                        security.as_array().unwrap().iter().map(scopes).collect();
                    assert!(alternatives.iter().all(|scopes| scopes.len() == 1), "{name}");
                    alternatives.concat()
                }
                None => {
                    assert!(!path.starts_with("/v1"), "{name} has no security");
                    assert!(evaluate(app, method, path, None, None).status < 300, "{name}");
                    continue;
                }
            };
            assert!(!any_of.is_empty(), "{name}");
            let body = operation.get("requestBody").map(|body| {
                let schema =
                    body["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
                let schema = document.pointer(schema.strip_prefix('#').unwrap()).unwrap();
                schema.get("example").unwrap_or(&schema["examples"][0]).clone()
            });
            evaluate(app, method, path, None, body.as_ref()).expect_problem(401, "unauthenticated");
            for (scope, key) in &keys {
                // The one scope that the body decides on.
                let body = if *scope == "mirror" && any_of.len() > 1 {
                    Some(with(body.clone().unwrap(), mirrored()))
                } else {
                    body.clone()
                };
                let answer = evaluate(app, method, path, Some(key), body.as_ref());
                if any_of.contains(&json!(scope)) {
                    assert!(
                        answer.status != 401 && answer.status != 403 && answer.status < 500,
                        "{name} with {scope}: {}",
                        answer.text
                    );
                } else {
                    let problem = answer.expect_problem(403, "missing_scope");
                    assert_eq!(problem["scopes"], json!(any_of), "{name} with {scope}");
                }
            }
            let answer = evaluate(app, method, path, Some(ADMIN), body.as_ref());
            assert!(
                answer.status != 401 && answer.status != 403 && answer.status < 500,
                "{name} with admin: {}",
                answer.text
            );
            asked += 1;
        }
    }
    assert!(asked >= 35, "{asked}");
}

/// What makes an approval one that was given elsewhere.
fn mirrored() -> Value {
    json!({"source": "github", "approver": "alice", "run_url": "https://ci.example.org/runs/17"})
}

fn who_may_approve_may_not_mirror_and_the_other_way_round(app: &TestApp) {
    app.deploy("checkout", "staging", "1", false);
    let own = json!({"service": "checkout", "version": "1", "environment": "staging",
        "decision": "approved"});
    let bodies = [("approve", own.clone()), ("mirror", with(own, mirrored()))];
    let keys = bodies.clone().map(|(scope, _)| app.key(scope, &[scope]));
    for (i, (scope, body)) in bodies.iter().enumerate() {
        let before = app.counts();
        let refused = app
            .call("POST", "/v1/approvals", &keys[1 - i], Some(body), &[])
            .expect_problem(403, "missing_scope");
        assert_eq!(refused["scopes"], json!([scope]));
        assert_eq!(app.counts(), before);
        let made = app.call("POST", "/v1/approvals", &keys[i], Some(body), &[]).expect(201);
        assert_eq!(
            (&made["recorded_by"], &made["approver"]),
            (&json!(scope), &json!(["approve", "alice"][i]))
        );
    }
    app.call("POST", "/v1/approvals", ADMIN, Some(&bodies[1].1), &[]).expect(200);
}

/// The id of the key that was made last.
fn latest(app: &TestApp) -> String {
    app.get("/v1/keys?limit=1").expect(200)["items"][0]["id"].as_str().unwrap().to_owned()
}

fn a_revoked_key_is_refused_at_once(app: &TestApp) {
    let pipeline = app.key("pipeline", &["read"]);
    let id = latest(app);
    let other = app.key("other", &["read"]);
    let get = |key: &str| app.call("GET", "/v1/services", key, None, &[]);
    // Twice: the second time it is known from the first.
    get(&pipeline).expect(200);
    get(&pipeline).expect(200);
    let revoked = app.delete(&format!("/v1/keys/{id}")).expect(200);
    assert!(revoked["revoked_at"].is_string());
    get(&pipeline).expect_problem(401, "revoked_key");
    get(&other).expect(200);
    // A key may revoke itself.
    let admin = app.key("second admin", &["admin"]);
    app.call("DELETE", &format!("/v1/keys/{}", latest(app)), &admin, None, &[]).expect(200);
    get(&admin).expect_problem(401, "revoked_key");
}

fn revoking_again_changes_nothing(app: &TestApp) {
    app.key("pipeline", &["read"]);
    let path = format!("/v1/keys/{}", latest(app));
    let first = app.delete(&path).expect(200);
    assert_eq!(app.delete(&path).expect(200), first);
    assert_eq!(app.all("/v1/events?action=key.revoked").len(), 1);
    app.delete(&format!("/v1/keys/{UNKNOWN}")).expect_problem(404, "not_found");
}

fn the_last_admin_key_can_not_be_revoked(app: &TestApp) {
    let id = |name: &str| {
        let keys = app.all("/v1/keys");
        let found = keys.iter().find(|key| key["name"] == name && key["revoked_at"].is_null());
        found.unwrap_or_else(|| panic!("{name}"))["id"].as_str().unwrap().to_owned()
    };
    let revoke =
        |id: &str, key: &str| app.call("DELETE", &format!("/v1/keys/{id}"), key, None, &[]);
    app.key("reader", &["read"]);
    let own = id("bootstrap");
    let before = app.counts();
    revoke(&own, ADMIN).expect_problem(409, "last_admin_key");
    assert_eq!(app.counts(), before);
    // One that holds no admin's scope may go, and an admin when there is another one.
    revoke(&id("reader"), ADMIN).expect(200);
    let second = app.key("second", &["admin"]);
    let ids = [own, id("second")];
    // Of two that revoke each other at once, one stays.
    let answers = together(2, |n| {
        let (id, key) = (&ids[n], [second.as_str(), ADMIN][n]);
        app.another().call("DELETE", &format!("/v1/keys/{id}"), key, None, &[]).status
    });
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    assert_eq!(count(&mut app.db(), "keys WHERE revoked_at IS NULL"), 1);
}

fn the_last_use_is_noted(app: &TestApp) {
    let pipeline = app.key("pipeline", &["read"]);
    let kept = || app.get("/v1/keys?limit=1").expect(200)["items"][0].clone();
    assert_eq!(kept()["last_used_at"], Value::Null);
    app.call("GET", "/v1/services", &pipeline, None, &[]).expect(200);
    let deadline = Instant::now() + Duration::from_secs(30);
    while kept()["last_used_at"].is_null() {
        assert!(Instant::now() < deadline, "the use was not noted");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(kept()["last_used_at"].as_str() >= kept()["created_at"].as_str());
}

fn a_made_key_shows_its_secret_once(app: &TestApp) {
    let made =
        app.post("/v1/keys", json!({"name": "pipeline", "scopes": ["read", "deploy"]})).expect(201);
    let secret = made["key"].as_str().unwrap();
    assert!(secret.starts_with(made["prefix"].as_str().unwrap()) && secret.len() == 41, "{made}");
    app.call("GET", "/v1/status", secret, None, &[]).expect(200);
    app.call("GET", "/v1/keys", secret, None, &[]).expect_problem(403, "missing_scope");
    for list in ["/v1/keys", "/v1/events?limit=100", "/metrics"] {
        let text = app.get(list).text;
        assert!(!text.contains(&secret[10..]) && !text.contains(&ADMIN[10..]), "{list}");
    }
    let mut kept = made.clone();
    kept.as_object_mut().unwrap().remove("key");
    let mut listed = app.get("/v1/keys?limit=1").expect(200)["items"][0].clone();
    listed["last_used_at"] = Value::Null;
    assert_eq!(listed, kept);
    let created = &app.all("/v1/events?action=key.created")[0];
    assert_eq!(created["payload"], json!({"name": "pipeline", "scopes": ["read", "deploy"]}));
}

fn scopes_are_kept_in_one_order_and_once(app: &TestApp) {
    let made = app
        .post("/v1/keys", json!({"name": "pipeline", "scopes": ["deploy", "read", "deploy"]}))
        .expect(201);
    assert_eq!(made["scopes"], json!(["read", "deploy"]));
}

/// Runs the server as a process of its own, with everything in its log, and reads that log to its
/// end.
#[test]
fn no_secret_is_logged() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("prop.db").display());
    // Migrated beforehand, so that a key can be made that the process has to look up.
    migrate(&url);
    for format in ["json", "text"] {
        let mut server = Command::new(env!("CARGO_BIN_EXE_prop"))
            .current_dir(directory.path())
            .env_clear()
            .envs([
                ("DATABASE_URL", url.as_str()),
                ("PROP_HTTP__PORT", "0"),
                ("PROP_BOOTSTRAP_KEY", ADMIN),
            ])
            .envs([
                ("PROP_LOG__FILTER", "trace"),
                ("PROP_LOG__FORMAT", format),
                ("PROP_DATABASE__SLOW_STATEMENT_MS", "1"),
            ])
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(directory.path().join(format)).unwrap())
            .spawn()
            .unwrap();
        let mut greeting = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        let here = greeting
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let send = |method: &str, path: &str, key: &str, body: &str| {
            let request =
                ureq::http::Request::builder().method(method).uri(format!("{here}{path}"));
            let request = request
                .header("Authorization", format!("Bearer {key}"))
                .header("Content-Type", "application/json");
            crate::harness::agent().run(request.body(body.to_owned()).unwrap()).unwrap()
        };
        let made: Value = send(
            "POST",
            "/v1/keys",
            ADMIN,
            &json!({"name": format, "scopes": ["read"]}).to_string(),
        )
        .body_mut()
        .read_json()
        .unwrap();
        let secret = made["key"].as_str().unwrap();
        assert_eq!(send("GET", "/v1/services", secret, "").status(), 200);
        assert_eq!(
            send("POST", "/v1/keys", secret, r#"{"name":"private words","scopes":["read"]}"#)
                .status(),
            403
        );
        let other = if secret.ends_with('x') { "y" } else { "x" };
        let wrong = format!("{}{other}", &secret[..40]);
        assert_eq!(send("GET", "/v1/services", &wrong, "").status(), 401);
        Command::new("kill").arg(server.id().to_string()).status().unwrap();
        assert!(server.wait().unwrap().success());
        let log = std::fs::read_to_string(directory.path().join(format)).unwrap();
        assert!(log.contains("/v1/keys"), "the requests are there: {log}");
        for secret in [&secret[10..40], &ADMIN[10..40], "private words"] {
            assert!(!log.contains(secret), "{format}: {secret}");
        }
    }
}

/// Names that the history uses for the ledger itself and for webhooks.
const RESERVED: [&str; 6] = ["prop", "Prop", "anonymous", "github", "github:octocat", "GitHub:x"];

fn a_name_of_prop_is_nobody_elses(app: &TestApp) {
    app.go_live("checkout", "staging", "1");
    let place = json!({"service": "checkout", "environment": "staging", "version": "1"});
    for name in RESERVED {
        let key = json!({"name": name, "scopes": ["read"]});
        let deployment = with(place.clone(), json!({"requested_by": name}));
        let review = with(
            place.clone(),
            json!({"decision": "approved", "source": "github", "approver": name,
                "run_url": "https://github.com/shop/checkout/actions/runs/1"}),
        );
        for (path, body, pointer) in [
            ("/v1/keys", key, "/name"),
            ("/v1/deployments", deployment, "/requested_by"),
            ("/v1/approvals", review, "/approver"),
        ] {
            let problem = app.post(path, body).expect_problem(422, "invalid_value");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{name}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains("reserved"), "{problem}");
        }
        let question = "service=checkout&environment=staging&version=1&requested_by=";
        app.get(&format!("/v1/gate?{question}{name}")).expect_problem(400, "invalid_query");
    }
    app.key("property", &["read"]);
}

fn valid_keys_have_different_names(app: &TestApp) {
    let new = |name: &str| json!({"name": name, "scopes": ["read"]});
    let first = app.post("/v1/keys", new("pipeline")).expect(201);
    let before = app.counts();
    for name in ["pipeline", "Pipeline"] {
        let taken = app.post("/v1/keys", new(name)).expect_problem(409, "already_exists");
        assert_eq!(taken["key_id"], first["id"]);
    }
    assert_eq!(app.counts(), before);
    // One of the simultaneous requests wins.
    let answers = together(8, |_| app.another().post("/v1/keys", new("mirror")).status);
    assert_eq!(answers.iter().filter(|status| **status == 201).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|status| [201, 409].contains(status)), "{answers:?}");
    // The name of a revoked key is free again.
    app.delete(&format!("/v1/keys/{}", first["id"].as_str().unwrap())).expect(200);
    app.post("/v1/keys", new("pipeline")).expect(201);
}

fn a_rotated_bootstrap_key_has_a_name_of_its_own(app: &TestApp) {
    let named = |app: &TestApp, key: &str| {
        let keys = app.call("GET", "/v1/keys", key, None, &[]).expect(200);
        let keys = keys["items"].as_array().unwrap().iter();
        keys.map(|key| key["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (second, third) = (Token::generate().unwrap(), Token::generate().unwrap());
    let rotated =
        |key: &Token| TestApp::start(&app.database_url, &[("PROP_BOOTSTRAP_KEY", key.reveal())]);
    let names = named(&rotated(&second), second.reveal());
    assert_eq!(names, ["bootstrap-2", "bootstrap"]);
    let names = named(&rotated(&second), second.reveal());
    assert_eq!(names, ["bootstrap-2", "bootstrap"], "known at the second start");
    let names = named(&rotated(&third), ADMIN);
    assert_eq!(names, ["bootstrap-3", "bootstrap-2", "bootstrap"], "the old ones stay valid");
}
