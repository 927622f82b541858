//! How the measures count: what is left out by reason, ratios, and percentiles.

use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use utoipa::ToSchema;

use super::input::{Deployment, Order};
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
        match (deployment.state, deployment.kind) {
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
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Omissions([usize; LeftOut::ALL.len()]);

impl Omissions {
    pub(super) fn add(&mut self, reason: LeftOut) {
        self.0[reason as usize] += 1;
    }

    /// The reasons that there were.
    pub(super) fn by_reason(self) -> Vec<Omission> {
        let by_reason = LeftOut::ALL.iter().zip(self.0).filter(|(_, n)| *n > 0);
        by_reason.map(|(reason, n)| Omission { reason: *reason, n }).collect()
    }
}

impl AddAssign for Omissions {
    fn add_assign(&mut self, more: Self) {
        self.0.iter_mut().zip(more.0).for_each(|(n, more)| *n += more);
    }
}

/// The newest of what is added in any order, at most `named` of it.
pub(super) struct Newest<T> {
    named: usize,
    kept: BTreeMap<Order, T>,
}

impl<T> Newest<T> {
    pub(super) fn new(named: usize) -> Self {
        Self { named, kept: BTreeMap::new() }
    }

    /// Adds what `make` makes of a deployment, if it is among the newest.
    pub(super) fn add(&mut self, deployment: &Deployment, make: impl FnOnce() -> T) {
        let order = deployment.order();
        if self.kept.len() == self.named {
            if self.kept.first_key_value().is_none_or(|(oldest, _)| order < *oldest) {
                return;
            }
            self.kept.pop_first();
        }
        self.kept.insert(order, make());
    }

    /// The newest first.
    pub(super) fn in_order(self) -> Vec<T> {
        self.kept.into_values().rev().collect()
    }
}

pub(super) fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Durations in whole seconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Durations(Vec<i64>);

impl Durations {
    /// The durations of all these, which must be few.
    pub(super) fn of_all<'a>(parts: impl Iterator<Item = &'a Self> + Clone) -> Self {
        // Not with the space that a growing list would reserve: there may be millions.
        let mut all = Vec::with_capacity(parts.clone().map(Self::len).sum());
        parts.for_each(|part| all.extend_from_slice(&part.0));
        Self(all)
    }

    pub(super) fn add(&mut self, seconds: impl IntoIterator<Item = i64>) {
        self.0.extend(seconds);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The percentile by the nearest-rank method: the smallest measured value that `percent` of all
    /// values do not exceed. `None` without values.
    pub(super) fn percentile(&mut self, percent: usize) -> Option<i64> {
        let rank = (percent * self.len()).div_ceil(100);
        Some(*self.0.select_nth_unstable(rank.checked_sub(1)?).1)
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
            let mut durations = Durations(values.to_vec());
            let percentiles = (durations.percentile(50), durations.percentile(90));
            assert_eq!(percentiles, (*median, *ninetieth), "{values:?}");
        }
    }
}
