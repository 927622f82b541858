//! The schema's versions, embedded in the binary for both databases under the same names.

use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use std::collections::BTreeSet;
use std::error::Error;

use super::Db;

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// Any number, as long as nothing else in the database locks by it: "prop" in ASCII.
const LOCK: i64 = 0x70_72_6f_70;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Whether the database lacks a migration of this binary. It may have more: then a newer prop ran here before.
pub fn is_pending(db: &mut Db) -> Result<bool> {
    let applied: BTreeSet<String> =
        match diesel::sql_query("SELECT version FROM __diesel_schema_migrations")
            .load::<Applied>(db)
        {
            Ok(rows) => rows.into_iter().map(|row| row.version).collect(),
            Err(error) if db.is_broken() => return Err(error.into()),
            // The table is not there yet: an empty database.
            Err(_) => BTreeSet::new(),
        };
    let known: BTreeSet<String> = match db {
        Db::Pg(_) => versions::<diesel::pg::Pg>(&POSTGRES)?,
        Db::Sqlite(_) => versions::<diesel::sqlite::Sqlite>(&SQLITE)?,
    };
    if let Some(newer) = applied.difference(&known).last() {
        log::warn!("the database has migration {newer}, which this version of prop does not know");
    }
    Ok(!known.is_subset(&applied))
}

fn versions<B: diesel::backend::Backend>(source: &EmbeddedMigrations) -> Result<BTreeSet<String>> {
    let migrations: Vec<Box<dyn Migration<B>>> = source.migrations()?;
    Ok(migrations.iter().map(|m| m.name().version().to_string()).collect())
}

/// Applies what is pending, in one transaction, and returns the names. Many processes may call it at once: on PostgreSQL
/// they queue for an advisory lock, on SQLite for the write lock. With nothing pending no lock is taken.
pub fn apply(db: &mut Db) -> Result<Vec<String>> {
    if !is_pending(db)? {
        return Ok(Vec::new());
    }
    db.write(|db| {
        let applied = match db {
            Db::Pg(c) => {
                diesel::sql_query(format!("SELECT pg_advisory_xact_lock({LOCK})")).execute(c)?;
                c.run_pending_migrations(POSTGRES)
            }
            Db::Sqlite(c) => c.run_pending_migrations(SQLITE),
        };
        Ok(applied.map_err(Failed)?.iter().map(ToString::to_string).collect())
    })
    .map_err(|Failed(error)| error)
}

/// Reverts every migration, the newest first. For tests: prop itself never goes back, it expands and then contracts.
pub fn revert_all(db: &mut Db) -> Result<()> {
    match db {
        Db::Pg(c) => c.revert_all_migrations(POSTGRES).map(drop),
        Db::Sqlite(c) => c.revert_all_migrations(SQLITE).map(drop),
    }
}

struct Failed(Box<dyn Error + Send + Sync>);

impl From<diesel::result::Error> for Failed {
    fn from(error: diesel::result::Error) -> Self {
        Self(Box::new(error))
    }
}
