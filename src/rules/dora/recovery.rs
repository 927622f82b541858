//! Failed deployment recovery time: how long it takes to recover from a failed deployment.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::counting::{Durations, LeftOut, Newest, Omission, Omissions};
use super::failures::Fixes;
use super::finished::Finished;
use super::input::{Counted, Fix, Incident};
use crate::rules::gate::micros_if_any;
use crate::text_enum;
use crate::types::ids::DeploymentId;

text_enum! {
    /// What ended a failure.
    RecoveryBasis {
        /// A deployment fixed it.
        Fix = "fix",
        /// Its incident was resolved without a known fix.
        Incident = "incident",
    }
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
    #[schema(value_type = Option<String>)]
    pub fixed_by: Option<DeploymentId>,
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

/// Counts the failures and their ends.
pub(super) struct Tally {
    open: usize,
    left_out: Omissions,
    newest: Newest<Recovery>,
}

impl Tally {
    pub(super) fn new(named: usize) -> Self {
        Self { open: 0, left_out: Omissions::default(), newest: Newest::new(named) }
    }

    /// Adds a deployment that failed, and the end of the failure.
    pub(super) fn add(&mut self, failed: &Finished, end: End) {
        match end {
            End::LeftOut(reason) => return self.left_out.add(reason),
            End::Open => self.open += 1,
            End::Over { .. } => {}
        }
        self.newest.add(failed.deployment, || recovery(failed, end));
    }

    /// `recovery_times` are those of all failures that are over.
    pub(super) fn measure(self, mut recovery_times: Durations) -> FailedDeploymentRecoveryTime {
        FailedDeploymentRecoveryTime {
            p50_seconds: recovery_times.percentile(50),
            p90_seconds: recovery_times.percentile(90),
            n: recovery_times.len(),
            open: self.open,
            left_out: self.left_out.by_reason(),
            deployments: self.newest.in_order(),
        }
    }
}

/// A failed deployment with its end.
fn recovery(failed: &Finished, end: End) -> Recovery {
    let open = Recovery {
        deployment: failed.counted(),
        seconds: None,
        recovered_at: None,
        basis: None,
        fixed_by: None,
    };
    match end {
        End::Over { at, seconds, fixed_by } => Recovery {
            seconds: Some(seconds),
            recovered_at: Some(at),
            basis: Some(fixed_by.map_or(RecoveryBasis::Incident, |_| RecoveryBasis::Fix)),
            fixed_by,
            ..open
        },
        End::Open | End::LeftOut(_) => open,
    }
}

/// The end of a failure.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The failure was fixed, or its incident resolved.
    Over { at: Timestamp, seconds: i64, fixed_by: Option<DeploymentId> },
    /// The failure is not over.
    Open,
    /// The end is not known.
    LeftOut(LeftOut),
}

impl End {
    /// How long the failure lasted, in seconds, if that is known.
    pub(super) fn seconds(self) -> Option<i64> {
        match self {
            End::Over { seconds, .. } => Some(seconds),
            End::Open | End::LeftOut(_) => None,
        }
    }
}

/// When a failure ended.
///
/// Without an incident, the first fix that went live ends it. With an open incident, it has not
/// ended, even if there was a fix. With resolved incidents, the end of the last one counts.
pub(super) fn end(failed: &Finished) -> End {
    let failed_at = failed.deployment.finished_at;
    let (incidents, Fixes { rolled_back_by, hotfixed_by }) = (failed.incidents, failed.fixes);
    let fixes = [rolled_back_by, hotfixed_by].into_iter().flatten();
    let over = if incidents.is_empty() {
        fixes.min().map(Recovered::with).ok_or(End::LeftOut(LeftOut::FixUnknown))
    } else {
        let ends = incidents.iter().map(|incident| resolved(incident, failed_at, fixes.clone()));
        ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max()).ok_or(End::Open)
    };
    match over {
        Ok(Recovered { at, .. }) if at < failed_at => End::LeftOut(LeftOut::OverBefore),
        Ok(Recovered { at, fixed_by }) => {
            End::Over { at, seconds: at.duration_since(failed_at).as_secs(), fixed_by }
        }
        Err(end) => end,
    }
}

/// When a failure was over, and the deployment that fixed it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Recovered {
    at: Timestamp,
    fixed_by: Option<DeploymentId>,
}

impl Recovered {
    fn with(fix: Fix) -> Self {
        Self { at: fix.finished_at, fixed_by: Some(fix.id) }
    }
}

/// The end of a failure that caused an incident: the last fix that went live before the incident
/// was resolved, or, without such a fix, the resolution. `None` while the incident is open.
fn resolved(
    incident: &Incident,
    failed_at: Timestamp,
    followed: impl Iterator<Item = Fix>,
) -> Option<Recovered> {
    let resolved_at = incident.resolved_at?;
    let fixes = incident.fixed_by.iter().copied().chain(followed);
    let last =
        fixes.filter(|fix| failed_at <= fix.finished_at && fix.finished_at <= resolved_at).max();
    Some(last.map_or(Recovered { at: resolved_at, fixed_by: None }, Recovered::with))
}

#[cfg(test)]
mod tests {
    use super::super::stories::{ends, id, incident, march, measure, omitted, place};
    use super::*;

    /// What happened in the place, the incidents, and the ends of the failures.
    fn assert_ends(story: &str, incidents: &[Incident], expected: &[&str]) {
        let measures = measure(&place(story), incidents, march());
        assert_eq!(ends(&measures), expected, "{story}, {incidents:?}");
        let recovery = &measures.failed_deployment_recovery_time;
        let open = expected.iter().filter(|end| end.ends_with("open")).count();
        assert_eq!((recovery.open, recovery.n), (open, expected.len() - open), "{story}");
        assert_eq!(measures.change_fail_rate.failed, expected.len(), "{story}");
    }

    #[test]
    fn a_failure_without_an_incident_lasts_until_the_first_fix() {
        assert_ends("1 2 1", &[], &["1: 1 h by 2"]);
        assert_ends("1 2 3 1", &[], &["1: 2 h by 3", "2: 1 h by 3"]);
        assert_ends("1 2 3h", &[], &["1: 1 h by 2"]);
        assert_ends("1 2 3h 1", &[], &["1: 1 h by 2", "2: 1 h by 3"]);
    }

    #[test]
    fn a_failure_with_an_open_incident_goes_on_in_spite_of_a_fix() {
        assert_ends("1 2", &[incident(&[1], &[], None)], &["1: open"]);
        assert_ends("1 2 1", &[incident(&[1], &[2], None)], &["1: open"]);
        let one_of_two = [incident(&[1], &[], Some(3)), incident(&[1], &[], None)];
        assert_ends("1 2", &one_of_two, &["1: open"]);
    }

    #[test]
    fn a_failure_with_an_incident_lasts_until_the_last_fix_before_its_end() {
        // Without a fix, until the incident ends.
        assert_ends("1 2", &[incident(&[1], &[], Some(4))], &["1: 3 h"]);
        // Late paperwork does not lengthen it.
        assert_ends("1 2 1", &[incident(&[1], &[2], Some(9))], &["1: 1 h by 2"]);
        // A rollback that nobody linked.
        assert_ends("1 2 1", &[incident(&[1], &[], Some(9))], &["1: 1 h by 2"]);
        // The incident ended before a late fix, or with it.
        assert_ends("1 2 3 4", &[incident(&[1], &[3], Some(2))], &["1: 1 h"]);
        assert_ends("1 2 3", &[incident(&[1], &[2], Some(2))], &["1: 1 h by 2"]);
        // The first fix was not enough.
        assert_ends("1 2 3 4", &[incident(&[1], &[2, 3], Some(5))], &["1: 2 h by 3"]);
        // Of two incidents, the last one counts.
        let two = [incident(&[1], &[], Some(3)), incident(&[1], &[], Some(5))];
        assert_ends("1 2", &two, &["1: 4 h"]);
        // Two deployments caused it.
        assert_ends("1 2", &[incident(&[0, 1], &[], Some(3))], &["0: 3 h", "1: 2 h"]);
        // What is linked as a fix went live before the failure.
        assert_ends("1 2 3", &[incident(&[2], &[1], Some(4))], &["2: 2 h"]);
    }

    #[test]
    fn a_hotfix_that_is_linked_to_an_incident_with_a_known_cause_fixes_that_cause() {
        let of_another = incident(&[1], &[3], Some(5));
        assert_ends("1 2 3 4h", &[of_another], &["1: 2 h by 3"]);
        let cause_unknown = incident(&[], &[2], Some(5));
        assert_ends("1 2 3h", &[cause_unknown], &["1: 1 h by 2"]);
        let cause_before_all = Incident { caused_by: vec![id(99)], ..incident(&[], &[2], Some(5)) };
        assert_ends("1 2 3h", &[cause_before_all], &[]);
    }

    #[test]
    fn an_incident_that_ended_before_the_deployment_is_left_out() {
        let measures = measure(&place("1 2"), &[incident(&[1], &[], Some(0))], march());
        assert_eq!(measures.change_fail_rate.failed, 1);
        let recovery = &measures.failed_deployment_recovery_time;
        assert_eq!((recovery.n, recovery.open), (0, 0));
        assert_eq!(omitted(&recovery.left_out), [(LeftOut::OverBefore, 1)]);
    }
}
