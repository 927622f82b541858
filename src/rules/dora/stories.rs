//! Short stories of a place as the input of tests, and what the measures say about them.

use jiff::{SignedDuration, Timestamp};
use std::rc::Rc;
use std::slice;

use super::input::{Commit, Deployment, Fix, Incident, Release};
use super::{
    Deliveries, Evidence, Failures, LeftOut, Measures, Measuring, Omission, Question, Window,
};
use crate::rules::lifecycle::{Kind, Place, State, kind};
use crate::types::ids::{DeploymentId, IncidentId};

pub(super) const HOUR: i64 = 3600;

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// An hour of the first day of the window.
pub(super) fn hour(n: i64) -> Timestamp {
    at("2026-03-02T00:00:00Z") + SignedDuration::from_hours(n)
}

pub(super) fn march() -> Question {
    let window = Window { since: at("2026-03-01T00:00:00Z"), until: at("2026-04-01T00:00:00Z") };
    Question { window, step: None, named: 100 }
}

/// The measures of deployments that skipped no release.
pub(super) fn measure(
    deployments: &[Deployment],
    incidents: &[Incident],
    question: Question,
) -> Measures {
    measure_with(deployments, vec![], incidents, question)
}

/// The measures of deployments of a service that has these releases.
pub(super) fn measure_with(
    deployments: &[Deployment],
    releases: Vec<Rc<Release>>,
    incidents: &[Incident],
    question: Question,
) -> Measures {
    let mut measuring = Measuring::new(question);
    // One at a time: no figure depends on how many are added together.
    let mut deliveries = Deliveries::new("checkout");
    for deployment in deployments {
        measuring.add_delivered(&mut deliveries, slice::from_ref(deployment), &releases);
    }
    let mut failures = Failures::new("checkout", incidents);
    for deployment in deployments.iter().rev() {
        measuring.add_finished(&mut failures, slice::from_ref(deployment));
    }
    measuring.measures()
}

/// The identifier of the deployment at a position of a story.
pub(super) fn id(position: usize) -> DeploymentId {
    format!("00000000-0000-7000-8000-{position:012}").parse().unwrap()
}

/// The position that [`id`] identifies.
pub(super) fn position(id: DeploymentId) -> usize {
    id.to_string()[24..].parse().unwrap()
}

pub(super) fn deployment(
    position: usize,
    version: &str,
    kind: Kind,
    state: State,
    finished_at: Timestamp,
) -> Deployment {
    Deployment {
        id: id(position),
        environment: "production".into(),
        version: version.into(),
        kind,
        state,
        started_at: None,
        finished_at,
        release: Rc::new(Release { sha: version.to_owned(), ..Release::default() }),
        replaced: None,
    }
}

/// What happened in a place, an hour apart: versions, with `h` for what was not planned and `f` for
/// a rollout that failed. Kinds and states are those that the ledger gives; the identifiers are the
/// positions.
pub(super) fn place(story: &str) -> Vec<Deployment> {
    let mut deployments: Vec<Deployment> = Vec::new();
    let mut live: Option<usize> = None;
    for (i, word) in story.split(' ').enumerate() {
        let version = word.trim_end_matches(['h', 'f']);
        let is = |deployment: &Deployment| {
            &*deployment.version == version && deployment.state.went_live()
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
        deployments.push(deployment(i, version, kind, state, hour(i as i64)));
        live = if failed { live } else { Some(i) };
    }
    deployments
}

fn commit(sha: &str, hours: i64) -> Commit {
    Commit { sha: sha.into(), committed_at: hour(hours), is_merge: false }
}

/// A release that lists its commits, each by its letter and an hour: `a1 b2`.
pub(super) fn release(commits: &str) -> Rc<Release> {
    let parse = |word: &str| commit(&word[..1], word[1..].parse().unwrap());
    let commits: Vec<_> = commits.split_whitespace().map(parse).collect();
    let last_commit_at = commits.iter().map(|commit| commit.committed_at).max();
    Rc::new(Release { commits, last_commit_at, ..Release::default() })
}

/// A release without a list that was built from a commit.
pub(super) fn built_from(sha: &str, hours: i64) -> Rc<Release> {
    let committed_at = Some(hour(hours));
    let last_commit_at = committed_at;
    Rc::new(Release { sha: sha.into(), committed_at, last_commit_at, ..Release::default() })
}

/// An incident that the deployments at these positions caused and fixed, and the hour of its end.
pub(super) fn incident(
    caused_by: &[usize],
    fixed_by: &[usize],
    resolved_at: Option<i64>,
) -> Incident {
    let fix = |i: &usize| Fix { finished_at: hour(*i as i64), id: id(*i) };
    Incident {
        id: IncidentId::new(),
        resolved_at: resolved_at.map(hour),
        caused_by: caused_by.iter().copied().map(id).collect(),
        fixed_by: fixed_by.iter().map(fix).collect(),
    }
}

/// What failed, and why.
pub(super) fn failed(measures: &Measures) -> Vec<(usize, &[Evidence])> {
    let failed = measures.change_fail_rate.deployments.iter().rev();
    failed.map(|failed| (position(failed.deployment.id), &*failed.because)).collect()
}

/// The failures with their ends, the oldest first: the failed deployment, the hours that it
/// took, and the deployment that fixed it, as in `1: 2 h by 3`.
pub(super) fn ends(measures: &Measures) -> Vec<String> {
    let ends = measures.failed_deployment_recovery_time.deployments.iter().rev();
    ends.map(|end| {
        let failed = position(end.deployment.id);
        match (end.seconds, end.fixed_by.map(position)) {
            (None, _) => format!("{failed}: open"),
            (Some(seconds), None) => format!("{failed}: {} h", seconds / HOUR),
            (Some(seconds), Some(fix)) => format!("{failed}: {} h by {fix}", seconds / HOUR),
        }
    })
    .collect()
}

pub(super) fn omitted(omissions: &[Omission]) -> Vec<(LeftOut, usize)> {
    omissions.iter().map(|omission| (omission.reason, omission.n)).collect()
}
