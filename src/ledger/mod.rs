//! The resources of the ledger. Each file has the rows, queries, request and response types,
//! handlers and routes of one resource.
//!
//! The files call each other in this direction:
//!
//! - backfill, deliveries -> github -> approvals, deployments
//! - status, places, dora -> freezes, incidents -> deployments
//! - deployments -> gate -> releases -> services, environments -> events, values
//!
//! One call goes back up: the gate loads the deployment that it is asked about.

use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::error::Error;

pub mod approvals;
pub mod backfill;
pub mod deployments;
pub mod environments;
pub mod events;
pub mod freezes;
pub mod github;
pub mod incidents;
pub mod keys;
pub mod releases;
pub mod services;
pub mod values;
pub mod views;

/// All routes below `/v1`, in the order of the OpenAPI document.
pub fn routes(config: &mut ServiceConfig) {
    config
        .configure(views::status::routes)
        .configure(views::place::routes)
        .configure(services::routes)
        .configure(environments::routes)
        .configure(releases::routes)
        .configure(deployments::routes)
        .configure(deployments::gate::routes)
        .configure(approvals::routes)
        .configure(freezes::routes)
        .configure(incidents::routes)
        .configure(views::dora::routes)
        .configure(events::routes)
        .configure(keys::routes)
        .configure(github::receive::routes);
}

/// At most this many names are compared with an unknown one, to suggest the nearest.
pub(crate) const COMPARED: i64 = 1000;

/// Turns the violation of a unique index into the error that `conflict` returns.
pub(crate) fn or_conflict<T>(
    result: QueryResult<T>,
    conflict: impl FnOnce() -> Error,
) -> Result<T, Error> {
    result.map_err(|error| match error {
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => conflict(),
        other => other.into(),
    })
}
