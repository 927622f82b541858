//! Runs queries on a fixed number of database threads, which share one bounded queue. On SQLite
//! they only read: what writes has a thread and a queue of its own.
//!
//! A web worker sends a closure and awaits the result, so it never blocks. There are as many
//! threads as connections, so a thread never waits for a connection of the r2d2 pool. When the
//! queue is full, the caller gets an error at once.

use crossbeam_channel::{Receiver, Sender};
use diesel::ConnectionError;
use diesel::connection::{Connection as _, InstrumentationEvent};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

use super::Db;
use super::caller::{self, Backend, Canceller, Work};
use super::checkpoint::Checkpoints;
use super::connection::{Options, Target};
use super::counting::{self, Counter};
use super::locks::Service;
pub use super::unavailable::Unavailable;
use super::writer::Writer;
use super::{cannot_write, is_lost};
use crate::types::request;

/// The connections.
pub(super) type Pool = r2d2::Pool<Manager>;
type Job = Box<dyn FnOnce(&Pool) + Send>;

/// An error of a transaction.
pub trait Transient {
    /// Whether the database ended the transaction for the sake of another one (a deadlock or a
    /// serialization failure). It has changed nothing then, and may succeed when it is repeated.
    fn is_transient(&self) -> bool;
}

/// How often a transaction is repeated that ended for the sake of another one.
const REPEATS: u32 = 4;

/// How long the first repetition waits; the second waits twice as long, and so on. Whoever won is
/// done by then, as a rule.
const PAUSE: Duration = Duration::from_millis(20);

/// The database as the rest of the program uses it: it runs closures on a connection.
#[derive(Clone)]
pub struct Database {
    jobs: Sender<Job>,
    time_limit: Duration,
    prepared_statements: bool,
    connections: u32,
    statements: Arc<AtomicU64>,
    /// Whether the last write failed because the database cannot write.
    cannot_write: Arc<AtomicBool>,
    /// The thread that writes to SQLite.
    writer: Option<Writer>,
    /// Ends the reads whose callers are gone.
    canceller: Canceller,
    /// Takes what committed transactions have recorded.
    counter: Counter,
}

/// The size of the pool and its queue, and how long callers wait.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The number of connections, and of the threads that use them.
    pub connections: u32,
    /// How many jobs may wait for a thread. On SQLite as many writes besides.
    pub queue: usize,
    /// How long a caller waits for a result.
    pub time: Duration,
}

impl Database {
    /// Starts the threads. Connections are opened when needed; one is kept open. `first` is used
    /// before others are opened, if there is one already. `counter` gets what committed
    /// transactions have recorded ([`counting::count`]).
    ///
    /// # Errors
    /// When the operating system cannot create a thread, or the pool cannot be built.
    pub fn start(
        target: Target,
        options: Options,
        limits: &Limits,
        first: Option<Db>,
        counter: Counter,
    ) -> std::io::Result<Self> {
        let prepared_statements = options.prepared_statements;
        let (statements, cannot_write) = (Arc::default(), Arc::default());
        let source = Source {
            target,
            options,
            statements: Arc::clone(&statements),
            cannot_write: Arc::clone(&cannot_write),
        };
        let writer = source.writer(limits.queue, counter.clone())?;
        let canceller = Canceller::start(&source.target, &source.options)?;
        let pool = r2d2::Pool::builder()
            .max_size(limits.connections)
            .min_idle(Some(1))
            .connection_timeout(limits.time / 2)
            // A broken connection is detected when it is used (`has_broken`), and the work is
            // repeated where that is safe. A test before each use would cost one more round trip.
            .test_on_check_out(false)
            .build_unchecked(Manager { source, first: Mutex::new(first) });
        let (sender, receiver) = crossbeam_channel::bounded::<Job>(limits.queue);
        for n in 0..limits.connections {
            let (pool, jobs): (Pool, Receiver<Job>) = (pool.clone(), receiver.clone());
            std::thread::Builder::new().name(format!("database-{n}")).spawn(move || {
                for job in jobs {
                    // A panic drops the reply channel, so the caller gets `Failed`. The thread goes
                    // on.
                    let _ = catch_unwind(AssertUnwindSafe(|| job(&pool)));
                }
            })?;
        }
        Ok(Self {
            jobs: sender,
            time_limit: limits.time,
            prepared_statements,
            connections: limits.connections,
            statements,
            cannot_write,
            writer,
            canceller,
            counter,
        })
    }

    /// Runs `work`, which must only read. It may run again when the connection is broken. When the
    /// caller is gone, the statement that runs is cancelled.
    ///
    /// # Errors
    /// The error of `work`, or [`Unavailable`] when no result arrived.
    pub async fn read<T, E>(
        &self,
        mut work: impl FnMut(&mut Db) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<diesel::result::Error> + From<Unavailable> + Send + 'static,
    {
        let (db, caller) = (self.clone(), self.canceller.caller());
        let reading = caller.work();
        self.run(move |pool| db.read_on(pool, &reading, &mut work)).await
    }

    /// Runs `work`, which must only read, on this database thread: on another connection while it
    /// turns out to be broken. `reading` is what ends it when its caller is gone.
    pub(super) fn read_on<T, E>(
        &self,
        pool: &Pool,
        reading: &Arc<Work>,
        mut work: impl FnMut(&mut Db) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<diesel::result::Error> + From<Unavailable>,
    {
        let (mut attempt, attempts) = (1, self.connections + 1);
        // diesel prepares and executes a statement in two messages. Behind a pooler in transaction
        // mode, only a transaction keeps both on one server connection.
        let in_transaction = !self.prepared_statements;
        loop {
            let mut pooled = pool.get().map_err(unreachable)?;
            let Pooled { db, backend, is_spent, .. } = &mut *pooled;
            // Should `work` panic, a signal may be on its way.
            *is_spent = true;
            let (result, was_cancelled) = reading.on(*backend, || {
                caller::check()?;
                if in_transaction { db.write(&mut work) } else { work(db) }
            });
            *is_spent = was_cancelled;
            if result.is_ok() || !pooled.is_broken() || attempt == attempts {
                return result;
            }
            attempt += 1;
        }
    }

    /// Runs `work` in a transaction, which is committed when `work` returns `Ok`. When the
    /// connection is broken before the transaction begins, another connection is tried. When the
    /// database ends the transaction for the sake of another one, it is repeated, so `work` may run
    /// more than once; what an earlier run wrote is undone. On SQLite there is no other one: see
    /// [`super::writer`].
    ///
    /// # Errors
    /// The error of `work`, or [`Unavailable`] when no result arrived.
    pub async fn write<T, E>(
        &self,
        work: impl FnMut(&mut Db) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<diesel::result::Error> + From<Unavailable> + Transient + Send + 'static,
    {
        self.write_locked(None, work).await
    }

    /// [`Self::write`] in a transaction that begins with the lock of a service
    /// ([`Db::begin_locked`]).
    ///
    /// # Errors
    /// The error of `work` or of the lock, or [`Unavailable`] when no result arrived.
    pub async fn write_locked<T, E>(
        &self,
        locked: Option<Service>,
        mut work: impl FnMut(&mut Db) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<diesel::result::Error> + From<Unavailable> + Transient + Send + 'static,
    {
        if let Some(writer) = &self.writer {
            return self.answer(writer.submit(work)?).await;
        }
        let (attempts, cannot_write) = (self.connections + 1, self.cannot_write.clone());
        let counter = self.counter.clone();
        self.run(move |pool| {
            let (mut attempt, mut repeats) = (1, 0);
            loop {
                let mut db = pool.get().map_err(unreachable)?;
                match db.begin_locked(locked.as_ref().map(Service::statement)) {
                    Ok(()) => {
                        let (result, recorded) = counting::during(|| {
                            db.finish(&mut work, |error| match is_lost(&error) {
                                true => lost_in_commit(&error).into(),
                                false => error.into(),
                            })
                        });
                        match result {
                            Err(error) if error.is_transient() && repeats < REPEATS => repeats += 1,
                            Err(error) => return Err(error),
                            Ok(value) => {
                                cannot_write.store(false, Ordering::Relaxed);
                                recorded.into_iter().for_each(|what| counter(what));
                                return Ok(value);
                            }
                        }
                    }
                    Err(_) if db.is_broken() && attempt < attempts => {
                        attempt += 1;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
                drop(db);
                log::debug!("a transaction is repeated ({repeats} of {REPEATS})");
                std::thread::sleep(PAUSE * repeats);
            }
        })
        .await
    }

    async fn run<T, E>(
        &self,
        job: impl FnOnce(&Pool) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Unavailable> + Send + 'static,
    {
        let ((reply, answer), request) = (oneshot::channel(), request::current());
        self.submit(move |pool| {
            // A closed channel means that the caller gave up while the job was queued.
            if !reply.is_closed() {
                let _ = reply.send(request::within(request, || job(pool)));
            }
        })?;
        self.answer(answer).await
    }

    /// Queues a job.
    ///
    /// # Errors
    /// `Saturated` when the queue is full.
    pub(super) fn submit(
        &self,
        job: impl FnOnce(&Pool) + Send + 'static,
    ) -> Result<(), Unavailable> {
        Ok(self.jobs.try_send(Box::new(job))?)
    }

    /// Waits for the answer of a job, but not longer than callers do.
    pub(super) async fn answer<T, E: From<Unavailable>>(
        &self,
        answer: oneshot::Receiver<Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.time_limit, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_dropped)) => Err(Unavailable::Failed.into()),
            Err(_elapsed) => Err(Unavailable::TimedOut.into()),
        }
    }

    /// Whether the queue has room for a job beside `others`, which wait outside of it.
    pub(super) fn has_room(&self, others: usize) -> bool {
        self.jobs.capacity().is_none_or(|most| self.jobs.len() + others < most)
    }

    /// How many jobs wait for a thread now.
    pub fn queued(&self) -> usize {
        self.jobs.len() + self.writer.as_ref().map_or(0, Writer::queued)
    }

    /// Whether the last write failed because the database cannot write: see [`cannot_write`]. It
    /// holds until a write succeeds.
    pub fn cannot_write(&self) -> bool {
        self.cannot_write.load(Ordering::Relaxed)
    }

    /// How many SQL statements were run since the start, including transaction control.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }
}

fn lost_in_commit(error: &diesel::result::Error) -> Unavailable {
    log::error!("database connection lost during a commit: {error}");
    Unavailable::Unknown
}

fn unreachable(error: r2d2::Error) -> Unavailable {
    log::error!("no database connection: {error}");
    Unavailable::Unreachable
}

/// Where connections come from.
#[derive(Clone)]
struct Source {
    target: Target,
    options: Options,
    statements: Arc<AtomicU64>,
    cannot_write: Arc<AtomicBool>,
}

impl Source {
    /// On SQLite, the thread that writes.
    fn writer(&self, queue: usize, counter: Counter) -> std::io::Result<Option<Writer>> {
        if !matches!(self.target, Target::Sqlite(_)) {
            return Ok(None);
        }
        let (source, beside) = (self.clone(), self.clone());
        let checkpoints = Checkpoints::start(move || beside.target.connect(&beside.options))?;
        let connect = move || {
            let mut db = source.target.connect_to_write(&source.options)?;
            source.observe(&mut db);
            Ok(db)
        };
        let cannot_write = self.cannot_write.clone();
        Writer::start(queue, connect, cannot_write, counter, checkpoints).map(Some)
    }

    /// Counts the statements of a connection, and logs the slow ones. Returns what notes that the
    /// connection is broken.
    fn observe(&self, db: &mut Db) -> Arc<AtomicBool> {
        let (statements, slow) = (self.statements.clone(), self.options.slow_statement);
        let (refused, is_lost) = (self.cannot_write.clone(), Arc::new(AtomicBool::new(false)));
        let noted = is_lost.clone();
        let mut started = Instant::now();
        db.set_instrumentation(move |event: InstrumentationEvent<'_>| match event {
            InstrumentationEvent::StartQuery { .. } => {
                statements.fetch_add(1, Ordering::Relaxed);
                started = Instant::now();
            }
            InstrumentationEvent::FinishQuery { error: Some(error), .. } if cannot_write(error) => {
                refused.store(true, Ordering::Relaxed);
            }
            InstrumentationEvent::FinishQuery { error: Some(error), .. }
                if super::is_lost(error) =>
            {
                noted.store(true, Ordering::Relaxed);
            }
            InstrumentationEvent::FinishQuery { query, .. } if started.elapsed() > slow => {
                // Log only the text before diesel's list of bound values: those come from clients.
                let sql = query.to_string();
                let sql = sql.split(" -- binds").next().unwrap_or_default();
                log::warn!(ms = started.elapsed().as_millis() as u64; "slow statement: {sql}");
            }
            _ => {}
        });
        is_lost
    }
}

/// A connection in the pool.
pub(super) struct Pooled {
    db: Db,
    /// Whether a statement found that it is broken. diesel does not note that when it was to
    /// prepare the statement.
    is_lost: Arc<AtomicBool>,
    /// By what its statements are cancelled.
    backend: Option<Backend>,
    /// Whether it must not be used again.
    is_spent: bool,
}

impl Pooled {
    fn is_broken(&mut self) -> bool {
        self.is_lost.load(Ordering::Relaxed) || self.db.is_broken()
    }
}

impl Deref for Pooled {
    type Target = Db;
    fn deref(&self) -> &Db {
        &self.db
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Db {
        &mut self.db
    }
}

/// Opens connections for r2d2. diesel's own manager cannot choose a backend by URL scheme.
pub(super) struct Manager {
    source: Source,
    /// A connection that is open already.
    first: Mutex<Option<Db>>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = ConnectionError;

    fn connect(&self) -> Result<Pooled, ConnectionError> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut db = match first {
            Some(db) => db,
            None => self.source.target.connect(&self.source.options)?,
        };
        let backend = Backend::of(&mut db, &self.source.options)
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        let is_lost = self.source.observe(&mut db);
        Ok(Pooled { db, is_lost, backend, is_spent: false })
    }

    fn is_valid(&self, _: &mut Pooled) -> Result<(), ConnectionError> {
        Ok(())
    }

    fn has_broken(&self, db: &mut Pooled) -> bool {
        db.is_spent || db.is_broken()
    }
}
