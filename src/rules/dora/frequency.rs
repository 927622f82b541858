//! Deployment frequency: how often changes go live.

use serde::Serialize;
use utoipa::ToSchema;

use super::counting::{LeftOut, Newest, Omission, Omissions};
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

/// Counts changes.
pub(super) struct Tally {
    n: usize,
    left_out: Omissions,
    newest: Newest<Counted>,
}

impl Tally {
    pub(super) fn new(named: usize) -> Self {
        Self { n: 0, left_out: Omissions::default(), newest: Newest::new(named) }
    }

    pub(super) fn add(&mut self, finished: &Finished) {
        if finished.deployment.is_change() {
            self.n += 1;
            self.newest.add(finished.deployment, || finished.counted());
        } else {
            self.left_out.add(LeftOut::no_change(finished.deployment));
        }
    }

    pub(super) fn measure(self, window: Window) -> DeploymentFrequency {
        DeploymentFrequency {
            per_day: self.n as f64 / window.days(),
            n: self.n,
            left_out: self.left_out.by_reason(),
            deployments: self.newest.in_order(),
        }
    }
}
