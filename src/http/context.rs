//! `Ctx`: who asks, and the way to the database. A handler gets at neither without naming the scope it needs.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::Secret;
use crate::db::Db;
use crate::db::pool::Database;
use crate::db::types::Timestamp;
use crate::error::{Code, Error};
use crate::http::auth::{self, Caller, Keys, Scope};
use crate::http::conditional::IfMatch;
use crate::http::docs::Published;
use crate::http::idempotency::Claim;
use crate::http::metrics::Metrics;
use crate::http::reply::Reply;

/// What the process shares between requests. Everything that must last is in the database.
pub struct State {
    /// The database.
    pub db: Database,
    /// Keys that were checked a moment ago.
    pub keys: Keys,
    /// Counters.
    pub metrics: Metrics,
    /// How requests are taken.
    pub http: crate::config::Http,
    /// The OpenAPI document.
    pub docs: Published,
    /// What webhooks are signed with, if any are taken.
    pub webhook_secret: Option<Secret>,
    /// The image that this process runs in, if it was told.
    pub image_digest: Option<String>,
    /// Reading needs no key.
    pub public_read: bool,
    /// Set at SIGTERM: no longer ready.
    pub draining: AtomicBool,
}

/// A scope, as a type.
pub trait Requires {
    /// One of these is enough.
    const ANY_OF: &'static [Scope];
}

macro_rules! scopes {
    ($($name:ident: $($scope:ident)+,)+) => {
        $(
            #[doc = concat!("Requires one of the scopes: ", $(stringify!($scope), " "),+)]
            pub struct $name;
            impl Requires for $name {
                const ANY_OF: &'static [Scope] = &[$(Scope::$scope),+];
            }
        )+
    };
}

scopes! {
    Read: Read,
    Deploy: Deploy,
    Attest: Attest,
    ApproveOrMirror: Approve Mirror,
    Operate: Operate,
    Override: Override,
    Admin: Admin,
}

/// Who does something, and when: the author of what a transaction writes into the history.
pub struct Actor {
    /// The name of the key.
    pub name: String,
    /// The time of the transaction.
    pub now: Timestamp,
}

impl Actor {
    /// Somebody who acts now.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), now: Timestamp::now() }
    }

    /// The same, later: after a lock was waited for, so that what is decided sees what was done in the meantime.
    pub fn afresh(&self) -> Self {
        Self::new(&self.name)
    }
}

/// A request from a caller who has the scope `S`.
pub struct Ctx<S> {
    state: web::Data<State>,
    caller: Arc<Caller>,
    request: HttpRequest,
    scope: PhantomData<S>,
}

impl<S: Requires> FromRequest for Ctx<S> {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::new(request))
    }
}

impl<S: Requires> Ctx<S> {
    fn new(request: &HttpRequest) -> Result<Self, Error> {
        let state = request
            .app_data::<web::Data<State>>()
            .cloned()
            .ok_or_else(|| Error::internal("no state"))?;
        let caller = request
            .extensions()
            .get::<Arc<Caller>>()
            .cloned()
            .ok_or_else(|| Error::internal("a route without authentication"))?;
        let ctx = Self { state, caller, request: request.clone(), scope: PhantomData };
        ctx.require(S::ANY_OF)?;
        Ok(ctx)
    }

    /// Checks that the caller has one of these scopes.
    pub fn require(&self, any_of: &[Scope]) -> Result<(), Error> {
        if any_of.iter().any(|scope| self.caller.may(*scope)) {
            return Ok(());
        }
        if self.caller.id.is_none() {
            return Err(auth::unauthenticated());
        }
        let words: Vec<_> = any_of.iter().map(|scope| format!("`{scope}`")).collect();
        let detail = format!(
            "This needs a key with the scope {}; the key {:?} does not have it.",
            words.join(" or "),
            self.caller.name
        );
        Err(Error::new(Code::MissingScope, detail).with("scopes", any_of))
    }

    /// The name of the caller's key.
    pub fn name(&self) -> &str {
        &self.caller.name
    }

    /// What the client says it has read before.
    pub fn if_match(&self) -> Result<IfMatch, Error> {
        IfMatch::from_request(&self.request)
    }

    /// Forgets which keys were checked.
    pub fn forget_keys(&self) {
        self.state.keys.forget();
    }

    /// Runs queries that only read.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.state.db.read(work).await
    }

    /// Runs queries in one transaction, as the caller. It is kept when `work` succeeds, and when its error is the record of
    /// a refusal.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db, &Actor) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let name = self.caller.name.clone();
        let recorded = move |db: &mut Db| match work(db, &Actor::new(name)) {
            Err(refusal) if refusal.is_recorded => Ok(Err(refusal)),
            other => other.map(Ok),
        };
        self.state.db.write(recorded).await?
    }

    /// Answers a POST: in one transaction, and only once for each `Idempotency-Key`.
    pub async fn post(
        &self,
        work: impl FnOnce(&mut Db, &Actor) -> Result<Reply, Error> + Send + 'static,
    ) -> Result<Reply, Error> {
        let claim = self.caller.id.map(|id| Claim::from_request(&self.request, id)).transpose()?;
        match claim.flatten() {
            Some(claim) => {
                self.write(move |db, actor| claim.honour(db, |db| work(db, actor))).await
            }
            None => self.write(work).await,
        }
    }
}
