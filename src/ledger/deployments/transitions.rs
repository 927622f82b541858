//! State changes of a deployment: its start, its end, and the reviews that it waits for.

use actix_web::{post, web};
use diesel::prelude::*;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use utoipa::ToSchema;

use crate::db::Db;
use crate::db::schema::deployments;
use crate::error::{Code, Error};
use crate::http::context::{Actor, Author, Ctx, Deploy};
use crate::http::extract::Body;
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::expiry::expire;
use crate::ledger::deployments::gate::{self, Consumed, Evaluation, GateRequest};
use crate::ledger::deployments::store::{self, Change, Fact, advance};
use crate::ledger::deployments::{Deployment, DeploymentWithDecision, find, in_state};
use crate::ledger::environments::Environment;
use crate::ledger::releases::Release;
use crate::ledger::services;
use crate::ledger::times::reported_time;
use crate::rules::gate::Reviewed;
use crate::rules::lifecycle::{self, By, Move, Report, State};
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;
use crate::types::values::{LongText, Slug};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.service(make_transition);
}

/// A change of the state of a deployment.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"to": "succeeded"}))]
pub struct Transition {
    /// The new state: `running`, `succeeded`, `failed` or `cancelled`. prop itself sets all other
    /// states.
    #[serde(deserialize_with = "target")]
    pub to: State,
    /// Why the state changes. May be absent or `null`.
    pub reason: Option<LongText>,
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
#[utoipa::path(tag = "deployments", operation_id = "move_deployment",
    security(("key" = ["deploy"])), request_body = Transition,
    params(("id" = DeploymentId, Path, description = "The identifier of the deployment.")),
    responses(
        (status = 200, description = "The deployment in its new state.",
            body = DeploymentWithDecision, headers(("ETag" = String))),
        (status = 422, description = "The body is malformed, or `at` is there without `observed`, \
            before the start, or more than a minute in the future (`invalid_value`).")))]
#[post("/deployments/{id}/transitions")]
async fn make_transition(
    ctx: Ctx<Deploy>,
    id: web::Path<DeploymentId>,
    body: Body<Transition>,
) -> Result<Reply, Error> {
    ctx.post(move |db, author| {
        let found = transition(db, author, *id, body.0.clone())?;
        Ok(Reply::ok(&found)?.at_revision(found.deployment.revision))
    })
    .await
}

/// When a change happened. Only an observed change may name an earlier time; all others happen now.
///
/// # Errors
/// `invalid_value` when `at` is set without `observed`, or is more than a minute in the future.
pub fn observed_at(
    observed: bool,
    at: Option<Timestamp>,
    pointer: &str,
    now: Timestamp,
) -> Result<Timestamp, Error> {
    let invalid = |detail| Err(Error::field(Code::InvalidValue, pointer, detail));
    match at {
        None => Ok(now),
        Some(_) if !observed => invalid("is for what was observed; all else happens now"),
        Some(at) => reported_time(at, pointer, now),
    }
}

/// Changes the state of a deployment as a caller requested.
///
/// # Errors
/// `not_found`, `invalid_transition`, `invalid_value` for an end before the start, or
/// `gate_blocked` for a start.
pub fn transition(
    db: &mut Db,
    author: &Author,
    id: DeploymentId,
    request: Transition,
) -> Result<DeploymentWithDecision, Error> {
    // The service of a deployment never changes. Everything else is read under the lock.
    let service: Option<Slug> =
        deployments::table.find(id).select(deployments::service).first(db).optional()?;
    let service = service.ok_or_else(|| Error::not_found("deployment", id))?;
    let actor = &services::lock_known(db, author, &service)?;
    let at = observed_at(request.observed, request.at, "/at", actor.now)?;
    let found = find(db, id)?;
    let state_before = found.deployment.state;
    let deployment = expire(db, found.deployment, actor.now)?;
    let has_expired = deployment.state != state_before;
    let from = match deployment.reported_state() {
        // The gate reports missing approvals with its reasons. If none is missing, a start from
        // `awaiting_approval` makes both changes at once.
        State::AwaitingApproval if request.to == State::Running => State::Approved,
        state => state,
    };
    match lifecycle::decide(from, request.to, By::Caller) {
        _ if request.to == deployment.state => {}
        Move::None => {}
        Move::To(State::Running) => start(db, actor, deployment, &request, at)?,
        Move::To(_) if deployment.started_at.is_some_and(|start| at < start) => {
            return Err(Error::field(
                Code::InvalidValue,
                "/at",
                "is before the deployment started",
            ));
        }
        Move::To(to) => {
            advance(db, actor, deployment, to, at, request.reason.map(Into::into))?;
        }
        Move::Refused(moves) => {
            let refusal =
                Error::new(Code::InvalidTransition, no_such_move(deployment.state, moves))
                    .with("state", deployment.state)
                    .with("moves", moves);
            return Err(if has_expired { refusal.recorded() } else { refusal });
        }
    }
    find(db, id)
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

/// Starts a deployment, if the gate allows it or it was observed.
fn start(
    db: &mut Db,
    actor: &Actor,
    before: Deployment,
    request: &Transition,
    at: Timestamp,
) -> Result<(), Error> {
    let evaluation = evaluate_start(db, actor, &before, request.observed)?;
    let now = Deployment {
        state: State::Running,
        started_at: Some(at),
        expires_at: None,
        reason: request.reason.clone().map(Into::into),
        ungated: !evaluation.decision.allowed,
        image_added_later: false,
        ..before.clone()
    };
    let facts: &[Fact] = match before.state {
        State::AwaitingApproval => &[Fact::Approved, Fact::Started],
        _ => &[Fact::Started],
    };
    let decision = Some(evaluation.document()?);
    store::save(db, actor, Change { before: &before, now, decision, facts })?;
    Ok(())
}

/// Evaluates the gate for a start, and consumes the approvals and overrides that it takes.
pub fn evaluate_start(
    db: &mut Db,
    actor: &Actor,
    deployment: &Deployment,
    was_observed: bool,
) -> Result<Evaluation, Error> {
    let snapshot =
        gate::load_snapshot(db, &deployment.service, &deployment.environment, &deployment.version)?;
    let (Some(environment), Some(release)) = (&snapshot.environment, &snapshot.release) else {
        return Err(Error::internal(format!(
            "deployment {} has no environment or release",
            deployment.id
        )));
    };
    let candidate = gate::Candidate::of(release);
    let request = GateRequest::to_start(deployment);
    let mut facts = gate::facts(db, &snapshot, environment, &candidate, &request, actor.now)?;
    if was_observed {
        // At most one rollout runs that was asked for. What happened is ordered by the timeline.
        facts.running = None;
    }
    let evaluation = Evaluation::of(facts, actor.now);
    if !evaluation.decision.allowed && !was_observed {
        return Err(gate::refuse(
            db,
            actor,
            &deployment.service,
            Some(deployment.id),
            &evaluation,
        )?);
    }
    let (id, facts) = (deployment.id, &evaluation.facts);
    let overrides = gate::consume_overrides(db, id, facts, actor.now)?;
    let approvals = gate::consume_reviews(db, id, facts)?;
    Consumed { approvals, overrides }.record(db, actor, deployment, "consumed")?;
    Ok(evaluation)
}

/// Applies a review that was recorded or completed to the deployments that have not started. A
/// rejection that came before the last approval rejects nothing. The service must be locked.
pub fn apply_review(
    db: &mut Db,
    actor: &Actor,
    release: &Release,
    environment: &Environment,
    is_rejection: bool,
) -> Result<(), Error> {
    // Both lists are read first: what is taken back must not be rejected as well.
    let waiting = in_state(db, release.id, &environment.slug, State::AwaitingApproval)?;
    let cleared = in_state(db, release.id, &environment.slug, State::Approved)?;
    for deployment in waiting {
        let mut deployment = expire(db, deployment, actor.now)?;
        if deployment.state != State::AwaitingApproval {
            continue;
        }
        match reviewed(db, actor, release, environment, &deployment)? {
            Reviewed::Rejected if is_rejection => {
                advance(db, actor, deployment, State::Rejected, actor.now, None)?;
            }
            Reviewed::Approved => {
                deployment.expires_at = Some(actor.now.plus(environment.approval_ttl()));
                advance(db, actor, deployment, State::Approved, actor.now, None)?;
            }
            Reviewed::Rejected | Reviewed::Missing => {}
        }
    }
    for deployment in cleared {
        let mut deployment = expire(db, deployment, actor.now)?;
        if deployment.state == State::Approved
            && reviewed(db, actor, release, environment, &deployment)? != Reviewed::Approved
        {
            deployment.expires_at = Some(actor.now.plus(environment.approval_ttl()));
            let reason = deployment.reason.clone();
            advance(db, actor, deployment, State::AwaitingApproval, actor.now, reason)?;
        }
    }
    Ok(())
}

/// What the reviews come to for a deployment that has not started.
fn reviewed(
    db: &mut Db,
    actor: &Actor,
    release: &Release,
    environment: &Environment,
    deployment: &Deployment,
) -> Result<Reviewed, Error> {
    let snapshot =
        gate::load_snapshot(db, &deployment.service, &deployment.environment, &deployment.version)?;
    let candidate = gate::Candidate::of(release);
    let request = GateRequest::to_start(deployment);
    let facts = gate::facts(db, &snapshot, environment, &candidate, &request, actor.now)?;
    Ok(Evaluation::of(facts, actor.now).reviewed())
}
