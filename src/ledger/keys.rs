//! API keys: creating, listing and revoking them.

use actix_web::web;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::db::columns::lower;
use crate::db::schema::keys;
use crate::db::{Db, MultiBackend, locks};
use crate::error::{Code, Error};
use crate::filtered;
use crate::http::caller::{Scope, parse_scopes};
use crate::http::context::{Admin, Author, Ctx};
use crate::http::extract::{Body, malformed};
use crate::http::pagination::{Everything, List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::events::{self, About, Entity};
use crate::types::ids::KeyId;
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::token::Token;
use crate::types::values::ShortText;

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(list, __path_list).add(create, __path_create).add(revoke_one, __path_revoke_one);
}

/// An API key without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e40", "name": "pipeline", "scopes": ["read", "deploy"],
    "prefix": "prop_4fQ2x",
    "created_at": "2026-02-03T04:05:06.000000Z", "last_used_at": "2026-02-03T04:05:07.000000Z",
    "revoked_at": null
}))]
pub struct Key {
    /// The identifier of the key.
    pub id: KeyId,
    /// The name of the person or pipeline that uses the key. It is the actor of their events.
    pub name: String,
    /// The scopes of the key: what it may be used for.
    pub scopes: Vec<Scope>,
    /// The first characters of the secret, by which people recognise the key.
    pub prefix: String,
    /// When the key was created.
    pub created_at: Timestamp,
    /// When the key was last used, accurate to a minute. `null` when it was never used.
    pub last_used_at: Option<Timestamp>,
    /// When the key was revoked. `null` while it is valid.
    pub revoked_at: Option<Timestamp>,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = keys, treat_none_as_default_value = false)]
struct KeyRow {
    id: KeyId,
    name: String,
    scopes: String,
    prefix: String,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl From<KeyRow> for Key {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            scopes: parse_scopes(&row.scopes),
            prefix: row.prefix,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        }
    }
}

impl Key {
    fn about(&self) -> About<'_> {
        About { entity: Entity::Key, id: &self.id, service: None, environment: None }
    }
}

/// A new API key with its secret, which is shown only this once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "key": "prop_4fQ2x0000000000000000000000000000000000",
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e40", "name": "pipeline", "scopes": ["read", "deploy"],
    "prefix": "prop_4fQ2x",
    "created_at": "2026-02-03T04:05:06.000000Z", "last_used_at": null, "revoked_at": null
}))]
pub struct CreatedKey {
    /// The secret key to send in `Authorization: Bearer`. It cannot be shown again. It comes first,
    /// so that a search for `prop_` does not find `prefix`.
    key: String,
    #[serde(flatten)]
    made: Key,
}

/// An API key to create.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "pipeline", "scopes": ["read", "deploy"]}))]
pub struct NewKey {
    /// The name of the person or pipeline that will use the key, which is the actor of their
    /// events. For a person, use the GitHub login: reviews on GitHub and with this key are then
    /// known to be the same person's. No two valid keys have the same name in any case. `prop`,
    /// `anonymous`, `github` and names that begin with `github:` are reserved.
    #[schema(value_type = ShortText)]
    name: Name,
    /// The scopes of the key: what it may be used for. At least one.
    scopes: Scopes,
}

/// A list of scopes, at least one.
#[derive(Debug, Clone, ToSchema)]
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

/// List keys
///
/// Answers a page of all keys without their secrets, the newest first. Revoked keys are included.
#[utoipa::path(get, path = "/keys",
    tag = "keys", operation_id = "list_keys", security(("key" = ["admin"])),
    params(Paging),
    responses((status = 200, description = "One page of the keys.", body = Page<Key>)))]
async fn list(ctx: Ctx<Admin>, params: List<Everything, KeyId>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::page(&find_all(db, &params)?)).await
}

/// Create a key
///
/// Answers the new key with its secret, which cannot be shown again. Fails with 409
/// (`already_exists`) while another valid key has the name, and with 422 when prop uses the name
/// for itself. An `Idempotency-Key` has no effect here, because prop does not store responses with
/// a secret.
#[utoipa::path(post, path = "/keys",
    tag = "keys", operation_id = "create_key", security(("key" = ["admin"])),
    request_body = NewKey,
    responses(
        (status = 201, description = "The key that was created, with its secret.",
            body = CreatedKey),
        (status = 409, description = "Another valid key has the name (`already_exists`)."),
        (status = 422, description = "The body is malformed, or `name` is one that prop uses \
            for itself (`invalid_value`).")))]
async fn create(ctx: Ctx<Admin>, body: Body<NewKey>) -> Result<Reply, Error> {
    let created = ctx.write(move |db, author| {
        let token = Token::generate().map_err(Error::internal)?;
        let made = insert(db, author, &body.0.name, &body.0.scopes.0, &token)?;
        let created = CreatedKey { key: token.reveal().to_owned(), made };
        Reply::made(&created)
    });
    let created = created.await?;
    ctx.forget_keys();
    Ok(created)
}

/// Revoke a key
///
/// Revokes the key for ever, and answers it. Other processes of prop may accept the key for up to
/// five more seconds. A repeat changes nothing. Fails with 409 (`last_admin_key`) when no other
/// valid key has the scope `admin`.
#[utoipa::path(delete, path = "/keys/{id}",
    tag = "keys", operation_id = "revoke_key", security(("key" = ["admin"])),
    params(("id" = KeyId, Path, description = "The identifier of the key.")),
    responses(
        (status = 200, description = "The key, which is now revoked.", body = Key),
        (status = 409, description = "No other valid key has the scope `admin`.")))]
async fn revoke_one(ctx: Ctx<Admin>, id: web::Path<KeyId>) -> Result<Reply, Error> {
    let key = ctx
        .write(move |db, author| {
            keep_an_admin(db, *id)?;
            revoke(db, author, *id)
        })
        .await?;
    ctx.forget_keys();
    Reply::ok(&key)
}

fn find_all(db: &mut Db, params: &List<Everything, KeyId>) -> Result<Page<Key>, Error> {
    let all = keys::table.select(KeyRow::as_select()).into_boxed::<MultiBackend>();
    let query = filtered!(all; params.after => |id| keys::id.lt(id));
    let rows: Vec<KeyRow> = query.order(keys::id.desc()).limit(params.limit.and_one()).load(db)?;
    Ok(Page::of(rows.into_iter().map(Key::from).collect(), params.limit, |key: &Key| key.id))
}

/// All keys in the order of creation, for the command line.
pub fn all(db: &mut Db) -> Result<Vec<Key>, Error> {
    let rows: Vec<KeyRow> = keys::table.select(KeyRow::as_select()).order(keys::id).load(db)?;
    Ok(rows.into_iter().map(Key::from).collect())
}

/// Stores a new key and records the event.
///
/// # Errors
/// `already_exists` while another valid key has the name, in any case.
pub fn insert(
    db: &mut Db,
    author: &Author,
    name: &Name,
    scopes: &[Scope],
    token: &Token,
) -> Result<Key, Error> {
    locks::all_keys(db)?;
    if let Some(other) = find_valid(db, name)? {
        let detail = format!(
            "The valid key {other} has the name {name}. Revoke it first, or use another name."
        );
        return Err(Error::new(Code::AlreadyExists, detail).with("key_id", other));
    }
    let actor = &author.now(db)?;
    let scopes: Vec<_> = Scope::ALL
        .iter()
        .filter(|scope| scopes.contains(scope))
        .map(|scope| scope.as_str())
        .collect();
    let row = KeyRow {
        id: KeyId::new(),
        name: name.to_string(),
        scopes: scopes.join(" "),
        prefix: token.shown().to_owned(),
        created_at: actor.now,
        last_used_at: None,
        revoked_at: None,
    };
    diesel::insert_into(keys::table).values((&row, keys::hash.eq(token.hash()))).execute(db)?;
    let key = Key::from(row);
    events::record(
        db,
        actor,
        &key.about(),
        "created",
        json!({"name": key.name, "scopes": key.scopes}),
    )?;
    Ok(key)
}

/// The valid key with this name. Ledgers of earlier versions may have several.
fn find_valid(db: &mut Db, name: &Name) -> QueryResult<Option<KeyId>> {
    keys::table
        .filter(keys::revoked_at.is_null())
        .filter(lower(keys::name.nullable()).eq(lower(&**name)))
        .select(keys::id)
        .first(db)
        .optional()
}

/// Revokes a key. A key that is already revoked stays as it is.
///
/// # Errors
/// `not_found` when there is no such key.
pub fn revoke(db: &mut Db, author: &Author, id: KeyId) -> Result<Key, Error> {
    let actor = &author.now(db)?;
    let revoked = diesel::update(keys::table.find(id).filter(keys::revoked_at.is_null()))
        .set(keys::revoked_at.eq(actor.now))
        .execute(db)?;
    let row = keys::table.find(id).select(KeyRow::as_select()).first(db).optional()?;
    let key: Key = row.ok_or_else(|| Error::not_found("key", id))?.into();
    if revoked == 1 {
        events::record(db, actor, &key.about(), "revoked", json!({"name": key.name}))?;
    }
    Ok(key)
}

/// Refuses to revoke the last valid admin key. Two that revoke each other at the same time come one
/// after the other.
fn keep_an_admin(db: &mut Db, id: KeyId) -> Result<(), Error> {
    locks::all_keys(db)?;
    let valid: Vec<(KeyId, String)> =
        keys::table.filter(keys::revoked_at.is_null()).select((keys::id, keys::scopes)).load(db)?;
    let admins: Vec<_> = valid
        .into_iter()
        .filter(|(_, scopes)| parse_scopes(scopes).contains(&Scope::Admin))
        .map(|(id, _)| id)
        .collect();
    if admins == [id] {
        let detail = "No other valid key has the scope `admin`, so nobody could create keys any \
            more. Create another admin key first, or use `prop key revoke` on the server.";
        return Err(Error::new(Code::LastAdminKey, detail));
    }
    Ok(())
}

/// How many of the keys that `PROP_BOOTSTRAP_KEY` has named are valid.
pub fn valid_bootstrap_keys(db: &mut Db) -> QueryResult<i64> {
    let named = keys::name.eq(BOOTSTRAP).or(keys::name.like(format!("{BOOTSTRAP}-%")));
    keys::table.filter(keys::revoked_at.is_null()).filter(named).count().get_result(db)
}

/// The name of a key that came from `PROP_BOOTSTRAP_KEY`.
const BOOTSTRAP: &str = "bootstrap";

/// Makes sure that an admin key exists. Stores the `given` key if it is not stored yet. Without a
/// given key, creates one if there is no key at all, and returns it. Several processes may call
/// this at the same time.
pub fn bootstrap(db: &mut Db, given: Option<&Token>) -> Result<Option<Token>, Error> {
    let author = Author::prop();
    locks::all_keys(db)?;
    match given {
        Some(token) => {
            let known = keys::table
                .filter(keys::hash.eq(token.hash()))
                .select(keys::id)
                .first::<KeyId>(db)
                .optional()?;
            if known.is_none() {
                let name = free_name(db, BOOTSTRAP)?;
                insert(db, &author, &name, &[Scope::Admin], token)?;
            }
            Ok(None)
        }
        None if keys::table.select(keys::id).first::<KeyId>(db).optional()?.is_some() => Ok(None),
        None => {
            let token = Token::generate().map_err(Error::internal)?;
            insert(db, &author, &"first".into(), &[Scope::Admin], &token)?;
            Ok(Some(token))
        }
    }
}

/// The name, or, while a valid key has it, the name with the next free number: `bootstrap-2`. The
/// bootstrap key of a rotated setting stays valid until somebody revokes it.
fn free_name(db: &mut Db, name: &str) -> QueryResult<Name> {
    let mut free = Name::from(name);
    let mut number = 2;
    while find_valid(db, &free)?.is_some() {
        free = format!("{name}-{number}").into();
        number += 1;
    }
    Ok(free)
}

/// Whether any key exists, revoked or not.
pub fn exist(db: &mut Db) -> Result<bool, Error> {
    Ok(keys::table.select(keys::id).first::<KeyId>(db).optional()?.is_some())
}
