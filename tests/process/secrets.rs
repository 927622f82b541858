//! No part of the database's password is ever printed, however it is written into the URL.

use crate::harness::fresh_postgres;
use crate::process::{Process, prop};
use std::process::Command;

/// What surrounds the nasty part of each password: neither may be found in any output.
const PARTS: [&str; 2] = ["SENTINEL", "passw0rd"];

/// Runs `prop migrate` to its end, and returns its exit code and everything that it printed.
#[track_caller]
fn migrate(url: &str) -> (Option<i32>, String) {
    migrate_within(url, 0)
}

/// The same, with time for another attempt to connect.
#[track_caller]
fn migrate_within(url: &str, seconds: u8) -> (Option<i32>, String) {
    let mut command: Command = prop(&["migrate"], url, &[]);
    command.env("PROP_DATABASE__CONNECT_WAIT_SECONDS", seconds.to_string());
    command.env("PROP_LOG__FILTER", "trace");
    let ended = Process::spawn(&mut command).end();
    let printed = ended.stdout + &ended.stderr;
    for part in PARTS {
        assert!(!printed.contains(part), "{url}: {printed}");
    }
    (ended.code, printed)
}

#[test]
fn a_password_that_is_not_percent_encoded_is_refused_without_being_shown() {
    // The first two are what libpq printed.
    for nasty in ["%zz", "@", "%", "%0", "/", "?", "?a=", " ", "@b/", "/@", "%00", "\u{a0}"] {
        let password = format!("SENTINEL{nasty}passw0rd");
        let (code, printed) = migrate(&format!("postgres://prop:{password}@127.0.0.1:1/postgres"));
        assert_eq!(code, Some(2), "{nasty}: {printed}");
        assert!(
            printed.contains("DATABASE_URL") && printed.contains("percent-encoded"),
            "{printed}"
        );
    }
    // Neither is what was meant as one.
    for url in ["postgres://prop:SENTINEL", "SENTINELpassw0rd", "SENTINEL:passw0rd@h/n"] {
        assert_eq!(migrate(url).0, Some(2), "{url}");
    }
}

#[test]
fn a_password_is_not_shown_when_there_is_no_connection() {
    let nasty = ["", ":", "#", "%25zz", "%40", "%2F", "%3F", "%20", "%27", "%5C", "%C3%A4", "ä"];
    for nasty in nasty {
        let password = format!("SENTINEL{nasty}passw0rd");
        for url in [
            format!("postgres://prop:{password}@127.0.0.1:1/postgres"),
            format!("postgres://127.0.0.1:1/postgres?user=prop&password={password}"),
            format!("postgres://prop:{password}@nowhere.invalid/postgres"),
        ] {
            let (code, printed) = migrate(&url);
            assert_eq!(code, Some(1), "{url}: {printed}");
            assert!(printed.contains("no connection to PostgreSQL"), "{printed}");
        }
        let Some(there) = fresh_postgres() else { continue };
        let (_, rest) = there.split_once('@').unwrap();
        let (code, printed) = migrate(&format!("postgres://prop:{password}@{rest}"));
        assert_eq!(code, Some(0), "{nasty}: {printed}");
    }
}

#[test]
fn libpqs_own_words_are_masked() {
    // The server says the user's name; here the name is the password, too.
    let Some(there) = fresh_postgres() else { return };
    let (_, rest) = there.split_once('@').unwrap();
    let url = format!("postgres://SENTINELpassw0rd:SENTINELpassw0rd@{rest}");
    let (code, printed) = migrate_within(&url, 1);
    assert!(printed.contains("no connection to PostgreSQL yet"), "{printed}");
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("\"***\""), "{printed}");
}
