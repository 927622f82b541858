//! What a migration does to big tables of a PostgreSQL database while others write to them: the
//! `online.sql` beside its `up.sql`.
//!
//! It runs after `up.sql`, statement by statement, each outside a transaction. Statements are
//! separated by an empty line. Each can be repeated, because the process may be killed after it:
//! an index is built with `CREATE INDEX CONCURRENTLY IF NOT EXISTS`, rows are changed in batches
//! by a `DO` block that commits after each. SQLite has one writer, and does both in `up.sql`.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};

use super::waiting::{Result, patiently};
use crate::db::Db;

/// The part of a migration that runs online.
pub struct Part {
    /// The version of the migration.
    pub of: &'static str,
    sql: &'static str,
}

/// The embedded text of a migration's `online.sql`.
macro_rules! part {
    ($of:literal, $folder:literal) => {
        Part {
            of: $of,
            sql: include_str!(concat!("../../../migrations/postgres/", $folder, "/online.sql")),
        }
    };
}

/// Every `online.sql`; a test compares this with the folders.
pub const PARTS: [Part; 7] = [
    part!("0005", "0005_timeline"),
    part!("0006", "0006_lead_time"),
    part!("0007", "0007_reported_times"),
    part!("0011", "0011_derive_places"),
    part!("0014", "0014_whose_event_and_when"),
    part!("0016", "0016_pages"),
    part!("0017", "0017_measures"),
];

impl Part {
    /// What notes in the table of migrations that this part is done.
    pub fn version(&self) -> String {
        format!("{}.online", self.of)
    }

    /// Does what was not done yet, and notes that all is.
    pub fn run(&self, db: &mut Db) -> Result<()> {
        let version = self.version();
        for statement in statements(self.sql) {
            patiently(&version, || {
                if let Some(index) = index_of(statement) {
                    drop_invalid(db, index)?;
                }
                Ok(db.batch_execute(statement)?)
            })?;
        }
        db.write(|db| {
            diesel::sql_query("INSERT INTO __diesel_schema_migrations (version) VALUES ($1)")
                .bind::<Text, _>(version)
                .execute(db)
        })?;
        Ok(())
    }

    /// Takes the note back.
    pub fn forget(&self, c: &mut PgConnection) -> QueryResult<()> {
        let version = self.version();
        c.batch_execute(&format!(
            "DELETE FROM __diesel_schema_migrations WHERE version = '{version}'"
        ))
    }
}

/// The statements of a file: its paragraphs.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split("\n\n").map(str::trim).filter(|statement| !statement.is_empty())
}

/// The name of the index that a statement builds concurrently.
fn index_of(statement: &str) -> Option<&str> {
    let (_, rest) = statement.split_once("INDEX CONCURRENTLY IF NOT EXISTS ")?;
    rest.split_whitespace().next()
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Bool)]
    found: bool,
}

/// Drops what an interrupted build has left: an index that is maintained, but not used.
fn drop_invalid(db: &mut Db, index: &str) -> QueryResult<()> {
    let invalid = db.write(|db| {
        diesel::sql_query(
            "SELECT EXISTS (SELECT 1 FROM pg_index
                 WHERE indexrelid = to_regclass($1) AND NOT indisvalid) AS found",
        )
        .bind::<Text, _>(index)
        .get_result::<Found>(db)
    })?;
    if invalid.found {
        log::info!("building the index {index} again, because its build was interrupted");
        db.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_file_is_embedded_under_the_version_of_its_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
        let mut found: Vec<(String, String)> = std::fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter_map(|entry| {
                let text = std::fs::read_to_string(entry.path().join("online.sql")).ok()?;
                let name = entry.file_name().into_string().unwrap();
                Some((name.split_once('_').unwrap().0.to_owned(), text))
            })
            .collect();
        found.sort();
        let parts: Vec<_> =
            PARTS.iter().map(|part| (part.of.to_owned(), part.sql.to_owned())).collect();
        assert_eq!(parts, found);
    }

    #[test]
    fn statements_are_paragraphs_and_name_their_index() {
        let sql = "-- a\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a ON t (b);\n\n\nDO $$ x; y $$;\n";
        let found: Vec<_> = statements(sql).map(|text| (index_of(text), text.len())).collect();
        assert_eq!(found, [(Some("a"), 56), (None, 14)]);
    }
}
