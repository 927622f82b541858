//! Deployments: a release on its way into an environment.

use actix_web::{get, post, web};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::{deployments, incident_deployments};
use crate::db::types::{Json, Timestamp};
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Deploy, Read, Requires};
use crate::http::extract::{Body, Query};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::environments::{self, Environment};
use crate::ledger::events::{self, About, Entity, Event};
use crate::ledger::gate::{self, Asked, Ruling};
use crate::ledger::ids::{DeploymentId, IncidentId, ReleaseId};
use crate::ledger::releases::{self, NewRelease, Release};
use crate::ledger::values::{Digest, GitSha, Line, Prose, Slug, Url, Version, text};
use crate::ledger::{or_conflict, services};
use crate::rules::gate::Step;
use crate::rules::lifecycle::{self, By, Kind, Move, State};
use crate::{each_backend, text_enum};

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create).service(show).service(make_transition).service(list_events);
}

/// A release on its way into an environment, or there, or gone from there.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = deployments, treat_none_as_default_value = false, treat_none_as_null = true)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout", "environment": "production",
    "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "state": "running", "kind": "normal",
    "unplanned": false, "requested_by": "pipeline", "source": "api", "external_id": null, "run_url": "https://ci.example.org/runs/17",
    "reason": null, "previous_id": null, "rollback_of": null, "requested_at": "2026-02-03T04:05:06.000000Z",
    "started_at": "2026-02-03T04:05:06.000000Z", "finished_at": null, "revision": 1, "ungated": false, "expires_at": null, "recorded_by": "pipeline"
}))]
pub struct Deployment {
    /// Its identifier.
    pub id: DeploymentId,
    /// What is deployed.
    pub service: String,
    /// Where to.
    pub environment: String,
    /// Which release.
    pub release_id: ReleaseId,
    /// The release's version.
    pub version: String,
    /// The release's commit.
    pub git_sha: Option<String>,
    /// The release's image.
    pub image_digest: Option<String>,
    /// Where it is on its way.
    pub state: State,
    /// What it is to its place.
    pub kind: Kind,
    /// The caller said that it was not planned.
    pub unplanned: bool,
    /// Who asked for it.
    pub requested_by: String,
    /// What kind of client told prop of it, as in `api`, `script`, `github`.
    pub source: String,
    /// Its name in that source.
    pub external_id: Option<String>,
    /// The pipeline run that does it.
    pub run_url: Option<String>,
    /// What was said at its latest move.
    pub reason: Option<String>,
    /// What was live in its place when it was requested, or when it started if it has.
    pub previous_id: Option<DeploymentId>,
    /// The deployment that this one rolls back.
    pub rollback_of: Option<DeploymentId>,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it succeeded, failed, or was given up.
    pub finished_at: Option<Timestamp>,
    /// Grows with every change; the ETag.
    pub revision: i32,
    /// It started although the gate said no.
    pub ungated: bool,
    /// Until when it may wait.
    pub expires_at: Option<Timestamp>,
    /// Who told prop of it: the name of a key.
    pub recorded_by: Option<String>,
}

/// A deployment with what the gate said of it.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = deployments, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout", "environment": "production",
    "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "state": "running", "kind": "normal",
    "unplanned": false, "requested_by": "pipeline", "source": "api", "external_id": null, "run_url": "https://ci.example.org/runs/17",
    "reason": null, "previous_id": null, "rollback_of": null, "requested_at": "2026-02-03T04:05:06.000000Z",
    "started_at": "2026-02-03T04:05:06.000000Z", "finished_at": null, "revision": 1, "ungated": false, "expires_at": null,
    "recorded_by": "pipeline",
    "decision": {"allowed": true, "reasons": [], "evaluated_at": "2026-02-03T04:05:06.000000Z", "facts": {"step": "start", "requested_by": "pipeline"}}
}))]
pub struct DeploymentWithDecision {
    #[diesel(embed)]
    #[serde(flatten)]
    deployment: Deployment,
    /// What the gate decided when it was recorded, or when it started if it has; and the facts that it knew.
    #[schema(value_type = Option<Object>)]
    decision: Option<Json<Value>>,
}

impl Deployment {
    fn about(&self) -> About<'_> {
        About { entity: Entity::Deployment, id: &self.id, service: Some(&self.service), environment: Some(&self.environment) }
    }

    fn path(&self) -> String {
        format!("/v1/deployments/{}", self.id)
    }

    /// What its start asks the gate. The incident that it fixes, if any, is linked to it by then.
    fn asks_to_start(&self) -> Asked<'_> {
        Asked {
            step: Step::Start,
            requested_by: &self.requested_by,
            recorded_by: self.recorded_by.as_deref(),
            unplanned: self.unplanned,
            deployment: Some(self.id),
            fixes: None,
        }
    }

    /// Whether this person asked for it, or told prop of it. Logins are compared as GitHub does it, in any case.
    pub fn belongs_to(&self, person: &str) -> bool {
        [Some(&self.requested_by), self.recorded_by.as_ref()].into_iter().flatten().any(|name| name.eq_ignore_ascii_case(person))
    }

    /// Whether it has waited longer than it may.
    pub fn is_overdue(&self) -> bool {
        self.is_overdue_at(Timestamp::now())
    }

    fn is_overdue_at(&self, now: Timestamp) -> bool {
        matches!(self.state, State::AwaitingApproval | State::Approved) && self.expires_at.is_some_and(|end| end <= now)
    }
}

/// A deployment to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "service": "checkout", "environment": "staging", "version": "1.4.2", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "start": true, "create_missing": true
}))]
pub struct NewDeployment {
    /// What to deploy.
    service: Slug,
    /// Where to.
    environment: Slug,
    /// Which release; the previous good one of the place, if not said and `rollback` is set.
    version: Option<Version>,
    /// Go back to what was live there before.
    #[serde(default)]
    rollback: bool,
    /// The release's commit: checked against the recorded release, added to it, or recorded with it.
    git_sha: Option<GitSha>,
    /// The release's image: likewise.
    image_digest: Option<Digest>,
    /// Who asked for it; the key's name, if not said.
    requested_by: Option<Line>,
    /// What kind of client tells of it; `api`, if not said.
    source: Option<Slug>,
    /// Its name in that source. The same one again answers 200 with the deployment it names.
    external_id: Option<Line>,
    /// The pipeline run that does it.
    run_url: Option<Url>,
    /// Not planned: to mend something.
    #[serde(default)]
    unplanned: bool,
    /// Why.
    reason: Option<Prose>,
    /// Start at once: it is `running` afterwards, or nothing was recorded.
    #[serde(default)]
    start: bool,
    /// The open incident that this is the fix of.
    fixes: Option<IncidentId>,
    /// It happens anyway, whatever the gate says: it is recorded, and flagged `ungated` when the gate says no. What runs in
    /// the place, as far as prop knows, is taken for cancelled.
    #[serde(default)]
    observed: bool,
    /// When it started, if that was observed; now, if not said. The history tells when it was recorded.
    at: Option<Timestamp>,
    /// Create the service, the environment and the release if they do not exist.
    #[serde(default)]
    create_missing: bool,
}

/// A move to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"to": "succeeded"}))]
pub struct Transition {
    /// `running`, `succeeded`, `failed` or `cancelled`; every other state is a consequence of something else.
    to: State,
    /// Why.
    reason: Option<Prose>,
    /// It happened anyway, whatever the gate says: a start is recorded, and flagged `ungated` when the gate says no.
    #[serde(default)]
    observed: bool,
    /// When it happened, if it was observed; now, if not said. The history tells when it was recorded.
    at: Option<Timestamp>,
}

/// What a list of deployments is ordered by.
type After = (Timestamp, DeploymentId);

/// Which deployments.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Deployments of this service.
    service: Option<Slug>,
    /// Deployments into this environment.
    environment: Option<Slug>,
    /// Deployments in this state.
    #[param(inline)]
    state: Option<State>,
    /// Requested at this time or later.
    since: Option<Timestamp>,
    /// Requested before this time.
    until: Option<Timestamp>,
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
}

/// List deployments
///
/// The newest first.
#[utoipa::path(tag = "deployments", operation_id = "list_deployments", security(("key" = ["read"])), params(Filter),
    responses((status = 200, body = Page<Deployment>)))]
#[get("/deployments")]
async fn list(ctx: Ctx<Read>, query: Query<Filter>) -> Result<Reply, Error> {
    if query.0.state == Some(State::Expired) {
        ctx.write(|db, actor| expire_overdue(db, actor.now)).await?;
    }
    let page = settled(&ctx, move |db| find_all(db, &query.0), |page| page.items.iter().any(Deployment::is_overdue)).await?;
    Reply::page(&page)
}

/// Record a deployment
///
/// It is `approved` afterwards, or `awaiting_approval` where approvals are required and missing, or `running` when it was
/// to start at once.
#[utoipa::path(tag = "deployments", operation_id = "create_deployment", security(("key" = ["deploy"])), request_body = NewDeployment,
    responses((status = 201, body = DeploymentWithDecision, headers(("Location" = String), ("ETag" = String))),
        (status = 200, description = "It was recorded before, under this `source` and `external_id`.", body = DeploymentWithDecision, headers(("ETag" = String))),
        (status = 404, description = "The service, environment or release does not exist, and `create_missing` was not set.")))]
#[post("/deployments")]
async fn create(ctx: Ctx<Deploy>, body: Body<NewDeployment>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let (found, is_new) = request(db, actor, body.0)?;
        let reply = if is_new { Reply::created(found.deployment.path(), &found)? } else { Reply::ok(&found)? };
        Ok(reply.at_revision(found.deployment.revision))
    })
    .await
}

/// Read a deployment
#[utoipa::path(tag = "deployments", operation_id = "get_deployment", security(("key" = ["read"])),
    params(("id" = DeploymentId, Path, description = "The deployment.")), responses((status = 200, body = DeploymentWithDecision, headers(("ETag" = String)))))]
#[get("/deployments/{id}")]
async fn show(ctx: Ctx<Read>, id: web::Path<DeploymentId>) -> Result<Reply, Error> {
    let id = *id;
    let found = settled(&ctx, move |db| find(db, id), |found| found.deployment.is_overdue()).await?;
    Ok(Reply::ok(&found)?.at_revision(found.deployment.revision))
}

/// Move a deployment
///
/// The state it is in already changes nothing. A move it does not have answers 409, with the state it is in and its moves.
#[utoipa::path(tag = "deployments", operation_id = "move_deployment", security(("key" = ["deploy"])), request_body = Transition,
    params(("id" = DeploymentId, Path, description = "The deployment.")), responses((status = 200, body = DeploymentWithDecision, headers(("ETag" = String)))))]
#[post("/deployments/{id}/transitions")]
async fn make_transition(ctx: Ctx<Deploy>, id: web::Path<DeploymentId>, body: Body<Transition>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let found = transition(db, actor, *id, body.0)?;
        Ok(Reply::ok(&found)?.at_revision(found.deployment.revision))
    })
    .await
}

/// List a deployment's events
///
/// The newest first.
#[utoipa::path(tag = "deployments", operation_id = "list_deployment_events", security(("key" = ["read"])),
    params(("id" = DeploymentId, Path, description = "The deployment."), events::Paging), responses((status = 200, body = Page<Event>)))]
#[get("/deployments/{id}/events")]
async fn list_events(ctx: Ctx<Read>, id: web::Path<DeploymentId>, query: Query<events::Paging>) -> Result<Reply, Error> {
    let (id, is_first) = (*id, query.0.is_first());
    let page = ctx.read(move |db| events::of(db, Entity::Deployment, id, &query.0)).await?;
    // Each deployment has an event from its beginning on.
    if page.items.is_empty() && is_first {
        return Err(Error::not_found("deployment", id));
    }
    Reply::page(&page)
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Deployment>, Error> {
    let mut query = deployments::table.select(Deployment::as_select()).into_boxed::<MultiBackend>();
    if let Some(service) = &filter.service {
        query = query.filter(deployments::service.eq(service.to_string()));
    }
    if let Some(environment) = &filter.environment {
        query = query.filter(deployments::environment.eq(environment.to_string()));
    }
    if let Some(state) = filter.state {
        query = query.filter(deployments::state.eq(state));
    }
    if let Some(since) = filter.since {
        query = query.filter(deployments::requested_at.ge(since));
    }
    if let Some(until) = filter.until {
        query = query.filter(deployments::requested_at.lt(until));
    }
    if let Some(Cursor((at, id))) = filter.cursor {
        query = query.filter(deployments::requested_at.lt(at).or(deployments::requested_at.eq(at).and(deployments::id.lt(id))));
    }
    let rows = query.order((deployments::requested_at.desc(), deployments::id.desc())).limit(filter.limit.and_one()).load(db)?;
    Ok(Page::of(rows, filter.limit, |deployment: &Deployment| (deployment.requested_at, deployment.id)))
}

/// The deployment with this id, or 404.
fn find(db: &mut Db, id: DeploymentId) -> Result<DeploymentWithDecision, Error> {
    let found = deployments::table.find(id).select(DeploymentWithDecision::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("deployment", id))
}

/// Reads deployments; where one has waited longer than it may, it expires first. So no job needs to run in the background,
/// and any number of processes may look.
pub async fn settled<S: Requires, T: Send + 'static>(
    ctx: &Ctx<S>,
    read: impl FnMut(&mut Db) -> Result<T, Error> + Send + Clone + 'static,
    is_overdue: impl Fn(&T) -> bool,
) -> Result<T, Error> {
    let found = ctx.read(read.clone()).await?;
    if !is_overdue(&found) {
        return Ok(found);
    }
    ctx.write(|db, actor| expire_overdue(db, actor.now)).await?;
    ctx.read(read).await
}

/// Lets every deployment expire that has waited longer than it may.
fn expire_overdue(db: &mut Db, now: Timestamp) -> Result<(), Error> {
    let is_waiting = deployments::state.eq(State::AwaitingApproval.word()).or(deployments::state.eq(State::Approved.word()));
    let overdue: Vec<(String, DeploymentId)> = deployments::table
        .filter(is_waiting)
        .filter(deployments::expires_at.le(now))
        .select((deployments::service, deployments::id))
        .order(deployments::service)
        .load(db)?;
    for (service, id) in overdue {
        services::lock(db, &service)?;
        let found = find(db, id)?;
        expire(db, found.deployment, now)?;
    }
    Ok(())
}

/// The deployment, expired if it has waited longer than it may. In its place's lock.
fn expire(db: &mut Db, deployment: Deployment, now: Timestamp) -> Result<Deployment, Error> {
    if !deployment.is_overdue_at(now) {
        return Ok(deployment);
    }
    let prop = Actor { name: "prop".into(), now };
    advance(db, &prop, deployment, State::Expired, now, None)
}

/// Records a deployment and says whether it is new. In the place's lock, so that nothing changes between decision and act;
/// and everything is decided before anything is written, so that a refusal leaves nothing but its record.
fn request(db: &mut Db, actor: &Actor, new: NewDeployment) -> Result<(DeploymentWithDecision, bool), Error> {
    let has_service = services::lock(db, &new.service)?;
    let actor = &actor.afresh();
    let at = observed_at(new.observed, new.at, actor.now)?;
    if !has_service && !new.create_missing {
        return Err(Error::not_found("service", &new.service));
    }
    let source = new.source.as_deref().unwrap_or("api");
    if let Some(known) = find_external(db, source, new.external_id.as_deref())? {
        return the_same(known, &new).map(|known| (known, false));
    }
    let version = match &new.version {
        Some(version) => version.clone(),
        None if new.rollback => rollback_target(db, &new.service, &new.environment)?,
        None => return Err(Error::field(Code::MissingField, "/version", "is missing; only a rollback finds its version itself")),
    };
    let seen = gate::look(db, &new.service, &new.environment, &version)?;
    let environment = match &seen.environment {
        Some(environment) => environment.clone(),
        None if new.create_missing => Environment::named(&new.environment, actor.now),
        None => return Err(Error::not_found("environment", &new.environment)),
    };
    let release = NewRelease::named(&new.service, &version, new.git_sha.clone(), new.image_digest.clone());
    let candidate = match &seen.release {
        Some(known) => {
            releases::check_same(known, &release)?;
            gate::Candidate::of(known).with_digest(new.image_digest.as_deref())
        }
        None if new.create_missing => gate::Candidate::unrecorded(&version, new.image_digest.as_deref()),
        None => return Err(Error::not_found(&format!("release of {} with version", new.service), &version)),
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
    let id = DeploymentId::new();
    let requested_by = new.requested_by.map_or_else(|| actor.name.clone(), Into::into);
    let starts = new.start || new.observed;
    let step = if starts { Step::Start } else { Step::Create };
    let asked =
        Asked { step, requested_by: &requested_by, recorded_by: Some(&actor.name), unplanned, deployment: Some(id), fixes: new.fixes };
    let facts = gate::facts(db, &seen, &environment, &candidate, &asked, actor.now)?;
    if new.fixes.is_some() && !facts.incidents.iter().any(|incident| incident.is_fixed_by_this) {
        return Err(Error::field(Code::InvalidValue, "/fixes", "is no open incident of this service and environment"));
    }
    let ruling = Ruling::on(facts, actor.now);
    if !ruling.decision.allowed && !new.observed {
        return Err(gate::refuse(db, actor, &new.service, None, &ruling)?);
    }

    if !has_service {
        services::ensure(db, actor, &new.service)?;
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
        requested_at: at,
        started_at: starts.then_some(at),
        finished_at: None,
        revision: 1,
        ungated: !ruling.decision.allowed,
        expires_at: (!starts).then(|| actor.now.plus(environment.approval_ttl())),
        recorded_by: Some(actor.name.clone()),
    };
    if starts {
        cancel_running(db, actor, &deployment, seen.running())?;
    }
    let recorded = DeploymentWithDecision { deployment, decision: Some(Json(ruling.document()?)) };
    let inserted = diesel::insert_into(deployments::table).values(&recorded).execute(db);
    or_conflict(inserted, || Error::new(Code::ExternalIdTaken, "Somebody else just recorded it. Ask again."))?;
    gate::take_overrides(db, id, &new.service, &ruling.facts, actor.now)?;
    if starts {
        gate::use_approvals(db, id, &ruling.facts)?;
    }
    if let Some(incident) = new.fixes {
        link(db, incident, id, Role::FixedBy)?;
    }
    events::record(db, actor, &recorded.deployment.about(), "requested", &recorded.deployment)?;
    if starts {
        let payload =
            json!({"from": State::Approved, "to": State::Running, "reason": null, "at": at, "ungated": recorded.deployment.ungated});
        events::record(db, actor, &recorded.deployment.about(), "started", payload)?;
    }
    Ok((recorded, true))
}

/// When something happened: what was observed may be told later, what prop decides happens now.
fn observed_at(observed: bool, at: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Error> {
    match at {
        None => Ok(now),
        Some(_) if !observed => Err(Error::field(Code::InvalidValue, "/at", "is for what was observed; all else happens now")),
        Some(at) if at > now => Err(Error::field(Code::InvalidValue, "/at", "is in the future")),
        Some(at) => Ok(at),
    }
}

fn find_external(db: &mut Db, source: &str, external_id: Option<&str>) -> Result<Option<DeploymentWithDecision>, Error> {
    let Some(external_id) = external_id else { return Ok(None) };
    let named = deployments::table.filter(deployments::source.eq(source)).filter(deployments::external_id.eq(external_id));
    Ok(named.select(DeploymentWithDecision::as_select()).first(db).optional()?)
}

/// The deployment that a source names again, if it means the same one.
fn the_same(known: DeploymentWithDecision, new: &NewDeployment) -> Result<DeploymentWithDecision, Error> {
    let Deployment { id, service, environment, version, .. } = &known.deployment;
    let is_same = *service == *new.service && *environment == *new.environment && new.version.as_ref().is_none_or(|new| **new == **version);
    if is_same {
        return Ok(known);
    }
    let detail = format!("It is deployment {id} of {service} {version} to {environment}.");
    Err(Error::new(Code::ExternalIdTaken, detail).with("deployment_id", id))
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
    previous.version.parse().map_err(Error::internal)
}

fn live_in(db: &mut Db, service: &str, environment: &str) -> QueryResult<Option<Deployment>> {
    let here = deployments::table.filter(deployments::service.eq(service)).filter(deployments::environment.eq(environment));
    here.filter(deployments::state.eq(State::Succeeded.word())).select(Deployment::as_select()).first(db).optional()
}

/// The latest other release that was live in the place of `live` until another success took over.
pub fn previous_good(db: &mut Db, live: &Deployment) -> QueryResult<Option<Deployment>> {
    deployments::table
        .filter(deployments::service.eq(&live.service))
        .filter(deployments::environment.eq(&live.environment))
        .filter(deployments::state.eq(State::Superseded.word()))
        .filter(deployments::release_id.ne(live.release_id))
        .select(Deployment::as_select())
        .order(deployments::finished_at.desc())
        .first(db)
        .optional()
}

/// Moves a deployment as a caller asked.
fn transition(db: &mut Db, actor: &Actor, id: DeploymentId, asked: Transition) -> Result<DeploymentWithDecision, Error> {
    // Which service it belongs to never changes; everything else is read under the lock.
    let service: Option<String> = deployments::table.find(id).select(deployments::service).first(db).optional()?;
    services::lock(db, &service.ok_or_else(|| Error::not_found("deployment", id))?)?;
    let actor = &actor.afresh();
    let at = observed_at(asked.observed, asked.at, actor.now)?;
    let found = find(db, id)?;
    let state_before = found.deployment.state;
    let deployment = expire(db, found.deployment, actor.now)?;
    let has_expired = deployment.state != state_before;
    // Whether it lacks approvals is for the gate to say, and why; with them it makes both moves at once.
    let is_start = asked.to == State::Running && deployment.state == State::AwaitingApproval;
    let from = if is_start { State::Approved } else { deployment.state };
    let deployment = match lifecycle::decide(from, asked.to, By::Caller) {
        Move::None => deployment,
        Move::To(State::Running) => start(db, actor, deployment, &asked, at)?,
        Move::To(to) => {
            if to == State::Succeeded {
                retire_live(db, actor, &deployment, at)?;
            }
            advance(db, actor, deployment, to, at, text(asked.reason))?
        }
        Move::Refused(moves) => {
            let words: Vec<_> = moves.iter().map(|state| state.as_str()).collect();
            let words = if words.is_empty() { "none".to_owned() } else { words.join(", ") };
            let detail = format!("The deployment is {}; from there it has these moves: {words}.", deployment.state);
            let refusal = Error::new(Code::InvalidTransition, detail).with("state", deployment.state).with("moves", moves);
            return Err(if has_expired { refusal.recorded() } else { refusal });
        }
    };
    find(db, deployment.id)
}

/// Starts a deployment, if the gate lets it or it was observed.
fn start(db: &mut Db, actor: &Actor, mut deployment: Deployment, asked: &Transition, at: Timestamp) -> Result<Deployment, Error> {
    let seen = gate::look(db, &deployment.service, &deployment.environment, &deployment.version)?;
    let (Some(environment), Some(release)) = (&seen.environment, &seen.release) else {
        return Err(Error::internal(format!("deployment {} has no environment or release", deployment.id)));
    };
    let facts = gate::facts(db, &seen, environment, &gate::Candidate::of(release), &deployment.asks_to_start(), actor.now)?;
    let ruling = Ruling::on(facts, actor.now);
    if !ruling.decision.allowed && !asked.observed {
        return Err(gate::refuse(db, actor, &deployment.service, Some(deployment.id), &ruling)?);
    }
    if deployment.state == State::AwaitingApproval {
        deployment = advance(db, actor, deployment, State::Approved, at, None)?;
    }
    cancel_running(db, actor, &deployment, seen.running())?;
    gate::take_overrides(db, deployment.id, &deployment.service, &ruling.facts, actor.now)?;
    gate::use_approvals(db, deployment.id, &ruling.facts)?;
    // The place may have changed since it was requested.
    deployment.kind = seen.kind(deployment.unplanned || ruling.facts.incidents.iter().any(|incident| incident.is_fixed_by_this));
    deployment.previous_id = seen.live_id();
    deployment.rollback_of = seen.live_id().filter(|_| deployment.kind == Kind::Rollback);
    deployment.ungated = !ruling.decision.allowed;
    diesel::update(deployments::table.find(deployment.id)).set(deployments::decision.eq(Json(ruling.document()?))).execute(db)?;
    advance(db, actor, deployment, State::Running, at, text(asked.reason.clone()))
}

/// What prop took for running in the place of an observed deployment can't be: there is one at a time.
fn cancel_running(db: &mut Db, actor: &Actor, observed: &Deployment, running: Option<DeploymentId>) -> Result<(), Error> {
    let Some(running) = running else { return Ok(()) };
    let running = find(db, running)?.deployment;
    let reason = format!("deployment {} was observed to run in its place", observed.id);
    advance(db, actor, running, State::Cancelled, actor.now, Some(reason))?;
    Ok(())
}

/// What was live until now is superseded, or rolled back if that is what the success was for.
fn retire_live(db: &mut Db, actor: &Actor, successor: &Deployment, at: Timestamp) -> Result<(), Error> {
    let Some(live) = live_in(db, &successor.service, &successor.environment)? else { return Ok(()) };
    let state = if successor.rollback_of == Some(live.id) { State::RolledBack } else { State::Superseded };
    advance(db, actor, live, state, at, None)?;
    Ok(())
}

/// Makes a move that happened at `at`, and writes down that it was made. Every change of state goes through here.
fn advance(
    db: &mut Db,
    actor: &Actor,
    mut deployment: Deployment,
    to: State,
    at: Timestamp,
    reason: Option<String>,
) -> Result<Deployment, Error> {
    let from = deployment.state;
    if lifecycle::decide(from, to, By::Ledger) != Move::To(to) {
        return Err(Error::internal(format!("deployment {} can't go from {from} to {to}", deployment.id)));
    }
    deployment.state = to;
    deployment.revision += 1;
    match to {
        State::Running => deployment.started_at = Some(at),
        State::Superseded | State::RolledBack | State::Approved => {}
        _ => deployment.finished_at = Some(at),
    }
    if to != State::Approved {
        deployment.expires_at = None;
    }
    if !matches!(to, State::Superseded | State::RolledBack) {
        deployment.reason = reason.clone();
    }
    diesel::update(deployments::table.find(deployment.id)).set(&deployment).execute(db)?;
    let verb = if to == State::Running { "started" } else { to.as_str() };
    let payload = json!({"from": from, "to": to, "reason": reason, "at": at, "ungated": deployment.ungated});
    events::record(db, actor, &deployment.about(), verb, payload)?;
    Ok(deployment)
}

/// Lets the deployments that wait for what somebody just said move on. In the service's lock.
pub fn hear(db: &mut Db, actor: &Actor, release: &Release, environment: &Environment, approved: bool) -> Result<(), Error> {
    for deployment in awaiting(db, release.id, &environment.slug)? {
        let mut deployment = expire(db, deployment, actor.now)?;
        if deployment.state != State::AwaitingApproval {
            continue;
        }
        if !approved {
            advance(db, actor, deployment, State::Rejected, actor.now, None)?;
            continue;
        }
        let seen = gate::look(db, &deployment.service, &deployment.environment, &deployment.version)?;
        let facts = gate::facts(db, &seen, environment, &gate::Candidate::of(release), &deployment.asks_to_start(), actor.now)?;
        if Ruling::on(facts, actor.now).is_approved() {
            deployment.expires_at = Some(actor.now.plus(environment.approval_ttl()));
            advance(db, actor, deployment, State::Approved, actor.now, None)?;
        }
    }
    Ok(())
}

/// The deployments of a release that await approval in an environment.
pub fn awaiting(db: &mut Db, release: ReleaseId, environment: &str) -> QueryResult<Vec<Deployment>> {
    deployments::table
        .filter(deployments::release_id.eq(release))
        .filter(deployments::environment.eq(environment))
        .filter(deployments::state.eq(State::AwaitingApproval.word()))
        .select(Deployment::as_select())
        .order(deployments::id)
        .load(db)
}

text_enum! {
    /// What a deployment is to an incident.
    Role {
        /// It broke it.
        CausedBy = "caused_by",
        /// It mended it.
        FixedBy = "fixed_by",
    }
}

/// Links a deployment to an incident; twice is once.
pub fn link(db: &mut Db, incident: IncidentId, deployment: DeploymentId, role: Role) -> QueryResult<usize> {
    let row = (
        incident_deployments::incident_id.eq(incident),
        incident_deployments::deployment_id.eq(deployment),
        incident_deployments::role.eq(role),
    );
    each_backend!(db, |c| diesel::insert_into(incident_deployments::table).values(row).on_conflict_do_nothing().execute(c))
}
