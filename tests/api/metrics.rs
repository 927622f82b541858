//! What the metrics say of the ledger: to everybody how often, and to readers what is live.

use crate::gate::{deploy, go_live, in_minutes, person, production, release, with};
use crate::harness::{Answer, TestApp, fresh_postgres, new_deployment};
use prop::db::Db;
use prop::db::connection::{Options, Target};
use prop::db::counting::count;
use prop::db::pool::{Database, Limits};
use prop::error::{Code, Error};
use prop::types::counted::Counted;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

crate::on_both_databases! {
    rollouts_are_counted_by_how_they_ended
    what_is_repeated_or_refused_is_not_counted_again
    the_reasons_of_the_gate_are_counted_where_it_blocks
    the_time_until_approval_and_start_is_counted
    what_is_live_is_for_readers_only
    a_scrape_without_a_key_costs_the_database_nothing
    the_dashboard_and_the_documentation_use_what_is_there
}

fn ended(app: &TestApp, outcome: &str, kind: &str) -> f64 {
    // In the order of the names.
    app.metric(&format!(r#"prop_deployments_total{{kind="{kind}",outcome="{outcome}"}}"#))
}

fn rollouts_are_counted_by_how_they_ended(app: &TestApp) {
    for outcome in ["succeeded", "failed", "cancelled"] {
        for kind in ["normal", "redeploy", "rollback", "hotfix"] {
            assert_eq!(ended(app, outcome, kind), 0.0, "{outcome} {kind}");
        }
    }
    for version in ["1", "2", "1"] {
        app.go_live("checkout", "staging", version);
    }
    for outcome in ["failed", "cancelled"] {
        let running = app.deploy("checkout", "staging", "3", true);
        app.transition(&running, outcome).expect(200);
    }
    // In one call, and too late to be live.
    let late = json!({"state": "succeeded", "at": in_minutes(-60), "finished_at": in_minutes(-50)});
    app.post("/v1/deployments", with(new_deployment("checkout", "staging", "0"), late)).expect(201);
    // What did not start was no rollout, and what runs has not ended.
    let waiting = app.deploy("checkout", "staging", "4", false);
    app.transition(&waiting, "cancelled").expect(200);
    app.deploy("checkout", "staging", "5", true);

    assert_eq!(ended(app, "succeeded", "normal"), 3.0);
    assert_eq!(ended(app, "succeeded", "rollback"), 1.0);
    assert_eq!((ended(app, "failed", "normal"), ended(app, "cancelled", "normal")), (1.0, 1.0));
}

fn what_is_repeated_or_refused_is_not_counted_again(app: &TestApp) {
    let running = app.deploy("checkout", "staging", "1", true);
    let path = format!("/v1/deployments/{}/transitions", running["id"].as_str().unwrap());
    let key = [("Idempotency-Key", "once")];
    for _ in 0..3 {
        let body = json!({"to": "succeeded"});
        app.call("POST", &path, crate::harness::ADMIN, Some(&body), &key).expect(200);
    }
    app.transition(&running, "succeeded").expect(200);
    app.transition(&running, "failed").expect(409);
    assert_eq!((ended(app, "succeeded", "normal"), ended(app, "failed", "normal")), (1.0, 0.0));
}

fn blocks(app: &TestApp, code: &str) -> f64 {
    app.metric(&format!(r#"prop_gate_blocks_total{{code="{code}"}}"#))
}

fn the_reasons_of_the_gate_are_counted_where_it_blocks(app: &TestApp) {
    for code in prop::rules::gate::Code::ALL {
        assert_eq!(blocks(app, code.as_str()), 0.0);
    }
    production(app, json!({"require_scan": true}));
    let body = json!({"service": "checkout", "version": "1", "create_missing": true});
    app.post("/v1/releases", body).expect(201);
    // An answer of the gate blocks nothing.
    let question = "/v1/gate?service=checkout&environment=production&version=1";
    assert_eq!(app.get(question).expect(200)["allowed"], false);
    assert_eq!(blocks(app, "digest_missing"), 0.0);
    let pipeline = person(app, "pipeline");
    for _ in 0..2 {
        deploy(app, &pipeline, "1", json!({"start": true})).expect_problem(409, "gate_blocked");
    }
    assert_eq!((blocks(app, "digest_missing"), blocks(app, "scan_missing")), (2.0, 2.0));
    // The service and the environment are taken back, and the refusal stays.
    let tier = json!({"slug": "live", "tier": "production"});
    app.post("/v1/environments", tier).expect(201);
    let new = json!({"service": "new", "environment": "live", "version": "1",
        "create_missing": true});
    app.post("/v1/deployments", new).expect_problem(409, "gate_blocked");
    assert_eq!(blocks(app, "digest_missing"), 3.0);
    // What was observed is not blocked.
    deploy(app, &pipeline, "1", json!({"observed": true})).expect(201);
    assert_eq!(blocks(app, "digest_missing"), 3.0);
}

fn the_time_until_approval_and_start_is_counted(app: &TestApp) {
    let of = |what: &str, until: &str| {
        app.metric(&format!(r#"prop_deployment_waiting_seconds_{what}{{until="{until}"}}"#))
    };
    let waited = || (of("count", "approval"), of("count", "start"));
    assert_eq!(waited(), (0.0, 0.0));
    production(app, json!({"required_approvals": 1}));
    let (pipeline, alice) = (person(app, "pipeline"), person(app, "alice"));
    release(app, "1");
    let waiting = deploy(app, &pipeline, "1", json!({})).expect(201);
    assert_eq!(waited(), (0.0, 0.0));
    let review = json!({"service": "checkout", "version": "1", "environment": "production",
        "decision": "approved"});
    app.call("POST", "/v1/approvals", &alice, Some(&review), &[]).expect(201);
    assert_eq!(waited(), (1.0, 0.0));
    app.transition(&waiting, "running").expect(200);
    assert_eq!(waited(), (1.0, 1.0));
    assert!(of("sum", "start") >= of("sum", "approval") && of("sum", "approval") > 0.0);
    app.transition(&waiting, "succeeded").expect(200);
    // What starts when it is requested has waited for nothing.
    app.go_live("search", "staging", "1");
    assert_eq!(waited(), (1.0, 1.0));
}

/// The lines about what is live.
fn live(answer: &Answer) -> Vec<&str> {
    let lines = answer.text.lines();
    lines.filter_map(|line| line.strip_prefix("prop_live_info")).collect()
}

fn what_is_live_is_for_readers_only(app: &TestApp) {
    production(app, json!({}));
    let pipeline = person(app, "pipeline");
    for version in ["1", "2"] {
        release(app, version);
        go_live(app, &pipeline, version);
    }
    app.go_live("search", "staging", "1");
    app.deploy("search", "staging", "2", true);
    let scrape = |key: &str| app.call("GET", "/metrics", key, None, &[]);
    let is_live = [
        r#"{environment="production",service="checkout",version="2"} 1"#,
        r#"{environment="staging",service="search",version="1"} 1"#,
    ];
    assert_eq!(live(&scrape(&app.key("prometheus", &["read"]))), is_live);
    let anonymous = app.metrics();
    assert!(!anonymous.contains("search") && !anonymous.contains("production"), "{anonymous}");
    // A key for something else learns no more than nobody.
    let scanner = scrape(&app.key("scanner", &["attest"]));
    assert!(scanner.status == 200 && live(&scanner).is_empty(), "{scanner:?}");
    scrape("prop_NotAKey").expect_problem(401, "invalid_key");
    let public = TestApp::start(&app.database_url, &[("PROP_PUBLIC_READ", "true")]);
    let everybody = public.send(public.request("GET", "/metrics").body(Vec::new()).unwrap());
    assert_eq!(live(&everybody), is_live);
}

fn a_scrape_without_a_key_costs_the_database_nothing(app: &TestApp) {
    app.go_live("search", "staging", "1");
    // prop tidies up at its start.
    let unchanged = || app.statements() == app.statements();
    assert!((0..3).any(|_| unchanged()));
}

/// The words of a text that begin like a name of ours, each up to the first other character.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !is_part(c));
    words.filter(|word| word.starts_with("prop_")).collect()
}

/// Every query of a dashboard, those of its variables too.
fn queries(dashboard: &Value) -> Vec<&str> {
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter_map(|variable| variable["query"]["query"].as_str());
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap()).chain(variables).collect()
}

fn the_dashboard_and_the_documentation_use_what_is_there(app: &TestApp) {
    app.go_live("checkout", "staging", "1");
    let answer = app.get("/metrics").text;
    let lines = answer.lines();
    let families: BTreeSet<&str> =
        lines.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();

    let dashboard: Value =
        serde_json::from_str(include_str!("../../docs/grafana/prop.json")).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 10, "{queries:?}");
    let mut used = BTreeSet::new();
    for query in &queries {
        for name in names(query) {
            let series = |line: &str| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            assert!(answer.lines().any(series), "{name} of {query}: {answer}");
            used.extend(families.iter().filter(|family| name.starts_with(**family)));
        }
        // Labels in `by (...)` and `{...}`; Prometheus itself adds `job`.
        let grouped = query.split("by (").skip(1).map(|rest| rest.split(')').next().unwrap());
        let matched = query.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
        let labels = grouped.chain(matched).flat_map(|labels| labels.split(','));
        for label in labels.map(|label| label.split(['=', '!']).next().unwrap().trim()) {
            let is_known = label == "job" || answer.contains(&format!("{label}=\""));
            assert!(is_known, "{label} of {query}");
        }
    }
    assert_eq!(used, families, "the dashboard shows every metric");
    let rows: BTreeSet<&str> = include_str!("../../docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(rows, families, "docs/metrics.md has every metric");
}

/// A database, with what it counts.
fn counting(target: Target) -> (Database, Arc<Mutex<Vec<Counted>>>) {
    let time = Duration::from_secs(30);
    let options =
        Options { prepared_statements: true, statement_timeout: time, slow_statement: time };
    let limits = Limits { connections: 1, queue: 10, time };
    let counted: Arc<Mutex<Vec<Counted>>> = Arc::default();
    let counts = counted.clone();
    let counter = Arc::new(move |what| counts.lock().unwrap().push(what));
    (Database::start(target, options, &limits, None, counter).unwrap(), counted)
}

fn blocked(code: &'static str) -> Counted {
    Counted::Blocked { code }
}

fn refused() -> Error {
    Error::new(Code::NotFound, "on purpose")
}

/// What is rolled back, as a whole or in part, has not happened.
fn only_what_is_committed_counts(target: Target) {
    type Job = fn(&mut Db) -> Result<(), Error>;
    let (database, counted) = counting(target);
    let run = |work: Job| {
        let result = actix_web::rt::System::new().block_on(database.write(work));
        result.map_err(|error: Error| error.code)
    };
    assert!(run(|_| Err(refused()).inspect_err(|_| count(blocked("refused")))).is_err());
    let panics: Job = |_| {
        count(blocked("panic"));
        panic!("on purpose")
    };
    assert!(run(panics).is_err());
    let in_part: Job = |db| {
        count(blocked("before"));
        let refused = db.savepoint(|_| {
            count(blocked("part"));
            Err::<(), _>(refused())
        });
        assert!(refused.is_err());
        db.savepoint(|_| {
            count(blocked("after"));
            Ok(())
        })
    };
    assert_eq!(run(in_part), Ok(()));
    assert_eq!(*counted.lock().unwrap(), [blocked("before"), blocked("after")]);
}

#[test]
fn only_what_is_committed_counts_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("prop.db").display().to_string();
    only_what_is_committed_counts(Target::Sqlite(path));
}

#[test]
fn only_what_is_committed_counts_on_postgres() {
    if let Some(url) = fresh_postgres() {
        only_what_is_committed_counts(Target::from_url(&url).unwrap());
    }
}
