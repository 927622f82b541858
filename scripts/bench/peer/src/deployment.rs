//! A deployment, as prop stores and answers it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use uuid::Uuid;

#[derive(Clone, FromRow, Serialize)]
pub struct Deployment {
    pub id: Uuid,
    pub service: String,
    pub environment: String,
    pub release_id: Uuid,
    pub version: String,
    pub git_sha: Option<String>,
    pub image_digest: Option<String>,
    pub state: String,
    pub kind: String,
    pub unplanned: bool,
    pub rollback: bool,
    pub requested_by: String,
    pub source: String,
    pub external_id: Option<String>,
    pub run_url: Option<String>,
    pub reason: Option<String>,
    pub previous_id: Option<Uuid>,
    pub rollback_of: Option<Uuid>,
    pub requested_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub revision: i32,
    pub ungated: bool,
    pub expires_at: Option<DateTime<Utc>>,
    pub recorded_by: Option<String>,
    pub voided_at: Option<DateTime<Utc>>,
    pub retired_at: Option<DateTime<Utc>>,
    pub before_commit: bool,
    #[serde(skip)]
    pub counts_from: Option<DateTime<Utc>>,
    #[serde(skip)]
    pub image_added_later: bool,
}

#[derive(FromRow, Serialize)]
pub struct DeploymentWithDecision {
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub deployment: Deployment,
    pub decision: Option<Value>,
}
