//! Deployment rework rate: the share of deployments that fixed a problem.

use serde::Serialize;
use utoipa::ToSchema;

use super::counting::{LeftOut, Omission, newest, omissions, ratio};
use super::finished::Finished;
use super::input::Counted;
use crate::rules::lifecycle::Kind;

/// Deployment rework rate: the share of deployments that fixed a problem.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct DeploymentReworkRate {
    /// `hotfixes` plus `rollbacks`, divided by `n`, from 0 to 1. `null` when `n` is 0.
    pub rate: Option<f64>,
    /// The number of hotfixes that went live.
    pub hotfixes: usize,
    /// The number of rollbacks that went live.
    pub rollbacks: usize,
    /// The number of deployments of every kind that went live.
    pub n: usize,
    /// The other deployments that finished in the window, counted by reason.
    pub left_out: Vec<Omission>,
    /// The hotfixes and rollbacks, the newest first, at most `limit` of them.
    pub deployments: Vec<Counted>,
}

pub(super) fn deployment_rework_rate(finished: &[Finished], named: usize) -> DeploymentReworkRate {
    let all = finished.iter().map(|it| it.deployment);
    let (live, others): (Vec<_>, Vec<_>) = all.partition(|deployment| deployment.went_live());
    let rework: Vec<_> = live.iter().filter(|deployment| deployment.is_rework()).collect();
    let hotfixes = rework.iter().filter(|fix| fix.counted.kind == Kind::Hotfix).count();
    DeploymentReworkRate {
        rate: ratio(rework.len(), live.len()),
        hotfixes,
        rollbacks: rework.len() - hotfixes,
        n: live.len(),
        left_out: omissions(others.into_iter().map(LeftOut::no_change)),
        deployments: newest(rework.iter().map(|fix| fix.counted.clone()), named),
    }
}
