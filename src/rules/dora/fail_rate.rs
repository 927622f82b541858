//! Change fail rate: the share of changes that failed.

use serde::Serialize;
use utoipa::ToSchema;

use super::counting::{LeftOut, Omission, newest, omissions, ratio};
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

pub(super) fn change_fail_rate(finished: &[Finished], named: usize) -> ChangeFailRate {
    let (judged, others): (Vec<_>, Vec<_>) = finished.iter().partition(|it| it.can_fail());
    let failed: Vec<_> = judged.iter().filter(|it| it.has_failed()).collect();
    ChangeFailRate {
        rate: ratio(failed.len(), judged.len()),
        failed: failed.len(),
        n: judged.len(),
        left_out: omissions(others.iter().map(|it| LeftOut::no_change(it.deployment))),
        deployments: newest(failed.iter().map(|it| failed_deployment(it)), named),
    }
}

fn failed_deployment(failed: &Finished) -> FailedDeployment {
    FailedDeployment {
        deployment: failed.deployment.counted.clone(),
        because: failed.evidence().collect(),
        incidents: failed.signs.incidents.iter().map(|incident| incident.id).collect(),
    }
}
