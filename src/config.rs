//! Settings: the defaults of `prop.toml.example`, then `prop.toml`, then the environment.

use ::config::{Config, ConfigError, Environment, File, FileFormat, Map};
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::db::pool::Limits;
use crate::db::target::{Options, Target};
use crate::http::auth::Token;

/// The defaults, and their documentation.
pub const DEFAULTS: &str = include_str!("../prop.toml.example");

/// Variables of prop's clients (`deploy.sh` and its siblings): not settings of the server.
const CLIENT_VARIABLES: [&str; 4] = ["PROP_URL", "PROP_KEY", "PROP_SPOOL", "PROP_CONFIG"];

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Development or production.
    pub environment: Mode,
    /// An admin key to make known at start.
    pub bootstrap_key: Option<Token>,
    /// The image that this process runs in.
    pub image_digest: Option<String>,
    /// How HTTP is served.
    pub http: Http,
    /// Where the ledger is kept, and how it is reached.
    pub database: Database,
    /// What is logged, and how.
    pub log: Log,
}

/// What kind of start this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// On somebody's machine: a first admin key is printed.
    Development,
    /// For real: a first key must be there or be given.
    Production,
}

/// How HTTP is served.
#[derive(Debug, Clone)]
pub struct Http {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Threads.
    pub workers: usize,
    /// The largest body, in bytes.
    pub body_limit: usize,
    /// Until a request's head, and its body, must have arrived.
    pub read_timeout: Duration,
    /// What running requests get to finish after SIGTERM.
    pub shutdown: Duration,
    /// Origins that browsers may call from.
    pub cors_origins: Vec<String>,
}

/// Where the ledger is kept, and how it is reached.
#[derive(Debug, Clone)]
pub struct Database {
    /// Which database.
    pub target: Target,
    /// How connections behave.
    pub options: Options,
    /// How many there are, and how long to wait for them.
    pub limits: Limits,
    /// How long to wait at start for a database that does not answer yet.
    pub connect_wait: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// In the form of `RUST_LOG`.
    pub filter: String,
    /// JSON or text.
    pub json: bool,
}

/// A setting that is wrong or missing: one line that names it, its value (never a secret) and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError(String);

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingError {}

impl SettingError {
    fn new(setting: &str, is: impl fmt::Display) -> Self {
        let variable = format!("PROP_{}", setting.to_uppercase().replace('.', "__"));
        Self(format!("setting {setting} ({variable}) {is}"))
    }
}

impl Settings {
    /// Reads the settings of this process: `file`, or `prop.toml` where there is one; then the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingError> {
        Self::read(file, std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// Reads the settings from a file and the given environment variables.
    pub fn read(file: Option<&Path>, mut variables: Map<String, String>) -> Result<Self, SettingError> {
        variables.retain(|name, value| !CLIENT_VARIABLES.contains(&name.as_str()) && !value.is_empty());
        for (theirs, ours) in [("DATABASE_URL", "PROP_DATABASE__URL"), ("PORT", "PROP_HTTP__PORT")] {
            if let Some(value) = variables.get(theirs).cloned() {
                variables.entry(ours.into()).or_insert(value);
            }
        }
        let file = match file {
            Some(path) => File::from(path).format(FileFormat::Toml),
            None => File::new("prop.toml", FileFormat::Toml).required(false),
        };
        Config::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .add_source(file)
            .add_source(Environment::with_prefix("PROP").prefix_separator("_").separator("__").source(Some(variables)))
            .build()
            .and_then(Config::try_deserialize::<Raw>)
            .map_err(|error| explain(&error))?
            .check()
    }
}

/// The settings as they are written; names and defaults are those of `prop.toml.example`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    environment: String,
    bootstrap_key: Option<String>,
    image_digest: Option<String>,
    http: RawHttp,
    database: RawDatabase,
    log: RawLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    host: Option<String>,
    port: i64,
    workers: i64,
    body_limit_kib: i64,
    read_timeout_seconds: i64,
    shutdown_seconds: i64,
    cors_origins: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDatabase {
    url: String,
    host: Option<String>,
    port: Option<i64>,
    name: Option<String>,
    user: Option<String>,
    password: Option<String>,
    sslmode: Option<String>,
    ca_file: Option<String>,
    pool_size: i64,
    queue: i64,
    timeout_seconds: i64,
    prepared_statements: bool,
    connect_wait_seconds: i64,
    slow_statement_ms: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    filter: String,
    format: String,
}

/// What the `config` crate found wrong, as one line that names the setting.
fn explain(error: &ConfigError) -> SettingError {
    match error {
        ConfigError::At { error, key: Some(key), .. } => match error.as_ref() {
            ConfigError::Type { unexpected, expected, .. } => SettingError::new(key, format!("is {unexpected}; allowed is {expected}")),
            other => SettingError::new(key, other),
        },
        ConfigError::Type { unexpected, expected, key: Some(key), .. } => {
            SettingError::new(key, format!("is {unexpected}; allowed is {expected}"))
        }
        ConfigError::FileParse { uri, cause } => {
            let cause = cause.to_string();
            let mut lines = cause.lines().map(str::trim).filter(|line| !line.is_empty());
            // The place and the reason. Between them is the line itself, which may hold a password.
            let (place, reason) = (lines.next().unwrap_or_default(), lines.next_back().unwrap_or_default());
            SettingError(format!("{}: {place}: {reason}", uri.as_deref().unwrap_or("prop.toml")))
        }
        other => SettingError(format!("settings: {other}")),
    }
}

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

impl Raw {
    fn check(self) -> Result<Settings, SettingError> {
        let environment = match self.environment.as_str() {
            "development" => Mode::Development,
            "production" => Mode::Production,
            other => return Err(SettingError::new("environment", format!("is {other:?}; allowed are \"development\" and \"production\""))),
        };
        let bootstrap_key = self.bootstrap_key.map(|key| {
            Token::parse(&key).ok_or_else(|| SettingError::new("bootstrap_key", "is not a key; `prop key generate` prints one"))
        });
        Ok(Settings {
            environment,
            bootstrap_key: bootstrap_key.transpose()?,
            image_digest: self.image_digest,
            http: self.http.check(environment)?,
            database: self.database.check()?,
            log: self.log.check(environment)?,
        })
    }
}

impl RawHttp {
    fn check(self, environment: Mode) -> Result<Http, SettingError> {
        let host = self.host.unwrap_or_else(|| if environment == Mode::Production { "0.0.0.0" } else { "127.0.0.1" }.into());
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let cors_origins: Vec<String> = self.cors_origins.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
        if let Some(wrong) = cors_origins.iter().find(|o| !is_origin(o)) {
            return Err(SettingError::new(
                "http.cors_origins",
                format!("has {wrong:?}; allowed are origins such as https://status.example.org, separated by commas"),
            ));
        }
        Ok(Http {
            host: host
                .parse()
                .map_err(|_| SettingError::new("http.host", format!("is {host:?}; allowed is an IP address, such as 0.0.0.0")))?,
            port: within("http.port", self.port, 0..=65535)? as u16,
            workers: match within("http.workers", self.workers, 0..=256)? as usize {
                0 => cores,
                n => n,
            },
            body_limit: within("http.body_limit_kib", self.body_limit_kib, 1..=65536)? as usize * 1024,
            read_timeout: seconds("http.read_timeout_seconds", self.read_timeout_seconds, 1..=600)?,
            shutdown: seconds("http.shutdown_seconds", self.shutdown_seconds, 0..=600)?,
            cors_origins,
        })
    }
}

impl RawDatabase {
    fn check(self) -> Result<Database, SettingError> {
        let time = seconds("database.timeout_seconds", self.timeout_seconds, 1..=300)?;
        Ok(Database {
            target: self.target()?,
            options: Options {
                prepared_statements: self.prepared_statements,
                statement_timeout: time,
                slow_statement: Duration::from_millis(within("database.slow_statement_ms", self.slow_statement_ms, 1..=60_000)? as u64),
            },
            limits: Limits {
                connections: within("database.pool_size", self.pool_size, 1..=64)? as u32,
                queue: within("database.queue", self.queue, 1..=100_000)? as usize,
                time,
            },
            connect_wait: seconds("database.connect_wait_seconds", self.connect_wait_seconds, 0..=3600)?,
        })
    }

    fn target(&self) -> Result<Target, SettingError> {
        let Some(host) = &self.host else {
            return Target::from_url(&self.url).map_err(|why| SettingError::new("database.url", why));
        };
        let port = within("database.port", self.port.unwrap_or(5432), 1..=65535)?.to_string();
        let missing = |setting| move || SettingError::new(setting, "is missing; it is needed beside database.host");
        let mut parts = vec![
            ("host", host.as_str()),
            ("port", &port),
            ("dbname", self.name.as_deref().ok_or_else(missing("database.name"))?),
            ("user", self.user.as_deref().ok_or_else(missing("database.user"))?),
        ];
        if let Some(password) = &self.password {
            parts.push(("password", password));
        }
        if let Some(mode) = &self.sslmode {
            if !SSL_MODES.contains(&mode.as_str()) {
                return Err(SettingError::new("database.sslmode", format!("is {mode:?}; allowed are {}", SSL_MODES.join(", "))));
            }
            parts.push(("sslmode", mode));
        }
        if let Some(file) = &self.ca_file {
            if !Path::new(file).is_file() {
                return Err(SettingError::new("database.ca_file", format!("is {file:?}; allowed is a file that exists")));
            }
            parts.push(("sslrootcert", file));
        }
        Ok(Target::from_parts(parts))
    }
}

impl RawLog {
    fn check(self, environment: Mode) -> Result<Log, SettingError> {
        env_filter::Builder::new()
            .try_parse(&self.filter)
            .map_err(|why| SettingError::new("log.filter", format!("is {:?}: {why}; allowed is the form of RUST_LOG", self.filter)))?;
        let json = match self.format.as_str() {
            "auto" => environment == Mode::Production,
            "json" => true,
            "text" => false,
            other => return Err(SettingError::new("log.format", format!("is {other:?}; allowed are \"auto\", \"json\" and \"text\""))),
        };
        Ok(Log { filter: self.filter, json })
    }
}

/// A scheme and a host, perhaps a port, and nothing after it (RFC 6454, section 6.2).
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']))
}

fn within(setting: &str, value: i64, allowed: RangeInclusive<i64>) -> Result<i64, SettingError> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    Err(SettingError::new(setting, format!("is {value}; allowed are {} to {}", allowed.start(), allowed.end())))
}

fn seconds(setting: &str, value: i64, allowed: RangeInclusive<i64>) -> Result<Duration, SettingError> {
    within(setting, value, allowed).map(|seconds| Duration::from_secs(seconds as u64))
}
