//! What each deployment was the first to deliver: the commits of its release, and of those that it
//! skipped.

use jiff::Timestamp;
use serde::Serialize;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::AddAssign;
use std::rc::Rc;
use utoipa::ToSchema;

use super::counting::{LeftOut, Omissions};
use super::input::{Deployment, Release};
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

impl AddAssign for LeadTimeBases {
    fn add_assign(&mut self, more: Self) {
        self.commits += more.commits;
        self.release += more.release;
    }
}

/// What a deployment delivered.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// The lead times in seconds of the commits that it was the first to deliver.
    pub(super) lead_times: Vec<i64>,
    /// The sources of these lead times.
    pub(super) bases: LeadTimeBases,
    /// Why other commits, or the deployment itself, do not count.
    pub(super) left_out: Omissions,
}

/// What the deployments of a service deliver, one after the other.
pub struct Deliveries<'a> {
    /// The slug of the service.
    pub(super) service: &'a str,
    /// The fingerprints of the commits that were delivered so far. There may be millions of them.
    /// Among a million, two that differ have the same one with a chance of 1 in 30 million.
    delivered: HashSet<u64>,
    fingerprints: RandomState,
}

impl<'a> Deliveries<'a> {
    /// Nothing of the service with this slug was delivered yet.
    pub fn new(service: &'a str) -> Self {
        Self { service, delivered: HashSet::new(), fingerprints: RandomState::new() }
    }

    /// What the next deployment in the order of time was the first to deliver. `releases` are those
    /// that it may have skipped, in the order of [`Release::last_commit_at`].
    pub(super) fn next(&mut self, deployment: &Deployment, releases: &[Rc<Release>]) -> Delivery {
        if deployment.is_change() {
            self.deliver(deployment, releases)
        } else {
            Delivery::default()
        }
    }

    /// What a change delivers: its own release and those that it skipped. A commit that several of
    /// them list counts once, and only if it was not delivered before.
    fn deliver(&mut self, change: &Deployment, releases: &[Rc<Release>]) -> Delivery {
        let skipped = skipped(change, releases);
        // Its own release comes last: the skipped ones of the same time tell the times of commits
        // that both list.
        let others = skipped.unwrap_or_default().iter();
        let others = others.filter(|release| !Rc::ptr_eq(release, &change.release));
        let mut commits =
            others.chain([&change.release]).flat_map(|release| delivered_by(release)).peekable();
        let mut listed = HashSet::new();
        let mut delivery = Delivery::default();
        while let Some(commit) = commits.next() {
            let fingerprint = self.fingerprints.hash_one(commit.sha);
            // Usually there is only one.
            let is_only = listed.is_empty() && commits.peek().is_none();
            if !is_only && !listed.insert(fingerprint) {
                continue;
            }
            let is_first = self.delivered.insert(fingerprint);
            match lead_time(&commit, is_first, change.finished_at) {
                Ok(seconds) => delivery.add(seconds, commit.basis),
                Err(reason) => delivery.left_out.add(reason),
            }
        }
        if change.release.commits.is_empty() && change.release.committed_at.is_none() {
            delivery.left_out.add(LeftOut::NoCommitTime);
        } else if skipped.is_none() {
            delivery.left_out.add(LeftOut::OrderUnknown);
        }
        delivery
    }
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
pub fn skipped<'a>(change: &Deployment, releases: &'a [Rc<Release>]) -> Option<&'a [Rc<Release>]> {
    let Some(replaced) = &change.replaced else { return Some(&[]) };
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
    use super::super::stories::{
        HOUR, built_from, deployment, hour, march, measure_with, omitted, place, release,
    };
    use super::*;
    use crate::rules::lifecycle::{Kind, State};

    /// Deployments of these releases to one place, a day apart.
    fn daily(releases: &[&str]) -> Vec<Deployment> {
        let mut replaced = None;
        let mut story = Vec::new();
        for (i, commits) in releases.iter().enumerate() {
            let finished_at = hour(24 * i as i64);
            let (version, kind, state) = (i.to_string(), Kind::Normal, State::Superseded);
            let mut next = deployment(i, &version, kind, state, finished_at);
            (next.release, next.replaced) = (release(commits), replaced);
            replaced = Some(Rc::clone(&next.release));
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
            let releases: Vec<_> = releases.iter().map(|commits| release(commits)).collect();
            let (story, mut deliver) = (daily(live), Deliveries::new("checkout"));
            let deliveries: Vec<_> =
                story.iter().map(|next| deliver.next(next, &releases)).collect();
            let hours =
                |it: &Delivery| it.lead_times.iter().map(|seconds| seconds / HOUR).collect();
            let hours: Vec<Vec<i64>> = deliveries.iter().map(hours).collect();
            assert_eq!(hours, *expected, "{live:?}");
            let mut reasons = Omissions::default();
            deliveries.iter().for_each(|it| reasons += it.left_out);
            assert_eq!(omitted(&reasons.by_reason()), *left_out, "{live:?}");
        }
    }

    #[test]
    fn a_skipped_release_without_a_list_delivers_its_own_commit() {
        let mut deployments = place("1 3");
        deployments[0].release = release("a0");
        deployments[1].release = release("c1");
        deployments[1].replaced = Some(Rc::clone(&deployments[0].release));
        deployments[1].finished_at = hour(9);
        let skipped = vec![built_from("b", 1)];
        let lead = measure_with(&deployments, skipped, &[], march()).change_lead_time;
        assert_eq!((lead.n, lead.basis), (3, LeadTimeBases { commits: 2, release: 1 }));
        assert_eq!((lead.deployments[0].basis, lead.deployments[0].n), (LeadTimeBasis::Commits, 2));
    }
}
