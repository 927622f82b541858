//! The command line.

use clap::{Parser, Subcommand};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use prop::app::{self, Application};
use prop::config::{Http, Settings};
use prop::http::caller::Scope;
use prop::http::context::Author;
use prop::ledger::keys;
use prop::logging;
use prop::types::ids::KeyId;
use prop::types::malformed::Malformed;
use prop::types::name::Name;
use prop::types::token::Token;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_GIT_SHA"), ")");

const EXAMPLES: &str = "\
Examples:
  prop                                        serve on port 8080, with SQLite in ./prop.db
  DATABASE_URL=postgres://u:p@host/prop prop  serve with PostgreSQL
  prop key create pipeline --scope read,deploy
                                              create a key for a pipeline
  prop openapi > openapi.json                 the API's document, to generate clients from

Settings come from prop.toml and the environment (PROP_HTTP__PORT=9000); \
prop.toml.example explains each one.
Exit codes: 0 done, 1 failed, 2 a setting or an argument is wrong.";

const KEY_SCOPES: &str = "\
Which scopes?
  A dashboard           read
  A pipeline            read,deploy
  A scanner             attest
  A person              read,approve; with operate and override to manage freezes and incidents
  A mirror of approvals mirror
  An administrator      admin (includes all of them)

Example: prop key create pipeline --scope read,deploy";

const HEALTH: &str = "\
Which question?
  without --live  /readyz: whether requests can be served now, which needs the database. For what \
waits for prop, or chooses where requests go.
  with --live     /livez: whether the process answers at all. For what restarts prop: a restart \
does not help when the database is away.

Exit codes: 0 yes, 1 no, or no answer within 4 seconds, 2 a setting or an argument is wrong.";

/// The help of `--scope`: its values are those of [`Scope`].
fn scopes_help() -> String {
    let words: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
    format!("What it may do; several are separated by commas: {}", words.join(", "))
}

/// A deployment ledger: what runs where, since when, who asked for it, and may this release go
/// there now.
#[derive(Parser)]
#[command(name = "prop", version = VERSION, after_help = EXAMPLES)]
struct Cli {
    /// The settings file; prop.toml, if there is one and no other is named.
    #[arg(long, global = true, env = "PROP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API: migrate, then listen until SIGTERM (the default)
    Serve,
    /// Apply pending migrations and end
    Migrate,
    /// Make, list and revoke keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print the OpenAPI document
    Openapi,
    /// Ask the server on this machine whether it is ready: exit 0 or 1
    #[command(after_help = HEALTH)]
    Healthcheck {
        /// Ask only whether the process answers, whatever its database does
        #[arg(long)]
        live: bool,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Create a key and print it (shown only once)
    #[command(after_help = KEY_SCOPES)]
    Create {
        /// Who will hold it: the actor in the history
        name: String,
        /// What it may do; several are separated by commas
        #[arg(
            long = "scope",
            required = true,
            value_name = "SCOPES",
            value_delimiter = ',',
            help = scopes_help()
        )]
        scopes: Vec<Scope>,
    },
    /// List keys, without their secrets
    List,
    /// Revoke a key by its id
    Revoke {
        /// As `prop key list` shows it
        id: String,
    },
    /// Print a fresh key that no ledger knows yet, for PROP_BOOTSTRAP_KEY
    Generate,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(done) = without_settings(&cli.command) {
        return done;
    }
    let settings = match Settings::load(cli.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("prop: {error}");
            return ExitCode::from(2);
        }
    };
    logging::start(&settings.log.filter, settings.log.json);
    let command = cli.command.unwrap_or(Command::Serve);
    // A health check runs every few seconds, beside a server that has logged them at its start.
    if !matches!(command, Command::Healthcheck { .. }) {
        settings.ignored.iter().for_each(|warning| log::warn!("{warning}"));
    }
    let result = match command {
        Command::Serve => serve(settings),
        Command::Migrate => migrate(&settings),
        Command::Key(command) => key(&settings, command),
        Command::Healthcheck { live } => healthcheck(&settings.http, live),
        Command::Openapi => Ok(()),
    };
    logging::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prop: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The commands that need neither settings nor a database.
fn without_settings(command: &Option<Command>) -> Option<ExitCode> {
    let text = match command {
        Some(Command::Openapi) => app::document().to_pretty_json().map_err(|e| e.to_string()),
        Some(Command::Key(KeyCommand::Generate)) => {
            Token::generate().map(|token| token.reveal().to_owned()).map_err(|e| e.to_string())
        }
        _ => return None,
    };
    Some(match text.and_then(|text| print(&text).map_err(|e| e.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prop: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Unlike `println!`, this fails instead of panicking when nobody reads any more. The text is
/// written at once, so that whoever reads only its first line does not make it fail.
fn print(text: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(format!("{text}\n").as_bytes())
}

fn serve(settings: Settings) -> Outcome {
    actix_web::rt::System::new().block_on(async {
        let application = Application::build(settings).await?;
        log::info!("listening on port {}", application.port());
        print(&greeting(&application))?;
        application.run().await?;
        log::info!("stopped");
        Ok(())
    })
}

/// What to do next, for a person who has just started prop.
fn greeting(application: &Application) -> String {
    let here = format!("http://127.0.0.1:{}", application.port());
    let Some(key) = application.first_key() else {
        return format!(
            "prop is running: {here}/\n\
             API: {here}/docs/   Lost the key? prop key create NAME --scope admin"
        );
    };
    let sha = env!("BUILD_GIT_SHA");
    let commit = if sha.len() == 40 { format!(r#""git_sha":"{sha}","#) } else { String::new() };
    let (key, version) = (key.reveal(), env!("CARGO_PKG_VERSION"));
    let sends_json = "-H 'Content-Type: application/json'";
    let place = r#""service":"prop","environment":"development""#;
    format!(
        r#"prop is running: {here}/

This is a new ledger. Here is its first key, shown only once; keep it:

  export PROP_KEY={key}

1. Record a deployment that has succeeded (this also creates its service and environment):

  curl -sS {here}/v1/deployments -H "Authorization: Bearer {key}" {sends_json} \
    -d '{{{place},"version":"{version}",{commit}"state":"succeeded","create_missing":true}}'

2. See what is live, here or on the board (sign in with the key):

  curl -sS {here}/v1/status -H "Authorization: Bearer {key}"

The API in a browser: {here}/docs/"#
    )
}

fn migrate(settings: &Settings) -> Outcome {
    let applied = app::migrate(settings)?;
    print(&if applied.is_empty() {
        "No pending migrations.".to_owned()
    } else {
        format!("applied {}", applied.join(", "))
    })?;
    Ok(())
}

fn key(settings: &Settings, command: KeyCommand) -> Outcome {
    let mut db = app::migrated(settings)?;
    let author = Author::prop();
    match command {
        KeyCommand::Create { name, scopes } => {
            let name: Name = name
                .parse()
                .map_err(|is: Malformed| format!("the name is malformed: {}", is.detail))?;
            let token = Token::generate()?;
            db.write(|db| keys::insert(db, &author, &name, &scopes, &token))?;
            print(token.reveal())?;
        }
        KeyCommand::List => {
            for key in keys::all(&mut db)? {
                let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
                let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
                print(&format!(
                    "{}  {}...  {state:<7}  {}  ({})",
                    key.id,
                    key.prefix,
                    key.name,
                    scopes.join(", ")
                ))?;
            }
        }
        KeyCommand::Revoke { id } => {
            let id: KeyId = id
                .parse()
                .map_err(|_| format!("{id:?} is no key's id; `prop key list` shows them"))?;
            let key = db.write(|db| keys::revoke(db, &author, id))?;
            print(&format!("revoked {} ({})", key.id, key.name))?;
        }
        KeyCommand::Generate => {}
    }
    Ok(())
}

/// Asks the server on this machine whether it is ready, or only whether it is alive, by HTTP/1.0
/// over a plain socket: containers without a shell have no curl.
fn healthcheck(http: &Http, live: bool) -> Outcome {
    let host = if http.host.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { http.host };
    let (path, state) = if live { ("/livez", "alive") } else { ("/readyz", "ready") };
    let limit = Duration::from_secs(4);
    let address = SocketAddr::new(host, http.port);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("no answer from {address}: {error}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200 ") {
        Ok(())
    } else {
        Err(format!("{address} is not {state}: {status}").into())
    }
}
