//! What is left of acknowledged work when a process or the database goes away under load.

use crate::harness::{ADMIN, Cluster, TestApp, fresh_postgres};
use crate::load::{Attempt, Load, expect_nothing_lost};
use crate::process::{run, serve, sqlite_in, wait_for};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;

/// Sends again, under its name, whatever got no answer; then it is there, once.
#[track_caller]
fn send_unanswered_again(app: &TestApp, attempts: &mut [Attempt]) -> usize {
    let unanswered = attempts.iter_mut().filter(|attempt| attempt.answer.is_none());
    let again = unanswered.map(|attempt| {
        let mut answer = app.call("POST", "/v1/deployments", ADMIN, Some(&attempt.body), &[]);
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        answer.status = 201;
        attempt.answer = Some(answer);
    });
    again.count()
}

#[test]
fn one_of_two_processes_is_killed() {
    let Some(database) = fresh_postgres() else { return };
    let (mut first, app) = serve(&database, &[]);
    let (_second, survivor) = serve(&database, &[]);
    let load = Load::start(&[&app, &survivor], CLIENTS);
    load.wait_for_acknowledged(200);
    first.kill();
    load.wait_for_acknowledged(200);
    let mut attempts = load.stop();

    let wrong = attempts
        .iter()
        .filter_map(|attempt| attempt.answer.as_ref())
        .find(|answer| answer.status != 201);
    assert!(wrong.is_none(), "{wrong:?}");
    let unanswered = send_unanswered_again(&survivor, &mut attempts);
    assert!(unanswered > 0, "the kill hit nobody");
    expect_nothing_lost(&survivor, &attempts);
    println!(
        "one of two killed: {} acknowledged, {unanswered} unanswered",
        attempts.len() - unanswered
    );
}

/// `KILLS=50` does it more often than every run of the tests needs to.
#[test]
fn the_only_process_is_killed_on_sqlite() {
    let kills = std::env::var("KILLS").map_or(1, |kills| kills.parse().unwrap());
    for _ in 0..kills {
        kill_the_only_process_on_sqlite();
    }
}

fn kill_the_only_process_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let (mut process, app) = serve(&database, &[]);
    // Several share a transaction.
    let load = Load::start(&[&app], 2 * CLIENTS);
    load.wait_for_acknowledged(200);
    process.kill();
    load.wait_for_refused(2 * CLIENTS);
    let mut attempts = load.stop();

    let (_process, app) = serve(&database, &[]);
    let acknowledged = attempts.iter().filter(|attempt| attempt.is_acknowledged()).count();
    expect_nothing_lost(&app, &attempts);
    let unanswered = send_unanswered_again(&app, &mut attempts);
    expect_nothing_lost(&app, &attempts);
    println!("SQLite, killed: {acknowledged} acknowledged, {unanswered} unanswered");
}

#[test]
fn the_database_crashes_and_comes_back() {
    let Some(mut cluster) = Cluster::start_durable() else { return };
    let time_limit = Duration::from_secs(2);
    let (process, app) = serve(&cluster.url(), &[("PROP_DATABASE__TIMEOUT_SECONDS", "2")]);
    let load = Load::start(&[&app], CLIENTS);
    load.wait_for_acknowledged(200);
    cluster.stop();
    let stopped = Instant::now();
    // Each client meets it several times.
    load.wait_for_refused(4 * CLIENTS);
    app.get("/livez").expect(200);
    let asked = Instant::now();
    let ready = app.get("/readyz");
    assert!(
        ["database_unavailable", "timed_out"]
            .contains(&ready.expect(503)["code"].as_str().unwrap()),
        "{ready:?}"
    );
    assert!(asked.elapsed() < 3 * time_limit, "{:?}", asked.elapsed());
    let port = app.url.rsplit_once(':').unwrap().1;
    // The counters are there, without what is live, although this key can't be looked up any more.
    let metrics = app.get("/metrics");
    assert!(metrics.status == 200 && !metrics.text.contains("prop_live_info{"), "{metrics:?}");
    let checked = |arguments| run(arguments, "", &[("PROP_HTTP__PORT", port)]).code;
    assert_eq!(checked(&["healthcheck"]), Some(1));
    // What restarts prop must not do so now.
    assert_eq!(checked(&["healthcheck", "--live"]), Some(0));
    let starts = Instant::now();
    cluster.start_again();
    let there = Instant::now();
    load.wait_for_acknowledged(1);
    let served = there.elapsed();
    wait_for("ready", || (app.get("/readyz").status == 200).then_some(()));
    let ready = there.elapsed();
    load.wait_for_acknowledged(200);
    let attempts = load.stop();

    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for attempt in &attempts {
        let answer = attempt.answer.as_ref().expect("the server was there all the time");
        assert!(attempt.took < 3 * time_limit, "{:?} for {answer:?}", attempt.took);
        if !attempt.is_acknowledged() {
            let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
            assert!(
                ["database_unavailable", "outcome_unknown", "timed_out", "overloaded"]
                    .contains(&code.as_str()),
                "{answer:?}"
            );
            answer.expect_problem(503, &code);
            assert_ne!(answer.header("retry-after"), "", "{answer:?}");
            *codes.entry(code).or_default() += 1;
        }
        let answered = attempt.sent + attempt.took;
        assert!(
            !attempt.is_acknowledged() || attempt.sent < stopped || answered > starts,
            "acknowledged without a database"
        );
    }
    let recorded = expect_nothing_lost(&app, &attempts);
    for attempt in &attempts {
        let answer = attempt.answer.as_ref().unwrap();
        let says_no = ["database_unavailable", "overloaded"]
            .contains(&answer.json()["code"].as_str().unwrap_or_default());
        assert!(!says_no || !recorded.contains_key(attempt.external_id()), "{answer:?}");
    }
    let done_all_the_same = attempts
        .iter()
        .filter(|a| !a.is_acknowledged() && recorded.contains_key(a.external_id()))
        .count();
    let slowest = attempts.iter().map(|attempt| attempt.took).max().unwrap();
    println!(
        "PostgreSQL away for {:?}: {} acknowledged, 503: {codes:?}, of these recorded all the \
            same: {done_all_the_same}, \
        slowest answer {slowest:?}, served again {served:?} and ready {ready:?} after it answered",
        there - stopped,
        attempts.iter().filter(|attempt| attempt.is_acknowledged()).count(),
    );
    assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
}
