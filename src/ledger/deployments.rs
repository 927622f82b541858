//! Deployments: a release on its way into an environment.

use actix_web::{get, post, web};
use diesel::dsl::exists;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::deployments;
use crate::db::types::Timestamp;
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Deploy, Read};
use crate::http::extract::{Body, Query};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::identifier;
use crate::ledger::environments;
use crate::ledger::events::{self, About, Entity, Event};
use crate::ledger::releases::{self, NewRelease, Release, ReleaseId};
use crate::ledger::values::{Digest, GitSha, Line, Prose, Slug, Url, Version, text};
use crate::ledger::{or_conflict, services};
use crate::rules::lifecycle::{self, By, Kind, Move, Place, State};

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create).service(show).service(make_transition).service(list_events);
}

identifier! {
    /// Identifies a deployment.
    DeploymentId
}

/// A release on its way into an environment, or there, or gone from there.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = deployments)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout", "environment": "production",
    "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "state": "running", "kind": "normal",
    "unplanned": false, "requested_by": "pipeline", "source": "api", "external_id": null, "run_url": "https://ci.example.org/runs/17",
    "reason": null, "previous_id": null, "rollback_of": null, "requested_at": "2026-02-03T04:05:06.000000Z",
    "started_at": "2026-02-03T04:05:06.000000Z", "finished_at": null, "revision": 1
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
}

impl Deployment {
    fn about(&self) -> About<'_> {
        About { entity: Entity::Deployment, id: &self.id, service: Some(&self.service), environment: Some(&self.environment) }
    }

    fn path(&self) -> String {
        format!("/v1/deployments/{}", self.id)
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
    /// Which release.
    version: Version,
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
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Record a deployment
///
/// It is `approved` afterwards, or `awaiting_approval` where approvals are required and missing, or `running` when it was
/// to start at once.
#[utoipa::path(tag = "deployments", operation_id = "create_deployment", security(("key" = ["deploy"])), request_body = NewDeployment,
    responses((status = 201, body = Deployment, headers(("Location" = String), ("ETag" = String))),
        (status = 200, description = "It was recorded before, under this `source` and `external_id`.", body = Deployment, headers(("ETag" = String))),
        (status = 404, description = "The service, environment or release does not exist, and `create_missing` was not set.")))]
#[post("/deployments")]
async fn create(ctx: Ctx<Deploy>, body: Body<NewDeployment>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let (deployment, is_new) = request(db, actor, body.0)?;
        let reply = if is_new { Reply::created(deployment.path(), &deployment)? } else { Reply::ok(&deployment)? };
        Ok(reply.at_revision(deployment.revision))
    })
    .await
}

/// Read a deployment
#[utoipa::path(tag = "deployments", operation_id = "get_deployment", security(("key" = ["read"])),
    params(("id" = DeploymentId, Path, description = "The deployment.")), responses((status = 200, body = Deployment, headers(("ETag" = String)))))]
#[get("/deployments/{id}")]
async fn show(ctx: Ctx<Read>, id: web::Path<DeploymentId>) -> Result<Reply, Error> {
    let deployment = ctx.read(move |db| find(db, *id)).await?;
    Ok(Reply::ok(&deployment)?.at_revision(deployment.revision))
}

/// Move a deployment
///
/// The state it is in already changes nothing. A move it does not have answers 409, with the state it is in and its moves.
#[utoipa::path(tag = "deployments", operation_id = "move_deployment", security(("key" = ["deploy"])), request_body = Transition,
    params(("id" = DeploymentId, Path, description = "The deployment.")), responses((status = 200, body = Deployment, headers(("ETag" = String)))))]
#[post("/deployments/{id}/transitions")]
async fn make_transition(ctx: Ctx<Deploy>, id: web::Path<DeploymentId>, body: Body<Transition>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let deployment = transition(db, actor, *id, body.0)?;
        Ok(Reply::ok(&deployment)?.at_revision(deployment.revision))
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
pub fn find(db: &mut Db, id: DeploymentId) -> Result<Deployment, Error> {
    let found = deployments::table.find(id).select(Deployment::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("deployment", id))
}

/// Records a deployment and says whether it is new. In the place's lock, so that nothing changes between decision and act.
fn request(db: &mut Db, actor: &Actor, new: NewDeployment) -> Result<(Deployment, bool), Error> {
    services::require(db, actor, &new.service, new.create_missing.into())?;
    let environment = environments::require(db, actor, &new.environment, new.create_missing.into())?;
    let source = new.source.as_deref().unwrap_or("api");
    if let Some(known) = find_external(db, source, new.external_id.as_deref())? {
        let is_same = (&*new.service, &*new.environment, &*new.version) == (&*known.service, &*known.environment, &*known.version);
        if is_same {
            return Ok((known, false));
        }
        let detail = format!("It is deployment {} of {} {} to {}.", known.id, known.service, known.version, known.environment);
        return Err(Error::new(Code::ExternalIdTaken, detail).with("deployment_id", known.id));
    }
    let release = release_of(db, actor, &new)?;
    let place = look_at_place(db, &release.service, &environment.slug, release.id)?;

    let kind = lifecycle::kind(place.as_seen_by(release.id, new.unplanned));
    let mut deployment = Deployment {
        id: DeploymentId::new(),
        service: release.service,
        environment: environment.slug.clone(),
        release_id: release.id,
        version: release.version,
        git_sha: release.git_sha,
        image_digest: release.image_digest,
        state: if environment.required_approvals > 0 { State::AwaitingApproval } else { State::Approved },
        kind,
        unplanned: new.unplanned,
        requested_by: new.requested_by.map_or_else(|| actor.name.clone(), Into::into),
        source: source.to_owned(),
        external_id: text(new.external_id),
        run_url: text(new.run_url),
        reason: text(new.reason),
        previous_id: place.live(),
        rollback_of: place.live().filter(|_| kind == Kind::Rollback),
        requested_at: actor.now,
        started_at: None,
        finished_at: None,
        revision: 1,
    };
    if new.start {
        may_start(&deployment, &place)?;
        deployment.state = State::Running;
        deployment.started_at = Some(actor.now);
    }
    let inserted = diesel::insert_into(deployments::table).values(&deployment).execute(db);
    or_conflict(inserted, || blocked(vec![running_reason(&deployment, None)]))?;
    events::record(db, actor, &deployment.about(), "requested", &deployment)?;
    Ok((deployment, true))
}

fn find_external(db: &mut Db, source: &str, external_id: Option<&str>) -> Result<Option<Deployment>, Error> {
    let Some(external_id) = external_id else { return Ok(None) };
    let named = deployments::table.filter(deployments::source.eq(source)).filter(deployments::external_id.eq(external_id));
    Ok(named.select(Deployment::as_select()).first(db).optional()?)
}

/// The release that is to be deployed: the recorded one, completed by what the caller adds; or, if allowed, a new one.
fn release_of(db: &mut Db, actor: &Actor, new: &NewDeployment) -> Result<Release, Error> {
    let known = releases::find_version(db, &new.service, &new.version)?;
    let adds = |release: &Release| {
        new.git_sha.as_deref().is_some_and(|sha| release.git_sha.as_deref() != Some(sha))
            || new.image_digest.as_deref().is_some_and(|digest| release.image_digest.as_deref() != Some(digest))
    };
    match known {
        Some(release) if !adds(&release) => Ok(release),
        None if !new.create_missing => Err(Error::not_found(&format!("release of {} with version", new.service), &new.version)),
        _ => {
            let release = NewRelease {
                service: new.service.clone(),
                version: new.version.clone(),
                git_sha: new.git_sha.clone(),
                image_digest: new.image_digest.clone(),
                committed_at: None,
                source_url: None,
                commits: None,
                create_missing: false,
            };
            Ok(releases::ensure(db, actor, release)?.0.release)
        }
    }
}

/// A place as it is in the middle of a transaction that holds its lock.
struct PlaceNow {
    live: Option<(DeploymentId, ReleaseId)>,
    running: Option<DeploymentId>,
    /// The release in question was live here some time before.
    was_live: bool,
}

impl PlaceNow {
    fn live(&self) -> Option<DeploymentId> {
        self.live.map(|(id, _)| id)
    }

    fn as_seen_by(&self, release: ReleaseId, unplanned: bool) -> Place {
        Place { is_live: self.live.is_some_and(|(_, live)| live == release), was_live: self.was_live, unplanned }
    }
}

fn look_at_place(db: &mut Db, service: &str, environment: &str, release: ReleaseId) -> Result<PlaceNow, Error> {
    let here = || deployments::table.filter(deployments::service.eq(service)).filter(deployments::environment.eq(environment));
    let current: Vec<(DeploymentId, ReleaseId, State)> = here()
        .filter(deployments::state.eq(State::Succeeded).or(deployments::state.eq(State::Running)))
        .select((deployments::id, deployments::release_id, deployments::state))
        .load(db)?;
    let in_state = |state| current.iter().find(move |row| row.2 == state);
    let was_live = here()
        .filter(deployments::release_id.eq(release))
        .filter(deployments::state.eq(State::Superseded).or(deployments::state.eq(State::RolledBack)));
    Ok(PlaceNow {
        live: in_state(State::Succeeded).map(|row| (row.0, row.1)),
        running: in_state(State::Running).map(|row| row.0),
        was_live: diesel::select(exists(was_live)).get_result(db)?,
    })
}

/// Whether a deployment may start in its place as it is now.
fn may_start(deployment: &Deployment, place: &PlaceNow) -> Result<(), Error> {
    let mut reasons = Vec::new();
    if deployment.state == State::AwaitingApproval {
        let detail = format!("{} requires approvals that release {} does not have.", deployment.environment, deployment.version);
        reasons.push(json!({"code": "approval_missing", "detail": detail}));
    }
    if let Some(running) = place.running {
        reasons.push(running_reason(deployment, Some(running)));
    }
    if reasons.is_empty() { Ok(()) } else { Err(blocked(reasons)) }
}

fn running_reason(deployment: &Deployment, running: Option<DeploymentId>) -> serde_json::Value {
    let detail = format!("Another deployment of {} to {} is running.", deployment.service, deployment.environment);
    json!({"code": "deployment_running", "detail": detail, "deployment_id": running})
}

fn blocked(reasons: Vec<serde_json::Value>) -> Error {
    let details: Vec<_> = reasons.iter().filter_map(|reason| reason["detail"].as_str()).collect();
    Error::new(Code::GateBlocked, details.join(" ")).with("reasons", reasons)
}

/// Moves a deployment as a caller asked.
fn transition(db: &mut Db, actor: &Actor, id: DeploymentId, asked: Transition) -> Result<Deployment, Error> {
    // Which service it belongs to never changes; everything else is read under the lock.
    let service: Option<String> = deployments::table.find(id).select(deployments::service).first(db).optional()?;
    services::lock(db, &service.ok_or_else(|| Error::not_found("deployment", id))?)?;
    let deployment = find(db, id)?;
    let to = match lifecycle::decide(deployment.state, asked.to, By::Caller) {
        Move::None => return Ok(deployment),
        Move::To(state) => state,
        Move::Refused(moves) => {
            let moves_text =
                if moves.is_empty() { "none".to_owned() } else { moves.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ") };
            let detail = format!("The deployment is {}; from there it has these moves: {moves_text}.", deployment.state);
            return Err(Error::new(Code::InvalidTransition, detail).with("state", deployment.state).with("moves", moves));
        }
    };
    let mut change = Change { state: Some(to), reason: Some(text(asked.reason)), ..Change::default() };
    if to == State::Running {
        let place = look_at_place(db, &deployment.service, &deployment.environment, deployment.release_id)?;
        may_start(&deployment, &place)?;
        // The place may have changed since it was requested.
        let kind = lifecycle::kind(place.as_seen_by(deployment.release_id, deployment.unplanned));
        change.kind = Some(kind);
        change.previous_id = Some(place.live());
        change.rollback_of = Some(place.live().filter(|_| kind == Kind::Rollback));
        change.started_at = Some(actor.now);
    } else {
        change.finished_at = Some(actor.now);
    }
    if to == State::Succeeded {
        retire_live(db, actor, &deployment)?;
    }
    apply(db, actor, &deployment, change)
}

/// What was live until now is superseded, or rolled back if that is what the success was for.
fn retire_live(db: &mut Db, actor: &Actor, successor: &Deployment) -> Result<(), Error> {
    let live = deployments::table
        .filter(deployments::service.eq(&successor.service))
        .filter(deployments::environment.eq(&successor.environment))
        .filter(deployments::state.eq(State::Succeeded));
    let Some(live) = live.select(Deployment::as_select()).first(db).optional()? else { return Ok(()) };
    let state = if successor.rollback_of == Some(live.id) { State::RolledBack } else { State::Superseded };
    let Move::To(state) = lifecycle::decide(live.state, state, By::Ledger) else {
        return Err(Error::internal(format!("deployment {} can't become {state}", live.id)));
    };
    apply(db, actor, &live, Change { state: Some(state), ..Change::default() })?;
    Ok(())
}

/// What a move changes. `None` leaves a column as it is.
#[derive(AsChangeset, Default)]
#[diesel(table_name = deployments)]
struct Change {
    state: Option<State>,
    kind: Option<Kind>,
    reason: Option<Option<String>>,
    previous_id: Option<Option<DeploymentId>>,
    rollback_of: Option<Option<DeploymentId>>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

fn apply(db: &mut Db, actor: &Actor, before: &Deployment, change: Change) -> Result<Deployment, Error> {
    let updated = diesel::update(deployments::table.find(before.id))
        .set((&change, deployments::revision.eq(before.revision + 1)))
        .returning(deployments::all_columns)
        .get_result::<Deployment>(db);
    let after = or_conflict(updated, || blocked(vec![running_reason(before, None)]))?;
    let verb = if after.state == State::Running { "started" } else { after.state.as_str() };
    let payload = json!({"from": before.state, "to": after.state, "reason": change.reason.flatten()});
    events::record(db, actor, &after.about(), verb, payload)?;
    Ok(after)
}
