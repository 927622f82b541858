//! Clients without a key that try to use up the memory of a process, or all of its connections.

use crate::harness::{TestApp, WEBHOOK_SECRET};
use crate::process::{Process, serve, sqlite_in, wait_for};
use prop::types::token::Token;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// What no attack may make a process hold at any moment, in KiB.
const MOST: u64 = 64 * 1024;

/// A server with two workers, whatever the machine has, and short deadlines.
fn victim(directory: &tempfile::TempDir) -> (Process, TestApp) {
    let variables = [
        ("PROP_HTTP__WORKERS", "2"),
        ("PROP_HTTP__READ_TIMEOUT_SECONDS", "2"),
        ("PROP_GITHUB__WEBHOOK_SECRET", WEBHOOK_SECRET),
    ];
    serve(&sqlite_in(directory), &variables)
}

fn connect(app: &TestApp) -> TcpStream {
    let stream = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends a request, and returns the status and what else was answered until the connection closed.
fn ask(app: &TestApp, request: &[u8]) -> String {
    let mut stream = connect(app);
    // The server may answer, and close, before it has read all of it.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The most memory that the process has held so far, in KiB.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn expect_little_memory(process: &Process, attack: &str) {
    let peak = peak(process);
    println!("{attack}: at most {} MiB", peak / 1024);
    assert!(peak < MOST, "{attack}: {} MiB", peak / 1024);
}

/// Waits until the server has closed all of these connections, and returns how long that took.
#[track_caller]
fn wait_until_closed(streams: &mut [TcpStream], limit: Duration) -> Duration {
    let started = Instant::now();
    let mut rest = vec![0; 1 << 20];
    for stream in streams {
        let left = limit.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).unwrap();
        loop {
            match stream.read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("still open after {:?}: {error}", started.elapsed()),
            }
        }
    }
    started.elapsed()
}

#[test]
fn methods_of_100_kilobytes() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = victim(&directory);
    let long = "M".repeat(100_000);
    for n in 0..200 {
        let request = format!("{long}{n} / HTTP/1.1\r\nHost: prop\r\nConnection: close\r\n\r\n");
        let answer = ask(&app, request.as_bytes());
        let status = answer.get(9..12).unwrap_or_default();
        assert!(["405", "431"].contains(&status), "{}", &answer[..answer.len().min(500)]);
        assert!(!answer.contains("MMMM"), "the method is repeated in the answer");
    }
    let metrics = app.metrics();
    assert!(metrics.len() < 100_000, "{} bytes of metrics", metrics.len());
    assert!(!process.stderr().contains("MMMM"), "the method is logged");
    expect_little_memory(&process, "200 methods of 100 kB");
}

#[test]
fn twenty_thousand_methods() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = victim(&directory);
    let before = app.metrics().len();
    for batch in 0..200 {
        let mut requests = String::new();
        for n in 0..100 {
            let last = if n == 99 { "Connection: close\r\n" } else { "" };
            write!(requests, "M{} / HTTP/1.1\r\nHost: prop\r\n{last}\r\n", batch * 100 + n)
                .unwrap();
        }
        let answers = ask(&app, requests.as_bytes());
        assert_eq!(answers.matches("HTTP/1.1 405 ").count(), 100, "{answers}");
    }
    let metrics = app.metrics();
    assert!(metrics.len() < before + 10_000, "{} bytes of metrics", metrics.len());
    assert!(metrics.contains(r#"method="OTHER""#), "{metrics}");
    expect_little_memory(&process, "20,000 methods");
}

/// Each of these answers has 1.5 MB for a client that does not accept gzip.
#[test]
fn readers_of_large_files_that_do_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = victim(&directory);
    let get = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: prop\r\n\r\n".repeat(10);
    let mut streams: Vec<_> = (0..200).map(|_| connect(&app)).collect();
    for stream in &mut streams {
        stream.write_all(get.as_bytes()).unwrap();
    }
    let asked = Instant::now();
    app.get("/livez").expect(200);
    println!("livez beside 200 slow readers: {:?}", asked.elapsed());
    std::thread::sleep(Duration::from_secs(1));
    // Nobody reads; whoever is dropped gets a reset, which shows without reading the answer.
    let dropped = |stream: &TcpStream| {
        let sent = (&*stream).write(b"G");
        sent.is_err() || matches!(stream.take_error(), Ok(Some(_)))
    };
    wait_for("all of them to be dropped", || streams.iter().all(dropped).then_some(()));
    println!("200 slow readers: dropped after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    expect_little_memory(&process, "2,000 files that nobody reads");
}

/// Whoever keeps a connection busy with very little is cut off; whoever is only slow is not.
#[test]
fn slow_clients() {
    let directory = tempfile::tempdir().unwrap();
    let variables =
        [("PROP_HTTP__READ_TIMEOUT_SECONDS", "1"), ("PROP_DATABASE__TIMEOUT_SECONDS", "1")];
    let (_process, app) = serve(&sqlite_in(&directory), &variables);
    let bundle = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: prop\r\n\r\n";

    let mut slow = connect(&app);
    slow.write_all(bundle.as_bytes()).unwrap();
    let (mut part, mut read) = (vec![0; 64 * 1024], 0);
    while read < 1_500_000 {
        read += slow.read(&mut part).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("a slow reader got {read} bytes");

    let mut trickle = connect(&app);
    trickle.write_all(bundle.repeat(20).as_bytes()).unwrap();
    let mut head = connect(&app);
    head.write_all(b"GET /livez HTTP/1.1\r\nHost: prop\r\n\r\n").unwrap();
    assert!(head.read(&mut part).unwrap() > 100);
    head.write_all(b"GET /livez HTTP/1.1\r\nHost: prop\r\nX-Long: ").unwrap();
    let (started, mut reads, mut sends) = (Instant::now(), true, true);
    while reads || sends {
        assert!(started.elapsed() < Duration::from_secs(18), "open: {reads} {sends}");
        std::thread::sleep(Duration::from_millis(100));
        // What has arrived can still be read after a reset; nothing can be sent any more.
        let is_open = matches!(trickle.read(&mut part[..1]), Ok(1)) && trickle.write(b"G").is_ok();
        if reads && !is_open {
            println!("a reader of a byte at a time: cut off after {:?}", started.elapsed());
            reads = false;
        }
        if sends && head.write_all(b"x").is_err() {
            println!("a head of a byte at a time: cut off after {:?}", started.elapsed());
            sends = false;
        }
    }
}

/// Nobody is refused: who comes when all are taken waits until one is closed.
#[test]
fn more_connections_than_there_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [
        ("PROP_HTTP__WORKERS", "1"),
        ("PROP_HTTP__MAX_CONNECTIONS", "16"),
        ("PROP_HTTP__READ_TIMEOUT_SECONDS", "2"),
    ];
    let (process, app) = serve(&sqlite_in(&directory), &variables);
    let silent: Vec<_> = (0..40).map(|_| connect(&app)).collect();
    let asked = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let sockets = sockets
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"));
    let sockets = sockets.count();
    assert!((16..26).contains(&sockets), "{sockets} sockets, with those of the process itself");
    app.get("/livez").expect(200);
    println!("behind 40 silent clients with room for 16: {:?}", asked.elapsed());
    assert!(asked.elapsed() > Duration::from_secs(2), "{:?}", asked.elapsed());
    drop(silent);
}

/// A queue of small requests behind an answer that is not read.
#[test]
fn queues_of_requests() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = victim(&directory);
    let first = "GET /openapi.json HTTP/1.1\r\nHost:a\r\n\r\n".repeat(100);
    let requests = first + &"GET / HTTP/1.1\r\nHost:a\r\n\r\n".repeat(4500);
    let streams: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = connect(&app);
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = stream.write_all(requests.as_bytes());
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    app.get("/livez").expect(200);
    drop(streams);
    expect_little_memory(&process, "queues of 4,500 requests");
}

/// Answers of a body that was not read: the connection ends with them.
#[test]
fn bodies_that_never_end() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = victim(&directory);
    let targets = ["GET /livez", "GET /nowhere", "POST /v1/services", "POST /webhooks/github"];
    let mut streams: Vec<_> = (0..200).map(|_| connect(&app)).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        let target = targets[n % targets.len()];
        write!(
            stream,
            "{target} HTTP/1.1\r\nHost: prop\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n"
        )
        .unwrap();
    }
    let mut open: Vec<_> = streams.iter().map(|stream| stream.try_clone().unwrap()).collect();
    let sending = std::thread::spawn(move || {
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(250));
            for stream in &mut streams {
                let _ = stream.write_all(b"1\r\n \r\n");
            }
        }
    });
    let mut answer = [0; 4096];
    let length = open[0].read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    let took = wait_until_closed(&mut open, Duration::from_secs(10));
    println!("200 endless bodies: closed after {took:?}");
    app.get("/livez").expect(200);
    expect_little_memory(&process, "200 bodies that never end");
    drop(open);
    drop(sending);
}

/// Whether somebody may send a webhook shows at the end of its body.
#[test]
fn large_webhooks() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = victim(&directory);
    let part = vec![b' '; (1 << 20) - 1];
    let mut streams: Vec<_> = (0..200).map(|_| connect(&app)).collect();
    for stream in &mut streams {
        stream.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
        let signature = "0".repeat(64);
        let _ = write!(
            stream,
            "POST /webhooks/github HTTP/1.1\r\nHost: prop\r\nX-Hub-Signature-256: sha256={signature}\r\n\
                Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            part.len() + 1
        );
        let _ = stream.write_all(&part);
    }
    std::thread::sleep(Duration::from_millis(500));
    expect_little_memory(&process, "200 webhooks of 1 MiB");
    // A webhook of the usual size is served meanwhile.
    let body = format!(r#"{{"zen": "{}"}}"#, "z".repeat(30_000));
    let usual = app.request("POST", "/webhooks/github").header("Content-Type", "application/json");
    let usual = usual.header("X-Hub-Signature-256", format!("sha256={}", "0".repeat(64)));
    app.send(usual.body(body.into_bytes()).unwrap()).expect_problem(401, "invalid_signature");
}

#[test]
fn unknown_keys() {
    let directory = tempfile::tempdir().unwrap();
    let (process, app) = victim(&directory);
    let keys: Vec<_> = (0..5000).map(|_| Token::generate().unwrap()).collect();
    for keys in keys.chunks(100) {
        let mut requests = String::new();
        for (n, key) in keys.iter().enumerate() {
            let last = if n == 99 { "Connection: close\r\n" } else { "" };
            let key = key.reveal();
            write!(
                requests,
                "GET /v1/services HTTP/1.1\r\nHost: prop\r\nAuthorization: Bearer {key}\r\n{last}\r\n"
            )
            .unwrap();
        }
        let answers = ask(&app, requests.as_bytes());
        assert_eq!(answers.matches("HTTP/1.1 401 ").count(), 100, "{answers}");
    }
    expect_little_memory(&process, "5,000 unknown keys");

    // Only what nobody has sent lately costs a statement.
    let send = |key: &Token| app.call("GET", "/v1/services", key.reveal(), None, &[]);
    let before = app.statements();
    for _ in 0..50 {
        send(&keys[4999]).expect_problem(401, "invalid_key");
    }
    assert!(app.statements() <= before + 1, "{before} {}", app.statements());
    // A key that is made now may be one of those.
    app.key("another", &["read"]);
    let before = app.statements();
    send(&keys[4999]).expect_problem(401, "invalid_key");
    assert_eq!(app.statements(), before + 1);
}
