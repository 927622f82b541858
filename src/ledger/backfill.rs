//! Derives the places of an existing ledger from their facts, once.
//!
//! An earlier version kept each place report by report, so the order of the reports decided what
//! was live and what replaced what. `derived_places` lists the places that existed at the upgrade.
//! Each is derived in a transaction of its own, so that this can be interrupted and goes on at the
//! next start, in any number of processes. A place of which very much changes takes several.

use diesel::dsl::exists;
use diesel::prelude::*;

use crate::db::Db;
use crate::db::schema::derived_places;
use crate::error::Error;
use crate::http::context::Author;
use crate::ledger::deployments::{Deployment, store};
use crate::ledger::github::apply;
use crate::ledger::services;
use crate::rules::lifecycle::State;
use crate::rules::timeline::Outcome;

/// The places, each a service and an environment, that are still to be derived.
pub fn pending(db: &mut Db) -> QueryResult<Vec<(String, String)>> {
    derived_places::table
        .filter(derived_places::derived_at.is_null())
        .select((derived_places::service, derived_places::environment))
        .order((derived_places::service, derived_places::environment))
        .load(db)
}

/// Derives a place, if no other process has done it. Returns how many deployments changed, and
/// whether the place is done; otherwise call it again.
///
/// # Errors
/// That of the database. Nothing is changed then, and the place stays on the list.
pub fn derive(db: &mut Db, service: &str, environment: &str) -> Result<(usize, bool), Error> {
    let actor = services::lock_known(db, &Author::prop(), service)?;
    let place = derived_places::table
        .find((service, environment))
        .filter(derived_places::derived_at.is_null());
    if !diesel::select(exists(place)).get_result(db)? {
        return Ok((0, true));
    }
    let (changed, is_complete) = store::derive_place(db, &actor, service, environment, correct)?;
    if is_complete {
        let is_done = derived_places::derived_at.eq(actor.now);
        diesel::update(derived_places::table.find((service, environment)))
            .set(is_done)
            .execute(db)?;
    }
    Ok((changed, is_complete))
}

/// Turns what the earlier version noted of the deployments of a place into facts. It ended what
/// another start overtook, and noted what GitHub reported as gone only in the state.
fn correct(db: &mut Db, deployments: &mut [Deployment]) -> Result<(), Error> {
    let last_start = deployments.iter().filter_map(|row| row.started_at).max();
    for row in deployments.iter_mut() {
        let was_overtaken = row.state == State::Cancelled
            && row.reason.as_deref().is_some_and(is_overtaken)
            && row.started_at < last_start;
        if was_overtaken {
            row.finished_at = None;
        }
    }
    let last_success = deployments
        .iter_mut()
        .filter(|row| row.outcome() == Some(Outcome::Succeeded))
        .max_by_key(|row| (row.finished_at, row.started_at, row.id));
    let Some(last) = last_success.filter(|row| row.state != State::Succeeded) else {
        return Ok(());
    };
    if last.retired_at.is_none() {
        last.retired_at = apply::retired_at(db, last)?;
    }
    Ok(())
}

/// Whether this is the reason that the earlier version gave to what another start overtook.
fn is_overtaken(reason: &str) -> bool {
    let endings = [" was observed to run in its place", " has started in its place since"];
    reason.starts_with("deployment ") && endings.iter().any(|ending| reason.ends_with(ending))
}
