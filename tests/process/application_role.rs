//! prop serves with a role that may do only what it needs, and another one owns the database.

use crate::harness::{ADMIN, Cluster, connect, count, fresh_postgres, serving_url};
use crate::process::{Ended, Process, prop, run};
use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use prop::db::Db;
use serde_json::json;

/// The settings of a start with these two.
fn start(serving: &str, owner: &str) -> Process {
    let settings = [
        ("MIGRATE_DATABASE_URL", owner),
        ("PROP_BOOTSTRAP_KEY", ADMIN),
        ("PROP_DATABASE__CONNECT_WAIT_SECONDS", "0"),
    ];
    Process::spawn(prop(&[], serving, &[]).envs(settings))
}

fn text(db: &mut Db, query: &str) -> String {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        text: String,
    }
    diesel::sql_query(query).get_result::<Row>(db).unwrap().text
}

/// A server that asks everybody but its owner for a password, and logs all statements.
fn with_passwords() -> Option<(Cluster, Db)> {
    let cluster = Cluster::start()?;
    let mut db = connect(&cluster.url());
    let directory = text(&mut db, "SELECT current_setting('data_directory') AS text");
    db.batch_execute(&format!(
        "COPY (VALUES ('host all prop 127.0.0.1/32 trust'),
             ('host all all 127.0.0.1/32 scram-sha-256')) TO '{directory}/pg_hba.conf';
         SELECT pg_reload_conf()"
    ))
    .unwrap();
    db.batch_execute("ALTER SYSTEM SET log_statement = 'all'").unwrap();
    db.batch_execute("SELECT pg_reload_conf(), pg_sleep(0.2)").unwrap();
    Some((cluster, db))
}

#[track_caller]
fn refused(process: Process, sentence: &str) {
    let Ended { code, stderr, .. } = process.end();
    assert!(code == Some(1) && stderr.contains(sentence), "{code:?} {stderr}");
}

#[test]
fn prop_creates_the_role_and_follows_its_password() {
    let Some((cluster, mut db)) = with_passwords() else { return };
    let owner = cluster.url();
    let serving =
        |password: &str| owner.replace("prop:never-to-be-printed@", &format!("app:{password}@"));

    let mut process = start(&serving("first-s3cret%20word"), &owner);
    process.app().post("/v1/services", json!({"slug": "shop", "name": "Shop"})).expect(201);
    let verifier = "SELECT left(rolpassword, 19) AS text FROM pg_authid WHERE rolname = 'app'";
    assert_eq!(text(&mut db, verifier), "SCRAM-SHA-256$4096:");
    // The owner's connections are closed.
    let of_owner = "pg_stat_activity WHERE usename = 'prop' AND backend_type = 'client backend' \
        AND pid <> pg_backend_pid()";
    assert_eq!(count(&mut db, of_owner), 0);

    // Another one starts beside it, then one with a new password, then a task with the old one.
    let mut other = start(&serving("first-s3cret%20word"), &owner);
    other.app().get("/readyz").expect(200);
    assert!(!other.stderr().contains("the role"), "{}", other.stderr());
    let mut rotated = start(&serving("second-s3cret"), &owner);
    rotated.app().get("/v1/services/shop").expect(200);
    rotated.wait_for_log("set the password of the role \"app\"");

    let log = std::fs::read_to_string(cluster.log()).unwrap();
    assert!(log.contains("CREATE ROLE \"app\"") && log.contains("ALTER ROLE \"app\""));
    for process in [process, other, rotated] {
        let printed = process.stdout() + &process.stderr() + &log;
        assert!(!printed.contains("s3cret"), "a password was printed");
    }
}

#[test]
fn a_role_that_prop_has_not_created_keeps_its_password() {
    let Some((cluster, mut db)) = with_passwords() else { return };
    db.batch_execute("CREATE ROLE app LOGIN PASSWORD 'of-somebody'").unwrap();
    let owner = cluster.url();
    let serving =
        |password: &str| owner.replace("prop:never-to-be-printed@", &format!("app:{password}@"));
    refused(start(&serving("wrong-password"), &owner), "password authentication failed");
    let mut process = start(&serving("of-somebody"), &owner);
    process.app().get("/readyz").expect(200);
}

#[test]
fn a_role_that_cannot_be_limited_is_refused() {
    let Some(owner) = fresh_postgres() else { return };
    let Some(serving) = serving_url(&owner) else { return };
    let name = serving.split(['/', ':']).nth(3).unwrap();
    let mut db = connect(&owner);
    for (made, undone) in [
        (format!("CREATE ROLE {name} LOGIN SUPERUSER"), format!("ALTER ROLE {name} NOSUPERUSER")),
        (format!("GRANT prop TO {name}"), format!("REVOKE prop FROM {name}")),
        ("GRANT DELETE ON keys TO PUBLIC".into(), "REVOKE DELETE ON keys FROM PUBLIC".into()),
    ] {
        db.batch_execute(&made).unwrap();
        refused(start(&serving, &owner), "can't be limited to what prop needs");
        db.batch_execute(&undone).unwrap();
    }
    // What it was given on the tables itself is taken back.
    db.batch_execute(&format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")).unwrap();
    start(&serving, &owner).app().get("/readyz").expect(200);
    assert_eq!(
        count(
            &mut db,
            &format!(
                "pg_class WHERE relname = 'events' AND has_table_privilege('{name}', oid, 'UPDATE')"
            )
        ),
        0
    );
}

#[test]
fn a_command_migrates_as_the_owner_too() {
    let Some(owner) = fresh_postgres() else { return };
    let ended = run(&["migrate"], &owner, &[]);
    assert!(ended.stdout.starts_with("applied 0001, "), "{ended:?}");
    let ended = run(&["key", "create", "me", "--scope", "admin"], &owner, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
