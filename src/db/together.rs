//! Reads by primary key that wait at the same time share one statement.
//!
//! A read that finds fewer than [`RUNNING`] statements of its kind at work is run at once, alone.
//! Those that come while [`RUNNING`] are at work wait, and the next statement reads for all of
//! them. So nothing is delayed to find company, and the more callers there are, the fewer
//! statements each of them costs.

use diesel::result::Error as DieselError;
use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

use super::Db;
use super::pool::{Database, Pool, Unavailable};
use crate::types::request::{self, RequestId};

/// How many statements of one kind are at work at a time. With two, the database runs one while
/// the rows of the other are made into answers.
const RUNNING: usize = 2;

/// For how many callers one statement reads.
const MOST: usize = 64;

/// What is read by its primary key.
pub trait ByKey: 'static {
    /// The primary key.
    type Key: Copy + Eq + Send + 'static;
    /// What is made of a row. Several callers may get it.
    type Value: Clone + Send + 'static;
    /// Why it was not read.
    type Error: From<DieselError> + From<Unavailable> + Send + 'static;

    /// Reads those of `keys` that exist.
    ///
    /// # Errors
    /// When it could not read one of them. It is then called for each key alone.
    fn load(db: &mut Db, keys: &[Self::Key]) -> Result<Loaded<Self>, Self::Error>;
}

/// What was read, each with its key.
pub type Loaded<R> = Vec<(<R as ByKey>::Key, <R as ByKey>::Value)>;

/// Loads the rows of a table that have one of several primary keys: on PostgreSQL with one
/// statement, on SQLite, where a statement is no round trip, one after another.
#[macro_export]
macro_rules! with_keys {
    ($db:expr, $keys:expr, $table:ident::$key:ident, $row:ty) => {
        match $db {
            $crate::db::Db::Pg(c) => {
                /// The text is the same for any number of keys.
                struct WithKeys;
                let rows = $table::table.filter($table::$key.eq_any($keys));
                $crate::db::kept::Fixed::new(rows.select(<$row>::as_select()), WithKeys)
                    .load::<$row>(c)
            }
            $crate::db::Db::Sqlite(c) => {
                let rows = $keys.iter().map(|key| {
                    let row = $table::table.find(key).select(<$row>::as_select());
                    row.get_result::<$row>(c).optional()
                });
                rows.filter_map(Result::transpose).collect()
            }
        }
    };
}

/// Reads by primary key, for all that wait together.
pub struct Together {
    db: Database,
    /// A [`Line`] for each kind of thing.
    lines: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
}

impl Together {
    /// Reads with the threads of `db`.
    pub fn new(db: Database) -> Self {
        Self { db, lines: Mutex::default() }
    }

    /// The value with this key; `None` when there is none.
    ///
    /// # Errors
    /// The error of [`ByKey::load`], or [`Unavailable`] when no result arrived.
    pub async fn find<R: ByKey>(&self, key: R::Key) -> Result<Option<R::Value>, R::Error> {
        let (reply, answer) = oneshot::channel();
        let caller = Caller { key, request: request::current(), reply };
        self.line::<R>().join(&self.db, caller)?;
        self.db.answer(answer).await
    }

    fn line<R: ByKey>(&self) -> Line<R> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(TypeId::of::<R>()).or_insert_with(|| Box::new(Line::<R>::default()));
        line.downcast_ref::<Line<R>>().cloned().unwrap_or_default()
    }
}

struct Caller<R: ByKey> {
    key: R::Key,
    request: Option<RequestId>,
    reply: oneshot::Sender<Result<Option<R::Value>, R::Error>>,
}

/// The callers that wait for things of one kind, the first one first.
struct Line<R: ByKey>(Arc<Mutex<Waiting<R>>>);

struct Waiting<R: ByKey> {
    callers: VecDeque<Caller<R>>,
    /// How many jobs answer them, or are queued to do so. While there are callers there is one.
    running: usize,
}

impl<R: ByKey> Default for Line<R> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Waiting { callers: VecDeque::new(), running: 0 })))
    }
}

impl<R: ByKey> Clone for Line<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: ByKey> Line<R> {
    fn lock(&self) -> MutexGuard<'_, Waiting<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a caller. It counts as one in the queue, which is bounded.
    fn join(&self, db: &Database, caller: Caller<R>) -> Result<(), Unavailable> {
        let mut waiting = self.lock();
        if waiting.running < RUNNING {
            self.start(db)?;
            waiting.running += 1;
        } else if !db.has_room(waiting.callers.len()) {
            return Err(Unavailable::Saturated);
        }
        waiting.callers.push_back(caller);
        Ok(())
    }

    /// Queues a job that answers those that wait by then. No caller owns it: any of them may leave.
    fn start(&self, db: &Database) -> Result<(), Unavailable> {
        let (line, again) = (self.clone(), db.clone());
        db.submit(move |pool| line.serve(&again, pool))
    }

    /// Answers those that wait, until nobody does or other jobs have their turn.
    fn serve(&self, db: &Database, pool: &Pool) {
        let mut batch = self.lock().take();
        while !batch.is_empty() {
            answer(db, pool, batch);
            let mut waiting = self.lock();
            if db.queued() > 0 && !waiting.callers.is_empty() {
                if let Err(full) = self.start(db) {
                    waiting.give_up(&full);
                }
                return;
            }
            batch = waiting.take();
        }
    }
}

impl<R: ByKey> Waiting<R> {
    /// The callers of the next statement, without those that have left. When there is none, the
    /// job that asks has ended.
    fn take(&mut self) -> Vec<Caller<R>> {
        let mut batch = Vec::new();
        while batch.len() < MOST
            && let Some(caller) = self.callers.pop_front()
        {
            if !caller.reply.is_closed() {
                batch.push(caller);
            }
        }
        if batch.is_empty() {
            self.running -= 1;
        }
        batch
    }

    /// Ends a job that could not be queued again. If it was the only one, nobody would answer.
    fn give_up(&mut self, full: &Unavailable) {
        self.running -= 1;
        if self.running == 0 {
            send_to_all(self.callers.drain(..), full);
        }
    }
}

/// Why a batch was not read.
enum Failure<E> {
    /// There is no database, whatever the keys.
    Unavailable(Unavailable),
    /// It may be about one of the keys.
    Error(E),
    /// Nobody expects a panic, but the callers must not wait for it.
    Panic,
}

impl<E> From<Unavailable> for Failure<E> {
    fn from(cause: Unavailable) -> Self {
        Self::Unavailable(cause)
    }
}

impl<E: From<DieselError>> From<DieselError> for Failure<E> {
    fn from(error: DieselError) -> Self {
        Self::Error(error.into())
    }
}

/// Reads for a batch of callers, and answers them. What fails for several is read for each alone.
fn answer<R: ByKey>(db: &Database, pool: &Pool, mut batch: Vec<Caller<R>>) {
    let keys: Vec<R::Key> = batch.iter().map(|caller| caller.key).collect();
    // The log lines of a statement for several name the request that came first.
    let request = batch.first().and_then(|caller| caller.request.clone());
    let read =
        || db.read_on(pool, &Arc::default(), |db| R::load(db, &keys).map_err(Failure::Error));
    let read = AssertUnwindSafe(|| request::within(request, read));
    match catch_unwind(read).unwrap_or(Err(Failure::Panic)) {
        Ok(rows) => {
            for Caller { key, reply, .. } in batch {
                let row = rows.iter().find(|row| row.0 == key);
                let _ = reply.send(Ok(row.map(|row| row.1.clone())));
            }
        }
        Err(Failure::Unavailable(cause)) => send_to_all(batch, &cause),
        Err(_) if batch.len() > 1 => {
            batch.into_iter().for_each(|caller| answer(db, pool, vec![caller]));
        }
        Err(Failure::Error(error)) => {
            if let Some(caller) = batch.pop() {
                let _ = caller.reply.send(Err(error));
            }
        }
        Err(Failure::Panic) => send_to_all(batch, &Unavailable::Failed),
    }
}

fn send_to_all<R: ByKey>(callers: impl IntoIterator<Item = Caller<R>>, cause: &Unavailable) {
    for caller in callers {
        let _ = caller.reply.send(Err(cause.clone().into()));
    }
}
