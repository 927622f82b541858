//! Deployment rework rate: the share of deployments that fixed a problem.

use serde::Serialize;
use utoipa::ToSchema;

use super::counting::{LeftOut, Newest, Omission, Omissions, ratio};
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

/// Counts hotfixes and rollbacks.
pub(super) struct Tally {
    hotfixes: usize,
    rollbacks: usize,
    n: usize,
    left_out: Omissions,
    newest: Newest<Counted>,
}

impl Tally {
    pub(super) fn new(named: usize) -> Self {
        let (left_out, newest) = (Omissions::default(), Newest::new(named));
        Self { hotfixes: 0, rollbacks: 0, n: 0, left_out, newest }
    }

    pub(super) fn add(&mut self, finished: &Finished) {
        let deployment = finished.deployment;
        if !deployment.went_live() {
            return self.left_out.add(LeftOut::no_change(deployment));
        }
        self.n += 1;
        match deployment.kind {
            Kind::Hotfix => self.hotfixes += 1,
            Kind::Rollback => self.rollbacks += 1,
            Kind::Normal | Kind::Redeploy => return,
        }
        self.newest.add(deployment, || finished.counted());
    }

    pub(super) fn measure(self) -> DeploymentReworkRate {
        DeploymentReworkRate {
            rate: ratio(self.hotfixes + self.rollbacks, self.n),
            hotfixes: self.hotfixes,
            rollbacks: self.rollbacks,
            n: self.n,
            left_out: self.left_out.by_reason(),
            deployments: self.newest.in_order(),
        }
    }
}
