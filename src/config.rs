//! Settings: the defaults of `prop.toml.example`, then `prop.toml`, then the environment.

use ::config::{Config, ConfigError, File, FileFormat};
use serde::Deserialize;
use serde::de::Visitor;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::db::access::Role;
use crate::db::connection::{Options, Target};
use crate::db::pool::Limits;
use crate::suggest::{self, UnknownField};
use crate::types::token::Token;

/// The defaults, and their documentation.
pub const DEFAULTS: &str = include_str!("../prop.toml.example");

/// Variables that other programs of this project read: scripts and pipelines.
const OTHER_VARIABLES: [&str; 8] = [
    "PROP_ATTEST_KEY",
    "PROP_BIN",
    "PROP_CONFIG",
    "PROP_KEY",
    "PROP_MIRROR_KEY",
    "PROP_SPOOL",
    "PROP_URL",
    "PROP_VERSION",
];

/// Variables that platforms set, and the settings they stand for. prop's own variable wins.
const PLATFORM_VARIABLES: [(&str, &str); 3] = [
    ("DATABASE_URL", "database.url"),
    ("MIGRATE_DATABASE_URL", "database.migrate_url"),
    ("PORT", "http.port"),
];

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Development or production.
    pub environment: Mode,
    /// An admin key to make known at start.
    pub bootstrap_key: Option<Token>,
    /// The image that this process runs in.
    pub image_digest: Option<String>,
    /// Reading needs no key.
    pub public_read: bool,
    /// How HTTP is served.
    pub http: Http,
    /// Where the ledger is kept, and how it is reached.
    pub database: Database,
    /// The rules of environments that are created by their names.
    pub tiers: Tiers,
    /// What GitHub's webhooks may be signed with; without any, none is taken.
    pub webhook_secrets: Vec<WebhookSecret>,
    /// What is logged, and how.
    pub log: Log,
    /// A sentence for each environment variable that looks like a setting and is none.
    pub ignored: Vec<String>,
}

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

/// A secret that webhooks are signed with.
#[derive(Debug, Clone)]
pub struct WebhookSecret {
    /// The secret itself.
    pub secret: Secret,
    /// The owners (`acme`) and repositories (`acme/shop`) whose webhooks it may sign, in lower
    /// case. `None`: it may sign those of all.
    repositories: Option<Vec<String>>,
}

impl WebhookSecret {
    /// Whether the secret may sign only the webhooks of some repositories.
    pub fn is_limited(&self) -> bool {
        self.repositories.is_some()
    }

    /// Whether the secret may sign the webhooks of a repository with this full name (`acme/shop`),
    /// or of an organization with this login.
    pub fn covers(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        let owner = name.split('/').next();
        self.repositories
            .as_ref()
            .is_none_or(|allowed| allowed.iter().any(|one| *one == name || Some(&**one) == owner))
    }
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
    /// How many connections may be open. More wait until one is closed.
    pub max_connections: usize,
    /// Until a request's head, and its body, must have arrived.
    pub read_timeout: Duration,
    /// How long a connection stays open on which nothing is asked.
    pub keep_alive: Duration,
    /// What running requests get to finish after SIGTERM.
    pub shutdown: Duration,
    /// Origins that browsers may call from.
    pub cors_origins: Vec<String>,
}

/// Where the ledger is kept, and how it is reached.
#[derive(Debug, Clone)]
pub struct Database {
    /// Which database, as whom prop serves.
    pub target: Target,
    /// Who migrates it, when that is somebody else.
    pub owner: Option<Owner>,
    /// How connections behave.
    pub options: Options,
    /// How many there are, and how long to wait for them.
    pub limits: Limits,
    /// How long to wait at start for a database that does not answer yet.
    pub connect_wait: Duration,
}

/// The owner of a PostgreSQL database, whose credentials are used before the port opens.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The same database, as its owner.
    pub target: Target,
    /// The role that prop serves with.
    pub serves: Role,
}

/// The rules of environments that are created by their names, by the tier that the name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    /// For the work of developers.
    pub development: TierRules,
    /// For automated and manual tests.
    pub testing: TierRules,
    /// A copy of production without its users.
    pub staging: TierRules,
    /// For the real users.
    pub production: TierRules,
}

/// The rules of an environment of which only the name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierRules {
    /// How many people must approve.
    pub required_approvals: i32,
    /// Whether the approval of the person who requested the deployment counts.
    pub allow_self_approval: bool,
    /// For how many hours an approval is valid, and a deployment may wait.
    pub approval_ttl_hours: i32,
    /// Whether a release must have passed a scan.
    pub require_scan: bool,
    /// Whether rollbacks need approvals too.
    pub rollback_needs_approval: bool,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// In the form of `RUST_LOG`.
    pub filter: String,
    /// JSON or text.
    pub json: bool,
}

/// A setting that is wrong or missing. Displayed, it is one line that names the setting, its value
/// (never a secret) and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The setting and the variable it can be set by; none when the file can't be read.
    setting: Option<(String, String)>,
    is: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.setting {
            Some((name, variable)) => write!(f, "setting {name} ({variable}) {}", self.is),
            None => f.write_str(&self.is),
        }
    }
}

impl std::error::Error for SettingError {}

impl SettingError {
    fn new(setting: &str, is: impl fmt::Display) -> Self {
        Self { setting: Some((setting.into(), variable_of(setting))), is: is.to_string() }
    }

    /// An error of the file as a whole.
    fn of_file(is: String) -> Self {
        Self { setting: None, is }
    }

    /// The same, naming the platform's variable where the value came from it.
    fn blame(mut self, taken: &[(&str, &'static str)]) -> Self {
        if let Some((name, variable)) = &mut self.setting
            && let Some((theirs, _)) = taken.iter().find(|(_, setting)| setting == name)
        {
            *variable = (*theirs).into();
        }
        self
    }
}

/// The environment variable of a setting: `PROP_HTTP__PORT` for `http.port`.
fn variable_of(setting: &str) -> String {
    format!("PROP_{}", setting.to_uppercase().replace('.', "__"))
}

impl Settings {
    /// Reads the settings of this process: `file`, or `prop.toml` where there is one; then the
    /// environment.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingError> {
        Self::read(file, std::env::vars_os().collect())
    }

    /// Reads the settings from a file and the given environment variables. A variable that looks
    /// like a setting and is none is ignored, and named in [`Settings::ignored`]: other programs
    /// may use such names.
    pub fn read(
        file: Option<&Path>,
        variables: HashMap<OsString, OsString>,
    ) -> Result<Self, SettingError> {
        let settings = known_settings();
        let mut taken = Vec::new();
        let mut overrides = Vec::new();
        for setting in &settings {
            let ours = variable_of(setting);
            let theirs = PLATFORM_VARIABLES.iter().find(|(_, stands_for)| stands_for == setting);
            let is_set = |name: &str| variables.get(OsStr::new(name)).filter(|v| !v.is_empty());
            let value = is_set(&ours).or_else(|| {
                let &(name, stands_for) = theirs?;
                let value = is_set(name)?;
                taken.push((name, stands_for));
                Some(value)
            });
            if let Some(value) = value {
                let text = value.to_str().ok_or_else(|| {
                    SettingError::new(setting, "is not valid UTF-8").blame(&taken)
                })?;
                overrides.push((setting, text));
            }
        }
        let path = file.unwrap_or(Path::new("prop.toml"));
        let mut config = Config::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .add_source(File::from(path).format(FileFormat::Toml).required(file.is_some()));
        for (setting, value) in overrides {
            config = config.set_override(setting, value).map_err(|error| explain(&error, path))?;
        }
        let raw: Raw = config
            .build()
            .and_then(Config::try_deserialize)
            .map_err(|error| explain(&error, path).blame(&taken))?;
        let checked = raw.check().map_err(|error| error.blame(&taken))?;
        Ok(Self { ignored: ignored(&variables, &settings), ..checked })
    }
}

/// Every setting, by its name: those of [`Raw`], with their sections.
fn known_settings() -> Vec<String> {
    let sections = [
        ("http", fields_of::<RawHttp>()),
        ("database", fields_of::<RawDatabase>()),
        ("tier.development", fields_of::<RawTier>()),
        ("tier.testing", fields_of::<RawTier>()),
        ("tier.staging", fields_of::<RawTier>()),
        ("tier.production", fields_of::<RawTier>()),
        ("github", fields_of::<RawGitHub>()),
        ("log", fields_of::<RawLog>()),
    ];
    let is_section =
        |name: &str| sections.iter().any(|(section, _)| section.split('.').next() == Some(name));
    let plain = fields_of::<Raw>().iter().filter(|name| !is_section(name)).map(|s| s.to_string());
    let nested = sections
        .iter()
        .flat_map(|(section, fields)| fields.iter().map(move |field| format!("{section}.{field}")));
    plain.chain(nested).collect()
}

/// A warning for each variable that looks like a setting and is none. It never holds the value.
fn ignored(variables: &HashMap<OsString, OsString>, settings: &[String]) -> Vec<String> {
    let known: Vec<String> = settings.iter().map(|setting| variable_of(setting)).collect();
    let mut unknown: Vec<String> = variables
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("PROP_")))
        .filter(|name| !known.contains(name) && !OTHER_VARIABLES.contains(&name.as_str()))
        .collect();
    unknown.sort();
    let warning = |name: String| {
        // Without what all of them share, which would make every name resemble every other.
        let meant = suggest::nearest(&name[5..], known.iter().map(|name| &name[5..]));
        let meant = meant.map(|meant| format!("; did you mean PROP_{meant}?"));
        let (name, meant) = (name.escape_debug(), meant.unwrap_or_default());
        format!("{name} is not a setting of prop and is ignored{meant}")
    };
    unknown.into_iter().map(warning).collect()
}

/// The names of a struct's fields, as serde knows them.
fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It ends with an error as soon as the names are known: there is nothing to read.
    let _ = T::deserialize(FieldNames(&mut fields));
    fields
}

struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> serde::Deserializer<'de> for FieldNames<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("only structs have fields"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The settings as they are written; names and defaults are those of `prop.toml.example`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    environment: String,
    bootstrap_key: Option<String>,
    image_digest: Option<String>,
    public_read: bool,
    http: RawHttp,
    database: RawDatabase,
    tier: RawTiers,
    #[serde(default)]
    github: RawGitHub,
    log: RawLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    host: Option<String>,
    port: i64,
    workers: i64,
    body_limit_kib: i64,
    max_connections: i64,
    read_timeout_seconds: i64,
    keep_alive_seconds: i64,
    shutdown_seconds: i64,
    cors_origins: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDatabase {
    url: String,
    migrate_url: Option<String>,
    host: Option<String>,
    port: Option<i64>,
    name: Option<String>,
    user: Option<String>,
    password: Option<String>,
    migrate_user: Option<String>,
    migrate_password: Option<String>,
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
struct RawTiers {
    development: RawTier,
    testing: RawTier,
    staging: RawTier,
    production: RawTier,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTier {
    required_approvals: i64,
    allow_self_approval: bool,
    approval_ttl_hours: i64,
    require_scan: bool,
    rollback_needs_approval: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGitHub {
    webhook_secret: Option<String>,
    /// An array in the file, and its JSON in the environment.
    webhook_secrets: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    filter: String,
    format: String,
}

/// What the `config` crate found wrong, as one line that names the setting.
fn explain(error: &ConfigError, file: &Path) -> SettingError {
    let is_wrong = |unexpected: &dyn fmt::Display, expected: &dyn fmt::Display| {
        format!("is {unexpected}; allowed is {expected}")
    };
    match error {
        ConfigError::At { error, key: Some(key), .. } => match error.as_ref() {
            ConfigError::Type { unexpected, expected, .. } => {
                SettingError::new(key, is_wrong(unexpected, expected))
            }
            other => unknown_key(other, file).unwrap_or_else(|| SettingError::new(key, other)),
        },
        ConfigError::Type { unexpected, expected, key: Some(key), .. } => {
            SettingError::new(key, is_wrong(unexpected, expected))
        }
        ConfigError::FileParse { uri, cause } => {
            let cause = cause.to_string();
            let mut lines = cause.lines().map(str::trim).filter(|line| !line.is_empty());
            // The place and the reason. Between them is the line itself, which may hold a password.
            let (place, reason) =
                (lines.next().unwrap_or_default(), lines.next_back().unwrap_or_default());
            let uri = uri.as_deref().unwrap_or("prop.toml");
            SettingError::of_file(format!("{uri}: {place}: {reason}"))
        }
        other => unknown_key(other, file)
            .unwrap_or_else(|| SettingError::of_file(format!("settings: {other}"))),
    }
}

/// A key of the file that is no setting: a typing error there would otherwise go unnoticed.
fn unknown_key(error: &ConfigError, file: &Path) -> Option<SettingError> {
    let message = error.to_string();
    let unknown = UnknownField::read(&message)?;
    let (file, field, advice) = (file.display(), unknown.field, unknown.advice());
    Some(SettingError::of_file(format!("{file}: unknown key `{field}`. {advice}")))
}

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

impl Raw {
    fn check(self) -> Result<Settings, SettingError> {
        let environment = match self.environment.as_str() {
            "development" => Mode::Development,
            "production" => Mode::Production,
            other => {
                return Err(SettingError::new(
                    "environment",
                    format!("is {other:?}; allowed are \"development\" and \"production\""),
                ));
            }
        };
        let bootstrap_key = self.bootstrap_key.map(|key| {
            Token::parse(&key).ok_or_else(|| {
                SettingError::new("bootstrap_key", "is not a key; `prop key generate` prints one")
            })
        });
        Ok(Settings {
            environment,
            bootstrap_key: bootstrap_key.transpose()?,
            image_digest: self.image_digest,
            public_read: self.public_read,
            http: self.http.check(environment)?,
            database: self.database.check()?,
            tiers: self.tier.check()?,
            webhook_secrets: self.github.check()?,
            log: self.log.check(environment)?,
            ignored: Vec::new(),
        })
    }
}

impl RawHttp {
    fn check(self, environment: Mode) -> Result<Http, SettingError> {
        let host = self.host.unwrap_or_else(|| {
            if environment == Mode::Production { "0.0.0.0" } else { "127.0.0.1" }.into()
        });
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let cors_origins: Vec<String> = self
            .cors_origins
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some(wrong) = cors_origins.iter().find(|o| !is_origin(o)) {
            return Err(SettingError::new(
                "http.cors_origins",
                format!(
                    "has {wrong:?}; allowed are origins such as https://status.example.org, \
                        separated by commas"
                ),
            ));
        }
        Ok(Http {
            host: host.parse().map_err(|_| {
                SettingError::new(
                    "http.host",
                    format!("is {host:?}; allowed is an IP address, such as 0.0.0.0"),
                )
            })?,
            port: within("http.port", self.port, 0..=65535)? as u16,
            workers: match within("http.workers", self.workers, 0..=256)? as usize {
                0 => cores,
                n => n,
            },
            body_limit: within("http.body_limit_kib", self.body_limit_kib, 1..=65536)? as usize
                * 1024,
            max_connections: within("http.max_connections", self.max_connections, 16..=100_000)?
                as usize,
            read_timeout: seconds("http.read_timeout_seconds", self.read_timeout_seconds, 1..=600)?,
            keep_alive: seconds("http.keep_alive_seconds", self.keep_alive_seconds, 1..=5000)?,
            shutdown: seconds("http.shutdown_seconds", self.shutdown_seconds, 0..=600)?,
            cors_origins,
        })
    }
}

impl RawDatabase {
    fn check(self) -> Result<Database, SettingError> {
        let time = seconds("database.timeout_seconds", self.timeout_seconds, 1..=300)?;
        let target = self.target()?;
        Ok(Database {
            owner: self.owner(&target)?,
            target,
            options: Options {
                prepared_statements: self.prepared_statements,
                statement_timeout: time,
                slow_statement: Duration::from_millis(within(
                    "database.slow_statement_ms",
                    self.slow_statement_ms,
                    1..=60_000,
                )? as u64),
            },
            limits: Limits {
                connections: within("database.pool_size", self.pool_size, 1..=64)? as u32,
                queue: within("database.queue", self.queue, 1..=100_000)? as usize,
                time,
            },
            connect_wait: seconds(
                "database.connect_wait_seconds",
                self.connect_wait_seconds,
                0..=3600,
            )?,
        })
    }

    fn target(&self) -> Result<Target, SettingError> {
        let Some(host) = &self.host else {
            return Target::from_url(&self.url)
                .map_err(|why| SettingError::new("database.url", why));
        };
        self.parts(host, &self.user, &self.password)
    }

    /// Who migrates: `migrate_user` beside `host`, or `migrate_url`. Nobody else, if neither is set
    /// or it is the one who serves.
    fn owner(&self, serving: &Target) -> Result<Option<Owner>, SettingError> {
        if let (Some(_), None) = (&self.migrate_user, &self.host) {
            let is = "is only for database.host; beside database.url, set database.migrate_url";
            return Err(SettingError::new("database.migrate_user", is));
        }
        let (setting, target) = match (&self.host, &self.migrate_user, &self.migrate_url) {
            (Some(host), Some(_), _) => {
                let target = self.parts(host, &self.migrate_user, &self.migrate_password)?;
                ("database.migrate_user", target)
            }
            (_, _, Some(url)) => {
                let setting = "database.migrate_url";
                (setting, Target::from_url(url).map_err(|why| SettingError::new(setting, why))?)
            }
            _ => return Ok(None),
        };
        let (Some((owner, _)), Some((name, password))) =
            (target.credentials(), serving.credentials())
        else {
            let is = "is for PostgreSQL; it and database.url must each name a role";
            return Err(SettingError::new(setting, is));
        };
        let is_another = owner != name;
        let serves = Role { name: name.to_owned(), password: password.map(str::to_owned) };
        Ok(is_another.then_some(Owner { target, serves }))
    }

    fn parts(
        &self,
        host: &str,
        user: &Option<String>,
        password: &Option<String>,
    ) -> Result<Target, SettingError> {
        let port = within("database.port", self.port.unwrap_or(5432), 1..=65535)?.to_string();
        let missing = |setting| {
            move || SettingError::new(setting, "is missing; it is needed beside database.host")
        };
        let mut parts = vec![
            ("host", host),
            ("port", &port),
            ("dbname", self.name.as_deref().ok_or_else(missing("database.name"))?),
            ("user", user.as_deref().ok_or_else(missing("database.user"))?),
        ];
        if let Some(password) = password {
            parts.push(("password", password));
        }
        if let Some(mode) = &self.sslmode {
            if !SSL_MODES.contains(&mode.as_str()) {
                return Err(SettingError::new(
                    "database.sslmode",
                    format!("is {mode:?}; allowed are {}", SSL_MODES.join(", ")),
                ));
            }
            parts.push(("sslmode", mode));
        }
        if let Some(file) = &self.ca_file {
            if !Path::new(file).is_file() {
                return Err(SettingError::new(
                    "database.ca_file",
                    format!("is {file:?}; allowed is a file that exists"),
                ));
            }
            parts.push(("sslrootcert", file));
        }
        Ok(Target::from_parts(parts))
    }
}

impl RawTiers {
    fn check(self) -> Result<Tiers, SettingError> {
        Ok(Tiers {
            development: self.development.check("development")?,
            testing: self.testing.check("testing")?,
            staging: self.staging.check("staging")?,
            production: self.production.check("production")?,
        })
    }
}

impl RawTier {
    fn check(self, tier: &str) -> Result<TierRules, SettingError> {
        let number = |name: &str, value, allowed| {
            within(&format!("tier.{tier}.{name}"), value, allowed).map(|number| number as i32)
        };
        Ok(TierRules {
            required_approvals: number("required_approvals", self.required_approvals, 0..=10)?,
            allow_self_approval: self.allow_self_approval,
            approval_ttl_hours: number("approval_ttl_hours", self.approval_ttl_hours, 1..=8760)?,
            require_scan: self.require_scan,
            rollback_needs_approval: self.rollback_needs_approval,
        })
    }
}

impl RawGitHub {
    fn check(self) -> Result<Vec<WebhookSecret>, SettingError> {
        let mut secrets = Vec::new();
        if let Some(secret) = self.webhook_secret {
            secrets.push(WebhookSecret {
                secret: webhook_secret("github.webhook_secret", "has", secret)?,
                repositories: None,
            });
        }
        for (n, entry) in entries(self.webhook_secrets)?.into_iter().enumerate() {
            let is_wrong = |why: &str| {
                let is = format!("is wrong in entry {}: {why}", n + 1);
                SettingError::new("github.webhook_secrets", is)
            };
            // The messages of serde could show the secret.
            let Ok(RawWebhookSecret { secret, repositories }) = serde_json::from_value(entry)
            else {
                return Err(is_wrong("it has a `secret` and perhaps `repositories`, a list"));
            };
            let has = format!("is wrong in entry {}: its secret has", n + 1);
            let secret = webhook_secret("github.webhook_secrets", &has, secret)?;
            let repositories = repositories
                .map(|names| names.into_iter().map(|name| name.to_lowercase()).collect::<Vec<_>>());
            let is_name = |name: &String| {
                let mut parts = name.split('/');
                let are_words = parts.clone().all(|part| {
                    !part.is_empty()
                        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                });
                are_words && parts.by_ref().count() <= 2
            };
            if repositories
                .as_ref()
                .is_some_and(|names| names.is_empty() || !names.iter().all(is_name))
            {
                let form =
                    "`repositories` has owners (acme) and repositories (acme/shop), at least one";
                return Err(is_wrong(form));
            }
            secrets.push(WebhookSecret { secret, repositories });
        }
        Ok(secrets)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhookSecret {
    secret: String,
    repositories: Option<Vec<String>>,
}

/// The entries of `github.webhook_secrets`.
fn entries(setting: Option<serde_json::Value>) -> Result<Vec<serde_json::Value>, SettingError> {
    use serde_json::Value;
    let parsed = match setting {
        None => return Ok(Vec::new()),
        Some(Value::String(json)) => serde_json::from_str(&json).unwrap_or_default(),
        Some(other) => other,
    };
    match parsed {
        Value::Array(entries) => Ok(entries),
        _ => {
            let form = r#"[{"secret": "...", "repositories": ["acme", "acme/shop"]}]"#;
            let is = format!("is not a JSON array; allowed is the form {form}");
            Err(SettingError::new("github.webhook_secrets", is))
        }
    }
}

/// Checks the length of a secret. `has` begins the message about another length.
fn webhook_secret(setting: &str, has: &str, secret: String) -> Result<Secret, SettingError> {
    let length = secret.chars().count();
    if (16..=200).contains(&length) {
        return Ok(Secret(secret));
    }
    Err(SettingError::new(setting, format!("{has} {length} characters; allowed are 16 to 200")))
}

impl RawLog {
    fn check(self, environment: Mode) -> Result<Log, SettingError> {
        env_filter::Builder::new().try_parse(&self.filter).map_err(|why| {
            SettingError::new(
                "log.filter",
                format!("is {:?}: {why}; allowed is the form of RUST_LOG", self.filter),
            )
        })?;
        let json = match self.format.as_str() {
            "auto" => environment == Mode::Production,
            "json" => true,
            "text" => false,
            other => {
                return Err(SettingError::new(
                    "log.format",
                    format!("is {other:?}; allowed are \"auto\", \"json\" and \"text\""),
                ));
            }
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
    Err(SettingError::new(
        setting,
        format!("is {value}; allowed are {} to {}", allowed.start(), allowed.end()),
    ))
}

fn seconds(
    setting: &str,
    value: i64,
    allowed: RangeInclusive<i64>,
) -> Result<Duration, SettingError> {
    within(setting, value, allowed).map(|seconds| Duration::from_secs(seconds as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        with_file("", variables)
    }

    /// Reads settings from a file with this text, then from the variables.
    fn with_file(text: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prop.toml");
        std::fs::write(&file, text).unwrap();
        Settings::read(
            Some(&file),
            variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        )
    }

    #[track_caller]
    fn refused(result: Result<Settings, SettingError>) -> String {
        let line = result.unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    }

    fn postgres(settings: &Settings) -> String {
        match &settings.database.target {
            Target::Postgres(conninfo) => conninfo.text(),
            Target::Sqlite(path) => panic!("SQLite in {path}"),
        }
    }

    #[test]
    fn the_defaults_are_a_development_start_on_sqlite() {
        let settings = read(&[]).unwrap();
        assert_eq!(
            (settings.environment, settings.http.port, settings.log.json),
            (Mode::Development, 8080, false)
        );
        assert_eq!(
            (settings.http.host.to_string().as_str(), settings.http.body_limit),
            ("127.0.0.1", 1024 * 1024)
        );
        // More than the 60 s for which a load balancer keeps connections by default.
        assert_eq!(settings.http.keep_alive.as_secs(), 75);
        assert_eq!(settings.database.target, Target::Sqlite("prop.db".into()));
        assert_eq!(
            (settings.database.limits.connections, settings.database.limits.queue),
            (8, 1024)
        );
        assert!(settings.http.workers >= 1 && settings.http.cors_origins.is_empty());
        assert!(
            settings.bootstrap_key.is_none()
                && settings.image_digest.is_none()
                && !settings.public_read
        );
    }

    #[test]
    fn production_listens_everywhere_and_logs_json_unless_told_otherwise() {
        let settings = read(&[("PROP_ENVIRONMENT", "production")]).unwrap();
        assert!(settings.http.host.is_unspecified() && settings.log.json);
        let environment = [
            ("PROP_ENVIRONMENT", "production"),
            ("PROP_HTTP__HOST", "::1"),
            ("PROP_LOG__FORMAT", "text"),
        ];
        let settings = read(&environment).unwrap();
        assert!(settings.http.host.is_loopback() && !settings.log.json);
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = "[http]\nport = 1\nbody_limit_kib = 2\n";
        let settings = with_file(file, &[("PROP_HTTP__PORT", "3")]).unwrap();
        assert_eq!(
            (settings.http.port, settings.http.body_limit, settings.http.read_timeout.as_secs()),
            (3, 2048, 10)
        );
        // A variable that is set to nothing is not set.
        assert_eq!(with_file(file, &[("PROP_HTTP__PORT", "")]).unwrap().http.port, 1);
    }

    #[test]
    fn the_variables_of_platforms_are_honoured_and_our_own_win() {
        let theirs = [("DATABASE_URL", "postgres://u@theirs/n"), ("PORT", "9000")];
        let settings = read(&theirs).unwrap();
        assert_eq!(settings.http.port, 9000);
        assert!(postgres(&settings).contains("host='theirs' "));
        let ours = [("PROP_DATABASE__URL", "postgres://u@ours/n"), ("PROP_HTTP__PORT", "9001")];
        let settings = read(&[theirs, ours].concat()).unwrap();
        assert_eq!(settings.http.port, 9001);
        assert!(postgres(&settings).contains("host='ours' "));
        // Blamed is the variable that was set.
        assert!(refused(read(&[("PORT", "http")])).starts_with("setting http.port (PORT) is "));
        let url = [("DATABASE_URL", "mysql://h/n")];
        assert!(refused(read(&url)).starts_with("setting database.url (DATABASE_URL) "));
        let both = [("PORT", "9000"), ("PROP_HTTP__PORT", "http")];
        assert!(refused(read(&both)).starts_with("setting http.port (PROP_HTTP__PORT) is "));
        // One that is overruled is not looked at.
        assert!(read(&[("PORT", "http"), ("PROP_HTTP__PORT", "9001")]).is_ok());
    }

    #[test]
    fn variables_of_the_projects_other_programs_are_not_warned_about() {
        let others = OTHER_VARIABLES.map(|name| (name, "anything"));
        assert_eq!(read(&others).unwrap().ignored, [""; 0]);
    }

    #[test]
    fn a_variable_that_is_no_setting_is_a_warning_without_its_value() {
        for (variable, meant) in [
            ("PROP_GIT_SHA", None),
            ("PROP_HTTP__PROT", Some("PROP_HTTP__PORT")),
            ("PROP_HTTP_PORT", Some("PROP_HTTP__PORT")),
            ("PROP_DATABASE__NAMES", Some("PROP_DATABASE__NAME")),
            ("PROP_LOGS__FILTER", Some("PROP_LOG__FILTER")),
            ("prop_http__port", Some("PROP_HTTP__PORT")),
            // A section is not a setting, and a setting has no parts.
            ("PROP_GITHUB", Some("PROP_GITHUB__WEBHOOK_SECRET")),
            ("PROP_DATABASE__URL__HOST", Some("PROP_DATABASE__HOST")),
            // What Kubernetes sets for a service of this name.
            ("PROP_SERVICE_PORT_8080_TCP_ADDR", None),
        ] {
            let settings = read(&[(variable, "s3cret-words")]).unwrap();
            let meant = meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            assert_eq!(
                settings.ignored,
                [format!("{variable} is not a setting of prop and is ignored{meant}")]
            );
            assert_eq!(settings.http.port, 8080);
        }
        // A section's name alone changes nothing of the section.
        assert_eq!(read(&[("PROP_HTTP", "9000")]).unwrap().ignored.len(), 1);
        assert_eq!(read(&[("PROP_UNKNOWN", ""), ("PROPER", "x")]).unwrap().ignored, [""; 0]);
    }

    #[test]
    fn what_is_not_utf_8_is_refused_as_a_value_and_ignored_as_a_name() {
        use std::os::unix::ffi::OsStringExt;
        let broken = |start: &str| OsString::from_vec([start.as_bytes(), b"\xff"].concat());
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |name: OsString, value: OsString| {
            Settings::read(Some(file.path()), HashMap::from([(name, value)]))
        };
        for (variable, setting) in [
            ("PROP_DATABASE__PASSWORD", "database.password"),
            ("DATABASE_URL", "database.url"),
            ("PORT", "http.port"),
        ] {
            let line = refused(read(variable.into(), broken("s3cret")));
            assert_eq!(line, format!("setting {setting} ({variable}) is not valid UTF-8"));
        }
        let named = read(broken("PROP_HTTP__PORT"), "9000".into()).unwrap();
        assert_eq!((named.http.port, named.ignored.len()), (8080, 1));
        assert!(read("OTHER".into(), broken("x")).unwrap().ignored.is_empty());
        assert!(read(broken("OTHER"), "x".into()).unwrap().ignored.is_empty());
    }

    #[test]
    fn a_tier_has_rules_of_its_own() {
        let defaults = read(&[]).unwrap().tiers;
        assert_eq!(defaults.production.required_approvals, 0, "a ledger that was just set up");
        assert_eq!(defaults.production.approval_ttl_hours, 72);
        assert!(
            [defaults.development, defaults.testing, defaults.staging]
                .iter()
                .all(|rules| *rules == defaults.production)
        );
        let file = "[tier.production]\nrequired_approvals = 2\n";
        let scan = ("PROP_TIER__PRODUCTION__REQUIRE_SCAN", "true");
        let tiers = with_file(file, &[scan]).unwrap().tiers;
        let expected =
            TierRules { required_approvals: 2, require_scan: true, ..defaults.production };
        assert_eq!(tiers, Tiers { production: expected, ..defaults });
    }

    #[test]
    fn an_unknown_key_of_the_file_is_refused() {
        let files = [
            ("prot = 1", "prot"),
            ("[http]\nprot = 1", "prot"),
            ("[https]\nport = 1", "https"),
            ("[log]\nfilters = \"info\"", "filters"),
            ("[tier.prod]\nrequire_scan = true", "prod"),
            ("[tier.production]\nscan = true", "scan"),
        ];
        for (text, field) in files {
            let line = refused(with_file(text, &[]));
            assert!(line.contains(&format!("prop.toml: unknown key `{field}`. ")), "{line}");
        }
        let line = refused(with_file("[http]\nprot = 1", &[]));
        assert!(line.contains("Did you mean `port`? Allowed: host, port, "), "{line}");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        // The setting, a wrong value, and what the line says of what is allowed.
        let cases = [
            ("environment", "staging", "production"),
            ("public_read", "maybe", "boolean"),
            ("http.host", "localhost", "IP address"),
            ("http.port", "65536", "0 to 65535"),
            ("http.port", "-1", "0 to 65535"),
            ("http.port", "eighty", "integer"),
            ("http.workers", "257", "0 to 256"),
            ("http.body_limit_kib", "0", "1 to 65536"),
            ("http.body_limit_kib", "65537", "1 to 65536"),
            ("http.read_timeout_seconds", "0", "1 to 600"),
            ("http.keep_alive_seconds", "0", "1 to 5000"),
            ("http.shutdown_seconds", "601", "0 to 600"),
            ("http.cors_origins", "status.example.org", "https://status.example.org"),
            ("http.cors_origins", "*", "origins"),
            ("http.cors_origins", "https://a.example,https://b.example/", "origins"),
            ("database.url", "mysql://h/n", "postgres://"),
            ("database.url", "prop.db", "sqlite:FILE"),
            ("database.pool_size", "0", "1 to 64"),
            ("database.pool_size", "65", "1 to 64"),
            ("database.queue", "0", "1 to 100000"),
            ("database.timeout_seconds", "301", "1 to 300"),
            ("database.prepared_statements", "maybe", "boolean"),
            ("database.connect_wait_seconds", "3601", "0 to 3600"),
            ("database.slow_statement_ms", "0", "1 to 60000"),
            ("tier.production.required_approvals", "11", "0 to 10"),
            ("tier.staging.approval_ttl_hours", "0", "1 to 8760"),
            ("tier.testing.require_scan", "maybe", "boolean"),
            ("log.filter", "prop=loud", "RUST_LOG"),
            ("log.format", "xml", "json"),
        ];
        for (setting, value, allowed) in cases {
            let variable = format!("PROP_{}", setting.to_uppercase().replace('.', "__"));
            let line = refused(read(&[(variable.as_str(), value)]));
            let wrong = value.rsplit(',').next().unwrap();
            let names = line.contains(setting) && line.contains(&variable);
            let shows = setting == "database.url" || line.contains(wrong);
            assert!(names && shows && line.contains(allowed), "{setting} = {value}: {line}");
        }
        assert!(refused(with_file("[http]\nport = \"eighty\"", &[])).contains("http.port"));
        assert!(refused(with_file("[http\nport = 1", &[])).contains("prop.toml"));
        assert!(
            refused(Settings::read(Some(Path::new("/nowhere/prop.toml")), HashMap::new()))
                .contains("/nowhere/prop.toml")
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        let host = ("PROP_DATABASE__HOST", "db");
        let password = ("PROP_DATABASE__PASSWORD", "s3cret-words");
        let webhooks = "PROP_GITHUB__WEBHOOK_SECRETS";
        let cases: [&[(&str, &str)]; 13] = [
            &[("PROP_GITHUB__WEBHOOK_SECRET", "s3cret-words")],
            &[(webhooks, "s3cret-words")],
            &[(webhooks, r#"["s3cret-words"]"#)],
            &[(webhooks, r#"{"secret": "s3cret-words"}"#)],
            &[(webhooks, r#"[{"secret": "s3cret-words"}]"#)],
            &[(webhooks, r#"[{"s3cret-words": 1}]"#)],
            &[(webhooks, r#"[{"secret": ["s3cret-words-of-a-webhook"]}]"#)],
            &[("PROP_BOOTSTRAP_KEY", "prop_s3cret-words")],
            &[("DATABASE_URL", "mysql://u:s3cret-words@h/n")],
            &[("DATABASE_URL", "u:s3cret-words@h/n")],
            &[("DATABASE_URL", "s3cret-words")],
            &[host, password],
            &[
                host,
                password,
                ("PROP_DATABASE__NAME", "n"),
                ("PROP_DATABASE__USER", "u"),
                ("PROP_DATABASE__SSLMODE", "always"),
            ],
        ];
        for variables in cases {
            let line = refused(read(variables));
            assert!(!line.contains("s3cret"), "{line}");
        }
        // Not even where a file can't be read: only the place is named.
        for text in [
            "[database]\npassword = \"s3cret-words\n",
            "[database]\npassword = s3cret-words\n",
            "bootstrap_key = [\"s3cret-words\"]",
            "[github]\nwebhook_secrets = [\"s3cret-words\"]",
            "[github]\nwebhook_secrets = [{ secret = [\"s3cret-words\"] }]",
            "[github]\nwebhook_secrets = \"s3cret-words\"",
            "[github]\nwebhook_secret = [\"s3cret-words\"]",
        ] {
            let line = refused(with_file(text, &[]));
            assert!(!line.contains("s3cret"), "{line}");
            assert!(
                ["line 2", "bootstrap_key", "github."].iter().any(|place| line.contains(place)),
                "{line}"
            );
        }
        let token = Token::generate().unwrap();
        let settings = read(&[
            ("PROP_BOOTSTRAP_KEY", token.reveal()),
            ("DATABASE_URL", "postgres://u:s3cret-words@h/n"),
            ("PROP_GITHUB__WEBHOOK_SECRET", "s3cret-words-of-a-webhook"),
        ])
        .unwrap();
        let shown = format!("{settings:?}");
        assert!(!shown.contains("s3cret") && !shown.contains(&token.reveal()[12..]), "{shown}");
        assert_eq!(settings.bootstrap_key.unwrap().reveal(), token.reveal());
        assert_eq!(settings.webhook_secrets[0].secret.reveal(), "s3cret-words-of-a-webhook");
    }

    #[test]
    fn webhooks_may_have_several_secrets_for_some_repositories_each() {
        let variable = "PROP_GITHUB__WEBHOOK_SECRETS";
        let (one, two) = ("a".repeat(16), "b".repeat(16));
        let json = format!(
            r#"[{{"secret": "{one}", "repositories": ["Acme", "other/Shop.js"]}},
                {{"secret": "{two}"}}]"#
        );
        let file = format!(
            "[github]\nwebhook_secrets = [{{ secret = \"{one}\", repositories = [\"Acme\", \
             \"other/Shop.js\"] }}, {{ secret = \"{two}\" }}]"
        );
        for settings in [read(&[(variable, &json)]).unwrap(), with_file(&file, &[]).unwrap()] {
            let [limited, free] = &settings.webhook_secrets[..] else { panic!("{settings:?}") };
            assert_eq!((limited.secret.reveal(), free.secret.reveal()), (&*one, &*two));
            assert!(limited.is_limited() && !free.is_limited());
            for name in ["acme", "ACME/shop", "other/shop.js"] {
                assert!(limited.covers(name) && free.covers(name), "{name}");
            }
            for name in ["", "other", "other/shop", "acme2/shop", "shop.js", "/acme"] {
                assert!(!limited.covers(name) && free.covers(name), "{name}");
            }
        }
        // Beside the single one, which goes on working.
        let both = [("PROP_GITHUB__WEBHOOK_SECRET", &*two), (variable, &*json)];
        assert_eq!(read(&both).unwrap().webhook_secrets.len(), 3);
        let entry = |more: &str| format!(r#"[{{"secret": "{one}"{more}}}]"#);
        for (value, expected) in [
            (entry(r#", "repositories": []"#), "entry 1: `repositories` has owners"),
            (entry(r#", "repositories": ["a/b/c"]"#), "at least one"),
            (entry(r#", "repositories": [""]"#), "at least one"),
            (entry(r#", "repositories": ["https://github.com/acme"]"#), "at least one"),
            (entry(r#", "repositories": "acme""#), "a list"),
            (entry(r#", "repository": "acme""#), "a list"),
            (r#"[{"secret": "short"}]"#.to_owned(), "entry 1: its secret has 5 characters"),
            ("short".to_owned(), "is not a JSON array"),
        ] {
            let line = refused(read(&[(variable, &value)]));
            assert!(line.contains(variable) && line.contains(expected), "{value}: {line}");
        }
    }

    #[test]
    fn a_database_in_parts_needs_its_parts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ca = file.path().to_str().unwrap();
        let all = [
            ("PROP_DATABASE__HOST", "db.internal"),
            ("PROP_DATABASE__PORT", "5433"),
            ("PROP_DATABASE__NAME", "ledger"),
            ("PROP_DATABASE__USER", "prop"),
            ("PROP_DATABASE__PASSWORD", "it's"),
            ("PROP_DATABASE__SSLMODE", "verify-full"),
            ("PROP_DATABASE__CA_FILE", ca),
            // Once there is a host, the URL is ignored.
            ("DATABASE_URL", "mysql://ignored"),
        ];
        let settings = read(&all).unwrap();
        let conninfo = postgres(&settings);
        let parts = [
            "host='db.internal'",
            "port='5433'",
            "dbname='ledger'",
            "user='prop'",
            r"password='it\'s'",
            "sslmode='verify-full'",
        ];
        for part in parts.iter().map(ToString::to_string).chain([format!("sslrootcert='{ca}'")]) {
            assert!(conninfo.contains(&part), "{conninfo}");
        }
        let without = |name: &str| {
            read(&all.iter().copied().filter(|(variable, _)| *variable != name).collect::<Vec<_>>())
        };
        for name in ["PROP_DATABASE__NAME", "PROP_DATABASE__USER"] {
            let line = refused(without(name));
            assert!(line.contains(name) && line.contains("missing"), "{line}");
        }
        for name in [
            "PROP_DATABASE__PORT",
            "PROP_DATABASE__PASSWORD",
            "PROP_DATABASE__SSLMODE",
            "PROP_DATABASE__CA_FILE",
        ] {
            assert!(without(name).is_ok(), "{name}");
        }
        assert!(postgres(&without("PROP_DATABASE__PORT").unwrap()).contains("port='5432'"));
        let with =
            |name: &'static str, value: &'static str| read(&[&all[..], &[(name, value)]].concat());
        assert!(refused(with("PROP_DATABASE__PORT", "0")).contains("1 to 65535"));
        assert!(refused(with("PROP_DATABASE__SSLMODE", "always")).contains("verify-full"));
        assert!(
            refused(with("PROP_DATABASE__CA_FILE", "/nowhere/ca.pem"))
                .contains("a file that exists")
        );
    }

    #[test]
    fn the_owner_migrates_and_the_role_of_the_url_serves() {
        let serving = ("DATABASE_URL", "postgres://app:s3cret-words@db/n");
        let owner = |settings: Settings| {
            let shown = format!("{settings:?}");
            assert!(!shown.contains("s3cret"), "{shown}");
            settings.database.owner.map(|owner| (owner.target, owner.serves))
        };
        let app = Role { name: "app".into(), password: Some("s3cret-words".into()) };
        let url = "postgres://owner:s3cret-too@db/n";
        let settings = read(&[serving, ("MIGRATE_DATABASE_URL", url)]).unwrap();
        assert_eq!(owner(settings), Some((Target::from_url(url).unwrap(), app.clone())));
        assert_eq!(owner(read(&[serving]).unwrap()), None);
        // The same role needs nothing from itself.
        let same =
            ("PROP_DATABASE__MIGRATE_URL", "postgres://app:s3cret-words@db/n?sslmode=disable");
        assert_eq!(owner(read(&[serving, same]).unwrap()), None);

        let parts = [
            ("PROP_DATABASE__HOST", "db"),
            ("PROP_DATABASE__NAME", "n"),
            ("PROP_DATABASE__USER", "app"),
            ("PROP_DATABASE__PASSWORD", "s3cret-words"),
            ("PROP_DATABASE__MIGRATE_USER", "owner"),
            ("PROP_DATABASE__MIGRATE_PASSWORD", "s3cret-too"),
        ];
        let (target, serves) = owner(read(&parts).unwrap()).unwrap();
        let Target::Postgres(conninfo) = target else { unreachable!() };
        let conninfo = conninfo.text();
        assert!(
            conninfo.contains("host='db'")
                && conninfo.contains("user='owner' password='s3cret-too'")
        );
        assert_eq!(serves, app);

        let sqlite = ("DATABASE_URL", "sqlite:prop.db");
        for (variables, words) in [
            (
                vec![sqlite, ("MIGRATE_DATABASE_URL", url)],
                "(MIGRATE_DATABASE_URL) is for PostgreSQL",
            ),
            (
                vec![serving, ("MIGRATE_DATABASE_URL", "s3cret-too")],
                "(MIGRATE_DATABASE_URL) is not",
            ),
            (vec![serving, ("MIGRATE_DATABASE_URL", "postgres://db/n")], "must each name a role"),
            (
                vec![serving, parts[4]],
                "database.migrate_user (PROP_DATABASE__MIGRATE_USER) is only",
            ),
        ] {
            let line = refused(read(&variables));
            assert!(line.contains(words) && !line.contains("s3cret"), "{line}");
        }
    }

    /// The settings of `prop.toml.example`, by section, commented ones too: name, value, and
    /// whether it is commented.
    fn documented() -> Vec<(String, String, bool)> {
        let mut section = String::new();
        let mut settings = Vec::new();
        for line in DEFAULTS.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = format!("{name}.");
                continue;
            }
            let text = line.strip_prefix("# ").unwrap_or(line);
            let Some((name, value)) = text.split_once(" = ") else { continue };
            if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                settings.push((
                    format!("{section}{name}"),
                    value.to_owned(),
                    line.starts_with('#'),
                ));
            }
        }
        settings
    }

    #[test]
    fn the_example_documents_every_setting_and_nothing_else() {
        let mut known = known_settings();
        let mut documented: Vec<_> = documented().into_iter().map(|(name, ..)| name).collect();
        known.sort();
        documented.sort();
        assert_eq!(documented, known);
    }

    #[test]
    fn every_setting_that_is_commented_out_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, "").unwrap();
        let token = Token::generate().unwrap();
        let commented: Vec<_> =
            documented().into_iter().filter(|(.., is_commented)| *is_commented).collect();
        assert!(commented.len() >= 10, "{commented:?}");
        // All at once, since some need each other; what can't be said in an example is said here.
        let mut text = String::new();
        for (name, value, _) in &commented {
            let value = match name.as_str() {
                "bootstrap_key" => format!("{:?}", token.reveal()),
                "github.webhook_secret" => format!("{:?}", "a".repeat(16)),
                "github.webhook_secrets" => value.replace("...", &"a".repeat(16)),
                "database.ca_file" => format!("{ca:?}"),
                _ => value.clone(),
            };
            text.push_str(&format!("{name} = {value}\n"));
        }
        let settings = with_file(&text, &[]).unwrap();
        assert!(settings.bootstrap_key.is_some() && settings.image_digest.is_some());
        assert!(postgres(&settings).contains("sslmode='verify-full'"));
        // The other half of the example are the defaults themselves: a copy of it changes nothing.
        assert_eq!(
            format!("{:?}", with_file(DEFAULTS, &[]).unwrap()),
            format!("{:?}", read(&[]).unwrap())
        );
    }
}
