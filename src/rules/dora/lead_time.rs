//! Change lead time: the time from a commit to the end of the deployment that first delivers it.

use serde::Serialize;
use utoipa::ToSchema;

use super::counting::{Durations, Newest, Omission, Omissions};
use super::delivery::{Delivery, LeadTimeBases, LeadTimeBasis};
use super::input::{Counted, Deployment};

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

/// Counts the commits that were delivered.
pub(super) struct Tally {
    basis: LeadTimeBases,
    left_out: Omissions,
    newest: Newest<DeliveringDeployment>,
}

impl Tally {
    pub(super) fn new(named: usize) -> Self {
        let (basis, left_out) = (LeadTimeBases::default(), Omissions::default());
        Self { basis, left_out, newest: Newest::new(named) }
    }

    /// Adds what a deployment of a service delivered.
    pub(super) fn add(&mut self, service: &str, deployment: &Deployment, delivery: &Delivery) {
        self.basis += delivery.bases;
        self.left_out += delivery.left_out;
        if !delivery.lead_times.is_empty() {
            self.newest.add(deployment, || delivering(deployment.counted(service), delivery));
        }
    }

    /// `lead_times` are those of all commits that were delivered.
    pub(super) fn measure(self, mut lead_times: Durations) -> ChangeLeadTime {
        ChangeLeadTime {
            p50_seconds: lead_times.percentile(50),
            p90_seconds: lead_times.percentile(90),
            n: lead_times.len(),
            basis: self.basis,
            left_out: self.left_out.by_reason(),
            deployments: self.newest.in_order(),
        }
    }
}

/// A deployment that delivered at least one commit that counts, with its lead times.
fn delivering(deployment: Counted, delivery: &Delivery) -> DeliveringDeployment {
    let mut lead_times = Durations::default();
    lead_times.add(delivery.lead_times.iter().copied());
    DeliveringDeployment {
        p50_seconds: lead_times.percentile(50).unwrap_or_default(),
        n: lead_times.len(),
        basis: match delivery.bases.commits {
            0 => LeadTimeBasis::Release,
            _ => LeadTimeBasis::Commits,
        },
        deployment,
    }
}

#[cfg(test)]
mod tests {
    use super::super::counting::LeftOut;
    use super::super::input::{Release, Window};
    use super::super::stories::{
        HOUR, built_from, hour, march, measure, omitted, place, position, release,
    };
    use super::super::{Deliveries, Measuring, Question};
    use super::*;
    use std::rc::Rc;

    /// Lists of commits, own commits, and every reason why a commit does not count.
    fn deliveries_of_all_sorts() -> Vec<Deployment> {
        let mut deployments = place("1 2 3 2 4 5 6f 7 8");
        let releases = [
            Rc::new(Release {
                commits: release("a-2 b-1").commits.clone(),
                ..Release::clone(&built_from("z", -99))
            }),
            release("b-1 c-3 m0"),
            built_from("d", -8),
            release("e0"),
            built_from("c", -8),
            Rc::default(),
            release("f0"),
            release("f0 g8"),
            built_from("h", 8),
        ];
        for (deployment, release) in deployments.iter_mut().zip(releases) {
            deployment.release = release;
        }
        Rc::make_mut(&mut deployments[1].release).commits[2].is_merge = true;
        deployments
    }

    #[test]
    fn a_commit_counts_where_it_is_first_delivered() {
        let lead = measure(&deliveries_of_all_sorts(), &[], march()).change_lead_time;
        let delivered: Vec<_> = lead
            .deployments
            .iter()
            .map(|d| (position(d.deployment.id), d.basis, d.n, d.p50_seconds / HOUR))
            .collect();
        // The release's own commit counts only without a list of commits, and only when it is new.
        let expected = [
            (8, LeadTimeBasis::Release, 1, 0),
            (7, LeadTimeBasis::Commits, 1, 7),
            (2, LeadTimeBasis::Release, 1, 10),
            (1, LeadTimeBasis::Commits, 1, 4),
            (0, LeadTimeBasis::Commits, 2, 1),
        ];
        assert_eq!(delivered, expected);
        assert_eq!((lead.n, lead.basis), (6, LeadTimeBases { commits: 4, release: 2 }));
        // 0, 1, 2, 4, 7, 10 hours.
        assert_eq!((lead.p50_seconds, lead.p90_seconds), (Some(2 * HOUR), Some(10 * HOUR)));
        let expected = [
            (LeftOut::MergeCommit, 1),
            (LeftOut::DeliveredBefore, 2),
            (LeftOut::NoCommitTime, 1),
            (LeftOut::CommittedAfter, 1),
        ];
        assert_eq!(omitted(&lead.left_out), expected);
    }

    #[test]
    fn a_commit_that_was_delivered_before_the_window_does_not_count_again() {
        let window = Window { since: hour(1), until: hour(2) };
        let question = Question { window, ..march() };
        let lead = measure(&deliveries_of_all_sorts(), &[], question).change_lead_time;
        let expected = [(LeftOut::MergeCommit, 1), (LeftOut::DeliveredBefore, 1)];
        assert_eq!((lead.n, &omitted(&lead.left_out)[..]), (1, &expected[..]));
    }

    #[test]
    fn a_commit_is_delivered_once_per_service_whatever_the_environment() {
        let mut deployments = place("1 2");
        deployments[1].environment = "us".into();
        for deployment in &mut deployments {
            deployment.release = release("a-2 b-1");
        }
        assert_eq!(measure(&deployments, &[], march()).change_lead_time.n, 2);
        let mut measuring = Measuring::new(march());
        for (slug, deployment) in ["checkout", "billing"].into_iter().zip(deployments) {
            measuring.add_delivered(&mut Deliveries::new(slug), &[deployment], &[]);
        }
        assert_eq!(measuring.measures().change_lead_time.n, 4);
    }
}
