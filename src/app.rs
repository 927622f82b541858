//! Builds the application: connects to the database, migrates it, binds the port, serves and stops.

use actix_cors::Cors;
use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App, web};
use diesel::ConnectionResult;
use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use utoipa::openapi::OpenApi;

use crate::config::{self, Http, Mode, Settings};
use crate::db::connection::Target;
use crate::db::migrations::Access;
use crate::db::pool::Database;
use crate::db::together::Together;
use crate::db::{Db, migrations};
use crate::error::Error;
use crate::http::caller::Keys;
use crate::http::connection::{self, Deadlines};
use crate::http::docs::{self, Published};
use crate::http::metrics::Metrics;
use crate::http::routes::{self, Declare, Routes, Served};
use crate::http::state::{ANONYMOUS_BODIES, State};
use crate::http::telemetry::observe;
use crate::http::{extract, health, idempotency};
use crate::ledger::deployments::expiry;
use crate::ledger::{self, backfill, github, keys};
use crate::types::token::Token;
use crate::web as pages;

/// The path of the API: requests below it need a key.
const API: &str = "/v1";

/// The routes, below their paths.
const ROUTES: [(&str, Declare); 2] = [(API, ledger::routes), ("", beside_api)];

/// The methods that the API has.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Why prop did not start, as a message for the person who started it.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for StartError {}

/// An application that is ready to serve: its database is migrated and its port is open.
pub struct Application {
    server: Server,
    state: web::Data<State>,
    port: u16,
    first_key: Option<Token>,
}

impl Application {
    /// Connects, migrates, makes sure that a key exists, and opens the port, in this order.
    ///
    /// # Errors
    /// When one of these steps fails.
    pub async fn build(settings: Settings) -> Result<Self, StartError> {
        outlive_a_file_size_limit()?;
        let mut db = migrated(&settings)?;
        let first_key = first_key(&mut db, &settings)?;
        warn_of_old_keys(&mut db)?;

        let deadlines = Deadlines::new(&settings.http, settings.database.limits.time);
        let metrics = Metrics::new(&ledger::metrics::labels());
        let metrics = Arc::new(metrics.map_err(|e| StartError(format!("metrics: {e}")))?);
        let counts = metrics.clone();
        let database = Database::start(
            settings.database.target,
            settings.database.options,
            &settings.database.limits,
            Some(db),
            Arc::new(move |fact| counts.count_fact(fact)),
        );
        let database = database.map_err(|e| StartError(format!("no database threads: {e}")))?;
        let state = web::Data::new(State {
            together: Together::new(database.clone()),
            db: database,
            keys: Keys::default(),
            metrics,
            anonymous_bodies: Semaphore::new(ANONYMOUS_BODIES),
            tiers: settings.tiers,
            http: settings.http.clone(),
            webhook_secrets: settings.webhook_secrets,
            image_digest: settings.image_digest,
            public_read: settings.public_read,
            draining: AtomicBool::new(false),
        });
        let (http, shared) = (settings.http, state.clone());
        let docs = web::Data::new(Published::new(document));
        let routes = web::Data::new(Served::new(&ROUTES, API));
        let app = move || app(shared.clone(), docs.clone(), routes.clone());
        let (server, port) =
            connection::serve(&http, deadlines, app).map_err(|e| cannot_listen(&http, &e))?;
        Ok(Self { server, state, port, first_key })
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The admin key that [`Self::build`] created because there was no key. Show it only once.
    pub fn first_key(&self) -> Option<&Token> {
        self.first_key.as_ref()
    }

    /// Serves until SIGTERM or SIGINT, then lets running requests finish.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed, or the server fails.
    pub async fn run(self) -> std::io::Result<()> {
        let (handle, state) = (self.server.handle(), self.state.clone());
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        actix_web::rt::spawn(async move {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            log::info!("stopping: running requests have {} s", state.http.shutdown.as_secs());
            state.draining.store(true, Ordering::Relaxed);
            handle.stop(true).await;
        });
        actix_web::rt::spawn(work_beside_requests(self.state.db.clone()));
        self.server.await
    }
}

/// A limit of file sizes (`ulimit -f`) ends a process that writes more, unless it handles the
/// signal. Then the write fails, as on a full disk.
fn outlive_a_file_size_limit() -> Result<(), StartError> {
    /// The same on Linux and macOS.
    const SIGXFSZ: i32 = 25;
    // Once a handler is installed, it stays, whether somebody waits for the signal or not.
    signal(SignalKind::from_raw(SIGXFSZ))
        .map(drop)
        .map_err(|e| StartError(format!("no handler for SIGXFSZ: {e}")))
}

fn cannot_listen(http: &Http, error: &std::io::Error) -> StartError {
    let address = SocketAddr::new(http.host, http.port);
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return StartError(format!("can't listen on {address}: {error}"));
    }
    let other = http.port.checked_add(1).unwrap_or(8081);
    StartError(format!(
        "can't listen on {address}: another program uses port {}. \
         Stop it, or choose another port: PORT={other} (or PROP_HTTP__PORT={other}).",
        http.port
    ))
}

/// A short name for the bounds of the service that an `actix_web::App` is built from.
trait Service:
    ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<Self::Body>,
        Error = actix_web::Error,
        InitError = (),
    >
{
    type Body: MessageBody;
}

impl<T, B: MessageBody> Service for T
where
    T: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = actix_web::Error,
            InitError = (),
        >,
{
    type Body = B;
}

/// The routes and pages with their middleware. The outermost middleware comes last.
fn app(
    state: web::Data<State>,
    docs: web::Data<Published>,
    routes: web::Data<Served>,
) -> App<impl Service> {
    let cors = cors(&state.http.cors_origins);
    let uses_cors = !state.http.cors_origins.is_empty();
    App::new()
        .app_data(state)
        .app_data(docs)
        .app_data(routes)
        .app_data(extract::path_config())
        .configure(docs::swagger::routes)
        .configure(pages::routes)
        .default_service(web::to(pages::no_route))
        .wrap(from_fn(routes::answer))
        .wrap(Condition::new(uses_cors, cors))
        .wrap(from_fn(observe))
}

/// The routes that need no key.
fn beside_api(routes: &mut Routes) {
    routes
        .configure(github::receive::receiver)
        .configure(health::routes)
        .configure(ledger::metrics::routes)
        .configure(docs::routes);
}

/// Builds the OpenAPI document from the routes.
pub fn document() -> OpenApi {
    let mut document = docs::frame();
    for (prefix, declare) in ROUTES {
        routes::describe(&mut document, prefix, declare);
    }
    docs::complete(document)
}

fn cors(origins: &[String]) -> Cors {
    let exposed =
        [header::ETAG.as_str(), header::LINK.as_str(), header::LOCATION.as_str(), "x-request-id"];
    let cors = Cors::default()
        .allowed_methods(METHODS)
        .allow_any_header()
        .expose_headers(exposed)
        .max_age(3600);
    origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Opens a connection to serve with. A server that does not answer yet is tried again, with longer
/// and longer pauses, until `database.connect_wait_seconds` have passed.
///
/// # Errors
/// When there is still no connection then, or an SQLite file cannot be opened.
fn connect(settings: &Settings) -> Result<Db, StartError> {
    let database = &settings.database;
    open(database, &database.target, || database.target.connect(&database.options))
}

fn open(
    database: &config::Database,
    target: &Target,
    connect: impl Fn() -> ConnectionResult<Db>,
) -> Result<Db, StartError> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let error = match connect() {
            Ok(db) => return Ok(db),
            Err(error) => error.to_string().trim().replace('\n', " "),
        };
        let left = database.connect_wait.saturating_sub(started.elapsed());
        let is_file = matches!(target, Target::Sqlite(_));
        if left.is_zero() || is_file {
            return Err(StartError(format!("no connection to {target:?}: {error}")));
        }
        log::warn!(
            "no connection to {target:?} yet, trying for {} s more: {error}",
            left.as_secs()
        );
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Opens a connection to serve with, and applies the pending migrations, as [`migrate`] does. If
/// there are none, no other connection is opened, besides that of the owner: each takes
/// milliseconds.
///
/// # Errors
/// When there is no connection, or a migration fails.
pub fn migrated(settings: &Settings) -> Result<Db, StartError> {
    if settings.database.owner.is_none() {
        let mut db = connect(settings)?;
        if migrations::is_current(&mut db) {
            return Ok(db);
        }
    }
    match migrate_and_connect(settings)? {
        (_, Some(db)) => Ok(db),
        (_, None) => connect(settings),
    }
}

/// Applies the pending migrations, logs them, and returns their names. With `database.migrate_url`
/// it connects as that owner, and gives the role of `database.url` what it needs to serve. The
/// connections are closed then.
///
/// # Errors
/// When there is no connection, or a migration fails.
pub fn migrate(settings: &Settings) -> Result<Vec<String>, StartError> {
    migrate_and_connect(settings).map(|(applied, _)| applied)
}

/// Does what [`migrate`] does. Also returns the connection with which it has tried whether the role
/// of `database.url` can log in, unless that became old while migrations ran.
fn migrate_and_connect(settings: &Settings) -> Result<(Vec<String>, Option<Db>), StartError> {
    let database = &settings.database;
    let target = database.owner.as_ref().map_or(&database.target, |owner| &owner.target);
    let connect = || open(database, target, || target.connect_to_migrate(&database.options));
    let serving = Cell::new(None);
    let can_log_in = || {
        let db = database.target.connect(&database.options).ok();
        let is_in = db.is_some();
        serving.set(db);
        is_in
    };
    let access = database
        .owner
        .as_ref()
        .map(|owner| Access { role: &owner.serves, can_log_in: &can_log_in });
    let another = || connect().map_err(Into::into);
    let applied = migrations::apply(&mut connect()?, &another, access)
        .map_err(|e| StartError(format!("migrations: {e}")))?;
    if !applied.is_empty() {
        log::info!("applied migrations: {}", applied.join(", "));
    }
    let serving = serving.take().filter(|_| applied.is_empty());
    Ok((applied, serving))
}

/// Stores the bootstrap key. Without one and without any key, it creates a first key in
/// development, and fails in production.
fn first_key(db: &mut Db, settings: &Settings) -> Result<Option<Token>, StartError> {
    let failed = |error: Error| StartError(format!("keys: {error}"));
    let given = settings.bootstrap_key.as_ref();
    if given.is_none() && keys::exist(db).map_err(failed)? {
        return Ok(None);
    }
    if given.is_none() && settings.environment == Mode::Production {
        let detail = "there is no API key yet: set PROP_BOOTSTRAP_KEY (`prop key generate` prints \
            one) or run `prop key create`";
        return Err(StartError(detail.into()));
    }
    db.write(|db| keys::bootstrap(db, given)).map_err(failed)
}

/// Says that a rotated bootstrap key is still valid.
fn warn_of_old_keys(db: &mut Db) -> Result<(), StartError> {
    let valid = keys::valid_bootstrap_keys(db).map_err(|e| StartError(format!("keys: {e}")))?;
    if valid > 1 {
        log::warn!(
            "{valid} bootstrap keys are valid: a new PROP_BOOTSTRAP_KEY does not revoke the one \
             before. Revoke those that are not used any more: `prop key list`, `prop key revoke`"
        );
    }
    Ok(())
}

/// Derives the places of a ledger that an earlier version kept in another way, one after another.
/// What fails is tried again after a minute.
async fn derive_places(db: Database) {
    let started = Instant::now();
    let (mut places, mut changed) = (0, 0);
    loop {
        let found = db.read(|db| backfill::pending(db).map_err(Error::from)).await;
        let mut has_failed = found.is_err();
        let pending = found.unwrap_or_else(|error| {
            log::warn!("the places to derive could not be read: {error}");
            Vec::new()
        });
        for (service, environment) in pending {
            match derive_place(&db, &service, &environment).await {
                Ok(deployments) => (places, changed) = (places + 1, changed + deployments),
                Err(error) => {
                    has_failed = true;
                    log::warn!("{service}/{environment} was not derived again: {error}");
                }
            }
        }
        if !has_failed {
            break;
        }
        actix_web::rt::time::sleep(Duration::from_secs(60)).await;
    }
    if places > 0 {
        let seconds = started.elapsed().as_secs();
        log::info!(
            "derived {places} places of this ledger again in {seconds} s: \
             {changed} deployments changed"
        );
    }
}

/// Derives one of these places, and returns how many of its deployments changed.
async fn derive_place(db: &Database, service: &str, environment: &str) -> Result<usize, Error> {
    let mut changed = 0;
    loop {
        let (service, environment) = (service.to_owned(), environment.to_owned());
        let step = db.write(move |db| backfill::derive(db, &service, &environment)).await?;
        changed += step.0;
        if step.1 {
            return Ok(changed);
        }
    }
}

/// Deletes expired idempotency keys and ends deployments that waited too long, at start and then
/// every hour, and derives old places. One after the other at the start, so that the first requests
/// do not wait for new connections.
async fn work_beside_requests(db: Database) {
    forget_expired(&db).await;
    expire_deployments(&db).await;
    actix_web::rt::spawn(derive_places(db.clone()));
    loop {
        actix_web::rt::time::sleep(Duration::from_secs(3600)).await;
        forget_expired(&db).await;
        expire_deployments(&db).await;
    }
}

/// Ends deployments that waited too long, so that those who read deployments find few of them.
async fn expire_deployments(db: &Database) {
    loop {
        match db.write(expiry::expire_some).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return log::warn!("deployments did not expire: {error}"),
        }
    }
}

/// Deletes expired idempotency keys with their stored answers.
async fn forget_expired(db: &Database) {
    match db.write(idempotency::forget_expired).await {
        Ok(count) => log::debug!("deleted {count} expired idempotency keys"),
        Err(error) => log::warn!("expired idempotency keys were not deleted: {error}"),
    }
}
