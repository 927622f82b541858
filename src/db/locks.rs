//! Locks that last until the transaction ends. SQLite has one writer at a time, which is the
//! transaction that would lock, so there a lock is nothing.

use diesel::dsl::{exists, select, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::Db;
use super::schema::{environments, freezes, services};
use crate::types::ids::FreezeId;

/// Locks the row of a service, and returns whether the service exists.
pub fn service(db: &mut Db, slug: &str) -> QueryResult<bool> {
    let row = services::table.find(slug);
    match db {
        Db::Pg(c) => {
            let found = row.select(services::slug).for_no_key_update().first::<String>(c);
            found.optional().map(|slug| slug.is_some())
        }
        Db::Sqlite(c) => select(exists(row)).get_result(c),
    }
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
