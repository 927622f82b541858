//! The one error type, and the one table of everything that can go wrong: code, status, title.
//!
//! Sent as RFC 9457 problem details by [`crate::http::problem`].

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

use crate::db::pool::Unavailable;
use crate::suggest;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $status:literal $code:literal $title:literal,)+) => {
        /// What went wrong, as a stable word that programs can act on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $(#[$doc])* $variant,)+
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Code] = &[$(Code::$variant),+];

            /// The word, as in the problem's `code`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code,)+ }
            }

            /// The HTTP status it is answered with.
            pub fn status(self) -> StatusCode {
                let status = match self { $(Code::$variant => $status,)+ };
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// One line for people; the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    MalformedJson = 400 "malformed_json" "The body is not JSON",
    InvalidQuery = 400 "invalid_query" "A query parameter is unknown, repeated or malformed",
    InvalidLimit = 400 "invalid_limit" "The page size is out of range",
    InvalidWindow = 400 "invalid_window" "The time to be measured is empty or too long",
    InvalidCursor = 400 "invalid_cursor" "The cursor is not one that a list handed out",
    InvalidIdempotencyKey = 400 "invalid_idempotency_key" "The idempotency key is malformed",
    InvalidIfMatch = 400 "invalid_if_match" "The If-Match header is malformed",
    InvalidDelivery = 400 "invalid_delivery" "A header of the delivery is missing or malformed",
    Unauthenticated = 401 "unauthenticated" "No key was given",
    InvalidKey = 401 "invalid_key" "The key is unknown or malformed",
    InvalidSignature = 401 "invalid_signature" "The signature does not match the body",
    RevokedKey = 401 "revoked_key" "The key was revoked",
    WebhooksOff = 403 "webhooks_off" "No webhook secret is set",
    MissingScope = 403 "missing_scope" "The key lacks the scope for this",
    OwnApproval = 403 "own_approval" "Who asks for a deployment can't approve it",
    NotFound = 404 "not_found" "There is no such thing",
    MethodNotAllowed = 405 "method_not_allowed" "This method is not for this path",
    RequestTimeout = 408 "request_timeout" "The body did not arrive in time",
    AlreadyExists = 409 "already_exists" "This name is taken",
    ReleaseConflict = 409 "release_conflict" "This version is already another release",
    ExternalIdTaken = 409 "external_id_taken" "This external id belongs to another deployment",
    InvalidTransition = 409 "invalid_transition" "The deployment can't make this move",
    GateBlocked = 409 "gate_blocked" "The gate does not let this deployment through",
    NothingToRollBackTo = 409 "nothing_to_roll_back_to" "No other release was live there before",
    ApprovalUsed = 409 "approval_used" "This approval was used up by a deployment",
    FreezeEnded = 409 "freeze_ended" "The freeze has ended",
    IdempotencyInProgress = 409 "idempotency_in_progress" "A request with this idempotency key is still running",
    PreconditionFailed = 412 "precondition_failed" "It has changed since it was read",
    BodyTooLarge = 413 "body_too_large" "The body is larger than allowed",
    UnsupportedMediaType = 415 "unsupported_media_type" "The body must be application/json",
    UnknownField = 422 "unknown_field" "The body has a field that is not known",
    MissingField = 422 "missing_field" "The body lacks a field",
    InvalidType = 422 "invalid_type" "A field has the wrong type",
    InvalidValue = 422 "invalid_value" "A field has a value that is not allowed",
    InvalidText = 422 "invalid_text" "A text is empty, too long or has control characters",
    InvalidSlug = 422 "invalid_slug" "A slug is malformed",
    InvalidVersion = 422 "invalid_version" "A version is malformed",
    InvalidSha = 422 "invalid_sha" "A git commit id is malformed",
    InvalidDigest = 422 "invalid_digest" "An image digest is malformed",
    InvalidUrl = 422 "invalid_url" "A URL is malformed",
    InvalidTimeZone = 422 "invalid_time_zone" "A time zone is not known",
    PredecessorCircle = 422 "predecessor_circle" "Environments would come before themselves",
    InvalidTime = 422 "invalid_time" "A time is malformed",
    IdempotencyKeyReused = 422 "idempotency_key_reused" "This idempotency key was used for another request",
    Internal = 500 "internal" "Something went wrong in prop",
    Overloaded = 503 "overloaded" "Too much is waiting already",
    DatabaseUnavailable = 503 "database_unavailable" "The database can't be reached",
    TimedOut = 503 "timed_out" "The database did not answer in time",
    ShuttingDown = 503 "shutting_down" "This process is about to end",
    NotReady = 503 "not_ready" "The database lacks migrations",
}

impl Code {
    /// The code with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == word)
    }

    /// The problem's `type`: an absolute URI that leads to its documentation (RFC 9457, section 3.1.1).
    pub fn type_uri(self) -> String {
        format!("{}/blob/main/docs/problems.md#{}", env!("CARGO_PKG_REPOSITORY"), self.as_str())
    }
}

/// So many names of what exists are listed in an answer at most.
pub const NAMED: usize = 10;

/// One field that is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FieldError {
    /// Where in the body, as a JSON pointer (RFC 6901); or the name of a query parameter.
    #[schema(example = "/git_sha")]
    pub pointer: String,
    /// What is wrong with it, and what is allowed.
    pub detail: String,
}

/// Anything that keeps a request from being answered as asked. Nothing was changed by it.
#[derive(Debug, Clone)]
pub struct Error {
    /// Which row of the table.
    pub code: Code,
    /// One sentence about this occurrence. Never holds a secret.
    pub detail: String,
    /// The fields that are wrong, for a body or query that is.
    pub errors: Vec<FieldError>,
    /// Further members of the problem (RFC 9457, section 3.2).
    pub members: serde_json::Map<String, serde_json::Value>,
    /// The transaction is kept all the same: it holds the record of the refusal, and nothing else.
    pub is_recorded: bool,
    /// Headers that belong to the answer, such as `Allow`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Error {
    /// An error with its sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: serde_json::Map::new(),
            headers: Vec::new(),
            is_recorded: false,
        }
    }

    /// A field or parameter that is wrong.
    pub fn field(code: Code, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let mut error = Self::new(
            code,
            if pointer.is_empty() { detail.clone() } else { format!("{pointer}: {detail}") },
        );
        error.errors.push(FieldError { pointer, detail });
        error
    }

    /// `what` (a kind of thing) with this name does not exist.
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("There is no {what} {name}."))
    }

    /// The service or environment (`what`) with this name does not exist. Says which do: at most
    /// [`NAMED`] of the `existing` ones, and the one that may have been meant.
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

    /// Adds a member to the problem.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.members.insert(name.into(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Keeps what the transaction has written: the record of this refusal.
    pub fn recorded(self) -> Self {
        Self { is_recorded: true, ..self }
    }

    /// The cause goes to the log, the client learns only that there was one.
    pub fn internal(cause: impl fmt::Display) -> Self {
        log::error!("internal error: {cause}");
        Self::new(
            Code::Internal,
            "Something went wrong in prop; its log tells more under this request's id.",
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
                Self::new(Code::Overloaded, "The queue for the database is full. Try again.")
            }
            Unavailable::Unreachable => {
                Self::new(Code::DatabaseUnavailable, "The database can't be reached. Try again.")
            }
            Unavailable::TimedOut => Self::new(
                Code::TimedOut,
                "The database did not answer in time. Ask again before you repeat a write without an idempotency key.",
            ),
            Unavailable::Failed => Self::internal("database work panicked"),
        }
    }
}

/// Database errors by kind. A violation that a handler expects is turned into its own code by the handler.
impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
            | DieselError::BrokenTransactionManager => {
                log::error!("database connection lost: {error}");
                let detail = "The connection to the database was lost. Ask again before you repeat a write without an idempotency key.";
                Self::new(Code::DatabaseUnavailable, detail)
            }
            DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => Self::new(
                Code::Overloaded,
                "Others changed the same thing at the same time. Try again.",
            ),
            // SQLite waited as long as it may for the write lock; PostgreSQL cancelled at statement_timeout.
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
