//! Ends the work of a read whose caller is gone: it was disconnected, or waited too long.
//!
//! On PostgreSQL another connection cancels the statement that runs for it. On either database, a
//! read of many statements asks [`check`] between them. A write is never ended: it goes on to its
//! commit, whoever still waits for it.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Db;
use super::connection::{Options, Target};
use super::unavailable::Unavailable;

/// The time after which a statement is cancelled again. A signal that arrives between two
/// statements is lost.
const AGAIN: Duration = Duration::from_millis(50);

/// How many callers may wait for their statements to be cancelled. Those of more callers go on.
const QUEUE: usize = 256;

/// The number of the server process of a connection, by which its statements are cancelled.
#[derive(Debug, Clone, Copy, QueryableByName)]
pub struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

impl Backend {
    /// That of a new connection. `None` on SQLite, and behind a pooler, where the server process
    /// changes.
    ///
    /// # Errors
    /// That of the database.
    pub fn of(db: &mut Db, options: &Options) -> QueryResult<Option<Self>> {
        match db {
            Db::Pg(c) if options.prepared_statements => {
                diesel::sql_query("SELECT pg_backend_pid() AS pid").get_result(c).map(Some)
            }
            _ => Ok(None),
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Work>>> = const { RefCell::new(None) };
}

/// Fails when nobody waits for what this thread reads.
///
/// # Errors
/// [`Unavailable::TimedOut`], which nobody will see.
pub fn check() -> Result<(), Unavailable> {
    let is_gone = |work: &Arc<Work>| work.stage(|stage| stage.is_unwanted);
    if CURRENT.with_borrow(|work| work.as_ref().is_some_and(is_gone)) {
        return Err(Unavailable::TimedOut);
    }
    Ok(())
}

/// What a thread does for a caller.
#[derive(Default)]
pub struct Work(Mutex<Stage>);

#[derive(Clone, Copy, Default)]
struct Stage {
    /// The connection that is used now, if its statements can be cancelled.
    backend: Option<Backend>,
    /// Whether the caller is gone.
    is_unwanted: bool,
    /// Whether a signal was sent to this connection, which may arrive late.
    is_cancelled: bool,
}

impl Work {
    fn stage<T>(&self, change: impl FnOnce(&mut Stage) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `work` on a connection of this server process. Returns also whether a statement was
    /// cancelled: the connection must not be used again then, because the signal might arrive only
    /// during its next statement.
    pub fn on<T>(
        self: &Arc<Self>,
        backend: Option<Backend>,
        work: impl FnOnce() -> T,
    ) -> (T, bool) {
        /// Ends the stage, even when `work` panics.
        struct End<'a>(&'a Work);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                CURRENT.set(None);
                self.0.stage(|stage| stage.backend = None);
            }
        }
        self.stage(|stage| stage.backend = backend);
        CURRENT.set(Some(Arc::clone(self)));
        let end = End(self);
        let result = work();
        drop(end);
        (result, self.stage(|stage| std::mem::take(&mut stage.is_cancelled)))
    }

    /// Cancels the statement that runs now. Returns whether one may still run.
    ///
    /// The lock is not held while the signal is sent. It need not be: from here on the connection
    /// is not used for another caller, so the signal hits nobody else.
    fn cancel(&self, db: &mut Db) -> QueryResult<bool> {
        let running = self.stage(|stage| {
            stage.is_cancelled |= stage.backend.is_some();
            stage.backend
        });
        let Some(Backend { pid }) = running else { return Ok(false) };
        diesel::sql_query("SELECT pg_cancel_backend($1) AS is_sent")
            .bind::<Integer, _>(pid)
            .get_result::<Sent>(db)
            .map(|sent| sent.is_sent)
    }
}

#[derive(QueryableByName)]
struct Sent {
    #[diesel(sql_type = Bool)]
    is_sent: bool,
}

/// A caller that waits for its work. When it is dropped, the work ends.
pub struct Caller {
    work: Arc<Work>,
    canceller: Option<Sender<Arc<Work>>>,
}

impl Caller {
    /// What the caller waits for.
    pub fn work(&self) -> Arc<Work> {
        Arc::clone(&self.work)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let runs = self.work.stage(|stage| {
            stage.is_unwanted = true;
            stage.backend.is_some()
        });
        if let (true, Some(canceller)) = (runs, &self.canceller) {
            // When the queue is full, the statement ends by its own time limit.
            let _ = canceller.try_send(Arc::clone(&self.work));
        }
    }
}

/// Cancels the statements of callers that are gone, on a thread and a connection of its own.
#[derive(Clone)]
pub struct Canceller(Option<Sender<Arc<Work>>>);

impl Canceller {
    /// Starts the thread, if the statements of this database can be cancelled.
    ///
    /// # Errors
    /// When the operating system cannot create a thread.
    pub fn start(target: &Target, options: &Options) -> std::io::Result<Self> {
        if matches!(target, Target::Sqlite(_)) || !options.prepared_statements {
            return Ok(Self(None));
        }
        let (sender, receiver) = crossbeam_channel::bounded(QUEUE);
        let (target, options) = (target.clone(), options.clone());
        let cancel = move || while cancel_all(&receiver, &target, &options) {};
        std::thread::Builder::new().name("canceller".into()).spawn(cancel)?;
        Ok(Self(Some(sender)))
    }

    /// A new caller.
    pub fn caller(&self) -> Caller {
        Caller { work: Arc::default(), canceller: self.0.clone() }
    }
}

/// Waits for the first caller that is gone, and cancels until no statement of such callers runs.
/// The connection is closed then: it is needed rarely. Returns whether to go on.
fn cancel_all(gone: &Receiver<Arc<Work>>, target: &Target, options: &Options) -> bool {
    let Ok(first) = gone.recv() else { return false };
    let mut pending = vec![first];
    let mut db = match target.connect(options) {
        Ok(db) => db,
        Err(error) => {
            log::warn!("a statement whose caller is gone goes on: {error}");
            return true;
        }
    };
    while !pending.is_empty() {
        pending.retain(|work| {
            work.cancel(&mut db).unwrap_or_else(|error| {
                log::warn!("a statement whose caller is gone goes on: {error}");
                false
            })
        });
        match gone.recv_timeout(AGAIN) {
            Ok(next) => pending.push(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}
