//! [`Ctx`] gives a handler the caller and the database. A handler gets it only with a scope as its
//! type parameter, so no handler can forget the check of the scope.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use diesel::QueryResult;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use crate::config::Tiers;
use crate::db::locks::Service;
use crate::db::together::ByKey;
use crate::db::{Db, clock};
use crate::error::{Code, Error};
use crate::http::auth;
use crate::http::caller::{Caller, Scope};
use crate::http::etag::IfMatch;
use crate::http::idempotency::Claim;
use crate::http::response::Reply;
use crate::http::state::State;
use crate::types::ids::KeyId;
use crate::types::request;
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

/// The environments that an author may create by naming them.
#[derive(Debug, Clone, Copy)]
pub struct NewEnvironments {
    /// Their rules, by tier.
    pub rules: Tiers,
    /// Whether one may have the tier `production`.
    pub may_be_production: bool,
}

/// Who makes a change, and by which request.
#[derive(Debug, Clone)]
pub struct Author {
    /// The name of the key, or another name such as `prop` or `github:octocat`.
    pub name: String,
    /// The key of the request. `None` for webhooks, and for prop itself.
    pub key_id: Option<KeyId>,
    /// The id of the request. `None` for prop itself.
    pub request_id: Option<String>,
    /// The environments that it may create by naming them. `None` for prop itself, which creates
    /// none.
    pub environments: Option<NewEnvironments>,
}

impl Author {
    /// prop itself, as when a deployment expires.
    pub fn prop() -> Self {
        Self { name: "prop".into(), key_id: None, request_id: None, environments: None }
    }

    /// The author of the current request. One with a key adds it.
    pub fn of_request(name: String, environments: NewEnvironments) -> Self {
        let request_id = request::current().map(|id| id.to_string());
        Self { name, key_id: None, request_id, environments: Some(environments) }
    }

    /// The author of the events of a transaction, with the time of the transaction. It comes from a
    /// lock ([`crate::db::locks::service`]) or, where none is taken, from [`clock::now`].
    pub fn at(&self, now: Timestamp) -> Actor {
        Actor { author: self.clone(), now }
    }

    /// The author of events that belong to no service. Those of a service need its lock.
    ///
    /// # Errors
    /// That of the database.
    pub fn now(&self, db: &mut Db) -> QueryResult<Actor> {
        Ok(self.at(clock::now(db)?))
    }
}

/// The author and the time of the events that a transaction records.
#[derive(Debug, Clone)]
pub struct Actor {
    author: Author,
    /// The time of the transaction.
    pub now: Timestamp,
}

impl Deref for Actor {
    type Target = Author;
    fn deref(&self) -> &Author {
        &self.author
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

    /// Whether the caller has the scope, for what depends on it within an operation.
    pub fn may(&self, scope: Scope) -> bool {
        self.caller.may(scope)
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

    /// Reads by a primary key; `None` when nothing has it. Callers that wait together share one
    /// statement.
    ///
    /// # Errors
    /// The error of [`ByKey::load`], or that the database is unavailable.
    pub async fn find<R: ByKey<Error = Error>>(
        &self,
        key: R::Key,
    ) -> Result<Option<R::Value>, Error> {
        self.state.together.find::<R>(key).await
    }

    /// Runs `work` in one transaction, with the caller as the author of its events. It is committed
    /// when `work` succeeds, or when its error has `is_recorded` set. `work` may run more than
    /// once; what an earlier run wrote is undone then.
    ///
    /// # Errors
    /// The error of `work`, or that the database is unavailable.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db, &Author) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_locked(None, work).await
    }

    async fn write_locked<T: Send + 'static>(
        &self,
        locked: Option<Service>,
        mut work: impl FnMut(&mut Db, &Author) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Caller { id, name, .. } = &*self.caller;
        let environments = NewEnvironments {
            rules: self.state.tiers,
            may_be_production: self.caller.may(Scope::Operate),
        };
        let author = Author { key_id: *id, ..Author::of_request(name.clone(), environments) };
        let recorded = move |db: &mut Db| match work(db, &author) {
            Err(refusal) if refusal.is_recorded => Ok(Err(refusal)),
            other => other.map(Ok),
        };
        self.state.db.write_locked(locked, recorded).await?
    }

    /// Runs the work of a POST in one transaction. With an `Idempotency-Key` it runs only once: a
    /// repeat gets the stored response.
    ///
    /// # Errors
    /// The error of `work`, an error about the idempotency key, or that the database is
    /// unavailable.
    pub async fn post(
        &self,
        work: impl FnMut(&mut Db, &Author) -> Result<Reply, Error> + Send + 'static,
    ) -> Result<Reply, Error> {
        self.post_locked(None, work).await
    }

    /// [`Self::post`] in a transaction that locks a service before `work` looks at it. With an
    /// `Idempotency-Key`, the lock is a statement of its own: a repeat must not wait for it while
    /// the first request is running.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub async fn post_in(
        &self,
        service: Service,
        work: impl FnMut(&mut Db, &Author) -> Result<Reply, Error> + Send + 'static,
    ) -> Result<Reply, Error> {
        self.post_locked(Some(service), work).await
    }

    async fn post_locked(
        &self,
        locked: Option<Service>,
        mut work: impl FnMut(&mut Db, &Author) -> Result<Reply, Error> + Send + 'static,
    ) -> Result<Reply, Error> {
        let claim = self.caller.id.map(|id| Claim::from_request(&self.request, id)).transpose()?;
        let Some(claim) = claim.flatten() else { return self.write_locked(locked, work).await };
        self.write(move |db, author| {
            claim.honour(db, |db| {
                locked.as_ref().map_or(Ok(()), |service| service.lock(db))?;
                work(db, author)
            })
        })
        .await
    }
}
