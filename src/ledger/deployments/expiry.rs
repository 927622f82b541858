//! Expires deployments that waited too long for their approvals or their start.

use diesel::prelude::*;

use crate::db::Db;
use crate::db::columns::ToWord;
use crate::db::schema::deployments;
use crate::error::Error;
use crate::http::context::{Author, Ctx, Requires};
use crate::ledger::deployments::{Deployment, find, store};
use crate::ledger::services;
use crate::rules::lifecycle::State;
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;
use crate::types::values::Slug;

/// Reads deployments. If one of them should have expired, expires it and reads again.
///
/// So expiry needs no background job, and any number of processes may read at the same time.
pub async fn settled<S: Requires, T: Send + 'static>(
    ctx: &Ctx<S>,
    read: impl FnMut(&mut Db) -> Result<T, Error> + Send + Clone + 'static,
    is_overdue: impl Fn(&T) -> bool,
) -> Result<T, Error> {
    let found = ctx.read(read.clone()).await?;
    if !is_overdue(&found) {
        return Ok(found);
    }
    ctx.write(|db, _| expire_overdue(db)).await?;
    ctx.read(read).await
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
