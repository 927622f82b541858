//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a repeated POST gets the stored
//! response and has no further effect.
//!
//! The transaction that does the work also stores the response, so that neither exists without the
//! other.

use actix_web::http::StatusCode;
use actix_web::http::header::EntityTag;
use actix_web::{HttpMessage, HttpRequest};
use diesel::prelude::*;
use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::db::schema::{idempotency_keys, keys};
use crate::db::{Db, locks};
use crate::error::{Code, Error};
use crate::http::response::Reply;
use crate::types::ids::KeyId;
use crate::types::time::Timestamp;
use crate::types::token::hex;

const HEADER: &str = "Idempotency-Key";
const KEPT: SignedDuration = SignedDuration::from_hours(24);
const LONGEST: usize = 255;

/// The SHA-256 of a request body. The extractor that reads the body attaches it to the request.
#[derive(Clone, Copy)]
pub struct BodyDigest([u8; 32]);

/// Attaches the digest of the body to a request that has an idempotency key.
pub fn note_body(request: &HttpRequest, body: &[u8]) {
    if request.headers().contains_key(HEADER) {
        request.extensions_mut().insert(BodyDigest(Sha256::digest(body).into()));
    }
}

/// The idempotency key of one request.
pub struct Claim {
    caller: KeyId,
    key: String,
    /// A hash of the method, the path and the body: the key may be repeated only with these.
    fingerprint: String,
}

impl Claim {
    /// Parses the header, with or without quotes. `None` when there is no header.
    ///
    /// # Errors
    /// `invalid_idempotency_key` when the key is malformed.
    pub fn from_request(request: &HttpRequest, caller: KeyId) -> Result<Option<Self>, Error> {
        let Some(header) = request.headers().get(HEADER) else { return Ok(None) };
        let key = header.to_str().unwrap_or_default().trim();
        let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
        if key.is_empty()
            || key.len() > LONGEST
            || !key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
        {
            let detail = format!(
                "An idempotency key has 1 to {LONGEST} visible ASCII characters without spaces or \
                    quotes; a UUID is a good choice."
            );
            return Err(Error::new(Code::InvalidIdempotencyKey, detail));
        }
        let mut fingerprint = Sha256::new();
        fingerprint.update(format!("{} {}\n", request.method(), request.path()));
        if let Some(BodyDigest(body)) = request.extensions().get() {
            fingerprint.update(body);
        }
        Ok(Some(Self { caller, key: key.to_owned(), fingerprint: hex(&fingerprint.finalize()) }))
    }

    /// Runs `work` and stores its response, or returns the response that an earlier request stored.
    ///
    /// # Errors
    /// The error of `work`; `idempotency_key_reused` when the key came with another request before;
    /// `idempotency_in_progress` when another request with the key is running.
    pub fn honour(
        &self,
        db: &mut Db,
        work: impl FnOnce(&mut Db) -> Result<Reply, Error>,
    ) -> Result<Reply, Error> {
        self.lock(db)?;
        let now = Timestamp::now();
        let place = idempotency_keys::table.find((self.caller, &self.key));
        match place.select(StoredResponse::as_select()).first(db).optional()? {
            Some(kept) if kept.expires_at <= now => {
                diesel::delete(place).execute(db)?;
            }
            Some(kept) if kept.fingerprint == self.fingerprint => return kept.reply(),
            Some(_) => {
                let detail = "This key was used with another method, path or body. Use a new key \
                    for a new request.";
                return Err(Error::new(Code::IdempotencyKeyReused, detail));
            }
            None => {}
        }
        let reply = work(db)?;
        diesel::insert_into(idempotency_keys::table)
            .values((
                idempotency_keys::key_id.eq(self.caller),
                idempotency_keys::key.eq(&self.key),
                StoredResponse {
                    fingerprint: self.fingerprint.clone(),
                    status: i32::from(reply.status.as_u16()),
                    location: reply.location.clone(),
                    etag: reply.etag.as_ref().map(ToString::to_string),
                    body: String::from_utf8_lossy(&reply.body).into_owned(),
                    expires_at: now.plus(KEPT),
                },
            ))
            .execute(db)?;
        Ok(reply)
    }

    /// Makes sure that no other request with this key is running.
    fn lock(&self, db: &mut Db) -> Result<(), Error> {
        let digest = Sha256::digest(format!("{} {}", self.caller, self.key));
        let number = i64::from_be_bytes(digest[..8].try_into().map_err(Error::internal)?);
        if locks::try_number(db, number)? {
            return Ok(());
        }
        Err(Error::new(
            Code::IdempotencyInProgress,
            "Wait a moment, then send the same request with the same key again to get its \
                response.",
        ))
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = idempotency_keys, treat_none_as_default_value = false)]
struct StoredResponse {
    fingerprint: String,
    status: i32,
    location: Option<String>,
    etag: Option<String>,
    body: String,
    expires_at: Timestamp,
}

impl StoredResponse {
    fn reply(self) -> Result<Reply, Error> {
        let status =
            u16::try_from(self.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut reply = Reply::ok(&())?;
        reply.status = status.ok_or_else(|| Error::internal("a stored response has no status"))?;
        reply.location = self.location;
        reply.etag = self.etag.and_then(|etag| etag.parse::<EntityTag>().ok());
        reply.body = self.body.into_bytes();
        reply.replayed = true;
        Ok(reply)
    }
}

/// The length of the response that [`try_to_write`] stores, in bytes: more than an ordinary write
/// needs, of which the last may have failed for want of a few pages.
const TRIED: usize = 128 * 1024;

/// Stores a response and deletes it again, to find out whether the database can write.
///
/// # Errors
/// `database_unavailable` when it cannot.
pub fn try_to_write(db: &mut Db) -> Result<(), Error> {
    let Some(caller) = keys::table.select(keys::id).first::<KeyId>(db).optional()? else {
        return Ok(());
    };
    let key = format!("readiness {}", Uuid::now_v7());
    diesel::insert_into(idempotency_keys::table)
        .values((
            idempotency_keys::key_id.eq(caller),
            idempotency_keys::key.eq(&key),
            StoredResponse {
                fingerprint: String::new(),
                status: i32::from(StatusCode::OK.as_u16()),
                location: None,
                etag: None,
                body: " ".repeat(TRIED),
                expires_at: Timestamp::now(),
            },
        ))
        .execute(db)?;
    diesel::delete(idempotency_keys::table.find((caller, &key))).execute(db)?;
    Ok(())
}

/// Deletes the expired keys with their stored responses, and returns how many there were.
pub fn forget_expired(db: &mut Db) -> Result<usize, Error> {
    Ok(diesel::delete(
        idempotency_keys::table.filter(idempotency_keys::expires_at.le(Timestamp::now())),
    )
    .execute(db)?)
}
