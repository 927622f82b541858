//! Reading without a key, where that is allowed: everything but keys, and nothing else.

use crate::harness::{ADMIN, Answer, TestApp};
use serde_json::{Value, json};

crate::on_both_databases! {
    without_the_setting_nothing_is_read_without_a_key
    what_a_reader_may_read_needs_no_key
    nothing_but_reading_goes_without_a_key
    a_key_that_is_given_must_be_right
    events_about_keys_are_for_admins
}

fn public(app: &TestApp) -> TestApp {
    TestApp::start(&app.database_url, &[("PROP_PUBLIC_READ", "true")])
}

fn evaluate(app: &TestApp, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let request = app.request(method, path).header("Content-Type", "application/json");
    app.send(
        request.body(body.map(|body| body.to_string().into_bytes()).unwrap_or_default()).unwrap(),
    )
}

/// Operations of the document: method, path with what exists in it, scopes, an example of the body.
fn operations(deployment: &Value) -> Vec<(String, String, Vec<String>, Option<Value>)> {
    let document: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in
        document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1/"))
    {
        for (method, operation) in item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, operation)| operation["security"][0]["key"].is_array())
        {
            let scopes = operation["security"][0]["key"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|scope| scope.as_str().unwrap().to_owned());
            let id = deployment["id"].as_str().unwrap();
            let path = path
                .replace("{service}", "checkout")
                .replace("{environment}", "staging")
                .replace("{slug}", "checkout")
                .replace("{id}", id);
            let body =
                operation.pointer("/requestBody/content/application~1json").map(|_| json!({}));
            operations.push((method.to_uppercase(), path, scopes.collect(), body));
        }
    }
    operations
}

fn without_the_setting_nothing_is_read_without_a_key(app: &TestApp) {
    let deployment = app.go_live("checkout", "staging", "1");
    for (method, path, _, body) in operations(&deployment) {
        evaluate(app, &method, &path, body.as_ref()).expect_problem(401, "unauthenticated");
    }
}

fn what_a_reader_may_read_needs_no_key(app: &TestApp) {
    let deployment = app.go_live("checkout", "staging", "1");
    let public = public(app);
    let id = deployment["id"].as_str().unwrap();
    let mut paths: Vec<_> = [
        "status",
        "services",
        "services/checkout",
        "services/checkout/environments/staging",
        "environments",
        "releases",
    ]
    .map(|path| format!("/v1/{path}"))
    .into();
    paths.extend(
        ["deployments", "approvals", "freezes", "incidents", "events?entity=deployment"]
            .map(|path| format!("/v1/{path}")),
    );
    paths.extend([format!("/v1/deployments/{id}"), format!("/v1/deployments/{id}/events")]);
    paths.push("/v1/gate?service=checkout&environment=staging&version=1".into());
    for path in paths {
        let (anonymous, keyed) = (evaluate(&public, "GET", &path, None), public.get(&path));
        assert_eq!(anonymous.status, 200, "{path}: {}", anonymous.text);
        if !path.contains("gate") {
            assert_eq!(anonymous.json(), keyed.json(), "{path}");
        }
        assert_eq!(evaluate(&public, "HEAD", &path, None).status, 200, "{path}");
    }
}

fn nothing_but_reading_goes_without_a_key(app: &TestApp) {
    let deployment = app.go_live("checkout", "staging", "1");
    let public = public(app);
    let before = app.counts();
    let mut refused = 0;
    for (method, path, scopes, body) in operations(&deployment) {
        if method == "GET" && scopes == ["read"] {
            continue;
        }
        let answer = evaluate(&public, &method, &path, body.as_ref());
        answer.expect_problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{method} {path}");
        refused += 1;
    }
    assert!(refused > 15, "{refused}");
    evaluate(&public, "GET", "/v1/keys", None).expect_problem(401, "unauthenticated");
    assert_eq!(app.counts(), before);
}

fn a_key_that_is_given_must_be_right(app: &TestApp) {
    let public = public(app);
    let get = |key: &str| public.call("GET", "/v1/status", key, None, &[]);
    get("nonsense").expect_problem(401, "invalid_key");
    get("prop_AdminAdminAdminAdminAdminAdmin0wAoj8").expect_problem(401, "invalid_key");
    let deployer = public.key("deployer", &["deploy"]);
    get(&deployer).expect_problem(403, "missing_scope");
    get(ADMIN).expect(200);
    let basic = public
        .request("GET", "/v1/status")
        .header("Authorization", "Basic YTpi")
        .body(Vec::new())
        .unwrap();
    public.send(basic).expect_problem(401, "invalid_key");
}

fn events_about_keys_are_for_admins(app: &TestApp) {
    app.go_live("checkout", "staging", "1");
    let made = app.post("/v1/keys", json!({"name": "mirror", "scopes": ["mirror"]})).expect(201);
    let id = made["id"].as_str().unwrap();
    let all = ["read", "deploy", "attest", "approve", "mirror", "operate", "override"];
    let reader = app.key("reader", &all);
    app.delete(&format!("/v1/keys/{id}")).expect(200);
    let public = public(app);
    let anonymous = |path: &str| evaluate(&public, "GET", path, None);
    let read = |path: &str| public.call("GET", path, &reader, None, &[]);
    anonymous("/v1/events?entity=key").expect_problem(401, "unauthenticated");
    read("/v1/events?entity=key").expect_problem(403, "missing_scope");
    let others = app.all("/v1/events").into_iter().filter(|event| event["entity"] != "key");
    let others = Value::Array(others.collect());
    assert!(others.as_array().unwrap().len() > 4, "{others}");
    let of_key =
        [format!("entity_id={id}"), "action=key.created".into(), "action=key.revoked".into()];
    for get in [&anonymous as &dyn Fn(&str) -> Answer, &read] {
        assert_eq!(get("/v1/events?limit=100").expect(200)["items"], others);
        // A walk in small steps neither shows them nor ends at them.
        let (mut walked, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get(&format!("/v1/events?limit=1{cursor}")).expect(200);
            walked.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(Value::Array(walked), others);
        for filter in &of_key {
            let found = get(&format!("/v1/events?{filter}")).expect(200);
            assert_eq!(found["items"], json!([]), "{filter}");
            assert!(!app.all(&format!("/v1/events?{filter}")).is_empty(), "{filter}");
        }
    }
    let of_admin = app.all("/v1/events?entity=key");
    assert_eq!(of_admin.len(), 4, "two keys, the bootstrap key, and the revocation: {of_admin:?}");
}
