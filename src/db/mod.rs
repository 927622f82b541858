//! PostgreSQL and SQLite behind one connection type. This module does not depend on HTTP.
//!
//! Nearly every query is written once, for [`Db`]. A query that needs more than the common subset
//! uses `each_backend!`, which compiles the same source for each backend.

#![allow(missing_docs, reason = "diesel generates public items from `Db` and from the schema")]

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::{Connection, PgConnection, QueryResult, SqliteConnection};

pub mod clock;
pub mod columns;
pub mod connection;
pub mod locks;
pub mod migrations;
pub mod pool;
pub mod schema;

/// A connection to PostgreSQL or SQLite. Queries take `&mut Db` and return [`QueryResult`].
#[derive(diesel::MultiConnection)]
pub enum Db {
    /// PostgreSQL, through libpq.
    Pg(PgConnection),
    /// SQLite, in this process.
    Sqlite(SqliteConnection),
}

/// Compiles the same source for each backend. It is for queries that [`Db`] cannot
/// express: `ON CONFLICT`, batch inserts, aggregate filters.
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
    /// Runs `work` in a transaction, which is committed on `Ok` and rolled back on `Err`.
    ///
    /// On SQLite the transaction takes the write lock at its start (`BEGIN IMMEDIATE`). A
    /// transaction that reads first and takes the lock later can fail with "database is locked" at
    /// once, whatever its timeout.
    ///
    /// # Errors
    /// The error of `work`, or the database error of the begin or the commit.
    pub fn write<T, E: From<diesel::result::Error>>(
        &mut self,
        work: impl FnOnce(&mut Db) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin()?;
        self.finish(work)
    }

    /// Begins the transaction that [`Self::finish`] ends.
    pub(crate) fn begin(&mut self) -> QueryResult<()> {
        match self {
            Db::Pg(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN"),
            Db::Sqlite(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE"),
        }
    }

    /// Runs `work` in the transaction that [`Self::begin`] began, and commits or rolls back.
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
                // A broken connection has nothing to roll back. The caller needs the first error.
                if let Err(failed) = Manager::rollback_transaction(self) {
                    log::debug!("rollback: {failed}");
                }
                Err(error)
            }
        }
    }

    /// Whether the connection is unusable: closed by the server, or left inside a transaction.
    pub fn is_broken(&mut self) -> bool {
        <Db as Connection>::TransactionManager::is_broken_transaction_manager(self)
    }
}
