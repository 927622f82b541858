//! More work than the database gets done.

use crate::harness::fresh_postgres;
use crate::load::{Load, expect_nothing_lost};
use crate::process::{serve, sqlite_in};

fn a_full_queue_answers_at_once_and_loses_nothing(database: &str) {
    let (_process, app) =
        serve(database, &[("PROP_DATABASE__QUEUE", "1"), ("PROP_DATABASE__POOL_SIZE", "1")]);
    let load = Load::start(&[&app], 16);
    load.wait_for_refused(20);
    load.wait_for_acknowledged(100);
    let attempts = load.stop();

    let (acknowledged, refused): (Vec<_>, Vec<_>) =
        attempts.iter().partition(|attempt| attempt.is_acknowledged());
    let recorded = expect_nothing_lost(&app, &attempts);
    for attempt in &refused {
        let answer = attempt.answer.as_ref().expect("an answer");
        answer.expect_problem(503, "overloaded");
        assert_ne!(answer.header("retry-after"), "", "{answer:?}");
        assert!(
            !recorded.contains_key(attempt.external_id()),
            "refused, and recorded: {}",
            attempt.body
        );
    }
    println!("overload: {} acknowledged, {} overloaded", acknowledged.len(), refused.len());
}

#[test]
fn sqlite() {
    let directory = tempfile::tempdir().unwrap();
    a_full_queue_answers_at_once_and_loses_nothing(&sqlite_in(&directory));
}

#[test]
fn postgres() {
    if let Some(database) = fresh_postgres() {
        a_full_queue_answers_at_once_and_loses_nothing(&database);
    }
}
