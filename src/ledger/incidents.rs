//! Incidents: what is wrong in a place, which deployment caused it, and which one mended it.

use actix_web::{get, patch, post, web};
use diesel::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::{deployments, incident_deployments, incidents};
use crate::db::types::Timestamp;
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Operate, Read};
use crate::http::extract::{Body, Query, malformed};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::deployments::{Role, link};
use crate::ledger::events::{self, About, Entity};
use crate::ledger::ids::{DeploymentId, IncidentId};
use crate::ledger::values::{Line, Slug, given};
use crate::ledger::{environments, services};
use crate::text_enum;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create).service(show).service(change);
}

text_enum! {
    /// How bad it is.
    ImpactLevel {
        /// Nothing works.
        Critical = "critical",
        /// Something important does not work.
        Major = "major",
        /// Something works badly.
        Minor = "minor",
    }
}

/// Something that is, or was, wrong in a place.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = incidents, treat_none_as_default_value = false, treat_none_as_null = true)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e46", "service": "checkout", "environment": "production", "title": "Card payments are down",
    "severity": "critical", "detected_at": "2026-02-03T05:00:00.000000Z", "resolved_at": null, "created_by": "alice",
    "created_at": "2026-02-03T05:01:00.000000Z", "revision": 1
}))]
pub struct Incident {
    /// Its identifier.
    pub id: IncidentId,
    /// The service that it is about.
    pub service: String,
    /// Where it is wrong.
    pub environment: String,
    /// What is wrong.
    pub title: String,
    /// How bad it is.
    pub severity: ImpactLevel,
    /// When it was noticed.
    pub detected_at: Timestamp,
    /// When it was over.
    resolved_at: Option<Timestamp>,
    created_by: String,
    created_at: Timestamp,
    /// Grows with every change; the ETag.
    revision: i32,
}

/// An incident with its deployments.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e46", "service": "checkout", "environment": "production", "title": "Card payments are down",
    "severity": "critical", "detected_at": "2026-02-03T05:00:00.000000Z", "resolved_at": null, "created_by": "alice",
    "created_at": "2026-02-03T05:01:00.000000Z", "revision": 1, "caused_by": ["019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42"], "fixed_by": []
}))]
pub struct IncidentWithDeployments {
    #[serde(flatten)]
    incident: Incident,
    /// The deployments that caused it.
    caused_by: Vec<DeploymentId>,
    /// The deployments that mended it.
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

/// An incident to open.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"service": "checkout", "environment": "production", "title": "Card payments are down", "severity": "critical"}))]
pub struct NewIncident {
    service: Slug,
    environment: Slug,
    /// What is wrong.
    title: Line,
    severity: ImpactLevel,
    /// When it was noticed; now, if not said.
    detected_at: Option<Timestamp>,
    /// The deployments that caused it.
    #[serde(default, deserialize_with = "few")]
    #[schema(max_items = 100)]
    caused_by: Vec<DeploymentId>,
}

/// What to change of an incident; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"resolved": true}))]
pub struct IncidentPatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    title: Option<Line>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    severity: Option<ImpactLevel>,
    /// Deployments to add to those that caused it.
    #[serde(default, deserialize_with = "few")]
    #[schema(max_items = 100)]
    caused_by: Vec<DeploymentId>,
    /// Deployments to add to those that mended it.
    #[serde(default, deserialize_with = "few")]
    #[schema(max_items = 100)]
    fixed_by: Vec<DeploymentId>,
    /// It is over. Once said, it stays so.
    #[serde(default)]
    resolved: bool,
    /// When it was over; now, if not said. Implies `resolved`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    resolved_at: Option<Timestamp>,
}

/// At most 100 deployments.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DeploymentId>, D::Error> {
    let linked = Vec::deserialize(deserializer)?;
    if linked.len() <= 100 {
        Ok(linked)
    } else {
        Err(malformed(Code::InvalidValue, "allowed are at most 100 deployments"))
    }
}

/// What a list of incidents is ordered by.
type After = (Timestamp, IncidentId);

/// Which incidents.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Incidents of this service.
    #[param(inline)]
    service: Option<Slug>,
    /// Incidents in this environment.
    #[param(inline)]
    environment: Option<Slug>,
    /// Only those that go on (`true`), or only those that are over (`false`).
    open: Option<bool>,
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
}

/// List incidents
///
/// The latest first, without their deployments.
#[utoipa::path(tag = "incidents", operation_id = "list_incidents", security(("key" = ["read"])), params(Filter),
    responses((status = 200, body = Page<Incident>)))]
#[get("/incidents")]
async fn list(ctx: Ctx<Read>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Open an incident
///
/// Until it is resolved, nothing but a rollback and its fix may go there.
#[utoipa::path(tag = "incidents", operation_id = "create_incident", security(("key" = ["operate"])), request_body = NewIncident,
    responses((status = 201, body = IncidentWithDeployments, headers(("Location" = String), ("ETag" = String))),
        (status = 404, description = "The service, environment or a deployment does not exist.")))]
#[post("/incidents")]
async fn create(ctx: Ctx<Operate>, body: Body<NewIncident>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let found = insert(db, actor, body.0)?;
        Ok(Reply::created(found.incident.path(), &found)?.at_revision(found.incident.revision))
    })
    .await
}

/// Read an incident
#[utoipa::path(tag = "incidents", operation_id = "get_incident", security(("key" = ["read"])),
    params(("id" = IncidentId, Path, description = "The incident.")),
    responses((status = 200, body = IncidentWithDeployments, headers(("ETag" = String)))))]
#[get("/incidents/{id}")]
async fn show(ctx: Ctx<Read>, id: web::Path<IncidentId>) -> Result<Reply, Error> {
    let found = ctx
        .read(move |db| find(db, *id).and_then(|incident| with_deployments(db, incident)))
        .await?;
    Ok(Reply::ok(&found)?.at_revision(found.incident.revision))
}

/// Change an incident, link deployments to it, or resolve it
#[utoipa::path(tag = "incidents", operation_id = "update_incident", security(("key" = ["operate"])), request_body = IncidentPatch,
    params(("id" = IncidentId, Path, description = "The incident.")),
    responses((status = 200, body = IncidentWithDeployments, headers(("ETag" = String)))))]
#[patch("/incidents/{id}")]
async fn change(
    ctx: Ctx<Operate>,
    id: web::Path<IncidentId>,
    body: Body<IncidentPatch>,
) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    ctx.write(move |db, actor| {
        let before = find(db, *id)?;
        services::lock(db, &before.service)?;
        let before = find(db, *id)?;
        if_match.check(before.revision)?;
        let found = update(db, actor, before, body.0)?;
        Ok(Reply::ok(&found)?.at_revision(found.incident.revision))
    })
    .await
}

/// The incidents that go on, the first noticed first.
pub fn open(db: &mut Db) -> QueryResult<Vec<Incident>> {
    let open = incidents::table.filter(incidents::resolved_at.is_null());
    open.select(Incident::as_select()).order((incidents::detected_at, incidents::id)).load(db)
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Incident>, Error> {
    let mut query = incidents::table.select(Incident::as_select()).into_boxed::<MultiBackend>();
    if let Some(service) = &filter.service {
        query = query.filter(incidents::service.eq(service.to_string()));
    }
    if let Some(environment) = &filter.environment {
        query = query.filter(incidents::environment.eq(environment.to_string()));
    }
    match filter.open {
        Some(true) => query = query.filter(incidents::resolved_at.is_null()),
        Some(false) => query = query.filter(incidents::resolved_at.is_not_null()),
        None => {}
    }
    if let Some(Cursor((at, id))) = filter.cursor {
        query = query.filter(
            incidents::detected_at
                .lt(at)
                .or(incidents::detected_at.eq(at).and(incidents::id.lt(id))),
        );
    }
    let rows = query
        .order((incidents::detected_at.desc(), incidents::id.desc()))
        .limit(filter.limit.and_one())
        .load(db)?;
    Ok(Page::of(rows, filter.limit, |incident: &Incident| (incident.detected_at, incident.id)))
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

fn insert(db: &mut Db, actor: &Actor, new: NewIncident) -> Result<IncidentWithDeployments, Error> {
    if !services::lock(db, &new.service)? {
        return Err(services::unknown(db, &new.service)?);
    }
    environments::find(db, &new.environment)?;
    let incident = Incident {
        id: IncidentId::new(),
        service: new.service.into(),
        environment: new.environment.into(),
        title: new.title.into(),
        severity: new.severity,
        detected_at: new.detected_at.unwrap_or(actor.now),
        resolved_at: None,
        created_by: actor.name.clone(),
        created_at: actor.now,
        revision: 1,
    };
    diesel::insert_into(incidents::table).values(&incident).execute(db)?;
    link_all(db, &incident, &new.caused_by, Role::CausedBy)?;
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
    if let Some(title) = patch.title {
        incident.title = title.into();
    }
    if let Some(severity) = patch.severity {
        incident.severity = severity;
    }
    if was_open && (patch.resolved || patch.resolved_at.is_some()) {
        incident.resolved_at = Some(patch.resolved_at.unwrap_or(actor.now));
    }
    if incident.resolved_at.is_some_and(|end| end < incident.detected_at) {
        return Err(Error::field(
            Code::InvalidValue,
            "/resolved_at",
            "an incident is over after it was noticed",
        ));
    }
    link_all(db, &incident, &patch.caused_by, Role::CausedBy)?;
    link_all(db, &incident, &patch.fixed_by, Role::FixedBy)?;
    incident.revision += 1;
    diesel::update(incidents::table.find(incident.id)).set(&incident).execute(db)?;
    let verb = if was_open && incident.resolved_at.is_some() { "resolved" } else { "updated" };
    let found = with_deployments(db, incident)?;
    events::record(db, actor, &found.incident.about(), verb, &found)?;
    Ok(found)
}

fn link_all(
    db: &mut Db,
    incident: &Incident,
    linked: &[DeploymentId],
    role: Role,
) -> Result<(), Error> {
    for deployment in linked {
        if deployments::table
            .find(deployment)
            .select(deployments::id)
            .first::<DeploymentId>(db)
            .optional()?
            .is_none()
        {
            return Err(Error::not_found("deployment", deployment));
        }
        link(db, incident.id, *deployment, role)?;
    }
    Ok(())
}
