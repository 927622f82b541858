//! The schema's versions: up, down, and the same on both databases.

use crate::harness::{connect, fresh_postgres, migrate};
use diesel::RunQueryDsl;
use diesel::sql_types::{Bool, Text};
use prop::db::{Db, migrations};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// An empty SQLite file in a directory of its own.
fn fresh_sqlite() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("prop.db").display());
    (directory, url)
}

#[derive(diesel::QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Everything that migrations can make and leave behind, but the table in which they are noted.
fn objects(db: &mut Db) -> BTreeSet<String> {
    let query = match db {
        Db::Pg(_) => {
            "SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace
             UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
             UNION ALL SELECT typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace
             UNION ALL SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal"
        }
        Db::Sqlite(_) => "SELECT name FROM sqlite_schema",
    };
    let rows: Vec<Named> = diesel::sql_query(query).load(db).unwrap();
    let own = |name: &String| {
        !name.contains("__diesel_schema_migrations") && !name.starts_with("sqlite_sequence")
    };
    rows.into_iter().map(|row| row.name).filter(own).collect()
}

fn up_and_down(url: &str) {
    let mut db = connect(url);
    assert!(migrations::is_pending(&mut db).unwrap());
    let applied = migrate(url);
    let steps = match &db {
        Db::Pg(_) => names("postgres").len() + online_parts(),
        Db::Sqlite(_) => names("sqlite").len(),
    };
    assert_eq!(applied.len(), steps);
    assert!(!migrations::is_pending(&mut db).unwrap());
    let made = objects(&mut db);
    assert!(made.contains("deployments") && made.contains("events_keep_rows"), "{made:?}");
    assert_eq!(migrate(url), Vec::<String>::new());

    migrations::revert_all(&mut db).unwrap();
    assert_eq!(objects(&mut db), BTreeSet::new());
    assert!(migrations::is_pending(&mut db).unwrap());
    assert_eq!(migrate(url), applied);
    assert_eq!(objects(&mut db), made);
}

#[test]
fn every_migration_is_reverted_and_applied_again_on_sqlite() {
    let (_directory, url) = fresh_sqlite();
    up_and_down(&url);
}

#[test]
fn every_migration_is_reverted_and_applied_again_on_postgres() {
    if let Some(url) = fresh_postgres() {
        up_and_down(&url);
    }
}

/// Table, column, whether it may be null, and whether it belongs to the key.
type Column = (String, String, bool, bool);

fn columns(db: &mut Db) -> BTreeSet<Column> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        table_name: String,
        #[diesel(sql_type = Text)]
        column_name: String,
        #[diesel(sql_type = Bool)]
        nullable: bool,
        #[diesel(sql_type = Bool)]
        keyed: bool,
    }
    let query = match db {
        Db::Pg(_) => {
            "SELECT c.table_name::text, c.column_name::text, c.is_nullable = 'YES' AS nullable,
                 k.column_name IS NOT NULL AS keyed
             FROM information_schema.columns c
             LEFT JOIN information_schema.table_constraints t
                 ON t.table_schema = c.table_schema AND t.table_name = c.table_name
                 AND t.constraint_type = 'PRIMARY KEY'
             LEFT JOIN information_schema.key_column_usage k
                 ON k.constraint_schema = t.constraint_schema
                 AND k.constraint_name = t.constraint_name AND k.column_name = c.column_name
             WHERE c.table_schema = 'public'"
        }
        // An integer primary key is the row's number and never null, though the table says nothing
        // about it.
        Db::Sqlite(_) => {
            "SELECT t.name AS table_name, c.name AS column_name,
                 c.\"notnull\" = 0 AND NOT (c.pk = 1 AND lower(c.type) = 'integer') AS nullable,
                 c.pk > 0 AS keyed
             FROM sqlite_schema t, pragma_table_info(t.name) c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"
        }
    };
    let rows: Vec<Row> = diesel::sql_query(query).load(db).unwrap();
    let rows = rows.into_iter().filter(|row| row.table_name != "__diesel_schema_migrations");
    rows.map(|row| (row.table_name, row.column_name, row.nullable, row.keyed)).collect()
}

/// Index, its table, and whether it is unique.
fn indexes(db: &mut Db) -> BTreeSet<String> {
    let query = match db {
        Db::Pg(_) => {
            "SELECT i.relname || ' on ' || t.relname || CASE WHEN x.indisunique THEN ' unique' \
                ELSE '' END
                 || CASE WHEN x.indpred IS NULL THEN '' ELSE ' partial' END AS name
             FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
                 JOIN pg_class t ON t.oid = x.indrelid
             WHERE t.relnamespace = 'public'::regnamespace
                 AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = x.indexrelid)"
        }
        Db::Sqlite(_) => {
            "SELECT i.name || ' on ' || t.name || CASE WHEN i.\"unique\" THEN ' unique' ELSE '' END
                 || CASE WHEN i.partial THEN ' partial' ELSE '' END AS name
             FROM sqlite_schema t, pragma_index_list(t.name) i
             WHERE t.type = 'table' AND i.origin = 'c'"
        }
    };
    let rows: Vec<Named> = diesel::sql_query(query).load(db).unwrap();
    rows.into_iter().map(|row| row.name).collect()
}

#[test]
fn both_databases_end_with_the_same_schema() {
    let Some(postgres) = fresh_postgres() else { return };
    let (_directory, sqlite) = fresh_sqlite();
    let [mut postgres, mut sqlite] = [postgres, sqlite].map(|url| {
        migrate(&url);
        connect(&url)
    });
    let expected = columns(&mut sqlite);
    let tables: BTreeSet<_> = expected.iter().map(|column| column.0.as_str()).collect();
    assert_eq!(tables, BTreeSet::from(crate::harness::TABLES));
    assert_eq!(columns(&mut postgres), expected);
    let expected = indexes(&mut sqlite);
    assert!(expected.contains("deployments_running on deployments unique partial"), "{expected:?}");
    assert_eq!(indexes(&mut postgres), expected);
}

/// The migrations of a database, by their folders.
fn names(backend: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(backend);
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| {
        for file in ["up.sql", "down.sql"] {
            assert!(entry.path().join(file).is_file(), "{} lacks {file}", entry.path().display());
        }
        entry.file_name().into_string().unwrap()
    });
    names.collect()
}

/// How many migrations have a part that runs while others write.
fn online_parts() -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    names("postgres").iter().filter(|name| folder.join(name).join("online.sql").is_file()).count()
}

#[test]
fn both_databases_have_migrations_of_the_same_names() {
    assert_eq!(names("postgres"), names("sqlite"));
    assert!(!names("sqlite").is_empty());
}

/// Six processes that migrate one empty database at once.
fn migrate_together(url: &str) {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prop"));
        let command = command
            .arg("migrate")
            .current_dir(directory.path())
            .env_clear()
            .envs(crate::harness::behind_pooler())
            .env("DATABASE_URL", url);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let processes: Vec<_> = (0..6).map(|_| start()).collect();
    let mut applied = 0;
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let output = String::from_utf8(output.stdout).unwrap();
        assert!(output.starts_with("applied ") || output == "No pending migrations.\n", "{output}");
        applied += usize::from(output.starts_with("applied "));
    }
    assert_eq!(applied, 1, "one does it, the others find it done");
    let mut db = connect(url);
    assert!(!migrations::is_pending(&mut db).unwrap());
    let (_directory, alone) = fresh_sqlite();
    migrate(&alone);
    let mut alone = connect(&alone);
    assert_eq!(columns(&mut db), columns(&mut alone));
}

#[test]
fn many_processes_may_migrate_an_empty_sqlite_file_at_once() {
    let (_directory, url) = fresh_sqlite();
    migrate_together(&url);
}

#[test]
fn many_processes_may_migrate_an_empty_postgres_database_at_once() {
    if let Some(url) = fresh_postgres() {
        migrate_together(&url);
    }
}
