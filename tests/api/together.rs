//! Reads by primary key that wait together share one statement.

use crate::harness::{ADMIN, TestApp, behind_pooler, nobody, together};
use crate::on_both_databases;
use actix_web::rt;
use diesel::connection::SimpleConnection;
use prop::db::Db;
use prop::db::connection::{Options, Target};
use prop::db::pool::{Database, Limits};
use prop::db::together::{ByKey, Together};
use prop::error::{Code, Error};
use serde_json::Value;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// What was read of one kind of thing, and whether reads go on.
struct Probe {
    loads: Mutex<Vec<Vec<i32>>>,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Probe {
    const fn closed() -> Self {
        Self { loads: Mutex::new(Vec::new()), is_open: Mutex::new(false), opened: Condvar::new() }
    }
}

/// One kind for each test, since they run at the same time.
static PROBES: [Probe; 4] = [const { Probe::closed() }; 4];

/// Things with a number. Those below 0 do not exist; [`PANICS`] and [`FAILS`] cannot be read.
struct Thing<const TEST: usize>;

const PANICS: i32 = 1000;
const FAILS: i32 = 1001;

impl<const TEST: usize> ByKey for Thing<TEST> {
    type Key = i32;
    type Value = String;
    type Error = Error;

    fn load(_: &mut Db, keys: &[i32]) -> Result<Vec<(i32, String)>, Error> {
        PROBES[TEST].loads.lock().unwrap().push(keys.to_vec());
        let is_open = PROBES[TEST].is_open.lock().unwrap();
        drop(PROBES[TEST].opened.wait_while(is_open, |is_open| !*is_open).unwrap());
        assert!(!keys.contains(&PANICS), "on purpose");
        if keys.contains(&FAILS) {
            return Err(Error::new(Code::NotFound, "on purpose"));
        }
        Ok(keys.iter().filter(|key| **key >= 0).map(|key| (*key, key.to_string())).collect())
    }
}

type Found = rt::task::JoinHandle<Result<Option<String>, Error>>;

/// A database of so many threads, with what reads of it by key.
struct Stand<const TEST: usize> {
    together: std::rc::Rc<Together>,
    database: Database,
    _directory: tempfile::TempDir,
}

impl<const TEST: usize> Stand<TEST> {
    fn new(connections: u32, queue: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prop.db").display().to_string();
        let time = Duration::from_secs(30);
        let options =
            Options { prepared_statements: true, statement_timeout: time, slow_statement: time };
        let limits = Limits { connections, queue, time };
        let database =
            Database::start(Target::Sqlite(path), options, &limits, None, nobody()).unwrap();
        let together = std::rc::Rc::new(Together::new(database.clone()));
        Self { together, database, _directory: directory }
    }

    /// Asks for a thing, and lets the reads begin that can.
    async fn ask(&self, key: i32) -> Found {
        let together = self.together.clone();
        let asked = rt::spawn(async move { together.find::<Thing<TEST>>(key).await });
        rt::time::sleep(Duration::from_millis(2)).await;
        asked
    }

    /// Asks for two things, one after the other, whose reads do not end before [`Self::open`].
    async fn occupy(&self) -> Vec<Found> {
        let mut asked = Vec::new();
        for key in [1, 2] {
            asked.push(self.ask(key).await);
            while self.loads().len() < asked.len() {
                rt::time::sleep(Duration::from_millis(1)).await;
            }
        }
        asked
    }

    fn open(&self) {
        *PROBES[TEST].is_open.lock().unwrap() = true;
        PROBES[TEST].opened.notify_all();
    }

    /// The keys of each statement so far.
    fn loads(&self) -> Vec<Vec<i32>> {
        PROBES[TEST].loads.lock().unwrap().clone()
    }
}

fn text(of: i32) -> Option<String> {
    Some(of.to_string())
}

async fn of(asked: Found) -> Result<Option<String>, Code> {
    asked.await.unwrap().map_err(|error| error.code)
}

#[test]
fn who_waits_is_read_with_the_others() {
    rt::System::new().block_on(async {
        let stand = Stand::<0>::new(4, 64);
        let first = stand.occupy().await;
        let mut others = Vec::new();
        for key in [3, 4, 3, -1, 5] {
            others.push(stand.ask(key).await);
        }
        // One that does not wait for the answer.
        stand.ask(6).await.abort();
        rt::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(stand.loads(), [[1], [2]], "at once, and no more than two");
        stand.open();
        for (asked, key) in first.into_iter().zip([1, 2]) {
            assert_eq!(of(asked).await, Ok(text(key)));
        }
        for (asked, found) in others.into_iter().zip([text(3), text(4), text(3), None, text(5)]) {
            assert_eq!(of(asked).await, Ok(found));
        }
        assert_eq!(stand.loads()[2..], [[3, 4, 3, -1, 5]]);
        // Nobody waits, so the next one is alone again.
        assert_eq!(of(stand.ask(7).await).await, Ok(text(7)));
        assert_eq!(stand.loads()[3..], [[7]]);
    });
}

#[test]
fn what_fails_does_so_alone() {
    rt::System::new().block_on(async {
        let stand = Stand::<1>::new(4, 64);
        let first = stand.occupy().await;
        let mut others = Vec::new();
        for key in [PANICS, 3, FAILS, 4] {
            others.push(stand.ask(key).await);
        }
        stand.open();
        for (asked, key) in first.into_iter().zip([1, 2]) {
            assert_eq!(of(asked).await, Ok(text(key)));
        }
        let results = [Err(Code::Internal), Ok(text(3)), Err(Code::NotFound), Ok(text(4))];
        for (asked, result) in others.into_iter().zip(results) {
            assert_eq!(of(asked).await, result);
        }
        // As often as there may be statements, and once more: none of them is taken for running.
        for _ in 0..3 {
            assert_eq!(of(stand.ask(PANICS).await).await, Err(Code::Internal));
        }
        assert_eq!(of(stand.ask(5).await).await, Ok(text(5)));
    });
}

#[test]
fn the_queue_bounds_who_waits() {
    rt::System::new().block_on(async {
        let stand = Stand::<2>::new(2, 3);
        let first = stand.occupy().await;
        let mut others = Vec::new();
        for key in 3..6 {
            others.push(stand.ask(key).await);
        }
        assert_eq!(of(stand.ask(6).await).await, Err(Code::Overloaded));
        stand.open();
        for (asked, key) in first.into_iter().chain(others).zip(1..) {
            assert_eq!(of(asked).await, Ok(text(key)));
        }
        assert_eq!(of(stand.ask(7).await).await, Ok(text(7)));
    });
}

#[test]
fn other_work_has_its_turn() {
    rt::System::new().block_on(async {
        let stand = Stand::<3>::new(1, 64);
        let first = stand.ask(1).await;
        let mut others = Vec::new();
        for key in 2..50 {
            others.push(stand.ask(key).await);
        }
        let database = stand.database.clone();
        let other = rt::spawn(async move {
            database.read(|_| Ok::<_, Error>(PROBES[3].loads.lock().unwrap().len())).await
        });
        rt::time::sleep(Duration::from_millis(5)).await;
        stand.open();
        assert_eq!(of(first).await, Ok(text(1)));
        let before = other.await.unwrap().unwrap();
        assert!(before <= 2, "after {before} statements");
        for asked in others {
            assert!(of(asked).await.is_ok());
        }
    });
}

/// The answers to `n` clients that ask while no deployment can be read, once one can be again.
fn held_up(app: &TestApp, n: usize, path: impl Fn(usize) -> String + Sync) -> Vec<Value> {
    let mut other = app.db();
    other.batch_execute("BEGIN; LOCK TABLE deployments IN ACCESS EXCLUSIVE MODE").unwrap();
    std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            together(n, |i| app.another().call("GET", &path(i), ADMIN, None, &[]).json())
        });
        std::thread::sleep(Duration::from_millis(800));
        other.batch_execute("COMMIT").unwrap();
        answers.join().unwrap()
    })
}

#[test]
fn many_callers_take_few_statements() {
    let Some(app) = TestApp::on_postgres() else { return };
    let known = ["1", "2", "3"].map(|version| app.deploy("checkout", "staging", version, false));
    let id = |i: usize| known.get(i % 4).map_or_else(unknown, |it| it["id"].to_string());
    let path = |i: usize| format!("/v1/deployments/{}", id(i).trim_matches('"'));
    let before = app.statements();
    let answers = held_up(&app, 32, path);
    let taken = app.statements() - before;
    for (i, answer) in answers.into_iter().enumerate() {
        match known.get(i % 4) {
            Some(known) => assert_eq!(&answer, known),
            None => assert_eq!(answer["code"], "not_found"),
        }
    }
    // Two at once, the rest together, and the key; behind a pooler, each in a transaction.
    let most = if behind_pooler().is_some() { 12 } else { 4 };
    assert!(taken <= most, "{taken}");
}

fn unknown() -> String {
    "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42".to_owned()
}

on_both_databases! {
    a_deployment_is_read_as_it_is
}

fn a_deployment_is_read_as_it_is(app: &TestApp) {
    let known = app.deploy("checkout", "staging", "1", false);
    let path = format!("/v1/deployments/{}", known["id"].as_str().unwrap());
    let answer = app.get(&path);
    assert_eq!(answer.expect(200), known);
    assert_eq!(answer.header("etag"), "\"1\"");
    app.get(&format!("/v1/deployments/{}", unknown())).expect_problem(404, "not_found");
    for answer in together(16, |i| {
        let id = if i % 2 == 0 { known["id"].as_str().unwrap().to_owned() } else { unknown() };
        app.another().get(&format!("/v1/deployments/{id}"))
    }) {
        assert!(answer.status == 404 || answer.json() == known, "{answer:?}");
    }
}
