//! Behind PgBouncer in transaction mode, where a client gets another server connection with each
//! transaction.
//!
//! The API tests can run there too: `tests/support/with-pgbouncer.sh cargo test --test api
//! postgres`. `scripts/test.sh app` runs those that depend on sessions and transactions.

use crate::load::{Load, expect_nothing_lost};
use crate::process::{Process, prop, serve};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// A pooler that ends when it is dropped.
struct Pooler {
    script: Child,
    url: String,
}

impl Pooler {
    /// Starts one; `None` where there is none, which is an error in CI.
    fn start() -> Option<Self> {
        let mut command =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/with-pgbouncer.sh"));
        // It cleans up when its command ends, and that ends when we close the pipe.
        command.args(["sh", "-c", "echo \"$TEST_DATABASE_URL\"; cat >/dev/null"]);
        let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut url).unwrap();
        if url.is_empty() {
            // The script has said why.
            let status = script.wait().unwrap();
            let _ = writeln!(std::io::stderr(), "no PgBouncer: its test does nothing");
            assert!(
                status.code() == Some(127) && std::env::var_os("CI").is_none(),
                "CI must test behind PgBouncer"
            );
            return None;
        }
        Some(Self { script, url: url.trim().to_owned() })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

#[test]
fn clients_share_few_server_connections() {
    let Some(pooler) = Pooler::start() else { return };
    let settings = [("PROP_DATABASE__PREPARED_STATEMENTS", "false")];
    let (_first, app) = serve(&pooler.url, &settings);
    let (_second, other) = serve(&pooler.url, &settings);
    let load = Load::start(&[&app, &other], 16);
    // Others start meanwhile: their first queries share the connections with the load.
    let mut late: Vec<_> =
        (0..4).map(|_| Process::spawn(&mut prop(&[], &pooler.url, &settings))).collect();
    for process in &mut late {
        process.app().get("/readyz").expect(200);
    }
    for _ in 0..30 {
        other.get("/v1/status").expect(200);
        app.get("/v1/deployments?limit=5").expect(200);
    }
    load.wait_for_acknowledged(200);
    let attempts = load.stop();
    let wrong = attempts.iter().find(|attempt| !attempt.is_acknowledged());
    assert!(wrong.is_none(), "{:?}", wrong.map(|attempt| &attempt.answer));
    expect_nothing_lost(&app, &attempts);
    println!("behind PgBouncer: {} acknowledged", attempts.len());
}
