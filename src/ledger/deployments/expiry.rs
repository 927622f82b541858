//! Expires deployments that waited too long for their approvals or their start.

use diesel::prelude::*;

use crate::db::Db;
use crate::db::columns::ToWord;
use crate::db::schema::deployments;
use crate::error::Error;
use crate::http::context::{Author, Ctx, Requires};
use crate::http::response::Reply;
use crate::ledger::deployments::{Deployment, store};
use crate::ledger::services;
use crate::rules::lifecycle::State;
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
/// So expiry needs no background job, and any number of processes may read at the same time. The
/// job that there is only keeps these deployments few.
pub async fn settled<S: Requires>(
    ctx: &Ctx<S>,
    read: impl AsyncFn() -> Result<Snapshot, Error>,
) -> Result<Reply, Error> {
    let found = read().await?;
    if !found.is_overdue {
        return Ok(found.reply);
    }
    expire_overdue(ctx).await?;
    Ok(read().await?.reply)
}

/// Expires all deployments that have waited too long, a few in each transaction.
pub async fn expire_overdue<S: Requires>(ctx: &Ctx<S>) -> Result<(), Error> {
    while ctx.write(|db, _| expire_some(db)).await? {}
    Ok(())
}

/// How many deployments expire in one transaction, so that nobody waits long for the lock of their
/// service.
const AT_ONCE: i64 = 100;

/// Expires deployments of one service that have waited too long: that of the one whose time came
/// first. Returns whether there may be more. The clock of this process only proposes them; the time
/// of the service's lock decides.
///
/// # Errors
/// That the database is unavailable.
pub fn expire_some(db: &mut Db) -> Result<bool, Error> {
    let waiting = || {
        let is_waiting = deployments::state
            .eq(State::AwaitingApproval.word())
            .or(deployments::state.eq(State::Approved.word()));
        deployments::table.filter(is_waiting).order(deployments::expires_at)
    };
    let first: Option<(Slug, Option<Timestamp>)> = waiting()
        .filter(deployments::expires_at.le(Timestamp::now()))
        .select((deployments::service, deployments::expires_at))
        .first(db)
        .optional()?;
    let Some((service, expires_at)) = first else { return Ok(false) };
    let now = services::lock(db, &service)?.now;
    let overdue: Vec<Deployment> = waiting()
        .filter(deployments::service.eq(service))
        .filter(deployments::expires_at.le(now))
        .select(Deployment::as_select())
        .limit(AT_ONCE)
        .load(db)?;
    store::expire(db, &Author::prop().at(now), overdue)?;
    // If it has expired, then here or in a transaction that held the lock before.
    Ok(expires_at <= Some(now))
}

/// Expires the deployment if it has waited too long, and returns it. The service must be locked.
pub fn expire(db: &mut Db, deployment: Deployment, now: Timestamp) -> Result<Deployment, Error> {
    if !deployment.is_overdue_at(now) {
        return Ok(deployment);
    }
    store::advance(db, &Author::prop().at(now), deployment, State::Expired, now, None)
}
