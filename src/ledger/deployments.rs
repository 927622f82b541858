//! Deployments: a release on its way into an environment. Their rows, how they are read, and how they move;
//! `requests` records them, `transitions` moves them.

use actix_web::{get, web};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::{deployments, incident_deployments};
use crate::db::types::{Json, Timestamp};
use crate::db::{Db, MultiBackend};
use crate::error::Error;
use crate::http::context::{Actor, Ctx, Read, Requires};
use crate::http::extract::Query;
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::events::{self, About, Entity, Event};
use crate::ledger::gate::Asked;
use crate::ledger::ids::{DeploymentId, IncidentId, ReleaseId};
use crate::ledger::services;
use crate::ledger::values::Slug;
use crate::rules::gate::Step;
use crate::rules::github;
use crate::rules::lifecycle::{self, By, Kind, Move, State};
use crate::{each_backend, text_enum};

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(show).service(list_events);
}

/// The source of what webhooks tell.
pub const GITHUB: &str = "github";

/// Among so many of a place's latest deployments one is looked for that belongs to a run.
const LATEST: i64 = 20;

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
    /// What was live in its place when it was requested, or when it started if it has; what it replaced, once it went live.
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
    #[allow(missing_docs, reason = "a comment here would end up in the OpenAPI document")]
    #[diesel(embed)]
    #[serde(flatten)]
    pub deployment: Deployment,
    /// What the gate decided when it was recorded, or when it started if it has; and the facts that it knew.
    #[schema(value_type = Option<Object>)]
    pub decision: Option<Json<Value>>,
}

impl Deployment {
    /// What its events are about.
    pub fn about(&self) -> About<'_> {
        About {
            entity: Entity::Deployment,
            id: &self.id,
            service: Some(&self.service),
            environment: Some(&self.environment),
        }
    }

    /// Where it is read.
    pub fn path(&self) -> String {
        format!("/v1/deployments/{}", self.id)
    }

    /// What its start asks the gate. The incident that it fixes, if any, is linked to it by then.
    pub fn asks_to_start(&self) -> Asked<'_> {
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
        [Some(&self.requested_by), self.recorded_by.as_ref()]
            .into_iter()
            .flatten()
            .any(|name| name.eq_ignore_ascii_case(person))
    }

    /// Whether it has waited longer than it may.
    pub fn is_overdue(&self) -> bool {
        self.is_overdue_at(Timestamp::now())
    }

    fn is_overdue_at(&self, now: Timestamp) -> bool {
        matches!(self.state, State::AwaitingApproval | State::Approved)
            && self.expires_at.is_some_and(|end| end <= now)
    }
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
    let page = settled(
        &ctx,
        move |db| find_all(db, &query.0),
        |page| page.items.iter().any(Deployment::is_overdue),
    )
    .await?;
    Reply::page(&page)
}

/// Read a deployment
#[utoipa::path(tag = "deployments", operation_id = "get_deployment", security(("key" = ["read"])),
    params(("id" = DeploymentId, Path, description = "The deployment.")), responses((status = 200, body = DeploymentWithDecision, headers(("ETag" = String)))))]
#[get("/deployments/{id}")]
async fn show(ctx: Ctx<Read>, id: web::Path<DeploymentId>) -> Result<Reply, Error> {
    let id = *id;
    let found =
        settled(&ctx, move |db| find(db, id), |found| found.deployment.is_overdue()).await?;
    Ok(Reply::ok(&found)?.at_revision(found.deployment.revision))
}

/// List a deployment's events
///
/// The newest first.
#[utoipa::path(tag = "deployments", operation_id = "list_deployment_events", security(("key" = ["read"])),
    params(("id" = DeploymentId, Path, description = "The deployment."), events::Paging), responses((status = 200, body = Page<Event>)))]
#[get("/deployments/{id}/events")]
async fn list_events(
    ctx: Ctx<Read>,
    id: web::Path<DeploymentId>,
    query: Query<events::Paging>,
) -> Result<Reply, Error> {
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
        query = query.filter(
            deployments::requested_at
                .lt(at)
                .or(deployments::requested_at.eq(at).and(deployments::id.lt(id))),
        );
    }
    let rows = query
        .order((deployments::requested_at.desc(), deployments::id.desc()))
        .limit(filter.limit.and_one())
        .load(db)?;
    Ok(Page::of(rows, filter.limit, |deployment: &Deployment| {
        (deployment.requested_at, deployment.id)
    }))
}

/// The deployment with this id, or 404.
pub fn find(db: &mut Db, id: DeploymentId) -> Result<DeploymentWithDecision, Error> {
    let found = deployments::table
        .find(id)
        .select(DeploymentWithDecision::as_select())
        .first(db)
        .optional()?;
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
    let is_waiting = deployments::state
        .eq(State::AwaitingApproval.word())
        .or(deployments::state.eq(State::Approved.word()));
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
pub fn expire(db: &mut Db, deployment: Deployment, now: Timestamp) -> Result<Deployment, Error> {
    if !deployment.is_overdue_at(now) {
        return Ok(deployment);
    }
    let prop = Actor { name: "prop".into(), now };
    advance(db, &prop, deployment, State::Expired, now, None)
}

/// The deployment that a source names so.
pub fn find_external(
    db: &mut Db,
    source: &str,
    external_id: Option<&str>,
) -> Result<Option<DeploymentWithDecision>, Error> {
    let Some(external_id) = external_id else { return Ok(None) };
    let named = deployments::table
        .filter(deployments::source.eq(source))
        .filter(deployments::external_id.eq(external_id));
    Ok(named.select(DeploymentWithDecision::as_select()).first(db).optional()?)
}

/// What is live in a place.
pub fn live_in(db: &mut Db, service: &str, environment: &str) -> QueryResult<Option<Deployment>> {
    let here = deployments::table
        .filter(deployments::service.eq(service))
        .filter(deployments::environment.eq(environment));
    here.filter(deployments::state.eq(State::Succeeded.word()))
        .select(Deployment::as_select())
        .first(db)
        .optional()
}

/// The deployments of a run in a place, among its latest; the newest first.
pub fn of_run(
    db: &mut Db,
    service: &str,
    environment: &str,
    run: &str,
) -> QueryResult<Vec<Deployment>> {
    let here = deployments::table
        .filter(deployments::service.eq(service))
        .filter(deployments::environment.eq(environment));
    let latest: Vec<Deployment> = here
        .select(Deployment::as_select())
        .order((deployments::requested_at.desc(), deployments::id.desc()))
        .limit(LATEST)
        .load(db)?;
    Ok(latest
        .into_iter()
        .filter(|known| known.run_url.as_deref().and_then(github::run_of) == Some(run))
        .collect())
}

/// The deployment that a webhook told of before, for what now says itself that it deploys: the same run, on its way to the
/// same place. One rollout is one deployment, and who does it knows it best.
pub fn find_witnessed(
    db: &mut Db,
    service: &str,
    environment: &str,
    run_url: Option<&str>,
) -> QueryResult<Option<Deployment>> {
    let Some(run) = run_url.and_then(github::run_of) else { return Ok(None) };
    let same_run = of_run(db, service, environment, run)?.into_iter();
    Ok(same_run.filter(|known| known.source == GITHUB).find(|known| !known.state.is_finished()))
}

/// What runs in a place.
pub fn running_in(
    db: &mut Db,
    service: &str,
    environment: &str,
) -> QueryResult<Option<Deployment>> {
    let here = deployments::table
        .filter(deployments::service.eq(service))
        .filter(deployments::environment.eq(environment));
    here.filter(deployments::state.eq(State::Running.word()))
        .select(Deployment::as_select())
        .first(db)
        .optional()
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

/// Makes a move that happened at `at`, and writes down that it was made. Every change of state goes through here, but for what
/// `requests` adopts and `transitions::correct` sets right.
pub fn advance(
    db: &mut Db,
    actor: &Actor,
    mut deployment: Deployment,
    to: State,
    at: Timestamp,
    reason: Option<String>,
) -> Result<Deployment, Error> {
    let from = deployment.state;
    if lifecycle::decide(from, to, By::Ledger) != Move::To(to) {
        return Err(Error::internal(format!(
            "deployment {} can't go from {from} to {to}",
            deployment.id
        )));
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
    let payload =
        json!({"from": from, "to": to, "reason": reason, "at": at, "ungated": deployment.ungated});
    events::record(db, actor, &deployment.about(), verb, payload)?;
    if from == State::Running {
        log_outcome(&deployment);
    }
    Ok(deployment)
}

/// A line for each deployment that ran and ended, for dashboards that count log lines. It is written before the
/// transaction is kept: one that is then lost leaves a line too many, never one too few.
pub fn log_outcome(deployment: &Deployment) {
    log::info!(
        target: "deployment",
        id:serde = deployment.id,
        service = deployment.service.as_str(),
        environment = deployment.environment.as_str(),
        version = deployment.version.as_str(),
        kind = deployment.kind.as_str(),
        state = deployment.state.as_str(),
        ungated = deployment.ungated;
        "ended"
    );
}

/// The deployments of a release that await approval in an environment.
pub fn awaiting(
    db: &mut Db,
    release: ReleaseId,
    environment: &str,
) -> QueryResult<Vec<Deployment>> {
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
pub fn link(
    db: &mut Db,
    incident: IncidentId,
    deployment: DeploymentId,
    role: Role,
) -> QueryResult<usize> {
    let row = (
        incident_deployments::incident_id.eq(incident),
        incident_deployments::deployment_id.eq(deployment),
        incident_deployments::role.eq(role),
    );
    each_backend!(db, |c| diesel::insert_into(incident_deployments::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))
}
