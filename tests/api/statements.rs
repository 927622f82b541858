//! What a request costs the database: how many statements each operation of the document sends,
//! BEGIN and COMMIT included, and that a repeat has them prepared.

use crate::gate::{in_minutes, with};
use crate::harness::{TestApp, behind_pooler, count, new_deployment};
use crate::webhooks::report;
use diesel::RunQueryDsl;
use diesel::connection::{Connection, InstrumentationEvent};
use prop::db::Db;
use prop::db::locks::Service;
use prop::http::context::Author;
use prop::ledger::deployments::{create, transitions};
use prop::types::ids::DeploymentId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

crate::on_both_databases! {
    each_operation_sends_as_many_statements_as_it_needs
    the_lock_of_a_service_that_is_held_fails_without_a_trace
    a_repeat_prepares_nothing
}

/// A request to measure.
struct Request {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

fn get(path: impl Into<String>) -> Request {
    Request { method: "GET", path: path.into(), body: None }
}

fn post(path: impl Into<String>, body: Value) -> Request {
    Request { method: "POST", path: path.into(), body: Some(body) }
}

fn patch(path: impl Into<String>, body: Value) -> Request {
    Request { method: "PATCH", path: path.into(), body: Some(body) }
}

fn delete(path: impl Into<String>) -> Request {
    Request { method: "DELETE", path: path.into(), body: None }
}

fn id(resource: &Value) -> &str {
    resource["id"].as_str().unwrap()
}

/// A deployment to a place where something is live.
fn waiting(app: &TestApp) -> Value {
    app.deploy("checkout", "staging", "1", false)
}

fn started(app: &TestApp) -> Value {
    app.deploy("checkout", "staging", "1", true)
}

fn to(deployment: &Value, state: &str) -> Request {
    post(format!("/v1/deployments/{}/transitions", id(deployment)), json!({"to": state}))
}

fn ended(app: &TestApp, deployment: Value) {
    app.transition(&deployment, "failed").expect(200);
}

/// An operation, perhaps with one of its cases; how many statements it takes on PostgreSQL and on
/// SQLite; and how a fresh request of it is made.
type Case = (&'static str, [u64; 2], fn(&TestApp) -> Request);

fn freeze(app: &TestApp) -> Value {
    let body = json!({"service": "idle", "reason": "Inventory", "starts_at": in_minutes(600)});
    app.post("/v1/freezes", body).expect(201)
}

fn incident(app: &TestApp) -> Value {
    let live = app.get("/v1/services/checkout/environments/staging").expect(200);
    let cause = live["live"]["id"].clone();
    let body = json!({"service": "checkout", "environment": "staging", "title": "Down",
        "severity": "major", "caused_by": [cause]});
    let opened = app.post("/v1/incidents", body).expect(201);
    app.patch(&format!("/v1/incidents/{}", id(&opened)), json!({"resolved": true}), &[])
        .expect(200);
    opened
}

const RECORDING: &[Case] = &[
    ("create_deployment", [4, 6], |_| {
        post("/v1/deployments", new_deployment("checkout", "staging", "1"))
    }),
    ("create_deployment - that starts", [4, 7], |_| {
        let body = with(new_deployment("checkout", "staging", "1"), json!({"start": true}));
        post("/v1/deployments", body)
    }),
    ("move_deployment - start", [4, 6], |app| to(&waiting(app), "running")),
    ("move_deployment - success", [4, 8], |app| to(&started(app), "succeeded")),
    ("move_deployment - failure", [4, 6], |app| to(&started(app), "failed")),
    ("move_deployment - repeat", [3, 4], |app| {
        let deployment = started(app);
        ended(app, deployment.clone());
        to(&deployment, "failed")
    }),
    ("void_deployment", [12, 13], |app| {
        let deployment = started(app);
        ended(app, deployment.clone());
        post(format!("/v1/deployments/{}/void", id(&deployment)), json!({"reason": "Nothing."}))
    }),
    ("create_approval", [11, 11], |app| {
        waiting(app);
        post(
            "/v1/approvals",
            json!({"service": "checkout", "environment": "staging", "version": "1",
                "decision": "approved"}),
        )
    }),
    ("create_release", [6, 6], |app| {
        let version = format!("1.{}", app.statements());
        post("/v1/releases", json!({"service": "checkout", "version": version}))
    }),
    ("record_scan", [8, 8], |app| {
        let release = app.get("/v1/releases?service=checkout&version=1").expect(200);
        let path = format!("/v1/releases/{}/scan", id(&release["items"][0]));
        let body = json!({"status": "passed", "tool": "trivy"});
        Request { method: "PUT", path, body: Some(body) }
    }),
    ("receive_github_webhook", [23, 23], |_| {
        // The signed delivery is sent by `deliver`.
        post("/webhooks/github", Value::Null)
    }),
];

/// Ends what waits or runs, so that every request finds the same.
fn sweep(app: &TestApp) {
    for state in ["approved", "running"] {
        for deployment in app.all(&format!("/v1/deployments?state={state}")) {
            app.transition(&deployment, "cancelled").expect(200);
        }
    }
}

const KEEPING: &[Case] = &[
    ("create_service", [5, 5], |app| {
        post("/v1/services", json!({"slug": format!("service-{}", app.statements())}))
    }),
    ("update_service", [6, 6], |_| patch("/v1/services/checkout", json!({"owner": "shop"}))),
    ("create_environment", [5, 4], |app| {
        post(
            "/v1/environments",
            json!({"slug": format!("e-{}", app.statements()), "tier": "testing"}),
        )
    }),
    ("update_environment", [7, 5], |_| patch("/v1/environments/staging", json!({"name": "S"}))),
    ("create_freeze", [5, 5], |_| {
        let body = json!({"service": "idle", "reason": "Inventory", "starts_at": in_minutes(600)});
        post("/v1/freezes", body)
    }),
    ("update_freeze", [7, 6], |app| {
        patch(format!("/v1/freezes/{}", id(&freeze(app))), json!({"ended": true}))
    }),
    ("override_freeze", [8, 8], |app| {
        let path = format!("/v1/freezes/{}/overrides", id(&freeze(app)));
        let body = json!({"service": "idle", "environment": "staging", "version": "2",
            "reason": "Down."});
        post(path, body)
    }),
    ("create_incident", [8, 8], |_| {
        let body = json!({"service": "checkout", "environment": "testing", "title": "Down",
            "severity": "major"});
        post("/v1/incidents", body)
    }),
    ("update_incident", [8, 8], |app| {
        patch(format!("/v1/incidents/{}", id(&incident(app))), json!({"title": "Slow"}))
    }),
    ("unlink_deployment", [12, 12], |app| {
        let incident = incident(app);
        let linked = incident["caused_by"][0].as_str().unwrap();
        delete(format!("/v1/incidents/{}/deployments/{linked}", id(&incident)))
    }),
    ("create_key", [7, 5], |app| {
        post("/v1/keys", json!({"name": format!("key-{}", app.statements()), "scopes": ["read"]}))
    }),
    ("revoke_key", [9, 7], |app| {
        let body = json!({"name": format!("key-{}", app.statements()), "scopes": ["read"]});
        let key = app.post("/v1/keys", body).expect(201);
        delete(format!("/v1/keys/{}", id(&key)))
    }),
];

const READING: &[Case] = &[
    ("get_status", [6, 6], |_| get("/v1/status")),
    ("get_place", [3, 3], |_| get("/v1/services/checkout/environments/staging")),
    ("list_services", [1, 1], |_| get("/v1/services")),
    ("get_service", [1, 1], |_| get("/v1/services/checkout")),
    ("list_environments", [1, 1], |_| get("/v1/environments")),
    ("get_environment", [1, 1], |_| get("/v1/environments/staging")),
    ("list_releases", [1, 1], |_| get("/v1/releases")),
    ("get_release", [1, 1], |app| {
        let page = app.get("/v1/releases").expect(200);
        get(format!("/v1/releases/{}", id(&page["items"][0])))
    }),
    ("list_deployments", [1, 1], |_| get("/v1/deployments")),
    ("get_deployment", [1, 1], |app| get(format!("/v1/deployments/{}", id(&waiting(app))))),
    ("list_deployment_events", [1, 1], |app| {
        get(format!("/v1/deployments/{}/events", id(&waiting(app))))
    }),
    ("evaluate_gate", [1, 2], |_| {
        get("/v1/gate?service=checkout&environment=staging&version=1&run_url=https://ci.example/1")
    }),
    ("evaluate_gate - of a deployment", [1, 2], |app| {
        get(format!("/v1/gate?deployment={}", id(&waiting(app))))
    }),
    ("list_approvals", [1, 1], |_| get("/v1/approvals")),
    ("list_freezes", [1, 1], |_| get("/v1/freezes")),
    ("get_freeze", [1, 1], |app| get(format!("/v1/freezes/{}", id(&freeze(app))))),
    ("list_incidents", [1, 1], |_| get("/v1/incidents")),
    ("get_incident", [2, 2], |app| get(format!("/v1/incidents/{}", id(&incident(app))))),
    ("get_dora_metrics", [8, 8], |_| get("/v1/metrics/dora")),
    ("list_events", [1, 1], |_| get("/v1/events")),
    ("list_keys", [1, 1], |_| get("/v1/keys")),
    ("list_deliveries", [1, 1], |_| get("/v1/deliveries")),
    ("get_delivery", [1, 1], |app| {
        let page = app.get("/v1/deliveries").expect(200);
        get(format!("/v1/deliveries/{}", id(&page["items"][0])))
    }),
    ("livez", [0, 0], |_| get("/livez")),
    ("readyz", [1, 1], |_| get("/readyz")),
    ("health", [1, 1], |_| get("/health")),
    ("version", [0, 0], |_| get("/version")),
    ("metrics", [1, 1], |_| get("/metrics")),
    ("openapi", [0, 0], |_| get("/openapi.json")),
];

/// How many statements a request takes: the least of a few times, since prop also notes the use of
/// keys and tidies up, and a connection that is new prepares itself.
fn cost(app: &TestApp, request: fn(&TestApp) -> Request) -> u64 {
    let measure = |_| {
        sweep(app);
        let Request { method, path, body } = request(app);
        let before = app.statements();
        if path == "/webhooks/github" {
            let (event, payload) = report(before, "staging", "", 1);
            crate::webhooks::deliver(app, event, &payload);
        } else {
            let answer = app.call(method, &path, crate::harness::ADMIN, body.as_ref(), &[]);
            assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text);
        }
        app.statements() - before
    };
    (0..3).map(measure).min().unwrap()
}

/// The operations of the document.
fn documented() -> BTreeSet<String> {
    let document: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    let items = document["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect()
}

fn each_operation_sends_as_many_statements_as_it_needs(app: &TestApp) {
    if behind_pooler().is_some() {
        return; // There each read is a transaction.
    }
    app.go_live("checkout", "staging", "1");
    app.deploy("idle", "testing", "2", false);
    let cases = || RECORDING.iter().chain(KEEPING).chain(READING);
    let named: BTreeSet<_> =
        cases().map(|(name, ..)| name.split(" - ").next().unwrap().to_owned()).collect();
    assert_eq!(named, documented());
    let is_sqlite = app.database_url.starts_with("sqlite:");
    let costs: BTreeMap<_, _> = cases().map(|(name, _, case)| (*name, cost(app, *case))).collect();
    let expected: BTreeMap<_, _> =
        cases().map(|(name, cost, _)| (*name, cost[usize::from(is_sqlite)])).collect();
    assert_eq!(costs, expected);
}

fn the_lock_of_a_service_that_is_held_fails_without_a_trace(app: &TestApp) {
    if app.database_url.starts_with("sqlite:") {
        return;
    }
    let live = app.go_live("checkout", "staging", "1");
    let limits = [("PROP_DATABASE__POOL_SIZE", "1"), ("PROP_DATABASE__TIMEOUT_SECONDS", "1")];
    let one = TestApp::start(&app.database_url, &limits);
    let body = || new_deployment("checkout", "staging", "1");
    for request in [post("/v1/deployments", body()), to(&live, "failed")] {
        app.db()
            .write(|db| {
                Service::Named("checkout".parse().unwrap()).lock(db)?;
                let answer = one.post(&request.path, request.body.clone().unwrap());
                answer.expect_problem(503, "timed_out");
                Ok::<_, diesel::result::Error>(())
            })
            .unwrap();
        // The one connection is in no transaction: it reads and writes as before.
        one.get("/v1/services").expect(200);
        one.post("/v1/deployments", body()).expect(201);
        let idle = "pg_stat_activity WHERE datname = current_database()
            AND state LIKE 'idle in transaction%'";
        assert_eq!(count(&mut app.db(), idle), 0);
    }
}

/// The statements that `work` sends in a transaction, but for those of the transaction itself.
fn sent_by(db: &mut Db, work: impl FnOnce(&mut Db)) -> Vec<String> {
    let texts = Arc::new(Mutex::new(Vec::new()));
    let noted = texts.clone();
    db.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            noted.lock().unwrap().push(text.split(" -- binds").next().unwrap().to_owned());
        }
    });
    db.write(|db| {
        work(db);
        Ok::<_, diesel::result::Error>(())
    })
    .unwrap();
    db.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    let texts = texts.lock().unwrap().clone();
    let is_control = |text: &str| ["BEGIN", "COMMIT"].iter().any(|word| text.starts_with(word));
    texts.into_iter().filter(|text| !is_control(text)).collect()
}

#[derive(diesel::QueryableByName)]
struct Prepared {
    #[diesel(sql_type = diesel::sql_types::Text)]
    statement: String,
}

fn a_repeat_prepares_nothing(app: &TestApp) {
    if app.database_url.starts_with("sqlite:") || behind_pooler().is_some() {
        return;
    }
    app.go_live("checkout", "staging", "1");
    let mut db = app.db();
    let author = &Author::prop();
    let record = |db: &mut Db, more: Value| {
        let new = with(new_deployment("checkout", "staging", "1"), more);
        create::request(db, author, serde_json::from_value(new).unwrap()).unwrap().0
    };
    let step = |db: &mut Db, id: DeploymentId, to: &str| {
        let request = serde_json::from_value(json!({"to": to})).unwrap();
        transitions::transition(db, author, id, request).unwrap();
    };
    let all = |db: &mut Db| {
        let mut texts = sent_by(db, |db| drop(record(db, json!({}))));
        let mut id = None;
        texts.extend(sent_by(db, |db| id = Some(record(db, json!({})).deployment.id)));
        let id = id.unwrap();
        texts.extend(sent_by(db, |db| step(db, id, "running")));
        texts.extend(sent_by(db, |db| step(db, id, "succeeded")));
        texts.extend(sent_by(db, |db| {
            let id = record(db, json!({"start": true})).deployment.id;
            step(db, id, "failed");
        }));
        texts
    };
    all(&mut db);
    let repeated = all(&mut db);
    let query = diesel::sql_query("SELECT statement FROM pg_prepared_statements");
    let prepared: Vec<Prepared> = query.load(&mut db).unwrap();
    let prepared: BTreeSet<_> = prepared.into_iter().map(|row| row.statement).collect();
    assert!(repeated.len() > 10, "{repeated:#?}");
    let anew: Vec<_> = repeated.iter().filter(|text| !prepared.contains(*text)).collect();
    assert!(anew.is_empty(), "{anew:#?}");
}
