//! The request of a GitHub webhook. The signature is checked before the body is parsed.

use actix_web::dev::Payload;
use actix_web::http::header::WWW_AUTHENTICATE;
use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::{FromRequest, HttpRequest, web};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::future::Future;
use std::pin::Pin;

use crate::config::WebhookSecret;
use crate::db::Db;
use crate::error::{Code, Error};
use crate::http::context::{Author, NewEnvironments};
use crate::http::extract;
use crate::http::state::State;
use crate::ledger::deployments::GITHUB;
use crate::rules::github;

/// A webhook request with a valid signature. The signature covers only the body, not the headers.
pub struct Signed {
    /// The id of the delivery (`X-GitHub-Delivery`). It is the same when GitHub sends it again.
    pub id: String,
    /// The kind of event (`X-GitHub-Event`), such as `deployment_status`.
    pub event: String,
    /// The body as it was received.
    pub body: String,
    author: Author,
    state: web::Data<State>,
}

impl FromRequest for Signed {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let state = request
                .app_data::<web::Data<State>>()
                .cloned()
                .ok_or_else(|| Error::internal("no state"))?;
            if state.webhook_secrets.is_empty() {
                let detail = "prop accepts only signed webhooks. Set `github.webhook_secret` to \
                    the secret of the webhook.";
                return Err(Error::new(Code::WebhooksOff, detail));
            }
            let headers = request.headers();
            let signature = headers.get("X-Hub-Signature-256").map(HeaderValue::as_bytes);
            let signature = signature.ok_or_else(|| {
                unsigned(
                    "The header X-Hub-Signature-256 is missing. Set the secret of the webhook \
                    on GitHub to the value of `github.webhook_secret`.",
                )
            })?;
            let body = extract::read(&request, payload).await?;
            let signers = signers(&state.webhook_secrets, &body, signature);
            if signers.is_empty() {
                return Err(no_match());
            }
            // PostgreSQL cannot store NUL in a text, and JSON does not contain it.
            let body = String::from_utf8(body.into()).ok().filter(|text| !text.contains('\0'));
            let body =
                body.ok_or_else(|| Error::new(Code::MalformedJson, "The body is not UTF-8 text."))?;
            if !may_sign(&signers, &body) {
                return Err(no_match());
            }
            let (id, event) =
                (word(headers, "X-GitHub-Delivery")?, word(headers, "X-GitHub-Event")?);
            // GitHub's environments are set up by whoever administers the repository.
            let environments = NewEnvironments { rules: state.tiers, may_be_production: true };
            let author = Author::of_request(GITHUB.to_owned(), environments);
            Ok(Self { id, event, body, author, state })
        })
    }
}

impl Signed {
    /// Runs `work` in one transaction. It gets the author, which is GitHub until the body names the
    /// sender, and the id, the event and the body of the delivery. It may run more than once; what
    /// an earlier run wrote is undone then.
    ///
    /// # Errors
    /// The error of `work`, or that the database is unavailable.
    pub async fn write<T, W>(self, mut work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnMut(&mut Db, &Author, &str, &str, &str) -> Result<T, Error> + Send + 'static,
    {
        let Self { id, event, body, author, state } = self;
        state.db.write(move |db| work(db, &author, &id, &event, &body)).await
    }
}

fn unsigned(detail: &str) -> Error {
    Error::new(Code::InvalidSignature, detail)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("GitHub-Signature"))
}

/// The same answer for a wrong signature and for that of a secret which may not sign for the
/// repository: it reveals nothing about the secrets.
fn no_match() -> Error {
    unsigned(
        "X-Hub-Signature-256 does not match: the secret on GitHub is none of \
            `github.webhook_secret` and `github.webhook_secrets` that may sign for this \
            repository, or the body was changed on the way.",
    )
}

/// The secrets with which the signature (`sha256=` and an HMAC-SHA256 in hexadecimal) matches the
/// body. All are compared, each in constant time, so the time does not tell which one matches.
fn signers<'a>(
    secrets: &'a [WebhookSecret],
    body: &[u8],
    signature: &[u8],
) -> Vec<&'a WebhookSecret> {
    let digits =
        signature.strip_prefix(b"sha256=").and_then(|digits| std::str::from_utf8(digits).ok());
    let Some(report) = digits.and_then(from_hex) else { return Vec::new() };
    let is_signer = |secret: &&WebhookSecret| {
        Hmac::<Sha256>::new_from_slice(secret.secret.reveal().as_bytes())
            .is_ok_and(|mac| mac.chain_update(body).verify_slice(&report).is_ok())
    };
    secrets.iter().filter(is_signer).collect()
}

/// Whether one of the secrets may sign for the repository that the body is about. A body that is no
/// JSON is about none; it is refused later.
fn may_sign(signers: &[&WebhookSecret], body: &str) -> bool {
    if signers.iter().any(|secret| !secret.is_limited()) {
        return true;
    }
    let Ok(payload) = github::parse(body) else { return true };
    let about = github::signed_for(&payload);
    about.is_some_and(|name| signers.iter().any(|secret| secret.covers(&name)))
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let is_hex =
        digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| {
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16))
            .collect::<Result<_, _>>()
            .ok()
    })?
}

/// Reads a header of 1 to 100 letters, digits, hyphens and underscores.
fn word(headers: &HeaderMap, name: &str) -> Result<String, Error> {
    let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fits = (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    fits.then(|| text.to_owned()).ok_or_else(|| {
        Error::new(Code::InvalidDelivery, format!("{name} is missing or malformed."))
    })
}
