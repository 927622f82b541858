//! The thread that writes to SQLite: jobs that wait share a transaction, and nobody notices.

use crate::harness::{connect, nobody};
use actix_web::rt;
use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use prop::db::Db;
use prop::db::connection::{Options, Target};
use prop::db::pool::{Database, Limits, Unavailable};
use prop::error::{Code, Error};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// A database with a table for what the jobs write.
struct Fixture {
    database: Database,
    url: String,
    _directory: tempfile::TempDir,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// The numbers in the table, in the order in which they were written.
fn numbers(db: &mut Db) -> Vec<i64> {
    let rows: Vec<Row> = diesel::sql_query("SELECT n FROM t ORDER BY rowid").load(db).unwrap();
    rows.into_iter().map(|row| row.n).collect()
}

fn insert(db: &mut Db, n: i64) -> Result<(), Error> {
    Ok(db.batch_execute(&format!("INSERT INTO t (n) VALUES ({n})"))?)
}

impl Fixture {
    fn new(queue: usize, time: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prop.db").display().to_string();
        let url = format!("sqlite:{path}");
        // A reference to nothing is noticed by the commit.
        let table = "CREATE TABLE t (n integer, parent integer REFERENCES parents DEFERRABLE \
            INITIALLY DEFERRED); CREATE TABLE parents (id integer PRIMARY KEY)";
        connect(&url).batch_execute(table).unwrap();
        let options =
            Options { prepared_statements: true, statement_timeout: time, slow_statement: time };
        let limits = Limits { connections: 1, queue, time };
        let database =
            Database::start(Target::Sqlite(path), options, &limits, None, nobody()).unwrap();
        Self { database, url, _directory: directory }
    }

    fn patient() -> Self {
        Self::new(100, Duration::from_secs(60))
    }

    /// Runs these jobs, of which the first waits until all others are queued, and returns their
    /// results. The first one is in a transaction of its own, the others are in one together.
    async fn together<W>(&self, jobs: impl IntoIterator<Item = W>) -> Vec<Result<(), Code>>
    where
        W: FnMut(&mut Db) -> Result<(), Error> + Send + 'static,
    {
        let first = self.hold().await;
        let others: Vec<_> = jobs.into_iter().map(|job| self.spawn(job)).collect();
        self.wait_for_queued(others.len()).await;
        first.release().await.unwrap();
        let mut results = Vec::new();
        for job in others {
            results.push(job.await.unwrap());
        }
        results
    }

    /// Keeps the thread busy with a job that writes nothing, longer than a transaction takes jobs.
    async fn hold(&self) -> Held {
        let ((started, starts), (release, released)) = (mpsc::channel(), mpsc::channel());
        let job = self.spawn(move |_| {
            started.send(()).unwrap();
            released.recv().unwrap();
            std::thread::sleep(Duration::from_millis(10));
            Ok(())
        });
        while starts.try_recv().is_err() {
            rt::task::yield_now().await;
        }
        Held { release, job }
    }

    fn spawn<W>(&self, work: W) -> rt::task::JoinHandle<Result<(), Code>>
    where
        W: FnMut(&mut Db) -> Result<(), Error> + Send + 'static,
    {
        let database = self.database.clone();
        rt::spawn(async move { database.write(work).await.map_err(|error: Error| error.code) })
    }

    async fn run<W>(&self, work: W) -> Result<(), Code>
    where
        W: FnMut(&mut Db) -> Result<(), Error> + Send + 'static,
    {
        self.spawn(work).await.unwrap()
    }

    async fn wait_for_queued(&self, jobs: usize) {
        while self.database.queued() < jobs {
            rt::task::yield_now().await;
        }
    }

    /// What is committed.
    fn committed(&self) -> Vec<i64> {
        numbers(&mut connect(&self.url))
    }
}

struct Held {
    release: mpsc::Sender<()>,
    job: rt::task::JoinHandle<Result<(), Code>>,
}

impl Held {
    async fn release(self) -> Result<(), Code> {
        self.release.send(()).unwrap();
        self.job.await.unwrap()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    rt::System::new().block_on(future)
}

#[test]
fn what_waits_shares_a_transaction_in_its_order() {
    let fixture = Fixture::patient();
    let observer = Arc::new(Mutex::new(connect(&fixture.url)));
    let results = block_on(fixture.together((0..10).map(|n| {
        let observer = observer.clone();
        move |db: &mut Db| {
            // The ones before are there, and not committed.
            assert_eq!(numbers(db), (0..n).collect::<Vec<_>>());
            assert!(numbers(&mut observer.lock().unwrap()).is_empty());
            insert(db, n)
        }
    })));
    assert_eq!(results, [Ok(()); 10]);
    assert_eq!(fixture.committed(), (0..10).collect::<Vec<_>>());
}

#[test]
fn the_answer_comes_after_the_commit() {
    let fixture = Fixture::patient();
    block_on(async {
        for n in 0..10 {
            fixture.database.write(move |db| insert(db, n)).await.unwrap();
            assert_eq!(fixture.committed().len() as i64, n + 1);
        }
    });
}

#[test]
fn a_lone_job_costs_three_statements() {
    let fixture = Fixture::patient();
    let cost = |fails: bool| {
        let before = fixture.database.statements();
        let work = move |db: &mut Db| match insert(db, 1) {
            Ok(()) if fails => Err(Error::new(Code::GateBlocked, "no")),
            other => other,
        };
        let result: Result<(), Error> = block_on(fixture.database.write(work));
        assert_eq!(result.is_err(), fails);
        fixture.database.statements() - before
    };
    assert_eq!([cost(false), cost(true)], [3, 3]);
}

#[test]
fn what_fails_leaves_nothing_and_the_others_go_on() {
    let fixture = Fixture::patient();
    let results = block_on(fixture.together((0..10).map(|n| {
        move |db: &mut Db| {
            insert(db, n)?;
            match n {
                0 | 4 => Err(Error::new(Code::GateBlocked, "refused")),
                // In an inner transaction, which stays open.
                7 => db.transaction(|db| {
                    insert(db, n)?;
                    panic!("on purpose")
                }),
                8 => {
                    let inner = db.transaction(|db| {
                        insert(db, 100)?;
                        Err::<(), _>(Error::new(Code::GateBlocked, "refused"))
                    });
                    assert!(inner.is_err());
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    })));
    let expected = (0..10).map(|n| match n {
        0 | 4 => Err(Code::GateBlocked),
        7 => Err(Code::Internal),
        _ => Ok(()),
    });
    assert_eq!(results, expected.collect::<Vec<_>>());
    assert_eq!(fixture.committed(), [1, 2, 3, 5, 6, 8, 9]);
}

#[test]
fn a_lone_job_that_ends_badly_leaves_nothing() {
    let fixture = Fixture::patient();
    let panics = |db: &mut Db| {
        insert(db, 1)?;
        db.transaction::<(), Error, _>(|db| {
            insert(db, 2)?;
            panic!("on purpose")
        })
    };
    assert_eq!(block_on(fixture.run(panics)), Err(Code::Internal));
    // As SQLite does when it cannot write.
    let is_rolled_back = |db: &mut Db| {
        insert(db, 3)?;
        db.batch_execute("ROLLBACK")?;
        Err(Error::new(Code::GateBlocked, "the first error"))
    };
    assert_eq!(block_on(fixture.run(is_rolled_back)), Err(Code::GateBlocked));
    assert_eq!(block_on(fixture.run(|db| insert(db, 4))), Ok(()));
    assert_eq!(fixture.committed(), [4]);
}

#[test]
fn a_commit_that_fails_is_answered_to_all_of_its_jobs() {
    let fixture = Fixture::patient();
    let results = block_on(fixture.together((0..4).map(|n| {
        move |db: &mut Db| match n {
            1 => Err(Error::new(Code::GateBlocked, "refused")),
            2 => Ok(db.batch_execute("INSERT INTO t (n, parent) VALUES (2, 1)")?),
            _ => insert(db, n),
        }
    })));
    assert_eq!(results, [Err(Code::Internal); 4]);
    assert_eq!(block_on(fixture.run(|db| insert(db, 5))), Ok(()));
    assert_eq!(fixture.committed(), [5]);
}

/// As SQLite does when it cannot write in the middle of a transaction.
#[test]
fn a_transaction_that_sqlite_rolled_back_is_answered_to_all_of_its_jobs() {
    for fails in [false, true] {
        let fixture = Fixture::patient();
        let results = block_on(fixture.together((0..4).map(|n| {
            move |db: &mut Db| {
                insert(db, n)?;
                if n == 2 {
                    db.batch_execute("ROLLBACK")?;
                    // As diesel does it after an error: it takes the failure of the next one for a
                    // success then.
                    let _ = db.transaction(|db| Ok::<_, Error>(db.batch_execute("ROLLBACK")?));
                    if fails {
                        return Err(Error::new(Code::GateBlocked, "refused"));
                    }
                }
                Ok(())
            }
        })));
        assert_eq!(results[..3], [Err(Code::DatabaseUnavailable); 3], "{fails}");
        // The last one was not in the group any more.
        assert_eq!(results[3], Ok(()));
        assert_eq!(fixture.committed(), [3]);
    }
}

#[test]
fn reads_are_not_behind_writes() {
    let fixture = Fixture::patient();
    block_on(async {
        let held = fixture.hold().await;
        let waiting = fixture.spawn(|db| insert(db, 1));
        let read = fixture.database.read(|db| Ok::<_, Error>(numbers(db))).await.unwrap();
        assert!(read.is_empty());
        held.release().await.unwrap();
        waiting.await.unwrap().unwrap();
    });
    assert_eq!(fixture.committed(), [1]);
}

#[test]
fn a_job_that_nobody_waits_for_any_more_does_not_begin() {
    let fixture = Fixture::new(100, Duration::from_secs(1));
    let has_run = Arc::new(AtomicBool::new(false));
    block_on(async {
        let held = fixture.hold().await;
        let noted = has_run.clone();
        let late = fixture.spawn(move |db| {
            noted.store(true, Ordering::Relaxed);
            insert(db, 1)
        });
        assert_eq!(late.await.unwrap(), Err(Code::TimedOut));
        assert_eq!(held.release().await, Err(Code::TimedOut));
        fixture.database.write(|db| insert(db, 2)).await.unwrap();
    });
    assert!(!has_run.load(Ordering::Relaxed));
    assert_eq!(fixture.committed(), [2]);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let fixture = Fixture::new(1, Duration::from_secs(60));
    block_on(async {
        let held = fixture.hold().await;
        let waiting = fixture.spawn(|db| insert(db, 1));
        fixture.wait_for_queued(1).await;
        let refused: Result<(), Error> = fixture.database.write(|db| insert(db, 2)).await;
        assert_eq!(refused.unwrap_err().code, Error::from(Unavailable::Saturated).code);
        held.release().await.unwrap();
        waiting.await.unwrap().unwrap();
    });
    assert_eq!(fixture.committed(), [1]);
}

/// The write-ahead log, in pages: its length, and how much of it is in the database.
#[derive(Debug, QueryableByName)]
struct Log {
    #[diesel(sql_type = Integer)]
    log: i32,
    #[diesel(sql_type = Integer)]
    checkpointed: i32,
}

impl Fixture {
    fn log(&self) -> Log {
        let look = diesel::sql_query("PRAGMA wal_checkpoint(NOOP)");
        look.get_result(&mut connect(&self.url)).unwrap()
    }

    /// Writes so many MB, each in a transaction.
    fn write_megabytes(&self, count: usize) {
        for _ in 0..count {
            let write = |db: &mut Db| {
                let sql = "CREATE TABLE IF NOT EXISTS megabytes (content blob);
                    INSERT INTO megabytes VALUES (zeroblob(1000000))";
                Ok(db.batch_execute(sql)?)
            };
            assert_eq!(block_on(self.run(write)), Ok(()));
        }
    }

    /// Waits until no more of the log than so many pages has yet to be copied.
    fn wait_for_copy(&self, pages: i32) -> Log {
        for _ in 0..3000 {
            let log = self.log();
            if log.log - log.checkpointed <= pages {
                return log;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nothing is copied: {:?}", self.log())
    }

    /// Writes, no faster than the log is copied, until it begins anew. Returns how many pages it
    /// had.
    fn fill_the_log(&self) -> i32 {
        let mut longest = 0;
        for _ in 0..200 {
            self.write_megabytes(1);
            let now = self.wait_for_copy(2048).log;
            if now < longest {
                return longest;
            }
            longest = now;
        }
        panic!("the log has {longest} pages")
    }
}

#[test]
fn the_log_is_copied_beside_the_writer() {
    let fixture = Fixture::patient();
    fixture.write_megabytes(6);
    // The writer itself copies nothing below 64 MB.
    let log = fixture.wait_for_copy(1024);
    assert!(log.log > 1024, "{log:?}");
}

#[test]
fn a_log_of_16_megabytes_begins_anew() {
    let fixture = Fixture::patient();
    for _ in 0..2 {
        let pages = fixture.fill_the_log();
        assert!((4096..12_000).contains(&pages), "{pages}");
    }
}

#[test]
fn a_long_read_keeps_the_log_and_not_the_writes() {
    let fixture = Fixture::patient();
    let mut reader = connect(&fixture.url);
    reader.batch_execute("BEGIN").unwrap();
    assert!(numbers(&mut reader).is_empty());
    // More than the writer's own limit.
    fixture.write_megabytes(70);
    assert_eq!(block_on(fixture.run(|db| insert(db, 1))), Ok(()));
    assert!(fixture.log().log > 16_384);
    assert!(numbers(&mut reader).is_empty());
    reader.batch_execute("COMMIT").unwrap();
    fixture.fill_the_log();
    assert!(fixture.log().log < 4096);
    assert_eq!(fixture.committed(), [1]);
}
