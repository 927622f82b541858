//! What each request passes through: the check of its key, and its line in the log.

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgPool;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who sent a request, and which one.
#[derive(Clone)]
pub struct Caller {
    pub key_id: Uuid,
    pub name: Arc<str>,
    pub request_id: Uuid,
}

/// The id and name of each key, by its hash. They are read once: prop keeps those in use, too.
#[derive(Clone)]
pub struct Keys(Arc<HashMap<String, (Uuid, Arc<str>)>>);

impl Keys {
    pub async fn load(pool: &PgPool) -> sqlx::Result<Self> {
        let valid = "SELECT hash, id, name FROM keys WHERE revoked_at IS NULL";
        let rows: Vec<(String, Uuid, String)> = sqlx::query_as(valid).fetch_all(pool).await?;
        let keys = rows.into_iter().map(|(hash, id, name)| (hash, (id, name.into())));
        Ok(Self(Arc::new(keys.collect())))
    }

    fn caller(&self, request: &Request, request_id: Uuid) -> Option<Caller> {
        let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        let token = header.strip_prefix("Bearer ")?;
        let mut hash = String::with_capacity(64);
        for byte in Sha256::digest(token) {
            write!(hash, "{byte:02x}").ok()?;
        }
        let (key_id, name) = self.0.get(&hash)?.clone();
        Some(Caller { key_id, name, request_id })
    }
}

/// Answers 401 without a valid key. Logs the request, and gives the response its id.
pub async fn check_and_log(
    State(keys): State<Keys>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let (started, method) = (Instant::now(), request.method().clone());
    let request_id = Uuid::now_v7();
    let caller = keys.caller(&request, request_id);
    let key_id = caller.as_ref().map(|caller| caller.key_id);
    let mut response = match caller {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    };
    let (status, ms) = (response.status().as_u16(), started.elapsed().as_secs_f64() * 1000.0);
    let key_id = key_id.map(tracing::field::display);
    tracing::info!(%method, route = path.as_str(), status, ms, key_id, %request_id, "request");
    if let Ok(value) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
