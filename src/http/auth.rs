//! Keys: their form, their scopes, and who a request comes from.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, web};
use diesel::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

use crate::db::Db;
use crate::db::schema::keys;
use crate::db::types::Timestamp;
use crate::error::{Code, Error};
use crate::http::context::State;
use crate::{identifier, text_enum};

identifier! {
    /// Identifies a key, without being one.
    KeyId
}

text_enum! {
    /// What a key may do.
    Scope {
        /// Read everything but keys.
        Read = "read",
        /// Record releases and deployments, and move deployments.
        Deploy = "deploy",
        /// Record scans of releases.
        Attest = "attest",
        /// Approve and reject.
        Approve = "approve",
        /// Record approvals that were given elsewhere.
        Mirror = "mirror",
        /// Change services, environments, freezes and incidents.
        Operate = "operate",
        /// Let a deployment through a freeze.
        Override = "override",
        /// Manage keys, and everything above.
        Admin = "admin",
    }
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_LENGTH: usize = 30;
const CHECKSUM_LENGTH: usize = 6;

/// A key as its holder has it: `prop_`, 30 random characters, and a checksum that tells a typing error from an unknown
/// key without asking the database. Only its hash is kept.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}...", self.shown())
    }
}

impl Token {
    /// A fresh one, with 178 random bits.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = String::with_capacity(SECRET_LENGTH);
        let mut random = [0_u8; 64];
        while secret.len() < SECRET_LENGTH {
            getrandom::fill(&mut random)?;
            // 248 is the largest multiple of 62 in a byte: above it, characters would not be equally likely.
            let fair = random
                .iter()
                .filter(|byte| **byte < 248)
                .map(|byte| ALPHABET[usize::from(byte % 62)] as char);
            secret.extend(fair.take(SECRET_LENGTH - secret.len()));
        }
        Ok(Self(format!("prop_{secret}{}", checksum(&secret))))
    }

    /// Reads one; `None` when it has another form or the checksum is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let (secret, sum) = text.strip_prefix("prop_")?.split_at_checked(SECRET_LENGTH)?;
        let base62 = secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (base62 && sum == checksum(secret)).then(|| Self(text.to_owned()))
    }

    /// The whole key, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The part by which people recognise it.
    pub fn shown(&self) -> &str {
        &self.0[..10]
    }

    /// What is kept of it: its SHA-256, in hexadecimal. A fast hash is enough for a secret that can't be guessed.
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(&self.0))
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn checksum(secret: &str) -> String {
    let mut rest = crc32fast::hash(secret.as_bytes()) as usize;
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    digits.iter().map(|digit| *digit as char).collect()
}

/// Who a request comes from.
#[derive(Debug)]
pub struct Caller {
    /// The key it used; none, where reading needs none.
    pub id: Option<KeyId>,
    /// The key's name: the actor in the history.
    pub name: String,
    scopes: Vec<Scope>,
}

impl Caller {
    /// Who reads without a key, where that is allowed.
    fn anonymous() -> Self {
        Self { id: None, name: "anonymous".into(), scopes: vec![Scope::Read] }
    }

    /// Whether the key has the scope; `admin` has all.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// Scopes as a key's row keeps them.
pub fn parse_scopes(kept: &str) -> Vec<Scope> {
    kept.split(' ').filter_map(|word| word.parse().ok()).collect()
}

/// Keys that were checked a moment ago. A revoked key may thus work for [`REMEMBERED`] longer, on other processes.
#[derive(Default)]
pub struct Keys(Mutex<HashMap<[u8; 32], Checked>>);

type Checked = (Instant, Arc<Caller>);

const REMEMBERED: Duration = Duration::from_secs(5);
const MOST: usize = 10_000;

impl Keys {
    fn get(&self, digest: &[u8; 32]) -> Option<Arc<Caller>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(digest)
            .filter(|(checked, _)| checked.elapsed() < REMEMBERED)
            .map(|(_, caller)| caller.clone())
    }

    fn put(&self, digest: [u8; 32], caller: Arc<Caller>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(digest, (Instant::now(), caller));
    }

    /// Forgets every key, after one was revoked here.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Middleware: finds out who asks, or answers 401.
pub async fn authenticate(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let state = req.app_data::<web::Data<State>>().map(|state| state.as_ref());
    // HEAD is GET by now.
    let may_be_anonymous =
        *req.method() == Method::GET && state.is_some_and(|state| state.public_read);
    let caller = match identify(req.headers(), state).await {
        Err(error) if error.code == Code::Unauthenticated && may_be_anonymous => {
            Arc::new(Caller::anonymous())
        }
        Ok(caller) => caller,
        Err(error) => return Ok(req.error_response(error).map_into_right_body()),
    };
    req.extensions_mut().insert(caller);
    Ok(next.call(req).await?.map_into_left_body())
}

fn refused(code: Code, detail: &str) -> Error {
    Error::new(code, detail).header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// A key is needed, and none was given.
pub fn unauthenticated() -> Error {
    refused(Code::Unauthenticated, "Send a key, as in `Authorization: Bearer prop_...`.")
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

async fn identify(headers: &HeaderMap, state: Option<&State>) -> Result<Arc<Caller>, Error> {
    let state = state.ok_or_else(|| Error::internal("no state"))?;
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Err(unauthenticated());
    };
    let token = bearer(header.as_bytes())?;

    let digest: [u8; 32] = Sha256::digest(token.reveal()).into();
    if let Some(caller) = state.keys.get(&digest) {
        return Ok(caller);
    }
    let hash = token.hash();
    let found = state.db.read(move |db| find(db, &hash)).await?;
    let found = found.ok_or_else(|| {
        refused(
            Code::InvalidKey,
            "Unknown key. Check that you copied all of it, and that it is a key of this ledger.",
        )
    })?;
    if found.revoked_at.is_some() {
        return Err(refused(Code::RevokedKey, "This key was revoked."));
    }
    note_use(state, &found);
    let caller = Arc::new(Caller {
        id: Some(found.id),
        name: found.name,
        scopes: parse_scopes(&found.scopes),
    });
    state.keys.put(digest, caller.clone());
    Ok(caller)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = keys)]
struct Found {
    id: KeyId,
    name: String,
    scopes: String,
    hash: String,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

fn find(db: &mut Db, hash: &str) -> Result<Option<Found>, Error> {
    let found =
        keys::table.filter(keys::hash.eq(hash)).select(Found::as_select()).first(db).optional()?;
    // The index has compared already; comparing again in constant time costs nothing and trusts no collation.
    Ok(found.filter(|found| bool::from(found.hash.as_bytes().ct_eq(hash.as_bytes()))))
}

/// Keeps `last_used_at` right to a minute, without making the request wait.
fn note_use(state: &State, key: &Found) {
    let (db, id, now) = (state.db.clone(), key.id, Timestamp::now());
    if key.last_used_at.is_some_and(|at| now.since(at).as_secs() < 60) {
        return;
    }
    actix_web::rt::spawn(async move {
        let used = move |db: &mut Db| {
            diesel::update(keys::table.find(id)).set(keys::last_used_at.eq(now)).execute(db)?;
            Ok::<_, Error>(())
        };
        if let Err(error) = db.write(used).await {
            log::warn!("the last use of key {id} was not noted: {error}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_every_changed_character_is_noticed() {
        let token = Token::generate().unwrap();
        assert_eq!(token.reveal().len(), 41);
        assert_eq!(Token::parse(token.reveal()).unwrap().hash(), token.hash());
        for at in 0..token.reveal().len() {
            let mut changed = token.reveal().to_owned().into_bytes();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            assert!(
                Token::parse(std::str::from_utf8(&changed).unwrap()).is_none(),
                "character {at}"
            );
        }
        for wrong in ["", "prop_", "prop_é", &token.reveal()[1..], &format!("{}0", token.reveal())]
        {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let token = Token::generate().unwrap();
        assert!(!format!("{token:?}").contains(&token.reveal()[12..]));
    }
}
