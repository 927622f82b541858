//! What shows that a deployment failed: incidents, rollbacks and hotfixes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::input::{Deployment, Fix, Incident, Order};
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
struct Incidents<'a> {
    by_cause: HashMap<DeploymentId, Vec<&'a Incident>>,
    /// The fixes of those with a known cause.
    fixes: HashSet<DeploymentId>,
}

impl<'a> Incidents<'a> {
    fn new(incidents: &'a [Incident]) -> Self {
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
    fn caused_by(&self, deployment: DeploymentId) -> &[&'a Incident] {
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

/// What shows that the deployments of a service failed, from the newest to the oldest: what comes
/// later is what shows it.
pub struct Failures<'a> {
    /// The slug of the service.
    pub(super) service: &'a str,
    incidents: Incidents<'a>,
    places: HashMap<Rc<str>, Later>,
}

impl<'a> Failures<'a> {
    /// Nothing of the service with this slug is known yet but its incidents.
    pub fn new(service: &'a str, incidents: &'a [Incident]) -> Self {
        Self { service, incidents: Incidents::new(incidents), places: HashMap::new() }
    }

    /// The incidents that a deployment caused.
    pub(super) fn incidents(&self, deployment: &Deployment) -> &[&'a Incident] {
        self.incidents.caused_by(deployment.id)
    }

    /// The fixes of the next deployment, which is before all others so far.
    ///
    /// A rollback undoes all deployments since its release was last live: after V1, V2, V3, V1,
    /// both V2 and V3 have failed. A hotfix fixes what was live before it, unless it is linked to
    /// an incident with a known cause: then it fixes that cause.
    pub(super) fn fixes(&mut self, deployment: &Deployment) -> Fixes {
        if !deployment.went_live() {
            return Fixes::default();
        }
        let later = self.places.entry(deployment.environment.clone()).or_default();
        later.reach(&deployment.version);
        let fixes = Fixes {
            rolled_back_by: later.rollbacks.first().map(fix),
            hotfixed_by: later.hotfix.filter(|_| deployment.is_change()),
        };
        let is_fix =
            deployment.kind == Kind::Hotfix && !self.incidents.fixes.contains(&deployment.id);
        later.add(deployment, is_fix);
        fixes
    }
}

/// What went live in a place later.
#[derive(Default)]
struct Later {
    /// What came next and is not a redeploy, if it is a hotfix of what was live before it.
    hotfix: Option<Fix>,
    /// The rollbacks that undo what was live before them: their releases were not reached yet.
    rollbacks: BTreeSet<Order>,
    /// The same by the version that was rolled back to.
    by_version: HashMap<Box<str>, Order>,
}

impl Later {
    /// A version was live: the rollback to it undoes nothing from here.
    fn reach(&mut self, version: &str) {
        if let Some(rollback) = self.by_version.remove(version) {
            self.rollbacks.remove(&rollback);
        }
    }

    fn add(&mut self, deployment: &Deployment, is_fix: bool) {
        let order = deployment.order();
        if deployment.kind == Kind::Rollback {
            self.rollbacks.insert(order);
            self.by_version.insert(deployment.version.clone(), order);
        }
        if deployment.kind != Kind::Redeploy {
            self.hotfix = is_fix.then(|| fix(&order));
        }
    }
}

fn fix(&(finished_at, _, id): &Order) -> Fix {
    Fix { finished_at, id }
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
