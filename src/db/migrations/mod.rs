//! Schema migrations. They are embedded in the binary, and have the same names for both databases.
//!
//! On PostgreSQL the previous version keeps writing while they run. So each migration is a
//! transaction of its own that waits briefly for its locks, and what takes longer on a big table
//! runs outside a transaction ([`online`]).

use diesel::connection::SimpleConnection;
use diesel::migration::{CREATE_MIGRATIONS_TABLE, Migration, MigrationSource};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use std::collections::BTreeSet;
use std::error::Error;
use std::time::Instant;

use super::Db;
use super::access::{self, Role};

mod online;
mod turn;
mod waiting;

use waiting::{Connect, Result, Waits, patiently};

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// How long a migration waits for a table's lock, in milliseconds. While it waits, later writes to
/// the table wait behind it. A migration may lock two tables one after the other, and no write may
/// wait for a second.
const LOCK_TIMEOUT_MS: u32 = 200;

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
    let applied = match applied(db) {
        Ok(versions) => versions,
        Err(error) if db.is_broken() => return Err(error.into()),
        // The table does not exist yet: the database is empty.
        Err(_) => BTreeSet::new(),
    };
    let known: BTreeSet<String> = match db {
        Db::Pg(_) => {
            let online = online::PARTS.iter().map(|part| part.version());
            versions::<diesel::pg::Pg>(&POSTGRES)?.into_iter().chain(online).collect()
        }
        Db::Sqlite(_) => versions::<diesel::sqlite::Sqlite>(&SQLITE)?,
    };
    if let Some(newer) = applied.difference(&known).last() {
        log::warn!("the database has migration {newer}, which this version of prop does not know");
    }
    Ok(!known.is_subset(&applied))
}

/// Whether the database is known to have all migrations of this binary: `false` also when that
/// cannot be read.
pub fn is_current(db: &mut Db) -> bool {
    let pending = match db {
        // A transaction, because a pooler may give each statement another server connection. In an
        // empty database it fails.
        Db::Pg(_) => db.write(|db| is_pending(db).map_err(Failed)).map_err(|Failed(error)| error),
        Db::Sqlite(_) => is_pending(db),
    };
    matches!(pending, Ok(false))
}

fn applied(db: &mut Db) -> QueryResult<BTreeSet<String>> {
    let rows =
        diesel::sql_query("SELECT version FROM __diesel_schema_migrations").load::<Applied>(db)?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}

fn versions<B: diesel::backend::Backend>(source: &EmbeddedMigrations) -> Result<BTreeSet<String>> {
    let migrations: Vec<Box<dyn Migration<B>>> = source.migrations()?;
    Ok(migrations.iter().map(|m| m.name().version().to_string()).collect())
}

/// The role that prop serves with, when that does not own the database.
pub struct Access<'a> {
    /// The role.
    pub role: &'a Role,
    /// Whether it can log in with its password.
    pub can_log_in: &'a dyn Fn() -> bool,
}

/// Applies the pending migrations, in the order of their names, and returns these. Then makes sure
/// that the role of `access` exists and has its rights.
///
/// Several processes may call this at the same time: one migrates, and the others wait until it has
/// ended, however long that takes. `db` should be a connection of [`Target::connect_to_migrate`].
/// On PostgreSQL a second connection, which `another` opens, holds the lock.
///
/// [`Target::connect_to_migrate`]: super::connection::Target::connect_to_migrate
///
/// # Errors
/// When a migration fails, or gets no lock for a quarter of an hour. Nothing of it is left then
/// that applying it again does not complete.
pub fn apply(db: &mut Db, another: Connect<'_>, access: Option<Access<'_>>) -> Result<Vec<String>> {
    if let Db::Sqlite(_) = db {
        return if is_pending(db)? { apply_all(db) } else { Ok(Vec::new()) };
    }
    let is_done = match &access {
        Some(access) => (access.can_log_in)() && access::is_set(db, access.role)?,
        None => true,
    };
    if is_done && is_current(db) {
        return Ok(Vec::new());
    }
    let mut turn = turn::Turn::wait_for(another)?;
    let applied = apply_each(db, &mut turn)?;
    if let Some(Access { role, can_log_in }) = access {
        if !can_log_in() {
            access::admit(db, role)?;
        }
        if !access::is_set(db, role)? {
            access::set(db, role)?;
        }
    }
    Ok(applied)
}

/// Applies all migrations of an SQLite file in one transaction, which takes the only write lock.
fn apply_all(db: &mut Db) -> Result<Vec<String>> {
    let mut waits = Waits::new("another process writes to this database");
    while let Err(error) = db.begin() {
        if !error.to_string().contains("database is locked") {
            return Err(error.into());
        }
        waits.log();
    }
    let work = |db: &mut Db| match db {
        Db::Pg(_) => Ok(Vec::new()),
        Db::Sqlite(c) => {
            let applied = c.run_pending_migrations(SQLITE).map_err(Failed)?;
            Ok(applied.iter().map(ToString::to_string).collect())
        }
    };
    db.finish(work, Failed::from).map_err(|Failed(error)| error)
}

/// Applies the migrations of a PostgreSQL database one by one.
fn apply_each(db: &mut Db, turn: &mut turn::Turn) -> Result<Vec<String>> {
    let done = db.write(|db| {
        diesel::sql_query(CREATE_MIGRATIONS_TABLE).execute(db)?;
        applied(db)
    })?;
    let mut migrations: Vec<Box<dyn Migration<diesel::pg::Pg>>> = POSTGRES.migrations()?;
    migrations.sort_by_key(|migration| migration.name().version().to_string());
    let mut names = Vec::new();
    for migration in &migrations {
        let name = migration.name().version().to_string();
        if !done.contains(&name) {
            turn.check()?;
            timed(&name, || patiently(&name, || in_transaction(db, migration)))?;
            names.push(name.clone());
        }
        let part = online::PARTS.iter().find(|part| part.of == name);
        if let Some(part) = part.filter(|part| !done.contains(&part.version())) {
            turn.check()?;
            timed(&part.version(), || part.run(db))?;
            names.push(part.version());
        }
    }
    Ok(names)
}

/// Does a step, and mentions one that takes more than a second.
fn timed(name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    step()?;
    let seconds = began.elapsed().as_secs();
    if seconds > 0 {
        log::info!("migration {name} took {seconds} s");
    }
    Ok(())
}

fn in_transaction(db: &mut Db, migration: &dyn Migration<diesel::pg::Pg>) -> Result<()> {
    db.write(|db| {
        // `SET LOCAL`: behind a pooler, other clients use this server connection afterwards.
        let limits =
            format!("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}");
        db.batch_execute(&limits)?;
        match db {
            Db::Pg(c) => c.run_migration(migration).map(drop).map_err(Failed),
            Db::Sqlite(_) => Ok(()),
        }
    })
    .map_err(|Failed(error)| error)
}

/// Reverts all migrations, the newest first. Only for tests: prop itself never reverts a migration.
pub fn revert_all(db: &mut Db) -> Result<()> {
    db.write(|db| match db {
        Db::Pg(c) => {
            // Their parts have no names that diesel knows; `down.sql` reverts them as well.
            for part in &online::PARTS {
                part.forget(c)?;
            }
            c.revert_all_migrations(POSTGRES).map(drop).map_err(Failed)
        }
        Db::Sqlite(c) => c.revert_all_migrations(SQLITE).map(drop).map_err(Failed),
    })
    .map_err(|Failed(error)| error)
}

struct Failed(Box<dyn Error + Send + Sync>);

impl From<diesel::result::Error> for Failed {
    fn from(error: diesel::result::Error) -> Self {
        Self(Box::new(error))
    }
}
