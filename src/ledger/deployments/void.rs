//! Declaring a deployment void: what was reported of it did not happen.

use actix_web::web;
use diesel::prelude::*;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::db::Db;
use crate::db::schema::deployments;
use crate::error::Error;
use crate::http::context::{Author, Ctx, Operate};
use crate::http::extract::Body;
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::gate;
use crate::ledger::deployments::store::{self, Change, Fact};
use crate::ledger::deployments::{Deployment, DeploymentWithDecision, find};
use crate::ledger::services;
use crate::rules::lifecycle::State;
use crate::types::ids::DeploymentId;
use crate::types::values::{LongText, Slug};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(declare_void, __path_declare_void);
}

/// Why a deployment counts for nothing.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "The nightly job took the environment for its secrets and \
    deployed nothing."}))]
pub struct Void {
    /// What was wrong with the report. The history keeps it.
    pub reason: LongText,
}

/// Declare a deployment void
///
/// For a deployment that did not take place: a job that deployed nothing, a run that was repeated
/// by mistake. From then on it counts for nothing: what was live in its place, the kinds of later
/// deployments and the measures are derived again without it, and the approvals and overrides that
/// it consumed are released. The deployment and its history stay, with the state `cancelled` and
/// `voided_at` set. A void deployment that is declared void again answers 200 and changes nothing.
#[utoipa::path(post, path = "/deployments/{id}/void",
    tag = "deployments", operation_id = "void_deployment",
    security(("key" = ["operate"])), request_body = Void,
    params(("id" = DeploymentId, Path, description = "The identifier of the deployment.")),
    responses((status = 200, body = DeploymentWithDecision, headers(("ETag" = String)))))]
async fn declare_void(
    ctx: Ctx<Operate>,
    id: web::Path<DeploymentId>,
    body: Body<Void>,
) -> Result<Reply, Error> {
    ctx.post(move |db, author| {
        let found = void(db, author, *id, body.0.reason.clone())?;
        Ok(Reply::ok(&found)?.at_revision(found.deployment.revision))
    })
    .await
}

fn void(
    db: &mut Db,
    author: &Author,
    id: DeploymentId,
    reason: LongText,
) -> Result<DeploymentWithDecision, Error> {
    let service: Option<Slug> =
        deployments::table.find(id).select(deployments::service).first(db).optional()?;
    let service = service.ok_or_else(|| Error::not_found("deployment", id))?;
    let actor = &services::lock_known(db, author, &service)?;
    let before = find(db, id)?.deployment;
    if before.voided_at.is_some() {
        return find(db, id);
    }
    let now = Deployment {
        state: State::Cancelled,
        voided_at: Some(actor.now),
        expires_at: None,
        reason: Some(reason.into()),
        ..before.clone()
    };
    gate::release_consumed(db, actor, &before)?;
    let facts = &[Fact::Voided];
    store::save(db, actor, Change { before: &before, now, decision: None, facts })?;
    find(db, id)
}
