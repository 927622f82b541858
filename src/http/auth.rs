//! Identifies the caller of a request by its API key.

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use actix_web::{HttpMessage, web};
use diesel::prelude::*;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;

use crate::db::Db;
use crate::db::kept::Fixed;
use crate::db::schema::keys;
use crate::each_backend;
use crate::error::{Code, Error};
use crate::http::caller::{Caller, Scope, parse_scopes};
use crate::http::state::State;
use crate::types::ids::KeyId;
use crate::types::time::Timestamp;
use crate::types::token::Token;

/// Identifies the caller by the key. The request has the caller as an extension then.
///
/// # Errors
/// `unauthenticated`, `invalid_key`, `revoked_key`, or that the database is unavailable.
pub async fn authenticate(request: &ServiceRequest) -> Result<(), Error> {
    let state = request.app_data::<web::Data<State>>().map(|state| state.as_ref());
    // `telemetry::observe` has already changed HEAD into GET.
    let may_be_anonymous =
        *request.method() == Method::GET && state.is_some_and(|state| state.public_read);
    let caller = match identify(request.headers(), state).await {
        Err(error) if error.code == Code::Unauthenticated && may_be_anonymous => {
            Arc::new(Caller::anonymous())
        }
        other => other?,
    };
    request.extensions_mut().insert(caller);
    Ok(())
}

fn refused(code: Code, detail: &str) -> Error {
    Error::new(code, detail).header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// The error for a request without a key.
pub fn unauthenticated() -> Error {
    refused(
        Code::Unauthenticated,
        "Send an API key in the header `Authorization: Bearer prop_...`.",
    )
}

/// The key in an `Authorization` header, or what is wrong with it. Its text is never repeated.
fn bearer(header: &[u8]) -> Result<Token, Error> {
    let header = std::str::from_utf8(header).unwrap_or_default().trim();
    let (scheme, key) = header.split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        let missing = if scheme.starts_with("prop_") { " `Bearer` is missing." } else { "" };
        let detail = format!("The header must be `Authorization: Bearer prop_...`.{missing}");
        return Err(refused(Code::InvalidKey, &detail));
    }
    let key = key.trim();
    if key.is_empty() {
        return Err(refused(Code::InvalidKey, "There is no key after `Bearer`."));
    }
    Token::parse(key).ok_or_else(|| {
        let detail = "This is not a key: a key is `prop_` and 36 letters and digits. \
                      Check that you copied all of it.";
        refused(Code::InvalidKey, detail)
    })
}

/// Whether the caller may read, where nobody needs a key: with one that has the scope `read`, or
/// without one when `public_read` is on.
///
/// # Errors
/// When there is a key and it is wrong, or cannot be looked up.
pub async fn may_read(headers: &HeaderMap, state: &State) -> Result<bool, Error> {
    match identify(headers, Some(state)).await {
        Err(error) if error.code == Code::Unauthenticated => Ok(state.public_read),
        caller => Ok(caller?.may(Scope::Read)),
    }
}

async fn identify(headers: &HeaderMap, state: Option<&State>) -> Result<Arc<Caller>, Error> {
    let state = state.ok_or_else(|| Error::internal("no state"))?;
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Err(unauthenticated());
    };
    let token = bearer(header.as_bytes())?;

    let digest: [u8; 32] = Sha256::digest(token.reveal()).into();
    if let Some(checked) = state.keys.get(&digest) {
        return checked.ok_or_else(unknown);
    }
    let (hash, generation) = (token.hash(), state.keys.generation());
    let Some(found) = state.db.read(move |db| find(db, &hash)).await? else {
        state.keys.put(digest, None, generation);
        return Err(unknown());
    };
    if found.revoked_at.is_some() {
        return Err(refused(Code::RevokedKey, "The key was revoked."));
    }
    note_use(state, &found);
    let caller = Arc::new(Caller {
        id: Some(found.id),
        name: found.name,
        scopes: parse_scopes(&found.scopes),
    });
    state.keys.put(digest, Some(caller.clone()), generation);
    Ok(caller)
}

fn unknown() -> Error {
    let detail =
        "Unknown key. Check that you copied all of it, and that it is a key of this ledger.";
    refused(Code::InvalidKey, detail)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = keys)]
struct KeyRow {
    id: KeyId,
    name: String,
    scopes: String,
    hash: String,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

fn find(db: &mut Db, hash: &str) -> Result<Option<KeyRow>, Error> {
    let found = each_backend!(db, |c| {
        let named = keys::table.filter(keys::hash.eq(hash));
        named.select(KeyRow::as_select()).get_result(c).optional()
    })?;
    // The database has already compared the hashes. The second comparison takes constant time and
    // does not depend on a collation.
    Ok(found.filter(|found| bool::from(found.hash.as_bytes().ct_eq(hash.as_bytes()))))
}

/// Updates `last_used_at` at most once a minute, in the background.
fn note_use(state: &State, key: &KeyRow) {
    let (db, id, now) = (state.db.clone(), key.id, Timestamp::now());
    if key.last_used_at.is_some_and(|at| now.since(at).as_secs() < 60) {
        return;
    }
    actix_web::rt::spawn(async move {
        let used = move |db: &mut Db| {
            struct NoteUse;
            each_backend!(db, |c| {
                let update = diesel::update(keys::table.find(id));
                Fixed::new(update.set(keys::last_used_at.eq(now)), NoteUse).execute(c)
            })?;
            Ok::<_, Error>(())
        };
        if let Err(error) = db.write(used).await {
            log::warn!("could not update last_used_at of key {id}: {error}");
        }
    });
}
