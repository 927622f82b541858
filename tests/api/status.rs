//! `/v1/status`: its size has a bound, whatever a client records.

use crate::harness::TestApp;
use diesel::connection::SimpleConnection;
use serde_json::{Value, json};

crate::on_both_databases! {
    what_waits_is_listed_up_to_ten_a_place
}

fn place(app: &TestApp) -> Value {
    app.get("/v1/status").expect(200)["services"][0]["places"][0].clone()
}

fn versions(place: &Value) -> Vec<String> {
    let waiting = place["waiting"].as_array().unwrap();
    waiting.iter().map(|found| found["version"].as_str().unwrap().to_owned()).collect()
}

/// The least of a few times, since prop also notes the use of keys.
fn statements(app: &TestApp) -> u64 {
    let once = || {
        let before = app.statements();
        app.get("/v1/status").expect(200);
        app.statements() - before
    };
    (0..5).map(|_| once()).min().unwrap()
}

fn what_waits_is_listed_up_to_ten_a_place(app: &TestApp) {
    let record = |versions: std::ops::Range<usize>| {
        for version in versions {
            app.deploy("shop", "production", &version.to_string(), false);
        }
    };
    record(0..9);
    let few = place(app);
    assert_eq!((versions(&few).len(), &few["more_waiting"]), (9, &json!(0)));
    record(9..12);
    let wanted: Vec<_> = (2..12).map(|version| version.to_string()).collect();
    let some = place(app);
    assert_eq!((versions(&some), &some["more_waiting"]), (wanted, &json!(2)));
    assert!(some["waiting"].as_array().unwrap().iter().all(|found| found["blocked"].is_array()));
    let (cost, length) = (statements(app), app.get("/v1/status").text.len());

    record(12..30);
    let many = place(app);
    let wanted: Vec<_> = (20..30).map(|version| version.to_string()).collect();
    assert_eq!((versions(&many), &many["more_waiting"]), (wanted, &json!(20)));
    assert_eq!(statements(app), cost);
    assert!(app.get("/v1/status").text.len() < length + 100);

    // The status ends those that waited too long, listed or not.
    let sql =
        "UPDATE deployments SET expires_at = '2020-01-01T00:00:00.000000Z' WHERE version = '0'";
    app.db().batch_execute(sql).unwrap();
    assert_eq!(place(app)["more_waiting"], 19);
}
