//! Services: what is deployed.

use actix_web::{get, patch, post, web};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::services;
use crate::db::types::Timestamp;
use crate::db::{Db, MultiBackend};
use crate::each_backend;
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Operate, Read};
use crate::http::extract::{Body, Query};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::values::{Line, Prose, Slug, Url, given, nullable, text};
use crate::ledger::{COMPARED, or_conflict};

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create).service(show).service(change);
}

/// Something that is deployed.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = services, treat_none_as_default_value = false)]
#[schema(example = json!({
    "slug": "checkout", "name": "Checkout", "description": "Takes the money.", "owner": "payments",
    "repository_url": "https://git.example.org/shop/checkout",
    "created_at": "2026-02-03T04:05:06.000000Z", "updated_at": "2026-02-03T04:05:06.000000Z", "revision": 1
}))]
pub struct Service {
    /// Its name in paths; never changes.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// The team or person that looks after it.
    pub owner: Option<String>,
    /// Where its source is.
    pub repository_url: Option<String>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change; the ETag.
    pub revision: i32,
}

impl Service {
    fn new(new: NewService, now: Timestamp) -> Self {
        Self {
            name: new.name.map_or_else(|| new.slug.to_string(), Into::into),
            slug: new.slug.into(),
            description: text(new.description),
            owner: text(new.owner),
            repository_url: text(new.repository_url),
            created_at: now,
            updated_at: now,
            revision: 1,
        }
    }

    fn about(&self) -> About<'_> {
        About {
            entity: Entity::Service,
            id: &self.slug,
            service: Some(&self.slug),
            environment: None,
        }
    }

    fn path(&self) -> String {
        format!("/v1/services/{}", self.slug)
    }
}

/// A service to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"slug": "checkout", "name": "Checkout", "owner": "payments", "repository_url": "https://git.example.org/shop/checkout"}))]
pub struct NewService {
    slug: Slug,
    /// Its name for people; the slug, if not said.
    name: Option<Line>,
    description: Option<Prose>,
    owner: Option<Line>,
    repository_url: Option<Url>,
}

/// What to change of a service; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"owner": "payments", "description": null}))]
pub struct ServicePatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    name: Option<Line>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Prose>)]
    description: Option<Option<Prose>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Line>)]
    owner: Option<Option<Line>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Url>)]
    repository_url: Option<Option<Url>>,
}

#[derive(AsChangeset, Serialize)]
#[diesel(table_name = services)]
struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository_url: Option<Option<String>>,
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

/// List services
///
/// By slug.
#[utoipa::path(tag = "services", operation_id = "list_services", security(("key" = ["read"])), params(Filter),
    responses((status = 200, body = Page<Service>)))]
#[get("/services")]
async fn list(ctx: Ctx<Read>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Record a service
#[utoipa::path(tag = "services", operation_id = "create_service", security(("key" = ["operate"])), request_body = NewService,
    responses((status = 201, body = Service, headers(("Location" = String), ("ETag" = String)))))]
#[post("/services")]
async fn create(ctx: Ctx<Operate>, body: Body<NewService>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let service = insert(db, actor, body.0)?;
        Ok(Reply::created(service.path(), &service)?.at_revision(service.revision))
    })
    .await
}

/// Read a service
#[utoipa::path(tag = "services", operation_id = "get_service", security(("key" = ["read"])),
    params(("slug" = Slug, Path, description = "The service.")), responses((status = 200, body = Service, headers(("ETag" = String)))))]
#[get("/services/{slug}")]
async fn show(ctx: Ctx<Read>, slug: web::Path<Slug>) -> Result<Reply, Error> {
    let service = ctx.read(move |db| find(db, &slug)).await?;
    Ok(Reply::ok(&service)?.at_revision(service.revision))
}

/// Change a service
#[utoipa::path(tag = "services", operation_id = "update_service", security(("key" = ["operate"])), request_body = ServicePatch,
    params(("slug" = Slug, Path, description = "The service.")), responses((status = 200, body = Service, headers(("ETag" = String)))))]
#[patch("/services/{slug}")]
async fn change(
    ctx: Ctx<Operate>,
    slug: web::Path<Slug>,
    body: Body<ServicePatch>,
) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    ctx.write(move |db, actor| {
        lock(db, &slug)?;
        let before = find(db, &slug)?;
        if_match.check(before.revision)?;
        let service = update(db, actor, &before, body.0)?;
        Ok(Reply::ok(&service)?.at_revision(service.revision))
    })
    .await
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Service>, Error> {
    let mut query = services::table.select(Service::as_select()).into_boxed::<MultiBackend>();
    if let Some(Cursor(slug)) = &filter.cursor {
        query = query.filter(services::slug.gt(slug.to_string()));
    }
    let rows = query.order(services::slug).limit(filter.limit.and_one()).load(db)?;
    Ok(Page::of(rows, filter.limit, |service: &Service| service.slug.clone()))
}

/// The service with this slug, or 404.
pub fn find(db: &mut Db, slug: &str) -> Result<Service, Error> {
    let found = services::table.find(slug).select(Service::as_select()).first(db).optional()?;
    match found {
        Some(service) => Ok(service),
        None => Err(unknown(db, slug)?),
    }
}

/// The error for a service that does not exist. It names some that do.
pub fn unknown(db: &mut Db, slug: &str) -> Result<Error, Error> {
    let slugs = services::table.select(services::slug).order(services::slug);
    let existing: Vec<String> = slugs.limit(COMPARED).load(db)?;
    Ok(Error::unknown_name("service", slug, &existing))
}

/// Holds the service's row until the transaction ends, so that what is decided about its places is decided one after the
/// other. Returns whether there is one. SQLite has one writer anyway.
pub fn lock(db: &mut Db, slug: &str) -> QueryResult<bool> {
    match db {
        Db::Pg(c) => services::table
            .find(slug)
            .select(services::slug)
            .for_no_key_update()
            .first::<String>(c)
            .optional()
            .map(|row| row.is_some()),
        Db::Sqlite(c) => {
            diesel::select(diesel::dsl::exists(services::table.find(slug))).get_result(c)
        }
    }
}

/// Every service whose repository is known, with its address.
pub fn repositories(db: &mut Db) -> QueryResult<Vec<(String, String)>> {
    services::table
        .filter(services::repository_url.is_not_null())
        .select((services::slug, services::repository_url.assume_not_null()))
        .order(services::slug)
        .load(db)
}

/// Makes sure that the service exists, and locks it; says whether this made it. One that somebody else recorded in the
/// meantime stays as it is.
pub fn ensure(
    db: &mut Db,
    actor: &Actor,
    slug: &Slug,
    repository_url: Option<Url>,
) -> Result<bool, Error> {
    let service = Service::new(
        NewService {
            slug: slug.clone(),
            name: None,
            description: None,
            owner: None,
            repository_url,
        },
        actor.now,
    );
    let inserted = each_backend!(db, |c| diesel::insert_into(services::table)
        .values(&service)
        .on_conflict_do_nothing()
        .execute(c))?;
    if inserted == 1 {
        events::record(db, actor, &service.about(), "created", &service)?;
    } else {
        lock(db, slug)?;
    }
    Ok(inserted == 1)
}

fn insert(db: &mut Db, actor: &Actor, new: NewService) -> Result<Service, Error> {
    let service = Service::new(new, actor.now);
    let inserted = diesel::insert_into(services::table).values(&service).execute(db);
    or_conflict(inserted, || {
        Error::new(Code::AlreadyExists, format!("There is a service {} already.", service.slug))
    })?;
    events::record(db, actor, &service.about(), "created", &service)?;
    Ok(service)
}

fn update(
    db: &mut Db,
    actor: &Actor,
    before: &Service,
    patch: ServicePatch,
) -> Result<Service, Error> {
    let changes = Changes {
        name: text(patch.name),
        description: patch.description.map(text),
        owner: patch.owner.map(text),
        repository_url: patch.repository_url.map(text),
    };
    let service: Service = diesel::update(services::table.find(&before.slug))
        .set((
            &changes,
            services::updated_at.eq(actor.now),
            services::revision.eq(before.revision + 1),
        ))
        .returning(services::all_columns)
        .get_result(db)?;
    events::record(db, actor, &service.about(), "updated", &changes)?;
    Ok(service)
}
