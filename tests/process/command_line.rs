//! The commands, their exit codes, and what they say.

use crate::harness::ADMIN;
use crate::process::{Process, prop, run, serve, sqlite_in, wait_for};
use serde_json::Value;
use std::net::TcpListener;

/// A port that nobody listens on.
const NOBODY: &str = "1";

#[test]
fn the_version_names_the_commit() {
    let version = run(&["--version"], "", &[]);
    assert_eq!(version.code, Some(0));
    let sha = version.stdout.trim().rsplit_once('(').unwrap().1.trim_end_matches(')');
    assert_eq!(version.stdout, format!("prop {} ({sha})\n", env!("CARGO_PKG_VERSION")));
    assert!(sha.len() == 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit()), "{sha}");
}

#[test]
fn the_help_names_every_command() {
    let help = run(&["--help"], "", &[]);
    assert_eq!(help.code, Some(0));
    for command in ["serve", "migrate", "key", "openapi", "healthcheck"] {
        assert!(
            help.stdout.lines().any(|line| line.trim_start().starts_with(command)),
            "{command}: {}",
            help.stdout
        );
    }
}

#[test]
fn the_openapi_document_needs_neither_settings_nor_a_database() {
    let printed = run(&["openapi"], "nonsense", &[("PROP_HTTP__PORT", "nonsense")]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/v1/deployments"]["post"].is_object());
}

#[test]
fn keys_are_made_listed_and_revoked_beside_a_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let (_process, app) = serve(&database, &[]);

    let created = run(&["key", "create", "reader", "--scope", "read"], &database, &[]);
    assert_eq!(created.code, Some(0), "{created:?}");
    let key = created.stdout.trim();
    assert!(!created.stderr.contains(key), "{created:?}");
    app.call("GET", "/v1/deployments", key, None, &[]).expect(200);
    let body = serde_json::json!({"slug": "checkout"});
    app.call("POST", "/v1/services", key, Some(&body), &[]).expect_problem(403, "missing_scope");
    for (name, why) in [("Reader", "has the name Reader"), ("GitHub:octocat", "is reserved")] {
        let refused = run(&["key", "create", name, "--scope", "read"], &database, &[]);
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
    }

    let listed = run(&["key", "list"], &database, &[]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(!listed.stdout.contains(key) && !listed.stdout.contains(ADMIN), "{listed:?}");
    let line = listed.stdout.lines().find(|line| line.contains("reader")).unwrap();
    assert!(
        line.contains("valid") && line.contains("(read)") && line.contains(&key[..10]),
        "{line}"
    );
    let id = line.split_whitespace().next().unwrap();

    let revoked = run(&["key", "revoke", id], &database, &[]);
    assert_eq!((revoked.code, revoked.stdout), (Some(0), format!("revoked {id} (reader)\n")));
    assert!(
        run(&["key", "list"], &database, &[])
            .stdout
            .lines()
            .any(|line| line.contains(id) && line.contains("revoked"))
    );
    // The server remembers a key that it has checked for some seconds.
    wait_for("the key to be refused", || {
        let answer = app.call("GET", "/v1/deployments", key, None, &[]);
        (answer.status != 200).then(|| answer.expect_problem(401, "revoked_key"))
    });

    let unknown = run(&["key", "revoke", "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e40"], &database, &[]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    let malformed = run(&["key", "revoke", "reader"], &database, &[]);
    assert_eq!(malformed.code, Some(1), "{malformed:?}");
    assert!(malformed.stderr.contains("`prop key list` shows them"), "{malformed:?}");
}

#[test]
fn a_generated_key_is_accepted_as_the_bootstrap_key() {
    let (first, second) = (run(&["key", "generate"], "", &[]), run(&["key", "generate"], "", &[]));
    assert_eq!(first.code, Some(0));
    assert_ne!(first.stdout, second.stdout);
    let directory = tempfile::tempdir().unwrap();
    let key = first.stdout.trim();
    let mut process =
        Process::spawn(&mut prop(&[], &sqlite_in(&directory), &[("PROP_BOOTSTRAP_KEY", key)]));
    process.app().call("GET", "/v1/keys", key, None, &[]).expect(200);
}

#[test]
fn migrate_says_what_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let first = run(&["migrate"], &database, &[]);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stdout.starts_with("applied "), "{first:?}");
    let second = run(&["migrate"], &database, &[]);
    assert_eq!((second.code, second.stdout.as_str()), (Some(0), "No pending migrations.\n"));
}

#[test]
fn the_healthcheck_asks_the_server_on_this_machine() {
    let directory = tempfile::tempdir().unwrap();
    let (_process, app) = serve(&sqlite_in(&directory), &[]);
    let port = app.url.rsplit_once(':').unwrap().1;
    // Somebody who takes the connection and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port().to_string();
    for question in [&["healthcheck"][..], &["healthcheck", "--live"]] {
        let yes = run(question, "", &[("PROP_HTTP__PORT", port)]);
        assert_eq!((yes.code, yes.stderr.as_str()), (Some(0), ""));

        let nobody = run(question, "", &[("PROP_HTTP__PORT", NOBODY)]);
        assert_eq!((nobody.code, nobody.stderr.lines().count()), (Some(1), 1), "{nobody:?}");
        assert!(nobody.stderr.starts_with("prop: no answer from 127.0.0.1:1: "), "{nobody:?}");

        let silence = run(question, "", &[("PROP_HTTP__PORT", &silent)]);
        assert_eq!((silence.code, silence.stderr.lines().count()), (Some(1), 1), "{silence:?}");
    }
}

#[test]
fn the_help_of_the_healthcheck_says_which_one_restarts_may_depend_on() {
    let help = run(&["healthcheck", "--help"], "", &[]);
    assert_eq!(help.code, Some(0));
    for words in ["--live", "/livez", "/readyz", "Exit codes: 0 yes, 1 no"] {
        assert!(help.stdout.contains(words), "{words}: {}", help.stdout);
    }
    assert_eq!(run(&["healthcheck", "--dead"], "", &[]).code, Some(2));
}

#[test]
fn a_wrong_setting_is_named_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    for (variable, value, named) in [
        ("PROP_HTTP__PORT", "99999", "http.port"),
        ("PROP_HTTP__PORT", "eighty", "http.port"),
        ("PORT", "eighty", "PORT"),
        ("PROP_ENVIRONMENT", "staging", "environment"),
        ("PROP_BOOTSTRAP_KEY", "prop_NotAKeyButASecretAllTheSame", "bootstrap_key"),
        ("PROP_DATABASE__POOL_SIZE", "0", "database.pool_size"),
        ("PROP_LOG__FILTER", "loud=very", "log.filter"),
        ("PROP_CONFIG", "no-such-file.toml", "no-such-file.toml"),
    ] {
        let ended = run(&[], &database, &[(variable, value)]);
        assert_eq!(
            (ended.code, ended.stdout.as_str(), ended.stderr.lines().count()),
            (Some(2), "", 1),
            "{variable}={value}: {ended:?}"
        );
        assert!(
            ended.stderr.starts_with("prop: ") && ended.stderr.contains(named),
            "{variable}={value}: {ended:?}"
        );
        assert!(!ended.stderr.contains("NotAKeyButASecret"), "{ended:?}");
    }
}

#[test]
fn variables_that_are_no_settings_are_warned_about_once_and_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = serve(
        &sqlite_in(&directory),
        &[
            // What the build script of an earlier version set under `cargo run`.
            ("PROP_GIT_SHA", "never-to-be-printed"),
            ("PROP_HTTP__PROT", "never-to-be-printed"),
            ("PROP_HTTP", "never-to-be-printed"),
            ("PROP_MIRROR_KEY", "never-to-be-printed"),
            ("PROP_URL", "never-to-be-printed"),
        ],
    );
    app.get("/readyz").expect(200);
    let log = process.stderr();
    for warning in [
        "PROP_GIT_SHA is not a setting of prop and is ignored\n",
        "PROP_HTTP__PROT is not a setting of prop and is ignored; did you mean PROP_HTTP__PORT?\n",
        "PROP_HTTP is not a setting of prop and is ignored",
    ] {
        assert_eq!(log.matches(warning).count(), 1, "{warning}: {log}");
    }
    assert_eq!(log.matches("is not a setting").count(), 3, "{log}");
    assert!(!log.contains("never-to-be-printed"), "{log}");
}

#[test]
fn an_unknown_key_of_the_settings_file_is_refused_with_the_one_that_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, "[http]\nprot = 1\n").unwrap();
    let file = file.to_str().unwrap();
    let ended = run(&["--config", file], &sqlite_in(&directory), &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let start = format!("prop: {file}: unknown key `prot`. Did you mean `port`? Allowed: host, ");
    assert!(ended.stderr.starts_with(&start), "{ended:?}");
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let variables = [("PROP_HTTP__PORT", port.to_string())];
    let variables: Vec<_> = variables.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let ended = run(&[], &sqlite_in(&directory), &variables);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let sentence = ended.stderr.lines().last().unwrap();
    assert!(sentence.contains(&format!("another program uses port {port}.")), "{sentence}");
    assert!(sentence.contains(": PORT="), "{sentence}");
}

#[test]
fn scopes_are_separated_by_commas_or_given_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let create = |name: &str, scopes: &[&str]| {
        run(&[&["key", "create", name], scopes].concat(), &database, &[])
    };
    assert_eq!(create("one", &["--scope", "read,deploy"]).code, Some(0));
    assert_eq!(create("two", &["--scope", "deploy", "--scope", "read"]).code, Some(0));
    let listed = run(&["key", "list"], &database, &[]).stdout;
    assert_eq!(listed.matches("  (read, deploy)").count(), 2, "{listed}");
    let wrong = create("three", &["--scope", "read,deplyo"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("must be one of read, deploy, attest, "), "{wrong:?}");
    let help = run(&["key", "create", "--help"], "", &[]).stdout;
    for holder in ["dashboard", "pipeline", "person"] {
        assert!(help.contains(holder), "{help}");
    }
}

#[test]
fn an_unknown_database_is_refused_without_its_password() {
    for url in ["mysql://prop:never-to-be-printed@127.0.0.1/prop", "never-to-be-printed"] {
        let ended = run(&["migrate"], url, &[]);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{ended:?}");
        assert!(
            ended.stderr.contains("database.url") && !ended.stderr.contains("never-to-be-printed"),
            "{ended:?}"
        );
    }
}

#[test]
fn a_database_that_is_not_there_ends_the_start_with_a_sentence() {
    let url = format!("postgres://prop:never-to-be-printed@127.0.0.1:{NOBODY}/prop");
    let ended = run(&[], &url, &[("PROP_DATABASE__CONNECT_WAIT_SECONDS", "1")]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    let sentence = ended.stderr.lines().last().unwrap();
    assert!(sentence.starts_with("prop: no connection to PostgreSQL: "), "{ended:?}");

    let nowhere = run(&[], "sqlite:/no/such/directory/prop.db", &[]);
    assert_eq!((nowhere.code, nowhere.stderr.lines().count()), (Some(1), 1), "{nowhere:?}");
    assert!(nowhere.stderr.contains("/no/such/directory/prop.db"), "{nowhere:?}");
}
