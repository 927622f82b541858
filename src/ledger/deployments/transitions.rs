//! State changes of a deployment: its start, its end, and the reviews that it waits for.

use actix_web::web;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use utoipa::ToSchema;

use crate::db::Db;
use crate::db::columns::Json;
use crate::db::locks::Service;
use crate::error::{Code, Error};
use crate::http::context::{Actor, Author, Ctx, Deploy};
use crate::http::extract::Body;
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::affected::{self, Affected, Ending};
use crate::ledger::deployments::expiry::expire;
use crate::ledger::deployments::gate::{self, Consumed, Evaluation, GateRequest};
use crate::ledger::deployments::snapshot::{self, PlaceSnapshot};
use crate::ledger::deployments::store::{self, Change, Fact, Follows, advance, advance_with};
use crate::ledger::deployments::{Deployment, DeploymentWithDecision, in_state};
use crate::ledger::environments::Environment;
use crate::ledger::releases::Release;
use crate::ledger::services;
use crate::ledger::times::reported_time;
use crate::rules::gate::Reviewed;
use crate::rules::lifecycle::{self, By, Move, Report, State};
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;
use crate::types::values::LongText;

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(make_transition, __path_make_transition);
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
#[utoipa::path(post, path = "/deployments/{id}/transitions",
    tag = "deployments", operation_id = "move_deployment",
    security(("key" = ["deploy"])), request_body = Transition,
    params(("id" = DeploymentId, Path, description = "The identifier of the deployment.")),
    responses(
        (status = 200, description = "The deployment in its new state.",
            body = DeploymentWithDecision, headers(("ETag" = String))),
        (status = 422, description = "The body is malformed, or `at` is there without `observed`, \
            before the start, or more than a minute in the future (`invalid_value`).")))]
async fn make_transition(
    ctx: Ctx<Deploy>,
    id: web::Path<DeploymentId>,
    body: Body<Transition>,
) -> Result<Reply, Error> {
    ctx.post_in(Service::OfDeployment(*id), move |db, author| {
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
    let (actor, found, place) = look(db, author, id, request.to)?;
    let (actor, decision) = (&actor, found.decision);
    let at = observed_at(request.observed, request.at, "/at", actor.now)?;
    let state_before = found.deployment.state;
    let deployment = expire(db, found.deployment, actor.now)?;
    let has_expired = deployment.state != state_before;
    let as_found = |deployment| Ok(DeploymentWithDecision { deployment, decision });
    let from = match deployment.reported_state() {
        // The gate reports missing approvals with its reasons. If none is missing, a start from
        // `awaiting_approval` makes both changes at once.
        State::AwaitingApproval if request.to == State::Running => State::Approved,
        state => state,
    };
    match lifecycle::decide(from, request.to, By::Caller) {
        _ if request.to == deployment.state => as_found(deployment),
        Move::None => as_found(deployment),
        Move::To(State::Running) => start(db, actor, deployment, &request, at, place),
        Move::To(_) if deployment.started_at.is_some_and(|start| at < start) => {
            Err(Error::field(Code::InvalidValue, "/at", "is before the deployment started"))
        }
        Move::To(to) => {
            let (reason, follows) = (request.reason.map(Into::into), place.follows());
            as_found(advance_with(db, actor, deployment, to, at, reason, follows)?)
        }
        Move::Refused(moves) => {
            let refusal =
                Error::new(Code::InvalidTransition, no_such_move(deployment.state, moves))
                    .with("state", deployment.state)
                    .with("moves", moves);
            Err(if has_expired { refusal.recorded() } else { refusal })
        }
    }
}

/// The place of a deployment as its move needs it.
enum Place {
    /// For the start.
    Before(Box<PlaceSnapshot>),
    /// For the end.
    After(Vec<Affected>),
}

impl Place {
    /// What follows from an end.
    fn follows(self) -> Follows {
        match self {
            Self::Before(_) => Follows::Unknown,
            Self::After(affected) => Follows::From(affected),
        }
    }
}

/// Loads a deployment and what its move needs in its place, in the lock of the service. A
/// transaction that began without this lock takes it, and looks again.
fn look(
    db: &mut Db,
    author: &Author,
    id: DeploymentId,
    to: State,
) -> Result<(Actor, DeploymentWithDecision, Place), Error> {
    let mut given = None;
    loop {
        let (found, place, now, is_locked) = if to == State::Running {
            let found = snapshot::load_of(db, id, given)?;
            let (found, place) = found.ok_or_else(|| Error::not_found("deployment", id))?;
            let (now, is_locked) = (place.now, place.is_locked);
            (found, Place::Before(Box::new(place)), now, is_locked)
        } else {
            let found = affected::load_ending(db, id, given)?;
            let Ending { found, affected, now, is_locked } =
                found.ok_or_else(|| Error::not_found("deployment", id))?;
            (found, Place::After(affected), now, is_locked)
        };
        if is_locked || given.is_some() {
            return Ok((author.at(now), found, place));
        }
        given = Some(services::lock_known(db, author, &found.deployment.service)?.now);
    }
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
    place: Place,
) -> Result<DeploymentWithDecision, Error> {
    let snapshot = match place {
        Place::Before(snapshot) => *snapshot,
        Place::After(_) => snapshot::of(db, actor, before.id)?,
    };
    let evaluation = evaluate_start(db, actor, &before, &snapshot, request.observed)?;
    let mut now = Deployment {
        state: State::Running,
        started_at: Some(at),
        expires_at: None,
        reason: request.reason.clone().map(Into::into),
        ungated: !evaluation.decision.allowed,
        image_added_later: false,
        ..before.clone()
    };
    // What starts now in a place where nothing runs changes nothing for other deployments, and
    // takes its kind from what is live. Where nothing is, what was live last may have been retired.
    let is_newest = request.at.is_none() && snapshot.running.is_none() && snapshot.live.is_some();
    let follows = if is_newest {
        snapshot.start(&mut now);
        Follows::Nothing
    } else {
        Follows::Unknown
    };
    let facts: &[Fact] = match before.state {
        State::AwaitingApproval => &[Fact::Approved, Fact::Started],
        _ => &[Fact::Started],
    };
    let decision = evaluation.document()?;
    let change = Change { before: &before, now, decision: Some(decision.clone()), facts };
    let deployment = store::save_with(db, actor, change, follows)?;
    Ok(DeploymentWithDecision { deployment, decision: Some(Json(decision)) })
}

/// Evaluates the gate for a start, and consumes the approvals and overrides that it takes.
/// `snapshot` is that of the deployment.
pub fn evaluate_start(
    db: &mut Db,
    actor: &Actor,
    deployment: &Deployment,
    snapshot: &PlaceSnapshot,
    was_observed: bool,
) -> Result<Evaluation, Error> {
    let (environment, release) = snapshot.known()?;
    let candidate = gate::Candidate::of(release);
    let request = GateRequest::to_start(deployment);
    let mut facts = gate::facts(snapshot, environment, &candidate, &request);
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
    let snapshot = snapshot::of(db, actor, deployment.id)?;
    let candidate = gate::Candidate::of(release);
    let request = GateRequest::to_start(deployment);
    let facts = gate::facts(&snapshot, environment, &candidate, &request);
    Ok(Evaluation::of(facts, actor.now).reviewed())
}
