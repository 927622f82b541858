//! Incidents: a problem of a service in an environment, with the deployments that caused and fixed
//! it.

use actix_web::web;
use diesel::dsl::AsSelect;
use diesel::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};

use crate::db::pages::All;
use crate::db::schema::{incident_deployments, incidents};
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Author, Ctx, Operate, Read};
use crate::http::extract::{Body, malformed};
use crate::http::pagination::{List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::{self, Role, link, store};
use crate::ledger::events::{self, About, Entity};
use crate::ledger::patch::{apply, given};
use crate::ledger::times::reported_time;
use crate::ledger::{environments, services};
use crate::types::ids::{DeploymentId, IncidentId};
use crate::types::time::Timestamp;
use crate::types::values::{Slug, Title};
use crate::{conditions, newest_first, text_enum};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config
        .add(list, __path_list)
        .add(create, __path_create)
        .add(show, __path_show)
        .add(change, __path_change)
        .add(remove_link, __path_remove_link);
}

text_enum! {
    /// The impact of an incident on users.
    ImpactLevel {
        /// The service does not work at all.
        Critical = "critical",
        /// An important part of the service does not work.
        Major = "major",
        /// The service works with limitations.
        Minor = "minor",
    }
}

/// An incident: a problem of a service in an environment, from its detection to its end.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = incidents, treat_none_as_default_value = false, treat_none_as_null = true)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e46", "service": "checkout",
    "environment": "production", "title": "Card payments are down",
    "severity": "critical", "detected_at": "2026-02-03T05:00:00.000000Z", "resolved_at": null,
    "created_by": "alice",
    "created_at": "2026-02-03T05:01:00.000000Z", "revision": 1
}))]
pub struct Incident {
    /// The identifier of the incident.
    pub id: IncidentId,
    /// The slug of the service that has the problem.
    pub service: Slug,
    /// The slug of the environment where it has the problem.
    pub environment: Slug,
    /// What is wrong, in one line.
    pub title: Title,
    /// The impact of the incident on users.
    pub severity: ImpactLevel,
    /// When the incident was detected.
    pub detected_at: Timestamp,
    /// When the incident was resolved. `null` while it is open.
    resolved_at: Option<Timestamp>,
    /// The name of the key that opened the incident.
    created_by: String,
    /// When the incident was recorded in prop.
    created_at: Timestamp,
    /// The number of the current version, which each change increases. It is also the `ETag`.
    revision: i32,
}

/// An incident with its deployments.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e46", "service": "checkout",
    "environment": "production", "title": "Card payments are down",
    "severity": "critical", "detected_at": "2026-02-03T05:00:00.000000Z", "resolved_at": null,
    "created_by": "alice",
    "created_at": "2026-02-03T05:01:00.000000Z", "revision": 1,
    "caused_by": ["019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42"], "fixed_by": []
}))]
pub struct IncidentWithDeployments {
    #[serde(flatten)]
    incident: Incident,
    /// The identifiers of the deployments that caused the incident.
    caused_by: Vec<DeploymentId>,
    /// The identifiers of the deployments that fixed the incident.
    fixed_by: Vec<DeploymentId>,
}

impl Incident {
    fn about(&self) -> About<'_> {
        About {
            entity: Entity::Incident,
            id: &self.id,
            service: Some(&self.service),
            environment: Some(&self.environment),
        }
    }

    fn path(&self) -> String {
        format!("/v1/incidents/{}", self.id)
    }
}

/// An incident that is to be opened.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"service": "checkout", "environment": "production",
    "title": "Card payments are down", "severity": "critical"}))]
pub struct NewIncident {
    /// The slug of the service that has the problem.
    service: Slug,
    /// The slug of the environment where it has the problem.
    environment: Slug,
    /// What is wrong, in one line.
    title: Title,
    /// The impact of the incident on users.
    severity: ImpactLevel,
    /// When the incident was detected. Now, if absent or `null`. Up to a minute in the future
    /// counts as now.
    detected_at: Option<Timestamp>,
    /// The identifiers of the deployments that caused the incident, at most 100. None, if absent.
    #[serde(default, deserialize_with = "deserialize_links")]
    #[schema(max_items = 100)]
    caused_by: Vec<DeploymentId>,
}

/// A change of an incident. Fields that are absent stay as they are.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"resolved": true}))]
pub struct IncidentPatch {
    /// The new title: what is wrong, in one line.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    title: Option<Title>,
    /// The new impact on users.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    severity: Option<ImpactLevel>,
    /// The identifiers of deployments to add to those that caused the incident, at most 100.
    #[serde(default, deserialize_with = "deserialize_links")]
    #[schema(max_items = 100)]
    caused_by: Vec<DeploymentId>,
    /// The identifiers of deployments to add to those that fixed the incident, at most 100.
    #[serde(default, deserialize_with = "deserialize_links")]
    #[schema(max_items = 100)]
    fixed_by: Vec<DeploymentId>,
    /// The identifiers of deployments to remove from those that caused the incident, at most 100.
    #[serde(default, deserialize_with = "deserialize_links")]
    #[schema(max_items = 100)]
    not_caused_by: Vec<DeploymentId>,
    /// The identifiers of deployments to remove from those that fixed the incident, at most 100.
    #[serde(default, deserialize_with = "deserialize_links")]
    #[schema(max_items = 100)]
    not_fixed_by: Vec<DeploymentId>,
    /// `true` resolves it; `false` reopens one that was resolved by mistake.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    resolved: Option<bool>,
    /// When it was resolved; now when absent. Implies `"resolved": true`; on a resolved incident it
    /// corrects the time.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    resolved_at: Option<Timestamp>,
}

impl IncidentPatch {
    /// The deployments that the change links or unlinks.
    fn linked(&self) -> Vec<DeploymentId> {
        [&self.caused_by, &self.fixed_by, &self.not_caused_by, &self.not_fixed_by]
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }
}

/// Deserializes a list of at most 100 deployments.
fn deserialize_links<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<DeploymentId>, D::Error> {
    let linked = Vec::deserialize(deserializer)?;
    if linked.len() <= 100 {
        Ok(linked)
    } else {
        Err(malformed(Code::InvalidValue, "at most 100 deployments are allowed"))
    }
}

/// The sort key of the list of incidents.
type After = (Timestamp, IncidentId);

/// The query parameters of the list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Only incidents of this service.
    #[param(inline)]
    service: Option<Slug>,
    /// Only incidents in this environment.
    #[param(inline)]
    environment: Option<Slug>,
    /// Only open incidents (`true`), or only resolved ones (`false`). All incidents, if absent.
    open: Option<bool>,
}

/// List incidents
///
/// Answers a page of the incidents that match all parameters, without their deployments. The
/// incident that was detected last comes first.
///
/// Without `open=true`, a page looks at no more than 5,000 incidents. Then it ends, with fewer
/// items or none, and `next` continues with older ones.
#[utoipa::path(get, path = "/incidents",
    tag = "incidents", operation_id = "list_incidents", security(("key" = ["read"])),
    params(Filter, Paging),
    responses((status = 200, description = "One page of the incidents.", body = Page<Incident>)))]
async fn list(ctx: Ctx<Read>, params: List<Filter, After>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::page(&find_all(db, &params)?)).await
}

/// Open an incident
///
/// Records an incident and answers it. Until it is resolved, the gate allows only rollbacks and the
/// fix in this place. Each request opens another incident. Fails with 404 when the service, the
/// environment or a deployment does not exist.
#[utoipa::path(post, path = "/incidents",
    tag = "incidents", operation_id = "create_incident", security(("key" = ["operate"])),
    request_body = NewIncident,
    responses(
        (status = 201, description = "The incident that was opened.",
            body = IncidentWithDeployments, headers(("Location" = String), ("ETag" = String))),
        (status = 404, description = "The service, environment or a deployment does not exist."),
        (status = 422,
            description = "The body is malformed, or `detected_at` is more than a minute in the \
                future (`invalid_value`).")))]
async fn create(ctx: Ctx<Operate>, body: Body<NewIncident>) -> Result<Reply, Error> {
    ctx.post(move |db, author| {
        let found = insert(db, author, body.0.clone())?;
        Ok(Reply::created(found.incident.path(), &found)?.at_revision(found.incident.revision))
    })
    .await
}

/// Read an incident
///
/// Answers the incident with the deployments that caused and fixed it.
#[utoipa::path(get, path = "/incidents/{id}",
    tag = "incidents", operation_id = "get_incident", security(("key" = ["read"])),
    params(("id" = IncidentId, Path, description = "The identifier of the incident.")),
    responses((status = 200, description = "The incident with its deployments.",
        body = IncidentWithDeployments, headers(("ETag" = String)))))]
async fn show(ctx: Ctx<Read>, id: web::Path<IncidentId>) -> Result<Reply, Error> {
    ctx.read(move |db| {
        let incident = find(db, *id)?;
        let found = with_deployments(db, incident)?;
        Ok(Reply::ok(&found)?.at_revision(found.incident.revision))
    })
    .await
}

/// Change or resolve an incident
///
/// Sets the fields in the body, links deployments to the incident, or resolves it, and answers the
/// incident. A repeat sets the same values again. Fails with 404 when a deployment does not exist.
/// With `If-Match`, it fails with 412 when somebody else has changed the incident since you read
/// it.
#[utoipa::path(patch, path = "/incidents/{id}",
    tag = "incidents", operation_id = "update_incident", security(("key" = ["operate"])),
    request_body = IncidentPatch,
    params(("id" = IncidentId, Path, description = "The identifier of the incident.")),
    responses(
        (status = 200, description = "The incident after the change.",
            body = IncidentWithDeployments, headers(("ETag" = String))),
        (status = 422, description = "The body is malformed, `resolved_at` is before the detection \
            or more than a minute in the future, or `resolved` is false beside it \
            (`invalid_value`).")))]
async fn change(
    ctx: Ctx<Operate>,
    id: web::Path<IncidentId>,
    body: Body<IncidentPatch>,
) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    ctx.write(move |db, author| {
        let (actor, before) = locked(db, author, *id, &body.0.linked())?;
        if_match.check(before.revision)?;
        let found = update(db, &actor, before, body.0.clone())?;
        Ok(Reply::ok(&found)?.at_revision(found.incident.revision))
    })
    .await
}

/// Remove a deployment from an incident
///
/// For a link that was set by mistake: the deployment counts neither as the cause nor as the fix of
/// this incident any more, and its kind and the measures follow. The history keeps both facts. 404
/// when the two are not linked.
#[utoipa::path(delete, path = "/incidents/{id}/deployments/{deployment_id}",
    tag = "incidents", operation_id = "unlink_deployment",
    security(("key" = ["operate"])),
    params(("id" = IncidentId, Path, description = "The identifier of the incident."),
        ("deployment_id" = DeploymentId, Path,
            description = "The identifier of the linked deployment.")),
    responses((status = 200, body = IncidentWithDeployments, headers(("ETag" = String)))))]
async fn remove_link(
    ctx: Ctx<Operate>,
    path: web::Path<(IncidentId, DeploymentId)>,
) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    let (id, deployment) = path.into_inner();
    ctx.write(move |db, author| {
        let (actor, mut incident) = locked(db, author, id, &[deployment])?;
        if_match.check(incident.revision)?;
        unlink(db, &actor, &incident, deployment, &[Role::CausedBy, Role::FixedBy])?;
        incident.revision += 1;
        diesel::update(incidents::table.find(id)).set(&incident).execute(db)?;
        let found = with_deployments(db, incident)?;
        events::record(db, &actor, &found.incident.about(), "unlinked", &found)?;
        Ok(Reply::ok(&found)?.at_revision(found.incident.revision))
    })
    .await
}

/// The incident, in the lock of its service and of those of the deployments to link, whose places
/// may be derived again; and the author with the time of the transaction.
fn locked(
    db: &mut Db,
    author: &Author,
    id: IncidentId,
    linked: &[DeploymentId],
) -> Result<(Actor, Incident), Error> {
    let service = find(db, id)?.service;
    let actor = lock_services(db, author, service, linked)?;
    Ok((actor, find(db, id)?))
}

fn lock_services(
    db: &mut Db,
    author: &Author,
    service: Slug,
    linked: &[DeploymentId],
) -> Result<Actor, Error> {
    let mut services = BTreeSet::from([service]);
    if !linked.is_empty() {
        services.extend(deployments::services_of(db, linked)?);
    }
    Ok(services::lock_all(db, author, services)?)
}

/// The incidents that go on, the first noticed first.
pub fn open(db: &mut Db) -> QueryResult<Vec<Incident>> {
    let open = incidents::table.filter(incidents::resolved_at.is_null());
    open.select(Incident::as_select()).order((incidents::detected_at, incidents::id)).load(db)
}

fn find_all(db: &mut Db, params: &List<Filter, After>) -> Result<Page<Incident>, Error> {
    let (along, rest) = match params.filter.open {
        // Few are open, whatever the length of the history.
        Some(true) => (params.filter.clone(), Filter::default()),
        _ => (Filter::default(), params.filter.clone()),
    };
    let query = || all().filter(conditions(&along));
    newest_first!(db, params, Incident, query, conditions(&rest), incidents::{detected_at, id})
}

fn all<'a>() -> incidents::BoxedQuery<'a, MultiBackend, AsSelect<Incident, MultiBackend>> {
    incidents::table.select(Incident::as_select()).into_boxed()
}

fn conditions(filter: &Filter) -> All<'_> {
    conditions!(
        &filter.service => |it| incidents::service.eq(it),
        &filter.environment => |it| incidents::environment.eq(it),
        filter.open.filter(|open| *open) => |_it| incidents::resolved_at.is_null(),
        filter.open.filter(|open| !open) => |_it| incidents::resolved_at.is_not_null())
}

fn find(db: &mut Db, id: IncidentId) -> Result<Incident, Error> {
    let found = incidents::table.find(id).select(Incident::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("incident", id))
}

fn with_deployments(db: &mut Db, incident: Incident) -> Result<IncidentWithDeployments, Error> {
    let linked: Vec<(DeploymentId, Role)> = incident_deployments::table
        .filter(incident_deployments::incident_id.eq(incident.id))
        .select((incident_deployments::deployment_id, incident_deployments::role))
        .order(incident_deployments::deployment_id)
        .load(db)?;
    let in_role = |role| linked.iter().filter(|link| link.1 == role).map(|link| link.0).collect();
    Ok(IncidentWithDeployments {
        caused_by: in_role(Role::CausedBy),
        fixed_by: in_role(Role::FixedBy),
        incident,
    })
}

fn insert(
    db: &mut Db,
    author: &Author,
    new: NewIncident,
) -> Result<IncidentWithDeployments, Error> {
    let actor = &lock_services(db, author, new.service.clone(), &new.caused_by)?;
    services::find(db, &new.service)?;
    environments::find(db, &new.environment)?;
    let incident = Incident {
        id: IncidentId::new(),
        service: new.service,
        environment: new.environment,
        title: new.title,
        severity: new.severity,
        detected_at: match new.detected_at {
            Some(at) => reported_time(at, "/detected_at", actor.now)?,
            None => actor.now,
        },
        resolved_at: None,
        created_by: actor.name.clone(),
        created_at: actor.now,
        revision: 1,
    };
    diesel::insert_into(incidents::table).values(&incident).execute(db)?;
    link_all(db, actor, &incident, &new.caused_by, Role::CausedBy)?;
    let found = with_deployments(db, incident)?;
    events::record(db, actor, &found.incident.about(), "opened", &found)?;
    Ok(found)
}

fn update(
    db: &mut Db,
    actor: &Actor,
    mut incident: Incident,
    patch: IncidentPatch,
) -> Result<IncidentWithDeployments, Error> {
    let was_open = incident.resolved_at.is_none();
    apply(&mut incident.title, patch.title);
    apply(&mut incident.severity, patch.severity);
    incident.resolved_at = match (patch.resolved, patch.resolved_at) {
        (Some(false), Some(_)) => {
            let detail = "contradicts `resolved_at`, which resolves the incident";
            return Err(Error::field(Code::InvalidValue, "/resolved", detail));
        }
        (Some(false), None) => None,
        (_, Some(at)) => Some(reported_time(at, "/resolved_at", actor.now)?),
        // An earlier version took times of detection that have not come yet.
        (Some(true), None) => incident.resolved_at.or(Some(actor.now.max(incident.detected_at))),
        (None, None) => incident.resolved_at,
    };
    if incident.resolved_at.is_some_and(|end| end < incident.detected_at) {
        return Err(Error::field(
            Code::InvalidValue,
            "/resolved_at",
            "must not be earlier than the detection of the incident",
        ));
    }
    link_all(db, actor, &incident, &patch.caused_by, Role::CausedBy)?;
    link_all(db, actor, &incident, &patch.fixed_by, Role::FixedBy)?;
    for id in &patch.not_caused_by {
        unlink(db, actor, &incident, *id, &[Role::CausedBy])?;
    }
    for id in &patch.not_fixed_by {
        unlink(db, actor, &incident, *id, &[Role::FixedBy])?;
    }
    incident.revision += 1;
    diesel::update(incidents::table.find(incident.id)).set(&incident).execute(db)?;
    let verb = match (was_open, incident.resolved_at) {
        (true, Some(_)) => "resolved",
        (false, None) => "reopened",
        _ => "updated",
    };
    let found = with_deployments(db, incident)?;
    events::record(db, actor, &found.incident.about(), verb, &found)?;
    Ok(found)
}

fn link_all(
    db: &mut Db,
    actor: &Actor,
    incident: &Incident,
    linked: &[DeploymentId],
    role: Role,
) -> Result<(), Error> {
    for id in linked {
        let deployment = deployments::find(db, *id)?.deployment;
        link(db, incident.id, *id, role)?;
        store::refresh(db, actor, deployment)?;
    }
    Ok(())
}

/// Removes a deployment's links to an incident in these roles.
///
/// # Errors
/// `not_found` when there is no such link.
fn unlink(
    db: &mut Db,
    actor: &Actor,
    incident: &Incident,
    id: DeploymentId,
    roles: &[Role],
) -> Result<(), Error> {
    let deployment = deployments::find(db, id)?.deployment;
    let links = incident_deployments::table
        .filter(incident_deployments::incident_id.eq(incident.id))
        .filter(incident_deployments::deployment_id.eq(id))
        .filter(incident_deployments::role.eq_any(roles));
    if diesel::delete(links).execute(db)? == 0 {
        return Err(Error::not_found("link of this incident to deployment", id));
    }
    store::refresh(db, actor, deployment)?;
    Ok(())
}
