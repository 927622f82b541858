//! The history: append-only events. Each event is written in the transaction of the change it
//! records.

use diesel::dsl::AsSelect;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::QueryFragment;
use diesel::sqlite::Sqlite;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::db::columns::{Json, lower};
use crate::db::pages::All;
use crate::db::schema::events;
use crate::db::{Db, MultiBackend, chain, kept};
use crate::error::Error;
use crate::http::caller::Scope;
use crate::http::context::{Actor, Ctx, Read};
use crate::http::pagination::{Everything, List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::types::ids::{DeploymentId, KeyId};
use crate::types::time::Timestamp;
use crate::types::values::{ShortText, Slug};
use crate::{conditions, each_backend, newest_first, read_along, text_enum};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(list, __path_list);
}

text_enum! {
    /// The kind of resource that an event is about.
    Entity {
        /// A service was created or changed.
        Service = "service",
        /// An environment was created or changed.
        Environment = "environment",
        /// A release was recorded, completed or scanned.
        Release = "release",
        /// A deployment was recorded, or its state has changed.
        Deployment = "deployment",
        /// A release was approved or rejected.
        Approval = "approval",
        /// A freeze was created, changed, ended or overridden.
        Freeze = "freeze",
        /// An incident was opened, changed or resolved.
        Incident = "incident",
        /// The gate has blocked a deployment. The entity id is `service/environment`.
        Gate = "gate",
        /// An API key was created or revoked. Only for keys with the scope `admin`.
        Key = "key",
    }
}

/// An event: one entry of the history.
#[derive(Debug, Serialize, ToSchema, Queryable, Selectable)]
#[diesel(table_name = events)]
#[schema(example = json!({
    "seq": 7, "at": "2026-02-03T04:05:06.000000Z", "actor": "pipeline",
    "action": "deployment.succeeded", "entity": "deployment",
    "entity_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout",
    "environment": "production",
    "payload": {"from": "running", "to": "succeeded", "reason": null},
    "key_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e40",
    "request_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e4a"
}))]
pub struct Event {
    /// The number of the event, which increases with every event.
    pub seq: i64,
    /// When the event was recorded.
    pub at: Timestamp,
    /// Who caused the event: the name of a key, `github:` and a login for a webhook, or `prop`
    /// itself.
    actor: String,
    /// What happened: the kind of resource and a verb, such as `deployment.started`.
    action: String,
    /// The kind of resource that the event is about.
    entity: Entity,
    /// The identifier or slug of that resource.
    entity_id: String,
    /// The slug of the service that the resource belongs to. `null` when it belongs to none.
    service: Option<Slug>,
    /// The slug of the environment that the resource belongs to. `null` when it belongs to none.
    environment: Option<Slug>,
    /// What has changed, as an object that depends on `action`.
    #[schema(value_type = Object)]
    payload: Json<Value>,
    /// The identifier of the key that caused the event, which is unique unlike its name. `null` for
    /// webhooks, for prop itself, and for events that an earlier version of prop recorded.
    key_id: Option<KeyId>,
    /// The id of the request that caused the event, as in its response and in the access log.
    /// `null` for prop itself, and for events that an earlier version of prop recorded.
    request_id: Option<String>,
}

/// The resource that an event is about.
pub struct About<'a> {
    /// The kind of resource.
    pub entity: Entity,
    /// Its identifier or slug.
    pub id: &'a dyn std::fmt::Display,
    /// The slug of the service that it belongs to, if any.
    pub service: Option<&'a str>,
    /// The slug of the environment that it belongs to, if any.
    pub environment: Option<&'a str>,
}

/// An event that is to be written in the transaction of the change that it records.
#[derive(Debug, Insertable)]
#[diesel(table_name = events, treat_none_as_default_value = false)]
pub struct NewEvent {
    at: Timestamp,
    actor: String,
    action: String,
    entity: Entity,
    entity_id: String,
    service: Option<String>,
    environment: Option<String>,
    payload: Json<Value>,
    key_id: Option<KeyId>,
    request_id: Option<String>,
}

impl NewEvent {
    /// What `actor` did (`verb`, such as `started`), and what has changed (`payload`).
    ///
    /// # Errors
    /// When the payload is no JSON.
    pub fn new(
        actor: &Actor,
        about: &About<'_>,
        verb: &str,
        payload: impl Serialize,
    ) -> Result<Self, Error> {
        Ok(Self {
            at: actor.now,
            actor: actor.name.clone(),
            action: format!("{}.{verb}", about.entity),
            entity: about.entity,
            entity_id: about.id.to_string(),
            service: about.service.map(Into::into),
            environment: about.environment.map(Into::into),
            payload: Json(serde_json::to_value(payload).map_err(Error::internal)?),
            key_id: actor.key_id,
            request_id: actor.request_id.clone(),
        })
    }
}

/// Records an event: what `actor` did (`verb`, such as `started`), and what has changed
/// (`payload`).
pub fn record(
    db: &mut Db,
    actor: &Actor,
    about: &About<'_>,
    verb: &str,
    payload: impl Serialize,
) -> Result<(), Error> {
    Ok(write(db, &[NewEvent::new(actor, about, verb, payload)?])?)
}

/// Writes events, in this order.
///
/// # Errors
/// That of the database.
pub fn write(db: &mut Db, events: &[NewEvent]) -> QueryResult<()> {
    struct Insert;
    for event in events {
        let insert = diesel::insert_into(events::table).values(event);
        each_backend!(db, |c| kept::Fixed::new(insert, Insert).execute(c))?;
    }
    Ok(())
}

/// Writes many events, in this order: on PostgreSQL with one statement, which is not kept.
///
/// # Errors
/// That of the database.
pub fn write_all(db: &mut Db, events: &[NewEvent]) -> QueryResult<()> {
    let insert = diesel::insert_into(events::table).values(events);
    chain::execute_many(db, insert, |db| write(db, events))
}

/// How many events are written together with what they record. The rare change with more writes
/// them one by one: each number makes a statement of its own, which every connection keeps.
const TOGETHER: usize = 3;

/// Runs a statement that writes, and writes its events, in this order: on PostgreSQL as one
/// statement.
///
/// # Errors
/// That of the database.
pub fn write_with<W>(db: &mut Db, written: W, events: &[NewEvent]) -> QueryResult<()>
where
    W: QueryFragment<Pg> + QueryFragment<Sqlite>,
{
    let (together, more) = events.split_at(events.len().min(TOGETHER));
    if together.is_empty() {
        kept::execute(db, written)?;
        return Ok(());
    }
    let insert = diesel::insert_into(events::table).values(together);
    chain::execute(db, written, insert, |db| write(db, together))?;
    write(db, more)
}

/// Runs a statement that makes room in a unique index, one that takes it
/// ([`chain::has_room`]), and writes the events of both, in this order: on PostgreSQL as one
/// statement. `one_by_one` does all of it otherwise.
///
/// # Errors
/// That of the database.
pub fn write_in_room<R, W>(
    db: &mut Db,
    (room, written): (R, W),
    events: &[NewEvent],
    one_by_one: impl FnOnce(&mut Db) -> QueryResult<()>,
) -> QueryResult<()>
where
    R: QueryFragment<Pg>,
    W: QueryFragment<Pg>,
{
    if !(1..=TOGETHER).contains(&events.len()) {
        return one_by_one(db);
    }
    let insert = diesel::insert_into(events::table).values(events);
    chain::execute_in_room(db, (room, written, insert), one_by_one)
}
/// The sort key of the list of events.
pub type After = (Timestamp, i64);

/// The query parameters of the list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Only events about this kind of resource.
    entity: Option<Entity>,
    /// Only events about the resource with this identifier or slug.
    entity_id: Option<ShortText>,
    /// Only events of this service.
    service: Option<Slug>,
    /// Only events of this environment.
    environment: Option<Slug>,
    /// Only events that this actor caused. The case of letters does not matter.
    actor: Option<ShortText>,
    /// Only events with this action, such as `deployment.started`.
    action: Option<ShortText>,
    /// Only events that were recorded at this time or later.
    since: Option<Timestamp>,
    /// Only events that were recorded before this time.
    until: Option<Timestamp>,
}

/// List events
///
/// Answers a page of the events that match all parameters, the newest first. The events about keys
/// are only for keys with the scope `admin`, as the keys themselves: for others they are left out,
/// and `entity=key` fails with 403 (`missing_scope`).
///
/// A page looks at no more than 5,000 events that match `since`, `until` and the first that is
/// given of `entity_id`, `service`, `actor` and `action`. Then it ends, with fewer items or none,
/// and `next` continues with older ones.
#[utoipa::path(get, path = "/events",
    tag = "events", operation_id = "list_events", security(("key" = ["read"])),
    params(Filter, Paging),
    responses((status = 200, description = "One page of the events.", body = Page<Event>)))]
async fn list(ctx: Ctx<Read>, params: List<Filter, After>) -> Result<Reply, Error> {
    if params.filter.entity == Some(Entity::Key) {
        ctx.require(&[Scope::Admin])?;
    }
    let with_keys = ctx.may(Scope::Admin);
    ctx.read(move |db| Reply::page(&find_all(db, &params, with_keys)?)).await
}

fn find_all(
    db: &mut Db,
    params: &List<Filter, After>,
    with_keys: bool,
) -> Result<Page<Event>, Error> {
    let (along, rest) = read_along!(params.filter; since, until; entity_id, service, actor, action);
    let query = || all().filter(conditions(&along));
    let mut rest = conditions(&rest);
    if !with_keys {
        rest.0.push(Box::new(events::entity.ne(Entity::Key)));
    }
    let of_all = Filter { since: None, until: None, ..along.clone() } == Filter::default();
    newest_first!(db, params, Event, query, rest, events::{at, seq}, of_all)
}

fn all<'a>() -> events::BoxedQuery<'a, MultiBackend, AsSelect<Event, MultiBackend>> {
    events::table.select(Event::as_select()).into_boxed()
}

fn conditions(filter: &Filter) -> All<'_> {
    conditions!(
        filter.entity => |it| events::entity.eq(it),
        &filter.entity_id => |it| events::entity_id.eq(it),
        &filter.service => |it| events::service.eq(it),
        &filter.environment => |it| events::environment.eq(it),
        &filter.actor => |it| lower(events::actor.nullable()).eq(lower(&**it)),
        &filter.action => |it| events::action.eq(it),
        filter.since => |it| events::at.ge(it),
        filter.until => |it| events::at.lt(it))
}

/// A page of the events about one deployment, the newest first.
///
/// # Errors
/// That the database is unavailable.
pub fn of_deployment(
    db: &mut Db,
    id: DeploymentId,
    params: &List<Everything, After>,
) -> Result<Page<Event>, Error> {
    let of_it = events::table
        .filter(events::entity.eq(Entity::Deployment))
        .filter(events::entity_id.eq(id.to_string()))
        .select(Event::as_select());
    newest_first!(db, params, of_it.into_boxed::<MultiBackend>(), events::{at, seq})
}
