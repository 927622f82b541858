//! `Idempotency-Key`: a POST that is sent again is answered again, not done again.

use crate::harness::{ADMIN, Answer, TestApp, brief, count, image, together, with};
use diesel::RunQueryDsl;
use serde_json::{Value, json};

crate::on_both_databases! {
    the_same_request_again_is_answered_again_and_done_once
    every_post_of_a_resource_honours_its_key
    a_quoted_and_a_bare_key_are_the_same
    a_key_stands_for_one_path_and_body
    a_malformed_key_is_refused
    callers_have_keys_of_their_own
    an_error_is_not_kept
    an_expired_key_may_be_used_again
    expired_answers_are_deleted_at_the_start
    of_many_at_once_one_is_done
    a_made_key_is_never_kept
}

/// POSTs with an idempotency key.
#[track_caller]
fn post(app: &TestApp, path: &str, key: &str, body: &Value) -> Answer {
    app.call("POST", path, ADMIN, Some(body), &[("Idempotency-Key", key)])
}

fn deployment() -> Value {
    json!({"service": "checkout", "environment": "staging", "version": "1", "create_missing": true})
}

/// Checks that `again` is the answer `first`, and says that it is given again.
#[track_caller]
fn assert_replayed(first: &Answer, again: &Answer) {
    assert_eq!(first.header("idempotent-replayed"), "");
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for header in ["location", "etag", "content-type"] {
        assert_eq!(again.header(header), first.header(header), "{header}");
    }
}

fn the_same_request_again_is_answered_again_and_done_once(app: &TestApp) {
    let first = post(app, "/v1/deployments", "k", &deployment());
    let made = first.expect(201);
    let before = app.counts();
    // What has become of it since does not matter to the answer.
    app.transition(&made, "cancelled").expect(200);
    assert_replayed(&first, &post(app, "/v1/deployments", "k", &deployment()));
    assert_replayed(&first, &post(app, "/v1/deployments", "k", &deployment()));
    assert_eq!(
        app.counts().iter().find(|(table, _)| *table == "deployments"),
        Some(&("deployments", 1))
    );
    let changed: Vec<_> = app
        .counts()
        .into_iter()
        .zip(before)
        .filter(|(now, then)| now != then)
        .map(|(now, _)| now.0)
        .collect();
    assert_eq!(changed, ["events"], "the cancellation, and nothing else");
}

fn every_post_of_a_resource_honours_its_key(app: &TestApp) {
    let made = app.deploy("billing", "staging", "1", false);
    let transitions = format!("/v1/deployments/{}/transitions", made["id"].as_str().unwrap());
    let bogus = app.go_live("billing", "testing", "1");
    let void = format!("/v1/deployments/{}/void", bogus["id"].as_str().unwrap());
    // It holds later, so that nothing else here waits for it.
    let freeze = app
        .post("/v1/freezes", json!({"reason": "Quarter end", "starts_at": "2999-01-01T00:00:00Z"}))
        .expect(201);
    let overrides = format!("/v1/freezes/{}/overrides", freeze["id"].as_str().unwrap());
    let place = json!({"service": "billing", "environment": "staging"});
    let posts = [
        ("/v1/services", json!({"slug": "checkout"})),
        ("/v1/environments", json!({"slug": "production", "tier": "production"})),
        (
            "/v1/releases",
            json!({"service": "checkout", "version": "1", "image_digest": image("1")}),
        ),
        (
            "/v1/deployments",
            json!({"service": "checkout", "environment": "production", "version": "1"}),
        ),
        (&transitions, json!({"to": "running"})),
        (&void, json!({"reason": "It deployed nothing."})),
        ("/v1/approvals", with(place.clone(), json!({"version": "1", "decision": "approved"}))),
        ("/v1/freezes", json!({"reason": "Quarter end", "starts_at": "2999-01-01T00:00:00Z"})),
        (
            &overrides,
            with(place.clone(), json!({"version": "1", "reason": "Card payments are down."})),
        ),
        (
            "/v1/incidents",
            with(place, json!({"title": "Card payments are down", "severity": "critical"})),
        ),
    ];
    let document: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    let documented = document["paths"].as_object().unwrap().values().filter(|item| {
        let named = |parameter: &Value| parameter["name"] == "Idempotency-Key";
        item["post"]["parameters"].as_array().is_some_and(|parameters| parameters.iter().any(named))
    });
    assert_eq!(documented.count(), posts.len());
    for (path, body) in posts {
        let first = post(app, path, path, &body);
        assert!([200, 201].contains(&first.status), "{path}: {first:?}");
        let before = app.counts();
        assert_replayed(&first, &post(app, path, path, &body));
        assert_eq!(app.counts(), before, "{path}");
    }
}

fn a_quoted_and_a_bare_key_are_the_same(app: &TestApp) {
    let first =
        post(app, "/v1/deployments", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", &deployment());
    first.expect(201);
    assert_replayed(
        &first,
        &post(app, "/v1/deployments", "8e03978e-40d5-43dd-bc93-6894a57f9324", &deployment()),
    );
    // The case of a key matters.
    post(app, "/v1/deployments", "8E03978E-40D5-43DD-BC93-6894A57F9324", &deployment()).expect(201);
    assert_eq!(app.all("/v1/deployments").len(), 2);
}

fn a_key_stands_for_one_path_and_body(app: &TestApp) {
    let made = post(app, "/v1/services", "k", &json!({"slug": "checkout"}));
    made.expect(201);
    let before = app.counts();
    post(app, "/v1/services", "k", &json!({"slug": "billing"}))
        .expect_problem(422, "idempotency_key_reused");
    post(app, "/v1/environments", "k", &json!({"slug": "checkout"}))
        .expect_problem(422, "missing_field");
    post(app, "/v1/environments", "k", &json!({"slug": "checkout", "tier": "staging"}))
        .expect_problem(422, "idempotency_key_reused");
    let (a, b) = (app.deploy("a", "staging", "1", false), app.deploy("b", "staging", "1", false));
    let transitions = |deployment: &Value| {
        format!("/v1/deployments/{}/transitions", deployment["id"].as_str().unwrap())
    };
    post(app, &transitions(&a), "move", &json!({"to": "running"})).expect(200);
    post(app, &transitions(&b), "move", &json!({"to": "running"}))
        .expect_problem(422, "idempotency_key_reused");
    assert_eq!(app.get(&format!("/v1/deployments/{}", b["id"].as_str().unwrap())).expect(200), b);
    assert_eq!(
        app.counts()[1].1,
        before[1].1 + 2,
        "only the two services that were asked for without a key"
    );
    assert_replayed(&made, &post(app, "/v1/services", "k", &json!({"slug": "checkout"})));
}

fn a_malformed_key_is_refused(app: &TestApp) {
    let before = app.counts();
    let long = "x".repeat(256);
    for key in [
        "",
        " ",
        "\"\"",
        "a b",
        "a\tb",
        "\"a\"b\"",
        "\"",
        "é",
        long.as_str(),
        &format!("\"{long}\""),
    ] {
        post(app, "/v1/deployments", key, &deployment())
            .expect_problem(400, "invalid_idempotency_key");
    }
    assert_eq!(app.counts(), before);
    post(app, "/v1/deployments", &long[1..], &deployment()).expect(201);
    post(app, "/v1/deployments", "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", &deployment()).expect(201);
}

fn callers_have_keys_of_their_own(app: &TestApp) {
    let callers = [app.key("one", &["deploy"]), app.key("two", &["deploy"])];
    let answers = callers.map(|key| {
        app.call("POST", "/v1/deployments", &key, Some(&deployment()), &[("Idempotency-Key", "k")])
    });
    let made = answers.map(|answer| answer.expect(201));
    assert_ne!(made[0]["id"], made[1]["id"]);
    assert_eq!(
        (&made[0]["requested_by"], &made[1]["requested_by"]),
        (&json!("one"), &json!("two"))
    );
}

fn an_error_is_not_kept(app: &TestApp) {
    let body =
        json!({"service": "checkout", "environment": "staging", "version": "1", "start": true});
    post(app, "/v1/deployments", "k", &body).expect_problem(404, "not_found");
    app.post(
        "/v1/releases",
        json!({"service": "checkout", "version": "1", "create_missing": true}),
    )
    .expect(201);
    app.post("/v1/environments", json!({"slug": "staging", "tier": "staging"})).expect(201);
    let running = app.deploy("checkout", "staging", "0", true);
    post(app, "/v1/deployments", "k", &body).expect_problem(409, "gate_blocked");
    app.transition(&running, "succeeded").expect(200);
    let done = post(app, "/v1/deployments", "k", &body);
    done.expect(201);
    assert_replayed(&done, &post(app, "/v1/deployments", "k", &body));
}

/// Makes every kept answer as old as if it had been given a day and a minute ago.
fn age(app: &TestApp) {
    let aged =
        diesel::sql_query("UPDATE idempotency_keys SET expires_at = '2026-01-01T00:00:00.000000Z'")
            .execute(&mut app.db())
            .unwrap();
    assert!(aged > 0);
}

fn an_expired_key_may_be_used_again(app: &TestApp) {
    let first = post(app, "/v1/deployments", "k", &deployment()).expect(201);
    age(app);
    let again = post(app, "/v1/deployments", "k", &deployment());
    assert_ne!(again.expect(201)["id"], first["id"]);
    assert_replayed(&again, &post(app, "/v1/deployments", "k", &deployment()));
    age(app);
    post(app, "/v1/services", "k", &json!({"slug": "billing"})).expect(201);
    assert_eq!(count(&mut app.db(), "idempotency_keys"), 1);
}

fn expired_answers_are_deleted_at_the_start(app: &TestApp) {
    post(app, "/v1/deployments", "old", &deployment()).expect(201);
    age(app);
    post(app, "/v1/deployments", "new", &deployment()).expect(201);
    TestApp::start(&app.database_url, &[]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while count(&mut app.db(), "idempotency_keys") != 1 {
        assert!(std::time::Instant::now() < deadline, "the expired answer is still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(
        post(app, "/v1/deployments", "new", &deployment()).header("idempotent-replayed"),
        "true"
    );
}

fn of_many_at_once_one_is_done(app: &TestApp) {
    let answers = together(20, |_| post(app, "/v1/deployments", "k", &deployment()));
    let deployments = app.all("/v1/deployments");
    assert_eq!(deployments.len(), 1);
    let mut originals = 0;
    for answer in answers {
        if answer.status == 409 {
            answer.expect_problem(409, "idempotency_in_progress");
        } else {
            assert_eq!(answer.expect(201)["id"], deployments[0]["id"]);
            originals += usize::from(answer.header("idempotent-replayed").is_empty());
        }
    }
    assert_eq!(originals, 1);
    // Asked again, each would get its answer.
    assert_eq!(
        brief(&post(app, "/v1/deployments", "k", &deployment()).expect(201)),
        deployments[0]
    );
}

fn a_made_key_is_never_kept(app: &TestApp) {
    let body = |name: &str| json!({"name": name, "scopes": ["read"]});
    let made = ["one", "two"].map(|name| post(app, "/v1/keys", "k", &body(name)));
    let secrets = made.map(|answer| answer.expect(201)["key"].as_str().unwrap().to_owned());
    assert_ne!(secrets[0], secrets[1], "documented: the header has no effect here");
    // The answer with the secret is not repeated; the name shows that the key exists.
    post(app, "/v1/keys", "k", &body("one")).expect_problem(409, "already_exists");
    let mut db = app.db();
    assert_eq!(count(&mut db, "idempotency_keys"), 0);
    for secret in &secrets {
        for (table, column) in [
            ("idempotency_keys", "body"),
            ("events", "payload"),
            ("keys", "hash"),
            ("keys", "prefix"),
            ("keys", "name"),
        ] {
            let rows = format!("{table} WHERE CAST({column} AS text) LIKE '%{}%'", &secret[10..]);
            assert_eq!(count(&mut db, &rows), 0, "{table}.{column}");
        }
    }
}
