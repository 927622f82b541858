//! What the metrics of a process count of the ledger.

use std::time::Duration;

/// A fact that was recorded, as the metrics count it. It names no service, environment, version or
/// person: the metrics of a process can be read without a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Counted {
    /// A rollout ended.
    Ended {
        /// How: `succeeded`, `failed` or `cancelled`.
        outcome: &'static str,
        /// What it was to its place, such as `rollback`.
        kind: &'static str,
    },
    /// The gate blocked an attempt to deploy for this reason, perhaps among others.
    Blocked {
        /// The code of the reason, such as `frozen`.
        code: &'static str,
    },
    /// A deployment got what it had waited for since it was requested.
    Waited {
        /// `approval`: it had all approvals that it needed. `start`: it started.
        until: &'static str,
        /// How long it waited.
        time: Duration,
    },
}
