//! Services: the programs that are deployed.

use actix_web::web;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

use crate::db::locks::Locked;
use crate::db::schema::services;
use crate::db::{Db, MultiBackend, locks};
use crate::each_backend;
use crate::error::{COMPARED, Code, Error, OnConflict};
use crate::filtered;
use crate::http::context::{Actor, Author, Ctx, Operate, Read};
use crate::http::extract::Body;
use crate::http::pagination::{Everything, List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::patch::{apply, given, nullable};
use crate::types::time::Timestamp;
use crate::types::values::{LongText, ShortText, Slug, Url};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config
        .add(list, __path_list)
        .add(create, __path_create)
        .add(show, __path_show)
        .add(change, __path_change);
}

/// A service: a program that is deployed as a whole.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(
    table_name = services, primary_key(slug), treat_none_as_default_value = false,
    treat_none_as_null = true
)]
#[schema(example = json!({
    "slug": "checkout", "name": "Checkout", "description": "Takes the money.", "owner": "payments",
    "repository_url": "https://git.example.org/shop/checkout",
    "ignore_github_deployments": false,
    "created_at": "2026-02-03T04:05:06.000000Z", "updated_at": "2026-02-03T04:05:06.000000Z",
    "revision": 1
}))]
pub struct Service {
    /// The name of the service in URLs. It is unique and never changes.
    pub slug: Slug,
    /// The name of the service for people.
    pub name: ShortText,
    /// What the service does. `null` when nobody has described it.
    pub description: Option<LongText>,
    /// The team or person that is responsible for the service. `null` when it is unknown.
    pub owner: Option<ShortText>,
    /// The URL of the source repository. Webhooks of this repository are about this service. `null`
    /// when it is unknown.
    pub repository_url: Option<Url>,
    /// Whether its deployments that GitHub webhooks report are ignored, because its jobs deploy
    /// nothing, or its scripts report everything themselves.
    pub ignore_github_deployments: bool,
    /// When the service was recorded in prop.
    pub created_at: Timestamp,
    /// When the service was last changed in prop.
    pub updated_at: Timestamp,
    /// The number of the current version, which each change increases. It is also the `ETag`.
    pub revision: i32,
}

impl Service {
    fn new(new: NewService, now: Timestamp) -> Self {
        Self {
            name: new.name.unwrap_or_else(|| new.slug.clone().into()),
            slug: new.slug,
            description: new.description,
            owner: new.owner,
            repository_url: new.repository_url,
            ignore_github_deployments: new.ignore_github_deployments,
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

/// A service that is to be created.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"slug": "checkout", "name": "Checkout", "owner": "payments",
    "repository_url": "https://git.example.org/shop/checkout"}))]
pub struct NewService {
    /// The name of the service in URLs. It must be unique and cannot be changed later.
    slug: Slug,
    /// The name of the service for people. The slug, if absent or `null`.
    name: Option<ShortText>,
    /// What the service does. May be absent or `null`.
    description: Option<LongText>,
    /// The team or person that is responsible for the service. May be absent or `null`.
    owner: Option<ShortText>,
    /// The URL of the source repository, which connects GitHub webhooks with the service. May be
    /// absent or `null`.
    repository_url: Option<Url>,
    /// Whether to ignore its deployments that GitHub webhooks report, because its jobs deploy
    /// nothing, or its scripts report everything themselves. They are not ignored, if absent.
    #[serde(default)]
    ignore_github_deployments: bool,
}

/// A change of a service. Fields that are absent stay as they are.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"owner": "payments", "description": null}))]
pub struct ServicePatch {
    /// The new name for people.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    name: Option<ShortText>,
    /// The new description; `null` removes it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<LongText>)]
    description: Option<Option<LongText>>,
    /// The new owner, a team or person; `null` removes it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<ShortText>)]
    owner: Option<Option<ShortText>>,
    /// The new URL of the source repository; `null` removes it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Url>)]
    repository_url: Option<Option<Url>>,
    /// Whether to ignore its deployments that GitHub webhooks report.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    ignore_github_deployments: Option<bool>,
}

/// List services
///
/// Answers a page of all services, in the order of their slugs.
#[utoipa::path(get, path = "/services",
    tag = "services", operation_id = "list_services", security(("key" = ["read"])),
    params(Paging),
    responses((status = 200, description = "One page of the services.", body = Page<Service>)))]
async fn list(ctx: Ctx<Read>, params: List<Everything, Slug>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::page(&find_all(db, &params)?)).await
}

/// Create a service
///
/// Records a service and answers it. Fails with 409 (`already_exists`) when the slug is taken.
#[utoipa::path(post, path = "/services",
    tag = "services", operation_id = "create_service", security(("key" = ["operate"])),
    request_body = NewService,
    responses((status = 201, description = "The service that was created.", body = Service,
        headers(("Location" = String), ("ETag" = String)))))]
async fn create(ctx: Ctx<Operate>, body: Body<NewService>) -> Result<Reply, Error> {
    ctx.post(move |db, author| {
        let actor = author.at(lock(db, &body.0.slug)?.now);
        let service = insert(db, &actor, body.0.clone())?;
        Ok(Reply::created(service.path(), &service)?.at_revision(service.revision))
    })
    .await
}

/// Read a service
///
/// Answers the service with this slug.
#[utoipa::path(get, path = "/services/{slug}",
    tag = "services", operation_id = "get_service", security(("key" = ["read"])),
    params(("slug" = Slug, Path, description = "The slug of the service.")),
    responses((status = 200, description = "The service with this slug.", body = Service,
        headers(("ETag" = String)))))]
async fn show(ctx: Ctx<Read>, slug: web::Path<Slug>) -> Result<Reply, Error> {
    ctx.read(move |db| {
        let service = find(db, &slug)?;
        Ok(Reply::ok(&service)?.at_revision(service.revision))
    })
    .await
}

/// Change a service
///
/// Sets the fields in the body and answers the service. A repeat sets the same values again. With
/// `If-Match`, it fails with 412 when somebody else has changed the service since you read it.
#[utoipa::path(patch, path = "/services/{slug}",
    tag = "services", operation_id = "update_service", security(("key" = ["operate"])),
    request_body = ServicePatch,
    params(("slug" = Slug, Path, description = "The slug of the service.")),
    responses((status = 200, description = "The service after the change.", body = Service,
        headers(("ETag" = String)))))]
async fn change(
    ctx: Ctx<Operate>,
    slug: web::Path<Slug>,
    body: Body<ServicePatch>,
) -> Result<Reply, Error> {
    let if_match = ctx.if_match()?;
    ctx.write(move |db, author| {
        let actor = lock_known(db, author, &slug)?;
        let before = find(db, &slug)?;
        if_match.check(before.revision)?;
        let service = update(db, &actor, before, body.0.clone())?;
        Ok(Reply::ok(&service)?.at_revision(service.revision))
    })
    .await
}

fn find_all(db: &mut Db, params: &List<Everything, Slug>) -> Result<Page<Service>, Error> {
    let all = services::table.select(Service::as_select()).into_boxed::<MultiBackend>();
    let query = filtered!(all; &params.after => |slug| services::slug.gt(slug));
    let rows = query.order(services::slug).limit(params.limit.and_one()).load(db)?;
    Ok(Page::of(rows, params.limit, |row: &Service| row.slug.clone()))
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

/// Locks the service's row until the transaction ends, and returns whether the service exists, and
/// the time of the transaction.
///
/// All decisions about the places of a service are made under this lock, one after another, and
/// their times are in the same order.
pub fn lock(db: &mut Db, slug: &str) -> QueryResult<Locked> {
    locks::service(db, slug)
}

/// Locks a service, and returns the author with the time of the transaction.
///
/// # Errors
/// `not_found` when there is no such service.
pub fn lock_known(db: &mut Db, author: &Author, slug: &str) -> Result<Actor, Error> {
    match lock(db, slug)? {
        Locked { exists: true, now } => Ok(author.at(now)),
        _ => Err(unknown(db, slug)?),
    }
}

/// Locks those of several services that exist, in the order of their slugs, and returns the author
/// with the time of the transaction. Everything that locks several does so in this order: then none
/// waits for another that waits for it.
///
/// # Errors
/// That of the database.
pub fn lock_all(db: &mut Db, author: &Author, slugs: BTreeSet<Slug>) -> QueryResult<Actor> {
    let times = slugs.iter().map(|slug| Ok(lock(db, slug)?.now));
    let times: Vec<Timestamp> = times.collect::<QueryResult<_>>()?;
    Ok(author.at(times.into_iter().max().unwrap_or_else(Timestamp::now)))
}

/// The author with the time of a transaction that may be about a service, which is then locked.
///
/// # Errors
/// `not_found` when there is no such service.
pub fn lock_if_any(db: &mut Db, author: &Author, service: Option<&Slug>) -> Result<Actor, Error> {
    match service {
        Some(service) => lock_known(db, author, service),
        None => Ok(author.now(db)?),
    }
}

/// The slug and the repository URL of every service that has one.
pub fn repositories(db: &mut Db) -> QueryResult<Vec<(Slug, Url)>> {
    services::table
        .filter(services::repository_url.is_not_null())
        .select((services::slug, services::repository_url.assume_not_null()))
        .order(services::slug)
        .load(db)
}

/// Locks a service, and creates it if it does not exist. Returns the author with the time of the
/// transaction, and whether this call has created the service.
pub fn lock_or_create(
    db: &mut Db,
    author: &Author,
    slug: &Slug,
    repository_url: Option<Url>,
) -> Result<(Actor, bool), Error> {
    let Locked { exists, now } = lock(db, slug)?;
    let actor = author.at(now);
    if exists { Ok((actor, false)) } else { ensure(db, &actor, slug, repository_url) }
}

/// Creates a service that could not be locked, because it did not exist. Returns the author with
/// the time of the transaction, and whether this call has created the service. One that another
/// transaction has created in the meantime is locked and stays as it is.
pub fn ensure(
    db: &mut Db,
    actor: &Actor,
    slug: &Slug,
    repository_url: Option<Url>,
) -> Result<(Actor, bool), Error> {
    let service = Service::new(
        NewService {
            slug: slug.clone(),
            name: None,
            description: None,
            owner: None,
            repository_url,
            ignore_github_deployments: false,
        },
        actor.now,
    );
    let inserted = each_backend!(db, |c| diesel::insert_into(services::table)
        .values(&service)
        .on_conflict_do_nothing()
        .execute(c))?;
    if inserted == 0 {
        return Ok((actor.at(lock(db, slug)?.now), false));
    }
    events::record(db, actor, &service.about(), "created", &service)?;
    Ok((actor.clone(), true))
}

fn insert(db: &mut Db, actor: &Actor, new: NewService) -> Result<Service, Error> {
    let service = Service::new(new, actor.now);
    let inserted = diesel::insert_into(services::table).values(&service).execute(db);
    inserted.on_conflict(|| {
        Error::new(Code::AlreadyExists, format!("The service {} already exists.", service.slug))
    })?;
    events::record(db, actor, &service.about(), "created", &service)?;
    Ok(service)
}

fn update(
    db: &mut Db,
    actor: &Actor,
    mut service: Service,
    patch: ServicePatch,
) -> Result<Service, Error> {
    apply(&mut service.name, patch.name);
    apply(&mut service.description, patch.description);
    apply(&mut service.owner, patch.owner);
    apply(&mut service.repository_url, patch.repository_url);
    apply(&mut service.ignore_github_deployments, patch.ignore_github_deployments);
    service.updated_at = actor.now;
    service.revision += 1;
    diesel::update(services::table.find(&service.slug)).set(&service).execute(db)?;
    events::record(db, actor, &service.about(), "updated", &service)?;
    Ok(service)
}
