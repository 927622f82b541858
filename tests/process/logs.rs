//! What is logged, as a collector of logs sees it.

use crate::harness::ADMIN;
use crate::process::{serve, sqlite_in};
use serde_json::{Value, json};

#[test]
fn each_request_is_one_line_of_json_without_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = serve(&sqlite_in(&directory), &[("PROP_LOG__FORMAT", "json")]);
    let keys = app.get("/v1/keys").expect(200);
    let admin = keys["items"][0]["id"].as_str().unwrap().to_owned();
    let reader = app.key("reader", &["read"]);
    let deployment = app.go_live("checkout", "staging", "1.0.0");
    let id = deployment["id"].as_str().unwrap();
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traceparent = format!("00-{trace}-{parent}-01");
    let headers = [("traceparent", traceparent.as_str()), ("X-Request-Id", "from-the-client-1")];
    app.call("GET", &format!("/v1/deployments/{id}"), &reader, None, &headers).expect(200);
    let refused = app.call("GET", "/v1/deployments", &format!("{reader}x"), None, &[]);
    refused.expect_problem(401, "invalid_key");
    let body = json!({"slug": "checkout", "name": "a text from the client", "color": "blue"});
    app.call("POST", "/v1/services", ADMIN, Some(&body), &[]).expect(422);
    app.get("/nowhere?key=in-the-query").expect(404);
    app.get("/livez").expect(200);
    process.terminate();
    let ended = process.end();

    let lines: Vec<Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        let at = line["at"].as_str().unwrap();
        assert!(at.parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(
            ["ERROR", "WARN", "INFO"].contains(&line["level"].as_str().unwrap())
                && line["target"].is_string(),
            "{line}"
        );
    }
    let access: Vec<_> = lines.iter().filter(|line| line["target"] == "access").collect();
    assert_eq!(access.len(), 9, "one line for each request: {}", ended.stderr);
    for line in &access {
        assert!(
            line["method"].is_string()
                && line["route"].is_string()
                && line["request_id"].is_string(),
            "{line}"
        );
        assert!(
            line["status"].is_u64() && line["ms"].is_f64() && line.get("key_id").is_some(),
            "{line}"
        );
    }
    let of = |route: &str, status: u16| {
        let found = access.iter().find(|line| line["route"] == route && line["status"] == status);
        *found.unwrap_or_else(|| panic!("{route} {status}: {}", ended.stderr))
    };
    let show = of("/v1/deployments/{id}", 200);
    assert_eq!(
        (&show["method"], &show["request_id"], &show["trace_id"]),
        (&json!("GET"), &json!("from-the-client-1"), &json!(trace))
    );
    assert!(show["key_id"].is_string() && show["key_id"] != admin.as_str(), "{show}");
    assert_eq!(of("/v1/deployments", 201)["key_id"], admin.as_str());
    let unauthenticated = of("/v1/deployments", 401);
    assert_eq!(
        (&unauthenticated["key_id"], &unauthenticated["request_id"]),
        (&Value::Null, &json!(refused.header("x-request-id")))
    );
    of("/v1/services", 422);
    of("unmatched", 404);
    assert_eq!(of("/livez", 200)["key_id"], Value::Null);

    let outcomes: Vec<_> = lines.iter().filter(|line| line["target"] == "deployment").collect();
    let [outcome] = outcomes[..] else {
        panic!("one line for the deployment that ended: {}", ended.stderr)
    };
    assert_eq!(
        (&outcome["id"], &outcome["state"], &outcome["version"]),
        (&json!(id), &json!("succeeded"), &json!("1.0.0"))
    );

    // `end` has checked the bootstrap key; and nothing of what clients sent is logged either.
    for secret in [&reader, "in-the-query", "a text from the client", "Bearer"] {
        assert!(
            !ended.stderr.contains(secret) && !ended.stdout.contains(secret),
            "{secret}: {}",
            ended.stderr
        );
    }
}
