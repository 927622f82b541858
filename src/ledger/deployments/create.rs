//! Recording of deployments: a caller requests one and the gate decides whether it is allowed, or
//! reports one that has happened.

use diesel::QueryResult;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::db::Db;
use crate::db::columns::Json;
use crate::db::locks::{Locked, Service};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Author, Ctx, Deploy};
use crate::http::extract::Body;
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::gate::{self, Consumed, Evaluation, GateRequest};
use crate::ledger::deployments::snapshot::{self, PlaceSnapshot};
use crate::ledger::deployments::store::{self, Change, Fact, advance};
use crate::ledger::deployments::transitions::observed_at;
use crate::ledger::deployments::{
    Deployment, DeploymentWithDecision, GITHUB, Role, find, find_external,
    find_reported_by_webhook, link, live_in, previous_good,
};
use crate::ledger::environments::{self, Environment};
use crate::ledger::releases::{self, NewRelease, Release};
use crate::ledger::services;
use crate::rules::gate::Step;
use crate::rules::lifecycle::{Kind, Report as ReportedState, State};
use crate::rules::timeline;
use crate::types::ids::{DeploymentId, IncidentId};
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::values::{Digest, GitSha, LongText, ShortText, Slug, Url, Version};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(create, __path_create);
}

/// A deployment to request or to report.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "service": "checkout", "environment": "staging", "version": "1.4.2",
    "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
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
    /// Whether this is a rollback: it goes back to a release that was live in the place before. If
    /// that release went live through the gate with the same image, the gate needs no approvals,
    /// unless the environment says so, and freezes and incidents that allow rollbacks do not block
    /// it. It is not, if absent.
    #[serde(default)]
    pub rollback: bool,
    /// The git commit of the release. It must agree with the recorded release, or is added to it.
    /// May be absent or `null`.
    pub git_sha: Option<GitSha>,
    /// The image digest of the release. It must agree with the recorded release, or is added to it.
    /// May be absent or `null`.
    pub image_digest: Option<Digest>,
    /// The name of the person or pipeline that requested the deployment. The name of the key, if
    /// absent or `null`. `prop`, `anonymous`, `github` and names that begin with `github:` are
    /// reserved.
    #[schema(value_type = Option<ShortText>)]
    pub requested_by: Option<Name>,
    /// The kind of client that reports the deployment. `api`, if absent or `null`. `github` is
    /// refused: only GitHub's webhooks use it.
    pub source: Option<Slug>,
    /// The identifier of the deployment in that source. A repeat with the same identifier answers
    /// 200 and the recorded deployment. May be absent or `null`.
    pub external_id: Option<ShortText>,
    /// The URL of the pipeline run that performs the deployment. May be absent or `null`.
    pub run_url: Option<Url>,
    /// Whether the deployment is unplanned, because it fixes a problem. It is planned, if absent.
    #[serde(default)]
    pub unplanned: bool,
    /// Why the deployment is made. May be absent or `null`.
    pub reason: Option<LongText>,
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
    /// Records what has already happened, in one call: `running` for a rollout that goes on, or how
    /// it ended. Implies `observed`, and cannot be combined with `start`. May be absent or `null`.
    pub state: Option<ReportedState>,
    /// When an observed deployment started. `finished_at` or now, if absent or `null`. The history
    /// also has the time of the report.
    pub at: Option<Timestamp>,
    /// When an observed deployment ended, if `state` is an end. `at` or now, if absent or `null`.
    pub finished_at: Option<Timestamp>,
    /// Whether to create the service, the environment and the release if they do not exist. An
    /// environment gets the tier that its slug names, and the default rules of that tier. One of
    /// the tier `production` is only created with the scope `operate`. They are not created, if
    /// absent.
    #[serde(default)]
    pub create_missing: bool,
}

/// Request or report a deployment
///
/// Records a deployment and answers it. Its state is `approved`, or `awaiting_approval` while
/// required approvals are missing, or `running` with `start` or `observed`. With `state`, one call
/// records a rollout that is already over. A repeat with the same `source` and `external_id`
/// answers the recorded deployment. Fails with 409 (`gate_blocked`) and
/// all reasons when the gate blocks it, and with 409 (`release_conflict`) when commit or image
/// differ from the recorded release.
#[utoipa::path(post, path = "/deployments",
    tag = "deployments", operation_id = "create_deployment",
    security(("key" = ["deploy"])), request_body = NewDeployment,
    responses(
        (status = 201, description = "The deployment that was recorded.",
            body = DeploymentWithDecision, headers(("Location" = String), ("ETag" = String))),
        (status = 200,
            description = "The deployment was recorded before with this `source` and \
                `external_id`, or a webhook has already reported it for this run.",
            body = DeploymentWithDecision, headers(("ETag" = String))),
        (status = 403,
            description = "The key lacks the scope `deploy`, or `create_missing` would create an \
                environment of the tier `production` and the key lacks the scope `operate`."),
        (status = 404,
            description = "The service, environment or release does not exist, and \
                `create_missing` is not set."),
        (status = 422,
            description = "The body is malformed; `version` is missing without `rollback` \
                (`missing_field`); or, each with `invalid_value`: `source` is `github`, \
                `requested_by` is a reserved name, `state` is there with `start`, `finished_at` \
                without a `state` that is an end, `at` without `observed` or `state`, the end is \
                before the start, a time is more than a minute in the future, `fixes` is no open \
                incident of the place, or `version` is nothing to roll back to.")))]
async fn create(ctx: Ctx<Deploy>, body: Body<NewDeployment>) -> Result<Reply, Error> {
    ctx.post_in(Service::Named(body.0.service.clone()), move |db, author| {
        let (found, is_new) = request(db, author, body.0.clone())?;
        let reply = if is_new {
            Reply::created(found.deployment.path(), &found)?
        } else {
            Reply::ok(&found)?
        };
        Ok(reply.at_revision(found.deployment.revision))
    })
    .await
}

/// The course of a rollout that somebody observed, whatever the gate had decided.
pub struct Observation {
    /// `running`, or how it ended.
    pub state: State,
    /// When it started; `None` for one that was given up before it did.
    pub started_at: Option<Timestamp>,
    /// When it ended, if it has.
    pub finished_at: Option<Timestamp>,
}

impl Observation {
    /// How far a deployment that was asked for gets at once.
    fn of_request(new: &NewDeployment, evaluation: &Evaluation, now: Timestamp) -> Self {
        let state = match (new.start, evaluation.is_approved()) {
            (true, _) => State::Running,
            (false, true) => State::Approved,
            (false, false) => State::AwaitingApproval,
        };
        Self { state, started_at: new.start.then_some(now), finished_at: None }
    }
}

impl NewDeployment {
    /// What was observed, or `None` for a request.
    ///
    /// # Errors
    /// `invalid_value` when the fields contradict each other, or a time is in the future.
    fn observation(&self, now: Timestamp) -> Result<Option<Observation>, Error> {
        let invalid = |pointer, detail| Err(Error::field(Code::InvalidValue, pointer, detail));
        if self.state.is_some() && self.start {
            let detail = "can't be combined with `start`: `start` asks to start now, `state` \
                reports what has happened";
            return invalid("/state", detail);
        }
        let is_observed = self.observed || self.state.is_some();
        let state = self.state.map_or(State::Running, State::from);
        if self.finished_at.is_some() && !state.is_finished() {
            return invalid("/finished_at", "requires `state`: succeeded, failed or cancelled");
        }
        let finished_at = match self.finished_at {
            Some(end) => Some(observed_at(true, Some(end), "/finished_at", now)?),
            None => None,
        };
        let started_at = observed_at(is_observed, self.at.or(self.finished_at), "/at", now)?;
        if !is_observed {
            return Ok(None);
        }
        let finished_at = state.is_finished().then(|| finished_at.unwrap_or(started_at));
        if finished_at.is_some_and(|end| end < started_at) {
            return invalid("/finished_at", "is before `at`, when it started");
        }
        Ok(Some(Observation { state, started_at: Some(started_at), finished_at }))
    }
}

/// Records a deployment that somebody asks for or has observed, and says whether it is new.
///
/// # Errors
/// That of [`record`], or `invalid_value` when the request contradicts itself.
pub fn request(
    db: &mut Db,
    author: &Author,
    new: NewDeployment,
) -> Result<(DeploymentWithDecision, bool), Error> {
    if new.source.as_deref() == Some(GITHUB) {
        let detail = "is the source of GitHub's webhooks; use another one";
        return Err(Error::field(Code::InvalidValue, "/source", detail));
    }
    let found = load(db, &new, new.version.as_ref(), None, None)?;
    let found = found.filter(|snapshot| snapshot.is_locked);
    let (has_service, now) = match &found {
        Some(snapshot) => (true, snapshot.now),
        // It does not exist, or does only since this transaction began.
        None => {
            let Locked { exists, now } = services::lock(db, &new.service)?;
            (exists, now)
        }
    };
    let actor = &author.at(now);
    let observation = new.observation(actor.now)?;
    record_at(db, actor, has_service, found, Report { new, observation, requested_at: actor.now })
}

/// Loads the place of a deployment that may not be recorded yet. `known` is the one that a webhook
/// reported of the same run.
fn load(
    db: &mut Db,
    new: &NewDeployment,
    version: Option<&Version>,
    known: Option<DeploymentId>,
    now: Option<Timestamp>,
) -> QueryResult<Option<PlaceSnapshot>> {
    let source = new.source.as_deref().unwrap_or("api");
    let subject = snapshot::Subject {
        service: &new.service,
        environment: &new.environment,
        version: version.map(|version| &**version),
        deployment: known,
        fixes: new.fixes,
        image_digest: new.image_digest.as_ref(),
        external: new.external_id.as_deref().map(|id| (source, id)),
        has_run: new.run_url.is_some() && source != GITHUB,
    };
    let found = snapshot::load(db, &subject, now)?;
    Ok(found.map(|snapshot| snapshot.with_digest(new.image_digest.as_ref())))
}

/// The same in a service that is locked.
fn load_locked(
    db: &mut Db,
    actor: &Actor,
    new: &NewDeployment,
    version: Option<&Version>,
) -> Result<PlaceSnapshot, Error> {
    let found = load(db, new, version, None, Some(actor.now))?;
    found.ok_or_else(|| Error::internal(format!("the service {} is locked and gone", new.service)))
}

/// What is reported of a deployment that may not be recorded yet.
pub struct Report {
    /// Which deployment.
    pub new: NewDeployment,
    /// How it went so far, if it was observed rather than asked for.
    pub observation: Option<Observation>,
    /// When it was asked for.
    pub requested_at: Timestamp,
}

/// Why a report was not recorded.
enum Refused {
    /// The gate blocked it.
    Blocked(Box<Evaluation>),
    /// Anything else.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The place, release and policy that a report is about.
struct Subject {
    snapshot: PlaceSnapshot,
    environment: Environment,
    candidate: gate::Candidate,
    version: Version,
    /// The deployment that a webhook reported of the same run.
    known: Option<Deployment>,
}

/// Records a deployment. In the service's lock, so that nothing changes between decision and act;
/// a refusal leaves nothing but its record.
///
/// # Errors
/// `gate_blocked`; `not_found` or `missing_scope` when something does not exist and is not made; or
/// that the report contradicts what is recorded.
pub fn record(
    db: &mut Db,
    actor: &Actor,
    has_service: bool,
    report: Report,
) -> Result<(DeploymentWithDecision, bool), Error> {
    record_at(db, actor, has_service, None, report)
}

/// [`record`], with what is known of the place already.
///
/// A service or an environment that does not exist has no row to lock. So it is made before anybody
/// looks: of simultaneous requests, one inserts the row, and the others wait for it and see all
/// that the first one did. A refusal takes the row back.
fn record_at(
    db: &mut Db,
    actor: &Actor,
    has_service: bool,
    found: Option<PlaceSnapshot>,
    report: Report,
) -> Result<(DeploymentWithDecision, bool), Error> {
    let service = report.new.service.clone();
    let recorded = if has_service {
        record_in_service(db, actor, found, report)
    } else if report.new.create_missing {
        db.savepoint(|db| {
            let (actor, _) = services::ensure(db, actor, &service, None)?;
            record_in_service(db, &actor, None, report)
        })
    } else {
        return Err(services::unknown(db, &service)?.or_create_missing());
    };
    recorded.or_else(|refused| match refused {
        Refused::Failed(error) => Err(error),
        Refused::Blocked(evaluation) => {
            let actor = actor.at(evaluation.decision.evaluated_at);
            Err(gate::refuse(db, &actor, &service, None, &evaluation)?)
        }
    })
}

/// Records a deployment of a service that exists and is locked. Makes the environment if it may.
fn record_in_service(
    db: &mut Db,
    actor: &Actor,
    found: Option<PlaceSnapshot>,
    report: Report,
) -> Result<(DeploymentWithDecision, bool), Refused> {
    let new = &report.new;
    let snapshot = match found {
        Some(snapshot) => snapshot,
        None => load_locked(db, actor, new, new.version.as_ref())?,
    };
    if snapshot.is_recorded {
        let source = new.source.as_deref().unwrap_or("api");
        if let Some(known) = find_external(db, source, new.external_id.as_deref())? {
            let known = the_same(known, new)?;
            return Ok((report_again(db, actor, known, &report)?, false));
        }
    }
    let version = version_of(db, new)?;
    let snapshot = match new.version {
        Some(_) => snapshot,
        None => load_locked(db, actor, new, Some(&version))?,
    };
    if snapshot.environment.is_some() || !new.create_missing {
        return record_in_place(db, actor, snapshot, version, report);
    }
    let missing = Environment::missing(&new.environment, actor)?;
    db.savepoint(|db| {
        environments::ensure(db, actor, &missing)?;
        let snapshot = load_locked(db, actor, &report.new, Some(&version))?;
        record_in_place(db, actor, snapshot, version, report)
    })
}

/// Records a deployment to a place of which service and environment exist.
fn record_in_place(
    db: &mut Db,
    actor: &Actor,
    snapshot: PlaceSnapshot,
    version: Version,
    report: Report,
) -> Result<(DeploymentWithDecision, bool), Refused> {
    let new = &report.new;
    let subject = subject(db, actor, new, snapshot, version)?;
    let id = subject.known.as_ref().map_or_else(DeploymentId::new, |known| known.id);
    let requested_by = new.requested_by.clone().unwrap_or_else(|| actor.name.as_str().into());
    let starts = new.start || report.observation.is_some();
    let request = GateRequest {
        step: if starts { Step::Start } else { Step::Create },
        requested_by: &requested_by,
        recorded_by: Some(&actor.name),
        rollback: new.rollback,
        deployment: Some(id),
    };
    let Subject { snapshot, environment, candidate, .. } = &subject;
    let mut facts = gate::facts(snapshot, environment, candidate, &request);
    if report.observation.is_some() {
        // At most one rollout runs that was asked for. What happened is ordered by the timeline.
        facts.running = None;
    }
    if new.fixes.is_some() && !facts.incidents.iter().any(|incident| incident.is_fixed_by_this) {
        let detail = "is no open incident of this service and environment";
        return Err(Error::field(Code::InvalidValue, "/fixes", detail).into());
    }
    let evaluation = Evaluation::of(facts, actor.now);
    if !evaluation.decision.allowed && report.observation.is_none() {
        if let Some(known) = subject.known {
            withdraw(db, actor, known, new.source.as_deref().unwrap_or("api"))?;
        }
        return Err(Refused::Blocked(Box::new(evaluation)));
    }
    let is_new = subject.known.is_none();
    let evaluated = Evaluated { id, requested_by, evaluation };
    let recorded = write(db, actor, subject, report, evaluated)?;
    Ok((recorded, is_new))
}

/// The version that a report is about.
fn version_of(db: &mut Db, new: &NewDeployment) -> Result<Version, Error> {
    match &new.version {
        Some(version) => Ok(version.clone()),
        None if new.rollback => rollback_target(db, &new.service, &new.environment),
        None => Err(Error::field(
            Code::MissingField,
            "/version",
            "is missing; only a rollback finds its version itself",
        )),
    }
}

/// Finds what the report is about, and checks that it fits what is recorded.
fn subject(
    db: &mut Db,
    actor: &Actor,
    new: &NewDeployment,
    snapshot: PlaceSnapshot,
    version: Version,
) -> Result<Subject, Error> {
    let Some(environment) = snapshot.environment.clone() else {
        return Err(environments::unknown(db, &new.environment)?.or_create_missing());
    };
    let candidate = match &snapshot.release {
        Some(known) => {
            releases::check_same(known, &release_of(new, &version))?;
            gate::Candidate::of(known).with_digest(new.image_digest.as_ref())
        }
        None if new.create_missing => {
            gate::Candidate::unrecorded(&version, new.image_digest.as_ref())
        }
        None => {
            let what = format!("release of {} with version", new.service);
            return Err(Error::not_found(&what, &version).or_create_missing());
        }
    };
    // What happened is recorded anyway. Whether it is exempt is the gate's question.
    let is_observed = new.observed || new.state.is_some();
    if new.rollback && !is_observed && !snapshot.goes_back() {
        return Err(Error::field(
            Code::InvalidValue,
            "/version",
            "is nothing to roll back to: it was not live there before, or was rolled back itself",
        ));
    }
    let run = new.run_url.as_deref().filter(|_| snapshot.has_reported);
    let known = find_reported_by_webhook(db, &new.service, &new.environment, run)?;
    let mut snapshot = snapshot;
    if let Some(known) = &known {
        // The gate decides as if nothing had been reported: this may be another release, or not
        // start at all.
        gate::release_consumed(db, actor, known)?;
        let now = load(db, new, Some(&version), Some(known.id), Some(actor.now))?;
        snapshot = now.unwrap_or(snapshot);
    }
    Ok(Subject { snapshot, environment, candidate, version, known })
}

/// The release as the report describes it.
fn release_of(new: &NewDeployment, version: &Version) -> NewRelease {
    NewRelease::named(&new.service, version, new.git_sha.clone(), new.image_digest.clone())
}

/// A deployment on which the gate has decided.
struct Evaluated {
    id: DeploymentId,
    requested_by: Name,
    evaluation: Evaluation,
}

/// Writes the deployment with everything that it creates, consumes and changes.
fn write(
    db: &mut Db,
    actor: &Actor,
    subject: Subject,
    report: Report,
    evaluated: Evaluated,
) -> Result<DeploymentWithDecision, Error> {
    let (new, snapshot) = (&report.new, &subject.snapshot);
    let release = release_of(new, &subject.version);
    let release = releases::ensure(db, actor, release, snapshot.release.as_ref())?;
    let now = row(actor, &subject, release, &report, &evaluated);
    let starts = now.started_at.is_some();
    // What has not started, and what starts now in a place where nothing runs, changes nothing for
    // other deployments.
    let is_newest =
        !starts || new.at.is_none() && now.finished_at.is_none() && snapshot.running.is_none();
    let Evaluated { id, evaluation, .. } = evaluated;
    let decision = Some(evaluation.document()?);
    let known = subject.known;
    let deployment = store_new(db, actor, known, now, decision.clone(), is_newest, new.fixes)?;
    let facts = &evaluation.facts;
    let overrides = gate::consume_overrides(db, id, facts, actor.now)?;
    let approvals = if starts { gate::consume_reviews(db, id, facts)? } else { Vec::new() };
    Consumed { approvals, overrides }.record(db, actor, &deployment, "consumed")?;
    Ok(DeploymentWithDecision { deployment, decision: decision.map(Json) })
}

/// The row of a deployment, but for what follows from the others of its place.
fn row(
    actor: &Actor,
    subject: &Subject,
    release: Release,
    report: &Report,
    evaluated: &Evaluated,
) -> Deployment {
    let Report { new, observation, requested_at } = report;
    let Evaluated { id, requested_by, evaluation } = evaluated;
    let request = Observation::of_request(new, evaluation, actor.now);
    let course = observation.as_ref().unwrap_or(&request);
    let may_wait = matches!(course.state, State::Approved | State::AwaitingApproval);
    let kind = subject.snapshot.kind(new.unplanned || new.fixes.is_some());
    let live = subject.snapshot.live_id();
    Deployment {
        id: *id,
        service: release.service,
        environment: subject.environment.slug.clone(),
        release_id: release.id,
        version: release.version,
        git_sha: release.git_sha,
        image_digest: release.image_digest,
        state: course.state,
        kind,
        unplanned: new.unplanned,
        rollback: new.rollback,
        requested_by: requested_by.clone(),
        source: new.source.as_deref().unwrap_or("api").to_owned(),
        external_id: new.external_id.clone(),
        run_url: new.run_url.clone(),
        reason: new.reason.clone().map(Into::into),
        previous_id: live,
        rollback_of: live.filter(|_| kind == Kind::Rollback),
        requested_at: match (&subject.known, course.started_at) {
            (Some(known), _) => known.requested_at,
            (None, start) => start.map_or(*requested_at, |start| start.min(*requested_at)),
        },
        started_at: course.started_at,
        finished_at: course.finished_at,
        revision: 1,
        ungated: !evaluation.decision.allowed,
        expires_at: may_wait.then(|| actor.now.plus(subject.environment.approval_ttl())),
        recorded_by: Some(actor.name.as_str().into()),
        voided_at: None,
        retired_at: None,
        before_commit: timeline::starts_before_commit(course.started_at, release.last_commit_at),
        counts_from: None,
        image_added_later: false,
    }
}

/// Inserts the deployment, or updates the one that a webhook had reported, and links it to the
/// incident that it fixes.
fn store_new(
    db: &mut Db,
    actor: &Actor,
    known: Option<Deployment>,
    now: Deployment,
    decision: Option<Value>,
    is_newest: bool,
    fixes: Option<IncidentId>,
) -> Result<Deployment, Error> {
    let was_running = known.as_ref().is_some_and(|known| known.state == State::Running);
    let mut facts = vec![if known.is_none() { Fact::Requested } else { Fact::Adopted }];
    facts.extend((now.started_at.is_some() && !was_running).then_some(Fact::Started));
    facts.extend(now.finished_at.map(|_| Fact::Ended));
    let id = now.id;
    let link = |db: &mut Db| fixes.map_or(Ok(0), |incident| link(db, incident, id, Role::FixedBy));
    if known.is_none() && is_newest {
        let row = DeploymentWithDecision { deployment: now, decision: decision.map(Json) };
        store::insert(db, actor, &row, &facts)?;
        link(db)?;
        return Ok(row.deployment);
    }
    let before = match known {
        Some(known) => known,
        None => {
            // No unique index covers `requested`: what is live or running until now makes room
            // first.
            let parked = Deployment { state: State::Requested, revision: 0, ..now.clone() };
            let row = DeploymentWithDecision { deployment: parked, decision: None };
            store::insert(db, actor, &row, &[])?;
            row.deployment
        }
    };
    link(db)?;
    store::save(db, actor, Change { before: &before, now, decision, facts: &facts })
}

/// Cancels a deployment that a webhook had reported as running, because the gate blocked its own
/// script: only the run had begun. The end of the run changes nothing about it.
fn withdraw(db: &mut Db, actor: &Actor, known: Deployment, source: &str) -> Result<(), Error> {
    let now = Deployment {
        state: State::Cancelled,
        source: source.to_owned(),
        external_id: None,
        ungated: false,
        started_at: None,
        finished_at: Some(actor.now),
        expires_at: None,
        reason: Some("the gate blocked it".into()),
        ..known.clone()
    };
    let facts = &[Fact::Ended];
    store::save(db, actor, Change { before: &known, now, decision: None, facts })?;
    Ok(())
}

/// The deployment that a source names again, if it means the same one.
fn the_same(
    known: DeploymentWithDecision,
    new: &NewDeployment,
) -> Result<DeploymentWithDecision, Error> {
    let Deployment { id, service, environment, version, .. } = &known.deployment;
    let is_same = *service == new.service
        && *environment == new.environment
        && new.version.as_ref().is_none_or(|new| new == version);
    if is_same {
        return Ok(known);
    }
    let detail = format!("It is deployment {id} of {service} {version} to {environment}.");
    Err(Error::new(Code::ExternalIdTaken, detail).with("deployment_id", id))
}

/// Takes in what a repeated report adds: the end of a deployment that was reported as running.
fn report_again(
    db: &mut Db,
    actor: &Actor,
    known: DeploymentWithDecision,
    report: &Report,
) -> Result<DeploymentWithDecision, Error> {
    let Some(Observation { state, finished_at: Some(end), .. }) = report.observation else {
        return Ok(known);
    };
    let deployment = known.deployment;
    let id = deployment.id;
    if deployment.reported_state() == State::Running && deployment.started_at <= Some(end) {
        advance(db, actor, deployment, state, end, report.new.reason.clone().map(Into::into))?;
    }
    find(db, id)
}

/// The version that a rollback of a place goes back to.
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
    Ok(previous.version)
}
