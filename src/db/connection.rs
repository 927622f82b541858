//! The choice of the database by URL scheme, and the connection settings that each backend needs.

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::{Connection, ConnectionError, ConnectionResult, PgConnection, SqliteConnection};
use std::fmt;
use std::time::Duration;

use super::Db;
pub use super::conninfo::Conninfo;

/// The database that stores the ledger.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// The parameters of the connection. One may be a password, so they are never printed.
    Postgres(Conninfo),
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
                Ok(Self::Postgres(Conninfo::from_url(&rest[2..])?))
            }
            Some(("sqlite", rest)) => match rest.strip_prefix("//").unwrap_or(rest) {
                "" | ":memory:" => {
                    Err("names no file; SQLite needs one, such as sqlite:prop.db".into())
                }
                path => Ok(Self::Sqlite(path.into())),
            },
            // Only what is a scheme is shown: the text may be a password.
            Some((scheme, rest)) if rest.starts_with("//") => {
                Err(format!("has the scheme {scheme:?}; allowed are postgres:// and sqlite:"))
            }
            _ => Err(
                "is not a URL; allowed are postgres://USER:PASSWORD@HOST:PORT/NAME and sqlite:FILE"
                    .into(),
            ),
        }
    }

    /// Builds a PostgreSQL target from libpq keywords (PostgreSQL documentation, 34.1.2) and
    /// values.
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::Postgres(Conninfo::new(parts))
    }

    /// The role of a PostgreSQL target and its password, as far as they are named.
    pub fn credentials(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Postgres(conninfo) => {
                conninfo.value("user").map(|user| (user, conninfo.value("password")))
            }
            Self::Sqlite(_) => None,
        }
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

    /// Opens the connection of the thread that writes to SQLite.
    ///
    /// # Errors
    /// When the database cannot be opened or rejects a setting.
    pub fn connect_to_write(&self, options: &Options) -> ConnectionResult<Db> {
        let mut db = self.connect(options)?;
        // Nobody else writes, so the page cache stays valid: 8 MB hold the upper pages of all
        // indexes, and what a transaction changes until its commit. What undoes a job that fails
        // stays in memory, too: otherwise a temporary file takes it when it is much
        // (https://sqlite.org/tempfiles.html#statement_journal_files).
        //
        // Another thread copies the log into the database: see `checkpoint`. If it can't keep up,
        // the writer does it at each commit from 64 MB on. After a burst that a long read kept from
        // being copied, the log is cut to that.
        db.batch_execute(
            "PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY; \
                PRAGMA wal_autocheckpoint = 16384; PRAGMA journal_size_limit = 67108864",
        )
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(db)
    }

    /// Opens a connection and applies the session settings.
    ///
    /// # Errors
    /// When the database cannot be reached or rejects a setting.
    pub fn connect(&self, options: &Options) -> ConnectionResult<Db> {
        let mut db = match self {
            Target::Postgres(conninfo) => {
                let mut c =
                    PgConnection::establish(&conninfo.text()).map_err(|error| match error {
                        ConnectionError::BadConnection(message) => {
                            ConnectionError::BadConnection(conninfo.masked(&message))
                        }
                        other => other,
                    })?;
                if options.prepared_statements {
                    // Behind a pooler in transaction mode, a session setting would also apply to
                    // other clients. Compiling (JIT) pays for statements that read very much:
                    // that of the status, which only looks expensive, took ten times as long.
                    let limit = options.statement_timeout.as_millis();
                    c.batch_execute(&format!("SET statement_timeout = {limit}; SET jit = off"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::sql_types::Text;
    use diesel::{QueryableByName, RunQueryDsl};

    #[test]
    fn the_scheme_chooses_the_database() {
        assert_eq!(Target::from_url("sqlite:prop.db"), Ok(Target::Sqlite("prop.db".into())));
        assert_eq!(
            Target::from_url("sqlite:///var/prop.db"),
            Ok(Target::Sqlite("/var/prop.db".into()))
        );
        assert_eq!(
            Target::from_url("postgresql://u@h/n?sslmode=require"),
            Ok(Target::from_parts([
                ("user", "u"),
                ("host", "h"),
                ("dbname", "n"),
                ("sslmode", "require")
            ]))
        );
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

    /// The flags of `.cargo/config.toml`, which a build elsewhere may miss.
    #[test]
    fn sqlite_is_compiled_as_configured() {
        #[derive(QueryableByName)]
        struct Flag {
            #[diesel(sql_type = Text)]
            compile_options: String,
        }
        let mut c = SqliteConnection::establish(":memory:").unwrap();
        let flags: Vec<Flag> = diesel::sql_query("PRAGMA compile_options").load(&mut c).unwrap();
        let has = |flag: &str| flags.iter().any(|it| it.compile_options == flag);
        for flag in ["ENABLE_QPSG", "DEFAULT_MEMSTATUS=0", "STMTJRNL_SPILL=131071", "THREADSAFE=1"]
        {
            assert!(has(flag), "{flag} is missing");
        }
        assert!(!has("ENABLE_MEMORY_MANAGEMENT"));
    }

    /// Linux shows the temporary files of SQLite, which are called `etilqs`, although deleted.
    #[test]
    fn what_undoes_a_job_stays_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("test.db").display().to_string();
        let long = Duration::from_secs(60);
        let options =
            Options { prepared_statements: true, statement_timeout: long, slow_statement: long };
        let mut db = Target::Sqlite(file).connect_to_write(&options).unwrap();
        let rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2000)
            SELECT n, hex(zeroblob(1000)) FROM n";
        db.batch_execute(&format!("CREATE TABLE t AS {rows}; BEGIN; SAVEPOINT job")).unwrap();
        db.batch_execute("UPDATE t SET n = -n").unwrap();
        let files = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let names = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        let temporary = names.filter(|name| name.display().to_string().contains("etilqs"));
        assert_eq!(temporary.count(), 0);
        db.batch_execute("ROLLBACK TO job; COMMIT").unwrap();
        let undone = diesel::sql_query("UPDATE t SET n = 0 WHERE n > 0").execute(&mut db);
        assert_eq!(undone, Ok(2000));
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            format!("{:?}", Target::from_url("postgres://u:secret@h/n").unwrap()),
            "PostgreSQL"
        );
    }
}
