//! Deployment frequency: how often changes go live.

use serde::Serialize;
use utoipa::ToSchema;

use super::counting::{LeftOut, Omission, newest, omissions};
use super::finished::Finished;
use super::input::{Counted, Window};

/// Deployment frequency: how often changes go live.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct DeploymentFrequency {
    /// The average number of changes per day of the window.
    pub per_day: f64,
    /// The number of changes: deployments that went live and are neither redeploys nor rollbacks.
    pub n: usize,
    /// The other deployments that finished in the window, counted by reason.
    pub left_out: Vec<Omission>,
    /// The changes, the newest first, at most `limit` of them.
    pub deployments: Vec<Counted>,
}

pub(super) fn deployment_frequency(
    finished: &[Finished],
    window: Window,
    named: usize,
) -> DeploymentFrequency {
    let all = finished.iter().map(|it| it.deployment);
    let (changes, others): (Vec<_>, Vec<_>) = all.partition(|deployment| deployment.is_change());
    DeploymentFrequency {
        per_day: changes.len() as f64 / window.days(),
        n: changes.len(),
        left_out: omissions(others.into_iter().map(LeftOut::no_change)),
        deployments: newest(changes.iter().map(|change| change.counted.clone()), named),
    }
}
