//! A ledger that an earlier version kept report by report is derived from its facts, once.

use crate::gate::sql;
use crate::harness::{TestApp, connect};
use diesel::RunQueryDsl;
use diesel::sql_types::BigInt;
use prop::db::Db;
use prop::ledger::backfill;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

crate::on_both_databases! {
    a_place_is_derived_once_from_what_an_earlier_version_recorded
}

const PLACES: [&str; 2] = ["production", "staging"];

/// What is derived of the deployments, by their external ids.
fn seen(app: &TestApp) -> Value {
    let all = app.all("/v1/deployments");
    let name = |id: &Value| {
        let of_it = all.iter().find(|one| one["id"] == *id);
        of_it.map_or(Value::Null, |one| one["external_id"].clone())
    };
    let brief = |one: &Value| {
        let fields = ["external_id", "state", "kind", "started_at", "finished_at", "before_commit"];
        let mut brief: Vec<Value> = fields.iter().map(|field| one[*field].clone()).collect();
        brief.extend([name(&one["previous_id"]), name(&one["rollback_of"])]);
        json!(brief)
    };
    let mut brief: Vec<Value> = all.iter().map(brief).collect();
    brief.sort_by_key(ToString::to_string);
    json!(brief)
}

/// Five deployments of each place: V1, V2, one that V3's start overtook, V1 again, V3 that runs.
fn story(app: &TestApp) {
    for place in PLACES {
        let report = |n: u32, version: &str, state: &str| {
            let mut body = json!({"service": "checkout", "environment": place, "version": version,
                "external_id": format!("{place} {n}"), "state": state, "create_missing": true,
                "at": format!("2026-03-02T1{n}:00:00Z")});
            if state != "running" {
                body["finished_at"] = json!(format!("2026-03-02T1{n}:30:00Z"));
            }
            app.post("/v1/deployments", body).expect(201);
        };
        report(1, "1", "succeeded");
        report(2, "2", "succeeded");
        report(3, "2", "running");
        report(4, "1", "succeeded");
        report(5, "3", "running");
    }
    let late =
        json!({"service": "checkout", "version": "1", "committed_at": "2026-03-05T00:00:00Z"});
    app.post("/v1/releases", late).expect(200);
}

/// Sets the rows as an earlier version left them whose reports came in another order: the import of
/// V1 became live over what came later, and the start of V3 ended what it overtook.
fn as_an_earlier_version_left_it(app: &TestApp) {
    let set = |id: &str, values: &str| {
        for place in PLACES {
            let row = format!("external_id = '{place} {id}'");
            sql(app, &format!("UPDATE deployments SET {values} WHERE {row}"));
        }
    };
    let nothing = "previous_id = NULL, rollback_of = NULL";
    set("4", &format!("state = 'superseded', kind = 'normal', before_commit = false, {nothing}"));
    set("2", &format!("state = 'superseded', kind = 'hotfix', {nothing}"));
    set("1", &format!("state = 'succeeded', kind = 'rollback', before_commit = false, {nothing}"));
    let reason = "deployment 0 was observed to run in its place";
    set("3", &format!("finished_at = '2026-03-02T15:00:00.000000Z', reason = '{reason}'"));
    for place in PLACES {
        let row = format!("('checkout', '{place}')");
        sql(app, &format!("INSERT INTO derived_places (service, environment) VALUES {row}"));
    }
}

/// Derives a place to the end, and returns how many deployments changed.
fn derive(db: &mut Db, place: &str) -> usize {
    let mut changed = 0;
    loop {
        let step = db.write(|db| backfill::derive(db, "checkout", place)).unwrap();
        changed += step.0;
        if step.1 {
            return changed;
        }
    }
}

/// Waits until a starting prop has derived all places.
fn wait_until_derived(app: &TestApp) {
    let (mut db, begin) = (app.db(), Instant::now());
    while !backfill::pending(&mut db).unwrap().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "still pending");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_place_is_derived_once_from_what_an_earlier_version_recorded(app: &TestApp) {
    story(app);
    let expected = seen(app);
    as_an_earlier_version_left_it(app);
    let requested = app.all("/v1/events?action=deployment.requested");
    assert_ne!(seen(app), expected);

    // One place is done, and then the process ends.
    let mut db = connect(&app.database_url);
    assert_eq!(derive(&mut db, "production"), 4);
    assert_eq!(backfill::pending(&mut db).unwrap(), [("checkout".into(), "staging".into())]);
    let half = seen(app);
    let of = |seen: &Value, place: &str| -> Vec<Value> {
        let all = seen.as_array().unwrap().iter();
        all.filter(|one| one[0].as_str().unwrap().starts_with(place)).cloned().collect()
    };
    assert_eq!(of(&half, "production"), of(&expected, "production"));
    assert_ne!(of(&half, "staging"), of(&expected, "staging"));

    // The next one goes on, while the API answers.
    let next = &TestApp::start(&app.database_url, &[]);
    wait_until_derived(next);
    assert_eq!(seen(next), expected);
    let events = next.all("/v1/events?action=deployment.rederived");
    let of_the_upgrade: Vec<_> =
        events.iter().filter(|event| event["payload"]["because_of"] == Value::Null).collect();
    assert_eq!(of_the_upgrade.len(), 8);
    assert!(of_the_upgrade.iter().all(|event| event["actor"] == "prop"), "{of_the_upgrade:?}");
    assert_eq!(next.all("/v1/events?action=deployment.requested"), requested);

    // Done once; and again it would change nothing.
    assert_eq!(derive(&mut db, "production"), 0);
    sql(next, "UPDATE derived_places SET derived_at = NULL");
    assert_eq!(PLACES.map(|place| derive(&mut db, place)), [0, 0]);
    assert_eq!(next.all("/v1/events?action=deployment.rederived").len(), events.len());
}

/// Records successes of a place, one a minute, of a hundred releases in turn, as SQL.
fn fill(app: &TestApp, place: &str, n: u32) {
    app.post("/v1/environments", json!({"slug": place, "tier": "testing"})).expect(201);
    let release = |version: u32| {
        let body = json!({"service": "checkout", "version": format!("1.{version}"),
            "create_missing": true});
        app.post("/v1/releases", body).expect(201)["id"].as_str().unwrap().to_owned()
    };
    let releases: Vec<String> = (0..100).map(release).collect();
    let first = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(i64::from(n) + 60);
    let rows: Vec<String> = (0..n)
        .map(|n| {
            let version = n as usize % 100;
            let at = first + jiff::SignedDuration::from_mins(n.into());
            let (id, release) = (uuid::Uuid::now_v7(), &releases[version]);
            format!(
                "('{id}', 'checkout', '{place}', '{release}', '1.{version}', 'superseded', \
                 'normal', false, 'pipeline', 'api', '{at:.6}', '{at:.6}', '{at:.6}', 2)"
            )
        })
        .collect();
    let columns = "id, service, environment, release_id, version, state, kind, unplanned, \
                   requested_by, source, requested_at, started_at, finished_at, revision";
    for rows in rows.chunks(1000) {
        sql(app, &format!("INSERT INTO deployments ({columns}) VALUES {}", rows.join(", ")));
    }
    sql(
        app,
        &format!(
            "INSERT INTO derived_places (service, environment) VALUES ('checkout', '{place}')"
        ),
    );
}

/// Prints how long it takes to derive a large ledger again, and to record a late fact in it.
fn measure(app: &TestApp, database: &str) {
    let size: u32 = std::env::var("PLACE_SIZE").map_or(5000, |n| n.parse().unwrap());
    fill(app, "large", size);
    let begin = Instant::now();
    let changed = derive(&mut app.db(), "large");
    println!("{database}: {changed} of {size} derived for the first time in {:?}", begin.elapsed());
    sql(app, "UPDATE derived_places SET derived_at = NULL");
    let begin = Instant::now();
    assert_eq!(derive(&mut app.db(), "large"), 0);
    println!("{database}: {size} derived again, nothing changed, in {:?}", begin.elapsed());
    for (what, version) in [("a release of its own", "2"), ("a release that was live often", "1.7")]
    {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(i64::from(size) + 60);
        let late = json!({"service": "checkout", "environment": "large", "version": version,
            "state": "succeeded", "at": at.to_string(), "create_missing": true});
        let (before, begin) = (app.statements(), Instant::now());
        app.post("/v1/deployments", late).expect(201);
        println!(
            "{database}: a late success of {what} before {size} others: {:?}, {} statements",
            begin.elapsed(),
            app.statements() - before
        );
    }
    let count: i64 = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM events")
        .get_result(&mut app.db())
        .unwrap();
    println!("{database}: {count} events");
}

#[test]
#[ignore = "measures, and takes a minute"]
fn a_large_place() {
    measure(&TestApp::on_sqlite(), "SQLite");
    if let Some(app) = TestApp::on_postgres() {
        measure(&app, "PostgreSQL");
    }
}
