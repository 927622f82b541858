//! How the measures count: what is left out by reason, ratios, and percentiles.

use serde::Serialize;
use utoipa::ToSchema;

use super::input::Deployment;
use crate::rules::lifecycle::{Kind, State};
use crate::text_enum;

text_enum! {
    /// Why a deployment or a commit is left out of a measure.
    LeftOut {
        /// The release was already live in the place.
        Redeploy = "redeploy",
        /// The deployment was a rollback.
        Rollback = "rollback",
        /// The rollout failed, and it caused no incident.
        Failed = "failed",
        /// The deployment was cancelled.
        Cancelled = "cancelled",
        /// An approver rejected the deployment.
        Rejected = "rejected",
        /// The deployment waited too long and expired.
        Expired = "expired",
        /// The commit is a merge commit.
        MergeCommit = "merge_commit",
        /// The commit had been delivered before.
        DeliveredBefore = "delivered_before",
        /// The release has neither a list of commits nor the time of its own commit.
        NoCommitTime = "no_commit_time",
        /// The release that was live before has no commit times. The releases between it and the
        /// deployed one are therefore unknown, and only the deployed one is counted.
        OrderUnknown = "order_unknown",
        /// The commit is later than the end of the deployment.
        CommittedAfter = "committed_after",
        /// The fix came too long after the window to be searched for.
        FixUnknown = "fix_unknown",
        /// The incident was resolved before the deployment went live.
        OverBefore = "over_before",
    }
}

impl LeftOut {
    /// Why a deployment does not count as a change.
    pub(super) fn no_change(deployment: &Deployment) -> Self {
        match (deployment.state, deployment.counted.kind) {
            (State::Failed, _) => Self::Failed,
            (State::Rejected, _) => Self::Rejected,
            (State::Expired, _) => Self::Expired,
            (_, Kind::Redeploy) if deployment.went_live() => Self::Redeploy,
            (_, Kind::Rollback) if deployment.went_live() => Self::Rollback,
            _ => Self::Cancelled,
        }
    }
}

/// How many deployments or commits were left out for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Omission {
    /// Why they were left out of the measure.
    pub reason: LeftOut,
    /// How many were left out for this reason.
    pub n: usize,
}

/// Counts what is left out, by reason.
pub(super) fn omissions(left_out: impl Iterator<Item = LeftOut>) -> Vec<Omission> {
    let mut counts = [0; LeftOut::ALL.len()];
    for reason in left_out {
        counts[reason as usize] += 1;
    }
    let by_reason = LeftOut::ALL.iter().zip(counts).filter(|(_, n)| *n > 0);
    by_reason.map(|(reason, n)| Omission { reason: *reason, n }).collect()
}

/// The newest of what is in the order of time; at most `named` of it.
pub(super) fn newest<T>(in_order: impl DoubleEndedIterator<Item = T>, named: usize) -> Vec<T> {
    in_order.rev().take(named).collect()
}

pub(super) fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Durations in whole seconds, sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Durations(Vec<i64>);

impl FromIterator<i64> for Durations {
    fn from_iter<T: IntoIterator<Item = i64>>(seconds: T) -> Self {
        let mut sorted: Vec<i64> = seconds.into_iter().collect();
        sorted.sort_unstable();
        Self(sorted)
    }
}

impl Durations {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The percentile by the nearest-rank method: the smallest measured value that `percent` of all
    /// values do not exceed. `None` without values.
    pub(super) fn percentile(&self, percent: usize) -> Option<i64> {
        let rank = (percent * self.len()).div_ceil(100);
        self.0.get(rank.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let cases: &[(&[i64], Option<i64>, Option<i64>)] = &[
            (&[], None, None),
            (&[7], Some(7), Some(7)),
            (&[9, 1], Some(1), Some(9)),
            (&[3, 1, 2], Some(2), Some(3)),
            (&[1, 2, 3, 4], Some(2), Some(4)),
            (&[10, 2, 3, 4, 5, 6, 7, 8, 9, 1], Some(5), Some(9)),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], Some(6), Some(10)),
        ];
        for (values, median, ninetieth) in cases {
            let durations: Durations = values.iter().copied().collect();
            let percentiles = (durations.percentile(50), durations.percentile(90));
            assert_eq!(percentiles, (*median, *ninetieth), "{values:?}");
        }
    }
}
