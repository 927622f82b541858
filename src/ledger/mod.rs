//! The resources of the ledger. Each file has the rows, queries, request and response types,
//! handlers and routes of one resource.
//!
//! The files call each other in one direction: backfill, github, views -> approvals, freezes,
//! incidents -> deployments -> releases -> services, environments -> events. Releases call back
//! only `deployments::store`, which writes what a deployment copies from its release.

use crate::http::routes::Routes;

pub mod approvals;
pub mod backfill;
pub mod deployments;
pub mod environments;
pub mod events;
pub mod freezes;
pub mod github;
pub mod incidents;
pub mod keys;
pub mod metrics;
pub mod patch;
pub mod releases;
pub mod services;
pub mod times;
pub mod views;

/// All routes below `/v1`, in the order of the OpenAPI document.
pub fn routes(config: &mut Routes) {
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
