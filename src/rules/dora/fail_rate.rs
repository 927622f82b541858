//! Change fail rate: the share of changes that failed.

use serde::Serialize;
use utoipa::ToSchema;

use super::counting::{LeftOut, Newest, Omission, Omissions, ratio};
use super::failures::Evidence;
use super::finished::Finished;
use super::input::Counted;
use crate::types::ids::IncidentId;

/// A deployment that counts as failed.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct FailedDeployment {
    /// The fields of the deployment itself.
    #[serde(flatten)]
    pub deployment: Counted,
    /// All reasons why it counts as failed.
    pub because: Vec<Evidence>,
    /// The identifiers of the incidents that it caused.
    #[schema(value_type = Vec<String>)]
    pub incidents: Vec<IncidentId>,
}

/// Change fail rate: the share of changes that failed.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct ChangeFailRate {
    /// `failed` divided by `n`, from 0 to 1. `null` when `n` is 0.
    pub rate: Option<f64>,
    /// The number of deployments that failed.
    pub failed: usize,
    /// The number of changes that went live, plus other deployments that caused an incident.
    pub n: usize,
    /// The other deployments that finished in the window, counted by reason.
    pub left_out: Vec<Omission>,
    /// The deployments that failed, the newest first, at most `limit` of them.
    pub deployments: Vec<FailedDeployment>,
}

/// Counts what failed.
pub(super) struct Tally {
    failed: usize,
    n: usize,
    left_out: Omissions,
    newest: Newest<FailedDeployment>,
}

impl Tally {
    pub(super) fn new(named: usize) -> Self {
        Self { failed: 0, n: 0, left_out: Omissions::default(), newest: Newest::new(named) }
    }

    pub(super) fn add(&mut self, finished: &Finished) {
        if !finished.can_fail() {
            return self.left_out.add(LeftOut::no_change(finished.deployment));
        }
        self.n += 1;
        if finished.has_failed() {
            self.failed += 1;
            self.newest.add(finished.deployment, || failed_deployment(finished));
        }
    }

    pub(super) fn measure(self) -> ChangeFailRate {
        ChangeFailRate {
            rate: ratio(self.failed, self.n),
            failed: self.failed,
            n: self.n,
            left_out: self.left_out.by_reason(),
            deployments: self.newest.in_order(),
        }
    }
}

fn failed_deployment(failed: &Finished) -> FailedDeployment {
    FailedDeployment {
        deployment: failed.counted(),
        because: failed.evidence().collect(),
        incidents: failed.incidents.iter().map(|incident| incident.id).collect(),
    }
}
