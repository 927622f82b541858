//! The server that one would write with axum and sqlx instead of prop, to compare prop with.
//!
//! It serves prop's own database: it reads one deployment, lists a place's, and records one, with
//! the same statements as prop or, under `/bare`, with two inserts. As prop, it checks the key of
//! each request, answers JSON and logs each request as a line of JSON. It has none of the rest: no
//! scopes, limits, deadlines, metrics, entity tags, idempotency keys or checks of its input, and
//! its gate only counts what would block.
//!
//! Environment: `DATABASE_URL`, a PostgreSQL database that prop has migrated; `PORT` of 127.0.0.1;
//! `CONNECTIONS` to the database, 10 if absent, as sqlx has it; `CHECKED=no` to use connections
//! without asking the database first whether they still work, as sqlx otherwise does each time.

mod around;
mod deployment;
mod read;
mod record;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::env;
use std::error::Error;
use tokio::net::TcpListener;

use crate::around::Keys;

/// What went wrong with a request.
enum Failure {
    NotFound,
    Blocked,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Blocked => StatusCode::CONFLICT.into_response(),
            Self::Database(error) => {
                tracing::error!(%error, "the database failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

fn routes(pool: PgPool, keys: Keys) -> Router {
    Router::new()
        .route("/v1/deployments/{id}", get(read::one))
        .route("/v1/deployments", get(read::list).post(record::same_statements))
        .route("/bare/deployments", post(record::two_inserts))
        .route_layer(from_fn_with_state(keys, around::check_and_log))
        .route("/readyz", get(async || StatusCode::OK))
        .with_state(pool)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Another thread writes the lines, as in prop.
    let (writer, _flush_at_end) = tracing_appender::non_blocking(std::io::stderr());
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(writer).init();

    let connections = env::var("CONNECTIONS").map_or(Ok(10), |number| number.parse())?;
    let url = env::var("DATABASE_URL")?;
    let is_checked = env::var("CHECKED").as_deref() != Ok("no");
    let options = PgPoolOptions::new().max_connections(connections);
    let pool = options.test_before_acquire(is_checked).connect(&url).await?;
    let keys = Keys::load(&pool).await?;
    let listener = TcpListener::bind(("127.0.0.1", env::var("PORT")?.parse()?)).await?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, routes(pool, keys)).await?;
    Ok(())
}
