//! Identifiers that several resources name.

use crate::identifier;

identifier! {
    /// Identifies a release.
    ReleaseId
}

identifier! {
    /// Identifies a deployment.
    DeploymentId
}

identifier! {
    /// Identifies an approval.
    ApprovalId
}

identifier! {
    /// Identifies a freeze.
    FreezeId
}

identifier! {
    /// Identifies the override of a freeze.
    OverrideId
}

identifier! {
    /// Identifies an incident.
    IncidentId
}
