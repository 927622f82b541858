//! What a newcomer gets wrong, and the sentence that helps.

use crate::harness::{ADMIN, Answer, TestApp, digest, new_deployment, with};
use prop::types::token::Token;
use serde_json::{Value, json};

crate::on_both_databases! {
    a_key_without_bearer_is_told_from_a_wrong_key
    an_unknown_name_is_answered_with_those_that_exist
    at_most_ten_names_are_listed
    an_empty_body_is_called_empty
    an_unknown_field_or_parameter_is_answered_with_the_one_that_was_meant
    only_states_that_a_client_may_send_are_listed
    the_end_of_a_deployment_is_final_and_says_so
    a_verdict_may_be_a_verb
    a_release_conflict_names_both_values
    a_created_key_comes_before_its_prefix
    a_malformed_slug_is_answered_with_a_correct_one
    every_json_answer_ends_in_a_newline
}

#[track_caller]
fn detail(answer: &Answer, status: u16, code: &str) -> String {
    answer.expect_problem(status, code)["detail"].as_str().unwrap().to_owned()
}

fn a_key_without_bearer_is_told_from_a_wrong_key(app: &TestApp) {
    let with_header = |header: &str| {
        let request = app.request("GET", "/v1/status").header("Authorization", header);
        let answer = app.send(request.body(Vec::new()).unwrap());
        assert!(!answer.text.contains(ADMIN), "{}", answer.text);
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        detail(&answer, 401, "invalid_key")
    };
    let form = "The header must be `Authorization: Bearer prop_...`.";
    assert_eq!(with_header(ADMIN), format!("{form} `Bearer` is missing."));
    assert_eq!(with_header("Basic dXNlcjpwYXNz"), form);
    assert_eq!(with_header("Bearer"), "There is no key after `Bearer`.");
    assert!(with_header("Bearer $PROP_KEY").starts_with("This is not a key"));
    let unknown = Token::generate().unwrap();
    assert!(with_header(&format!("Bearer {}", unknown.reveal())).starts_with("Unknown key."));
}

fn an_unknown_name_is_answered_with_those_that_exist(app: &TestApp) {
    for environment in ["production", "staging", "testing"] {
        app.deploy("checkout", environment, "1", false);
    }
    let body = json!({"service": "checkout", "environment": "prod", "version": "1"});
    let answer = app.post("/v1/deployments", body);
    let create = "To create it with this request, set `create_missing` to true.";
    assert_eq!(
        detail(&answer, 404, "not_found"),
        format!(
            "Unknown environment `prod`. Did you mean `production`? \
             Existing: production, staging, testing. {create}"
        )
    );
    let body = json!({"service": "chekcout", "environment": "staging", "version": "1"});
    let answer = app.post("/v1/deployments", body);
    let service = "Unknown service `chekcout`. Did you mean `checkout`? Existing: checkout.";
    assert_eq!(detail(&answer, 404, "not_found"), format!("{service} {create}"));
    // What can't be created by the request does not mention it.
    for path in [
        "/v1/services/chekcout",
        "/v1/gate?service=chekcout&environment=staging&version=1",
        "/v1/services/chekcout/environments/staging",
        "/v1/metrics/dora?service=chekcout",
    ] {
        assert_eq!(detail(&app.get(path), 404, "not_found"), service, "{path}");
    }
    let environment = "Unknown environment `stagng`. Did you mean `staging`? Existing: ";
    for path in [
        "/v1/environments/stagng",
        "/v1/gate?service=checkout&environment=stagng&version=1",
        "/v1/metrics/dora?environment=stagng",
    ] {
        let detail = detail(&app.get(path), 404, "not_found");
        assert!(detail.starts_with(environment) && !detail.contains("create"), "{path}: {detail}");
    }
}

fn at_most_ten_names_are_listed(app: &TestApp) {
    let none = app.get("/v1/services/none");
    assert_eq!(detail(&none, 404, "not_found"), "Unknown service `none`.");
    for number in 10..21 {
        app.post("/v1/services", json!({"slug": format!("service-{number}")})).expect(201);
    }
    let detail = detail(&app.get("/v1/services/none"), 404, "not_found");
    assert!(detail.ends_with("service-18, service-19, and more."), "{detail}");
    assert_eq!(detail.matches("service-").count(), 10, "{detail}");
}

fn an_empty_body_is_called_empty(app: &TestApp) {
    let send = |body: &str| {
        let request = app
            .request("POST", "/v1/services")
            .header("Authorization", format!("Bearer {ADMIN}"))
            .header("Content-Type", "application/json");
        app.send(request.body(body.as_bytes().to_vec()).unwrap())
    };
    for body in ["", " ", "\n"] {
        assert_eq!(detail(&send(body), 400, "malformed_json"), "The body is empty.");
    }
    let broken = detail(&send("{\"slug\": oops}"), 400, "malformed_json");
    assert!(
        broken.starts_with("The body is not valid JSON: expected value at line 1 "),
        "{broken}"
    );
}

fn an_unknown_field_or_parameter_is_answered_with_the_one_that_was_meant(app: &TestApp) {
    let body = with(new_deployment("checkout", "staging", "1"), json!({"env": "staging"}));
    let field = detail(&app.post("/v1/deployments", body), 422, "unknown_field");
    let meant = "/env: unknown field. Did you mean `environment`? Allowed: service, environment, ";
    assert!(field.starts_with(meant), "{field}");
    let parameter = detail(&app.get("/v1/deployments?env=staging"), 400, "invalid_query");
    assert!(parameter.contains("Did you mean `environment`? Allowed: "), "{parameter}");
    let body = with(new_deployment("checkout", "staging", "1"), json!({"colour": "red"}));
    let stranger = detail(&app.post("/v1/deployments", body), 422, "unknown_field");
    assert!(stranger.starts_with("/colour: unknown field. Allowed: "), "{stranger}");
}

fn only_states_that_a_client_may_send_are_listed(app: &TestApp) {
    let deployment = app.deploy("checkout", "staging", "1", true);
    let four = "must be one of running, succeeded, failed, cancelled; \"success\" is not";
    let moved = app.transition(&deployment, "success");
    assert_eq!(detail(&moved, 422, "invalid_value"), format!("/to: {four}"));
    let body = with(new_deployment("checkout", "staging", "1"), json!({"state": "success"}));
    let sent = app.post("/v1/deployments", body);
    assert_eq!(detail(&sent, 422, "invalid_value"), format!("/state: {four}"));
}

fn the_end_of_a_deployment_is_final_and_says_so(app: &TestApp) {
    let succeeded = app.go_live("checkout", "staging", "1");
    assert_eq!(
        detail(&app.transition(&succeeded, "failed"), 409, "invalid_transition"),
        "The deployment has already succeeded and can't change any more. To undo it, record a \
            rollback."
    );
    let failed = app.deploy("checkout", "staging", "2", true);
    app.transition(&failed, "failed").expect(200);
    assert_eq!(
        detail(&app.transition(&failed, "succeeded"), 409, "invalid_transition"),
        "The deployment has already failed and can't change any more. To try again, record a new \
            deployment."
    );
    let approved = app.deploy("checkout", "staging", "3", false);
    assert_eq!(
        detail(&app.transition(&approved, "succeeded"), 409, "invalid_transition"),
        "The deployment is approved. From there it can go to: running, cancelled."
    );
}

fn a_verdict_may_be_a_verb(app: &TestApp) {
    app.deploy("checkout", "staging", "1", false);
    let carol = app.key("carol", &["approve"]);
    let post_review = |decision: &str| {
        let body = json!({"service": "checkout", "environment": "staging", "version": "1",
            "decision": decision});
        app.call("POST", "/v1/approvals", &carol, Some(&body), &[])
    };
    assert_eq!(post_review("approve").expect(201)["decision"], "approved");
    assert_eq!(post_review("reject").expect(201)["decision"], "rejected");
    assert_eq!(
        detail(&post_review("yes"), 422, "invalid_value"),
        "/decision: must be one of approved, rejected; \"yes\" is not"
    );
}

fn a_release_conflict_names_both_values(app: &TestApp) {
    let release = |digest: String| {
        json!({"service": "checkout", "version": "1",
            "image_digest": digest, "create_missing": true})
    };
    app.post("/v1/releases", release(digest(1))).expect(201);
    let (known, new) = (digest(1), digest(2));
    let conflict = detail(&app.post("/v1/releases", release(digest(2))), 409, "release_conflict");
    assert_eq!(
        conflict,
        format!("/image_digest: version 1 of checkout is recorded with {known}, not {new}")
    );
    let commits = |sha: String| {
        let commit = json!({"sha": sha, "committed_at": "2026-02-03T04:05:06Z"});
        with(release(digest(1)), json!({"commits": [commit]}))
    };
    app.post("/v1/releases", commits("a".repeat(40))).expect(200);
    let answer = app.post("/v1/releases", commits("b".repeat(40)));
    assert_eq!(
        detail(&answer, 409, "release_conflict"),
        "/commits: version 1 of checkout is recorded with other commits"
    );
}

fn a_created_key_comes_before_its_prefix(app: &TestApp) {
    let body = json!({"name": "pipeline", "scopes": ["read"]});
    let answer = app.post("/v1/keys", body);
    let key = answer.expect(201)["key"].as_str().unwrap().to_owned();
    let at = answer.text.find("prop_").unwrap();
    assert!(answer.text[at..].starts_with(&key), "{}", answer.text);
    assert!(key.starts_with(answer.json()["prefix"].as_str().unwrap()));
}

fn a_malformed_slug_is_answered_with_a_correct_one(app: &TestApp) {
    let send = |slug: &str| {
        let answer = app.post("/v1/services", json!({"slug": slug}));
        detail(&answer, 422, "invalid_slug")
    };
    for (slug, correct) in
        [("My Service", "my-service"), ("a_b", "a-b"), ("/checkout/", "checkout")]
    {
        let detail = send(slug);
        assert!(detail.ends_with(&format!("; try `{correct}`")), "{detail}");
        app.post("/v1/services", json!({"slug": correct})).expect(201);
    }
    assert!(!send("").contains("try") && !send("ü").contains("try"));
}

fn every_json_answer_ends_in_a_newline(app: &TestApp) {
    let body = new_deployment("checkout", "staging", "1");
    let headers = [("Idempotency-Key", "once")];
    let created = app.call("POST", "/v1/deployments", ADMIN, Some(&body), &headers);
    let replayed = app.call("POST", "/v1/deployments", ADMIN, Some(&body), &headers);
    assert_eq!(replayed.header("idempotent-replayed"), "true");
    assert_eq!(created.text, replayed.text);
    let id = created.expect(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/deployments/{id}");
    let unauthenticated = app.send(app.request("GET", "/v1/status").body(Vec::new()).unwrap());
    let answers = [
        created,
        replayed,
        app.get(&path),
        app.get("/v1/deployments"),
        app.get("/v1/status"),
        app.get("/v1/nowhere"),
        app.get("/nowhere"),
        app.post("/livez", Value::Null),
        app.get("/readyz"),
        app.get("/version"),
        app.get("/openapi.json"),
        unauthenticated,
    ];
    for answer in answers {
        assert!(answer.text.ends_with("}\n") && !answer.text.ends_with("\n\n"), "{answer:?}");
        answer.json();
        let length = answer.header("content-length");
        assert!(length.is_empty() || length == answer.text.len().to_string(), "{answer:?}");
    }
    // Compressed, too; and the tag still stands for the answer.
    let status = app.get("/v1/status");
    let again =
        app.call("GET", "/v1/status", ADMIN, None, &[("If-None-Match", status.header("etag"))]);
    assert_eq!((again.status, again.text.as_str()), (304, ""));
}
