//! PostgreSQL and SQLite behind one connection type. This module does not depend on HTTP.
//!
//! Nearly every query is written once, for [`Db`]. A query that needs more than the common subset
//! uses `each_backend!`, which compiles the same source for each backend.

#![allow(missing_docs, reason = "diesel generates public items from `Db` and from the schema")]

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::{Connection, PgConnection, QueryResult, SqliteConnection};

pub mod access;
pub mod asked;
pub mod caller;
pub mod chain;
mod checkpoint;
pub mod clock;
pub mod columns;
pub mod connection;
mod conninfo;
pub mod counting;
pub mod json;
pub mod kept;
pub mod locks;
pub mod migrations;
pub mod pages;
pub mod pool;
pub mod rows;
pub mod schema;
mod scram;
pub mod stream;
pub mod together;
mod unavailable;
mod writer;

/// A connection to PostgreSQL or SQLite. Queries take `&mut Db` and return [`QueryResult`].
#[derive(diesel::MultiConnection)]
pub enum Db {
    /// PostgreSQL, through libpq.
    Pg(PgConnection),
    /// SQLite, in this process.
    Sqlite(SqliteConnection),
}

/// Whether the connection broke, so that what it was doing is done or not.
pub fn is_lost(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
        | DieselError::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _)
        | DieselError::BrokenTransactionManager => true,
        DieselError::RollbackErrorOnCommit { commit_error, .. } => is_lost(commit_error),
        _ => false,
    }
}

/// What the databases say when they cannot write: the disk is full, or it fails, or the database
/// is read-only. Neither driver gives the code of the error. The first four are SQLite's.
const CANNOT_WRITE: [&str; 8] = [
    "database or disk is full",
    "disk I/O error",
    "attempt to write a readonly database",
    "unable to open database file",
    "No space left on device",
    "Disk quota exceeded",
    "could not extend file",
    "File too large",
];

/// Whether the database cannot write now, although it may still be read.
pub fn cannot_write(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) => true,
        DieselError::DatabaseError(_, cause) => {
            CANNOT_WRITE.iter().any(|text| cause.message().contains(text))
        }
        DieselError::RollbackErrorOnCommit { commit_error, .. } => cannot_write(commit_error),
        _ => false,
    }
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
        self.finish(work, E::from)
    }

    /// Begins the transaction that [`Self::finish`] ends.
    ///
    /// # Errors
    /// That of the database. There is no transaction then.
    pub(crate) fn begin(&mut self) -> QueryResult<()> {
        self.begin_locked(None)
    }

    /// [`Self::begin`], with a lock ([`locks::Service::statement`]). On PostgreSQL both are one
    /// message; on SQLite the transaction is the lock. It must not be part of a statement that
    /// reads: what that one sees is older than the lock for which it waits.
    ///
    /// # Errors
    /// That of the database. There is no transaction then.
    pub(crate) fn begin_locked(&mut self, lock: Option<String>) -> QueryResult<()> {
        type Manager = AnsiTransactionManager;
        let c = match self {
            Db::Pg(c) => c,
            Db::Sqlite(c) => return Manager::begin_transaction_sql(c, "BEGIN IMMEDIATE"),
        };
        let Some(lock) = lock else { return Manager::begin_transaction_sql(c, "BEGIN") };
        let begun = Manager::begin_transaction_sql(c, &format!("BEGIN; {lock}"));
        if begun.is_err() {
            // The lock may have failed after the BEGIN, which diesel does not know.
            if let Err(failed) = c.batch_execute("ROLLBACK") {
                log::debug!("rollback: {failed}");
            }
        }
        begun
    }

    /// Runs `work` in the transaction that [`Self::begin`] began, and commits or rolls back.
    ///
    /// # Errors
    /// The error of `work`, or what `not_committed` makes of the error of the commit.
    pub(crate) fn finish<T, E>(
        &mut self,
        work: impl FnOnce(&mut Db) -> Result<T, E>,
        not_committed: impl FnOnce(DieselError) -> E,
    ) -> Result<T, E> {
        type Manager = <Db as Connection>::TransactionManager;
        match work(self) {
            Ok(value) => {
                Manager::commit_transaction(self).map_err(not_committed)?;
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

    /// Runs `work` in a savepoint of the transaction, which is rolled back on `Err`.
    ///
    /// # Errors
    /// The error of `work`, or the database error of the savepoint.
    pub fn savepoint<T, E: From<DieselError>>(
        &mut self,
        work: impl FnOnce(&mut Db) -> Result<T, E>,
    ) -> Result<T, E> {
        counting::in_part(|| self.transaction(work))
    }

    /// Whether the connection is unusable: closed by the server, or left inside a transaction.
    pub fn is_broken(&mut self) -> bool {
        <Db as Connection>::TransactionManager::is_broken_transaction_manager(self)
    }
}
