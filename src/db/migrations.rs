//! Schema migrations. They are embedded in the binary, and have the same names for both databases.

use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use std::collections::BTreeSet;
use std::error::Error;

use super::Db;

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// The number of the advisory lock: "prop" in ASCII. Nothing else in the database may use it.
const LOCK: i64 = 0x70_72_6f_70;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Whether the database is missing a migration of this binary. A database that a newer version of
/// prop has used may have more migrations; that only logs a warning.
///
/// # Errors
/// When the connection is broken, or an embedded migration cannot be read.
pub fn is_pending(db: &mut Db) -> Result<bool> {
    let applied: BTreeSet<String> =
        match diesel::sql_query("SELECT version FROM __diesel_schema_migrations")
            .load::<Applied>(db)
        {
            Ok(rows) => rows.into_iter().map(|row| row.version).collect(),
            Err(error) if db.is_broken() => return Err(error.into()),
            // The table does not exist yet: the database is empty.
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

/// Applies the pending migrations in one transaction and returns their names.
///
/// Several processes may call this at the same time. On PostgreSQL they wait for an advisory lock,
/// on SQLite for the write lock. No lock is taken when nothing is pending.
///
/// # Errors
/// When a migration fails. The transaction is then rolled back.
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

/// Reverts all migrations, the newest first. Only for tests: prop itself never reverts a migration.
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
