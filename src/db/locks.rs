//! Locks that last until the transaction ends. SQLite has one writer at a time, which is the
//! transaction that would lock, so there a lock is nothing.

use diesel::dsl::{select, sql};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};

use super::columns::Instant;
use super::schema::{environments, freezes};
use super::{Db, clock};
use crate::types::ids::FreezeId;
use crate::types::time::Timestamp;

/// A service that a transaction has locked.
#[derive(Debug, Clone, Copy)]
pub struct Locked {
    /// Whether the service exists. One that does not cannot be locked.
    pub exists: bool,
    /// The time of the transaction, later than every event of the service: whoever waited for the
    /// lock is later than whoever held it, whatever the clocks say.
    pub now: Timestamp,
}

#[derive(QueryableByName)]
struct LockedRow {
    #[diesel(sql_type = Bool)]
    is_known: bool,
    /// On PostgreSQL the time of the transaction, on SQLite that of the newest event.
    #[diesel(sql_type = Nullable<Instant>)]
    now: Option<Timestamp>,
}

/// Locks the row of a service. This takes one statement.
pub fn service(db: &mut Db, slug: &str) -> QueryResult<Locked> {
    let statement = match db {
        Db::Pg(_) => "SELECT is_known, now FROM lock_service($1)",
        Db::Sqlite(_) => {
            "SELECT EXISTS (SELECT 1 FROM services WHERE slug = $1) AS is_known,
                (SELECT max(at) FROM events WHERE service = $1) AS now"
        }
    };
    let row: LockedRow = diesel::sql_query(statement).bind::<Text, _>(slug).get_result(db)?;
    let now = match db {
        Db::Pg(_) => row.now.unwrap_or_else(Timestamp::now),
        Db::Sqlite(_) => clock::after(row.now),
    };
    Ok(Locked { exists: row.is_known, now })
}

/// Locks the row of an environment, if it exists.
pub fn environment(db: &mut Db, slug: &str) -> QueryResult<()> {
    if let Db::Pg(c) = db {
        let row = environments::table.find(slug).select(environments::slug).for_no_key_update();
        row.execute(c)?;
    }
    Ok(())
}

/// Locks the row of a freeze, if it exists.
pub fn freeze(db: &mut Db, id: FreezeId) -> QueryResult<()> {
    if let Db::Pg(c) = db {
        freezes::table.find(id).select(freezes::id).for_no_key_update().execute(c)?;
    }
    Ok(())
}

/// Locks all environments against changes by others, who can still read them.
pub fn all_environments(db: &mut Db) -> QueryResult<()> {
    table(db, "environments")
}

/// Locks all keys against changes by others, who can still read them.
pub fn all_keys(db: &mut Db) -> QueryResult<()> {
    table(db, "keys")
}

fn table(db: &mut Db, name: &'static str) -> QueryResult<()> {
    if let Db::Pg(c) = db {
        let lock = format!("LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE");
        diesel::sql_query(lock).execute(c)?;
    }
    Ok(())
}

/// Locks a number, unless another transaction has locked it. Returns whether it is locked now.
pub fn try_number(db: &mut Db, number: i64) -> QueryResult<bool> {
    match db {
        Db::Pg(c) => {
            select(sql::<Bool>(&format!("pg_try_advisory_xact_lock({number})"))).get_result(c)
        }
        Db::Sqlite(_) => Ok(true),
    }
}
