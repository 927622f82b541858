//! What a request costs does not grow with the history: every operation of the document is sent to
//! a ledger with a long history, and the plans that PostgreSQL has run for it say how many rows it
//! read. The plans are generic ones, as those of a connection that has run a statement often.
//!
//! On SQLite the same statements must not scan a table of the history.

use crate::gate::in_minutes;
use crate::harness::{ADMIN, Cluster, TestApp, count, digest, with};
use crate::webhooks::{deliver, report};
use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use prop::db::pages::LOOKED_AT;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// The tables of the history. The others are bounded by the services and environments.
const HISTORY: [&str; 7] =
    ["deployments", "events", "releases", "approvals", "incidents", "freezes", "deliveries"];

/// How many rows a request may read of a history of 15,000 rows and more in each of these.
const FEW: u64 = 1_000;

/// How many rows a list may read along an index to find those that its other parameters are for,
/// and then the end of what it has looked at.
const BOUNDED: u64 = 2 * LOOKED_AT as u64 + FEW;

/// Fills a ledger. Half of everything is of the service `big`, and that in `production`. Nothing of
/// it has the state `rejected`.
const FILL: &str = r#"
SET auto_explain.log_min_duration = -1;
SET session_replication_role = replica;
CREATE FUNCTION id(prefix integer, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(prefix::text, 8, '0') || '-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE FUNCTION service(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN n % 2 = 0 THEN 'big' ELSE 's' || (n / 2 % 5) END $$;
CREATE FUNCTION environment(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN n % 2 = 0 THEN 'production' ELSE 'e' || (n % 5) END $$;
CREATE FUNCTION ago(n bigint) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT '2026-06-01T00:00:00Z'::timestamptz - n * interval '1 minute' $$;
INSERT INTO services (slug, name, created_at, updated_at, revision)
    SELECT DISTINCT service(n), 'x', ago(0), ago(0), 1 FROM generate_series(1, 200) n;
INSERT INTO environments (slug, name, tier, required_approvals, created_at, updated_at, revision)
    SELECT slug, 'x', CASE WHEN slug IN ('production', 'staging') THEN slug ELSE 'testing' END, 0,
        ago(0), ago(0), 1
    FROM unnest(ARRAY['production', 'staging', 'e0', 'e1', 'e2', 'e3', 'e4']) slug;
INSERT INTO releases (id, service, version, git_sha, image_digest, last_commit_at, scan,
        created_by, created_at, revision)
    SELECT id(1, n), service(n), 'v' || n, lpad(to_hex(n), 40, '0'), 'sha256:' || lpad(to_hex(n),
        64, '0'), ago(n), '{"status": "missing"}', 'pipeline', ago(n), 1
    FROM generate_series(1, 20000) n;
INSERT INTO deployments (id, service, environment, release_id, version, state, kind, unplanned,
        requested_by, recorded_by, source, external_id, run_url, requested_at, started_at,
        finished_at, revision)
    SELECT id(2, n), service(n), environment(n), id(1, (n - 1) % 20000 + 1),
        'v' || (n - 1) % 20000 + 1,
        CASE WHEN row_number() OVER (PARTITION BY environment(n), service(n) ORDER BY n) = 1
            THEN 'succeeded' ELSE (ARRAY['superseded', 'superseded', 'failed'])[n / 2 % 3 + 1] END,
        'normal', false, 'pipeline', 'pipeline', 'api', n::text,
        'https://github.com/shop/big/actions/runs/' || n, ago(n), ago(n), ago(n), 1
    FROM generate_series(1, 30000) n;
INSERT INTO deployments (id, service, environment, release_id, version, state, kind, unplanned,
        requested_by, source, requested_at, started_at, finished_at, revision)
    VALUES (id(3, 1), 'big', 'staging', id(1, 4), 'v4', 'succeeded', 'normal', false, 'pipeline',
        'api', ago(3), ago(3), ago(3), 1);
UPDATE deployments SET release_id = id(1, 20000), version = 'v20000' WHERE id = id(2, 2);
INSERT INTO approvals (id, release_id, service, environment, decision, approver, source,
        recorded_by, created_at, expires_at)
    SELECT id(4, n), id(1, n), service(n), environment(n), 'approved', 'alice', 'api', 'alice',
        ago(n), ago(n - 60)
    FROM generate_series(1, 20000) n;
INSERT INTO incidents (id, service, environment, title, severity, detected_at, resolved_at,
        created_by, created_at, revision)
    SELECT id(5, n), service(n), environment(n), 'x', 'minor', ago(n), ago(n - 5), 'alice', ago(n),
        1
    FROM generate_series(1, 15000) n;
INSERT INTO freezes (id, reason, starts_at, ends_at, allow_rollback, ended_at, created_by,
        created_at, revision)
    SELECT id(6, n), 'x', ago(n), ago(n - 5), false, CASE WHEN n % 2 = 0 THEN ago(n - 3) END,
        'alice', ago(n), 1
    FROM generate_series(1, 15000) n;
INSERT INTO deliveries (id, event, outcome, detail, subject, digest, received_at, deployment_id)
    SELECT n::text, 'deployment_status', 'applied', 'x', n::text, n::text, ago(n), id(2, n)
    FROM generate_series(1, 20000) n;
INSERT INTO events (at, actor, action, entity, entity_id, service, environment, payload, key_id,
        request_id)
    SELECT ago(30001 - n), 'pipeline',
        CASE WHEN n % 60 = 0 THEN 'gate.blocked' ELSE 'deployment.started' END,
        CASE WHEN n % 60 = 0 THEN 'gate' ELSE 'deployment' END,
        CASE WHEN n % 60 = 0 THEN 'big/production' ELSE id(2, n % 30000)::text END,
        service(n), environment(n), '{}', id(7, 1), n::text
    FROM generate_series(1, 30000) n;
ANALYZE;
"#;

/// For each parameter, one value that much of the history has, and one that nothing has.
fn values(operation: &str, parameter: &str) -> Vec<&'static str> {
    match (operation, parameter) {
        ("list_freezes" | "list_incidents", "open") => vec!["true", "false"],
        (_, "service") => vec!["big", "nothing"],
        (_, "environment") => vec!["production", "nowhere"],
        (_, "state") => vec!["superseded", "rejected", "running", "succeeded", "expired"],
        (_, "since" | "until") => vec!["2026-05-15T00:00:00Z", "2020-01-01T00:00:00Z"],
        (_, "entity") => vec!["gate", "freeze"],
        (_, "entity_id") => vec!["big/production", "nothing"],
        (_, "actor") => vec!["Pipeline", "nobody"],
        (_, "action") => vec!["gate.blocked", "freeze.overridden"],
        (_, "version") => vec!["v20000", "nothing"],
        (_, "git_sha") => vec![
            "0000000000000000000000000000000000000100",
            "ffffffffffffffffffffffffffffffffffffffff",
        ],
        (_, "release_id") => vec!["00000001-0000-7000-8000-000000000100"],
        (_, "event") => vec!["deployment_status", "push"],
        (_, "outcome") => vec!["applied", "failed"],
        (_, "deployment_id") => vec!["00000002-0000-7000-8000-000000000100"],
        (_, "limit") => vec!["100"],
        (_, "requested_by") => vec!["alice"],
        (_, "run_url") => vec!["https://github.com/shop/big/actions/runs/2"],
        (_, "rollback") => vec!["true"],
        (_, "deployment") => vec!["00000002-0000-7000-8000-000000000100"],
        // Made from an answer.
        (_, "cursor") => vec![],
        _ => panic!("{operation} has a parameter that this test does not know: {parameter}"),
    }
}

/// The parameters by which an index finds a page of a list, alone and together with the times.
fn has_index(operation: &str, parameter: &str) -> bool {
    match operation {
        // All events of one resource may be read and sorted, when it is expected to have few.
        "list_events" => !["entity", "entity_id", "environment"].contains(&parameter),
        "list_deployments" => parameter != "environment",
        "list_releases" => parameter != "version",
        "list_approvals" => parameter != "environment",
        "list_incidents" | "list_freezes" => parameter == "limit",
        "list_deliveries" => parameter != "event",
        _ => true,
    }
}

/// Operations without a request of their own here, each with the reason.
const NOT_SENT: [(&str, &str); 7] = [
    ("get_dora_metrics", "it reads its window; tests/api/dora.rs has its bounds"),
    ("livez", "it has no database"),
    ("readyz", "it reads no table"),
    ("health", "it reads no table"),
    ("version", "it has no database"),
    ("metrics", "it has no database"),
    ("openapi", "it has no database"),
];

/// A ledger with a long history, and what its PostgreSQL logs.
struct Ledger {
    app: TestApp,
    log: PathBuf,
    read: u64,
    statements: BTreeSet<String>,
    sent: BTreeSet<String>,
}

impl Ledger {
    /// What was logged since the last call.
    fn plans(&mut self) -> Vec<Value> {
        let mut log = std::fs::File::open(&self.log).unwrap();
        log.seek(SeekFrom::Start(self.read)).unwrap();
        let mut text = String::new();
        self.read += log.read_to_string(&mut text).unwrap() as u64;
        let plans = text.split(" plan:\n").skip(1);
        plans.map(|plan| from_start(&plan.replace("\n\t", "\n"))).collect()
    }

    /// Sends a request, and checks that it read at most so many rows.
    #[track_caller]
    fn send(
        &mut self,
        operation: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        most: u64,
    ) -> Value {
        self.check(operation, path, most, |app| {
            let answer = app.call(method, path, ADMIN, body.as_ref(), &[]);
            assert!(answer.status < 300 || answer.status == 404, "{path}: {}", answer.text);
            answer.json()
        })
    }

    #[track_caller]
    fn check(
        &mut self,
        operation: &str,
        what: &str,
        most: u64,
        send: impl FnOnce(&TestApp) -> Value,
    ) -> Value {
        self.plans();
        self.sent.insert(operation.to_owned());
        let answer = send(&self.app);
        let plans = self.plans();
        let rows: u64 = plans.iter().map(|plan| rows_read(&plan["Plan"])).sum();
        let worst = plans.iter().max_by_key(|plan| rows_read(&plan["Plan"]));
        assert!(rows <= most, "{operation} {what} read {rows} rows, more than {most}: {worst:#?}");
        for plan in plans {
            assert!(plan["JIT"].is_null(), "{operation} {what} was compiled: {plan:#?}");
            self.statements.insert(plan["Query Text"].as_str().unwrap().to_owned());
        }
        answer
    }

    /// Sends a request that writes, and checks that it read few rows.
    #[track_caller]
    fn write(&mut self, operation: &str, method: &str, path: &str, body: Value) -> Value {
        self.write_with(operation, method, path, body, &[])
    }

    /// The same, with more headers.
    #[track_caller]
    fn write_with(
        &mut self,
        operation: &str,
        method: &str,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Value {
        self.check(operation, &format!("{path} {body}"), FEW, |app| {
            let body = Some(&body).filter(|body| !body.is_null());
            let answer = app.call(method, path, ADMIN, body, headers);
            assert!((200..300).contains(&answer.status), "{path}: {}", answer.text);
            serde_json::from_str(&answer.text).unwrap_or_default()
        })
    }

    /// Records a deployment of `big` to production.
    #[track_caller]
    fn deploy(&mut self, more: Value) -> Value {
        self.write("create_deployment", "POST", "/v1/deployments", with(of_big("v20000"), more))
    }

    /// Reports a move of a deployment.
    #[track_caller]
    fn step(&mut self, deployment: &Value, to: &str) -> Value {
        let path = format!("/v1/deployments/{}/transitions", id(deployment));
        self.write("move_deployment", "POST", &path, json!({"to": to}))
    }

    /// Sends a GET with every parameter alone, and with every two of them.
    fn get(&mut self, operation: &str, path: &str, parameters: &[String]) {
        let mut queries = vec![(String::new(), true)];
        for (n, one) in parameters.iter().enumerate() {
            let is_found = has_index(operation, one);
            let mine = values(operation, one);
            queries.extend(mine.iter().map(|value| (format!("{one}={value}"), is_found)));
            for other in parameters[n + 1..].iter().filter(|other| *other != "limit") {
                let is_time = ["since", "until"].iter().any(|time| one == time || other == time);
                let is_found = is_found && has_index(operation, other) && is_time;
                let others = values(operation, other);
                for (a, b) in [(mine.first(), others.last()), (mine.last(), others.first())] {
                    let (Some(a), Some(b)) = (a, b) else { continue };
                    queries.push((format!("{one}={a}&{other}={b}"), is_found));
                }
            }
        }
        for (query, indexed) in queries {
            let most = if indexed { FEW } else { BOUNDED };
            self.send(operation, "GET", &format!("{path}?{query}"), None, most);
        }
    }
}

/// The JSON at the start of a text.
fn from_start(text: &str) -> Value {
    serde_json::Deserializer::from_str(text).into_iter().next().unwrap().unwrap()
}

/// The rows that a plan has read of tables and indexes of the history, also those it had no use for.
fn rows_read(plan: &Value) -> u64 {
    let relation = plan["Relation Name"].as_str().or(plan["Index Name"].as_str());
    let is_history = relation.is_some_and(|name| HISTORY.iter().any(|of| name.starts_with(of)));
    let number = |name: &str| plan[name].as_f64().unwrap_or(0.0);
    let rows = number("Actual Rows")
        + number("Rows Removed by Filter")
        + number("Rows Removed by Index Recheck");
    let here = if is_history { (rows * number("Actual Loops")) as u64 } else { 0 };
    let below = plan["Plans"].as_array().map_or(0, |plans| plans.iter().map(rows_read).sum());
    here + below
}

/// The operations of the document: id, method, path, and the names of their parameters.
fn operations() -> Vec<(String, String, String, Vec<String>)> {
    let document: Value = serde_json::from_str(&prop::app::document().to_json().unwrap()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_query = parameters.filter(|parameter| parameter["in"] == "query");
            let names = in_query.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
            let id = operation["operationId"].as_str().unwrap().to_owned();
            operations.push((id, method.clone(), path.clone(), names.collect()));
        }
    }
    operations
}

/// Sends every operation that only reads.
fn reads(ledger: &mut Ledger) {
    for (id, method, path, parameters) in operations() {
        if method != "get" || NOT_SENT.iter().any(|(not_sent, _)| *not_sent == id) {
            continue;
        }
        let number = match path.as_str() {
            path if path.contains("/releases/") => "00000001-0000-7000-8000-000000000100",
            path if path.contains("/freezes/") => "00000006-0000-7000-8000-000000000100",
            path if path.contains("/incidents/") => "00000005-0000-7000-8000-000000000100",
            path if path.contains("/deliveries/") => "100",
            _ => "00000002-0000-7000-8000-000000000002",
        };
        let path = path.replace("{service}", "big").replace("{environment}", "production");
        let path =
            path.replace("{slug}", if path.contains("/services/") { "big" } else { "production" });
        let path = path.replace("{id}", number);
        if id == "evaluate_gate" {
            let asked = "service=big&environment=production&version=v20000";
            ledger.send(&id, "GET", &format!("{path}?{asked}"), None, FEW);
            ledger.send(&id, "GET", &format!("{path}?{asked}&rollback=true"), None, FEW);
            continue;
        }
        ledger.get(&id, &path, &parameters);
    }
    for list in ["deployments", "events", "releases"] {
        let half = if list == "releases" { "" } else { "&until=2026-05-15T00:00:00Z" };
        let page = ledger.app.get(&format!("/v1/{list}?service=big{half}")).expect(200);
        let next = page["next"].as_str().unwrap();
        let path = format!("/v1/{list}?service=big&cursor={next}");
        ledger.send(&format!("list_{list}"), "GET", &path, None, FEW);
    }
}

fn id(resource: &Value) -> &str {
    resource["id"].as_str().unwrap()
}

/// A version of `big` in production.
fn of_big(version: &str) -> Value {
    json!({"service": "big", "environment": "production", "version": version})
}

/// Sends deployments of all kinds to the place that has half of the history.
fn deployments(ledger: &mut Ledger) {
    let waiting = ledger.deploy(json!({}));
    ledger.step(&waiting, "running");
    ledger.step(&waiting, "succeeded");
    let failing = ledger.deploy(json!({"start": true, "version": "v19998"}));
    ledger.step(&failing, "failed");
    let void = ledger.deploy(json!({"start": true, "version": "v19998"}));
    ledger.step(&void, "succeeded");
    let path = format!("/v1/deployments/{}/void", id(&void));
    ledger.write("void_deployment", "POST", &path, json!({"reason": "It was a mistake."}));
    let back = ledger.deploy(json!({"rollback": true, "version": null}));
    ledger.step(&back, "cancelled");
    // An old release, in its place among the last hundred of the place. What came later is read.
    let late = json!({"version": "v19000", "state": "succeeded", "at": "2026-05-31T22:00:00Z",
        "finished_at": "2026-05-31T22:20:30Z", "source": "ci", "external_id": "late"});
    ledger.deploy(late.clone());
    ledger.deploy(late);
    let body = with(of_big("v20000"), json!({"run_url": "https://ci.example/1"}));
    for _ in 0..2 {
        let headers = [("Idempotency-Key", "once")];
        ledger.write_with("create_deployment", "POST", "/v1/deployments", body.clone(), &headers);
    }
    let repository = json!({"repository_url": "https://github.com/Codertocat/Hello-World"});
    ledger.write("update_service", "PATCH", "/v1/services/big", repository);
    for (second, state) in [(1, "in_progress"), (2, "success")] {
        let (event, mut payload) = report(1, "production", state, second);
        let at = format!("2026-06-02T00:00:0{second}Z");
        payload["deployment"]["created_at"] = json!("2026-06-02T00:00:00Z");
        payload["deployment_status"]["created_at"] = json!(at);
        let reported =
            ledger.check("receive_github_webhook", state, FEW, |app| deliver(app, event, &payload));
        assert_eq!(reported["outcome"], "applied", "{reported}");
    }
    let applied =
        "deployments WHERE source = 'github' AND service = 'big' AND finished_at IS NOT NULL";
    assert_eq!(count(&mut ledger.app.db(), applied), 1);
}

/// Sends what decides whether `big` may be deployed to production.
fn reviews(ledger: &mut Ledger) {
    let version = json!({"service": "big", "version": "v30000"});
    ledger.write("create_release", "POST", "/v1/releases", version.clone());
    let observed = json!({"version": "v30000", "observed": true});
    let deployment = ledger.deploy(observed);
    ledger.step(&deployment, "failed");
    let image = json!({"image_digest": digest(1), "git_sha": "a".repeat(40)});
    let release = ledger.write("create_release", "POST", "/v1/releases", with(version, image));
    let path = format!("/v1/releases/{}/scan", id(&release));
    ledger.write("record_scan", "PUT", &path, json!({"status": "passed", "tool": "trivy"}));
    let rules = json!({"required_approvals": 1, "allow_self_approval": true});
    ledger.write("update_environment", "PATCH", "/v1/environments/production", rules);
    ledger.deploy(json!({"version": "v30000"}));
    let approval = with(of_big("v30000"), json!({"decision": "approved"}));
    ledger.write("create_approval", "POST", "/v1/approvals", approval.clone());
    ledger.write("create_approval", "POST", "/v1/approvals", approval);
    let freeze = json!({"service": "big", "reason": "Inventory", "starts_at": in_minutes(600)});
    let freeze = ledger.write("create_freeze", "POST", "/v1/freezes", freeze);
    let path = format!("/v1/freezes/{}", id(&freeze));
    let urgent = with(of_big("v20000"), json!({"reason": "Down."}));
    ledger.write("override_freeze", "POST", &format!("{path}/overrides"), urgent);
    ledger.write("update_freeze", "PATCH", &path, json!({"ended": true}));
}

/// Sends all other operations that write.
fn others(ledger: &mut Ledger) {
    let live = ledger.app.get("/v1/services/big/environments/production").expect(200);
    let cause = id(&live["live"]);
    let down = json!({"service": "big", "environment": "production", "title": "Down",
        "severity": "major", "caused_by": [cause]});
    let incident = ledger.write("create_incident", "POST", "/v1/incidents", down);
    let path = format!("/v1/incidents/{}", id(&incident));
    ledger.write("update_incident", "PATCH", &path, json!({"fixed_by": [cause]}));
    ledger.write("update_incident", "PATCH", &path, json!({"resolved": true}));
    let link = format!("{path}/deployments/{cause}");
    ledger.write("unlink_deployment", "DELETE", &link, Value::Null);
    ledger.write("create_service", "POST", "/v1/services", json!({"slug": "new"}));
    let new = json!({"slug": "new", "tier": "testing"});
    ledger.write("create_environment", "POST", "/v1/environments", new);
    let key = json!({"name": "reader", "scopes": ["read"]});
    let key = ledger.write("create_key", "POST", "/v1/keys", key);
    ledger.write("revoke_key", "DELETE", &format!("/v1/keys/{}", id(&key)), Value::Null);
}

/// Follows `next` over pages that end early: nothing is lost, and nothing comes twice.
fn early_ends(app: &TestApp) {
    let page = app.get("/v1/events?entity=freeze").expect(200);
    assert_eq!((&page["items"], page["next"].is_string()), (&json!([]), true));
    assert_eq!(app.all("/v1/events?entity=freeze").len(), 0);
    let found = app.all("/v1/deployments?environment=e1&state=failed");
    let ids: BTreeSet<&str> = found.iter().map(|one| one["id"].as_str().unwrap()).collect();
    let expected =
        count(&mut app.db(), "deployments WHERE environment = 'e1' AND state = 'failed'");
    assert_eq!((found.len(), ids.len()), (expected as usize, expected as usize));
}

#[derive(diesel::QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

/// Checks the plans of the statements that SQLite runs as well. It finds their rows by an index, or
/// reads along one in the order of the list.
fn none_scans_on_sqlite(statements: &BTreeSet<String>) {
    let app = TestApp::on_sqlite();
    let mut db = app.db();
    let mut explained = 0;
    // The plan of an INSERT has the search for rows that refer to the new one, which SQLite does
    // only while it knows of rows that refer to nothing.
    for statement in statements.iter().filter(|statement| !statement.starts_with("INSERT")) {
        let plan = diesel::sql_query(format!("EXPLAIN QUERY PLAN {statement}"));
        let Ok(steps) = plan.load::<Step>(&mut db) else { continue };
        explained += 1;
        let rows_of = |table: &str| {
            let names = ["CO-ROUTINE", "MATERIALIZE"].map(|kind| format!("{kind} {table}"));
            steps.iter().any(|step| names.contains(&step.detail))
        };
        for Step { detail } in &steps {
            let scanned = detail.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            // SQLite reads all of these for the open ones. There are few, beside deployments.
            let is_few = scanned.is_some_and(|it| ["freezes", "incidents"].contains(&it));
            // Nor is the result of a subquery, which has the name of its table.
            let is_history =
                !is_few && scanned.is_some_and(|it| HISTORY.contains(&it) && !rows_of(it));
            let is_in_order = detail.contains("USING") && statement.contains("LIMIT");
            assert!(!is_history || is_in_order, "{detail}: {statement}");
        }
    }
    assert!(explained > 100, "{explained} of {}", statements.len());
}

#[test]
fn what_a_request_reads_does_not_grow_with_the_history() {
    let Some(cluster) = Cluster::start_explaining() else { return };
    let app = TestApp::start(&cluster.url(), &[]);
    app.db().batch_execute(FILL).unwrap();
    let (statements, sent) = (BTreeSet::new(), BTreeSet::new());
    let mut ledger = Ledger { app, log: cluster.log(), read: 0, statements, sent };
    reads(&mut ledger);
    early_ends(&ledger.app);
    deployments(&mut ledger);
    reviews(&mut ledger);
    others(&mut ledger);
    for (id, ..) in operations() {
        let is_known = ledger.sent.contains(&id) || NOT_SENT.iter().any(|(other, _)| *other == id);
        assert!(is_known, "send {id} to a ledger with a long history in this test");
    }
    none_scans_on_sqlite(&ledger.statements);
}
