//! The response types of the DORA measures, and their arithmetic: counts by reason, percentiles,
//! days and weeks.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::Window;
use crate::rules::gate::{micros, micros_if_any};
use crate::rules::lifecycle::Kind;
use crate::text_enum;

/// By default, a window of up to this length is divided into days, and a longer one into weeks.
const IN_DAYS: SignedDuration = SignedDuration::from_hours(35 * 24);

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

text_enum! {
    /// Why a deployment counts as failed.
    Evidence {
        /// The deployment caused an incident.
        Incident = "incident",
        /// A later rollback undid the deployment.
        RolledBack = "rolled_back",
        /// The next deployment was a hotfix.
        Hotfixed = "hotfixed",
    }
}

text_enum! {
    /// The source of the commit times.
    LeadTimeBasis {
        /// The list of commits of the release.
        Commits = "commits",
        /// The commit that the release was built from.
        Release = "release",
    }
}

text_enum! {
    /// What ended a failure.
    RecoveryBasis {
        /// A deployment fixed it.
        Fix = "fix",
        /// Its incident was resolved without a known fix.
        Incident = "incident",
    }
}

text_enum! {
    /// The length of the intervals of a series, in UTC.
    Step {
        /// From midnight to midnight in UTC.
        Day = "day",
        /// From Monday to Monday, at midnight in UTC.
        Week = "week",
    }
}

/// A deployment that a figure is based on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Counted {
    /// The identifier of the deployment.
    pub id: String,
    /// The slug of the service that was deployed.
    pub service: String,
    /// The slug of the environment that it was deployed to.
    pub environment: String,
    /// The version that was deployed.
    pub version: String,
    /// How the release compared with what was live in the place before.
    pub kind: Kind,
    /// When the deployment went live, or otherwise ended.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub finished_at: Timestamp,
}

/// How many deployments or commits were left out for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Omission {
    /// Why they were left out of the measure.
    pub reason: LeftOut,
    /// How many were left out for this reason.
    pub n: usize,
}

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

/// The number of lead times by the source of the commit time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct LeadTimeBases {
    /// The number of lead times from the lists of commits of releases.
    pub commits: usize,
    /// The number of lead times from the releases' own commits, for releases without a list.
    pub release: usize,
}

/// A deployment that was the first to deliver some commits.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct DeliveringDeployment {
    /// The fields of the deployment itself.
    #[serde(flatten)]
    pub deployment: Counted,
    /// The source of the times of its commits. `commits` if any of them is from a list.
    pub basis: LeadTimeBasis,
    /// The number of commits that it was the first to deliver.
    pub n: usize,
    /// The median lead time of these commits, in seconds.
    pub p50_seconds: i64,
}

/// Change lead time: the time from a commit to the end of the deployment that first delivers it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct ChangeLeadTime {
    /// The median lead time in seconds (nearest rank). `null` when there are no commits.
    pub p50_seconds: Option<i64>,
    /// The 90th percentile of the lead times in seconds (nearest rank). `null` when there are no
    /// commits.
    pub p90_seconds: Option<i64>,
    /// The number of commits that count.
    pub n: usize,
    /// The number of commits by the source of their times.
    pub basis: LeadTimeBases,
    /// The commits that do not count, and the deployments whose commits are unknown
    /// (`no_commit_time`) or perhaps incomplete (`order_unknown`), counted by reason.
    pub left_out: Vec<Omission>,
    /// The deployments that first delivered the commits, the newest first, at most `limit` of them.
    pub deployments: Vec<DeliveringDeployment>,
}

/// A deployment that counts as failed.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct FailedDeployment {
    /// The fields of the deployment itself.
    #[serde(flatten)]
    pub deployment: Counted,
    /// All reasons why it counts as failed.
    pub because: Vec<Evidence>,
    /// The identifiers of the incidents that it caused.
    pub incidents: Vec<String>,
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

/// A deployment that failed, and how the failure ended.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Recovery {
    /// The fields of the deployment itself.
    #[serde(flatten)]
    pub deployment: Counted,
    /// The seconds from the end of the deployment to the recovery. `null` while the failure is not
    /// over.
    pub seconds: Option<i64>,
    /// When the failure was over. `null` while it is not.
    #[serde(serialize_with = "micros_if_any")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub recovered_at: Option<Timestamp>,
    /// What ended the failure. `null` while it is not over.
    pub basis: Option<RecoveryBasis>,
    /// The identifier of the deployment that fixed it. `null` when there is none.
    pub fixed_by: Option<String>,
}

/// Failed deployment recovery time: how long it takes to recover from a failed deployment.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct FailedDeploymentRecoveryTime {
    /// The median recovery time in seconds (nearest rank). `null` when there were no recoveries.
    pub p50_seconds: Option<i64>,
    /// The 90th percentile of the recovery times in seconds (nearest rank). `null` when there were
    /// no recoveries.
    pub p90_seconds: Option<i64>,
    /// The number of failures that are over.
    pub n: usize,
    /// The number of failures that are not over, because an incident that they caused is still
    /// open.
    pub open: usize,
    /// The failed deployments whose recovery time is unknown, counted by reason.
    pub left_out: Vec<Omission>,
    /// The failed deployments that count or are not over, the newest first, at most `limit` of
    /// them.
    pub deployments: Vec<Recovery>,
}

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

/// One interval of a series: a day or a week, or the part of it that is in the window.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Bucket {
    /// The start of the interval, which is inside.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// The end of the interval, which is outside.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// The number of changes that went live, as for the deployment frequency.
    pub deployments: usize,
    /// The number of deployments that finished in the interval and failed.
    pub failed: usize,
    /// The number of deployments of every kind that went live.
    pub went_live: usize,
    /// The number of hotfixes and rollbacks that went live.
    pub rework: usize,
    /// The median lead time, in seconds, of the commits that were delivered. `null` when there were
    /// none.
    pub lead_time_p50_seconds: Option<i64>,
    /// The median recovery time, in seconds, of the deployments that finished in the interval and
    /// failed. `null` when none has recovered.
    pub recovery_p50_seconds: Option<i64>,
}

/// The figures over time: the window divided into days or weeks.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Series {
    /// The length of the intervals.
    pub bucket: Step,
    /// The intervals in the order of time. The first and the last may be shorter.
    pub buckets: Vec<Bucket>,
}

/// The five measures of a window, and their course over time.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Measures {
    /// How often changes go live.
    pub deployment_frequency: DeploymentFrequency,
    /// The time from a commit to the end of the deployment that first delivers it.
    pub change_lead_time: ChangeLeadTime,
    /// The share of changes that failed.
    pub change_fail_rate: ChangeFailRate,
    /// How long it takes to recover from a failed deployment.
    pub failed_deployment_recovery_time: FailedDeploymentRecoveryTime,
    /// The share of deployments that fixed a problem.
    pub deployment_rework_rate: DeploymentReworkRate,
    /// The figures over time, by day or week.
    pub series: Series,
}

/// Counts what is left out, by reason.
#[derive(Default)]
pub(super) struct Omissions(BTreeMap<usize, Omission>);

impl Omissions {
    pub(super) fn add(&mut self, reason: LeftOut) {
        self.0.entry(reason as usize).or_insert(Omission { reason, n: 0 }).n += 1;
    }

    pub(super) fn list(self) -> Vec<Omission> {
        self.0.into_values().collect()
    }
}

/// An interval while its figures are being collected.
pub(super) struct Filling {
    pub(super) bucket: Bucket,
    pub(super) lead_times: Vec<i64>,
    pub(super) recovery_times: Vec<i64>,
}

/// A window divided into days or weeks.
pub(super) struct Division {
    step: Step,
    first: i64,
    buckets: Vec<Filling>,
}

const DAY: i64 = 86_400;

impl Step {
    /// The number of the day in UTC, or of the week, since 1970. That year began on a Thursday,
    /// three days after a Monday.
    fn number(self, at: Timestamp) -> i64 {
        let day = at.as_second().div_euclid(DAY);
        match self {
            Step::Day => day,
            Step::Week => (day + 3).div_euclid(7),
        }
    }

    /// The instant at which the day or week with this number begins.
    fn start(self, number: i64) -> Timestamp {
        let day = match self {
            Step::Day => number,
            Step::Week => number * 7 - 3,
        };
        Timestamp::from_second(day * DAY).unwrap_or(Timestamp::MAX)
    }
}

impl Division {
    pub(super) fn of(window: Window, step: Option<Step>) -> Self {
        let step = step.unwrap_or(if window.length() <= IN_DAYS { Step::Day } else { Step::Week });
        let first = step.number(window.since);
        let buckets = (first..)
            .map(|number| Window {
                since: step.start(number).max(window.since),
                until: step.start(number + 1).min(window.until),
            })
            .take_while(|part| part.since < window.until)
            .map(|part| Filling {
                bucket: Bucket {
                    from: part.since,
                    until: part.until,
                    deployments: 0,
                    failed: 0,
                    went_live: 0,
                    rework: 0,
                    lead_time_p50_seconds: None,
                    recovery_p50_seconds: None,
                },
                lead_times: Vec::new(),
                recovery_times: Vec::new(),
            })
            .collect();
        Self { step, first, buckets }
    }

    /// The interval of an instant, which must be inside the window.
    pub(super) fn at(&mut self, at: Timestamp) -> &mut Filling {
        let index = self.step.number(at) - self.first;
        &mut self.buckets[index as usize]
    }

    pub(super) fn done(self) -> Series {
        let done = |mut filling: Filling| {
            filling.lead_times.sort_unstable();
            filling.recovery_times.sort_unstable();
            Bucket {
                lead_time_p50_seconds: percentile(&filling.lead_times, 50),
                recovery_p50_seconds: percentile(&filling.recovery_times, 50),
                ..filling.bucket
            }
        };
        Series { bucket: self.step, buckets: self.buckets.into_iter().map(done).collect() }
    }
}

/// The newest of `all`, which are in the order of time; at most `named` of them.
pub(super) fn newest<T, U>(all: &[T], named: usize, show: impl FnMut(&T) -> Option<U>) -> Vec<U> {
    all.iter().rev().filter_map(show).take(named).collect()
}

pub(super) fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The percentile by the nearest-rank method: the smallest measured value that `percent` of all
/// values do not exceed. `None` without values.
pub(super) fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (percent * sorted.len()).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}
