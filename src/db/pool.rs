//! Runs queries: a fixed set of database threads, as many as the pool has connections, fed by one bounded queue.
//!
//! A web worker sends a closure and awaits the answer; it never blocks. Since there are as many threads as connections,
//! taking one from the r2d2 pool makes nobody wait, and a full queue is told to the caller at once instead of growing.

use crossbeam_channel::{Receiver, Sender, TrySendError};
use diesel::ConnectionError;
use diesel::connection::{Connection as _, InstrumentationEvent};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

use super::Db;
use super::target::{Options, Target};

/// Why a query could not be run at all. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// As much work as the queue holds is waiting already.
    Saturated,
    /// No connection to the database.
    Unreachable,
    /// Not answered in time. Whether a write took place is not known.
    TimedOut,
    /// The work panicked; the cause is in the log.
    Failed,
}

type Pool = r2d2::Pool<Manager>;
type Job = Box<dyn FnOnce(&Pool) + Send>;

/// The database as the rest of the program sees it: something that runs closures.
#[derive(Clone)]
pub struct Database {
    jobs: Sender<Job>,
    time_limit: Duration,
    prepared_statements: bool,
    connections: u32,
    statements: Arc<AtomicU64>,
    /// Whose turn it is to write, on SQLite: its own way to wait for the one writer is to try again after ever longer naps.
    turn: Option<Arc<Mutex<()>>>,
}

/// How many connections, and how long to wait for them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections, and threads that use them.
    pub connections: u32,
    /// Jobs that may wait for a thread.
    pub queue: usize,
    /// How long a caller waits for an answer.
    pub time: Duration,
}

impl Database {
    /// Starts the threads. Connections are made when they are needed, one being kept ready.
    ///
    /// # Errors
    /// When the operating system gives no more threads.
    pub fn start(target: Target, options: Options, limits: &Limits) -> std::io::Result<Self> {
        let statements = Arc::new(AtomicU64::new(0));
        let prepared_statements = options.prepared_statements;
        let turn = matches!(target, Target::Sqlite(_)).then(Arc::default);
        let pool = r2d2::Pool::builder()
            .max_size(limits.connections)
            .min_idle(Some(1))
            .connection_timeout(limits.time / 2)
            // A broken connection is found when it is used (`has_broken`) and the work is repeated where that is safe:
            // asking each time beforehand would cost every request a round trip.
            .test_on_check_out(false)
            .build_unchecked(Manager { target, options, statements: statements.clone() });
        let (sender, receiver) = crossbeam_channel::bounded::<Job>(limits.queue);
        for n in 0..limits.connections {
            let (pool, jobs): (Pool, Receiver<Job>) = (pool.clone(), receiver.clone());
            std::thread::Builder::new().name(format!("database-{n}")).spawn(move || {
                for job in jobs {
                    // A panic is answered as `Failed`, since the reply channel is dropped; the thread goes on.
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
            turn,
        })
    }

    /// Runs `work`, which only reads. It may be run again when the connection turns out to be broken.
    pub async fn read<T, E>(
        &self,
        mut work: impl FnMut(&mut Db) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<diesel::result::Error> + From<Unavailable> + Send + 'static,
    {
        let attempts = self.connections + 1;
        // diesel prepares and executes in two messages: behind a pooler in transaction mode only a transaction keeps
        // them on one server connection.
        let in_transaction = !self.prepared_statements;
        self.run(move |pool| {
            let mut attempt = 1;
            loop {
                let mut db = pool.get().map_err(unreachable)?;
                let result = if in_transaction { db.write(&mut work) } else { work(&mut db) };
                if result.is_ok() || !db.is_broken() || attempt == attempts {
                    return result;
                }
                attempt += 1;
            }
        })
        .await
    }

    /// Runs `work` in a transaction, committed when it returns `Ok`. Begun again on another connection when the one at
    /// hand turns out to be broken before anything was done.
    pub async fn write<T, E>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<diesel::result::Error> + From<Unavailable> + Send + 'static,
    {
        let (attempts, turn) = (self.connections + 1, self.turn.clone());
        self.run(move |pool| {
            let _turn =
                turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
            let mut attempt = 1;
            loop {
                let mut db = pool.get().map_err(unreachable)?;
                match db.begin() {
                    Ok(()) => return db.finish(work),
                    Err(_) if db.is_broken() && attempt < attempts => attempt += 1,
                    Err(error) => return Err(error.into()),
                }
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
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |pool| {
            // Nobody waits any more: the caller gave up while this was queued.
            if !reply.is_closed() {
                let _ = reply.send(job(pool));
            }
        });
        self.jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => Unavailable::Saturated,
            TrySendError::Disconnected(_) => Unavailable::Failed,
        })?;
        match tokio::time::timeout(self.time_limit, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_dropped)) => Err(Unavailable::Failed.into()),
            Err(_elapsed) => Err(Unavailable::TimedOut.into()),
        }
    }

    /// Jobs that wait for a thread now.
    pub fn queued(&self) -> usize {
        self.jobs.len()
    }

    /// Statements run since the start, transaction control included.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }
}

fn unreachable(error: r2d2::Error) -> Unavailable {
    log::error!("no database connection: {error}");
    Unavailable::Unreachable
}

/// Makes connections for r2d2. The one that diesel brings can't pick a backend by scheme.
#[derive(Debug)]
struct Manager {
    target: Target,
    options: Options,
    statements: Arc<AtomicU64>,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Db;
    type Error = ConnectionError;

    fn connect(&self) -> Result<Db, ConnectionError> {
        let mut db = self.target.connect(&self.options)?;
        let (statements, slow) = (self.statements.clone(), self.options.slow_statement);
        let mut started = Instant::now();
        db.set_instrumentation(move |event: InstrumentationEvent<'_>| match event {
            InstrumentationEvent::StartQuery { .. } => {
                statements.fetch_add(1, Ordering::Relaxed);
                started = Instant::now();
            }
            InstrumentationEvent::FinishQuery { query, .. } if started.elapsed() > slow => {
                // The text before diesel's list of bound values: those may be anything a client sent.
                let sql = query.to_string();
                let sql = sql.split(" -- binds").next().unwrap_or_default();
                log::warn!(ms = started.elapsed().as_millis() as u64; "slow statement: {sql}");
            }
            _ => {}
        });
        Ok(db)
    }

    fn is_valid(&self, _: &mut Db) -> Result<(), ConnectionError> {
        Ok(())
    }

    fn has_broken(&self, db: &mut Db) -> bool {
        db.is_broken()
    }
}
