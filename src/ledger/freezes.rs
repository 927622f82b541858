//! Freezes: when nothing goes where; and overrides, which let one deployment through.

use actix_web::{get, patch, post, web};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::{freeze_overrides, freezes};
use crate::db::types::{Json, Timestamp};
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Operate, Override, Read};
use crate::http::extract::{Body, Query, malformed};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::ids::{DeploymentId, FreezeId, OverrideId};
use crate::ledger::values::{ClockTime, Line, Slug, Version, Zone, given, nullable, text};
use crate::ledger::{environments, services};
use crate::rules::calendar::{Day, Schedule, Until, Weekly};

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create).service(show).service(change).service(let_through);
}

/// A time when nothing goes somewhere.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = freezes, treat_none_as_default_value = false, treat_none_as_null = true)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e44", "environment": "production", "service": null, "reason": "Weekend",
    "starts_at": "2026-02-03T04:05:06.000000Z", "ends_at": null,
    "weekly": {"days": ["fri"], "from": "18:00", "to": "08:00", "time_zone": "Asia/Kolkata"}, "allow_rollback": true, "ended_at": null,
    "created_by": "alice", "created_at": "2026-02-03T04:05:06.000000Z", "revision": 1
}))]
pub struct Freeze {
    /// Its identifier.
    pub id: FreezeId,
    /// Where; everywhere, if `null`.
    environment: Option<String>,
    /// Of what; of everything, if `null`.
    service: Option<String>,
    /// Why.
    pub reason: String,
    starts_at: Timestamp,
    /// It does not hold from then on; open-ended, if `null`.
    ends_at: Option<Timestamp>,
    /// It holds only in this window of every week.
    #[schema(value_type = Option<WeeklyWindow>)]
    weekly: Option<Json<Weekly>>,
    /// Whether it lets rollbacks through.
    allow_rollback: bool,
    /// When somebody ended it.
    ended_at: Option<Timestamp>,
    created_by: String,
    created_at: Timestamp,
    /// Grows with every change; the ETag.
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

    /// Whether it holds in a place now, and until when.
    pub fn holds(&self, service: &str, environment: &str, now: Timestamp) -> Option<Until> {
        if self.ended_at.is_some() || !self.covers(service, environment) {
            return None;
        }
        let weekly = self.weekly.as_ref().map(|weekly| weekly.0.clone());
        Schedule { starts_at: self.starts_at.into(), ends_at: self.ends_at.map(Into::into), weekly }
            .holds(now.into())
    }
}

/// A window of local time that comes back every week.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"days": ["fri"], "from": "18:00", "to": "08:00", "time_zone": "Asia/Kolkata"}))]
pub struct WeeklyWindow {
    /// The days on which it begins; at least one.
    #[schema(value_type = Vec<Day>, min_items = 1)]
    days: Days,
    /// When it begins.
    from: ClockTime,
    /// When it ends: on the next day, unless it is later than `from`.
    to: ClockTime,
    /// Whose clock: an IANA time zone. Where it jumps, the freeze is the longer one.
    time_zone: Zone,
}

#[derive(Debug)]
struct Days(Vec<Day>);

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let days = Vec::deserialize(deserializer)?;
        if days.is_empty() {
            Err(malformed(Code::InvalidValue, "a week without a day is no window"))
        } else {
            Ok(Self(days))
        }
    }
}

impl TryFrom<WeeklyWindow> for Weekly {
    type Error = Error;

    fn try_from(window: WeeklyWindow) -> Result<Self, Error> {
        Ok(Self {
            days: Day::ALL.iter().copied().filter(|day| window.days.0.contains(day)).collect(),
            from: window.from.parse().map_err(Error::internal)?,
            to: window.to.parse().map_err(Error::internal)?,
            time_zone: window.time_zone.0,
        })
    }
}

/// A freeze to declare.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"environment": "production", "reason": "Quarter end", "ends_at": "2026-02-05T00:00:00Z"}))]
pub struct NewFreeze {
    /// Where; everywhere, if not said.
    environment: Option<Slug>,
    /// Of what; of everything, if not said.
    service: Option<Slug>,
    reason: Line,
    /// From when on; from now on, if not said.
    starts_at: Option<Timestamp>,
    /// Until when; until somebody ends it, if not said.
    ends_at: Option<Timestamp>,
    /// Only in this window of every week.
    weekly: Option<WeeklyWindow>,
    /// Whether it lets rollbacks through; it does, if not said.
    allow_rollback: Option<bool>,
}

/// What to change of a freeze; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"ended": true}))]
pub struct FreezePatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    reason: Option<Line>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Timestamp>)]
    ends_at: Option<Option<Timestamp>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    allow_rollback: Option<bool>,
    /// Ends it now, for good.
    #[serde(default)]
    ended: bool,
}

/// A permission for one deployment to pass a freeze.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = freeze_overrides, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e45", "freeze_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e44", "service": "checkout",
    "environment": "production", "version": "1.4.3", "actor": "alice", "reason": "Card payments are down.",
    "created_at": "2026-02-03T04:05:06.000000Z", "consumed_by": null
}))]
pub struct FreezeOverride {
    id: OverrideId,
    freeze_id: FreezeId,
    service: String,
    environment: String,
    version: String,
    /// Who gave it.
    actor: String,
    reason: String,
    created_at: Timestamp,
    /// The deployment that passed with it: no other one will.
    consumed_by: Option<DeploymentId>,
}

/// A permission to give.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"service": "checkout", "environment": "production", "version": "1.4.3", "reason": "Card payments are down."}))]
pub struct NewOverride {
    service: Slug,
    environment: Slug,
    version: Version,
    /// Why: always.
    reason: Line,
}

/// What a list of freezes is ordered by.
type After = (Timestamp, FreezeId);

/// Which freezes.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Only those that hold or will (`true`), or only those that are over (`false`).
    open: Option<bool>,
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
}

/// List freezes
///
/// The newest first.
#[utoipa::path(tag = "freezes", operation_id = "list_freezes", security(("key" = ["read"])), params(Filter),
    responses((status = 200, body = Page<Freeze>)))]
#[get("/freezes")]
async fn list(ctx: Ctx<Read>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Declare a freeze
#[utoipa::path(tag = "freezes", operation_id = "create_freeze", security(("key" = ["operate"])), request_body = NewFreeze,
    responses((status = 201, body = Freeze, headers(("Location" = String), ("ETag" = String))),
        (status = 404, description = "The service or environment does not exist.")))]
#[post("/freezes")]
async fn create(ctx: Ctx<Operate>, body: Body<NewFreeze>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let freeze = insert(db, actor, body.0)?;
        Ok(Reply::created(freeze.path(), &freeze)?.at_revision(freeze.revision))
    })
    .await
}

/// Read a freeze
#[utoipa::path(tag = "freezes", operation_id = "get_freeze", security(("key" = ["read"])),
    params(("id" = FreezeId, Path, description = "The freeze.")), responses((status = 200, body = Freeze, headers(("ETag" = String)))))]
#[get("/freezes/{id}")]
async fn show(ctx: Ctx<Read>, id: web::Path<FreezeId>) -> Result<Reply, Error> {
    let freeze = ctx.read(move |db| find(db, *id)).await?;
    Ok(Reply::ok(&freeze)?.at_revision(freeze.revision))
}

/// Change a freeze, or end it
#[utoipa::path(tag = "freezes", operation_id = "update_freeze", security(("key" = ["operate"])), request_body = FreezePatch,
    params(("id" = FreezeId, Path, description = "The freeze.")),
    responses((status = 200, body = Freeze, headers(("ETag" = String))), (status = 409)))]
#[patch("/freezes/{id}")]
async fn change(
    ctx: Ctx<Operate>,
    id: web::Path<FreezeId>,
    body: Body<FreezePatch>,
) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    ctx.write(move |db, actor| {
        let before = find_locked(db, *id)?;
        if_match.check(before.revision)?;
        let freeze = update(db, actor, before, body.0)?;
        Ok(Reply::ok(&freeze)?.at_revision(freeze.revision))
    })
    .await
}

/// Let one deployment pass a freeze
///
/// The next one of this version to this place, and no other.
#[utoipa::path(tag = "freezes", operation_id = "override_freeze", security(("key" = ["override"])), request_body = NewOverride,
    params(("id" = FreezeId, Path, description = "The freeze.")), responses((status = 201, body = FreezeOverride)))]
#[post("/freezes/{id}/overrides")]
async fn let_through(
    ctx: Ctx<Override>,
    id: web::Path<FreezeId>,
    body: Body<NewOverride>,
) -> Result<Reply, Error> {
    ctx.post(move |db, actor| Reply::made(&insert_override(db, actor, *id, body.0)?)).await
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Freeze>, Error> {
    let mut query = freezes::table.select(Freeze::as_select()).into_boxed::<MultiBackend>();
    let now = Timestamp::now();
    match filter.open {
        Some(true) => {
            query = query.filter(
                freezes::ended_at
                    .is_null()
                    .and(freezes::ends_at.is_null().or(freezes::ends_at.gt(now))),
            );
        }
        Some(false) => {
            query = query.filter(freezes::ended_at.is_not_null().or(freezes::ends_at.le(now)));
        }
        None => {}
    }
    if let Some(Cursor((at, id))) = filter.cursor {
        query = query.filter(
            freezes::created_at.lt(at).or(freezes::created_at.eq(at).and(freezes::id.lt(id))),
        );
    }
    let rows = query
        .order((freezes::created_at.desc(), freezes::id.desc()))
        .limit(filter.limit.and_one())
        .load(db)?;
    Ok(Page::of(rows, filter.limit, |freeze: &Freeze| (freeze.created_at, freeze.id)))
}

/// The freezes that nobody has ended and that are not over, holding now or not.
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
    let found = match db {
        Db::Pg(c) => freezes::table
            .find(id)
            .select(Freeze::as_select())
            .for_no_key_update()
            .first(c)
            .optional()?,
        Db::Sqlite(c) => freezes::table.find(id).select(Freeze::as_select()).first(c).optional()?,
    };
    found.ok_or_else(|| Error::not_found("freeze", id))
}

fn insert(db: &mut Db, actor: &Actor, new: NewFreeze) -> Result<Freeze, Error> {
    if let Some(service) = &new.service {
        services::find(db, service)?;
    }
    if let Some(environment) = &new.environment {
        environments::find(db, environment)?;
    }
    let freeze = Freeze {
        id: FreezeId::new(),
        environment: text(new.environment),
        service: text(new.service),
        reason: new.reason.into(),
        starts_at: new.starts_at.unwrap_or(actor.now),
        ends_at: new.ends_at,
        weekly: new.weekly.map(|window| window.try_into().map(Json)).transpose()?,
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
        return Err(Error::field(Code::InvalidValue, "/ends_at", "a freeze ends after it starts"));
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
        return Err(Error::new(Code::FreezeEnded, "It has ended, for good; declare another one."));
    }
    if let Some(reason) = patch.reason {
        freeze.reason = reason.into();
    }
    if let Some(ends_at) = patch.ends_at {
        freeze.ends_at = ends_at;
        check_bounds(&freeze)?;
    }
    if let Some(allow_rollback) = patch.allow_rollback {
        freeze.allow_rollback = allow_rollback;
    }
    if patch.ended {
        freeze.ended_at = Some(actor.now);
    }
    freeze.revision += 1;
    diesel::update(freezes::table.find(freeze.id)).set(&freeze).execute(db)?;
    events::record(
        db,
        actor,
        &freeze.about(),
        if patch.ended { "ended" } else { "updated" },
        &freeze,
    )?;
    Ok(freeze)
}

fn insert_override(
    db: &mut Db,
    actor: &Actor,
    id: FreezeId,
    new: NewOverride,
) -> Result<FreezeOverride, Error> {
    let freeze = find(db, id)?;
    services::find(db, &new.service)?;
    environments::find(db, &new.environment)?;
    if freeze.ended_at.is_some() || freeze.ends_at.is_some_and(|end| end <= actor.now) {
        return Err(Error::new(Code::FreezeEnded, "It has ended: there is nothing to override."));
    }
    if !freeze.covers(&new.service, &new.environment) {
        return Err(Error::field(
            Code::InvalidValue,
            "",
            "the freeze does not cover this service and environment",
        ));
    }
    let given = FreezeOverride {
        id: OverrideId::new(),
        freeze_id: id,
        service: new.service.into(),
        environment: new.environment.into(),
        version: new.version.into(),
        actor: actor.name.clone(),
        reason: new.reason.into(),
        created_at: actor.now,
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
