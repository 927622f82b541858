//! The choice of the database by URL scheme, and the connection settings that each backend needs.

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::{Connection, ConnectionError, ConnectionResult, PgConnection, SqliteConnection};
use std::fmt;
use std::time::Duration;

use super::Db;

/// The database that stores the ledger.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A libpq connection string or URL. It may contain a password and is never printed.
    Postgres(String),
    /// A path to the database file.
    Sqlite(String),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Postgres(_) => f.write_str("PostgreSQL"),
            Target::Sqlite(path) => write!(f, "SQLite in {path}"),
        }
    }
}

impl Target {
    /// Parses a database URL.
    ///
    /// # Errors
    /// A message that completes "the URL ...", without a password. A URL with an unknown scheme is
    /// an error; it is never used as a file name.
    pub fn from_url(url: &str) -> Result<Self, String> {
        match url.split_once(':') {
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                Ok(Self::Postgres(with_defaults(url)))
            }
            Some(("sqlite", rest)) => match rest.strip_prefix("//").unwrap_or(rest) {
                "" | ":memory:" => {
                    Err("names no file; SQLite needs one, such as sqlite:prop.db".into())
                }
                path => Ok(Self::Sqlite(path.into())),
            },
            Some((scheme, _)) => {
                Err(format!("has the scheme {scheme:?}; allowed are postgres:// and sqlite:"))
            }
            None => Err(
                "is not a URL; allowed are postgres://USER:PASSWORD@HOST:PORT/NAME and sqlite:FILE"
                    .into(),
            ),
        }
    }

    /// Builds a PostgreSQL target from libpq keywords (PostgreSQL documentation, 34.1.2) and
    /// values.
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let quoted = parts.into_iter().map(|(keyword, value)| {
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            format!("{keyword}='{value}' ")
        });
        Self::Postgres(quoted.chain(DEFAULTS.iter().map(|(k, v)| format!("{k}={v} "))).collect())
    }

    /// Opens a connection for migrations: the same, but on PostgreSQL its statements may take as
    /// long as they need. Behind a pooler the limits of the role apply, if it has any.
    ///
    /// # Errors
    /// When the database cannot be reached or rejects a setting.
    pub fn connect_to_migrate(&self, options: &Options) -> ConnectionResult<Db> {
        let mut db = self.connect(options)?;
        if matches!(db, Db::Pg(_)) && options.prepared_statements {
            db.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0")
                .map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(db)
    }

    /// Opens a connection and applies the session settings.
    ///
    /// # Errors
    /// When the database cannot be reached or rejects a setting.
    pub fn connect(&self, options: &Options) -> ConnectionResult<Db> {
        let mut db = match self {
            Target::Postgres(url) => {
                let mut c = PgConnection::establish(url)?;
                if options.prepared_statements {
                    // Behind a pooler in transaction mode, a session setting would also apply to
                    // other clients.
                    let limit = options.statement_timeout.as_millis();
                    c.batch_execute(&format!("SET statement_timeout = {limit}"))
                        .map_err(ConnectionError::CouldntSetupConfiguration)?;
                }
                Db::Pg(c)
            }
            Target::Sqlite(path) => {
                let mut c = SqliteConnection::establish(path)?;
                // busy_timeout comes first, because the change of the journal mode also waits for
                // other connections. `synchronous = FULL`: a committed write survives a power cut
                // in WAL mode. A page cache of 1 MB is enough: the operating system caches too.
                c.batch_execute(&format!(
                    "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; \
                        PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                        PRAGMA cache_size = -1024",
                    options.statement_timeout.as_millis()
                ))
                .map_err(ConnectionError::CouldntSetupConfiguration)?;
                Db::Sqlite(c)
            }
        };
        if !options.prepared_statements {
            db.set_prepared_statement_cache_size(CacheSize::Disabled);
        }
        Ok(db)
    }
}

/// The role that a PostgreSQL URL names, and its password, if any.
pub fn credentials(url: &str) -> Option<(String, Option<String>)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "postgres" | "postgresql") {
        return None;
    }
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = base.split('/').next().unwrap_or_default();
    let named = authority.rsplit_once('@').map_or("", |(named, _)| named);
    let (user, password) = match named.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (named, None),
    };
    // As in libpq, a parameter wins over the part before the `@`.
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).last()
    };
    let user = parameter("user").unwrap_or(user);
    let password = parameter("password").or(password);
    (!user.is_empty()).then(|| (decoded(user), password.map(decoded)))
}

/// A part of a URL without its percent encoding, as libpq reads it.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The settings of a connection.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether to keep prepared statements on the connection. Must be off behind a pooler in
    /// transaction mode, such as PgBouncer or RDS Proxy.
    pub prepared_statements: bool,
    /// How long a statement may run or wait for a lock.
    pub statement_timeout: Duration,
    /// A statement that takes longer than this is logged.
    pub slow_statement: Duration,
}

/// Connection parameters that differ from libpq's defaults, so that a lost server is noticed within
/// seconds.
const DEFAULTS: [(&str, &str); 3] = [
    ("connect_timeout", "5"),
    ("tcp_user_timeout", "10000"),
    ("fallback_application_name", "prop"),
];

fn with_defaults(url: &str) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let given = query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned);
    let added = DEFAULTS
        .iter()
        .filter(|(keyword, _)| !query.contains(&format!("{keyword}=")))
        .map(|(k, v)| format!("{k}={v}"));
    format!("{base}?{}", given.chain(added).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_chooses_the_database() {
        assert_eq!(Target::from_url("sqlite:prop.db"), Ok(Target::Sqlite("prop.db".into())));
        assert_eq!(
            Target::from_url("sqlite:///var/prop.db"),
            Ok(Target::Sqlite("/var/prop.db".into()))
        );
        assert!(matches!(
            Target::from_url("postgresql://u@h/n?sslmode=require"),
            Ok(Target::Postgres(url))
                if url.starts_with("postgresql://u@h/n?sslmode=require&connect_timeout=5")
        ));
        for refused in [
            "prop.db",
            "mysql://h/n",
            "sqlite:",
            "sqlite::memory:",
            "postgres:h",
            "",
            "file:prop.db",
        ] {
            assert!(Target::from_url(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn parts_are_quoted() {
        let Target::Postgres(conninfo) =
            Target::from_parts([("host", "db"), ("password", r"it's \ a secret")])
        else {
            unreachable!()
        };
        assert!(
            conninfo.starts_with(r"host='db' password='it\'s \\ a secret' connect_timeout=5 "),
            "{conninfo}"
        );
    }

    #[test]
    fn a_url_names_a_role_and_its_password() {
        for (url, user, password) in [
            ("postgres://app:a%20%40%2Fb@h:5432/n?sslmode=require", "app", Some("a @/b")),
            ("postgresql://app@h/n", "app", None),
            ("postgres://h/n?user=app&password=s%253", "app", Some("s%3")),
            ("postgres://other:x@/n?host=/tmp&user=app", "app", Some("x")),
        ] {
            let expected = (user.to_owned(), password.map(str::to_owned));
            assert_eq!(credentials(url), Some(expected), "{url}");
        }
        for url in ["sqlite:app@h", "postgres://h/n", "sqlite://app:x@h/n", ""] {
            assert_eq!(credentials(url), None, "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            format!("{:?}", Target::Postgres("postgres://u:secret@h/n".into())),
            "PostgreSQL"
        );
    }
}
