//! The error type of prop, and the table of all error codes with their HTTP status and title.
//!
//! [`crate::http::problem`] sends errors as RFC 9457 problem details.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

use crate::db::pool::{Transient, Unavailable};
use crate::db::{cannot_write, is_lost};
use crate::suggest;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $status:literal $code:literal $title:literal,)+) => {
        /// What went wrong. Programs act on the code's word, which never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!($title, ".")] $(#[$doc])* $variant,)+
        }

        impl Code {
            /// All codes, in the order of `docs/problems.md`.
            pub const ALL: &[Code] = &[$(Code::$variant),+];

            /// The code's word, sent as `code` in a problem.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code,)+ }
            }

            /// The HTTP status of a response with this code.
            pub fn status(self) -> StatusCode {
                let status = match self { $(Code::$variant => $status,)+ };
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// A short title for people. It is the same for every occurrence of the code.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    MalformedJson = 400 "malformed_json" "The body is not valid JSON",
    InvalidQuery = 400 "invalid_query" "A query parameter is unknown, repeated or malformed",
    InvalidLimit = 400 "invalid_limit" "The page size is out of range",
    InvalidWindow = 400 "invalid_window" "The time window is empty or too long",
    InvalidCursor = 400 "invalid_cursor" "The cursor is not valid",
    InvalidIdempotencyKey = 400 "invalid_idempotency_key" "The idempotency key is malformed",
    InvalidIfMatch = 400 "invalid_if_match" "The If-Match header is malformed",
    InvalidDelivery = 400 "invalid_delivery" "A webhook header is missing or malformed",
    Unauthenticated = 401 "unauthenticated" "No API key was sent",
    InvalidKey = 401 "invalid_key" "The key is unknown or malformed",
    InvalidSignature = 401 "invalid_signature" "The signature does not match the body",
    RevokedKey = 401 "revoked_key" "The key was revoked",
    WebhooksOff = 403 "webhooks_off" "Webhooks are not configured",
    MissingScope = 403 "missing_scope" "The key does not have the required scope",
    OwnApproval = 403 "own_approval" "The requester cannot approve the deployment",
    NotFound = 404 "not_found" "Not found",
    MethodNotAllowed = 405 "method_not_allowed" "Method not allowed",
    RequestTimeout = 408 "request_timeout" "The body did not arrive in time",
    AlreadyExists = 409 "already_exists" "Already exists",
    ReleaseConflict = 409 "release_conflict" "This version is recorded with other values",
    ExternalIdTaken = 409 "external_id_taken" "This external id belongs to another deployment",
    InvalidTransition = 409 "invalid_transition" "Invalid state change",
    GateBlocked = 409 "gate_blocked" "The gate blocks this deployment",
    NothingToRollBackTo = 409 "nothing_to_roll_back_to"
        "There is no earlier release to roll back to",
    ApprovalUsed = 409 "approval_used" "A deployment has already used this approval",
    LastAdminKey = 409 "last_admin_key" "This is the last valid admin key",
    FreezeEnded = 409 "freeze_ended" "The freeze has ended",
    IdempotencyInProgress = 409 "idempotency_in_progress"
        "A request with this idempotency key is still in progress",
    PreconditionFailed = 412 "precondition_failed" "The resource has changed since it was read",
    BodyTooLarge = 413 "body_too_large" "The body is too large",
    UnsupportedMediaType = 415 "unsupported_media_type" "The content type must be application/json",
    UnsupportedEncoding = 415 "unsupported_encoding" "The body must not be compressed",
    UnknownField = 422 "unknown_field" "The body has an unknown field",
    MissingField = 422 "missing_field" "A required field is missing",
    InvalidType = 422 "invalid_type" "A field has the wrong type",
    InvalidValue = 422 "invalid_value" "A field has a value that is not allowed",
    InvalidText = 422 "invalid_text" "A text is empty, too long or contains control characters",
    InvalidSlug = 422 "invalid_slug" "A slug is malformed",
    InvalidVersion = 422 "invalid_version" "A version is malformed",
    InvalidSha = 422 "invalid_sha" "A git commit id is malformed",
    InvalidDigest = 422 "invalid_digest" "An image digest is malformed",
    InvalidUrl = 422 "invalid_url" "A URL is malformed",
    InvalidTimeZone = 422 "invalid_time_zone" "A time zone is unknown",
    PredecessorCircle = 422 "predecessor_circle" "The predecessors of environments form a cycle",
    InvalidTime = 422 "invalid_time" "A time is malformed",
    IdempotencyKeyReused = 422 "idempotency_key_reused"
        "This idempotency key was used for another request",
    HeadTooLarge = 431 "head_too_large" "The head of the request is too large",
    Internal = 500 "internal" "Internal server error",
    Overloaded = 503 "overloaded" "Too many requests are waiting",
    DatabaseUnavailable = 503 "database_unavailable" "The database cannot be used",
    OutcomeUnknown = 503 "outcome_unknown" "It is unknown whether the write was saved",
    TimedOut = 503 "timed_out" "The database did not answer in time",
    ShuttingDown = 503 "shutting_down" "The server is shutting down",
    NotReady = 503 "not_ready" "The database is missing migrations",
}

impl Code {
    /// The code with this word; `None` for an unknown word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == word)
    }

    /// The problem's `type`: an absolute URI of its documentation (RFC 9457, section 3.1.1).
    pub fn type_uri(self) -> String {
        format!("{}/blob/main/docs/problems.md#{}", env!("CARGO_PKG_REPOSITORY"), self.as_str())
    }
}

/// At most this many existing names are listed in an error.
pub const NAMED: usize = 10;

/// At most this many existing names are compared with an unknown one, to suggest the nearest.
pub const COMPARED: i64 = 1000;

/// One field or query parameter that is not valid.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FieldError {
    /// The JSON pointer (RFC 6901) of the field in the body, or the name of the query parameter.
    #[schema(example = "/git_sha")]
    pub pointer: String,
    /// What is wrong with the value, and which values are allowed.
    pub detail: String,
}

/// Why a request failed. The request has changed nothing, unless `is_recorded` is set.
#[derive(Debug, Clone)]
pub struct Error {
    /// The code, which decides the HTTP status and the title.
    pub code: Code,
    /// What went wrong this time, in a sentence. It never contains a secret.
    pub detail: String,
    /// The fields or query parameters that are not valid. Empty for other errors.
    pub errors: Vec<FieldError>,
    /// Further members of the problem (RFC 9457, section 3.2).
    pub members: serde_json::Map<String, serde_json::Value>,
    /// Whether to commit the transaction although the request failed. It then contains only the
    /// events that record the failure, such as `gate.blocked`.
    pub is_recorded: bool,
    /// Additional headers of the response, such as `Allow`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the same transaction may succeed when it is repeated; see [`Transient`].
    pub is_transient: bool,
}

impl Transient for Error {
    fn is_transient(&self) -> bool {
        self.is_transient
    }
}

impl Error {
    /// Creates an error from its code and a sentence about this occurrence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: serde_json::Map::new(),
            headers: Vec::new(),
            is_recorded: false,
            is_transient: false,
        }
    }

    /// Creates an error about one field (JSON pointer) or query parameter (name).
    pub fn field(code: Code, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let mut error = Self::new(
            code,
            if pointer.is_empty() { detail.clone() } else { format!("{pointer}: {detail}") },
        );
        error.errors.push(FieldError { pointer, detail });
        error
    }

    /// Creates the 404 for a resource of the kind `what` that does not exist.
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("There is no {what} {name}."))
    }

    /// The service or environment (`what`) with this name does not exist. The error lists at most
    /// [`NAMED`] of the `existing` names, and suggests the nearest one.
    pub fn unknown_name(what: &str, name: &str, existing: &[String]) -> Self {
        let mut detail = format!("Unknown {what} `{name}`.");
        if let Some(meant) = suggest::nearest(name, existing.iter().map(String::as_str)) {
            detail += &format!(" Did you mean `{meant}`?");
        }
        if !existing.is_empty() {
            let named = &existing[..existing.len().min(NAMED)];
            let more = if named.len() < existing.len() { ", and more" } else { "" };
            detail += &format!(" Existing: {}{more}.", named.join(", "));
        }
        Self::new(Code::NotFound, detail)
    }

    /// Mentions that the request could have created what is missing.
    pub fn or_create_missing(mut self) -> Self {
        self.detail += " To create it with this request, set `create_missing` to true.";
        self
    }

    /// Adds an extension member to the problem (RFC 9457, section 3.2).
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.members.insert(name.into(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// Adds a header to the response.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Commits what the transaction has written about this failure; see `is_recorded`.
    pub fn recorded(self) -> Self {
        Self { is_recorded: true, ..self }
    }

    /// Creates the 503 for a transaction that the database ended for the sake of another one.
    fn lost() -> Self {
        let detail = "Other requests changed the same rows at the same time. Nothing was changed: \
            try again.";
        Self { is_transient: true, ..Self::new(Code::Overloaded, detail) }
    }

    /// Creates a 500. The cause is only logged; the client does not see it.
    pub fn internal(cause: impl fmt::Display) -> Self {
        log::error!("internal error: {cause}");
        Self::new(
            Code::Internal,
            "An internal error occurred. The log of prop has the cause under this request id.",
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Error {}

impl From<Unavailable> for Error {
    fn from(cause: Unavailable) -> Self {
        match cause {
            Unavailable::Saturated => {
                Self::new(Code::Overloaded, "The database queue is full. Try again.")
            }
            Unavailable::Unreachable => {
                Self::new(Code::DatabaseUnavailable, "The database cannot be reached. Try again.")
            }
            Unavailable::Unknown => Self::new(
                Code::OutcomeUnknown,
                "The connection to the database was lost while the write was being saved. It was \
                    saved as a whole or not at all: check before you repeat it without an \
                    idempotency key.",
            ),
            Unavailable::TimedOut => Self::new(
                Code::TimedOut,
                "The database did not answer in time. A write may have been saved: check before \
                    you repeat it without an idempotency key.",
            ),
            Unavailable::Failed => Self::internal("database work panicked"),
        }
    }
}

/// Maps database errors to codes. A handler that expects a constraint violation maps it itself.
impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match &error {
            // Not during the commit: see `Unavailable::Unknown`.
            lost if is_lost(lost) => {
                log::error!("database connection lost: {error}");
                let detail = "The connection to the database was lost. Nothing was changed. Try \
                    again.";
                Self::new(Code::DatabaseUnavailable, detail)
            }
            refused if cannot_write(refused) => {
                log::error!("the database cannot write: {error}");
                let detail = "The database cannot write now: its disk is full, or it is read-only. \
                    Nothing was changed. Try again later.";
                Self::new(Code::DatabaseUnavailable, detail)
            }
            DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => Self::lost(),
            // SQLSTATE 40P01, which diesel has no kind for.
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, cause)
                if cause.message().starts_with("deadlock detected") =>
            {
                Self::lost()
            }
            // SQLite waited for the write lock until its timeout, or PostgreSQL cancelled the
            // statement at statement_timeout.
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, cause)
                if cause.message().starts_with("database is locked")
                    || cause.message().contains("statement timeout") =>
            {
                Unavailable::TimedOut.into()
            }
            _ => Self::internal(error),
        }
    }
}

/// The result of a statement that a unique index may refuse.
pub trait OnConflict<T> {
    /// Turns the violation of a unique index into the error that `conflict` returns.
    ///
    /// # Errors
    /// That error, or the other database error.
    fn on_conflict(self, conflict: impl FnOnce() -> Error) -> Result<T, Error>;
}

impl<T> OnConflict<T> for QueryResult<T> {
    fn on_conflict(self, conflict: impl FnOnce() -> Error) -> Result<T, Error> {
        self.map_err(|error| match error {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => conflict(),
            other => other.into(),
        })
    }
}
