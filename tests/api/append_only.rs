//! The history as the database keeps it, whoever writes SQL.

use crate::harness::{TestApp, connect, count, serving_url};
use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use prop::db::Db;

crate::on_both_databases! {
    no_event_is_rewritten_by_plain_sql
}

/// The whole history as text.
fn history(db: &mut Db) -> Vec<String> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        row: String,
    }
    let query = "SELECT CAST(seq AS text) || actor || action || entity_id AS row FROM events
        ORDER BY seq";
    diesel::sql_query(query).load::<Row>(db).unwrap().into_iter().map(|row| row.row).collect()
}

/// The columns of an event but its number, with somebody else as the actor.
const FORGED: &str = "at, 'nobody', action, entity, entity_id, service, environment, payload \
    FROM events";
const COLUMNS: &str = "(seq, at, actor, action, entity, entity_id, service, environment, payload)";

#[track_caller]
fn all_are_refused(db: &mut Db, statements: &[String], with: &str) {
    let before = history(db);
    assert!(before.len() > 3);
    for statement in statements {
        let error = db.batch_execute(statement).expect_err(statement).to_string();
        assert!(error.contains(with), "{statement}: {error}");
        let _ = db.batch_execute("ROLLBACK");
        assert_eq!(history(db), before, "{statement}");
    }
}

fn no_event_is_rewritten_by_plain_sql(app: &TestApp) {
    app.go_live("shop", "staging", "1");
    let mut db = app.db();
    let newest = count(&mut db, "events");
    let mut statements = vec![
        "UPDATE events SET actor = 'nobody'".to_owned(),
        "DELETE FROM events".into(),
        "DELETE FROM events WHERE seq = 1".into(),
    ];
    // Numbers that are taken, that never were, and that a transaction which was rolled back took.
    let numbers = ["1".to_owned(), newest.to_string(), "0".into(), "-5".into()];
    match db {
        Db::Pg(_) => {
            let forged = |n: &str, end: &str| {
                format!(
                    "INSERT INTO events {COLUMNS} OVERRIDING SYSTEM VALUE
                    SELECT {n}, {FORGED} WHERE seq = 1 {end}"
                )
            };
            statements.push("TRUNCATE events".into());
            statements.push(forged("1", "ON CONFLICT (seq) DO UPDATE SET actor = 'nobody'"));
            statements.extend(numbers.iter().map(|n| forged(n, "")));
            db.batch_execute("BEGIN; SELECT nextval('events_seq_seq'); ROLLBACK").unwrap();
            statements.push(forged(&(newest + 2).to_string(), ""));
            // This session has been given a number, as one that has written events.
            all_are_refused(&mut db, &statements, "events are append-only");
            db = app.db();
            statements.retain(|statement| !statement.starts_with("INSERT"));
        }
        Db::Sqlite(_) => {
            for clause in ["INSERT OR REPLACE", "REPLACE", "INSERT OR IGNORE", "INSERT"] {
                statements.extend(numbers.iter().map(|n| {
                    format!("{clause} INTO events {COLUMNS} SELECT {n}, {FORGED} WHERE seq = 1")
                }));
            }
            statements.extend([
                "UPDATE OR REPLACE events SET seq = 2 WHERE seq = 1".into(),
                "UPDATE OR IGNORE events SET actor = 'nobody' WHERE seq = 1".into(),
                format!(
                    "INSERT INTO events {COLUMNS} SELECT 1, {FORGED} WHERE seq = 1
                    ON CONFLICT (seq) DO UPDATE SET actor = 'nobody'"
                ),
            ]);
            all_are_refused(&mut db, &statements, "events are append-only");
            db.batch_execute("PRAGMA recursive_triggers = ON").unwrap();
            all_are_refused(&mut db, &statements, "events are append-only");
            // The counter of the numbers is an ordinary table.
            db.batch_execute("UPDATE sqlite_sequence SET seq = 0").unwrap();
        }
    }
    all_are_refused(&mut db, &statements, "events are append-only");
    app.go_live("shop", "staging", "2");
    assert!(count(&mut db, "events") > newest);
}

#[test]
fn the_role_that_serves_can_change_neither_history_nor_schema() {
    let Some(app) = TestApp::on_postgres() else { return };
    let Some(url) = serving_url(&app.database_url) else { return };
    app.go_live("shop", "staging", "1");
    let mut db = connect(&url);
    let forged = |n: &str| {
        format!(
            "INSERT INTO events {COLUMNS} OVERRIDING SYSTEM VALUE
            SELECT {n}, {FORGED} WHERE seq = 1"
        )
    };
    let statements = [
        "UPDATE events SET actor = 'nobody'",
        "DELETE FROM events",
        "TRUNCATE events",
        &forged("1"),
        &forged("-5"),
        &forged("nextval('events_seq_seq')"),
        "SELECT nextval('events_seq_seq')",
        "SELECT setval('events_seq_seq', 1)",
        "ALTER TABLE events DISABLE TRIGGER USER",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER events_keep_rows ON events",
        "ALTER TRIGGER events_keep_rows ON events RENAME TO other",
        "CREATE TRIGGER other BEFORE INSERT ON events EXECUTE FUNCTION events_are_append_only()",
        "CREATE OR REPLACE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql \
             AS 'BEGIN RETURN NEW; END'",
        "DROP FUNCTION events_are_append_only() CASCADE",
        "CREATE FUNCTION public.other() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE public.other (id integer)",
        "CREATE RULE other AS ON INSERT TO events DO INSTEAD NOTHING",
        "DROP TABLE events CASCADE",
        "ALTER TABLE events RENAME TO other",
        "ALTER TABLE events ADD COLUMN other text",
        "CREATE INDEX other ON events (actor)",
        "SET session_replication_role = replica",
        "SET ROLE prop",
        "UPDATE __diesel_schema_migrations SET version = '0'",
        "DELETE FROM deployments",
        "DELETE FROM releases",
        "DELETE FROM approvals",
        "DELETE FROM keys",
        "DELETE FROM deliveries",
        "TRUNCATE idempotency_keys",
        "COPY events TO PROGRAM 'cat'",
        "ALTER SYSTEM SET log_statement = 'none'",
        "CREATE ROLE other",
    ];
    let before = history(&mut connect(&app.database_url));
    // That is a warning, and has no effect.
    db.batch_execute("GRANT UPDATE ON events TO PUBLIC").unwrap();
    for statement in statements {
        let error = db.batch_execute(statement).expect_err(statement).to_string();
        let is_refusal = ["permission denied", "must be owner", "must be superuser"]
            .iter()
            .any(|words| error.contains(words));
        assert!(is_refusal, "{statement}: {error}");
    }
    assert_eq!(history(&mut connect(&app.database_url)), before);
    app.go_live("shop", "staging", "2");
}

#[test]
fn every_table_has_its_rights() {
    let mut named: Vec<&str> = prop::db::access::RIGHTS.iter().map(|(table, _)| *table).collect();
    named.retain(|table| *table != "__diesel_schema_migrations");
    let mut tables = crate::harness::TABLES.to_vec();
    tables.sort_unstable();
    assert_eq!(named, tables, "a new table needs a line in src/db/access.rs");
}
