//! Keys: who may do what.

use actix_web::{delete, get, post, web};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::keys;
use crate::db::types::Timestamp;
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::auth::{KeyId, Scope, Token, parse_scopes};
use crate::http::context::{Actor, Admin, Ctx};
use crate::http::extract::{Body, Query, malformed};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::values::Line;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create).service(revoke_one);
}

/// A key, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e40", "name": "pipeline", "scopes": ["read", "deploy"], "prefix": "prop_4fQ2x",
    "created_at": "2026-02-03T04:05:06.000000Z", "last_used_at": "2026-02-03T04:05:07.000000Z", "revoked_at": null
}))]
pub struct Key {
    /// Its identifier.
    pub id: KeyId,
    /// Who holds it: the actor in the history.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// How it starts.
    pub prefix: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = keys, treat_none_as_default_value = false)]
struct Kept {
    id: KeyId,
    name: String,
    scopes: String,
    prefix: String,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl From<Kept> for Key {
    fn from(kept: Kept) -> Self {
        Self {
            id: kept.id,
            name: kept.name,
            scopes: parse_scopes(&kept.scopes),
            prefix: kept.prefix,
            created_at: kept.created_at,
            last_used_at: kept.last_used_at,
            revoked_at: kept.revoked_at,
        }
    }
}

impl Key {
    fn about(&self) -> About<'_> {
        About { entity: Entity::Key, id: &self.id, service: None, environment: None }
    }
}

/// A key that was just made. The secret is shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "key": "prop_4fQ2x0000000000000000000000000000000000",
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e40", "name": "pipeline", "scopes": ["read", "deploy"], "prefix": "prop_4fQ2x",
    "created_at": "2026-02-03T04:05:06.000000Z", "last_used_at": null, "revoked_at": null
}))]
pub struct CreatedKey {
    /// The key itself. It is shown only this once. It comes first, so that who searches the answer
    /// for `prop_` does not find `prefix`.
    key: String,
    #[serde(flatten)]
    made: Key,
}

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "pipeline", "scopes": ["read", "deploy"]}))]
pub struct NewKey {
    /// Who will hold it: the actor in the history.
    name: Line,
    scopes: Scopes,
}

/// At least one scope.
#[derive(Debug, ToSchema)]
#[schema(value_type = Vec<Scope>, min_items = 1)]
pub struct Scopes(Vec<Scope>);

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scopes = Vec::deserialize(deserializer)?;
        if scopes.is_empty() {
            Err(malformed(Code::InvalidValue, "a key needs at least one scope"))
        } else {
            Ok(Self(scopes))
        }
    }
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
    cursor: Option<Cursor<KeyId>>,
}

/// List keys
///
/// The newest first, revoked ones too.
#[utoipa::path(tag = "keys", operation_id = "list_keys", security(("key" = ["admin"])), params(Filter), responses((status = 200, body = Page<Key>)))]
#[get("/keys")]
async fn list(ctx: Ctx<Admin>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Make a key
///
/// The answer holds the key, this once. An `Idempotency-Key` has no effect here: prop keeps no answer with a secret in it.
#[utoipa::path(tag = "keys", operation_id = "create_key", security(("key" = ["admin"])), request_body = NewKey,
    responses((status = 201, body = CreatedKey)))]
#[post("/keys")]
async fn create(ctx: Ctx<Admin>, body: Body<NewKey>) -> Result<Reply, Error> {
    ctx.write(move |db, actor| {
        let token = Token::generate().map_err(Error::internal)?;
        let made = insert(db, actor, &body.0.name, &body.0.scopes.0, &token)?;
        let created = CreatedKey { key: token.reveal().to_owned(), made };
        Reply::made(&created)
    })
    .await
}

/// Revoke a key
///
/// For good. Other processes may accept it for five seconds more.
#[utoipa::path(tag = "keys", operation_id = "revoke_key", security(("key" = ["admin"])),
    params(("id" = KeyId, Path, description = "The key.")), responses((status = 200, body = Key)))]
#[delete("/keys/{id}")]
async fn revoke_one(ctx: Ctx<Admin>, id: web::Path<KeyId>) -> Result<Reply, Error> {
    let key = ctx.write(move |db, actor| revoke(db, actor, *id)).await?;
    ctx.forget_keys();
    Reply::ok(&key)
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Key>, Error> {
    let mut query = keys::table.select(Kept::as_select()).into_boxed::<MultiBackend>();
    if let Some(Cursor(id)) = filter.cursor {
        query = query.filter(keys::id.lt(id));
    }
    let rows: Vec<Kept> = query.order(keys::id.desc()).limit(filter.limit.and_one()).load(db)?;
    Ok(Page::of(rows.into_iter().map(Key::from).collect(), filter.limit, |key: &Key| key.id))
}

/// Every key, for the command line.
pub fn all(db: &mut Db) -> Result<Vec<Key>, Error> {
    let rows: Vec<Kept> = keys::table.select(Kept::as_select()).order(keys::id).load(db)?;
    Ok(rows.into_iter().map(Key::from).collect())
}

/// Keeps a key.
pub fn insert(
    db: &mut Db,
    actor: &Actor,
    name: &str,
    scopes: &[Scope],
    token: &Token,
) -> Result<Key, Error> {
    let scopes: Vec<_> = Scope::ALL
        .iter()
        .filter(|scope| scopes.contains(scope))
        .map(|scope| scope.as_str())
        .collect();
    let kept = Kept {
        id: KeyId::new(),
        name: name.to_owned(),
        scopes: scopes.join(" "),
        prefix: token.shown().to_owned(),
        created_at: actor.now,
        last_used_at: None,
        revoked_at: None,
    };
    diesel::insert_into(keys::table).values((&kept, keys::hash.eq(token.hash()))).execute(db)?;
    let key = Key::from(kept);
    events::record(
        db,
        actor,
        &key.about(),
        "created",
        json!({"name": key.name, "scopes": key.scopes}),
    )?;
    Ok(key)
}

/// Revokes a key; one that is revoked already stays as it is.
pub fn revoke(db: &mut Db, actor: &Actor, id: KeyId) -> Result<Key, Error> {
    let revoked = diesel::update(keys::table.find(id).filter(keys::revoked_at.is_null()))
        .set(keys::revoked_at.eq(actor.now))
        .execute(db)?;
    let kept = keys::table.find(id).select(Kept::as_select()).first(db).optional()?;
    let key: Key = kept.ok_or_else(|| Error::not_found("key", id))?.into();
    if revoked == 1 {
        events::record(db, actor, &key.about(), "revoked", json!({"name": key.name}))?;
    }
    Ok(key)
}

/// Makes sure that somebody can administer the ledger: the given key is kept if it is not yet, and `None` makes a new one
/// if there is no key at all. Returns the new one. Many processes may ask at once.
pub fn bootstrap(db: &mut Db, given: Option<&Token>) -> Result<Option<Token>, Error> {
    let actor = Actor::new("prop");
    lock(db)?;
    match given {
        Some(token) => {
            let known = keys::table
                .filter(keys::hash.eq(token.hash()))
                .select(keys::id)
                .first::<KeyId>(db)
                .optional()?;
            if known.is_none() {
                insert(db, &actor, "bootstrap", &[Scope::Admin], token)?;
            }
            Ok(None)
        }
        None if keys::table.select(keys::id).first::<KeyId>(db).optional()?.is_some() => Ok(None),
        None => {
            let token = Token::generate().map_err(Error::internal)?;
            insert(db, &actor, "first", &[Scope::Admin], &token)?;
            Ok(Some(token))
        }
    }
}

/// Whether there is any key.
pub fn exist(db: &mut Db) -> Result<bool, Error> {
    Ok(keys::table.select(keys::id).first::<KeyId>(db).optional()?.is_some())
}

fn lock(db: &mut Db) -> QueryResult<()> {
    if let Db::Pg(connection) = db {
        diesel::sql_query("LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE").execute(connection)?;
    }
    Ok(())
}
