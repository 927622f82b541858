//! A deployment of the window, with what is known about it.

use super::failures::{Evidence, Fixes};
use super::input::{Counted, Deployment, Incident};
use crate::rules::lifecycle::State;

/// A deployment that finished in the window.
pub(super) struct Finished<'a> {
    /// The slug of its service.
    pub(super) service: &'a str,
    pub(super) deployment: &'a Deployment,
    /// The incidents that it caused.
    pub(super) incidents: &'a [&'a Incident],
    /// The later deployments that show that it failed.
    pub(super) fixes: Fixes,
}

impl Finished<'_> {
    /// The deployment as it is listed in a measure.
    pub(super) fn counted(&self) -> Counted {
        self.deployment.counted(self.service)
    }

    /// Whether it is a change, or anything else that caused an incident.
    pub(super) fn can_fail(&self) -> bool {
        self.deployment.is_change() || !self.incidents.is_empty()
    }

    /// Whether it counts as failed.
    pub(super) fn has_failed(&self) -> bool {
        self.can_fail() && self.evidence().next().is_some()
    }

    /// Why it counts as failed, if it can fail.
    pub(super) fn evidence(&self) -> impl Iterator<Item = Evidence> {
        let Fixes { rolled_back_by, hotfixed_by } = self.fixes;
        // Which rollback it was is unknown when it came too long after the window.
        let is_rolled_back = rolled_back_by.is_some() || self.deployment.state == State::RolledBack;
        let shown = [
            (Evidence::Incident, !self.incidents.is_empty()),
            (Evidence::RolledBack, is_rolled_back),
            (Evidence::Hotfixed, hotfixed_by.is_some()),
        ];
        shown.into_iter().filter(|(_, is_shown)| *is_shown).map(|(evidence, _)| evidence)
    }
}
