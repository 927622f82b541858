//! Starting beside others, and before the database.

use crate::harness::{ADMIN, Cluster, connect, fresh_postgres, serving_url};
use crate::process::{Process, prop, run};
use diesel::connection::SimpleConnection;
use std::time::Instant;

#[test]
fn three_start_at_once_on_an_empty_database() {
    let Some(database) = fresh_postgres() else { return };
    let mut processes: Vec<_> =
        (0..3).map(|_| Process::spawn(&mut prop(&[], &database, &[]))).collect();
    let apps: Vec<_> = processes.iter_mut().map(Process::app).collect();
    for app in &apps {
        app.get("/readyz").expect(200);
    }
    // The greeting comes after the line with the port; ended, the processes have said all.
    processes.iter().for_each(Process::terminate);
    let ended: Vec<_> = processes.into_iter().map(Process::end).collect();
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
    let migrated = ended.iter().filter(|ended| ended.stderr.contains("applied migrations")).count();
    let keys: Vec<_> =
        ended.iter().filter_map(|ended| ended.stdout.split_once("export PROP_KEY=")).collect();
    assert_eq!((migrated, keys.len()), (1, 1), "{ended:?}");

    assert_eq!(run(&["migrate"], &database, &[]).stdout, "No pending migrations.\n");
    assert_eq!(run(&["key", "list"], &database, &[]).stdout.lines().count(), 1);
    let key = keys[0].1.lines().next().unwrap();
    let mut again = Process::spawn(&mut prop(&[], &database, &[]));
    again.app().call("GET", "/v1/keys", key, None, &[]).expect(200);
}

#[test]
fn it_waits_for_a_database_that_starts_later() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.stop();
    let mut process =
        Process::spawn(&mut prop(&[], &cluster.url(), &[("PROP_BOOTSTRAP_KEY", ADMIN)]));
    process.wait_for_log("no connection to PostgreSQL yet, trying for ");
    std::thread::sleep(std::time::Duration::from_secs(2));
    cluster.start_again();
    let there = Instant::now();
    process.app().get("/readyz").expect(200);
    println!("ready {:?} after the database", there.elapsed());
}

#[test]
fn a_start_opens_one_connection_and_another_as_the_owner() {
    let Some(cluster) = Cluster::start() else { return };
    run(&["migrate"], &cluster.url(), &[]);
    let mut db = connect(&cluster.url());
    db.batch_execute("ALTER SYSTEM SET log_connections = on").unwrap();
    db.batch_execute("SELECT pg_reload_conf(), pg_sleep(0.2)").unwrap();
    let opened = |settings: &[(&str, &str)]| {
        let count = || {
            let log = std::fs::read_to_string(cluster.log()).unwrap();
            log.matches("connection authorized").count()
        };
        let before = count();
        let mut command = prop(&[], &cluster.url(), &[("PROP_BOOTSTRAP_KEY", ADMIN)]);
        command.env("PROP_DATABASE__POOL_SIZE", "1").env_remove("MIGRATE_DATABASE_URL");
        let mut process = Process::spawn(command.envs(settings.iter().copied()));
        process.app().get("/readyz").expect(200);
        process.terminate();
        assert_eq!(process.end().code, Some(0));
        count() - before
    };
    let (owner, serving) = (cluster.url(), serving_url(&cluster.url()).unwrap());
    assert_eq!(opened(&[("DATABASE_URL", &owner)]), 1);
    assert_eq!(opened(&[("DATABASE_URL", &serving), ("MIGRATE_DATABASE_URL", &owner)]), 2);
}
