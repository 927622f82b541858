//! The five DORA measures of software delivery: what counts, what is left out and why, and the
//! figures.
//!
//! DORA defines the measures (<https://dora.dev/guides/dora-metrics/>). `docs/dora.md` explains how
//! each one is computed from the ledger. The input is the deployments that finished in a window and
//! some time around it, service by service, and the incidents linked to them. Each measure is a
//! tally of its own, to which the deployments that finished in the window are added.

use jiff::SignedDuration;
use serde::Serialize;
use std::rc::Rc;
use utoipa::ToSchema;

mod counting; // what is left out, ratios and percentiles
mod delivery; // what each deployment was the first to deliver
mod fail_rate; // the share of changes that failed
mod failures; // what shows that a deployment failed
mod finished; // a deployment of the window, with what is known about it
mod frequency; // how often changes go live
mod input; // what is measured
mod lead_time; // the time from a commit to the deployment that delivers it
mod recovery; // the time from a failure to its end
mod rework; // the share of hotfixes and rollbacks
mod series; // the figures by day or week
#[cfg(test)]
mod stories; // builds the input of tests

pub use counting::{LeftOut, Omission};
pub use delivery::{Deliveries, LeadTimeBases, LeadTimeBasis, skipped};
pub use fail_rate::{ChangeFailRate, FailedDeployment};
pub use failures::{Evidence, Failures};
pub use frequency::DeploymentFrequency;
pub use input::{Commit, Counted, Deployment, Fix, Incident, Order, Release, Window};
pub use lead_time::{ChangeLeadTime, DeliveringDeployment};
pub use recovery::{FailedDeploymentRecoveryTime, Recovery, RecoveryBasis};
pub use rework::DeploymentReworkRate;
pub use series::{Bucket, Series, Step};

use finished::Finished;
use recovery::end;

/// How far before and after a window to look: before it for commits that were already delivered,
/// after it for deployments that turned out to have failed.
pub const AROUND: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The longest allowed window.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The time window to measure.
    pub window: Window,
    /// The length of the intervals of the series. `None` chooses it by the length of the window.
    pub step: Option<Step>,
    /// The largest number of deployments that each measure lists, the newest first.
    pub named: usize,
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

/// Measures a window, one service after the other, each in two passes: what it delivered shows in
/// the order of time, and what failed shows in the reverse order. What is kept of a service are
/// counts, durations and the few deployments that the measures list.
pub struct Measuring {
    window: Window,
    frequency: frequency::Tally,
    lead_time: lead_time::Tally,
    fail_rate: fail_rate::Tally,
    recovery: recovery::Tally,
    rework: rework::Tally,
    series: series::Tally,
}

impl Measuring {
    /// Nothing was added yet.
    pub fn new(question: Question) -> Self {
        let Question { window, step, named } = question;
        Self {
            window,
            frequency: frequency::Tally::new(named),
            lead_time: lead_time::Tally::new(named),
            fail_rate: fail_rate::Tally::new(named),
            recovery: recovery::Tally::new(named),
            rework: rework::Tally::new(named),
            series: series::Tally::new(window, step),
        }
    }

    /// Adds what deployments of a service delivered. Add those that finished from [`AROUND`] before
    /// the window to its end, in the order of [`Deployment::order`], some at a time. `releases` are
    /// those that these may have skipped, in the order of [`Release::last_commit_at`].
    pub fn add_delivered(
        &mut self,
        deliveries: &mut Deliveries,
        deployments: &[Deployment],
        releases: &[Rc<Release>],
    ) {
        let Window { since, until } = self.window;
        for deployment in deployments.iter().filter(|it| it.finished_at < until) {
            // What ended before the window has delivered commits, which do not count again.
            let delivery = deliveries.next(deployment, releases);
            if deployment.finished_at >= since {
                self.lead_time.add(deliveries.service, deployment, &delivery);
                self.series.add_lead_times(deployment.finished_at, &delivery.lead_times);
            }
        }
    }

    /// Adds which deployments of a service finished, and which of them failed. Add those from the
    /// start of the window to [`AROUND`] after it, in the reverse order of [`Deployment::order`],
    /// some at a time.
    pub fn add_finished(&mut self, failures: &mut Failures, deployments: &[Deployment]) {
        let Window { since, until } = self.window;
        for deployment in deployments.iter().filter(|it| it.finished_at >= since) {
            // What ended after the window only shows what had failed in it.
            let fixes = failures.fixes(deployment);
            if deployment.finished_at < until {
                let (service, incidents) = (failures.service, failures.incidents(deployment));
                self.count(&Finished { service, deployment, incidents, fixes });
            }
        }
    }

    /// Counts a deployment that finished in the window.
    fn count(&mut self, finished: &Finished) {
        let end = finished.has_failed().then(|| end(finished));
        self.frequency.add(finished);
        self.fail_rate.add(finished);
        if let Some(end) = end {
            self.recovery.add(finished, end);
        }
        self.rework.add(finished);
        self.series.add(finished, end);
    }

    /// The measures of all that was added.
    pub fn measures(self) -> Measures {
        Measures {
            deployment_frequency: self.frequency.measure(self.window),
            change_lead_time: self.lead_time.measure(self.series.lead_times()),
            change_fail_rate: self.fail_rate.measure(),
            failed_deployment_recovery_time: self.recovery.measure(self.series.recovery_times()),
            deployment_rework_rate: self.rework.measure(),
            series: self.series.series(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stories::{ends, failed, hour, march, measure, omitted, place, position};
    use super::*;
    use crate::rules::lifecycle::State;
    use failures::Evidence::RolledBack;

    fn ids(counted: &[Counted]) -> Vec<usize> {
        counted.iter().map(|counted| position(counted.id)).collect()
    }

    #[test]
    fn nothing_gives_no_figures() {
        for deployments in [vec![], place("1f")] {
            let measures = measure(&deployments, &[], march());
            assert_eq!(
                (measures.deployment_frequency.n, measures.deployment_frequency.per_day),
                (0, 0.0)
            );
            let (lead, recovery) =
                (&measures.change_lead_time, &measures.failed_deployment_recovery_time);
            assert_eq!((lead.n, lead.p50_seconds, lead.p90_seconds), (0, None, None));
            assert_eq!((measures.change_fail_rate.rate, measures.change_fail_rate.n), (None, 0));
            assert_eq!(
                (recovery.n, recovery.open, recovery.p50_seconds, recovery.p90_seconds),
                (0, 0, None, None)
            );
            assert_eq!(
                (measures.deployment_rework_rate.rate, measures.deployment_rework_rate.n),
                (None, 0)
            );
            assert_eq!(measures.series.buckets.len(), 31);
        }
        assert_eq!(
            measure(&place("1 2"), &[], march()).change_fail_rate.rate,
            Some(0.0),
            "none failed, of some"
        );
    }

    #[test]
    fn everything_that_finished_counts_or_is_left_out_for_a_reason() {
        let mut deployments = place("1 1 2 1 3f 4f 5f 6f 7h");
        for (i, state) in [(5, State::Cancelled), (6, State::Rejected), (7, State::Expired)] {
            deployments[i].state = state;
        }
        let measures = measure(&deployments, &[], march());
        let never_live = [
            (LeftOut::Failed, 1),
            (LeftOut::Cancelled, 1),
            (LeftOut::Rejected, 1),
            (LeftOut::Expired, 1),
        ];
        let no_change: Vec<_> = [(LeftOut::Redeploy, 1), (LeftOut::Rollback, 1)]
            .into_iter()
            .chain(never_live)
            .collect();
        assert_eq!(omitted(&measures.deployment_frequency.left_out), no_change);
        assert_eq!(omitted(&measures.change_fail_rate.left_out), no_change);
        assert_eq!(omitted(&measures.deployment_rework_rate.left_out), never_live);
        assert_eq!(ids(&measures.deployment_frequency.deployments), [8, 2, 0], "the newest first");
        assert_eq!(ids(&measures.deployment_rework_rate.deployments), [8, 3]);
        let fewer = measure(&deployments, &[], Question { named: 1, ..march() });
        assert_eq!(
            (ids(&fewer.deployment_frequency.deployments), fewer.deployment_frequency.n),
            (vec![8], 3)
        );
        assert_eq!(fewer.deployment_frequency.per_day, 3.0 / 31.0);
    }

    #[test]
    fn the_window_is_half_open_and_judged_by_what_is_around_it() {
        let mut deployments = place("1 2 3 2 4");
        let window = |since: i64, until: i64| Question {
            window: Window { since: hour(since), until: hour(until) },
            ..march()
        };
        let of = |deployments: &[Deployment], since, until| {
            let measures = measure(deployments, &[], window(since, until));
            (
                measures.deployment_frequency.n,
                measures.change_fail_rate.failed,
                measures.deployment_rework_rate.rollbacks,
            )
        };
        assert_eq!(of(&deployments, 0, 5), (4, 1, 1));
        assert_eq!(of(&deployments, 0, 2), (2, 0, 0));
        // A failure counts in the interval in which the deployment went live.
        assert_eq!(of(&deployments, 2, 3), (1, 1, 0));
        assert_eq!(of(&deployments, 3, 4), (0, 0, 1));
        assert_eq!(of(&deployments, 4, 5), (1, 0, 0));
        deployments[2].finished_at -= SignedDuration::from_micros(1);
        assert_eq!(of(&deployments, 2, 3), (0, 0, 0));
        assert_eq!(of(&deployments, 0, 2), (3, 1, 0));
        let measures = measure(&deployments, &[], window(0, 2));
        assert_eq!(ends(&measures), ["2: 1 h by 3"], "fixed after the window");
        // The rollback goes back to a release from before the known history.
        let back = &place("1 2 3 1")[1..];
        assert_eq!(
            failed(&measure(back, &[], march())),
            [(1, &[RolledBack][..]), (2, &[RolledBack][..])]
        );
    }
}
