//! The one thread that writes to SQLite, which has one writer at a time.
//!
//! Jobs that wait at the same time share a transaction, because each commit waits for the disk
//! (group commit). They run in the order in which they came. Each but the first runs in a
//! savepoint, so one that fails leaves nothing and the others go on. Nobody gets an answer before
//! the commit.

use crossbeam_channel::{Receiver, Sender};
use diesel::connection::{Connection, SimpleConnection, TransactionManager};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::{ConnectionResult, QueryResult};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

use super::Db;
use super::checkpoint::Checkpoints;
use super::counting::{self, Counter};
use super::unavailable::Unavailable;
use crate::types::counted::Counted;
use crate::types::request::{self, RequestId};

/// At most this many jobs share a transaction.
const MOST: usize = 64;

/// A transaction that has lasted this long takes no further job, so that the first ones need not
/// wait long for their answers.
const LONGEST: Duration = Duration::from_millis(8);

/// The queue of the thread. The thread ends when the last copy is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: Sender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the thread, with a queue for so many jobs. It opens its connection with `connect`
    /// when it is needed, and again when it is broken. After each commit, `cannot_write` is false,
    /// `counter` has what the jobs have recorded, and `checkpoints` knows of it.
    ///
    /// # Errors
    /// When the operating system cannot create a thread.
    pub(super) fn start(
        queue: usize,
        connect: impl Fn() -> ConnectionResult<Db> + Send + 'static,
        cannot_write: Arc<AtomicBool>,
        counter: Counter,
        checkpoints: Checkpoints,
    ) -> std::io::Result<Self> {
        let (sender, jobs) = crossbeam_channel::bounded(queue);
        std::thread::Builder::new()
            .name("database-writer".into())
            .spawn(move || serve(&jobs, connect, &cannot_write, &counter, &checkpoints))?;
        Ok(Self { jobs: sender })
    }

    /// Queues `work`, for a transaction that it perhaps shares with others. The answer comes after
    /// the commit.
    ///
    /// # Errors
    /// `Saturated` when the queue is full.
    pub(super) fn submit<T, E>(
        &self,
        work: impl FnMut(&mut Db) -> Result<T, E> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, E>>, Unavailable>
    where
        T: Send + 'static,
        E: From<DieselError> + From<Unavailable> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = request::current();
        self.jobs.try_send(Box::new(Work {
            work,
            result: None,
            recorded: Vec::new(),
            reply,
            request,
        }))?;
        Ok(answer)
    }

    /// How many jobs wait now.
    pub(super) fn queued(&self) -> usize {
        self.jobs.len()
    }
}

/// A job without its types.
trait Job: Send {
    /// Whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool;

    /// Runs the work and keeps its result. Returns whether it succeeded.
    fn run(&mut self, db: &mut Db) -> bool;

    /// Sends the result, and counts what was recorded; or sends why nothing was committed.
    fn answer(self: Box<Self>, outcome: &Result<(), NotCommitted>, counter: &Counter);
}

struct Work<T, E, W> {
    work: W,
    /// `None` after a panic.
    result: Option<Result<T, E>>,
    /// What it has recorded, if it succeeded.
    recorded: Vec<Counted>,
    reply: oneshot::Sender<Result<T, E>>,
    request: Option<RequestId>,
}

impl<T, E, W> Job for Work<T, E, W>
where
    T: Send,
    E: From<DieselError> + From<Unavailable> + Send,
    W: FnMut(&mut Db) -> Result<T, E> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, db: &mut Db) -> bool {
        let (work, request) = (&mut self.work, self.request.clone());
        let run = AssertUnwindSafe(|| request::within(request, || work(db)));
        let (result, recorded) = counting::during(|| catch_unwind(run));
        self.result = result.ok();
        let is_done = matches!(self.result, Some(Ok(_)));
        self.recorded = if is_done { recorded } else { Vec::new() };
        is_done
    }

    fn answer(self: Box<Self>, outcome: &Result<(), NotCommitted>, counter: &Counter) {
        let result = match outcome {
            Ok(()) => {
                self.recorded.into_iter().for_each(|what| counter(what));
                self.result
            }
            // Also for what had failed: it may have read what others of the group had written.
            Err(lost) => Some(Err(request::within(self.request, || lost.error()))),
        };
        // Without a result the reply is dropped, which the caller takes as `Failed`.
        if let Some(result) = result {
            let _ = self.reply.send(result);
        }
    }
}

/// Why nothing of a group was committed.
enum NotCommitted {
    Unreachable,
    Failed(DieselError),
}

impl NotCommitted {
    /// The error of one of the jobs.
    fn error<E: From<DieselError> + From<Unavailable>>(&self) -> E {
        match self {
            Self::Unreachable => Unavailable::Unreachable.into(),
            Self::Failed(error) => copy(error).into(),
        }
    }
}

/// The same error, as far as its cause and text go.
fn copy(error: &DieselError) -> DieselError {
    match error {
        DieselError::DatabaseError(kind, cause) => {
            DieselError::DatabaseError(*kind, Box::new(cause.message().to_owned()))
        }
        DieselError::RollbackErrorOnCommit { commit_error, .. } => copy(commit_error),
        other => DieselError::QueryBuilderError(other.to_string().into()),
    }
}

/// Runs the jobs, until nobody can send one any more.
fn serve(
    jobs: &Receiver<Box<dyn Job>>,
    connect: impl Fn() -> ConnectionResult<Db>,
    cannot_write: &AtomicBool,
    counter: &Counter,
    checkpoints: &Checkpoints,
) {
    let mut connection = None;
    for first in jobs.iter().filter(|job| job.is_wanted()) {
        let (mut group, mut is_committed) = (vec![first], false);
        let outcome = match connection.take().map_or_else(&connect, Ok) {
            Err(error) => {
                log::error!("no database connection: {error}");
                Err(NotCommitted::Unreachable)
            }
            Ok(mut db) => {
                let written = write(&mut db, &mut group, jobs);
                is_committed = matches!(written, Ok(true));
                if is_committed {
                    cannot_write.store(false, Ordering::Relaxed);
                }
                // Closing a connection rolls back what it may have left.
                if written.is_ok() && !db.is_broken() {
                    connection = Some(db);
                }
                written.map(drop).map_err(NotCommitted::Failed)
            }
        };
        for job in group {
            job.answer(&outcome, counter);
        }
        if let (true, Some(db)) = (is_committed, &mut connection) {
            checkpoints.committed(db);
        }
    }
}

/// Runs the only job of `group` in a transaction, and adds those that wait by then. Returns whether
/// there was something to commit.
fn write(
    db: &mut Db,
    group: &mut Vec<Box<dyn Job>>,
    jobs: &Receiver<Box<dyn Job>>,
) -> QueryResult<bool> {
    db.begin()?;
    let began = Instant::now();
    // A lone job needs no savepoint: when it fails, nothing else is in the transaction.
    if !group.iter_mut().all(|first| first.run(db)) {
        // There may be nothing to roll back any more. The caller needs the first error.
        if let Err(failed) = roll_back(db, 0) {
            log::debug!("rollback: {failed}");
        }
        return Ok(false);
    }
    while group.len() < MOST && began.elapsed() < LONGEST {
        let Ok(mut job) = jobs.try_recv() else { break };
        if job.is_wanted() {
            let ended = in_savepoint(db, &mut *job);
            group.push(job);
            ended?;
        }
    }
    <Db as Connection>::TransactionManager::commit_transaction(db)?;
    Ok(true)
}

/// Runs a job so that nothing is left of it when it fails.
///
/// # Errors
/// When SQLite has rolled back the whole transaction meanwhile, as it does when it cannot write.
fn in_savepoint(db: &mut Db, job: &mut dyn Job) -> QueryResult<()> {
    // Not one of diesel's: after an inner one that failed, diesel takes the failure of an outer one
    // for a success.
    db.batch_execute("SAVEPOINT job")?;
    let ended = match job.run(db) {
        true => db.batch_execute("RELEASE job"),
        false => roll_back(db, 1).and_then(|()| db.batch_execute("ROLLBACK TO job; RELEASE job")),
    };
    ended.map_err(|error| {
        let cause = format!("SQLite has rolled the transaction back: {error}");
        DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(cause))
    })
}

/// Rolls back transactions of diesel until so many are open. A panic leaves inner ones open.
fn roll_back(db: &mut Db, depth: u32) -> QueryResult<()> {
    type Manager = <Db as Connection>::TransactionManager;
    let open = |db: &mut Db| -> QueryResult<u32> {
        let open = Manager::transaction_manager_status_mut(db).transaction_depth()?;
        Ok(open.map_or(0, Into::into))
    };
    while open(db)? > depth {
        Manager::rollback_transaction(db)?;
    }
    Ok(())
}
