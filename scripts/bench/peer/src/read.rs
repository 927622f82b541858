//! Reads one deployment, or the latest of a place.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::Failure;
use crate::deployment::{Deployment, DeploymentWithDecision};

#[derive(Deserialize)]
pub struct Place {
    service: String,
    environment: String,
    limit: usize,
}

#[derive(Serialize)]
pub struct Page {
    items: Vec<Deployment>,
    next: Option<String>,
}

pub async fn one(
    State(pool): State<PgPool>,
    Path(id): Path<Uuid>,
) -> Result<Json<DeploymentWithDecision>, Failure> {
    let find = sqlx::query_as(include_str!("../../statements/read.sql")).bind(id).bind(1_i64);
    find.fetch_optional(&pool).await?.map(Json).ok_or(Failure::NotFound)
}

/// A page, and where the next one begins, if there is one.
pub async fn list(
    State(pool): State<PgPool>,
    Query(Place { service, environment, limit }): Query<Place>,
) -> Result<Json<Page>, Failure> {
    let find = sqlx::query_as(include_str!("../../statements/list.sql"));
    let find = find.bind(service).bind(environment).bind(limit as i64 + 1);
    let mut items: Vec<Deployment> = find.fetch_all(&pool).await?;
    let is_last = items.len() <= limit;
    items.truncate(limit);
    let last = items.last().filter(|_| !is_last);
    let next = last.map(|last| format!("{},{}", last.requested_at.to_rfc3339(), last.id));
    Ok(Json(Page { items, next }))
}
