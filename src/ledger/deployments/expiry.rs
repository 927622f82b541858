//! Expires deployments that waited too long for their approvals or their start.

use diesel::prelude::*;

use crate::db::Db;
use crate::db::columns::ToWord;
use crate::db::schema::deployments;
use crate::error::Error;
use crate::http::context::{Author, Ctx, Requires};
use crate::http::response::Reply;
use crate::ledger::deployments::{Deployment, find, store};
use crate::ledger::services;
use crate::rules::lifecycle::State;
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;
use crate::types::values::Slug;

/// The answer to a reader of deployments.
#[derive(Clone)]
pub struct Snapshot {
    /// The deployments as they are in the database.
    pub reply: Reply,
    /// Whether one of them should have expired.
    pub is_overdue: bool,
}

/// Answers what `read` reads of deployments. If one of them should have expired, expires it and
/// reads again.
///
/// So expiry needs no background job, and any number of processes may read at the same time.
pub async fn settled<S: Requires>(
    ctx: &Ctx<S>,
    read: impl AsyncFn() -> Result<Snapshot, Error>,
) -> Result<Reply, Error> {
    let found = read().await?;
    if !found.is_overdue {
        return Ok(found.reply);
    }
    ctx.write(|db, _| expire_overdue(db)).await?;
    Ok(read().await?.reply)
}

/// Expires all deployments that have waited too long. The clock of this process only proposes them;
/// the time of each service's lock decides.
pub fn expire_overdue(db: &mut Db) -> Result<(), Error> {
    let is_waiting = deployments::state
        .eq(State::AwaitingApproval.word())
        .or(deployments::state.eq(State::Approved.word()));
    let overdue: Vec<(Slug, DeploymentId)> = deployments::table
        .filter(is_waiting)
        .filter(deployments::expires_at.le(Timestamp::now()))
        .select((deployments::service, deployments::id))
        .order(deployments::service)
        .load(db)?;
    for (service, id) in overdue {
        let locked = services::lock(db, &service)?;
        let found = find(db, id)?;
        expire(db, found.deployment, locked.now)?;
    }
    Ok(())
}

/// Expires the deployment if it has waited too long, and returns it. The service must be locked.
pub fn expire(db: &mut Db, deployment: Deployment, now: Timestamp) -> Result<Deployment, Error> {
    if !deployment.is_overdue_at(now) {
        return Ok(deployment);
    }
    store::advance(db, &Author::prop().at(now), deployment, State::Expired, now, None)
}
