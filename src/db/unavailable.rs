//! Why the database did not answer.

use crossbeam_channel::TrySendError;

/// Why a query did not return a result. Except for `TimedOut` and `Unknown`, the query has changed
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// The queue is full.
    Saturated,
    /// There is no connection to the database.
    Unreachable,
    /// The result did not arrive in time. A write may have been committed or not.
    TimedOut,
    /// The connection broke during the commit, which was done or not.
    Unknown,
    /// The work panicked. The log has the cause.
    Failed,
}

/// Why a job was not queued.
impl<T> From<TrySendError<T>> for Unavailable {
    fn from(refused: TrySendError<T>) -> Self {
        match refused {
            TrySendError::Full(_) => Self::Saturated,
            TrySendError::Disconnected(_) => Self::Failed,
        }
    }
}
