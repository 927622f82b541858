//! PostgreSQL and SQLite behind one connection type. Knows no HTTP.
//!
//! Nearly every query is written once, against [`Db`]. What the common subset can't express is written once more
//! generally with [`each_backend!`](crate::each_backend), which compiles the same source against either backend.

#![allow(missing_docs, reason = "diesel generates public items from `Db` and from the schema")]

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::{Connection, PgConnection, QueryResult, SqliteConnection};

pub mod migrations;
pub mod pool;
pub mod schema;
pub mod target;
pub mod types;

/// A connection to either database. Queries take `&mut Db` and return [`QueryResult`].
#[derive(diesel::MultiConnection)]
pub enum Db {
    /// PostgreSQL, through libpq.
    Pg(PgConnection),
    /// SQLite, in this process.
    Sqlite(SqliteConnection),
}

/// Runs the same source once per backend, for what [`Db`] can't say: `ON CONFLICT`, batch inserts, aggregate filters.
#[macro_export]
macro_rules! each_backend {
    ($db:expr, |$connection:ident| $body:expr) => {
        match $db {
            $crate::db::Db::Pg($connection) => $body,
            $crate::db::Db::Sqlite($connection) => $body,
        }
    };
}

impl Db {
    /// Runs `work` in a transaction: committed when it returns `Ok`, rolled back when it returns `Err`.
    ///
    /// On SQLite the write lock is taken at the start (`BEGIN IMMEDIATE`): a transaction that reads first and asks for
    /// the lock later fails with "database is locked" however long it is willing to wait.
    pub fn write<T, E: From<diesel::result::Error>>(
        &mut self,
        work: impl FnOnce(&mut Db) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin()?;
        self.finish(work)
    }

    /// Opens the transaction that [`Self::finish`] ends.
    pub(crate) fn begin(&mut self) -> QueryResult<()> {
        match self {
            Db::Pg(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN"),
            Db::Sqlite(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE"),
        }
    }

    /// Runs `work` in the transaction that [`Self::begin`] opened, and ends it.
    pub(crate) fn finish<T, E: From<diesel::result::Error>>(
        &mut self,
        work: impl FnOnce(&mut Db) -> Result<T, E>,
    ) -> Result<T, E> {
        type Manager = <Db as Connection>::TransactionManager;
        match work(self) {
            Ok(value) => {
                Manager::commit_transaction(self)?;
                Ok(value)
            }
            Err(error) => {
                // A connection that broke has nothing left to roll back; the cause is what the caller needs to hear.
                if let Err(failed) = Manager::rollback_transaction(self) {
                    log::debug!("rollback: {failed}");
                }
                Err(error)
            }
        }
    }

    /// Whether the connection can no longer be used: closed by the server, or left inside a transaction.
    pub fn is_broken(&mut self) -> bool {
        <Db as Connection>::TransactionManager::is_broken_transaction_manager(self)
    }
}
