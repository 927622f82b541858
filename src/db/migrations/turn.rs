//! The turn to migrate: one process at a time, however many start.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use std::time::Duration;

use super::waiting::{Connect, Result, Waits};
use crate::db::{Db, locks};

/// The number of the advisory lock: "prop" in ASCII. Nothing else in the database may use it.
const LOCK: i64 = 0x70_72_6f_70;

/// How often a process that waits asks whether it is its turn.
const PAUSE: Duration = Duration::from_millis(250);

/// An advisory lock, held until this is dropped, by an open transaction on a connection of its own.
///
/// A lock of the session would stay with the server connection when a pooler gives that to others,
/// and the connection that migrates can't hold the lock, because indexes are built outside a
/// transaction. This transaction has neither a snapshot nor a lock on a table, so a concurrent
/// build does not wait for it.
pub struct Turn(Db);

impl Turn {
    /// Waits without a limit. It asks again and again instead of waiting in the server, where a
    /// statement timeout would end the wait and an open snapshot would hold up the one that
    /// migrates.
    pub fn wait_for(connect: Connect<'_>) -> Result<Self> {
        let mut db = connect()?;
        let mut waits = Waits::new("another process migrates this database");
        loop {
            match try_lock(&mut db) {
                Ok(true) => return Ok(Self(db)),
                Ok(false) => waits.log(),
                Err(error) if db.is_broken() => {
                    log::info!("the connection that waits to migrate was closed: {error}");
                    db = connect()?;
                }
                Err(error) => return Err(error.into()),
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes sure that this process still has the lock.
    ///
    /// # Errors
    /// When its connection was closed: another process may have the lock now.
    pub fn check(&mut self) -> Result<()> {
        self.0.batch_execute("SELECT 1").map_err(|error| {
            format!("the connection that held the lock of the migrations was closed: {error}")
                .into()
        })
    }
}

fn try_lock(db: &mut Db) -> QueryResult<bool> {
    type Manager = <Db as Connection>::TransactionManager;
    use diesel::connection::TransactionManager;
    db.begin()?;
    // In the default level a transaction has no snapshot between its statements. Which of the
    // timeouts there are depends on the version of PostgreSQL.
    db.batch_execute(
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
         SELECT set_config(name, '0', true) FROM pg_settings
         WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout',
             'statement_timeout')",
    )?;
    let is_locked = locks::try_number(db, LOCK)?;
    if !is_locked {
        Manager::rollback_transaction(db)?;
    }
    Ok(is_locked)
}
