//! Change lead time: the time from a commit to the end of the deployment that first delivers it.

use jiff::Timestamp;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::iter::Sum;
use utoipa::ToSchema;

use super::Finished;
use super::counting::{Durations, LeftOut, Omission, newest, omissions};
use super::input::{Counted, Deployment, Release};
use crate::text_enum;

text_enum! {
    /// The source of the commit times.
    LeadTimeBasis {
        /// The list of commits of the release.
        Commits = "commits",
        /// The commit that the release was built from.
        Release = "release",
    }
}

/// The number of lead times by the source of the commit time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct LeadTimeBases {
    /// The number of lead times from the lists of commits of releases.
    pub commits: usize,
    /// The number of lead times from the releases' own commits, for releases without a list.
    pub release: usize,
}

impl Sum for LeadTimeBases {
    fn sum<I: Iterator<Item = Self>>(bases: I) -> Self {
        bases.fold(Self::default(), |sum, it| Self {
            commits: sum.commits + it.commits,
            release: sum.release + it.release,
        })
    }
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

pub(super) fn change_lead_time(finished: &[Finished], named: usize) -> ChangeLeadTime {
    let lead_times = lead_times(finished);
    let deliveries = finished.iter().map(|it| &it.delivery);
    ChangeLeadTime {
        p50_seconds: lead_times.percentile(50),
        p90_seconds: lead_times.percentile(90),
        n: lead_times.len(),
        basis: deliveries.clone().map(|delivery| delivery.bases).sum(),
        left_out: omissions(deliveries.flat_map(|delivery| delivery.left_out.iter().copied())),
        deployments: newest(finished.iter().filter_map(delivering), named),
    }
}

/// The lead times of the commits that these deployments were the first to deliver.
pub(super) fn lead_times(finished: &[Finished]) -> Durations {
    finished.iter().flat_map(|it| it.delivery.lead_times.iter().copied()).collect()
}

/// The deployment with its lead times. `None` if it delivered no commit that counts.
fn delivering(finished: &Finished) -> Option<DeliveringDeployment> {
    let Finished { deployment, delivery, .. } = finished;
    let lead_times: Durations = delivery.lead_times.iter().copied().collect();
    Some(DeliveringDeployment {
        p50_seconds: lead_times.percentile(50)?,
        n: lead_times.len(),
        basis: match delivery.bases.commits {
            0 => LeadTimeBasis::Release,
            _ => LeadTimeBasis::Commits,
        },
        deployment: deployment.counted.clone(),
    })
}

/// What a deployment delivered.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// The lead times in seconds of the commits that it was the first to deliver.
    lead_times: Vec<i64>,
    /// The sources of these lead times.
    bases: LeadTimeBases,
    /// Why other commits, or the deployment itself, do not count.
    left_out: Vec<LeftOut>,
}

/// What each of the deployments, which are in the order of their end, was the first to deliver.
/// `releases` are those that they skipped, by service, in the order of [`Release::last_commit_at`].
pub(super) fn deliveries(
    deployments: &[Deployment],
    releases: &HashMap<String, Vec<Release>>,
) -> Vec<Delivery> {
    let mut delivered = HashSet::new();
    let mut all = Vec::with_capacity(deployments.len());
    for deployment in deployments {
        all.push(if deployment.is_change() {
            let releases = releases.get(&deployment.counted.service);
            deliver(deployment, releases.map_or(&[], Vec::as_slice), &mut delivered)
        } else {
            Delivery::default()
        });
    }
    all
}

/// What a change delivers: its own release and those that it skipped. A commit that several of them
/// list counts once, and only if none of `delivered`, the commits by service, is the same.
fn deliver<'a>(
    change: &'a Deployment,
    releases: &'a [Release],
    delivered: &mut HashSet<(&'a str, &'a str)>,
) -> Delivery {
    let Counted { service, finished_at, .. } = &change.counted;
    let skipped = skipped(change, releases);
    let together = skipped.unwrap_or_default().iter().chain([&change.release]);
    let mut listed = HashSet::new();
    let mut delivery = Delivery::default();
    for commit in together.flat_map(delivered_by).filter(|commit| listed.insert(commit.sha)) {
        let is_first = delivered.insert((service, commit.sha));
        match lead_time(&commit, is_first, *finished_at) {
            Ok(seconds) => delivery.add(seconds, commit.basis),
            Err(reason) => delivery.left_out.push(reason),
        }
    }
    if change.release.commits.is_empty() && change.release.committed_at.is_none() {
        delivery.left_out.push(LeftOut::NoCommitTime);
    } else if skipped.is_none() {
        delivery.left_out.push(LeftOut::OrderUnknown);
    }
    delivery
}

impl Delivery {
    fn add(&mut self, seconds: i64, basis: LeadTimeBasis) {
        self.lead_times.push(seconds);
        match basis {
            LeadTimeBasis::Commits => self.bases.commits += 1,
            LeadTimeBasis::Release => self.bases.release += 1,
        }
    }
}

/// The lead time of a commit in seconds, or why it does not count.
fn lead_time(commit: &Delivered, is_first: bool, live_at: Timestamp) -> Result<i64, LeftOut> {
    if commit.is_merge {
        Err(LeftOut::MergeCommit)
    } else if !is_first {
        Err(LeftOut::DeliveredBefore)
    } else if commit.committed_at > live_at {
        Err(LeftOut::CommittedAfter)
    } else {
        Ok(live_at.duration_since(commit.committed_at).as_secs())
    }
}

/// The releases that went live with a change besides its own: those after what was live before, up
/// to its own, by commit time. `None` if the order is unknown. `releases` are those of its service
/// in that order.
fn skipped<'a>(change: &Deployment, releases: &'a [Release]) -> Option<&'a [Release]> {
    let Some(replaced) = change.replaced else { return Some(&[]) };
    let (after, until) = (replaced.last_commit_at?, change.release.last_commit_at?);
    let up_to =
        |at| releases.partition_point(|release| release.last_commit_at.is_none_or(|it| it <= at));
    Some(releases.get(up_to(after)..up_to(until)).unwrap_or_default())
}

/// A commit that went live, with the source of its time.
struct Delivered<'a> {
    sha: &'a str,
    committed_at: Timestamp,
    is_merge: bool,
    basis: LeadTimeBasis,
}

/// The commits that a release lists, or else the commit that it was built from.
fn delivered_by(release: &Release) -> impl Iterator<Item = Delivered<'_>> {
    let listed = release.commits.iter().map(|commit| Delivered {
        sha: &commit.sha,
        committed_at: commit.committed_at,
        is_merge: commit.is_merge,
        basis: LeadTimeBasis::Commits,
    });
    let own = release.committed_at.filter(|_| release.commits.is_empty()).map(|at| Delivered {
        sha: &release.sha,
        committed_at: at,
        is_merge: false,
        basis: LeadTimeBasis::Release,
    });
    listed.chain(own)
}

#[cfg(test)]
mod tests {
    use super::super::input::Replaced;
    use super::super::stories::{
        HOUR, built_from, deployment, hour, march, measure, omitted, place, position, release,
    };
    use super::super::{Question, Window, measure as measure_with_skipped};
    use super::*;
    use crate::rules::lifecycle::{Kind, State};

    /// Lists of commits, own commits, and every reason why a commit does not count.
    fn deliveries_of_all_sorts() -> Vec<Deployment> {
        let mut deployments = place("1 2 3 2 4 5 6f 7 8");
        let releases = [
            Release { commits: release("a-2 b-1").commits, ..built_from("z", -99) },
            release("b-1 c-3 m0"),
            built_from("d", -8),
            release("e0"),
            built_from("c", -8),
            Release::default(),
            release("f0"),
            release("f0 g8"),
            built_from("h", 8),
        ];
        for (deployment, release) in deployments.iter_mut().zip(releases) {
            deployment.release = release;
        }
        deployments[1].release.commits[2].is_merge = true;
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
        for (environment, service, n) in [("us", "checkout", 2), ("production", "billing", 4)] {
            let mut deployments = place("1 2");
            deployments[1].counted.environment = environment.into();
            deployments[1].counted.service = service.into();
            for deployment in &mut deployments {
                deployment.release = release("a-2 b-1");
            }
            let lead = measure(&deployments, &[], march()).change_lead_time;
            assert_eq!(lead.n, n, "{service} in {environment}");
        }
    }

    /// Deployments of these releases to one place, a day apart.
    fn daily(releases: &[&str]) -> Vec<Deployment> {
        let mut replaced = None;
        let mut story = Vec::new();
        for (i, commits) in releases.iter().enumerate() {
            let finished_at = hour(24 * i as i64);
            let (version, kind, state) = (i.to_string(), Kind::Normal, State::Superseded);
            let mut next = deployment(i, &version, kind, state, finished_at);
            (next.release, next.replaced) = (release(commits), replaced);
            replaced = Some(Replaced { last_commit_at: next.release.last_commit_at });
            story.push(next);
        }
        story
    }

    #[test]
    fn a_deployment_delivers_the_releases_that_it_skipped() {
        // The releases in order; what goes live in turn, a day apart; what each delivers, in hours
        // from the commit; what is left out.
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a [i64]], &'a [(LeftOut, usize)]);
        let cases: &[Case] = &[
            (&["a0", "b1", "c2"], &["a0", "c2"], &[&[0], &[23, 22]], &[]),
            (&["a0", "b1", "c2"], &["a0", "b1", "c2"], &[&[0], &[23], &[46]], &[]),
            // The first deployment of a place delivers its own release: nothing is known to have
            // been live.
            (&["a-4", "b-3", "c-2"], &["c-2"], &[&[2]], &[]),
            // Lists that repeat what a skipped release lists.
            (&["a0", "b1", "b1 c2"], &["a0", "b1 c2"], &[&[0], &[23, 22]], &[]),
            // A release of the same time as the live one is not after it. One of the same time as
            // the deployed one goes live with it.
            (&["a0", "b0", "c2", "d2"], &["a0", "d2"], &[&[0], &[22, 22]], &[]),
            // Back to a release that was never live here: nothing is skipped, and the way forward
            // delivers only what is new.
            (
                &["a0", "b1", "c2", "d3"],
                &["a0", "c2", "b1", "d3"],
                &[&[0], &[23, 22], &[], &[69]],
                // b with the second, c with the last.
                &[(LeftOut::DeliveredBefore, 2)],
            ),
            // The order is unknown before and after a release without commit times.
            (
                &["a0", "b1", "c2"],
                &["a0", "", "c2"],
                &[&[0], &[], &[46]],
                &[(LeftOut::NoCommitTime, 1), (LeftOut::OrderUnknown, 1)],
            ),
        ];
        for (releases, live, expected, left_out) in cases {
            let releases = releases.iter().map(|commits| release(commits)).collect();
            let by_service = HashMap::from([("checkout".to_owned(), releases)]);
            let deliveries = deliveries(&daily(live), &by_service);
            let hours =
                |it: &Delivery| it.lead_times.iter().map(|seconds| seconds / HOUR).collect();
            let hours: Vec<Vec<i64>> = deliveries.iter().map(hours).collect();
            assert_eq!(hours, *expected, "{live:?}");
            let reasons = deliveries.iter().flat_map(|it| it.left_out.iter().copied());
            assert_eq!(omitted(&omissions(reasons)), *left_out, "{live:?}");
        }
    }

    #[test]
    fn a_skipped_release_without_a_list_delivers_its_own_commit() {
        let mut deployments = place("1 3");
        deployments[0].release = release("a0");
        deployments[1].release = release("c1");
        deployments[1].replaced = Some(Replaced { last_commit_at: Some(hour(0)) });
        deployments[1].counted.finished_at = hour(9);
        let lead_time_with = |service: &str| {
            let releases = HashMap::from([(service.to_owned(), vec![built_from("b", 1)])]);
            measure_with_skipped(&deployments, &releases, &[], march()).change_lead_time
        };
        let lead = lead_time_with("checkout");
        assert_eq!((lead.n, lead.basis), (3, LeadTimeBases { commits: 2, release: 1 }));
        assert_eq!((lead.deployments[0].basis, lead.deployments[0].n), (LeadTimeBasis::Commits, 2));
        // Those of another service have nothing to do with it.
        assert_eq!(lead_time_with("billing").n, 2);
    }
}
