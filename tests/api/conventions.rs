//! What holds for every path: problems, methods, conditional requests, pages, compression, headers,
//! health.

use crate::harness::{ADMIN, Answer, TestApp, with};
use diesel::RunQueryDsl;
use serde_json::{Value, json};
use std::collections::BTreeSet;

crate::on_both_databases! {
    an_unknown_path_is_not_found
    the_metrics_are_at_their_plain_path_only
    a_path_has_the_methods_of_the_document
    head_is_get_without_a_body
    a_resource_that_is_known_is_not_sent_again
    a_change_may_ask_for_what_was_read
    of_concurrent_changes_to_the_same_revision_one_is_made
    every_list_is_paged
    pages_keep_their_order_when_rows_share_a_time
    a_page_stands_still_when_rows_are_added
    large_answers_are_compressed_when_asked
    every_answer_has_the_security_headers
    a_request_has_an_id
    cors_is_off_until_origins_are_set
    the_process_tells_how_it_is
    metrics_count_requests_by_route
    the_documentation_is_served
}

const UNKNOWN: &str = "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42";

fn an_unknown_path_is_not_found(app: &TestApp) {
    for path in [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v2/services",
        "/v1/services/",
        "/v1/services/a/b",
        "/docs/nothing.js",
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            let answer = app.call(method, path, ADMIN, None, &[]);
            let is_page = path.starts_with("/docs/");
            if is_page && method != "GET" {
                continue;
            }
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
            answer.expect_problem(404, "not_found");
        }
    }
    // Below /v1 a caller learns nothing without a key, not even what there is.
    let request = app.request("GET", "/v1/nothing").body(Vec::new()).unwrap();
    app.send(request).expect_problem(401, "unauthenticated");
}

/// Every path of the document, with the methods that it has.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let document: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .map(|(path, item)| {
            (path.clone(), item.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect())
        })
        .collect()
}

fn a_path_has_the_methods_of_the_document(app: &TestApp) {
    let paths = documented();
    assert!(paths.len() > 15, "{paths:?}");
    for (path, methods) in paths {
        let path = path
            .split('/')
            .map(|part| if part.starts_with('{') { UNKNOWN } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let mut allowed = methods.clone();
        if methods.contains("GET") {
            allowed.insert("HEAD".into());
        }
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = app.call(method, &path, ADMIN, None, &[]);
            if allowed.contains(method) {
                assert_ne!(answer.status, 405, "{method} {path}");
                continue;
            }
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text);
            let listed: BTreeSet<String> =
                answer.header("allow").split(", ").map(str::to_owned).collect();
            assert_eq!(listed, allowed, "{method} {path}");
            if method != "HEAD" {
                answer.expect_problem(405, "method_not_allowed");
            }
        }
    }
    // A letter may be encoded: the path is the same (RFC 3986, section 6.2.2.2).
    let answer = app.call("PUT", "/v1/deploy%6Dents", ADMIN, None, &[]);
    answer.expect_problem(405, "method_not_allowed");
}

/// The path of every resource that has a tag of its own, in a ledger that has one of each.
fn tagged(app: &TestApp) -> Vec<String> {
    let deployment = app.go_live("checkout", "staging", "1");
    let id = |field: &str| deployment[field].as_str().unwrap();
    let (freeze, incident) = troubles(app, "checkout", "staging");
    vec![
        "/v1/services/checkout".into(),
        "/v1/environments/staging".into(),
        format!("/v1/releases/{}", id("release_id")),
        format!("/v1/deployments/{}", id("id")),
        freeze,
        incident,
        "/v1/services/checkout/environments/staging".into(),
        "/v1/status".into(),
    ]
}

/// The paths of a freeze that begins later and an incident that is over: they keep nothing back.
fn troubles(app: &TestApp, service: &str, environment: &str) -> (String, String) {
    let place = json!({"service": service, "environment": environment});
    let freeze = json!({"reason": "Quarter end", "starts_at": "2999-01-01T00:00:00Z"});
    let freeze = app.post("/v1/freezes", with(place.clone(), freeze)).header("location").to_owned();
    let incident = app
        .post("/v1/incidents", with(place, json!({"title": "Cards fail", "severity": "minor"})))
        .header("location")
        .to_owned();
    app.patch(&incident, json!({"resolved": true}), &[]).expect(200);
    (freeze, incident)
}

fn head_is_get_without_a_body(app: &TestApp) {
    let mut paths = tagged(app);
    paths.extend(
        [
            "/v1/services?limit=1",
            "/livez",
            "/version",
            "/openapi.json",
            "/v1/nothing",
            "/v1/services?limit=0",
        ]
        .map(str::to_owned),
    );
    for path in paths {
        let (get, head) = (app.get(&path), app.call("HEAD", &path, ADMIN, None, &[]));
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        for header in ["content-type", "content-length", "etag", "link", "cache-control"] {
            assert_eq!(head.header(header), get.header(header), "{path}: {header}");
        }
        assert_eq!(head.header("content-length"), get.text.len().to_string(), "{path}");
    }
}

fn a_resource_that_is_known_is_not_sent_again(app: &TestApp) {
    for path in tagged(app) {
        let get = |known: &str| app.call("GET", &path, ADMIN, None, &[("If-None-Match", known)]);
        let answer = app.get(&path);
        answer.expect(200);
        let tag = answer.header("etag").to_owned();
        assert!(tag.ends_with('"'), "{path}: {tag}");
        let weak = format!("W/{}", tag.trim_start_matches("W/"));
        for known in [&tag, &weak, &format!("\"other\", {tag}"), "*"] {
            let answer = get(known);
            assert_eq!(
                (answer.status, answer.text.as_str(), answer.header("etag")),
                (304, "", tag.as_str()),
                "{path}: {known}"
            );
        }
        for other in ["\"other\"", "W/\"0\"", "other", "\"\""] {
            assert_eq!(get(other).status, 200, "{path}: {other}");
        }
    }
    // A change of any of them shows in the tags of what they are part of.
    let grid = app.get("/v1/status").header("etag").to_owned();
    let place = app.get("/v1/services/checkout/environments/staging").header("etag").to_owned();
    app.deploy("checkout", "staging", "2", false);
    assert_ne!(app.get("/v1/status").header("etag"), grid);
    assert_ne!(app.get("/v1/services/checkout/environments/staging").header("etag"), place);
}

/// The path of everything that can be changed, with a text that it has.
fn changeable(app: &TestApp) -> Vec<(String, &'static str)> {
    app.deploy("checkout", "staging", "1", false);
    let (freeze, incident) = troubles(app, "checkout", "staging");
    vec![
        ("/v1/services/checkout".into(), "name"),
        ("/v1/environments/staging".into(), "name"),
        (freeze, "reason"),
        (incident, "title"),
    ]
}

fn a_change_may_ask_for_what_was_read(app: &TestApp) {
    for (path, field) in changeable(app) {
        let others = path.rsplit_once('/').unwrap().0;
        let revision = app.get(&path).expect(200)["revision"].as_i64().unwrap();
        let patch =
            |name: &str, headers: &[(&str, &str)]| app.patch(&path, json!({field: name}), headers);
        let read = app.get(&path).header("etag").to_owned();
        let changed = patch("First", &[("If-Match", &read)]);
        assert_eq!(changed.expect(200)[field], "First");
        assert_ne!(changed.header("etag"), read);
        assert_eq!(app.get(&path).header("etag"), changed.header("etag"));
        let now = changed.header("etag").to_owned();
        let before = (app.get(others).text, app.counts());
        for stale in [&read, &format!("W/{now}"), "\"\"", "\"x\", \"y\""] {
            patch("Lost", &[("If-Match", stale)]).expect_problem(412, "precondition_failed");
        }
        for malformed in ["x", "1", "W/", "\"a", ""] {
            let answer = patch("Lost", &[("If-Match", malformed)]);
            assert_eq!(
                (app.get(others).text, app.counts()),
                before,
                "{malformed}: {}",
                answer.text
            );
            assert!([400, 412].contains(&answer.status), "{malformed}: {}", answer.text);
        }
        assert_eq!((app.get(others).text, app.counts()), before);
        assert_eq!(
            patch("Second", &[("If-Match", &format!("\"x\", {now}"))]).expect(200)[field],
            "Second"
        );
        assert_eq!(patch("Third", &[("If-Match", "*")]).expect(200)[field], "Third");
        assert_eq!(patch("Fourth", &[]).expect(200)["revision"], revision + 4);
    }
    app.patch("/v1/services/unknown", json!({"name": "A"}), &[("If-Match", "*")])
        .expect_problem(404, "not_found");
    let documented =
        documented().into_iter().filter(|(_, methods)| methods.contains("PATCH")).count();
    assert_eq!(changeable(app).len(), documented, "each path that has PATCH");
}

fn of_concurrent_changes_to_the_same_revision_one_is_made(app: &TestApp) {
    for (path, field) in changeable(app) {
        let read = app.get(&path).header("etag").to_owned();
        let answers = crate::harness::together(8, |i| {
            app.patch(&path, json!({field: format!("Name {i}")}), &[("If-Match", &read)])
        });
        let (changed, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!(changed.len(), 1, "{path}");
        refused.iter().for_each(|answer| drop(answer.expect_problem(412, "precondition_failed")));
        assert_eq!(app.get(&path).expect(200), changed[0].json());
    }
}

/// Whether a path of the document has pages.
fn is_list(path: &str) -> bool {
    let document: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    let parameters =
        document["paths"][path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
    !path.contains('{') && parameters.iter().any(|parameter| parameter["name"] == "cursor")
}

/// Five of everything, and the path of each list.
fn lists(app: &TestApp) -> Vec<String> {
    let mut moved = Value::Null;
    for n in 0..5 {
        moved = app.go_live(&format!("service-{n}"), &format!("environment-{n}"), "1");
        app.key(&format!("key-{n}"), &["read"]);
    }
    app.go_live("service-4", "environment-4", "2");
    for n in 0..5 {
        crate::webhooks::deliver(app, "ping", &json!({}));
        let (service, environment) = (format!("service-{n}"), format!("environment-{n}"));
        troubles(app, &service, &environment);
        let approval = json!({"service": service, "environment": environment, "version": "1",
            "decision": "approved"});
        app.post("/v1/approvals", approval).expect(201);
    }
    let documented =
        documented().into_iter().filter(|(path, methods)| methods.contains("GET") && is_list(path));
    let mut lists: Vec<_> = documented.map(|(path, _)| path).collect();
    assert!(lists.len() >= 9, "{lists:?}");
    lists.push(format!("/v1/deployments/{}/events", moved["id"].as_str().unwrap()));
    lists.push("/v1/events?entity=release".into());
    lists
}

/// All items of a list, two by two.
#[track_caller]
fn two_by_two(app: &TestApp, list: &str) -> Vec<Value> {
    let separator = if list.contains('?') { '&' } else { '?' };
    let (mut items, mut path) = (Vec::new(), format!("{list}{separator}limit=2"));
    loop {
        let answer = app.get(&path);
        let page = answer.expect(200);
        let found = page["items"].as_array().unwrap();
        items.extend(found.iter().cloned());
        let Some(next) = page["next"].as_str() else {
            assert_eq!(answer.header("link"), "", "{list}");
            assert!(page["next"].is_null() && found.len() <= 2, "{list}: {page}");
            return items;
        };
        assert_eq!(found.len(), 2, "{list}");
        // The link leads where the cursor does.
        let link = answer
            .header("link")
            .strip_prefix('<')
            .unwrap()
            .strip_suffix(">; rel=\"next\"")
            .unwrap()
            .to_owned();
        path = format!("{list}{separator}limit=2&cursor={next}");
        assert_eq!(app.get(&link).expect(200), app.get(&path).expect(200), "{list}");
        assert!(items.len() < 100, "{list} does not end");
    }
}

fn every_list_is_paged(app: &TestApp) {
    for list in lists(app) {
        let whole = app
            .get(&format!("{list}{}limit=100", if list.contains('?') { '&' } else { '?' }))
            .expect(200);
        assert_eq!(whole["next"], Value::Null, "{list}");
        assert!(whole["items"].as_array().unwrap().len() >= 3, "{list}");
        assert_eq!(json!(two_by_two(app, &list)), whole["items"], "{list}");
        let fifty = app
            .get(&format!("{list}{}limit=50", if list.contains('?') { '&' } else { '?' }))
            .expect(200);
        assert_eq!(app.get(&list).expect(200), fifty, "50 items by default: {list}");
    }
}

fn pages_keep_their_order_when_rows_share_a_time(app: &TestApp) {
    lists(app);
    let mut db = app.db();
    let times = [
        "releases SET created_at",
        "deployments SET requested_at",
        "keys SET created_at",
        "services SET created_at",
    ];
    for change in times.into_iter().chain([
        "approvals SET created_at",
        "freezes SET created_at",
        "incidents SET detected_at",
    ]) {
        diesel::sql_query(format!("UPDATE {change} = '2026-02-03T04:05:06.000000Z'"))
            .execute(&mut db)
            .unwrap();
    }
    for list in ["releases", "deployments", "keys", "services", "approvals", "freezes", "incidents"]
    {
        let items = two_by_two(app, &format!("/v1/{list}"));
        let ids: BTreeSet<_> = items
            .iter()
            .map(|item| item.get("id").unwrap_or(&item["slug"]).as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), items.len(), "{list}: each once");
        assert_eq!(ids.len() as i64, crate::harness::count(&mut db, list), "{list}: all");
        assert_eq!(
            json!(items),
            app.get(&format!("/v1/{list}?limit=100")).expect(200)["items"],
            "{list}: in order"
        );
    }
}

fn a_page_stands_still_when_rows_are_added(app: &TestApp) {
    for version in ["1", "2", "3", "4"] {
        app.deploy("checkout", "staging", version, false);
    }
    let next = app.get("/v1/deployments?limit=2").expect(200)["next"].as_str().unwrap().to_owned();
    let second = || app.get(&format!("/v1/deployments?limit=2&cursor={next}")).expect(200);
    let before = second();
    app.deploy("checkout", "staging", "5", false);
    assert_eq!(second(), before);
    assert_eq!(
        before["items"].as_array().unwrap().iter().map(|d| &d["version"]).collect::<Vec<_>>(),
        ["2", "1"]
    );
}

/// The answer's bytes, as they came.
fn fetch(app: &TestApp, path: &str, accept_encoding: Option<&str>) -> (String, Vec<u8>) {
    use std::io::{Read, Write};
    let address = app.url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let accept = accept_encoding
        .map(|encoding| format!("Accept-Encoding: {encoding}\r\n"))
        .unwrap_or_default();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {ADMIN}\r\n\
            {accept}Connection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase(), answer[end + 4..].to_vec())
}

fn large_answers_are_compressed_when_asked(app: &TestApp) {
    for n in 0..5 {
        app.go_live("checkout", &format!("environment-{n}"), "1");
    }
    for path in ["/v1/events", "/openapi.json"] {
        let (head, plain) = fetch(app, path, None);
        assert!(
            !head.contains("content-encoding") && head.contains("vary: accept-encoding"),
            "{path}: {head}"
        );
        for accept in ["gzip", "br, gzip;q=0.5", "gzip, deflate"] {
            let (head, compressed) = fetch(app, path, Some(accept));
            assert!(
                head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"),
                "{path} {accept}: {head}"
            );
            assert!(compressed.len() < plain.len() / 2, "{path} {accept}");
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*compressed), &mut text)
                .unwrap();
            assert!(text == plain, "{path} {accept}");
        }
        for accept in ["identity", "br", "gzip;q=0", "identity, gzip;q=0.5"] {
            let (head, body) = fetch(app, path, Some(accept));
            assert!(!head.contains("content-encoding") && body == plain, "{path} {accept}: {head}");
        }
    }
    let (head, _) = fetch(app, "/v1/services", Some("gzip"));
    assert!(!head.contains("content-encoding"), "small: {head}");
}

fn every_answer_has_the_security_headers(app: &TestApp) {
    let refused = app.send(app.request("GET", "/v1/services").body(Vec::new()).unwrap());
    let paths = [
        "/v1/services",
        "/v1/services/unknown",
        "/livez",
        "/metrics",
        "/openapi.json",
        "/nothing",
        "/docs/",
    ];
    for answer in paths.map(|path| app.get(path)).into_iter().chain([refused]) {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src '")
                && policy.contains("frame-ancestors 'none'")
                && !policy.contains("unsafe-eval")
        );
        assert_eq!(answer.header("server"), "");
    }
    for (path, keep) in [
        ("/openapi.json", "no-cache"),
        ("/metrics", "no-store"),
        ("/v1/services/unknown", "no-store"),
        ("/nothing", "no-store"),
    ] {
        assert_eq!(app.get(path).header("cache-control"), keep, "{path}");
    }
    assert!(
        app.get("/v1/services").header("cache-control").contains("private"),
        "no proxy may keep what a key was needed for"
    );
}

fn a_request_has_an_id(app: &TestApp) {
    let get = |path: &str, id: &str| app.call("GET", path, ADMIN, None, &[("X-Request-Id", id)]);
    for path in ["/v1/services", "/v1/nothing", "/livez"] {
        assert_eq!(get(path, "build-17.3_a").header("x-request-id"), "build-17.3_a");
        for unfit in ["a b", "<script>", &"x".repeat(65), ""] {
            let id = get(path, unfit).header("x-request-id").to_owned();
            assert_eq!(id.len(), 36, "{unfit}: {id}");
        }
        assert_ne!(app.get(path).header("x-request-id"), app.get(path).header("x-request-id"));
    }
    assert_eq!(
        get("/v1/nothing", "build-17").expect_problem(404, "not_found")["request_id"],
        "build-17"
    );
}

fn cors_is_off_until_origins_are_set(app: &TestApp) {
    let ours = "https://status.example.org";
    let get = |app: &TestApp, origin: &str| {
        app.call("GET", "/v1/services", ADMIN, None, &[("Origin", origin)])
    };
    let preflight = |app: &TestApp, origin: &str| {
        let request = app.request("OPTIONS", "/v1/services").header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "PATCH");
        app.send(
            request
                .header("Access-Control-Request-Headers", "authorization,if-match")
                .body(Vec::new())
                .unwrap(),
        )
    };
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").to_owned();
    let off = get(app, ours);
    assert_eq!((off.status, allowed(&off).as_str()), (200, ""));
    assert_eq!(allowed(&preflight(app, ours)), "");

    let origins = format!("{ours}, http://localhost:5173");
    let open = TestApp::start(&app.database_url, &[("PROP_HTTP__CORS_ORIGINS", &origins)]);
    for origin in [ours, "http://localhost:5173"] {
        let answer = get(&open, origin);
        assert_eq!((answer.status, allowed(&answer).as_str()), (200, origin));
        let exposed = answer.header("access-control-expose-headers").to_lowercase();
        for header in ["etag", "link", "location", "x-request-id"] {
            assert!(exposed.contains(header), "{exposed}");
        }
        let answer = preflight(&open, origin);
        assert_eq!((answer.status, allowed(&answer).as_str()), (200, origin), "{}", answer.text);
        let methods = answer.header("access-control-allow-methods").to_owned();
        let methods: BTreeSet<_> = methods.split(',').map(str::trim).collect();
        let ours = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"];
        assert_eq!(methods, BTreeSet::from(ours), "TRACE and others are none of ours");
        let headers = answer.header("access-control-allow-headers").to_lowercase();
        assert!(headers.contains("authorization") && headers.contains("if-match"), "{headers}");
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            "",
            "keys are sent by scripts, not by browsers"
        );
    }
    for origin in ["https://status.example.org.evil.example", "http://status.example.org", "null"] {
        assert_eq!(allowed(&get(&open, origin)), "", "{origin}");
        assert_eq!(allowed(&preflight(&open, origin)), "", "{origin}");
    }
    open.get("/v1/services").expect(200);
}

fn the_process_tells_how_it_is(app: &TestApp) {
    let open = |path: &str| app.send(app.request("GET", path).body(Vec::new()).unwrap());
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(open(path).expect(200), json!({"status": "ok"}), "{path}");
    }
    let version = open("/version").expect(200);
    assert_eq!(
        (version["version"].as_str(), &version["image_digest"]),
        (Some(env!("CARGO_PKG_VERSION")), &Value::Null)
    );
    let digest = crate::harness::digest(1);
    let listed = TestApp::start(&app.database_url, &[("PROP_IMAGE_DIGEST", &digest)]);
    assert_eq!(listed.get("/version").expect(200)["image_digest"], json!(digest));

    // A migration of this version that the database lacks: alive, but not ready.
    diesel::sql_query("DELETE FROM __diesel_schema_migrations").execute(&mut app.db()).unwrap();
    open("/livez").expect(200);
    for path in ["/readyz", "/health"] {
        let answer = open(path);
        answer.expect_problem(503, "not_ready");
        assert_eq!(answer.header("retry-after"), "1");
    }
}

/// A load balancer hides `/metrics` by its path, as it was sent.
fn the_metrics_are_at_their_plain_path_only(app: &TestApp) {
    assert_eq!(app.get("/metrics?since=1").status, 200);
    for encoded in ["/%6detrics", "/%6Detrics", "/metric%73", "/%6d%65%74%72%69%63%73"] {
        app.get(encoded).expect_problem(404, "not_found");
    }
}

fn metrics_count_requests_by_route(app: &TestApp) {
    let deployment = app.deploy("checkout", "staging", "1", false);
    let id = deployment["id"].as_str().unwrap();
    app.get(&format!("/v1/deployments/{id}")).expect(200);
    app.get(&format!("/v1/deployments/{id}")).expect(200);
    app.get(&format!("/v1/deployments/{UNKNOWN}")).expect_problem(404, "not_found");
    app.get("/v1/services/checkout").expect(200);
    app.get(&format!("/nowhere/{id}")).expect_problem(404, "not_found");
    app.call("PUT", &format!("/v1/deployments/{id}"), ADMIN, None, &[])
        .expect_problem(405, "method_not_allowed");
    let without_key = app.request("GET", &format!("/v1/deployments/{id}"));
    app.send(without_key.body(Vec::new()).unwrap()).expect_problem(401, "unauthenticated");
    let answer = app.send(app.request("GET", "/metrics").body(Vec::new()).unwrap());
    assert!(answer.status == 200 && answer.header("content-type").starts_with("text/plain"));
    let counted = |method: &str, route: &str, status: u16| {
        let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        let line = answer.text.lines().find_map(|line| {
            line.strip_prefix(&format!("prop_http_request_duration_seconds_count{labels} "))
        });
        line.map(|count| count.parse::<u64>().unwrap())
    };
    assert_eq!(counted("GET", "/v1/deployments/{id}", 200), Some(2), "{}", answer.text);
    assert_eq!(counted("GET", "/v1/deployments/{id}", 404), Some(1));
    assert_eq!(counted("PUT", "/v1/deployments/{id}", 405), Some(1));
    assert_eq!(counted("GET", "/v1/deployments/{id}", 401), Some(1));
    assert_eq!(counted("POST", "/v1/deployments", 201), Some(1));
    assert_eq!(counted("GET", "/v1/services/{slug}", 200), Some(1));
    assert_eq!(counted("GET", "unmatched", 404), Some(1));
    for secret in [id, UNKNOWN, "checkout", "nowhere", "prop_Admin"] {
        assert!(!answer.text.contains(secret), "{secret}");
    }
    for name in [
        "prop_database_queue_length",
        "prop_database_statements_total",
        "prop_log_lines_dropped_total",
    ] {
        assert!(answer.text.contains(&format!("# TYPE {name} ")), "{name}");
    }
}

fn the_documentation_is_served(app: &TestApp) {
    let open = |path: &str| app.send(app.request("GET", path).body(Vec::new()).unwrap());
    let document = open("/openapi.json");
    let expected: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    assert_eq!(document.expect(200), expected);
    let page = open("/docs/");
    assert!(
        page.status == 200
            && page.header("content-type").starts_with("text/html")
            && page.text.contains("swagger-ui")
    );
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert_eq!(open(&format!("/docs/{file}")).status, 200, "{file}");
    }
    assert!(open("/docs/swagger-initializer.js").text.contains("/openapi.json"));
}
