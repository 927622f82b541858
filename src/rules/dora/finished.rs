//! A deployment of the window, with what is known about it.

use super::delivery::Delivery;
use super::failures::{Evidence, Signs};
use super::input::Deployment;
use crate::rules::lifecycle::State;

/// A deployment that finished in the window.
pub(super) struct Finished<'a> {
    pub(super) deployment: &'a Deployment,
    /// What it was the first to deliver.
    pub(super) delivery: Delivery,
    /// What shows whether it failed.
    pub(super) signs: Signs<'a>,
}

impl Finished<'_> {
    /// Whether it is a change, or anything else that caused an incident.
    pub(super) fn can_fail(&self) -> bool {
        self.deployment.is_change() || !self.signs.incidents.is_empty()
    }

    /// Whether it counts as failed.
    pub(super) fn has_failed(&self) -> bool {
        self.can_fail() && self.evidence().next().is_some()
    }

    /// Why it counts as failed, if it can fail.
    pub(super) fn evidence(&self) -> impl Iterator<Item = Evidence> {
        let Signs { incidents, rolled_back_by, hotfixed_by } = &self.signs;
        // Which rollback it was is unknown when it came too long after the window.
        let is_rolled_back = rolled_back_by.is_some() || self.deployment.state == State::RolledBack;
        let shown = [
            (Evidence::Incident, !incidents.is_empty()),
            (Evidence::RolledBack, is_rolled_back),
            (Evidence::Hotfixed, hotfixed_by.is_some()),
        ];
        shown.into_iter().filter(|(_, is_shown)| *is_shown).map(|(evidence, _)| evidence)
    }
}
