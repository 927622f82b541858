//! The identifiers that several resources use.

use crate::identifier;

identifier! {
    /// The identifier of a release (UUIDv7).
    ReleaseId
}

identifier! {
    /// The identifier of a deployment (UUIDv7).
    DeploymentId
}

identifier! {
    /// The identifier of an approval (UUIDv7).
    ApprovalId
}

identifier! {
    /// The identifier of a freeze (UUIDv7).
    FreezeId
}

identifier! {
    /// The identifier of a freeze override (UUIDv7).
    OverrideId
}

identifier! {
    /// The identifier of an incident (UUIDv7).
    IncidentId
}
