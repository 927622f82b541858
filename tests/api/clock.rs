//! The times that prop assigns are in the order of the commits, whatever the clocks say.

use crate::gate::{codes, evaluate, in_minutes, person, post_review, production, release, sql};
use crate::harness::{TestApp, new_deployment, together};
use diesel::result::Error;
use jiff::Timestamp;
use prop::db::locks::Service;
use prop::db::{Db, locks};
use prop::http::context::Author;
use prop::ledger::deployments::create;
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::Duration;

crate::on_both_databases! {
    whoever_waited_for_the_lock_is_later
    a_deployment_is_recorded_under_the_lock_however_the_transaction_began
    simultaneous_writes_have_times_in_the_order_of_their_events
    what_a_clock_that_was_ahead_recorded_came_before
}

/// Records an event as a process whose clock is ahead would have done.
fn insert_event(db: &mut Db, at: &str) {
    let insert = format!(
        "INSERT INTO events (at, actor, action, entity, entity_id, service, payload)
            VALUES ('{at}', 'ahead', 'service.updated', 'service', 'checkout', 'checkout', '{{}}')"
    );
    diesel::RunQueryDsl::execute(diesel::sql_query(insert), db).unwrap();
}

fn time(locked: locks::Locked) -> Timestamp {
    assert!(locked.exists);
    locked.now.into()
}

fn whoever_waited_for_the_lock_is_later(app: &TestApp) {
    app.post("/v1/services", json!({"slug": "checkout"})).expect(201);
    for ahead in ["", "an event in the future"] {
        if !ahead.is_empty() {
            insert_event(&mut app.db(), &in_minutes(60));
        }
        let (mut holder, mut waiter) = (app.db(), app.db());
        let (is_held, held) = mpsc::channel();
        let (first, second) = std::thread::scope(|scope| {
            let waits = scope.spawn(move || {
                held.recv().unwrap();
                waiter.write(|db| Ok::<_, Error>(time(locks::service(db, "checkout")?)))
            });
            let first = holder.write(|db| {
                let first = time(locks::service(db, "checkout")?);
                is_held.send(()).unwrap();
                // The other one has begun to wait, before this event is there.
                std::thread::sleep(Duration::from_millis(300));
                insert_event(db, &format!("{first:.6}"));
                Ok::<_, Error>(first)
            });
            (first.unwrap(), waits.join().unwrap().unwrap())
        });
        assert!(first < second, "{ahead}: {first} {second}");
        let waited = second.duration_since(first).as_millis();
        assert!(!ahead.is_empty() || waited >= 300, "read before the lock: {waited} ms");
    }
}

fn a_deployment_is_recorded_under_the_lock_however_the_transaction_began(app: &TestApp) {
    app.go_live("checkout", "staging", "1");
    // As a request begins, and as one whose service was committed just after its lock.
    for begins_with_lock in [true, false] {
        let (mut holder, mut waiter) = (app.db(), app.db());
        let (is_held, held) = mpsc::channel();
        let (first, second) = std::thread::scope(|scope| {
            let waits = scope.spawn(move || {
                held.recv().unwrap();
                waiter.write(|db| {
                    if begins_with_lock {
                        Service::Named("checkout".parse().unwrap()).lock(db)?;
                    }
                    let new = serde_json::from_value(new_deployment("checkout", "staging", "1"));
                    create::request(db, &Author::prop(), new.unwrap())
                })
            });
            let first = holder.write(|db| {
                let first = time(locks::service(db, "checkout")?);
                is_held.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(300));
                insert_event(db, &format!("{first:.6}"));
                Ok::<_, Error>(first)
            });
            (first.unwrap(), waits.join().unwrap().unwrap().0.deployment.requested_at)
        });
        let waited = Timestamp::from(second).duration_since(first).as_millis();
        assert!(waited >= 300, "{begins_with_lock}: recorded before the lock: {waited} ms");
    }
}

/// The times of prop in the order of the events.
#[track_caller]
fn expect_ordered(app: &TestApp) -> Vec<Value> {
    let mut events = app.all("/v1/events?service=checkout");
    events.reverse();
    let times: Vec<_> = events.iter().map(|event| event["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:#?}");
    events
}

fn simultaneous_writes_have_times_in_the_order_of_their_events(app: &TestApp) {
    production(app, json!({"required_approvals": 9}));
    release(app, "1");
    let people: Vec<_> = (0..8).map(|n| person(app, &format!("person-{n}"))).collect();
    let again = app.another();
    for round in 0..3 {
        if round == 2 {
            insert_event(&mut app.db(), &in_minutes(60));
        }
        together(people.len(), |n| {
            let app = if n % 2 == 0 { app } else { &again };
            post_review(app, &people[n], "1", "approved").expect(201);
        });
    }
    let events = expect_ordered(app);
    let of_reviews = events.iter().filter(|event| event["action"] == "approval.approved");
    let times: Vec<_> = of_reviews.map(|event| event["at"].as_str().unwrap()).collect();
    assert_eq!(times.len(), 3 * people.len());
    assert!(times.is_sorted_by(|one, next| one < next), "{times:#?}");
}

fn what_a_clock_that_was_ahead_recorded_came_before(app: &TestApp) {
    production(app, json!({"required_approvals": 1}));
    release(app, "1");
    let (pipeline, bob) = (&person(app, "pipeline"), &person(app, "bob"));
    let approved = post_review(app, bob, "1", "approved").expect(201);
    let future = in_minutes(120);
    let id = approved["id"].as_str().unwrap();
    sql(app, &format!("UPDATE approvals SET created_at = '{future}' WHERE id = '{id}'"));
    insert_event(&mut app.db(), &future);
    assert_eq!(evaluate(app, pipeline, "1")["allowed"], true, "it counts at once");
    let rejected = post_review(app, bob, "1", "rejected").expect(201);
    assert!(rejected["created_at"].as_str() > Some(&*future), "{rejected}");
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["approval_rejected"]);
    let place = json!({"service": "checkout", "environment": "production"});
    let start = crate::gate::with(place.clone(), json!({"version": "1", "start": true}));
    app.post("/v1/deployments", start).expect_problem(409, "gate_blocked");
    // Freezes of the service, overrides and incidents are in the same order.
    let freeze = app
        .post("/v1/freezes", json!({"service": "checkout", "reason": "Quarter end"}))
        .expect(201);
    assert!(freeze["starts_at"].as_str() > rejected["created_at"].as_str(), "{freeze}");
    assert_eq!(codes(&evaluate(app, pipeline, "1")), ["frozen", "approval_rejected"]);
    let path = format!("/v1/freezes/{}", freeze["id"].as_str().unwrap());
    let pass = crate::gate::with(place.clone(), json!({"version": "1", "reason": "Down."}));
    app.post(&format!("{path}/overrides"), pass).expect(201);
    app.patch(&path, json!({"ended": true}), &[]).expect(200);
    let incident = crate::gate::with(place, json!({"title": "Down", "severity": "major"}));
    app.post("/v1/incidents", incident).expect(201);
    post_review(app, bob, "1", "approved").expect(201);
    let codes = codes(&evaluate(app, pipeline, "1")).join(" ");
    assert_eq!(codes, "open_incident");
    expect_ordered(app);
}
