//! The five DORA measures of software delivery: what counts, what is left out and why, and the
//! figures.
//!
//! DORA defines the measures (<https://dora.dev/guides/dora-metrics/>). `docs/dora.md` explains how
//! each one is computed from the ledger. The input is the deployments that finished in a window and
//! some time around it, and the incidents linked to them.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

use crate::rules::lifecycle::{Kind, State};

mod figures;

pub use figures::{
    Bucket, ChangeFailRate, ChangeLeadTime, Counted, DeliveringDeployment, DeploymentFrequency,
    DeploymentReworkRate, Evidence, FailedDeployment, FailedDeploymentRecoveryTime, LeadTimeBases,
    LeadTimeBasis, LeftOut, Measures, Omission, Recovery, RecoveryBasis, Step,
};
use figures::{Division, Omissions, newest, percentile, ratio};

/// How far before and after a window to look: before it for commits that were already delivered,
/// after it for deployments that turned out to have failed.
pub const AROUND: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The longest allowed window.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);

/// A half-open time window: it includes `since` and excludes `until`, so adjacent windows do not
/// overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The start, which is inside the window.
    pub since: Timestamp,
    /// The end, which is outside the window.
    pub until: Timestamp,
}

impl Window {
    /// Whether an instant is in the window.
    fn holds(&self, at: Timestamp) -> bool {
        self.since <= at && at < self.until
    }

    fn length(&self) -> SignedDuration {
        self.until.duration_since(self.since)
    }
}

/// A commit that a release delivers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The git commit id.
    pub sha: String,
    /// When the commit was made.
    pub committed_at: Timestamp,
    /// Whether it is a merge commit.
    #[serde(default)]
    pub is_merge: bool,
}

/// A release, with the commits that it adds to the release before it.
#[derive(Debug, Clone, Default)]
pub struct Release {
    /// Its list of commits. Empty when it was not reported.
    pub commits: Vec<Commit>,
    /// The commit that it was built from. The version, if the commit is unknown.
    pub sha: String,
    /// When that commit was made, if known.
    pub committed_at: Option<Timestamp>,
    /// The time that orders the releases of a service: `committed_at` or, if unknown, the time of
    /// the newest commit in its list.
    pub last_commit_at: Option<Timestamp>,
}

/// The release that was live before a deployment.
#[derive(Debug, Clone, Copy)]
pub struct Replaced {
    /// The time that orders it among the releases of the service, if known.
    pub last_commit_at: Option<Timestamp>,
}

impl Release {
    /// Whether neither the commits nor their times are known.
    fn is_unknown(&self) -> bool {
        self.commits.is_empty() && self.committed_at.is_none()
    }

    /// The listed commits, or else the commit that it was built from.
    fn delivers(&self) -> impl Iterator<Item = Delivered<'_>> {
        let listed = self.commits.iter().map(|commit| Delivered {
            sha: &commit.sha,
            committed_at: commit.committed_at,
            is_merge: commit.is_merge,
            basis: LeadTimeBasis::Commits,
        });
        let own = self.committed_at.filter(|_| self.commits.is_empty()).map(|at| Delivered {
            sha: &self.sha,
            committed_at: at,
            is_merge: false,
            basis: LeadTimeBasis::Release,
        });
        listed.chain(own)
    }
}

/// A commit that went live, with the source of its time.
struct Delivered<'a> {
    sha: &'a str,
    committed_at: Timestamp,
    is_merge: bool,
    basis: LeadTimeBasis,
}

/// A deployment that finished, with the commits that it delivered.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The deployment as it is listed in a measure.
    pub counted: Counted,
    /// The current state of the deployment.
    pub state: State,
    /// Its release.
    pub release: Release,
    /// What was live in the place before. `None` if nothing was.
    pub replaced: Option<Replaced>,
}

impl Deployment {
    /// The releases that went live with it besides its own: those after what was live before, up to
    /// its own, by commit time. `None` if the order is unknown. `releases` are those of its service
    /// in that order.
    fn skipped<'a>(&self, releases: &'a [Release]) -> Option<&'a [Release]> {
        let Some(replaced) = self.replaced else { return Some(&[]) };
        let (after, until) = (replaced.last_commit_at?, self.release.last_commit_at?);
        let up_to = |at| {
            releases.partition_point(|release| release.last_commit_at.is_none_or(|it| it <= at))
        };
        Some(releases.get(up_to(after)..up_to(until)).unwrap_or_default())
    }

    /// Whether it is a change: it went live, and is neither a redeploy nor a rollback.
    fn is_change(&self) -> bool {
        self.state.went_live() && matches!(self.counted.kind, Kind::Normal | Kind::Hotfix)
    }

    fn is_rework(&self) -> bool {
        self.state.went_live() && matches!(self.counted.kind, Kind::Rollback | Kind::Hotfix)
    }

    /// Why it does not count as a change.
    fn left_out(&self) -> LeftOut {
        match (self.state, self.counted.kind) {
            (State::Failed, _) => LeftOut::Failed,
            (State::Rejected, _) => LeftOut::Rejected,
            (State::Expired, _) => LeftOut::Expired,
            (_, Kind::Redeploy) if self.state.went_live() => LeftOut::Redeploy,
            (_, Kind::Rollback) if self.state.went_live() => LeftOut::Rollback,
            _ => LeftOut::Cancelled,
        }
    }
}

/// A deployment that is linked to an incident as its fix, and went live.
#[derive(Debug, Clone)]
pub struct Fix {
    /// The identifier of the deployment.
    pub id: String,
    /// When the deployment went live.
    pub finished_at: Timestamp,
}

/// An incident that some of the deployments caused or fixed.
#[derive(Debug, Clone)]
pub struct Incident {
    /// The identifier of the incident.
    pub id: String,
    /// When the incident was resolved. `None` while it is open.
    pub resolved_at: Option<Timestamp>,
    /// The identifiers of the deployments that caused the incident.
    pub caused_by: Vec<String>,
    /// The deployments that fixed the incident.
    pub fixed_by: Vec<Fix>,
}

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

/// What follows for a deployment from later deployments and from incidents.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The index of the later rollback to an earlier release.
    rolled_back_by: Option<usize>,
    /// The index of the hotfix that came next.
    hotfixed_by: Option<usize>,
    /// The indexes of the incidents that it caused.
    incidents: Vec<usize>,
    /// The lead times in seconds of the commits that it was the first to deliver, sorted.
    lead_times: Vec<i64>,
    /// The sources of these lead times.
    basis: LeadTimeBases,
}

/// Computes the measures of a window. `deployments` must be those that finished from [`AROUND`]
/// before the window to [`AROUND`] after it, in the order of their end. `releases` must be those
/// that the deployments skipped, by service, in the order of [`Release::last_commit_at`].
pub fn measure(
    deployments: &[Deployment],
    releases: &HashMap<String, Vec<Release>>,
    incidents: &[Incident],
    question: Question,
) -> Measures {
    let window = question.window;
    let mut known = find_failures(deployments, incidents);
    let lead_time_omissions = deliver(deployments, releases, window, &mut known);

    let mut series = Division::of(window, question.step);
    let (mut frequency, mut fail_rate, mut rework_rate) =
        (Omissions::default(), Omissions::default(), Omissions::default());
    let mut recovery_omissions = Omissions::default();
    let (mut changes, mut deliveries, mut failures, mut recoveries, mut rework) =
        (vec![], vec![], vec![], vec![], vec![]);
    let (mut judged, mut live, mut open) = (0, 0, 0);
    let (mut lead_times, mut recovery_times, mut basis) =
        (Vec::new(), Vec::new(), LeadTimeBases::default());

    for (deployment, known) in deployments
        .iter()
        .zip(&known)
        .filter(|(deployment, _)| window.holds(deployment.counted.finished_at))
    {
        let bucket = series.at(deployment.counted.finished_at);
        if deployment.state.went_live() {
            live += 1;
            bucket.bucket.went_live += 1;
        } else {
            rework_rate.add(deployment.left_out());
        }
        if deployment.is_rework() {
            bucket.bucket.rework += 1;
            rework.push(&deployment.counted);
        }
        if deployment.is_change() {
            bucket.bucket.deployments += 1;
            changes.push(&deployment.counted);
        } else {
            frequency.add(deployment.left_out());
        }
        if !known.lead_times.is_empty() {
            bucket.lead_times.extend(&known.lead_times);
            lead_times.extend(&known.lead_times);
            basis.commits += known.basis.commits;
            basis.release += known.basis.release;
            deliveries.push((deployment, known));
        }
        if !deployment.is_change() && known.incidents.is_empty() {
            fail_rate.add(deployment.left_out());
            continue;
        }
        judged += 1;
        let because = known.evidence(deployment);
        if because.is_empty() {
            continue;
        }
        bucket.bucket.failed += 1;
        let end = known.end(deployment, deployments, incidents);
        match &end {
            End::Recovered { seconds, .. } => {
                bucket.recovery_times.push(*seconds);
                recovery_times.push(*seconds);
            }
            End::Open => open += 1,
            End::LeftOut(reason) => recovery_omissions.add(*reason),
        }
        failures.push((deployment, known, because));
        recoveries.push((deployment, end));
    }

    lead_times.sort_unstable();
    recovery_times.sort_unstable();
    let named = question.named;
    let days = window.length().as_secs_f64() / SignedDuration::from_hours(24).as_secs_f64();
    let hotfixes = rework.iter().filter(|counted| counted.kind == Kind::Hotfix).count();
    Measures {
        deployment_frequency: DeploymentFrequency {
            per_day: changes.len() as f64 / days,
            n: changes.len(),
            left_out: frequency.list(),
            deployments: newest(&changes, named, |counted| Some((*counted).clone())),
        },
        change_lead_time: ChangeLeadTime {
            p50_seconds: percentile(&lead_times, 50),
            p90_seconds: percentile(&lead_times, 90),
            n: lead_times.len(),
            basis,
            left_out: lead_time_omissions.list(),
            deployments: newest(&deliveries, named, |(deployment, known)| {
                Some(DeliveringDeployment {
                    deployment: deployment.counted.clone(),
                    basis: if known.basis.commits > 0 {
                        LeadTimeBasis::Commits
                    } else {
                        LeadTimeBasis::Release
                    },
                    n: known.lead_times.len(),
                    p50_seconds: percentile(&known.lead_times, 50)?,
                })
            }),
        },
        change_fail_rate: ChangeFailRate {
            rate: ratio(failures.len(), judged),
            failed: failures.len(),
            n: judged,
            left_out: fail_rate.list(),
            deployments: newest(&failures, named, |(deployment, known, because)| {
                Some(FailedDeployment {
                    deployment: deployment.counted.clone(),
                    because: because.clone(),
                    incidents: known
                        .incidents
                        .iter()
                        .map(|incident| incidents[*incident].id.clone())
                        .collect(),
                })
            }),
        },
        failed_deployment_recovery_time: FailedDeploymentRecoveryTime {
            p50_seconds: percentile(&recovery_times, 50),
            p90_seconds: percentile(&recovery_times, 90),
            n: recovery_times.len(),
            open,
            left_out: recovery_omissions.list(),
            deployments: newest(&recoveries, named, |(deployment, end)| end.of(deployment)),
        },
        deployment_rework_rate: DeploymentReworkRate {
            rate: ratio(rework.len(), live),
            hotfixes,
            rollbacks: rework.len() - hotfixes,
            n: live,
            left_out: rework_rate.list(),
            deployments: newest(&rework, named, |counted| Some((*counted).clone())),
        },
        series: series.done(),
    }
}

/// The sequence of deployments that were live in a place.
#[derive(Default)]
struct PlaceHistory<'a> {
    /// The latest deployment that is not a redeploy, which the next hotfix fixes.
    latest: Option<usize>,
    /// The deployments that no rollback has undone.
    not_undone: Vec<usize>,
    /// The latest deployment of each version.
    last: HashMap<&'a str, usize>,
}

/// Finds the deployments that failed.
///
/// A rollback undoes all deployments since its release was last live: after V1, V2, V3, V1, both V2
/// and V3 have failed. A hotfix fixes what was live before it, unless it is linked to an incident
/// with a known cause: then it fixes that cause.
fn find_failures(deployments: &[Deployment], incidents: &[Incident]) -> Vec<Known> {
    let mut known = vec![Known::default(); deployments.len()];
    let places: HashMap<&str, usize> =
        deployments.iter().enumerate().map(|(i, d)| (d.counted.id.as_str(), i)).collect();
    let mut fixes_a_known_cause = HashSet::new();
    for (i, incident) in incidents.iter().enumerate() {
        for cause in incident.caused_by.iter().filter_map(|id| places.get(id.as_str())) {
            known[*cause].incidents.push(i);
        }
        if !incident.caused_by.is_empty() {
            fixes_a_known_cause.extend(incident.fixed_by.iter().map(|fix| fix.id.as_str()));
        }
    }

    let mut histories: HashMap<(&str, &str), PlaceHistory> = HashMap::new();
    for (i, deployment) in
        deployments.iter().enumerate().filter(|(_, deployment)| deployment.state.went_live())
    {
        let Counted { id, service, environment, version, kind, .. } = &deployment.counted;
        let place = histories.entry((service, environment)).or_default();
        match kind {
            Kind::Rollback => {
                let target = place.last.get(version.as_str()).copied();
                while let Some(top) =
                    place.not_undone.pop_if(|top| target.is_none_or(|target| *top > target))
                {
                    known[top].rolled_back_by = Some(i);
                }
            }
            Kind::Hotfix if !fixes_a_known_cause.contains(id.as_str()) => {
                if let Some(fixed) = place.latest.filter(|latest| deployments[*latest].is_change())
                {
                    known[fixed].hotfixed_by = Some(i);
                }
            }
            _ => {}
        }
        if *kind != Kind::Redeploy {
            place.latest = Some(i);
        }
        place.not_undone.push(i);
        place.last.insert(version, i);
    }
    known
}

/// Computes the lead time of each commit for the deployment that first delivered it, and returns
/// what was left out. A deployment delivers its own release and those that it skipped; a commit
/// that several of them list counts once.
fn deliver(
    deployments: &[Deployment],
    releases: &HashMap<String, Vec<Release>>,
    window: Window,
    known: &mut [Known],
) -> Omissions {
    let mut omissions = Omissions::default();
    let mut delivered: HashSet<(&str, &str)> = HashSet::new();
    for (deployment, known) in
        deployments.iter().zip(known).filter(|(deployment, _)| deployment.is_change())
    {
        let Counted { service, finished_at, .. } = &deployment.counted;
        let is_in_window = window.holds(*finished_at);
        let skipped = deployment.skipped(releases.get(service).map_or(&[], Vec::as_slice));
        let together = skipped.unwrap_or_default().iter().chain([&deployment.release]);
        let commits = together.flat_map(Release::delivers);
        let mut listed = HashSet::new();
        for commit in commits.filter(|commit| listed.insert(commit.sha)) {
            let is_first = delivered.insert((service, commit.sha));
            if !is_in_window {
                continue;
            }
            match (commit.is_merge, is_first) {
                (true, _) => omissions.add(LeftOut::MergeCommit),
                (_, false) => omissions.add(LeftOut::DeliveredBefore),
                _ if commit.committed_at > *finished_at => omissions.add(LeftOut::CommittedAfter),
                _ => known.add(finished_at.duration_since(commit.committed_at), commit.basis),
            }
        }
        if is_in_window && deployment.release.is_unknown() {
            omissions.add(LeftOut::NoCommitTime);
        } else if is_in_window && skipped.is_none() {
            omissions.add(LeftOut::OrderUnknown);
        }
        known.lead_times.sort_unstable();
    }
    omissions
}

/// The end of a failure.
#[derive(Debug, Clone, PartialEq)]
enum End {
    /// The failure was fixed.
    Recovered { at: Timestamp, seconds: i64, fixed_by: Option<String> },
    /// The failure is not over.
    Open,
    /// The end is not known.
    LeftOut(LeftOut),
}

impl End {
    fn of(&self, deployment: &Deployment) -> Option<Recovery> {
        let deployment = deployment.counted.clone();
        match self {
            End::Recovered { at, seconds, fixed_by } => Some(Recovery {
                deployment,
                seconds: Some(*seconds),
                recovered_at: Some(*at),
                basis: Some(if fixed_by.is_some() {
                    RecoveryBasis::Fix
                } else {
                    RecoveryBasis::Incident
                }),
                fixed_by: fixed_by.clone(),
            }),
            End::Open => Some(Recovery {
                deployment,
                seconds: None,
                recovered_at: None,
                basis: None,
                fixed_by: None,
            }),
            End::LeftOut(_) => None,
        }
    }
}

impl Known {
    fn add(&mut self, lead_time: SignedDuration, basis: LeadTimeBasis) {
        self.lead_times.push(lead_time.as_secs());
        match basis {
            LeadTimeBasis::Commits => self.basis.commits += 1,
            LeadTimeBasis::Release => self.basis.release += 1,
        }
    }

    fn evidence(&self, deployment: &Deployment) -> Vec<Evidence> {
        let shown = [
            (Evidence::Incident, !self.incidents.is_empty()),
            (
                Evidence::RolledBack,
                self.rolled_back_by.is_some() || deployment.state == State::RolledBack,
            ),
            (Evidence::Hotfixed, self.hotfixed_by.is_some()),
        ];
        shown.into_iter().filter(|(_, is_shown)| *is_shown).map(|(evidence, _)| evidence).collect()
    }

    /// When a failure ended.
    ///
    /// Without an incident, the first fix that went live ends it. With an open incident, it has not
    /// ended, even if there was a fix. With resolved incidents, it ended with the last fix that
    /// went live before the resolution, or, without such a fix, with the resolution.
    fn end(
        &self,
        deployment: &Deployment,
        deployments: &[Deployment],
        incidents: &[Incident],
    ) -> End {
        let failed_at = deployment.counted.finished_at;
        let next = [self.rolled_back_by, self.hotfixed_by]
            .into_iter()
            .flatten()
            .map(|fix| &deployments[fix].counted);
        let next: Vec<_> = next.map(|fix| (fix.finished_at, fix.id.as_str())).collect();
        let end = if self.incidents.is_empty() {
            match next.into_iter().min() {
                Some((at, fix)) => (at, Some(fix)),
                None => return End::LeftOut(LeftOut::FixUnknown),
            }
        } else {
            let mut ends = Vec::new();
            for incident in self.incidents.iter().map(|incident| &incidents[*incident]) {
                let Some(over_at) = incident.resolved_at else { return End::Open };
                let linked = incident.fixed_by.iter().map(|fix| (fix.finished_at, fix.id.as_str()));
                let fix = linked
                    .chain(next.iter().copied())
                    .filter(|(at, _)| failed_at <= *at && *at <= over_at)
                    .max();
                ends.push(fix.map_or((over_at, None), |(at, fix)| (at, Some(fix))));
            }
            match ends.into_iter().max() {
                Some(end) => end,
                None => return End::Open,
            }
        };
        let (at, fixed_by) = end;
        if at < failed_at {
            return End::LeftOut(LeftOut::OverBefore);
        }
        End::Recovered {
            at,
            seconds: at.duration_since(failed_at).as_secs(),
            fixed_by: fixed_by.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::lifecycle::{Place, kind};
    use Evidence::{Hotfixed, RolledBack};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The measures of deployments that skipped no release.
    fn measure(deployments: &[Deployment], incidents: &[Incident], question: Question) -> Measures {
        super::measure(deployments, &HashMap::new(), incidents, question)
    }

    /// An hour of the first day of the window.
    fn hour(n: i64) -> Timestamp {
        at("2026-03-02T00:00:00Z") + SignedDuration::from_hours(n)
    }

    const HOUR: i64 = 3600;

    fn march() -> Question {
        let window =
            Window { since: at("2026-03-01T00:00:00Z"), until: at("2026-04-01T00:00:00Z") };
        Question { window, step: None, named: 100 }
    }

    fn deployment(
        id: &str,
        version: &str,
        kind: Kind,
        state: State,
        finished_at: Timestamp,
    ) -> Deployment {
        let (id, version) = (id.to_owned(), version.to_owned());
        let counted = Counted {
            id,
            service: "checkout".into(),
            environment: "production".into(),
            version,
            kind,
            finished_at,
        };
        let release = Release { sha: counted.version.clone(), ..Release::default() };
        Deployment { counted, state, release, replaced: None }
    }

    /// What happened in a place, an hour apart: versions, with `h` for what was not planned and `f`
    /// for a rollout that failed. Kinds and states are those that the ledger gives; the identifiers
    /// are the positions.
    fn place(story: &str) -> Vec<Deployment> {
        let mut deployments: Vec<Deployment> = Vec::new();
        let mut live: Option<usize> = None;
        for (i, word) in story.split(' ').enumerate() {
            let version = word.trim_end_matches(['h', 'f']);
            let is = |deployment: &Deployment| {
                deployment.counted.version == version && deployment.state.went_live()
            };
            let kind = kind(Place {
                is_live: live.is_some_and(|live| is(&deployments[live])),
                was_live: deployments.iter().any(is),
                unplanned: word.ends_with('h'),
            });
            let failed = word.ends_with('f');
            if let Some(live) = live.filter(|_| !failed) {
                deployments[live].state =
                    if kind == Kind::Rollback { State::RolledBack } else { State::Superseded };
            }
            let state = if failed { State::Failed } else { State::Succeeded };
            deployments.push(deployment(&i.to_string(), version, kind, state, hour(i as i64)));
            live = if failed { live } else { Some(i) };
        }
        deployments
    }

    fn ids<'a>(counted: impl IntoIterator<Item = &'a Counted>) -> Vec<&'a str> {
        counted.into_iter().map(|counted| counted.id.as_str()).collect()
    }

    fn failed(measures: &Measures) -> Vec<(&str, &[Evidence])> {
        let failed = measures.change_fail_rate.deployments.iter().rev();
        failed.map(|failed| (failed.deployment.id.as_str(), &*failed.because)).collect()
    }

    /// Of each failed deployment: how many hours it took, and what ended it; neither while it is
    /// open.
    fn ends(measures: &Measures) -> Vec<(&str, Option<i64>, Option<&str>)> {
        let ends = measures.failed_deployment_recovery_time.deployments.iter().rev();
        ends.map(|end| {
            (
                end.deployment.id.as_str(),
                end.seconds.map(|seconds| seconds / HOUR),
                end.fixed_by.as_deref(),
            )
        })
        .collect()
    }

    fn omitted(omissions: &[Omission]) -> Vec<(LeftOut, usize)> {
        omissions.iter().map(|omission| (omission.reason, omission.n)).collect()
    }

    #[test]
    fn what_failed_follows_from_what_came_after() {
        // What happened; how many changes; which failed, and why; hotfixes, rollbacks, and how many
        // went live.
        type Case<'a> = (&'a str, usize, &'a [(&'a str, &'a [Evidence])], (usize, usize, usize));
        let cases: &[Case] = &[
            ("1", 1, &[], (0, 0, 1)),
            ("1 2", 2, &[], (0, 0, 2)),
            ("1 1", 1, &[], (0, 0, 2)),
            ("1 1h", 1, &[], (0, 0, 2)),
            ("1 2 1", 2, &[("1", &[RolledBack])], (0, 1, 3)),
            ("1 2 3 1", 3, &[("1", &[RolledBack]), ("2", &[RolledBack])], (0, 1, 4)),
            ("1 2 3 2", 3, &[("2", &[RolledBack])], (0, 1, 4)),
            ("1 2 3 2 1", 3, &[("1", &[RolledBack]), ("2", &[RolledBack])], (0, 2, 5)),
            ("1 2 3 2 4", 4, &[("2", &[RolledBack])], (0, 1, 5)),
            // A redeploy is not a change. It neither hides the change before it nor fails in its
            // place.
            ("1 2 2 1", 2, &[("1", &[RolledBack])], (0, 1, 4)),
            ("1 2 2 3h", 3, &[("1", &[Hotfixed])], (1, 0, 4)),
            ("1 1 2 1", 2, &[("2", &[RolledBack])], (0, 1, 4)),
            // Deploying the rolled-back release again counts as a rollback, and fails no change.
            ("1 2 1 2", 2, &[("1", &[RolledBack])], (0, 2, 4)),
            // An unplanned deployment of an earlier release is a rollback.
            ("1 2 1h", 2, &[("1", &[RolledBack])], (0, 1, 3)),
            ("1 2h", 2, &[("0", &[Hotfixed])], (1, 0, 2)),
            ("1 2 3h", 3, &[("1", &[Hotfixed])], (1, 0, 3)),
            ("1 2 3 4h", 4, &[("2", &[Hotfixed])], (1, 0, 4)),
            ("1 2h 3h", 3, &[("0", &[Hotfixed]), ("1", &[Hotfixed])], (2, 0, 3)),
            ("1 2 3h 1", 3, &[("1", &[RolledBack, Hotfixed]), ("2", &[RolledBack])], (1, 1, 4)),
            // A hotfix after a rollback does not fix the release that the rollback went back to.
            ("1 2 1 3h", 3, &[("1", &[RolledBack])], (1, 1, 4)),
            ("1h", 1, &[], (1, 0, 1)),
            // A failed rollout was never live.
            ("1 2f", 1, &[], (0, 0, 1)),
            ("1 2f 3h", 2, &[("0", &[Hotfixed])], (1, 0, 2)),
            ("1 2 1f 3", 3, &[], (0, 0, 3)),
        ];
        for (story, changes, expected, (hotfixes, rollbacks, live)) in cases {
            let measures = measure(&place(story), &[], march());
            assert_eq!(failed(&measures), *expected, "{story}");
            assert_eq!(
                (measures.change_fail_rate.failed, measures.change_fail_rate.n),
                (expected.len(), *changes),
                "{story}"
            );
            assert_eq!(measures.deployment_frequency.n, *changes, "{story}");
            let rework = &measures.deployment_rework_rate;
            assert_eq!(
                (rework.hotfixes, rework.rollbacks, rework.n),
                (*hotfixes, *rollbacks, *live),
                "{story}"
            );
            assert_eq!(rework.rate, Some((hotfixes + rollbacks) as f64 / *live as f64), "{story}");
            assert_eq!(
                measures.change_fail_rate.rate,
                Some(expected.len() as f64 / *changes as f64),
                "{story}"
            );
        }
    }

    #[test]
    fn places_do_not_mix() {
        let mut deployments = place("1 2 1");
        for (i, deployment) in deployments.iter_mut().enumerate() {
            deployment.counted.environment = ["eu", "us"][i % 2].into();
        }
        // The rollback in eu undoes nothing. The state of the change in us decides whether it
        // failed.
        deployments[1].state = State::Superseded;
        assert_eq!(failed(&measure(&deployments, &[], march())), []);
        deployments[1].state = State::RolledBack;
        let measures = measure(&deployments, &[], march());
        assert_eq!(failed(&measures), [("1", &[RolledBack][..])]);
        // The rollback is too late to be searched for, so the end of the failure is unknown.
        assert_eq!(ends(&measures), []);
        assert_eq!(
            omitted(&measures.failed_deployment_recovery_time.left_out),
            [(LeftOut::FixUnknown, 1)]
        );
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
        assert_eq!(
            ids(&measures.deployment_frequency.deployments),
            ["8", "2", "0"],
            "the newest first"
        );
        assert_eq!(ids(&measures.deployment_rework_rate.deployments), ["8", "3"]);
        let fewer = measure(&deployments, &[], Question { named: 1, ..march() });
        assert_eq!(
            (ids(&fewer.deployment_frequency.deployments), fewer.deployment_frequency.n),
            (vec!["8"], 3)
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
        deployments[2].counted.finished_at -= SignedDuration::from_micros(1);
        assert_eq!(of(&deployments, 2, 3), (0, 0, 0));
        assert_eq!(of(&deployments, 0, 2), (3, 1, 0));
        let measures = measure(&deployments, &[], window(0, 2));
        assert_eq!(ends(&measures), [("2", Some(1), Some("3"))], "fixed after the window");
        // The rollback goes back to a release from before the known history.
        let back = &place("1 2 3 1")[1..];
        assert_eq!(
            failed(&measure(back, &[], march())),
            [("1", &[RolledBack][..]), ("2", &[RolledBack][..])]
        );
    }

    fn incident(caused_by: &[usize], fixed_by: &[usize], resolved_at: Option<i64>) -> Incident {
        let fix = |i: &usize| Fix { id: i.to_string(), finished_at: hour(*i as i64) };
        Incident {
            id: format!("incident of {caused_by:?}"),
            resolved_at: resolved_at.map(hour),
            caused_by: caused_by.iter().map(ToString::to_string).collect(),
            fixed_by: fixed_by.iter().map(fix).collect(),
        }
    }

    #[test]
    fn a_failure_lasts_until_its_fix_or_the_end_of_its_incident() {
        let older =
            Incident { caused_by: vec!["older than all".into()], ..incident(&[], &[2], Some(5)) };
        type Case<'a> =
            (&'a str, &'a str, &'a [Incident], &'a [(&'a str, Option<i64>, Option<&'a str>)]);
        let cases: &[Case] = &[
            ("the rollback", "1 2 1", &[], &[("1", Some(1), Some("2"))]),
            (
                "the rollback past both",
                "1 2 3 1",
                &[],
                &[("1", Some(2), Some("3")), ("2", Some(1), Some("3"))],
            ),
            ("the hotfix", "1 2 3h", &[], &[("1", Some(1), Some("2"))]),
            (
                "the first of them",
                "1 2 3h 1",
                &[],
                &[("1", Some(1), Some("2")), ("2", Some(1), Some("3"))],
            ),
            (
                "the end of the incident",
                "1 2",
                &[incident(&[1], &[], Some(4))],
                &[("1", Some(3), None)],
            ),
            ("an incident that goes on", "1 2", &[incident(&[1], &[], None)], &[("1", None, None)]),
            (
                "one that goes on in spite of a fix",
                "1 2 1",
                &[incident(&[1], &[2], None)],
                &[("1", None, None)],
            ),
            (
                "the fix, not the paperwork",
                "1 2 1",
                &[incident(&[1], &[2], Some(9))],
                &[("1", Some(1), Some("2"))],
            ),
            (
                "a rollback that nobody linked",
                "1 2 1",
                &[incident(&[1], &[], Some(9))],
                &[("1", Some(1), Some("2"))],
            ),
            (
                "the end before a late fix",
                "1 2 3 4",
                &[incident(&[1], &[3], Some(2))],
                &[("1", Some(1), None)],
            ),
            (
                "a fix at the very end",
                "1 2 3",
                &[incident(&[1], &[2], Some(2))],
                &[("1", Some(1), Some("2"))],
            ),
            (
                "the fix that was enough",
                "1 2 3 4",
                &[incident(&[1], &[2, 3], Some(5))],
                &[("1", Some(2), Some("3"))],
            ),
            (
                "the last of two",
                "1 2",
                &[incident(&[1], &[], Some(3)), incident(&[1], &[], Some(5))],
                &[("1", Some(4), None)],
            ),
            (
                "one of two goes on",
                "1 2",
                &[incident(&[1], &[], Some(3)), incident(&[1], &[], None)],
                &[("1", None, None)],
            ),
            (
                "two that caused it",
                "1 2",
                &[incident(&[0, 1], &[], Some(3))],
                &[("0", Some(3), None), ("1", Some(2), None)],
            ),
            // A hotfix that is linked to an incident with a known cause fixes that cause, not the
            // deployment before it.
            (
                "a fix of another",
                "1 2 3 4h",
                &[incident(&[1], &[3], Some(5))],
                &[("1", Some(2), Some("3"))],
            ),
            (
                "the cause is not known",
                "1 2 3h",
                &[incident(&[], &[2], Some(5))],
                &[("1", Some(1), Some("2"))],
            ),
            ("a fix of something older", "1 2 3h", &[older], &[]),
            (
                "whoever fixed something before",
                "1 2 3",
                &[incident(&[2], &[1], Some(4))],
                &[("2", Some(2), None)],
            ),
        ];
        for (name, story, incidents, expected) in cases {
            let measures = measure(&place(story), incidents, march());
            assert_eq!(ends(&measures), *expected, "{name}");
            let recovery = &measures.failed_deployment_recovery_time;
            let open = expected.iter().filter(|(_, hours, _)| hours.is_none()).count();
            assert_eq!((recovery.open, recovery.n), (open, expected.len() - open), "{name}");
            assert_eq!(measures.change_fail_rate.failed, expected.len(), "{name}");
        }
        let measures = measure(&place("1 2"), &[incident(&[1], &[], Some(0))], march());
        assert_eq!(
            (measures.change_fail_rate.failed, measures.failed_deployment_recovery_time.n),
            (1, 0)
        );
        assert_eq!(
            omitted(&measures.failed_deployment_recovery_time.left_out),
            [(LeftOut::OverBefore, 1)]
        );
    }

    #[test]
    fn an_incident_counts_once_and_whatever_caused_it() {
        let twice = [incident(&[1], &[], Some(4)), incident(&[1], &[], Some(5))];
        let measures = measure(&place("1 2"), &twice, march());
        assert_eq!((measures.change_fail_rate.failed, measures.change_fail_rate.n), (1, 2));
        assert_eq!(measures.change_fail_rate.deployments[0].incidents.len(), 2);
        // A failed rollout, a redeploy and a rollback are not changes, but each of them caused an
        // incident.
        for (story, cause) in [("1 2f", 1), ("1 1", 1), ("1 2 1", 2)] {
            let deployments = place(story);
            let before = measure(&deployments, &[], march());
            let after = measure(&deployments, &[incident(&[cause], &[], Some(4))], march());
            assert_eq!(
                after.change_fail_rate.failed,
                before.change_fail_rate.failed + 1,
                "{story}"
            );
            assert_eq!(after.change_fail_rate.n, before.change_fail_rate.n + 1, "{story}");
            assert_eq!(after.change_fail_rate.left_out, [], "{story}");
            assert_eq!(after.deployment_frequency, before.deployment_frequency, "{story}");
            assert_eq!(after.deployment_rework_rate, before.deployment_rework_rate, "{story}");
        }
    }

    fn commit(sha: &str, hours: i64) -> Commit {
        Commit { sha: sha.into(), committed_at: hour(hours), is_merge: false }
    }

    #[test]
    fn a_commit_counts_where_it_is_first_delivered() {
        let mut deployments = place("1 2 3 2 4 5 6f 7 8");
        deployments[0].release.commits = vec![commit("a", -2), commit("b", -1)];
        deployments[1].release.commits =
            vec![commit("b", -1), commit("c", -3), Commit { is_merge: true, ..commit("m", 0) }];
        // The release's own commit counts only without a list of commits, and only when it is new.
        deployments[2].release.committed_at = Some(hour(-8));
        deployments[2].release.sha = "d".into();
        (deployments[0].release.committed_at, deployments[0].release.sha) =
            (Some(hour(-99)), "z".into());
        deployments[3].release.commits = vec![commit("e", 0)];
        deployments[4].release.committed_at = Some(hour(-8));
        deployments[4].release.sha = "c".into();
        deployments[6].release.commits = vec![commit("f", 0)];
        deployments[7].release.commits = vec![commit("f", 0), commit("g", 8)];
        deployments[8].release.committed_at = Some(hour(8));
        let lead = measure(&deployments, &[], march()).change_lead_time;
        let delivered: Vec<_> = lead
            .deployments
            .iter()
            .map(|d| (d.deployment.id.as_str(), d.basis, d.n, d.p50_seconds / HOUR))
            .collect();
        let expected = [
            ("8", LeadTimeBasis::Release, 1, 0),
            ("7", LeadTimeBasis::Commits, 1, 7),
            ("2", LeadTimeBasis::Release, 1, 10),
            ("1", LeadTimeBasis::Commits, 1, 4),
            ("0", LeadTimeBasis::Commits, 2, 1),
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

        // A commit that was delivered before the window does not count again.
        let window = Window { since: hour(1), until: hour(2) };
        let lead = measure(&deployments, &[], Question { window, ..march() }).change_lead_time;
        assert_eq!(
            (lead.n, omitted(&lead.left_out)),
            (1, vec![(LeftOut::MergeCommit, 1), (LeftOut::DeliveredBefore, 1)])
        );

        // In another place of the same service, the commit is already delivered. In another service
        // it is new.
        for (environment, service, n) in [("us", "checkout", 2), ("production", "billing", 4)] {
            let mut deployments = place("1 2");
            (deployments[1].counted.environment, deployments[1].counted.service) =
                (environment.into(), service.into());
            deployments.iter_mut().for_each(|deployment| {
                deployment.release.commits = vec![commit("a", -2), commit("b", -1)];
            });
            assert_eq!(
                measure(&deployments, &[], march()).change_lead_time.n,
                n,
                "{service} in {environment}"
            );
        }
    }

    /// A release that lists its commits, each by its letter and an hour: `a1 b2`.
    fn release(commits: &str) -> Release {
        let parse = |word: &str| commit(&word[..1], word[1..].parse().unwrap());
        let commits: Vec<_> = commits.split_whitespace().map(parse).collect();
        let last_commit_at = commits.iter().map(|commit| commit.committed_at).max();
        Release { commits, last_commit_at, ..Release::default() }
    }

    #[test]
    fn a_deployment_delivers_the_releases_that_it_skipped() {
        // The releases in order; what goes live in turn, a day apart; what each delivers, in hours
        // from the commit; what is left out.
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a [i64]], &'a [(LeftOut, usize)]);
        let cases: &[Case] = &[
            (&["a0", "b1", "c2"], &["a0", "c2"], &[&[0], &[22, 23]], &[]),
            (&["a0", "b1", "c2"], &["a0", "b1", "c2"], &[&[0], &[23], &[46]], &[]),
            // The first deployment of a place delivers its own release: nothing is known to have
            // been live.
            (&["a-4", "b-3", "c-2"], &["c-2"], &[&[2]], &[]),
            // Lists that repeat what a skipped release lists.
            (&["a0", "b1", "b1 c2"], &["a0", "b1 c2"], &[&[0], &[22, 23]], &[]),
            // A release of the same time as the live one is not after it. One of the same time as
            // the deployed one goes live with it.
            (&["a0", "b0", "c2", "d2"], &["a0", "d2"], &[&[0], &[22, 22]], &[]),
            // Back to a release that was never live here: nothing is skipped, and the way forward
            // delivers only what is new.
            (
                &["a0", "b1", "c2", "d3"],
                &["a0", "c2", "b1", "d3"],
                &[&[0], &[22, 23], &[], &[69]],
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
            let mut replaced = None;
            let mut story = Vec::new();
            for (i, commits) in live.iter().enumerate() {
                let mut next = deployment(
                    &i.to_string(),
                    &i.to_string(),
                    Kind::Normal,
                    State::Superseded,
                    hour(24 * i as i64),
                );
                (next.release, next.replaced) = (release(commits), replaced);
                replaced = Some(Replaced { last_commit_at: next.release.last_commit_at });
                story.push(next);
            }
            let window = march().window;
            let mut known = vec![Known::default(); story.len()];
            let by_service = HashMap::from([("checkout".to_owned(), releases)]);
            let omissions = deliver(&story, &by_service, window, &mut known);
            let hours: Vec<Vec<i64>> = known
                .iter()
                .map(|known| known.lead_times.iter().map(|seconds| seconds / HOUR).collect())
                .collect();
            assert_eq!(hours, *expected, "{live:?}");
            assert_eq!(omitted(&omissions.list()), *left_out, "{live:?}");
        }
    }

    #[test]
    fn a_skipped_release_without_a_list_delivers_its_own_commit() {
        let mut deployments = place("1 3");
        deployments[0].release = release("a0");
        deployments[1].release = release("c1");
        deployments[1].replaced = Some(Replaced { last_commit_at: Some(hour(0)) });
        deployments[1].counted.finished_at = hour(9);
        let skipped = Release {
            sha: "b".into(),
            committed_at: Some(hour(1)),
            last_commit_at: Some(hour(1)),
            ..Release::default()
        };
        let releases = HashMap::from([("checkout".to_owned(), vec![skipped])]);
        let lead = super::measure(&deployments, &releases, &[], march()).change_lead_time;
        assert_eq!((lead.n, lead.basis), (3, LeadTimeBases { commits: 2, release: 1 }));
        assert_eq!((lead.deployments[0].basis, lead.deployments[0].n), (LeadTimeBasis::Commits, 2));
        // Those of another service have nothing to do with it.
        let releases = HashMap::from([("billing".to_owned(), releases["checkout"].clone())]);
        assert_eq!(super::measure(&deployments, &releases, &[], march()).change_lead_time.n, 2);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let cases: &[(&[i64], Option<i64>, Option<i64>)] = &[
            (&[], None, None),
            (&[7], Some(7), Some(7)),
            (&[1, 9], Some(1), Some(9)),
            (&[1, 2, 3], Some(2), Some(3)),
            (&[1, 2, 3, 4], Some(2), Some(4)),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], Some(5), Some(9)),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], Some(6), Some(10)),
        ];
        for (values, median, ninetieth) in cases {
            assert_eq!(
                (percentile(values, 50), percentile(values, 90)),
                (*median, *ninetieth),
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_series_covers_its_window_in_days_or_weeks() {
        let cut = |since: &str, until: &str, step| -> (Step, Vec<String>) {
            let window = Window { since: at(since), until: at(until) };
            let series = measure(&[], &[], Question { window, step, named: 1 }).series;
            let mut edges: Vec<_> =
                series.buckets.iter().map(|bucket| bucket.from.to_string()).collect();
            edges.extend(series.buckets.last().map(|bucket| bucket.until.to_string()));
            assert!(series.buckets.windows(2).all(|pair| pair[0].until == pair[1].from));
            (series.bucket, edges)
        };
        let days = [
            "2026-03-01T12:00:00Z",
            "2026-03-02T00:00:00Z",
            "2026-03-03T00:00:00Z",
            "2026-03-03T06:00:00Z",
        ];
        assert_eq!(cut(days[0], days[3], None), (Step::Day, days.map(str::to_owned).to_vec()));
        // 2026-03-02 is a Monday.
        let weeks = ["2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"];
        assert_eq!(
            cut(weeks[0], weeks[2], Some(Step::Week)),
            (Step::Week, weeks.map(str::to_owned).to_vec())
        );
        assert_eq!(cut("1969-12-31T00:00:00Z", "1970-01-02T00:00:00Z", None).1.len(), 3);
        assert_eq!(cut("2026-01-01T00:00:00Z", "2026-02-05T00:00:00Z", None).0, Step::Day);
        let (step, edges) = cut("2026-01-01T00:00:00Z", "2026-02-05T00:00:00.000001Z", None);
        assert_eq!((step, edges.len()), (Step::Week, 7));
        assert_eq!(
            cut("2025-01-01T00:00:00Z", "2026-01-02T00:00:00Z", Some(Step::Day)).1.len(),
            367
        );

        let mut deployments = place("1 2 1 3h");
        deployments[1].release.commits = vec![commit("a", -5), commit("b", -1), commit("c", 0)];
        deployments[3].counted.finished_at = hour(24);
        deployments[3].release.committed_at = Some(hour(23));
        let series = measure(&deployments, &[], march()).series;
        let [monday, tuesday] = [1, 2].map(|day: usize| &series.buckets[day]);
        let figures =
            |bucket: &Bucket| (bucket.deployments, bucket.failed, bucket.went_live, bucket.rework);
        assert_eq!((figures(monday), figures(tuesday)), ((2, 1, 3, 1), (1, 0, 1, 1)));
        assert_eq!(
            (monday.lead_time_p50_seconds, monday.recovery_p50_seconds),
            (Some(2 * HOUR), Some(HOUR))
        );
        assert_eq!(
            (tuesday.lead_time_p50_seconds, tuesday.recovery_p50_seconds),
            (Some(HOUR), None)
        );
        let other: usize = series.buckets.iter().map(|bucket| bucket.went_live).sum();
        assert_eq!(other, 4, "nothing elsewhere");
    }
}
