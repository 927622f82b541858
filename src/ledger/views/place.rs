//! Places. A place is one service in one environment: what is live there, and what a rollback would
//! go back to.

use actix_web::web;
use diesel::prelude::*;
use serde::Serialize;
use utoipa::ToSchema;

use crate::db::Db;
use crate::db::columns::ToWord;
use crate::db::kept::Fixed;
use crate::db::schema::deployments;
use crate::each_backend;
use crate::error::Error;
use crate::http::context::{Ctx, Read};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::expiry::{Snapshot, settled};
use crate::ledger::deployments::{Deployment, previous_good};
use crate::ledger::{environments, services};
use crate::rules::lifecycle::State;
use crate::types::values::Slug;

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(show, __path_show);
}

/// How many of the latest deployments `latest` has.
const LATEST: i64 = 10;

/// A place: one service in one environment, with its current and latest deployments.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "service": "checkout", "environment": "production",
    "live": {
        "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout",
        "environment": "production",
        "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2",
        "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
        "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "state": "succeeded", "kind": "normal",
        "unplanned": false, "rollback": false, "requested_by": "pipeline",
        "source": "api", "external_id": null,
        "run_url": "https://ci.example.org/runs/17",
        "reason": null, "previous_id": null, "rollback_of": null,
        "requested_at": "2026-02-03T04:05:06.000000Z",
        "started_at": "2026-02-03T04:05:06.000000Z", "finished_at": "2026-02-03T04:07:00.000000Z",
        "revision": 2, "ungated": false, "expires_at": null, "recorded_by": "pipeline",
        "voided_at": null, "retired_at": null, "before_commit": false
    }, "previous": null, "running": null, "latest": []
}))]
pub struct PlaceView {
    /// The slug of the service.
    service: String,
    /// The slug of the environment.
    environment: String,
    /// The deployment that is live. `null` when nothing is live here.
    live: Option<Deployment>,
    /// The deployment that a rollback would go back to: the latest one that was live here with
    /// another release and was not rolled back itself. One that went live through the gate comes
    /// before all that did not. `null` when there is none.
    previous: Option<Deployment>,
    /// The deployment that is being rolled out. `null` when none is.
    running: Option<Deployment>,
    /// The ten latest deployments in any state, the newest first.
    latest: Vec<Deployment>,
}

/// Read a place
///
/// A place is one service in one environment. Answers the live deployment, the one that a rollback
/// would go back to, the one that is being rolled out, and the ten latest. Fails with 404 when the
/// service or the environment does not exist.
#[utoipa::path(get, path = "/services/{service}/environments/{environment}",
    tag = "status", operation_id = "get_place", security(("key" = ["read"])),
    params(
        ("service" = Slug, Path, description = "The slug of the service."),
        ("environment" = Slug, Path, description = "The slug of the environment.")),
    responses((status = 200, description = "The place with its deployments.", body = PlaceView,
        headers(("ETag" = String)))))]
async fn show(ctx: Ctx<Read>, path: web::Path<(Slug, Slug)>) -> Result<Reply, Error> {
    settled(&ctx, async || {
        let (service, environment) = path.clone();
        ctx.read(move |db| {
            let place = load_place(db, &service, &environment)?;
            let is_overdue = place.latest.iter().any(Deployment::is_overdue);
            Ok(Snapshot { reply: Reply::ok(&place)?.tagged(), is_overdue })
        })
        .await
    })
    .await
}

/// Loads a place with at most three queries, each by an index, whatever the length of the history.
/// An empty place needs two more, which check that the service and the environment exist.
fn load_place(db: &mut Db, service: &str, environment: &str) -> Result<PlaceView, Error> {
    let here = || {
        deployments::table
            .filter(deployments::service.eq(service))
            .filter(deployments::environment.eq(environment))
    };
    let latest: Vec<Deployment> = each_backend!(db, |c| {
        let latest_first = (deployments::requested_at.desc(), deployments::id.desc());
        here().select(Deployment::as_select()).order(latest_first).limit(LATEST).load(c)
    })?;
    if latest.is_empty() {
        services::find(db, service)?;
        environments::find(db, environment)?;
    }
    struct CurrentHere;
    let is_current = deployments::state
        .eq(State::Succeeded.word())
        .or(deployments::state.eq(State::Running.word()));
    let current: Vec<Deployment> = each_backend!(db, |c| {
        let current = here().filter(is_current).select(Deployment::as_select());
        Fixed::new(current, CurrentHere).load(c)
    })?;
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
