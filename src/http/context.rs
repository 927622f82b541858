//! [`Ctx`] gives a handler the caller and the database. A handler gets it only with a scope as its
//! type parameter, so no handler can forget the check of the scope.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;

use crate::db::Db;
use crate::error::{Code, Error};
use crate::http::auth;
use crate::http::caller::{Caller, Scope};
use crate::http::etag::IfMatch;
use crate::http::idempotency::Claim;
use crate::http::response::Reply;
use crate::http::state::State;
use crate::types::time::Timestamp;

/// A required scope as a type, for [`Ctx`].
pub trait Requires {
    /// The scopes of which the caller needs at least one.
    const ANY_OF: &'static [Scope];
}

macro_rules! scopes {
    ($($name:ident: $($scope:ident)+,)+) => {
        $(
            #[doc = concat!("Requires one of these scopes:", $(" ", stringify!($scope)),+, ".")]
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

/// The actor and the time of the events that a transaction records.
pub struct Actor {
    /// The name of the key, or another name such as `prop` or `github:octocat`.
    pub name: String,
    /// The time of the transaction.
    pub now: Timestamp,
}

impl Actor {
    /// An actor with the current time.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), now: Timestamp::now() }
    }

    /// The same actor with the current time. Use it after waiting for a lock, so that the decision
    /// sees what others committed in the meantime.
    pub fn afresh(&self) -> Self {
        Self::new(&self.name)
    }
}

/// A request whose caller has the scope `S`.
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

    /// Checks that the caller has at least one of these scopes.
    ///
    /// # Errors
    /// `unauthenticated` without a key, else `missing_scope`.
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

    /// The `If-Match` header of the request.
    ///
    /// # Errors
    /// `invalid_if_match` when the header is malformed.
    pub fn if_match(&self) -> Result<IfMatch, Error> {
        IfMatch::from_request(&self.request)
    }

    /// Empties the cache of checked keys.
    pub fn forget_keys(&self) {
        self.state.keys.forget();
    }

    /// Runs `work`, which must only read. It may run more than once.
    ///
    /// # Errors
    /// The error of `work`, or that the database is unavailable.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.state.db.read(work).await
    }

    /// Runs `work` in one transaction, with the caller as the actor. The transaction is committed
    /// when `work` succeeds, or when its error has `is_recorded` set.
    ///
    /// # Errors
    /// The error of `work`, or that the database is unavailable.
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

    /// Runs the work of a POST in one transaction. With an `Idempotency-Key` it runs only once: a
    /// repeat gets the stored response.
    ///
    /// # Errors
    /// The error of `work`, an error about the idempotency key, or that the database is
    /// unavailable.
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
