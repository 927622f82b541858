//! Recording of deployments: a caller requests one, and the gate decides whether it is allowed.

use actix_web::post;
use diesel::prelude::*;
use serde::Deserialize;
use serde_json::json;
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
    Deployment, DeploymentWithDecision, GITHUB, Role, advance, find, find_external, find_witnessed,
    link, live_in, previous_good,
};
use crate::ledger::environments::{self, Environment};
use crate::ledger::gate::{self, Asked, Ruling};
use crate::ledger::releases::{self, NewRelease};
use crate::ledger::transitions::{Course, cancel_running, correct, observed_at};
use crate::ledger::values::{Digest, GitSha, Line, Prose, Slug, Url, Version, text};
use crate::ledger::{events, or_conflict, services};
use crate::rules::gate::Step;
use crate::rules::lifecycle::{Kind, Report, State};
use crate::types::ids::{DeploymentId, IncidentId};

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(create);
}

/// A deployment to request or to report.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "service": "checkout", "environment": "staging", "version": "1.4.2", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "start": true, "create_missing": true
}))]
pub struct NewDeployment {
    /// The slug of the service to deploy.
    pub service: Slug,
    /// The slug of the environment to deploy to.
    pub environment: Slug,
    /// The version to deploy. May be absent or `null` only with `rollback`: it is then the previous
    /// good release of the place.
    pub version: Option<Version>,
    /// Whether this goes back to a release that was live in the place before. It does not, if
    /// absent.
    #[serde(default)]
    pub rollback: bool,
    /// The git commit of the release. It must agree with the recorded release, or is added to it.
    /// May be absent or `null`.
    pub git_sha: Option<GitSha>,
    /// The image digest of the release. It must agree with the recorded release, or is added to it.
    /// May be absent or `null`.
    pub image_digest: Option<Digest>,
    /// The name of the person or pipeline that requested the deployment. The name of the key, if
    /// absent or `null`.
    pub requested_by: Option<Line>,
    /// The kind of client that reports the deployment. `api`, if absent or `null`.
    pub source: Option<Slug>,
    /// The identifier of the deployment in that source. A repeat with the same identifier answers
    /// 200 and the recorded deployment. May be absent or `null`.
    pub external_id: Option<Line>,
    /// The URL of the pipeline run that performs the deployment. May be absent or `null`.
    pub run_url: Option<Url>,
    /// Whether the deployment is unplanned, because it fixes a problem. It is planned, if absent.
    #[serde(default)]
    pub unplanned: bool,
    /// Why the deployment is made. May be absent or `null`.
    pub reason: Option<Prose>,
    /// Whether to start at once. The deployment is then `running`, or, if the gate blocks it, not
    /// recorded. It does not start, if absent.
    #[serde(default)]
    pub start: bool,
    /// The open incident that the deployment fixes. It passes the gate despite this incident. May
    /// be absent or `null`.
    pub fixes: Option<IncidentId>,
    /// Whether the deployment happens anyway, whatever the gate decides. It is then recorded as
    /// `running`, with `ungated` set if the gate blocks it. Another running deployment of the place
    /// is cancelled. It is not observed, if absent.
    #[serde(default)]
    pub observed: bool,
    /// Records what has already happened, in one call: `running` for a rollout that goes on, or how it
    /// ended. Implies `observed`, and cannot be combined with `start`. May be absent or `null`.
    pub state: Option<Report>,
    /// When an observed deployment started. `finished_at` or now, if absent or `null`. The history also has
    /// the time of the report.
    pub at: Option<Timestamp>,
    /// When an observed deployment ended, if `state` is an end. `at` or now, if absent or `null`.
    pub finished_at: Option<Timestamp>,
    /// Whether to create the service, the environment and the release if they do not exist. They are not
    /// created, if absent.
    #[serde(default)]
    pub create_missing: bool,
}

/// Request or report a deployment
///
/// Records a deployment and answers it. Its state is `approved`, or `awaiting_approval` while
/// required approvals are missing, or `running` with `start` or `observed`. A repeat with the same
/// `source` and `external_id` answers the recorded deployment. Fails with 409 (`gate_blocked`) and
/// all reasons when the gate blocks it, and with 409 (`release_conflict`) when commit or image
/// differ from the recorded release.
#[utoipa::path(tag = "deployments", operation_id = "create_deployment", security(("key" = ["deploy"])), request_body = NewDeployment,
    responses((status = 201, description = "The deployment that was recorded.", body = DeploymentWithDecision, headers(("Location" = String), ("ETag" = String))),
        (status = 200, description = "The deployment was recorded before with this `source` and `external_id`, or a webhook has already reported it for this run.", body = DeploymentWithDecision, headers(("ETag" = String))),
        (status = 404, description = "The service, environment or release does not exist, and `create_missing` is not set.")))]
#[post("/deployments")]
async fn create(ctx: Ctx<Deploy>, body: Body<NewDeployment>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let (found, is_new) = request(db, actor, body.0)?;
        let reply = if is_new {
            Reply::created(found.deployment.path(), &found)?
        } else {
            Reply::ok(&found)?
        };
        Ok(reply.at_revision(found.deployment.revision))
    })
    .await
}

/// Records a deployment that a caller requests or reports. Returns whether it is new.
fn request(
    db: &mut Db,
    actor: &Actor,
    mut new: NewDeployment,
) -> Result<(DeploymentWithDecision, bool), Error> {
    if new.state.is_some() {
        // A time that is left out is that of the lock: what others have recorded until then came before.
        services::lock(db, &new.service)?;
    }
    let actor = &actor.afresh();
    let Some(ended) = reported_end(&mut new, actor.now)? else {
        return record(db, actor, new, false);
    };
    let reason = text(new.reason.clone());
    let (recorded, is_new) = record(db, actor, new, true)?;
    if recorded.deployment.state != State::Requested {
        // It was recorded before, under the same external id.
        return Ok((recorded, is_new));
    }
    let id = recorded.deployment.id;
    let observed = Course {
        state: ended.state,
        started_at: Some(ended.started_at),
        finished_at: Some(ended.finished_at),
        reason,
    };
    correct(db, actor, recorded.deployment, observed)?;
    Ok((find(db, id)?, is_new))
}

/// How a rollout ended that is reported when it is over.
struct Ended {
    state: State,
    started_at: Timestamp,
    finished_at: Timestamp,
}

/// Checks what is reported as having happened, and fills in what follows from it. `None`: no end is reported.
fn reported_end(new: &mut NewDeployment, now: Timestamp) -> Result<Option<Ended>, Error> {
    let invalid = |field, detail| Err(Error::field(Code::InvalidValue, field, detail));
    if new.state.is_some() && new.start {
        let detail = "can't be combined with `start`: `start` asks to start now, `state` reports what has happened";
        return invalid("/state", detail);
    }
    new.observed |= new.state.is_some();
    let state = match new.state.map(State::from) {
        Some(state) if state.is_finished() => state,
        _ if new.finished_at.is_some() => {
            return invalid("/finished_at", "requires `state`: succeeded, failed or cancelled");
        }
        _ => return Ok(None),
    };
    if new.finished_at.is_some_and(|end| end > now) {
        return invalid("/finished_at", "is in the future");
    }
    let started_at = observed_at(true, new.at.or(new.finished_at), now)?;
    let finished_at = new.finished_at.or(new.at).unwrap_or(now);
    if finished_at < started_at {
        return invalid("/finished_at", "is before `at`, when it started");
    }
    new.at = Some(started_at);
    Ok(Some(Ended { state, started_at, finished_at }))
}

/// Records a deployment that a webhook reports. One that has started gets the state `requested`
/// first: `transitions::correct` then sets the reported state in the same transaction.
pub fn witness(db: &mut Db, actor: &Actor, new: NewDeployment) -> Result<Deployment, Error> {
    Ok(record(db, actor, new, true)?.0.deployment)
}

/// Records a deployment under the lock of the service, so that nothing changes after the decision.
///
/// All checks come before the first write. A blocked deployment therefore leaves only the
/// `gate.blocked` event, and the end of a deployment that a webhook had reported as started.
fn record(
    db: &mut Db,
    actor: &Actor,
    new: NewDeployment,
    is_witnessed: bool,
) -> Result<(DeploymentWithDecision, bool), Error> {
    let has_service = services::lock(db, &new.service)?;
    let actor = &actor.afresh();
    let at = if is_witnessed {
        new.at.unwrap_or(actor.now)
    } else {
        observed_at(new.observed, new.at, actor.now)?
    };
    if !has_service && !new.create_missing {
        return Err(services::unknown(db, &new.service)?.or_create_missing());
    }
    let source = new.source.as_deref().unwrap_or("api");
    if let Some(known) = find_external(db, source, new.external_id.as_deref())? {
        return the_same(known, &new).map(|known| (known, false));
    }
    let version = match &new.version {
        Some(version) => version.clone(),
        None if new.rollback => rollback_target(db, &new.service, &new.environment)?,
        None => {
            return Err(Error::field(
                Code::MissingField,
                "/version",
                "is missing; only a rollback finds its version itself",
            ));
        }
    };
    let seen = gate::look(db, &new.service, &new.environment, &version)?;
    let environment = match &seen.environment {
        Some(environment) => environment.clone(),
        None if new.create_missing => Environment::named(&new.environment, actor.now),
        None => return Err(environments::unknown(db, &new.environment)?.or_create_missing()),
    };
    let release =
        NewRelease::named(&new.service, &version, new.git_sha.clone(), new.image_digest.clone());
    let candidate = match &seen.release {
        Some(known) => {
            releases::check_same(known, &release)?;
            gate::Candidate::of(known).with_digest(new.image_digest.as_deref())
        }
        None if new.create_missing => {
            gate::Candidate::unrecorded(&version, new.image_digest.as_deref())
        }
        None => {
            let what = format!("release of {} with version", new.service);
            return Err(Error::not_found(&what, &version).or_create_missing());
        }
    };

    let unplanned = new.unplanned || new.fixes.is_some();
    let kind = seen.kind(unplanned);
    if new.rollback && !seen.is_way_back() {
        return Err(Error::field(
            Code::InvalidValue,
            "/version",
            "is nothing to roll back to: it was not live there before, or was rolled back itself",
        ));
    }
    let known = match source {
        GITHUB => None,
        _ => find_witnessed(db, &new.service, &new.environment, new.run_url.as_deref())?,
    };
    let id = known.as_ref().map_or_else(DeploymentId::new, |known| known.id);
    if known.is_some() {
        // The gate decides as if the webhook had reported nothing: this may be another release, or
        // may not start at all.
        gate::give_back(db, id)?;
    }
    let requested_by = new.requested_by.map_or_else(|| actor.name.clone(), Into::into);
    let starts = new.start || new.observed;
    let step = if starts { Step::Start } else { Step::Create };
    let asked = Asked {
        step,
        requested_by: &requested_by,
        recorded_by: Some(&actor.name),
        unplanned,
        deployment: Some(id),
        fixes: new.fixes,
    };
    let facts = gate::facts(db, &seen, &environment, &candidate, &asked, actor.now)?;
    if new.fixes.is_some() && !facts.incidents.iter().any(|incident| incident.is_fixed_by_this) {
        return Err(Error::field(
            Code::InvalidValue,
            "/fixes",
            "is no open incident of this service and environment",
        ));
    }
    let ruling = Ruling::on(facts, actor.now);
    if !ruling.decision.allowed && !new.observed {
        if let Some(known) = known {
            withdraw(db, actor, known, source)?;
        }
        return Err(gate::refuse(db, actor, &new.service, None, &ruling)?);
    }

    if !has_service {
        services::ensure(db, actor, &new.service, None)?;
    }
    if seen.environment.is_none() {
        environments::ensure(db, actor, &environment)?;
    }
    let release = releases::ensure(db, actor, release, seen.release.as_ref())?;
    let live = seen.live_id();
    let deployment = Deployment {
        id,
        service: release.service,
        environment: environment.slug.clone(),
        release_id: release.id,
        version: release.version,
        git_sha: release.git_sha,
        image_digest: release.image_digest,
        state: match (starts, ruling.is_approved()) {
            (true, _) if is_witnessed => State::Requested,
            (true, _) => State::Running,
            (false, true) => State::Approved,
            (false, false) => State::AwaitingApproval,
        },
        kind,
        unplanned: new.unplanned,
        requested_by,
        source: source.to_owned(),
        external_id: text(new.external_id),
        run_url: text(new.run_url),
        reason: text(new.reason),
        previous_id: live,
        rollback_of: live.filter(|_| kind == Kind::Rollback),
        requested_at: known.as_ref().map_or(at, |known| known.requested_at),
        started_at: (starts && !is_witnessed).then_some(at),
        finished_at: None,
        revision: known.as_ref().map_or(1, |known| known.revision + 1),
        ungated: !ruling.decision.allowed,
        expires_at: (!starts).then(|| actor.now.plus(environment.approval_ttl())),
        recorded_by: Some(actor.name.clone()),
    };
    if starts && !is_witnessed {
        cancel_running(db, actor, &deployment, seen.running().filter(|running| *running != id))?;
    }
    let recorded = DeploymentWithDecision { deployment, decision: Some(Json(ruling.document()?)) };
    let written = match known {
        Some(_) => diesel::update(deployments::table.find(id))
            .set((&recorded.deployment, deployments::decision.eq(&recorded.decision)))
            .execute(db),
        None => diesel::insert_into(deployments::table).values(&recorded).execute(db),
    };
    or_conflict(written, || {
        Error::new(Code::ExternalIdTaken, "Somebody else just recorded it. Ask again.")
    })?;
    gate::take_overrides(db, id, &new.service, &ruling.facts, actor.now)?;
    if starts {
        gate::use_approvals(db, id, &ruling.facts)?;
    }
    if let Some(incident) = new.fixes {
        link(db, incident, id, Role::FixedBy)?;
    }
    let is_new = known.is_none();
    let verb = if is_new { "requested" } else { "adopted" };
    events::record(db, actor, &recorded.deployment.about(), verb, &recorded.deployment)?;
    if starts && !is_witnessed && known.is_none_or(|known| known.state != State::Running) {
        let payload = json!({"from": State::Approved, "to": State::Running, "reason": null, "at": at, "ungated": recorded.deployment.ungated});
        events::record(db, actor, &recorded.deployment.about(), "started", payload)?;
    }
    Ok((recorded, is_new))
}

/// Cancels a deployment that a webhook had reported as running, because the gate blocks it: its run
/// has begun, but the rollout has not. The deployment counts as never started, and later reports
/// about the run do not change it.
fn withdraw(db: &mut Db, actor: &Actor, known: Deployment, source: &str) -> Result<(), Error> {
    let held_back = Deployment {
        source: source.to_owned(),
        external_id: None,
        ungated: false,
        started_at: None,
        ..known
    };
    advance(
        db,
        actor,
        held_back,
        State::Cancelled,
        actor.now,
        Some("the gate held it back".into()),
    )?;
    Ok(())
}

/// Returns the recorded deployment if the repeated request has the same service, environment and
/// version.
fn the_same(
    known: DeploymentWithDecision,
    new: &NewDeployment,
) -> Result<DeploymentWithDecision, Error> {
    let Deployment { id, service, environment, version, .. } = &known.deployment;
    let is_same = *service == *new.service
        && *environment == *new.environment
        && new.version.as_ref().is_none_or(|new| **new == **version);
    if is_same {
        return Ok(known);
    }
    let detail = format!("It is deployment {id} of {service} {version} to {environment}.");
    Err(Error::new(Code::ExternalIdTaken, detail).with("deployment_id", id))
}

/// The version that a rollback in a place goes back to.
fn rollback_target(db: &mut Db, service: &str, environment: &str) -> Result<Version, Error> {
    let live = live_in(db, service, environment)?;
    let previous = match &live {
        Some(live) => previous_good(db, live)?,
        None => None,
    };
    let previous = previous.ok_or_else(|| {
        let detail = format!("No other release of {service} was live in {environment} before.");
        Error::new(Code::NothingToRollBackTo, detail)
    })?;
    previous.version.parse().map_err(Error::internal)
}
