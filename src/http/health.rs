//! The endpoints about the server process: health and version.

use actix_web::web;
use serde::Serialize;
use std::sync::atomic::Ordering;
use utoipa::ToSchema;

use crate::db::migrations;
use crate::error::{Code, Error};
use crate::http::idempotency;
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::http::state::State;

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config
        .add(livez, __path_livez)
        .add(readyz, __path_readyz)
        .add(health, __path_health)
        .add(version, __path_version);
}

/// The answer of a healthy process.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"status": "ok"}))]
struct Health {
    /// Always `ok`. A process that is not healthy answers with an error instead.
    status: &'static str,
}

/// Check that the process is alive
///
/// Answers as long as the process can answer at all. It does not use the database: restarting prop
/// does not help when the database is down. Needs no key.
#[utoipa::path(get, path = "/livez",
    tag = "operations", operation_id = "livez",
    responses((status = 200, body = Health)))]
async fn livez() -> Result<Reply, Error> {
    Reply::ok(&Health { status: "ok" })
}

/// Check that requests can be served
///
/// Answers 200 when the database answers, takes writes as far as is known, and has all migrations
/// of this version, and the process is not shutting down; else 503. Needs no key.
#[utoipa::path(get, path = "/readyz",
    tag = "operations", operation_id = "readyz",
    responses((status = 200, body = Health)))]
async fn readyz(state: web::Data<State>) -> Result<Reply, Error> {
    ready(&state).await
}

/// Check that requests can be served (alias)
///
/// The same as `/readyz`, for load balancers that use this path. Needs no key.
#[utoipa::path(get, path = "/health",
    tag = "operations", operation_id = "health",
    responses((status = 200, body = Health)))]
async fn health(state: web::Data<State>) -> Result<Reply, Error> {
    ready(&state).await
}

async fn ready(state: &State) -> Result<Reply, Error> {
    if state.draining.load(Ordering::Relaxed) {
        return Err(Error::new(
            Code::ShuttingDown,
            "This server is shutting down. Send the request to another one.",
        ));
    }
    let pending = state
        .db
        .read(|db| {
            migrations::is_pending(db)
                .map_err(|_| Error::from(crate::db::pool::Unavailable::Unreachable))
        })
        .await?;
    if state.db.cannot_write() {
        // Whether it still cannot. Nobody sends writes to a server that is not ready.
        state.db.write(idempotency::try_to_write).await?;
    }
    if pending {
        return Err(Error::new(
            Code::NotReady,
            "The database is missing migrations of this version. Apply them with `prop migrate`.",
        ));
    }
    Reply::ok(&Health { status: "ok" })
}

/// The version of prop that is running.
// Not called `Version`: in the document, that is the version of a release.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "version": "0.1.0", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
}))]
pub struct Build {
    /// The version of prop, as in `Cargo.toml`.
    pub version: &'static str,
    /// The git commit that prop was built from, or `unknown`.
    pub git_sha: &'static str,
    /// The digest of the image that prop runs in. `null` when the setting `image_digest` is not
    /// set.
    pub image_digest: Option<String>,
}

/// Read the version of prop
///
/// Answers the version, the commit and the image of the running process. Needs no key.
#[utoipa::path(get, path = "/version",
    tag = "operations", operation_id = "version",
    responses((status = 200, body = Build)))]
async fn version(state: web::Data<State>) -> Result<Reply, Error> {
    Reply::ok(&Build {
        version: env!("CARGO_PKG_VERSION"),
        git_sha: env!("BUILD_GIT_SHA"),
        image_digest: state.image_digest.clone(),
    })
}
