//! What shows that a deployment failed: incidents, rollbacks and hotfixes.

use std::collections::{HashMap, HashSet};

use super::input::{Deployment, Fix, Incident};
use crate::rules::lifecycle::Kind;
use crate::text_enum;
use crate::types::ids::DeploymentId;

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

/// The incidents of a service.
pub(super) struct Incidents<'a> {
    by_cause: HashMap<DeploymentId, Vec<&'a Incident>>,
    /// The fixes of those with a known cause.
    fixes: HashSet<DeploymentId>,
}

impl<'a> Incidents<'a> {
    pub(super) fn new(incidents: &'a [Incident]) -> Self {
        let mut by_cause: HashMap<_, Vec<_>> = HashMap::new();
        for incident in incidents {
            for cause in &incident.caused_by {
                by_cause.entry(*cause).or_default().push(incident);
            }
        }
        let known = incidents.iter().filter(|incident| !incident.caused_by.is_empty());
        let fixes = known.flat_map(|incident| &incident.fixed_by).map(|fix| fix.id).collect();
        Self { by_cause, fixes }
    }

    /// Those that a deployment caused.
    pub(super) fn caused_by(&self, deployment: DeploymentId) -> &[&'a Incident] {
        self.by_cause.get(&deployment).map_or(&[], Vec::as_slice)
    }
}

/// The later deployments that show that a deployment failed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fixes {
    /// The later rollback to an earlier release.
    pub(super) rolled_back_by: Option<Fix>,
    /// The hotfix that came next.
    pub(super) hotfixed_by: Option<Fix>,
}

/// Finds the fixes of the deployments of a service, which are in the order of their end. The result
/// has those that were fixed, by their index.
///
/// A rollback undoes all deployments since its release was last live: after V1, V2, V3, V1, both V2
/// and V3 have failed. A hotfix fixes what was live before it, unless it is linked to an incident
/// with a known cause: then it fixes that cause.
pub(super) fn fixes(deployments: &[Deployment], incidents: &Incidents) -> HashMap<usize, Fixes> {
    let mut fixes: HashMap<usize, Fixes> = HashMap::new();
    let mut histories: HashMap<&str, PlaceHistory> = HashMap::new();
    let live = deployments.iter().enumerate().filter(|(_, deployment)| deployment.went_live());
    for (i, deployment) in live {
        let Deployment { id, environment, version, kind, finished_at, .. } = deployment;
        let fix = Fix { id: *id, finished_at: *finished_at };
        let place = histories.entry(environment).or_default();
        match kind {
            Kind::Rollback => {
                while let Some(undone) = place.undo(version) {
                    fixes.entry(undone).or_default().rolled_back_by = Some(fix);
                }
            }
            Kind::Hotfix if !incidents.fixes.contains(id) => {
                if let Some(fixed) = place.latest.filter(|latest| deployments[*latest].is_change())
                {
                    fixes.entry(fixed).or_default().hotfixed_by = Some(fix);
                }
            }
            _ => {}
        }
        place.add(i, deployment);
    }
    fixes
}

/// The sequence of deployments that were live in a place, by index.
#[derive(Default)]
struct PlaceHistory<'a> {
    /// The latest deployment that is not a redeploy, which the next hotfix fixes.
    latest: Option<usize>,
    /// The deployments that no rollback has undone.
    not_undone: Vec<usize>,
    /// The latest deployment of each version.
    last: HashMap<&'a str, usize>,
}

impl<'a> PlaceHistory<'a> {
    fn add(&mut self, index: usize, deployment: &'a Deployment) {
        if deployment.kind != Kind::Redeploy {
            self.latest = Some(index);
        }
        self.not_undone.push(index);
        self.last.insert(&deployment.version, index);
    }

    /// Removes the latest deployment since `version` was last live, or since the beginning if that
    /// is not known. `None` when no more is left.
    fn undo(&mut self, version: &str) -> Option<usize> {
        let target = self.last.get(version);
        self.not_undone.pop_if(|top| target.is_none_or(|target| *top > *target))
    }
}

#[cfg(test)]
mod tests {
    use super::super::counting::LeftOut;
    use super::super::stories::{ends, failed, incident, march, measure, omitted, place};
    use super::Evidence::{self, Hotfixed, RolledBack};
    use crate::rules::lifecycle::State;

    #[test]
    fn what_failed_follows_from_what_came_after() {
        // What happened; how many changes; which failed, and why; hotfixes, rollbacks, and how many
        // went live.
        type Case<'a> = (&'a str, usize, &'a [(usize, &'a [Evidence])], (usize, usize, usize));
        let cases: &[Case] = &[
            ("1", 1, &[], (0, 0, 1)),
            ("1 2", 2, &[], (0, 0, 2)),
            ("1 1", 1, &[], (0, 0, 2)),
            ("1 1h", 1, &[], (0, 0, 2)),
            ("1 2 1", 2, &[(1, &[RolledBack])], (0, 1, 3)),
            ("1 2 3 1", 3, &[(1, &[RolledBack]), (2, &[RolledBack])], (0, 1, 4)),
            ("1 2 3 2", 3, &[(2, &[RolledBack])], (0, 1, 4)),
            ("1 2 3 2 1", 3, &[(1, &[RolledBack]), (2, &[RolledBack])], (0, 2, 5)),
            ("1 2 3 2 4", 4, &[(2, &[RolledBack])], (0, 1, 5)),
            // A redeploy is not a change. It neither hides the change before it nor fails in its
            // place.
            ("1 2 2 1", 2, &[(1, &[RolledBack])], (0, 1, 4)),
            ("1 2 2 3h", 3, &[(1, &[Hotfixed])], (1, 0, 4)),
            ("1 1 2 1", 2, &[(2, &[RolledBack])], (0, 1, 4)),
            // Deploying the rolled-back release again counts as a rollback, and fails no change.
            ("1 2 1 2", 2, &[(1, &[RolledBack])], (0, 2, 4)),
            // An unplanned deployment of an earlier release is a rollback.
            ("1 2 1h", 2, &[(1, &[RolledBack])], (0, 1, 3)),
            ("1 2h", 2, &[(0, &[Hotfixed])], (1, 0, 2)),
            ("1 2 3h", 3, &[(1, &[Hotfixed])], (1, 0, 3)),
            ("1 2 3 4h", 4, &[(2, &[Hotfixed])], (1, 0, 4)),
            ("1 2h 3h", 3, &[(0, &[Hotfixed]), (1, &[Hotfixed])], (2, 0, 3)),
            ("1 2 3h 1", 3, &[(1, &[RolledBack, Hotfixed]), (2, &[RolledBack])], (1, 1, 4)),
            // A hotfix after a rollback does not fix the release that the rollback went back to.
            ("1 2 1 3h", 3, &[(1, &[RolledBack])], (1, 1, 4)),
            ("1h", 1, &[], (1, 0, 1)),
            // A failed rollout was never live.
            ("1 2f", 1, &[], (0, 0, 1)),
            ("1 2f 3h", 2, &[(0, &[Hotfixed])], (1, 0, 2)),
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
            deployment.environment = ["eu", "us"][i % 2].into();
        }
        // The rollback in eu undoes nothing. The state of the change in us decides whether it
        // failed.
        deployments[1].state = State::Superseded;
        assert_eq!(failed(&measure(&deployments, &[], march())), []);
        deployments[1].state = State::RolledBack;
        let measures = measure(&deployments, &[], march());
        assert_eq!(failed(&measures), [(1, &[RolledBack][..])]);
        // The rollback is too late to be searched for, so the end of the failure is unknown.
        assert!(ends(&measures).is_empty());
        assert_eq!(
            omitted(&measures.failed_deployment_recovery_time.left_out),
            [(LeftOut::FixUnknown, 1)]
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
}
