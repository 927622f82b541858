//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a POST that is sent again is answered again, not done
//! again. The answer is kept in the transaction that did the work, so that neither exists without the other.

use actix_web::http::StatusCode;
use actix_web::http::header::EntityTag;
use actix_web::{HttpMessage, HttpRequest};
use diesel::prelude::*;
use jiff::SignedDuration;
use sha2::{Digest, Sha256};

use crate::db::Db;
use crate::db::schema::idempotency_keys;
use crate::db::types::Timestamp;
use crate::error::{Code, Error};
use crate::http::auth::{KeyId, hex};
use crate::http::reply::Reply;

const HEADER: &str = "Idempotency-Key";
const KEPT: SignedDuration = SignedDuration::from_hours(24);
const LONGEST: usize = 255;

/// The SHA-256 of a request's body, left by the extractor that read it.
#[derive(Clone, Copy)]
pub struct BodyDigest([u8; 32]);

/// Notes the body of a request that has an idempotency key.
pub fn note_body(request: &HttpRequest, body: &[u8]) {
    if request.headers().contains_key(HEADER) {
        request.extensions_mut().insert(BodyDigest(Sha256::digest(body).into()));
    }
}

/// A request's claim to be done once.
pub struct Claim {
    caller: KeyId,
    key: String,
    /// What the key stands for: the method, the path and the body.
    fingerprint: String,
}

impl Claim {
    /// Reads the header, quoted or bare.
    pub fn from_request(request: &HttpRequest, caller: KeyId) -> Result<Option<Self>, Error> {
        let Some(header) = request.headers().get(HEADER) else { return Ok(None) };
        let key = header.to_str().unwrap_or_default().trim();
        let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
        if key.is_empty()
            || key.len() > LONGEST
            || !key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
        {
            let detail = format!(
                "Allowed are 1 to {LONGEST} visible ASCII characters without spaces or quotes; a UUID is a good choice."
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

    /// Does the work, or gives the answer that was given when it was done.
    pub fn honour(
        self,
        db: &mut Db,
        work: impl FnOnce(&mut Db) -> Result<Reply, Error>,
    ) -> Result<Reply, Error> {
        self.lock(db)?;
        let now = Timestamp::now();
        let place = idempotency_keys::table.find((self.caller, &self.key));
        match place.select(Kept::as_select()).first(db).optional()? {
            Some(kept) if kept.expires_at <= now => {
                diesel::delete(place).execute(db)?;
            }
            Some(kept) if kept.fingerprint == self.fingerprint => return kept.reply(),
            Some(_) => {
                let detail = "The key came with another method, path or body before. Use a fresh key for a new request.";
                return Err(Error::new(Code::IdempotencyKeyReused, detail));
            }
            None => {}
        }
        let reply = work(db)?;
        diesel::insert_into(idempotency_keys::table)
            .values((
                idempotency_keys::key_id.eq(self.caller),
                idempotency_keys::key.eq(&self.key),
                Kept {
                    fingerprint: self.fingerprint,
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

    /// Makes sure that no other request with this key runs. SQLite has one writer, and that is us.
    fn lock(&self, db: &mut Db) -> Result<(), Error> {
        let Db::Pg(connection) = db else { return Ok(()) };
        let digest = Sha256::digest(format!("{} {}", self.caller, self.key));
        let number = i64::from_be_bytes(digest[..8].try_into().map_err(Error::internal)?);
        let locked = diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(&format!(
            "pg_try_advisory_xact_lock({number})"
        )));
        if locked.get_result(connection)? {
            return Ok(());
        }
        Err(Error::new(
            Code::IdempotencyInProgress,
            "Wait for its answer, or ask for it again with the same key in a moment.",
        ))
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = idempotency_keys, treat_none_as_default_value = false)]
struct Kept {
    fingerprint: String,
    status: i32,
    location: Option<String>,
    etag: Option<String>,
    body: String,
    expires_at: Timestamp,
}

impl Kept {
    fn reply(self) -> Result<Reply, Error> {
        let status =
            u16::try_from(self.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut reply = Reply::ok(&())?;
        reply.status = status.ok_or_else(|| Error::internal("a kept answer has no status"))?;
        reply.location = self.location;
        reply.etag = self.etag.and_then(|etag| etag.parse::<EntityTag>().ok());
        reply.body = self.body.into_bytes();
        reply.replayed = true;
        Ok(reply)
    }
}

/// Deletes answers that nobody may ask for any more.
pub fn forget_expired(db: &mut Db) -> Result<usize, Error> {
    Ok(diesel::delete(
        idempotency_keys::table.filter(idempotency_keys::expires_at.le(Timestamp::now())),
    )
    .execute(db)?)
}
