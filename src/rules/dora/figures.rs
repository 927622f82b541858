//! What DORA's measures are answered as, and the arithmetic of it: counts by reason, percentiles, days and weeks.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::Window;
use crate::rules::gate::{micros, micros_if_any};
use crate::rules::lifecycle::Kind;
use crate::text_enum;

/// Up to this length a window is divided into days, unless told otherwise; a longer one into weeks.
const IN_DAYS: SignedDuration = SignedDuration::from_hours(35 * 24);

text_enum! {
    /// Why something is left out of a measure.
    LeftOut {
        /// The release was live there already.
        Redeploy = "redeploy",
        /// It went back to what was live before.
        Rollback = "rollback",
        /// The rollout failed, and no incident is linked to it.
        Failed = "failed",
        /// It was given up.
        Cancelled = "cancelled",
        /// An approver said no.
        Rejected = "rejected",
        /// It waited too long.
        Expired = "expired",
        /// The commit only joins others.
        MergeCommit = "merge_commit",
        /// The commit had been delivered before.
        DeliveredBefore = "delivered_before",
        /// The release tells neither its commits nor when it was committed.
        NoCommitTime = "no_commit_time",
        /// The commit is younger than the deployment.
        CommittedAfter = "committed_after",
        /// It was rolled back so much later that it is not looked for.
        FixUnknown = "fix_unknown",
        /// Its incident was over before it went live.
        OverBefore = "over_before",
    }
}

text_enum! {
    /// What shows that a deployment failed.
    Evidence {
        /// It is linked to an incident as its cause.
        Incident = "incident",
        /// A later rollback went back past it.
        RolledBack = "rolled_back",
        /// A hotfix came next.
        Hotfixed = "hotfixed",
    }
}

text_enum! {
    /// Where the time of a commit is from.
    LeadTimeBasis {
        /// The release's list of commits.
        Commits = "commits",
        /// The release's own commit.
        Release = "release",
    }
}

text_enum! {
    /// What ended a failure.
    RecoveryBasis {
        /// The deployment that mended it.
        Fix = "fix",
        /// The end of its incident.
        Incident = "incident",
    }
}

text_enum! {
    /// What a window is divided into, in UTC.
    Step {
        /// From midnight to midnight.
        Day = "day",
        /// From Monday to Monday.
        Week = "week",
    }
}

/// A deployment behind a figure.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Counted {
    /// Its identifier.
    pub id: String,
    /// What was deployed.
    pub service: String,
    /// Where to.
    pub environment: String,
    /// Which release.
    pub version: String,
    /// What it was to its place.
    pub kind: Kind,
    /// When it went live, or failed.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub finished_at: Timestamp,
}

/// How much of what was left out, for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Omission {
    /// Why.
    pub reason: LeftOut,
    /// How many.
    pub n: usize,
}

/// How often changes go live.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct DeploymentFrequency {
    /// How many a day, over the whole window.
    pub per_day: f64,
    /// How many deployments went live that are neither redeploy nor rollback.
    pub n: usize,
    /// Other deployments that finished in the window.
    pub left_out: Vec<Omission>,
    /// Those that count.
    pub deployments: Vec<Counted>,
}

/// How many lead times are from where.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct LeadTimeBases {
    /// From the releases' lists of commits.
    pub commits: usize,
    /// From the releases' own commits, where there is no list.
    pub release: usize,
}

/// A deployment that delivered commits.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct DeliveringDeployment {
    /// Which.
    #[serde(flatten)]
    pub deployment: Counted,
    /// Where the times of its commits are from.
    pub basis: LeadTimeBasis,
    /// How many commits it was the first to deliver.
    pub n: usize,
    /// Their median lead time, in seconds.
    pub p50_seconds: i64,
}

/// How long it takes from a commit to the deployment that first delivers it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct ChangeLeadTime {
    /// Half of the commits took this many seconds at most (nearest rank).
    pub p50_seconds: Option<i64>,
    /// Nine of ten commits took this many seconds at most (nearest rank).
    pub p90_seconds: Option<i64>,
    /// How many commits.
    pub n: usize,
    /// Where their times are from.
    pub basis: LeadTimeBases,
    /// Commits that do not count; and deployments of whose commits nothing is known (`no_commit_time`).
    pub left_out: Vec<Omission>,
    /// The deployments that delivered them.
    pub deployments: Vec<DeliveringDeployment>,
}

/// A deployment that failed.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct FailedDeployment {
    /// Which.
    #[serde(flatten)]
    pub deployment: Counted,
    /// What shows it.
    pub because: Vec<Evidence>,
    /// The incidents that it caused.
    pub incidents: Vec<String>,
}

/// How many changes fail.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct ChangeFailRate {
    /// `failed` of `n`; `null` when there are none.
    pub rate: Option<f64>,
    /// How many failed.
    pub failed: usize,
    /// How many changes went live, and whatever else caused an incident.
    pub n: usize,
    /// Other deployments that finished in the window.
    pub left_out: Vec<Omission>,
    /// Those that failed.
    pub deployments: Vec<FailedDeployment>,
}

/// A deployment that failed, and its end.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Recovery {
    /// Which.
    #[serde(flatten)]
    pub deployment: Counted,
    /// How long it took; `null` while it is open.
    pub seconds: Option<i64>,
    /// When it was over; `null` while it is open.
    #[serde(serialize_with = "micros_if_any")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub recovered_at: Option<Timestamp>,
    /// What ended it.
    pub basis: Option<RecoveryBasis>,
    /// The deployment that ended it.
    pub fixed_by: Option<String>,
}

/// How long it takes to recover from a failed deployment.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct FailedDeploymentRecoveryTime {
    /// Half of them took this many seconds at most (nearest rank).
    pub p50_seconds: Option<i64>,
    /// Nine of ten took this many seconds at most (nearest rank).
    pub p90_seconds: Option<i64>,
    /// How many were recovered from.
    pub n: usize,
    /// How many are not over: an incident that they caused goes on.
    pub open: usize,
    /// Failed deployments of which the recovery can't be told.
    pub left_out: Vec<Omission>,
    /// Those that were recovered from, and those that are open.
    pub deployments: Vec<Recovery>,
}

/// How many deployments are there to mend something.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct DeploymentReworkRate {
    /// `hotfixes` and `rollbacks` of `n`; `null` when there are none.
    pub rate: Option<f64>,
    /// How many hotfixes went live.
    pub hotfixes: usize,
    /// How many rollbacks went live.
    pub rollbacks: usize,
    /// How many deployments went live, of every kind.
    pub n: usize,
    /// Other deployments that finished in the window.
    pub left_out: Vec<Omission>,
    /// The hotfixes and rollbacks.
    pub deployments: Vec<Counted>,
}

/// A day or a week of a window.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Bucket {
    /// From this instant.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// To before this one.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// How many count for the deployment frequency.
    pub deployments: usize,
    /// How many of what finished then failed.
    pub failed: usize,
    /// How many went live, of every kind.
    pub went_live: usize,
    /// How many of them were hotfixes or rollbacks.
    pub rework: usize,
    /// The median lead time of what was delivered then.
    pub lead_time_p50_seconds: Option<i64>,
    /// The median recovery time of what failed then.
    pub recovery_p50_seconds: Option<i64>,
}

/// The figures over time.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Series {
    /// What a bucket is.
    pub bucket: Step,
    /// The whole window, in order; the first and the last may be shorter.
    pub buckets: Vec<Bucket>,
}

/// The measures of a window.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Measures {
    /// How often changes go live.
    pub deployment_frequency: DeploymentFrequency,
    /// How long it takes from a commit to the deployment that first delivers it.
    pub change_lead_time: ChangeLeadTime,
    /// How many changes fail.
    pub change_fail_rate: ChangeFailRate,
    /// How long it takes to recover from a failed deployment.
    pub failed_deployment_recovery_time: FailedDeploymentRecoveryTime,
    /// How many deployments are there to mend something.
    pub deployment_rework_rate: DeploymentReworkRate,
    /// The figures over time.
    pub series: Series,
}

/// Counts by reason.
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

/// A bucket that is being filled.
pub(super) struct Filling {
    pub(super) bucket: Bucket,
    pub(super) lead_times: Vec<i64>,
    pub(super) recovery_times: Vec<i64>,
}

/// A window in days or weeks.
pub(super) struct Division {
    step: Step,
    first: i64,
    buckets: Vec<Filling>,
}

const DAY: i64 = 86_400;

impl Step {
    /// The number of the day since 1970 in UTC, or of the week: that year began on a Thursday, three days after a Monday.
    fn number(self, at: Timestamp) -> i64 {
        let day = at.as_second().div_euclid(DAY);
        match self {
            Step::Day => day,
            Step::Week => (day + 3).div_euclid(7),
        }
    }

    /// The instant at which a day or week begins.
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

    /// The bucket of an instant that the window holds.
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

/// The newest of what is in the order of time, at most `named`.
pub(super) fn newest<T, U>(all: &[T], named: usize, show: impl FnMut(&T) -> Option<U>) -> Vec<U> {
    all.iter().rev().filter_map(show).take(named).collect()
}

pub(super) fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The smallest value that `percent` of all do not exceed (nearest rank): always one that was measured.
pub(super) fn percentile(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (percent * sorted.len()).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}
