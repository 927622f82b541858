//! The history: append-only, written in the transaction that made it happen.

use actix_web::get;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::events;
use crate::db::types::{Json, Timestamp};
use crate::db::{Db, MultiBackend};
use crate::error::Error;
use crate::http::context::{Actor, Ctx, Read};
use crate::http::extract::Query;
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::values::{Line, Slug};
use crate::text_enum;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list);
}

text_enum! {
    /// What something happened to.
    Entity {
        /// A service.
        Service = "service",
        /// An environment.
        Environment = "environment",
        /// A release.
        Release = "release",
        /// A deployment.
        Deployment = "deployment",
        /// An approval, or a rejection.
        Approval = "approval",
        /// A freeze, or an override of one.
        Freeze = "freeze",
        /// An incident.
        Incident = "incident",
        /// The gate of a place: an attempt that it blocked. Its id is `service/environment`.
        Gate = "gate",
        /// A key.
        Key = "key",
    }
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema, Queryable, Selectable)]
#[diesel(table_name = events)]
#[schema(example = json!({
    "seq": 7, "at": "2026-02-03T04:05:06.000000Z", "actor": "pipeline", "action": "deployment.succeeded", "entity": "deployment",
    "entity_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout", "environment": "production",
    "payload": {"from": "running", "to": "succeeded", "reason": null}
}))]
pub struct Event {
    /// Grows with every event.
    seq: i64,
    /// When.
    at: Timestamp,
    /// The name of the key that did it, or `prop` itself.
    actor: String,
    /// What happened, as in `deployment.started`.
    action: String,
    /// What it happened to.
    entity: Entity,
    /// Which one: its id, or its slug.
    entity_id: String,
    /// The service it belongs to, if any.
    service: Option<String>,
    /// The environment it belongs to, if any.
    environment: Option<String>,
    /// What changed.
    #[schema(value_type = Object)]
    payload: Json<Value>,
}

/// What an event is about.
pub struct About<'a> {
    /// What kind of thing.
    pub entity: Entity,
    /// Which one.
    pub id: &'a dyn std::fmt::Display,
    /// The service it belongs to.
    pub service: Option<&'a str>,
    /// The environment it belongs to.
    pub environment: Option<&'a str>,
}

/// Writes down what `actor` did: `verb` as in `started`, and what changed by it.
pub fn record(
    db: &mut Db,
    actor: &Actor,
    about: &About<'_>,
    verb: &str,
    payload: impl Serialize,
) -> Result<(), Error> {
    let payload = serde_json::to_value(payload).map_err(Error::internal)?;
    diesel::insert_into(events::table)
        .values((
            events::at.eq(actor.now),
            events::actor.eq(&actor.name),
            events::action.eq(format!("{}.{verb}", about.entity)),
            events::entity.eq(about.entity),
            events::entity_id.eq(about.id.to_string()),
            events::service.eq(about.service),
            events::environment.eq(about.environment),
            events::payload.eq(Json(payload)),
        ))
        .execute(db)?;
    Ok(())
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Events of this kind of thing.
    entity: Option<Entity>,
    /// Events of the thing with this id or slug.
    entity_id: Option<Line>,
    /// Events of this service.
    service: Option<Slug>,
    /// Events of this environment.
    environment: Option<Slug>,
    /// What this actor did.
    actor: Option<Line>,
    /// What happened in this way, as in `deployment.started`.
    action: Option<Line>,
    /// At this time or later.
    since: Option<Timestamp>,
    /// Before this time.
    until: Option<Timestamp>,
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<i64>>,
}

/// List events
///
/// The newest first.
#[utoipa::path(tag = "events", operation_id = "list_events", security(("key" = ["read"])), params(Filter), responses((status = 200, body = Page<Event>)))]
#[get("/events")]
async fn list(ctx: Ctx<Read>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find(db, &query.0)).await?;
    Reply::page(&page)
}

fn find(db: &mut Db, filter: &Filter) -> Result<Page<Event>, Error> {
    let mut query = events::table.select(Event::as_select()).into_boxed::<MultiBackend>();
    if let Some(entity) = filter.entity {
        query = query.filter(events::entity.eq(entity));
    }
    if let Some(id) = &filter.entity_id {
        query = query.filter(events::entity_id.eq(id.to_string()));
    }
    if let Some(service) = &filter.service {
        query = query.filter(events::service.eq(service.to_string()));
    }
    if let Some(environment) = &filter.environment {
        query = query.filter(events::environment.eq(environment.to_string()));
    }
    if let Some(actor) = &filter.actor {
        query = query.filter(events::actor.eq(actor.to_string()));
    }
    if let Some(action) = &filter.action {
        query = query.filter(events::action.eq(action.to_string()));
    }
    if let Some(since) = filter.since {
        query = query.filter(events::at.ge(since));
    }
    if let Some(until) = filter.until {
        query = query.filter(events::at.lt(until));
    }
    if let Some(Cursor(seq)) = filter.cursor {
        query = query.filter(events::seq.lt(seq));
    }
    let rows = query.order(events::seq.desc()).limit(filter.limit.and_one()).load(db)?;
    Ok(Page::of(rows, filter.limit, |event| event.seq))
}

/// Which page of one thing's events.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct Paging {
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<i64>>,
}

impl Paging {
    /// Whether this is the first page.
    pub fn is_first(&self) -> bool {
        self.cursor.is_none()
    }
}

/// A page of the events of one thing.
pub fn of(
    db: &mut Db,
    entity: Entity,
    id: impl std::fmt::Display,
    paging: &Paging,
) -> Result<Page<Event>, Error> {
    let of_it = events::table
        .filter(events::entity.eq(entity))
        .filter(events::entity_id.eq(id.to_string()));
    let mut query = of_it.select(Event::as_select()).into_boxed::<MultiBackend>();
    if let Some(Cursor(seq)) = paging.cursor {
        query = query.filter(events::seq.lt(seq));
    }
    let rows = query.order(events::seq.desc()).limit(paging.limit.and_one()).load(db)?;
    Ok(Page::of(rows, paging.limit, |event| event.seq))
}
