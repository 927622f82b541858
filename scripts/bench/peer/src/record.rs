//! Records a deployment of an existing release, as prop does or with two inserts.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use chrono::{DateTime, Days, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgTransaction};
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::Failure;
use crate::around::Caller;
use crate::deployment::{Deployment, DeploymentWithDecision};

#[derive(Deserialize)]
pub struct NewDeployment {
    service: String,
    environment: String,
    version: String,
}

/// What the statement `look` finds, as far as it is used here.
#[derive(FromRow)]
struct Found {
    release_id: Option<Uuid>,
    git_sha: Option<String>,
    image_digest: Option<String>,
    required_approvals: Option<i32>,
    live: Option<Uuid>,
    live_release: Option<Uuid>,
    running: Option<Uuid>,
    former: Option<String>,
}

/// With prop's statements: BEGIN, lock, look, holds, the deployment, its event, and COMMIT.
pub async fn same_statements(
    State(pool): State<PgPool>,
    Extension(caller): Extension<Caller>,
    Json(new): Json<NewDeployment>,
) -> Result<impl IntoResponse, Failure> {
    let mut transaction = pool.begin().await?;
    let lock = sqlx::query_as(include_str!("../../statements/lock.sql")).bind(&new.service);
    let (_, now): (bool, DateTime<Utc>) = lock.fetch_one(&mut *transaction).await?;
    let look = sqlx::query_as(include_str!("../../statements/look.sql"));
    let look = look.bind(&new.environment).bind(&new.version).bind(&new.service).bind(1_i64);
    let found: Option<Found> = look.fetch_optional(&mut *transaction).await?;
    let (found, release_id) =
        found.and_then(|found| found.release_id.map(|id| (found, id))).ok_or(Failure::NotFound)?;

    let id = Uuid::now_v7();
    let holds = sqlx::query(include_str!("../../statements/holds.sql"));
    let holds = holds.bind(&new.service).bind(&new.environment).bind(now).bind(&new.version);
    let holds = holds.bind(id).bind(&found.image_digest).bind(Uuid::now_v7()).bind(release_id);
    if found.required_approvals != Some(0) || !holds.fetch_all(&mut *transaction).await?.is_empty()
    {
        return Err(Failure::Blocked);
    }

    let decision = decision(&new, &found, &caller.name, now);
    let deployment = deployment(new, found, release_id, id, &caller.name, now);
    insert(&mut transaction, &deployment, &decision).await?;
    let place = (&*deployment.service, &*deployment.environment);
    insert_event(&mut transaction, &caller, now, id, place, &json!(deployment)).await?;
    transaction.commit().await?;
    let location = format!("/v1/deployments/{id}");
    let body = DeploymentWithDecision { deployment, decision: Some(decision) };
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(body)))
}

/// With two inserts in one transaction: without a lock, a look at the place, or a decision.
pub async fn two_inserts(
    State(pool): State<PgPool>,
    Extension(caller): Extension<Caller>,
    Json(new): Json<NewDeployment>,
) -> Result<impl IntoResponse, Failure> {
    let (id, now) = (Uuid::now_v7(), Utc::now());
    let mut transaction = pool.begin().await?;
    let insert = sqlx::query(include_str!("../../statements/insert_of_release.sql"));
    let insert = insert.bind(id).bind(&new.environment).bind(&*caller.name).bind(now);
    let insert = insert.bind(now + Days::new(3)).bind(&new.service).bind(&new.version);
    let release_id: Uuid =
        insert.fetch_optional(&mut *transaction).await?.ok_or(Failure::NotFound)?.try_get(0)?;
    let payload = json!({"id": id, "release_id": release_id, "version": new.version,
        "state": "approved", "requested_at": now, "requested_by": &*caller.name});
    let place = (&*new.service, &*new.environment);
    insert_event(&mut transaction, &caller, now, id, place, &payload).await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/v1/deployments/{id}"))], Json(payload)))
}

/// The decision with its facts, as prop stores it.
fn decision(new: &NewDeployment, found: &Found, caller: &str, now: DateTime<Utc>) -> Value {
    json!({
        "allowed": true, "evaluated_at": now, "exemptions": [], "is_rollback": false, "reasons": [],
        "facts": {
            "freezes": [], "incidents": [], "is_rollback": false, "reviews": [],
            "policy": {
                "allow_self_approval": false, "environment": new.environment,
                "is_production": false, "predecessor": null, "require_scan": false,
                "required_approvals": found.required_approvals, "rollback_needs_approval": false,
                "soak_minutes": 0
            },
            "recorded_by": caller, "requested_by": caller, "running": found.running,
            "step": "create",
            "release": {
                "image_digest": found.image_digest, "scan_passed": null,
                "succeeded_before_at": null, "version": new.version
            }
        }
    })
}

fn deployment(
    new: NewDeployment,
    found: Found,
    release_id: Uuid,
    id: Uuid,
    caller: &str,
    now: DateTime<Utc>,
) -> Deployment {
    let (kind, rollback_of) = match (found.live_release, found.former) {
        (Some(live), _) if live == release_id => ("redeploy", None),
        (_, Some(_)) => ("rollback", found.live),
        _ => ("normal", None),
    };
    Deployment {
        id,
        service: new.service,
        environment: new.environment,
        release_id,
        version: new.version,
        git_sha: found.git_sha,
        image_digest: found.image_digest,
        state: "approved".into(),
        kind: kind.into(),
        unplanned: false,
        rollback: false,
        requested_by: caller.into(),
        source: "api".into(),
        external_id: None,
        run_url: None,
        reason: None,
        previous_id: found.live,
        rollback_of,
        requested_at: now,
        started_at: None,
        finished_at: None,
        revision: 1,
        ungated: false,
        expires_at: Some(now + Days::new(3)),
        recorded_by: Some(caller.into()),
        voided_at: None,
        retired_at: None,
        before_commit: false,
        counts_from: None,
        image_added_later: false,
    }
}

async fn insert(
    transaction: &mut PgTransaction<'_>,
    new: &Deployment,
    decision: &Value,
) -> sqlx::Result<()> {
    let insert = sqlx::query(include_str!("../../statements/insert.sql"));
    let insert = insert.bind(new.id).bind(&new.service).bind(&new.environment);
    let insert = insert.bind(new.release_id).bind(&new.version).bind(&new.git_sha);
    let insert = insert.bind(&new.image_digest).bind(&new.state).bind(&new.kind);
    let insert = insert.bind(new.unplanned).bind(new.rollback).bind(&new.requested_by);
    let insert = insert.bind(&new.source).bind(&new.external_id).bind(&new.run_url);
    let insert = insert.bind(&new.reason).bind(new.previous_id).bind(new.rollback_of);
    let insert = insert.bind(new.requested_at).bind(new.started_at).bind(new.finished_at);
    let insert = insert.bind(new.revision).bind(new.ungated).bind(new.expires_at);
    let insert = insert.bind(&new.recorded_by).bind(new.voided_at).bind(new.retired_at);
    let insert = insert.bind(new.before_commit).bind(new.counts_from);
    let insert = insert.bind(new.image_added_later).bind(decision);
    insert.execute(&mut **transaction).await?;
    Ok(())
}

async fn insert_event(
    transaction: &mut PgTransaction<'_>,
    caller: &Caller,
    now: DateTime<Utc>,
    id: Uuid,
    (service, environment): (&str, &str),
    payload: &Value,
) -> sqlx::Result<()> {
    let insert = sqlx::query(include_str!("../../statements/event.sql"));
    let insert = insert.bind(now).bind(&*caller.name).bind("deployment.requested");
    let insert = insert.bind("deployment").bind(id.to_string()).bind(service).bind(environment);
    let insert = insert.bind(payload).bind(caller.key_id).bind(caller.request_id.to_string());
    insert.execute(&mut **transaction).await?;
    Ok(())
}
