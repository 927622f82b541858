//! A prop of its own for each test, on a database of its own, asked over real HTTP.

#![allow(dead_code, reason = "two test binaries share this file, and neither uses all of it")]

use prop::app::Application;
use prop::config::Settings;
use prop::db::connection::{Options, Target};
use prop::db::{Db, migrations};
use prop::types::token::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, LazyLock, mpsc};
use std::time::{Duration, Instant};
use ureq::http;

/// An admin key that every test app knows from its start.
pub const ADMIN: &str = "prop_AdminAdminAdminAdminAdminAdmin0wAoj7";

/// What every test app wants webhooks to be signed with: the secret of GitHub's own example.
pub const WEBHOOK_SECRET: &str = "It's a Secret to Everybody";

/// A running prop.
pub struct TestApp {
    /// Where it listens: `http://127.0.0.1:PORT`.
    pub url: String,
    /// Its database, for a second process or a look from the side.
    pub database_url: String,
    agent: ureq::Agent,
    _directory: Option<tempfile::TempDir>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body, of an answer with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// Checks that this is the problem with this status and code, whole and well formed; returns
    /// it.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        assert!(
            problem["type"].as_str().unwrap().ends_with(&format!("/docs/problems.md#{code}")),
            "{problem}"
        );
        assert!(
            !problem["title"].as_str().unwrap().is_empty()
                && !problem["detail"].as_str().unwrap().is_empty(),
            "{problem}"
        );
        problem
    }
}

impl TestApp {
    /// On a fresh SQLite file.
    pub fn on_sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("prop.db").display());
        Self { _directory: Some(directory), ..Self::start(&url, &[]) }
    }

    /// On a fresh PostgreSQL database; `None` where there is no PostgreSQL, which is an error in
    /// CI.
    pub fn on_postgres() -> Option<Self> {
        Some(Self::start(&fresh_postgres()?, &[]))
    }

    /// On the given database, with more settings as environment variables.
    pub fn start(database_url: &str, more: &[(&str, &str)]) -> Self {
        // Each app of a test run keeps its connections until the run ends: together they must not
        // be more than a PostgreSQL has.
        let base = [
            ("PROP_DATABASE__POOL_SIZE", "4"),
            ("PROP_HTTP__PORT", "0"),
            ("PROP_HTTP__WORKERS", "1"),
            ("PROP_BOOTSTRAP_KEY", ADMIN),
            ("PROP_GITHUB__WEBHOOK_SECRET", WEBHOOK_SECRET),
        ];
        let mut variables: HashMap<OsString, OsString> =
            base.iter().chain(more).map(|(k, v)| (k.into(), v.into())).collect();
        for (name, value) in database_settings(database_url) {
            variables.entry(name.into()).or_insert(value.into());
        }
        if let Some((name, value)) = behind_pooler() {
            variables.entry(name.into()).or_insert(value.into());
        }
        let settings = Settings::read(None, variables).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let application = Application::build(settings).await.unwrap();
                sender.send(application.port()).unwrap();
                application.run().await.unwrap();
            });
        });
        let port = receiver.recv_timeout(Duration::from_secs(60)).expect("prop did not start");
        Self::at(port, database_url)
    }

    /// One that runs already.
    pub fn at(port: u16, database_url: &str) -> Self {
        Self {
            url: format!("http://127.0.0.1:{port}"),
            database_url: database_url.into(),
            agent: agent(),
            _directory: None,
        }
    }

    /// Another client of the same server, with connections of its own.
    pub fn another(&self) -> Self {
        Self {
            url: self.url.clone(),
            database_url: self.database_url.clone(),
            agent: agent(),
            _directory: None,
        }
    }

    /// Sends a request as it is.
    #[track_caller]
    pub fn send(&self, request: http::Request<Vec<u8>>) -> Answer {
        self.try_send(request).unwrap()
    }

    /// Sends a request as it is, to a server that may be gone.
    pub fn try_send(&self, request: http::Request<Vec<u8>>) -> Result<Answer, ureq::Error> {
        let mut response = self.agent.run(request)?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.body_mut().with_config().limit(64 << 20).read_to_string()?,
        })
    }

    /// A request to fill in.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        http::Request::builder().method(method).uri(format!("{}{path}", self.url))
    }

    /// A request with a key, a JSON body if any, and more headers.
    #[track_caller]
    pub fn call(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.try_call(method, path, key, body, headers).unwrap()
    }

    /// The same, to a server that may be gone.
    pub fn try_call(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ureq::Error> {
        let mut request =
            self.request(method, path).header("Authorization", format!("Bearer {key}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        self.try_send(
            request
                .body(body.map(|body| body.to_string().into_bytes()).unwrap_or_default())
                .unwrap(),
        )
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, ADMIN, None, &[])
    }

    /// The metrics, as they are for everybody.
    #[track_caller]
    pub fn metrics(&self) -> String {
        let answer = self.send(self.request("GET", "/metrics").body(Vec::new()).unwrap());
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    }

    /// The value of one of them, such as `prop_gate_blocks_total{code="frozen"}`.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series}: {metrics}")).parse().unwrap()
    }

    /// How many SQL statements the process has sent.
    #[track_caller]
    pub fn statements(&self) -> u64 {
        self.metric("prop_database_statements_total") as u64
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, ADMIN, Some(&body), &[])
    }

    #[track_caller]
    pub fn patch(&self, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        self.call("PATCH", path, ADMIN, Some(&body), headers)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, ADMIN, None, &[])
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, ADMIN, Some(&body), &[])
    }

    /// Every item of a list, by following `next`.
    #[track_caller]
    pub fn all(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{separator}limit=100{cursor}")).expect(200);
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { return items };
            cursor = format!("&cursor={next}");
        }
    }

    /// The database, from the side.
    pub fn db(&self) -> Db {
        connect(&self.database_url)
    }

    /// How many rows each table has.
    pub fn counts(&self) -> Vec<(&'static str, i64)> {
        let mut db = self.db();
        TABLES.iter().map(|table| (*table, count(&mut db, table))).collect()
    }

    /// A fresh key with these scopes.
    #[track_caller]
    pub fn key(&self, name: &str, scopes: &[&str]) -> String {
        let made = self.post("/v1/keys", json!({"name": name, "scopes": scopes})).expect(201);
        made["key"].as_str().unwrap().to_owned()
    }

    /// Records a deployment, creating what is missing.
    #[track_caller]
    pub fn deploy(&self, service: &str, environment: &str, version: &str, start: bool) -> Value {
        let body = with(new_deployment(service, environment, version), json!({"start": start}));
        self.post("/v1/deployments", body).expect(201)
    }

    /// Asks for a move of a deployment.
    #[track_caller]
    pub fn transition(&self, deployment: &Value, to: &str) -> Answer {
        let id = deployment["id"].as_str().unwrap();
        self.post(&format!("/v1/deployments/{id}/transitions"), json!({"to": to}))
    }

    /// Records a deployment that succeeds.
    #[track_caller]
    pub fn go_live(&self, service: &str, environment: &str, version: &str) -> Value {
        let deployment = self.deploy(service, environment, version, true);
        self.transition(&deployment, "succeeded").expect(200)
    }
}

/// Every table of the ledger.
pub const TABLES: [&str; 14] = [
    "keys",
    "services",
    "environments",
    "releases",
    "deployments",
    "derived_places",
    "approvals",
    "freezes",
    "freeze_overrides",
    "incidents",
    "incident_deployments",
    "events",
    "idempotency_keys",
    "deliveries",
];

/// For a database whose metrics nobody looks at.
pub fn nobody() -> prop::db::counting::Counter {
    std::sync::Arc::new(|_| {})
}

/// A deployment to record that creates what is missing, of a release that names its image.
pub fn new_deployment(service: &str, environment: &str, version: &str) -> Value {
    json!({"service": service, "environment": environment, "version": version,
        "image_digest": image(version), "create_missing": true})
}

/// The image of a version.
pub fn image(version: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(version)))
}

/// A body with more fields, or others.
pub fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A deployment as lists and places show it: without what the gate said of it.
pub fn brief(deployment: &Value) -> Value {
    let mut brief = deployment.clone();
    brief.as_object_mut().unwrap().remove("decision").expect("what the gate said of it");
    brief
}

/// A connection as prop makes them.
pub fn connect(url: &str) -> Db {
    let limit = Duration::from_secs(30);
    Target::from_url(url)
        .unwrap()
        .connect(&Options {
            prepared_statements: behind_pooler().is_none(),
            statement_timeout: limit,
            slow_statement: limit,
        })
        .unwrap()
}

/// Migrates a database as its owner, and returns what was applied.
pub fn migrate(url: &str) -> Vec<String> {
    migrations::apply(&mut connect(url), &|| Ok(connect(url)), None).unwrap()
}

/// The settings that lead prop to this database. It serves a PostgreSQL of our own with a role that
/// may do only what it needs: so every test shows that nothing else is needed.
pub fn database_settings(url: &str) -> Vec<(&'static str, String)> {
    let Some(serving) = serving_url(url) else { return vec![("DATABASE_URL", url.into())] };
    vec![("DATABASE_URL", serving), ("MIGRATE_DATABASE_URL", url.into())]
}

/// The URL of a database for the role that prop serves with, where the tests may create roles.
pub fn serving_url(url: &str) -> Option<String> {
    let rest = url.strip_prefix(OWNER)?;
    let database = rest.split_once('/')?.1.split('?').next()?;
    Some(format!("postgres://serves_{database}:never-to-be-printed@{rest}"))
}

/// How the URL of a cluster of our own begins. It asks for no password; there is one in the URL all
/// the same, as something that must not be printed.
const OWNER: &str = "postgres://prop:never-to-be-printed@";

/// How many rows a table, perhaps with a condition, has.
pub fn count(db: &mut Db, from: &str) -> i64 {
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }
    let query = diesel::sql_query(format!("SELECT count(*) AS count FROM {from}"));
    diesel::RunQueryDsl::get_result::<Count>(query, db).unwrap().count
}

/// What `work` gives to each of `n` threads that start it together.
pub fn together<T: Send>(n: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(n);
    let run = |i| {
        barrier.wait();
        work(i)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n)
            .map(|i| {
                scope.spawn({
                    let run = &run;
                    move || run(i)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A commit id, for `n` from 0 to 15.
pub fn sha(n: u8) -> String {
    format!("{n:x}").repeat(40)
}

/// An image digest, for `n` from 0 to 15.
pub fn digest(n: u8) -> String {
    format!("sha256:{}", format!("{n:x}").repeat(64))
}

/// A client that gives answers of every status back, and takes its time.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

/// The setting that prop needs where the database of the tests is behind a pooler:
/// `tests/support/with-pgbouncer.sh` says so.
pub fn behind_pooler() -> Option<(&'static str, String)> {
    Some((
        "PROP_DATABASE__PREPARED_STATEMENTS",
        std::env::var("TEST_PROP_PREPARED_STATEMENTS").ok()?,
    ))
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The URL of a new, empty PostgreSQL database.
pub fn fresh_postgres() -> Option<String> {
    let server = POSTGRES.as_deref()?;
    let name = format!("test_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
    let mut admin = <diesel::PgConnection as diesel::Connection>::establish(server)
        .expect("PostgreSQL of the tests");
    diesel::connection::SimpleConnection::batch_execute(
        &mut admin,
        &format!("CREATE DATABASE {name}"),
    )
    .unwrap();
    let (base, query) = server.split_once('?').unwrap_or((server, ""));
    let base = base.rsplit_once('/').unwrap().0;
    Some(format!("{base}/{name}?{query}"))
}

/// `TEST_DATABASE_URL`, or a cluster of our own that ends with this process.
static POSTGRES: LazyLock<Option<String>> = LazyLock::new(|| {
    if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
        return Some(url);
    }
    let url = Cluster::start().map(|cluster| {
        let url = cluster.url();
        std::mem::forget(cluster);
        url
    });
    if url.is_none() {
        // Not captured by the test runner: a suite that was left out must be seen.
        let _ = writeln!(
            std::io::stderr(),
            "no PostgreSQL: neither TEST_DATABASE_URL nor initdb; its tests do nothing"
        );
        assert!(std::env::var_os("CI").is_none(), "CI must test on PostgreSQL");
    }
    url
});

/// What a cluster is started with: for tests that ask for speed, not for what is left after a
/// crash.
const FAST: &str = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off";

/// A throw-away PostgreSQL. It stops, and its files go, when it is dropped or this process ends,
/// however that ends.
pub struct Cluster {
    /// Holds the pipe that the supervising shell reads commands from: closed, the server stops.
    supervisor: Child,
    port: u16,
    directory: std::path::PathBuf,
}

impl Cluster {
    /// Starts one; `None` without `initdb`.
    pub fn start() -> Option<Self> {
        Self::start_with(FAST)
    }

    /// Starts one that loses nothing it acknowledged, however it is stopped.
    pub fn start_durable() -> Option<Self> {
        Self::start_with("-c fsync=on -c synchronous_commit=on -c full_page_writes=on")
    }

    /// Starts one that logs the plan of each statement that it has run, with the rows that it has
    /// read, and that plans a prepared statement without its values. It compiles (JIT) whatever a
    /// session lets it compile.
    pub fn start_explaining() -> Option<Self> {
        let explain = "-c shared_preload_libraries=auto_explain \
            -c auto_explain.log_min_duration=0 -c auto_explain.log_analyze=on \
            -c auto_explain.log_timing=off -c auto_explain.log_format=json \
            -c auto_explain.log_nested_statements=on -c plan_cache_mode=force_generic_plan \
            -c jit_above_cost=0";
        Self::start_with(&format!("{FAST} {explain}"))
    }

    /// As an unprivileged user when we are root.
    fn start_with(options: &str) -> Option<Self> {
        let bin = bin_directory()?;
        let directory = std::env::temp_dir().join(format!(
            "prop-postgres-{}-{}",
            std::process::id(),
            DATABASES.fetch_add(1, Ordering::Relaxed)
        ));
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let script = r#"
            set -e
            mkdir -m 700 "$DIR"; trap 'rm -rf "$DIR"' EXIT
            "$BIN/initdb" -D "$DIR/data" -U prop -A trust -E UTF8 --locale=C.UTF-8 \
                >"$DIR/initdb.log" 2>&1
            start() {
                "$BIN/postgres" -D "$DIR/data" -p "$PORT" -k "$DIR" \
                    -c listen_addresses=127.0.0.1 -c max_connections=2000 \
                    $OPTIONS >>"$DIR/log" 2>&1 &
                server=$!
            }
            stop() { kill "-$1" $server 2>/dev/null || true; wait $server || true; }
            start
            while read -r command; do $command; done
            stop INT
        "#;
        let is_root = Path::new("/proc/self")
            .metadata()
            .is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        command
            .env("BIN", bin)
            .env("DIR", &directory)
            .env("PORT", port.to_string())
            .env("OPTIONS", options)
            .stdin(Stdio::piped());
        // A process group of its own: Ctrl-C ends the tests first, and they end the server.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let cluster = Self { supervisor: command.spawn().ok()?, port, directory };
        cluster.wait();
        Some(cluster)
    }

    /// Stops it in the immediate mode, as a crash would: its clients are cut off, and what it needs
    /// to recover is on disk.
    pub fn stop(&mut self) {
        self.command("stop QUIT");
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(
                Instant::now() < deadline,
                "PostgreSQL did not stop; see {}",
                self.directory.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again after [`Self::stop`], and waits until it answers.
    pub fn start_again(&mut self) {
        self.command("start");
        self.wait();
    }

    fn command(&mut self, command: &str) {
        writeln!(self.supervisor.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while <diesel::PgConnection as diesel::Connection>::establish(&self.url()).is_err() {
            assert!(
                Instant::now() < deadline,
                "PostgreSQL did not start; see {}",
                self.directory.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The file that it logs to.
    pub fn log(&self) -> std::path::PathBuf {
        self.directory.join("log")
    }

    /// Its maintenance database.
    pub fn url(&self) -> String {
        format!("{OWNER}127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// Where `initdb` is: on the path, or where Debian keeps it.
fn bin_directory() -> Option<std::path::PathBuf> {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian = (12..=19).rev().map(|version| format!("/usr/lib/postgresql/{version}/bin").into());
    debian.chain(on_path).find(|directory: &std::path::PathBuf| directory.join("initdb").is_file())
}
