//! Environments: where services are deployed to, and what they ask of a release.

use actix_web::{get, patch, post, web};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::environments;
use crate::db::types::Timestamp;
use crate::db::{Db, MultiBackend};
use crate::each_backend;
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Operate, Read};
use crate::http::extract::{Body, Query, malformed};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::values::{Line, Slug, given, text, whole_number};
use crate::ledger::{Missing, or_conflict};
use crate::text_enum;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create).service(show).service(change);
}

text_enum! {
    /// How serious an environment is.
    Tier {
        /// For one's own work.
        Development = "development",
        /// For automated tests.
        Testing = "testing",
        /// Like production, without its users.
        Staging = "staging",
        /// With users.
        Production = "production",
    }
}

impl Tier {
    /// What an environment is taken for that was named but not described.
    fn guess(slug: &str) -> Self {
        let named = |words: &[&str]| slug.split('-').any(|part| words.contains(&part));
        match slug {
            _ if named(&["production", "prod", "prd", "live"]) => Tier::Production,
            _ if named(&["staging", "stage", "stg", "preprod", "uat"]) => Tier::Staging,
            _ if named(&["testing", "test", "qa", "ci"]) => Tier::Testing,
            _ => Tier::Development,
        }
    }
}

/// A place where services run.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = environments)]
#[schema(example = json!({
    "slug": "production", "name": "Production", "tier": "production", "required_approvals": 1,
    "created_at": "2026-02-03T04:05:06.000000Z", "updated_at": "2026-02-03T04:05:06.000000Z", "revision": 1
}))]
pub struct Environment {
    /// Its name in paths; never changes.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// How serious it is.
    pub tier: Tier,
    /// How many people must approve a release before it may start here.
    pub required_approvals: i32,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change; the ETag.
    pub revision: i32,
}

impl Environment {
    fn new(actor: &Actor, new: NewEnvironment) -> Self {
        Self {
            name: new.name.map_or_else(|| new.slug.to_string(), Into::into),
            slug: new.slug.into(),
            tier: new.tier,
            required_approvals: new.required_approvals.0,
            created_at: actor.now,
            updated_at: actor.now,
            revision: 1,
        }
    }

    fn about(&self) -> About<'_> {
        About { entity: Entity::Environment, id: &self.slug, service: None, environment: Some(&self.slug) }
    }

    fn path(&self) -> String {
        format!("/v1/environments/{}", self.slug)
    }
}

/// How many people must approve: 0 to 10.
#[derive(Debug, Clone, Copy, Default, ToSchema)]
#[schema(value_type = u8, minimum = 0, maximum = 10)]
pub struct Approvals(i32);

impl<'de> Deserialize<'de> for Approvals {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let count = whole_number(deserializer)?.try_into().ok().filter(|count| (0..=10).contains(count));
        count.map(Self).ok_or_else(|| malformed(Code::InvalidValue, "allowed are 0 to 10 approvals"))
    }
}

/// An environment to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"slug": "production", "name": "Production", "tier": "production", "required_approvals": 1}))]
pub struct NewEnvironment {
    slug: Slug,
    /// Its name for people; the slug, if not said.
    name: Option<Line>,
    tier: Tier,
    #[serde(default)]
    required_approvals: Approvals,
}

/// What to change of an environment; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"required_approvals": 2}))]
pub struct EnvironmentPatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    name: Option<Line>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    tier: Option<Tier>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    required_approvals: Option<Approvals>,
}

#[derive(AsChangeset, Serialize)]
#[diesel(table_name = environments)]
struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Tier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_approvals: Option<i32>,
}

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<Slug>>,
}

/// List environments
///
/// By slug.
#[utoipa::path(tag = "environments", operation_id = "list_environments", security(("key" = ["read"])), params(Filter),
    responses((status = 200, body = Page<Environment>)))]
#[get("/environments")]
async fn list(ctx: Ctx<Read>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Record an environment
#[utoipa::path(tag = "environments", operation_id = "create_environment", security(("key" = ["operate"])), request_body = NewEnvironment,
    responses((status = 201, body = Environment, headers(("Location" = String), ("ETag" = String)))))]
#[post("/environments")]
async fn create(ctx: Ctx<Operate>, body: Body<NewEnvironment>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let environment = insert(db, actor, body.0)?;
        Ok(Reply::created(environment.path(), &environment)?.at_revision(environment.revision))
    })
    .await
}

/// Read an environment
#[utoipa::path(tag = "environments", operation_id = "get_environment", security(("key" = ["read"])),
    params(("slug" = Slug, Path, description = "The environment.")), responses((status = 200, body = Environment, headers(("ETag" = String)))))]
#[get("/environments/{slug}")]
async fn show(ctx: Ctx<Read>, slug: web::Path<Slug>) -> Result<Reply, Error> {
    let environment = ctx.read(move |db| find(db, &slug)).await?;
    Ok(Reply::ok(&environment)?.at_revision(environment.revision))
}

/// Change an environment
#[utoipa::path(tag = "environments", operation_id = "update_environment", security(("key" = ["operate"])), request_body = EnvironmentPatch,
    params(("slug" = Slug, Path, description = "The environment.")), responses((status = 200, body = Environment, headers(("ETag" = String)))))]
#[patch("/environments/{slug}")]
async fn change(ctx: Ctx<Operate>, slug: web::Path<Slug>, body: Body<EnvironmentPatch>) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    ctx.write(move |db, actor| {
        let before = find_locked(db, &slug)?;
        if_match.check(before.revision)?;
        let environment = update(db, actor, &before, body.0)?;
        Ok(Reply::ok(&environment)?.at_revision(environment.revision))
    })
    .await
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Environment>, Error> {
    let mut query = environments::table.select(Environment::as_select()).into_boxed::<MultiBackend>();
    if let Some(Cursor(slug)) = &filter.cursor {
        query = query.filter(environments::slug.gt(slug.to_string()));
    }
    let rows = query.order(environments::slug).limit(filter.limit.and_one()).load(db)?;
    Ok(Page::of(rows, filter.limit, |environment: &Environment| environment.slug.clone()))
}

/// The environment with this slug, or 404.
pub fn find(db: &mut Db, slug: &str) -> Result<Environment, Error> {
    let found = environments::table.find(slug).select(Environment::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("environment", slug))
}

fn find_locked(db: &mut Db, slug: &str) -> Result<Environment, Error> {
    let found = match db {
        Db::Pg(c) => environments::table.find(slug).select(Environment::as_select()).for_no_key_update().first(c).optional()?,
        Db::Sqlite(c) => environments::table.find(slug).select(Environment::as_select()).first(c).optional()?,
    };
    found.ok_or_else(|| Error::not_found("environment", slug))
}

/// The environment with this slug, created if need be and allowed.
pub fn require(db: &mut Db, actor: &Actor, slug: &Slug, missing: Missing) -> Result<Environment, Error> {
    match find(db, slug) {
        Err(error) if error.code == Code::NotFound && missing == Missing::Create => {}
        found => return found,
    }
    let new = NewEnvironment { slug: slug.clone(), name: None, tier: Tier::guess(slug), required_approvals: Approvals(0) };
    let environment = Environment::new(actor, new);
    let inserted = each_backend!(db, |c| {
        diesel::insert_into(environments::table).values(&environment).on_conflict(environments::slug).do_nothing().execute(c)
    })?;
    if inserted == 1 {
        events::record(db, actor, &environment.about(), "created", &environment)?;
        return Ok(environment);
    }
    // Another request created it in this moment, and has ended.
    find(db, slug)
}

fn insert(db: &mut Db, actor: &Actor, new: NewEnvironment) -> Result<Environment, Error> {
    let environment = Environment::new(actor, new);
    let inserted = diesel::insert_into(environments::table).values(&environment).execute(db);
    or_conflict(inserted, || Error::new(Code::AlreadyExists, format!("There is an environment {} already.", environment.slug)))?;
    events::record(db, actor, &environment.about(), "created", &environment)?;
    Ok(environment)
}

fn update(db: &mut Db, actor: &Actor, before: &Environment, patch: EnvironmentPatch) -> Result<Environment, Error> {
    let changes =
        Changes { name: text(patch.name), tier: patch.tier, required_approvals: patch.required_approvals.map(|approvals| approvals.0) };
    let environment: Environment = diesel::update(environments::table.find(&before.slug))
        .set((&changes, environments::updated_at.eq(actor.now), environments::revision.eq(before.revision + 1)))
        .returning(environments::all_columns)
        .get_result(db)?;
    events::record(db, actor, &environment.about(), "updated", &changes)?;
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::Tier;

    #[test]
    fn a_tier_is_guessed_from_whole_words() {
        let cases = [
            ("production", Tier::Production),
            ("eu-prod", Tier::Production),
            ("staging", Tier::Staging),
            ("qa-2", Tier::Testing),
            ("reproduction", Tier::Development),
            ("anna", Tier::Development),
        ];
        for (slug, tier) in cases {
            assert_eq!(Tier::guess(slug), tier, "{slug}");
        }
    }
}
