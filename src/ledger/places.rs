//! A place: one service in one environment, with what is live there and what to roll back to.

use actix_web::{get, web};
use diesel::prelude::*;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::Db;
use crate::db::schema::deployments;
use crate::error::Error;
use crate::http::context::{Ctx, Read};
use crate::http::reply::Reply;
use crate::ledger::deployments::{Deployment, previous_good, settled};
use crate::ledger::values::Slug;
use crate::ledger::{environments, services};
use crate::rules::lifecycle::State;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(show);
}

/// How many of the latest deployments are shown.
const LATEST: i64 = 10;

/// One service in one environment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "service": "checkout", "environment": "production",
    "live": {
        "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout", "environment": "production",
        "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
        "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "state": "succeeded", "kind": "normal",
        "unplanned": false, "requested_by": "pipeline", "source": "api", "external_id": null, "run_url": "https://ci.example.org/runs/17",
        "reason": null, "previous_id": null, "rollback_of": null, "requested_at": "2026-02-03T04:05:06.000000Z",
        "started_at": "2026-02-03T04:05:06.000000Z", "finished_at": "2026-02-03T04:07:00.000000Z", "revision": 2, "ungated": false, "expires_at": null, "recorded_by": "pipeline"
    }, "previous": null, "running": null, "latest": []
}))]
pub struct PlaceView {
    service: String,
    environment: String,
    /// What is live.
    live: Option<Deployment>,
    /// What a rollback goes back to: the latest other release that was live here and was not itself rolled back.
    previous: Option<Deployment>,
    /// What is being rolled out.
    running: Option<Deployment>,
    /// The last ten, the newest first.
    latest: Vec<Deployment>,
}

/// What runs in a place
///
/// The live deployment, the one to roll back to, the running one, and the last ten.
#[utoipa::path(tag = "status", operation_id = "get_place", security(("key" = ["read"])),
    params(("service" = Slug, Path, description = "The service."), ("environment" = Slug, Path, description = "The environment.")),
    responses((status = 200, body = PlaceView, headers(("ETag" = String)))))]
#[get("/services/{service}/environments/{environment}")]
async fn show(ctx: Ctx<Read>, path: web::Path<(Slug, Slug)>) -> Result<Reply, Error> {
    let (service, environment) = path.into_inner();
    let is_overdue = |view: &PlaceView| view.latest.iter().any(Deployment::is_overdue);
    let view = settled(&ctx, move |db| look(db, &service, &environment), is_overdue).await?;
    Ok(Reply::ok(&view)?.tagged())
}

/// Three queries at most, each by an index, whatever the size of the history; two more to tell an empty place from none.
fn look(db: &mut Db, service: &str, environment: &str) -> Result<PlaceView, Error> {
    let here = || {
        deployments::table
            .filter(deployments::service.eq(service))
            .filter(deployments::environment.eq(environment))
    };
    let latest: Vec<Deployment> = here()
        .select(Deployment::as_select())
        .order((deployments::requested_at.desc(), deployments::id.desc()))
        .limit(LATEST)
        .load(db)?;
    if latest.is_empty() {
        services::find(db, service)?;
        environments::find(db, environment)?;
    }
    let is_current = deployments::state
        .eq(State::Succeeded.word())
        .or(deployments::state.eq(State::Running.word()));
    let current: Vec<Deployment> =
        here().filter(is_current).select(Deployment::as_select()).load(db)?;
    let (live, running): (Vec<_>, Vec<_>) =
        current.into_iter().partition(|deployment| deployment.state == State::Succeeded);
    let live = live.into_iter().next();
    let previous = match &live {
        Some(live) => previous_good(db, live)?,
        None => None,
    };
    Ok(PlaceView {
        service: service.to_owned(),
        environment: environment.to_owned(),
        live,
        previous,
        running: running.into_iter().next(),
        latest,
    })
}
