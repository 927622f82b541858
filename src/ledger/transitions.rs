//! State changes of a deployment, and their effects on the other deployments of the place.

use actix_web::{post, web};
use diesel::prelude::*;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use std::borrow::Cow;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::Db;
use crate::db::schema::deployments;
use crate::db::types::{Json, Timestamp};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Deploy};
use crate::http::extract::Body;
use crate::http::reply::Reply;
use crate::ledger::deployments::{
    Deployment, DeploymentWithDecision, GITHUB, advance, awaiting, expire, find, live_in,
    log_outcome, running_in,
};
use crate::ledger::environments::Environment;
use crate::ledger::gate::{self, Ruling};
use crate::ledger::releases::Release;
use crate::ledger::values::{Prose, text};
use crate::ledger::{events, services};
use crate::rules::lifecycle::{self, By, Kind, Move, Report, State};
use crate::types::ids::DeploymentId;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(make_transition);
}

/// A change of the state of a deployment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"to": "succeeded"}))]
pub struct Transition {
    /// The new state: `running`, `succeeded`, `failed` or `cancelled`. prop itself sets all other states.
    #[serde(deserialize_with = "target")]
    pub to: State,
    /// Why the state changes. May be absent or `null`.
    pub reason: Option<Prose>,
    /// Whether the change has happened anyway, whatever the gate decides. A start is then recorded,
    /// with `ungated` set if the gate blocks it. It is not observed, if absent.
    #[serde(default)]
    pub observed: bool,
    /// When an observed change happened. Now, if absent or `null`. The history also has the time of
    /// the report.
    pub at: Option<Timestamp>,
}

/// Reads the new state. The error for an unknown word lists the states that a client may send.
fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
    let word = Cow::<str>::deserialize(deserializer)?;
    let state = word.parse::<State>().or_else(|_| word.parse::<Report>().map(State::from));
    state.map_err(serde::de::Error::custom)
}

/// Change the state of a deployment
///
/// Starts a deployment, or reports its end, and answers the deployment. A repeat with the current
/// state answers 200 and changes nothing. Fails with 409 (`invalid_transition`) and the possible
/// `moves` when the deployment cannot get this state, and with 409 (`gate_blocked`) and all reasons
/// when the gate blocks the start.
#[utoipa::path(tag = "deployments", operation_id = "move_deployment", security(("key" = ["deploy"])), request_body = Transition,
    params(("id" = DeploymentId, Path, description = "The identifier of the deployment.")), responses((status = 200, description = "The deployment in its new state.", body = DeploymentWithDecision, headers(("ETag" = String)))))]
#[post("/deployments/{id}/transitions")]
async fn make_transition(
    ctx: Ctx<Deploy>,
    id: web::Path<DeploymentId>,
    body: Body<Transition>,
) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let found = transition(db, actor, *id, body.0)?;
        Ok(Reply::ok(&found)?.at_revision(found.deployment.revision))
    })
    .await
}

/// When a change happened. Only an observed change may name an earlier time; all others happen now.
///
/// # Errors
/// `invalid_value` when `at` is set without `observed`, or is in the future.
pub fn observed_at(
    observed: bool,
    at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Timestamp, Error> {
    match at {
        None => Ok(now),
        Some(_) if !observed => Err(Error::field(
            Code::InvalidValue,
            "/at",
            "is for what was observed; all else happens now",
        )),
        Some(at) if at > now => Err(Error::field(Code::InvalidValue, "/at", "is in the future")),
        Some(at) => Ok(at),
    }
}

/// Changes the state of a deployment as a caller requested.
///
/// # Errors
/// `not_found`, `invalid_transition`, or `gate_blocked` for a start.
pub fn transition(
    db: &mut Db,
    actor: &Actor,
    id: DeploymentId,
    asked: Transition,
) -> Result<DeploymentWithDecision, Error> {
    // The service of a deployment never changes. Everything else is read under the lock.
    let service: Option<String> =
        deployments::table.find(id).select(deployments::service).first(db).optional()?;
    services::lock(db, &service.ok_or_else(|| Error::not_found("deployment", id))?)?;
    let actor = &actor.afresh();
    let at = observed_at(asked.observed, asked.at, actor.now)?;
    let found = find(db, id)?;
    let state_before = found.deployment.state;
    let mut deployment = expire(db, found.deployment, actor.now)?;
    let has_expired = deployment.state != state_before;
    // The gate reports missing approvals with its reasons. If none is missing, a start from
    // `awaiting_approval` makes both changes at once.
    let is_start = asked.to == State::Running && deployment.state == State::AwaitingApproval;
    let from = if is_start { State::Approved } else { deployment.state };
    deployment = match lifecycle::decide(from, asked.to, By::Caller) {
        Move::None => deployment,
        Move::To(State::Running) => start(db, actor, deployment, &asked, at)?,
        Move::To(to) => {
            if to == State::Succeeded {
                retire_live(db, actor, &mut deployment, at)?;
            }
            advance(db, actor, deployment, to, at, text(asked.reason))?
        }
        Move::Refused(moves) => {
            let refusal =
                Error::new(Code::InvalidTransition, no_such_move(deployment.state, moves))
                    .with("state", deployment.state)
                    .with("moves", moves);
            return Err(if has_expired { refusal.recorded() } else { refusal });
        }
    };
    find(db, deployment.id)
}

/// Why a deployment can't make a move, and what can be done instead.
fn no_such_move(state: State, moves: &[State]) -> String {
    let words: Vec<_> = moves.iter().map(|state| state.as_str()).collect();
    let is = match state {
        State::Succeeded => "has already succeeded",
        State::Failed => "has already failed",
        State::Cancelled => "has already been cancelled",
        State::Rejected => "was rejected",
        State::Expired => "has expired",
        State::Superseded => "was superseded by a later deployment",
        State::RolledBack => "was rolled back",
        _ => {
            let words = words.join(", ");
            return format!("The deployment is {state}. From there it can go to: {words}.");
        }
    };
    let instead = match state {
        State::Succeeded => " To undo it, record a rollback.",
        State::Superseded | State::RolledBack => "",
        _ => " To try again, record a new deployment.",
    };
    format!("The deployment {is} and can't change any more.{instead}")
}

/// Starts a deployment if the gate allows it or the start was observed.
fn start(
    db: &mut Db,
    actor: &Actor,
    deployment: Deployment,
    asked: &Transition,
    at: Timestamp,
) -> Result<Deployment, Error> {
    let (mut deployment, running) = judge(db, actor, deployment, asked.observed)?;
    if deployment.state == State::AwaitingApproval {
        deployment = advance(db, actor, deployment, State::Approved, at, None)?;
    }
    cancel_running(db, actor, &deployment, running)?;
    advance(db, actor, deployment, State::Running, at, text(asked.reason.clone()))
}

/// Asks the gate about a start, and consumes the approvals and overrides that the start uses. Also
/// returns the deployment that is running in the place.
fn judge(
    db: &mut Db,
    actor: &Actor,
    mut deployment: Deployment,
    was_observed: bool,
) -> Result<(Deployment, Option<DeploymentId>), Error> {
    let seen = gate::look(db, &deployment.service, &deployment.environment, &deployment.version)?;
    let (Some(environment), Some(release)) = (&seen.environment, &seen.release) else {
        return Err(Error::internal(format!(
            "deployment {} has no environment or release",
            deployment.id
        )));
    };
    let facts = gate::facts(
        db,
        &seen,
        environment,
        &gate::Candidate::of(release),
        &deployment.asks_to_start(),
        actor.now,
    )?;
    let ruling = Ruling::on(facts, actor.now);
    if !ruling.decision.allowed && !was_observed {
        return Err(gate::refuse(db, actor, &deployment.service, Some(deployment.id), &ruling)?);
    }
    gate::take_overrides(db, deployment.id, &deployment.service, &ruling.facts, actor.now)?;
    gate::use_approvals(db, deployment.id, &ruling.facts)?;
    // The place may have changed since the request.
    deployment.kind = seen.kind(
        deployment.unplanned
            || ruling.facts.incidents.iter().any(|incident| incident.is_fixed_by_this),
    );
    deployment.previous_id = seen.live_id();
    deployment.rollback_of = seen.live_id().filter(|_| deployment.kind == Kind::Rollback);
    deployment.ungated = !ruling.decision.allowed;
    diesel::update(deployments::table.find(deployment.id))
        .set(deployments::decision.eq(Json(ruling.document()?)))
        .execute(db)?;
    Ok((deployment, seen.running()))
}

/// Cancels the running deployment of a place in which another one was observed to run: only one can
/// run at a time.
pub fn cancel_running(
    db: &mut Db,
    actor: &Actor,
    observed: &Deployment,
    running: Option<DeploymentId>,
) -> Result<(), Error> {
    let Some(running) = running else { return Ok(()) };
    let running = find(db, running)?.deployment;
    let reason = format!("deployment {} was observed to run in its place", observed.id);
    advance(db, actor, running, State::Cancelled, actor.now, Some(reason))?;
    Ok(())
}

/// Changes the live deployment to `superseded`, or to `rolled_back` if the new success is its
/// rollback, and stores it as the successor's previous deployment.
fn retire_live(
    db: &mut Db,
    actor: &Actor,
    successor: &mut Deployment,
    at: Timestamp,
) -> Result<(), Error> {
    let Some(live) = live_in(db, &successor.service, &successor.environment)? else {
        return Ok(());
    };
    let state =
        if successor.rollback_of == Some(live.id) { State::RolledBack } else { State::Superseded };
    successor.previous_id = Some(live.id);
    advance(db, actor, live, state, at, None)?;
    Ok(())
}

/// The course of a deployment as a webhook reports it.
pub struct Course {
    /// The state: `running`, or how the deployment ended.
    pub state: State,
    /// When it started. `None` when it has not started.
    pub started_at: Option<Timestamp>,
    /// When it ended. `None` when it has not ended.
    pub finished_at: Option<Timestamp>,
    /// The description of the latest status. `None` when there is none.
    pub reason: Option<String>,
}

/// Sets the reported course of a deployment, whatever state it had, and returns whether that
/// changed anything. A late report does not change what has happened in the place since. The
/// service must be locked.
pub fn correct(
    db: &mut Db,
    actor: &Actor,
    mut deployment: Deployment,
    seen: Course,
) -> Result<(Deployment, bool), Error> {
    let Course { state: mut to, started_at, mut finished_at, mut reason } = seen;
    let running = running_in(db, &deployment.service, &deployment.environment)?
        .filter(|running| running.id != deployment.id);
    let (was_overtaken, ran_after) = match &running {
        Some(running) => (
            running.started_at > started_at,
            started_at.is_some() && running.started_at <= started_at,
        ),
        None => (false, false),
    };
    if let Some(running) = running.as_ref().filter(|_| was_overtaken && to == State::Running) {
        (to, finished_at) = (State::Cancelled, running.started_at);
        reason = Some(format!("deployment {} has started in its place since", running.id));
    }
    let live = live_in(db, &deployment.service, &deployment.environment)?
        .filter(|live| live.id != deployment.id);
    if to == State::Succeeded && live.is_some_and(|live| live.finished_at > finished_at) {
        to = State::Superseded;
    }
    let from = deployment.state;
    let moves = match lifecycle::decide(from, to, By::Witness) {
        Move::To(_) => true,
        Move::None => false,
        Move::Refused(_) => return Ok((deployment, false)),
    };
    let started_at = started_at.or(deployment.started_at);
    let is_same_reason = to == State::Superseded || deployment.reason == reason;
    if !moves
        && deployment.started_at == started_at
        && deployment.finished_at == finished_at
        && is_same_reason
    {
        return Ok((deployment, false));
    }

    let starts = deployment.started_at.is_none() && started_at.is_some();
    if starts && from != State::Requested {
        deployment = judge(db, actor, deployment, true)?.0;
    }
    // A deployment that its own script reports is cancelled only by a success. Anything else that
    // began after it has not replaced it.
    let gives_way = |running: &Deployment| running.source == GITHUB || to.went_live();
    if let Some(running) = running.filter(|running| ran_after && gives_way(running)) {
        cancel_running(db, actor, &deployment, Some(running.id))?;
    }
    if moves && to == State::Succeeded {
        retire_live(db, actor, &mut deployment, finished_at.unwrap_or(actor.now))?;
    }
    (deployment.state, deployment.started_at, deployment.finished_at) =
        (to, started_at, finished_at);
    deployment.revision += 1;
    deployment.expires_at = None;
    if to != State::Superseded {
        deployment.reason = reason.clone();
    }
    diesel::update(deployments::table.find(deployment.id)).set(&deployment).execute(db)?;
    let about = deployment.about();
    let ungated = deployment.ungated;
    if starts || moves && to == State::Running {
        let payload = json!({"from": from, "to": State::Running, "reason": null, "at": started_at, "ungated": ungated});
        events::record(db, actor, &about, "started", payload)?;
    }
    if moves && to != State::Running {
        let from = if starts { State::Running } else { from };
        let payload = json!({"from": from, "to": to, "reason": reason, "at": finished_at, "ungated": ungated});
        events::record(db, actor, &about, to.as_str(), payload)?;
        if started_at.is_some() && !from.is_finished() {
            log_outcome(&deployment);
        }
    }
    if !moves && !starts {
        events::record(
            db,
            actor,
            &about,
            "corrected",
            json!({"started_at": started_at, "finished_at": finished_at, "reason": reason}),
        )?;
    }
    if from == State::Succeeded && to == State::Failed {
        give_back(db, actor, &deployment)?;
    }
    Ok((deployment, true))
}

/// Makes the previous deployment live again after a reported success turned out to be a failure.
fn give_back(db: &mut Db, actor: &Actor, failed: &Deployment) -> Result<(), Error> {
    let Some(previous) = failed.previous_id else { return Ok(()) };
    let mut previous = find(db, previous)?.deployment;
    let from = previous.state;
    if !matches!(from, State::Superseded | State::RolledBack)
        || live_in(db, &failed.service, &failed.environment)?.is_some()
    {
        return Ok(());
    }
    previous.state = State::Succeeded;
    previous.revision += 1;
    diesel::update(deployments::table.find(previous.id)).set(&previous).execute(db)?;
    let reason = format!("deployment {} failed after all", failed.id);
    let payload = json!({"from": from, "to": previous.state, "reason": reason, "at": actor.now, "ungated": previous.ungated});
    events::record(db, actor, &previous.about(), previous.state.as_str(), payload)
}

/// Applies a new approval or rejection to the deployments that wait for it. The service must be
/// locked.
pub fn hear(
    db: &mut Db,
    actor: &Actor,
    release: &Release,
    environment: &Environment,
    approved: bool,
) -> Result<(), Error> {
    for deployment in awaiting(db, release.id, &environment.slug)? {
        let mut deployment = expire(db, deployment, actor.now)?;
        if deployment.state != State::AwaitingApproval {
            continue;
        }
        if !approved {
            advance(db, actor, deployment, State::Rejected, actor.now, None)?;
            continue;
        }
        let seen =
            gate::look(db, &deployment.service, &deployment.environment, &deployment.version)?;
        let facts = gate::facts(
            db,
            &seen,
            environment,
            &gate::Candidate::of(release),
            &deployment.asks_to_start(),
            actor.now,
        )?;
        if Ruling::on(facts, actor.now).is_approved() {
            deployment.expires_at = Some(actor.now.plus(environment.approval_ttl()));
            advance(db, actor, deployment, State::Approved, actor.now, None)?;
        }
    }
    Ok(())
}
