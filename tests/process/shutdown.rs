//! SIGTERM: what runs is finished, nothing new is begun, and the process ends.

use crate::harness::{ADMIN, TestApp};
use crate::process::{Process, prop, serve, signal, sqlite_in, wait_for};
use crate::wire::{Wire, address};
use serde_json::Value;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// A POST of a deployment of which only the first half was sent. The server has begun it.
struct Begun {
    wire: Wire,
    rest: String,
}

impl Begun {
    fn post(app: &TestApp, external_id: &str) -> Self {
        let body = format!(
            r#"{{"service":"slow","environment":"staging","version":"1.0.0",
                "external_id":"{external_id}","create_missing":true}}"#
        );
        let mut wire = Wire::open(app);
        wire.send(&format!(
            "POST /v1/deployments HTTP/1.1\r\nHost: prop\r\nAuthorization: Bearer {ADMIN}\r\n\
                Content-Type: application/json\r\n\
            Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        ));
        assert_eq!(wire.answer().unwrap().0, 100);
        let (first, rest) = body.split_at(body.len() / 2);
        wire.send(first);
        Self { wire, rest: rest.to_owned() }
    }

    fn finish(mut self) -> Wire {
        self.wire.send(&self.rest);
        self.wire
    }
}

#[test]
fn a_running_request_is_answered_and_nothing_new_is_begun() {
    let directory = tempfile::tempdir().unwrap();
    let database = sqlite_in(&directory);
    let (process, app) = serve(&database, &[("PROP_HTTP__SHUTDOWN_SECONDS", "30")]);
    let mut idle = Wire::open(&app);
    idle.send("GET /readyz HTTP/1.1\r\nHost: prop\r\n\r\n");
    assert_eq!(idle.answer().unwrap().0, 200);
    let slow = Begun::post(&app, "slow-1");

    let terminated = Instant::now();
    process.terminate();
    process.wait_for_log("stopping: ");
    // Somebody who asks on a connection that is still open may get no answer, but none that says
    // "ready".
    idle.send("GET /readyz HTTP/1.1\r\nHost: prop\r\n\r\n");
    let probe = idle.answer();
    assert!(
        probe
            .as_ref()
            .is_none_or(|(status, body)| *status == 503 && body.contains("\"shutting_down\"")),
        "{probe:?}"
    );
    let noticed = terminated.elapsed();
    wait_for("new connections to be refused", || {
        let refused = TcpStream::connect(address(&app)).err();
        refused.map(|error| assert_eq!(error.kind(), ErrorKind::ConnectionRefused))
    });
    let closed = terminated.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let mut wire = slow.finish();
    let (status, body) = wire.answer().expect("an answer to the request that had begun");
    assert_eq!(status, 201, "{body}");
    assert_eq!(wire.answer(), None, "the connection is closed after the answer");
    let answered = terminated.elapsed();

    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(terminated.elapsed() < Duration::from_secs(30), "{:?}", terminated.elapsed());
    println!(
        "after SIGTERM: probe answered {noticed:?} ({probe:?}), port closed {closed:?}, slow \
            request answered {answered:?}, ended {:?}",
        terminated.elapsed()
    );

    let (_process, app) = serve(&database, &[]);
    let id = serde_json::from_str::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(app.get(&format!("/v1/deployments/{id}")).expect(200)["external_id"], "slow-1");
}

#[test]
fn an_idle_connection_does_not_hold_the_process_up() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = serve(&sqlite_in(&directory), &[("PROP_HTTP__SHUTDOWN_SECONDS", "60")]);
    let mut idle = Wire::open(&app);
    idle.send("GET /livez HTTP/1.1\r\nHost: prop\r\n\r\n");
    assert_eq!(idle.answer().unwrap().0, 200);
    // One that never sent anything, too.
    let _silent = Wire::open(&app);
    app.get("/v1/deployments").expect(200);

    let terminated = Instant::now();
    process.terminate();
    assert_eq!(process.end().code, Some(0));
    println!("idle: ended after {:?}", terminated.elapsed());
    assert!(terminated.elapsed() < Duration::from_secs(30), "{:?}", terminated.elapsed());
}

#[test]
fn a_request_that_never_ends_is_cut_off_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let variables =
        [("PROP_HTTP__SHUTDOWN_SECONDS", "1"), ("PROP_HTTP__READ_TIMEOUT_SECONDS", "600")];
    let (process, app) = serve(&sqlite_in(&directory), &variables);
    let mut slow = Begun::post(&app, "never");
    let terminated = Instant::now();
    process.terminate();
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    println!("cut off: ended after {:?}", terminated.elapsed());
    assert_eq!(slow.wire.answer(), None);
}

#[test]
fn sigint_ends_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let (process, _app) = serve(&sqlite_in(&directory), &[]);
    signal("INT", process.id());
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("stopped"), "{ended:?}");
}

/// A process with the number 1 gets no default action for a signal: only a handler of its own ends
/// it.
#[test]
fn it_ends_as_process_1_of_a_container() {
    const NAMESPACE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let permitted = Command::new("unshare")
        .args(NAMESPACE)
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success());
    if !permitted {
        let _ = writeln!(
            std::io::stderr(),
            "no process namespaces here: prop was not run as process 1"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let variables = [("PROP_BOOTSTRAP_KEY", ADMIN), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];
    let plain = prop(&[], &sqlite_in(&directory), &variables);
    let mut command = Command::new("unshare");
    command
        .args(NAMESPACE)
        .arg(plain.get_program())
        .env_clear()
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut process = Process::spawn(&mut command);
    process.app().get("/readyz").expect(200);
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id())).unwrap();
    signal("TERM", children.trim().parse().unwrap());
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("stopped"), "{ended:?}");
}
