//! What machines ask about the process itself.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, get, web};
use serde::Serialize;
use std::sync::atomic::Ordering;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::migrations;
use crate::error::{Code, Error};
use crate::http::context::State;
use crate::http::reply::Reply;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(livez).service(readyz).service(health).service(version).service(metrics);
}

/// A process that can do its work.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"status": "ok"}))]
struct Health {
    /// Always `ok`; anything else is a problem.
    status: &'static str,
}

/// Whether the process lives
///
/// Asks nothing else: a database that is away is no reason to restart prop.
#[utoipa::path(tag = "operations", operation_id = "livez", responses((status = 200, body = Health)))]
#[get("/livez")]
async fn livez() -> Result<Reply, Error> {
    Reply::ok(&Health { status: "ok" })
}

/// Whether requests can be served
///
/// The database answers and has every migration of this version, and the process is not about to end.
#[utoipa::path(tag = "operations", operation_id = "readyz", responses((status = 200, body = Health)))]
#[get("/readyz")]
async fn readyz(state: web::Data<State>) -> Result<Reply, Error> {
    ready(&state).await
}

/// The same as `/readyz`, for load balancers that ask here
#[utoipa::path(tag = "operations", operation_id = "health", responses((status = 200, body = Health)))]
#[get("/health")]
async fn health(state: web::Data<State>) -> Result<Reply, Error> {
    ready(&state).await
}

async fn ready(state: &State) -> Result<Reply, Error> {
    if state.draining.load(Ordering::Relaxed) {
        return Err(Error::new(Code::ShuttingDown, "This process ends; ask another one."));
    }
    let pending = state
        .db
        .read(|db| {
            migrations::is_pending(db)
                .map_err(|_| Error::from(crate::db::pool::Unavailable::Unreachable))
        })
        .await?;
    if pending {
        return Err(Error::new(
            Code::NotReady,
            "The database lacks migrations of this version; `prop migrate` applies them.",
        ));
    }
    Reply::ok(&Health { status: "ok" })
}

/// What is running here.
///
/// Not called `Version`: that is a release's in the document.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "version": "0.1.0", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
}))]
pub struct Build {
    /// The version of prop.
    pub version: &'static str,
    /// The commit it was built from.
    pub git_sha: &'static str,
    /// The image it runs in, if it was told.
    pub image_digest: Option<String>,
}

/// Which version runs
#[utoipa::path(tag = "operations", operation_id = "version", responses((status = 200, body = Build)))]
#[get("/version")]
async fn version(state: web::Data<State>) -> Result<Reply, Error> {
    Reply::ok(&Build {
        version: env!("CARGO_PKG_VERSION"),
        git_sha: env!("BUILD_GIT_SHA"),
        image_digest: state.image_digest.clone(),
    })
}

/// Counters for Prometheus
///
/// In the text format 0.0.4: requests by route and status, the queue for the database, statements.
#[utoipa::path(tag = "operations", operation_id = "metrics", responses((status = 200, body = String, content_type = "text/plain")))]
#[get("/metrics")]
async fn metrics(state: web::Data<State>) -> Result<HttpResponse, Error> {
    let text = state.metrics.render(&state.db)?;
    Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body(text))
}
