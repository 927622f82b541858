//! Freezes: periods when deployments are blocked. An override lets one deployment pass a freeze.

use actix_web::web;
use diesel::dsl::AsSelect;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use crate::db::columns::Json;
use crate::db::pages::All;
use crate::db::schema::{freeze_overrides, freezes};
use crate::db::{Db, MultiBackend, locks};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Author, Ctx, Operate, Override, Read};
use crate::http::extract::{Body, malformed};
use crate::http::pagination::{List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::patch::{apply, given, nullable};
use crate::ledger::{environments, releases, services};
use crate::rules::schedule::{Day, Schedule, Until, Weekly};
use crate::types::ids::{DeploymentId, FreezeId, OverrideId};
use crate::types::time::Timestamp;
use crate::types::values::{ClockTime, Digest, Slug, Title, Version, Zone};
use crate::{conditions, newest_first};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config
        .add(list, __path_list)
        .add(create, __path_create)
        .add(show, __path_show)
        .add(change, __path_change)
        .add(create_override, __path_create_override);
}

/// A freeze: a period when deployments of a service or to an environment are blocked.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = freezes, treat_none_as_default_value = false, treat_none_as_null = true)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e44", "environment": "production", "service": null,
    "reason": "Weekend",
    "starts_at": "2026-02-03T04:05:06.000000Z", "ends_at": null,
    "weekly": {"days": ["fri"], "from": "18:00", "to": "08:00", "time_zone": "Asia/Kolkata"},
    "allow_rollback": true, "ended_at": null,
    "created_by": "alice", "created_at": "2026-02-03T04:05:06.000000Z", "revision": 1
}))]
pub struct Freeze {
    /// The identifier of the freeze.
    pub id: FreezeId,
    /// The slug of the environment that is frozen. `null` when the freeze covers all environments.
    environment: Option<Slug>,
    /// The slug of the service that is frozen. `null` when the freeze covers all services.
    service: Option<Slug>,
    /// Why deployments are blocked, for the people who are affected.
    pub reason: Title,
    /// When the freeze begins to apply.
    starts_at: Timestamp,
    /// When the freeze ends by itself. `null` when it lasts until somebody ends it.
    ends_at: Option<Timestamp>,
    /// The window of every week in which the freeze applies. `null` when it always applies.
    #[schema(value_type = Option<WeeklyWindow>)]
    weekly: Option<Json<Weekly>>,
    /// Whether rollbacks pass the freeze.
    allow_rollback: bool,
    /// When somebody ended the freeze. `null` while nobody has.
    ended_at: Option<Timestamp>,
    /// The name of the key that created the freeze.
    created_by: String,
    /// When the freeze was recorded in prop.
    created_at: Timestamp,
    /// The number of the current version, which each change increases. It is also the `ETag`.
    revision: i32,
}

impl Freeze {
    fn about(&self) -> About<'_> {
        About {
            entity: Entity::Freeze,
            id: &self.id,
            service: self.service.as_deref(),
            environment: self.environment.as_deref(),
        }
    }

    fn path(&self) -> String {
        format!("/v1/freezes/{}", self.id)
    }

    fn covers(&self, service: &str, environment: &str) -> bool {
        self.service.as_deref().is_none_or(|covered| covered == service)
            && self.environment.as_deref().is_none_or(|covered| covered == environment)
    }

    /// Until when the freeze applies to a place. `None` when it does not apply now.
    pub fn holds(&self, service: &str, environment: &str, now: Timestamp) -> Option<Until> {
        if self.ended_at.is_some() || !self.covers(service, environment) {
            return None;
        }
        let weekly = self.weekly.as_ref().map(|weekly| weekly.0.clone());
        Schedule { starts_at: self.starts_at, ends_at: self.ends_at, weekly }.holds(now)
    }
}

/// A window of local time on some days of every week.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"days": ["fri"], "from": "18:00", "to": "08:00",
    "time_zone": "Asia/Kolkata"}))]
pub struct WeeklyWindow {
    /// The days of the week on which the window begins, at least one.
    #[schema(value_type = Vec<Day>, min_items = 1)]
    days: Days,
    /// The local time at which the window begins.
    from: ClockTime,
    /// The local time at which the window ends: on the same day if it is later than `from`, else on
    /// the next day.
    to: ClockTime,
    /// The IANA time zone of the local times. When clocks change, the longer of the possible
    /// windows applies.
    time_zone: Zone,
}

#[derive(Debug, Clone)]
struct Days(Vec<Day>);

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let days = Vec::deserialize(deserializer)?;
        if days.is_empty() {
            Err(malformed(Code::InvalidValue, "the list must have at least one day"))
        } else {
            Ok(Self(days))
        }
    }
}

impl From<WeeklyWindow> for Weekly {
    fn from(window: WeeklyWindow) -> Self {
        Self {
            days: Day::ALL.iter().copied().filter(|day| window.days.0.contains(day)).collect(),
            from: window.from,
            to: window.to,
            time_zone: window.time_zone.0,
        }
    }
}

/// A freeze that is to be created.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"environment": "production", "reason": "Quarter end",
    "ends_at": "2026-02-05T00:00:00Z"}))]
pub struct NewFreeze {
    /// The slug of the environment to freeze. All environments, if absent or `null`.
    environment: Option<Slug>,
    /// The slug of the service to freeze. All services, if absent or `null`.
    service: Option<Slug>,
    /// Why deployments are blocked, for the people who are affected.
    reason: Title,
    /// When the freeze begins. Now, if absent or `null`.
    starts_at: Option<Timestamp>,
    /// When the freeze ends by itself. If absent or `null`, it lasts until somebody ends it.
    ends_at: Option<Timestamp>,
    /// The window of every week in which the freeze applies. If absent or `null`, it always
    /// applies.
    weekly: Option<WeeklyWindow>,
    /// Whether rollbacks pass the freeze. They do, if absent or `null`.
    allow_rollback: Option<bool>,
}

/// A change of a freeze. Fields that are absent stay as they are.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"ended": true}))]
pub struct FreezePatch {
    /// The new reason, for the people who are affected.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    reason: Option<Title>,
    /// The new end. With `null`, the freeze lasts until somebody ends it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Timestamp>)]
    ends_at: Option<Option<Timestamp>>,
    /// Whether rollbacks pass the freeze.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    allow_rollback: Option<bool>,
    /// `true` ends it now. A freeze that has ended can't be reopened: declare another one.
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = only_true)]
    ended: Option<bool>,
}

/// The schema of a field that can only be `true`.
fn only_true() -> Schema {
    let schema = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true]));
    let text =
        "`true` ends it now. A freeze that has ended can't be reopened: declare another one.";
    schema.description(Some(text)).build().into()
}

/// An override: the permission for one deployment to pass a freeze.
#[derive(Debug, Clone, Serialize, ToSchema, Insertable)]
#[diesel(table_name = freeze_overrides, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e45",
    "freeze_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e44", "service": "checkout",
    "environment": "production", "version": "1.4.3",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "actor": "alice", "reason": "Card payments are down.",
    "created_at": "2026-02-03T04:05:06.000000Z", "expires_at": "2026-02-06T04:05:06.000000Z",
    "consumed_by": null
}))]
pub struct FreezeOverride {
    /// The identifier of the override.
    id: OverrideId,
    /// The identifier of the freeze that may be passed.
    freeze_id: FreezeId,
    /// The slug of the service that may be deployed.
    service: Slug,
    /// The slug of the environment that it may be deployed to.
    environment: Slug,
    /// The version that may be deployed.
    version: Version,
    /// The image digest of the release when the override was created. The override counts only for
    /// this image. `null` when the release had none.
    image_digest: Option<Digest>,
    /// The name of the key that created the override.
    actor: String,
    /// Why the deployment may pass the freeze.
    reason: Title,
    /// When the override was recorded in prop.
    created_at: Timestamp,
    /// When the override expires. From then on it lets no deployment start.
    expires_at: Timestamp,
    /// The deployment that used the override; no other one can. `null` while it is unused.
    consumed_by: Option<DeploymentId>,
}

/// An override that is to be created.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"service": "checkout", "environment": "production", "version": "1.4.3",
    "reason": "Card payments are down."}))]
pub struct NewOverride {
    /// The slug of the service that may be deployed.
    service: Slug,
    /// The slug of the environment that it may be deployed to.
    environment: Slug,
    /// The version that may be deployed. Its release must be recorded: the override is for the
    /// image that it has now.
    version: Version,
    /// Why the deployment may pass the freeze.
    reason: Title,
    /// When the override expires, which must be in the future. If absent or `null`, it is valid for
    /// as long as an approval for the environment.
    expires_at: Option<Timestamp>,
}

/// The sort key of the list of freezes.
type After = (Timestamp, FreezeId);

/// The query parameters of the list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Only freezes that apply now or later (`true`), or only those that have ended (`false`). All
    /// freezes, if absent.
    open: Option<bool>,
}

/// List freezes
///
/// Answers a page of freezes, the newest first.
///
/// With `open`, a page looks at no more than 5,000 freezes. Then it ends, with fewer items or
/// none, and `next` continues with older ones.
#[utoipa::path(get, path = "/freezes",
    tag = "freezes", operation_id = "list_freezes", security(("key" = ["read"])),
    params(Filter, Paging),
    responses((status = 200, description = "One page of the freezes.", body = Page<Freeze>)))]
async fn list(ctx: Ctx<Read>, params: List<Filter, After>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::page(&find_all(db, &params)?)).await
}

/// Create a freeze
///
/// Blocks deployments of a service, to an environment, or of everything, and answers the freeze.
/// Deployments that are already running continue. Fails with 404 when the service or environment
/// does not exist.
#[utoipa::path(post, path = "/freezes",
    tag = "freezes", operation_id = "create_freeze", security(("key" = ["operate"])),
    request_body = NewFreeze,
    responses(
        (status = 201, description = "The freeze that was created.", body = Freeze,
            headers(("Location" = String), ("ETag" = String))),
        (status = 404, description = "The service or environment does not exist."),
        (status = 422, description = "The body is malformed, `ends_at` is not later than \
            `starts_at`, which is now if it is absent (`invalid_value`), or `time_zone` is unknown \
            (`invalid_time_zone`).")))]
async fn create(ctx: Ctx<Operate>, body: Body<NewFreeze>) -> Result<Reply, Error> {
    ctx.post(move |db, author| {
        let freeze = insert(db, author, body.0.clone())?;
        Ok(Reply::created(freeze.path(), &freeze)?.at_revision(freeze.revision))
    })
    .await
}

/// Read a freeze
///
/// Answers the freeze with this identifier.
#[utoipa::path(get, path = "/freezes/{id}",
    tag = "freezes", operation_id = "get_freeze", security(("key" = ["read"])),
    params(("id" = FreezeId, Path, description = "The identifier of the freeze.")),
    responses((status = 200, description = "The freeze with this identifier.", body = Freeze,
        headers(("ETag" = String)))))]
async fn show(ctx: Ctx<Read>, id: web::Path<FreezeId>) -> Result<Reply, Error> {
    ctx.read(move |db| {
        let freeze = find(db, *id)?;
        Ok(Reply::ok(&freeze)?.at_revision(freeze.revision))
    })
    .await
}

/// Change or end a freeze
///
/// Sets the fields in the body and answers the freeze. A repeat sets the same values again, except
/// that a freeze that was ended cannot be changed: that fails with 409 (`freeze_ended`). With
/// `If-Match`, it fails with 412 when somebody else has changed the freeze since you read it.
#[utoipa::path(patch, path = "/freezes/{id}",
    tag = "freezes", operation_id = "update_freeze", security(("key" = ["operate"])),
    request_body = FreezePatch,
    params(("id" = FreezeId, Path, description = "The identifier of the freeze.")),
    responses(
        (status = 200, description = "The freeze after the change.", body = Freeze,
            headers(("ETag" = String))),
        (status = 409, description = "The freeze has ended and cannot be changed \
            (`freeze_ended`)."),
        (status = 422, description = "The body is malformed, or `ends_at` is not later than the \
            start of the freeze (`invalid_value`).")))]
async fn change(
    ctx: Ctx<Operate>,
    id: web::Path<FreezeId>,
    body: Body<FreezePatch>,
) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    ctx.write(move |db, author| {
        let before = find_locked(db, *id)?;
        if_match.check(before.revision)?;
        let actor = services::lock_if_any(db, author, before.service.as_ref())?;
        let freeze = update(db, &actor, before, body.0.clone())?;
        Ok(Reply::ok(&freeze)?.at_revision(freeze.revision))
    })
    .await
}

/// Override a freeze for one deployment
///
/// Lets the next deployment of this version, with the image that it has now, to this place pass the
/// freeze, until the override expires, and answers the override. Each request creates another one.
/// Fails with 404 when the freeze, service, environment or release does not exist, with 409
/// (`freeze_ended`) when the freeze has ended, and with 422 when it does not cover the place.
#[utoipa::path(post, path = "/freezes/{id}/overrides",
    tag = "freezes", operation_id = "override_freeze", security(("key" = ["override"])),
    request_body = NewOverride,
    params(("id" = FreezeId, Path, description = "The identifier of the freeze.")),
    responses(
        (status = 201, description = "The override that was created.", body = FreezeOverride),
        (status = 422, description = "The body is malformed; or, each with `invalid_value`: the \
            freeze does not cover this service and environment, or `expires_at` is not in the \
            future.")))]
async fn create_override(
    ctx: Ctx<Override>,
    id: web::Path<FreezeId>,
    body: Body<NewOverride>,
) -> Result<Reply, Error> {
    ctx.post(move |db, author| Reply::made(&insert_override(db, author, *id, body.0.clone())?))
        .await
}

fn find_all(db: &mut Db, params: &List<Filter, After>) -> Result<Page<Freeze>, Error> {
    let rest = conditions(&params.filter);
    newest_first!(db, params, Freeze, all, rest, freezes::{created_at, id})
}

fn all<'a>() -> freezes::BoxedQuery<'a, MultiBackend, AsSelect<Freeze, MultiBackend>> {
    freezes::table.select(Freeze::as_select()).into_boxed()
}

fn conditions(filter: &Filter) -> All<'_> {
    let now = Timestamp::now();
    let may_apply = freezes::ends_at.is_null().or(freezes::ends_at.gt(now));
    conditions!(
        filter.open.filter(|open| *open) => |_it| freezes::ended_at.is_null().and(may_apply),
        filter.open.filter(|open| !open) =>
            |_it| freezes::ended_at.is_not_null().or(freezes::ends_at.le(now)))
}

/// The freezes that have not ended, whether they apply now or later.
pub fn open(db: &mut Db, now: Timestamp) -> QueryResult<Vec<Freeze>> {
    freezes::table
        .filter(freezes::ended_at.is_null())
        .filter(freezes::ends_at.is_null().or(freezes::ends_at.gt(now)))
        .select(Freeze::as_select())
        .order(freezes::id)
        .load(db)
}

fn find(db: &mut Db, id: FreezeId) -> Result<Freeze, Error> {
    let found = freezes::table.find(id).select(Freeze::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("freeze", id))
}

fn find_locked(db: &mut Db, id: FreezeId) -> Result<Freeze, Error> {
    locks::freeze(db, id)?;
    find(db, id)
}

fn insert(db: &mut Db, author: &Author, new: NewFreeze) -> Result<Freeze, Error> {
    let actor = &services::lock_if_any(db, author, new.service.as_ref())?;
    if let Some(environment) = &new.environment {
        environments::find(db, environment)?;
    }
    let freeze = Freeze {
        id: FreezeId::new(),
        environment: new.environment,
        service: new.service,
        reason: new.reason,
        starts_at: new.starts_at.unwrap_or(actor.now),
        ends_at: new.ends_at,
        weekly: new.weekly.map(|window| Json(window.into())),
        allow_rollback: new.allow_rollback.unwrap_or(true),
        ended_at: None,
        created_by: actor.name.clone(),
        created_at: actor.now,
        revision: 1,
    };
    check_bounds(&freeze)?;
    diesel::insert_into(freezes::table).values(&freeze).execute(db)?;
    events::record(db, actor, &freeze.about(), "created", &freeze)?;
    Ok(freeze)
}

fn check_bounds(freeze: &Freeze) -> Result<(), Error> {
    if freeze.ends_at.is_some_and(|end| end <= freeze.starts_at) {
        return Err(Error::field(
            Code::InvalidValue,
            "/ends_at",
            "must be later than the start of the freeze",
        ));
    }
    Ok(())
}

fn update(
    db: &mut Db,
    actor: &Actor,
    mut freeze: Freeze,
    patch: FreezePatch,
) -> Result<Freeze, Error> {
    if freeze.ended_at.is_some() {
        return Err(Error::new(
            Code::FreezeEnded,
            "This freeze has ended and cannot be changed. Create a new one.",
        ));
    }
    apply(&mut freeze.reason, patch.reason);
    apply(&mut freeze.ends_at, patch.ends_at);
    apply(&mut freeze.allow_rollback, patch.allow_rollback);
    check_bounds(&freeze)?;
    match patch.ended {
        Some(true) => freeze.ended_at = Some(actor.now),
        Some(false) => {
            return Err(Error::field(Code::InvalidValue, "/ended", "must be true or absent"));
        }
        None => {}
    }
    freeze.revision += 1;
    diesel::update(freezes::table.find(freeze.id)).set(&freeze).execute(db)?;
    events::record(
        db,
        actor,
        &freeze.about(),
        if freeze.ended_at.is_some() { "ended" } else { "updated" },
        &freeze,
    )?;
    Ok(freeze)
}

fn insert_override(
    db: &mut Db,
    author: &Author,
    id: FreezeId,
    new: NewOverride,
) -> Result<FreezeOverride, Error> {
    let freeze = find(db, id)?;
    let actor = &services::lock_known(db, author, &new.service)?;
    let environment = environments::find(db, &new.environment)?;
    let release = releases::find_version(db, &new.service, &new.version)?;
    if freeze.ended_at.is_some() || freeze.ends_at.is_some_and(|end| end <= actor.now) {
        return Err(Error::new(
            Code::FreezeEnded,
            "This freeze has ended, so no override is needed.",
        ));
    }
    if !freeze.covers(&new.service, &new.environment) {
        return Err(Error::field(
            Code::InvalidValue,
            "",
            "the freeze does not cover this service and environment",
        ));
    }
    if new.expires_at.is_some_and(|end| end <= actor.now) {
        return Err(Error::field(Code::InvalidValue, "/expires_at", "must be in the future"));
    }
    let given = FreezeOverride {
        id: OverrideId::new(),
        freeze_id: id,
        service: new.service,
        environment: new.environment,
        version: new.version,
        image_digest: release.image_digest,
        actor: actor.name.clone(),
        reason: new.reason,
        created_at: actor.now,
        expires_at: new.expires_at.unwrap_or(actor.now.plus(environment.approval_ttl())),
        consumed_by: None,
    };
    diesel::insert_into(freeze_overrides::table).values(&given).execute(db)?;
    let about = About {
        service: Some(&given.service),
        environment: Some(&given.environment),
        ..freeze.about()
    };
    events::record(db, actor, &about, "overridden", &given)?;
    Ok(given)
}
