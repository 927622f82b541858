//! What the transactions of a thread count for the metrics. It counts once the transaction is
//! committed, and not at all if it is rolled back or repeated.

use std::cell::RefCell;
use std::sync::Arc;

use crate::types::counted::Counted;

/// Who counts.
pub type Counter = Arc<dyn Fn(Counted) + Send + Sync>;

thread_local! {
    /// What the transaction of this thread has recorded so far.
    static RECORDED: RefCell<Vec<Counted>> = const { RefCell::new(Vec::new()) };
}

/// Counts something, if the transaction of this thread is committed.
pub fn count(what: Counted) {
    RECORDED.with_borrow_mut(|recorded| recorded.push(what));
}

/// Runs a transaction, or a job of one. Returns what it has recorded besides its result.
pub(super) fn during<T>(work: impl FnOnce() -> T) -> (T, Vec<Counted>) {
    // A panic may have left something.
    RECORDED.take();
    let result = work();
    (result, RECORDED.take())
}

/// Runs `work` in a part of a transaction that is rolled back when it fails: then it has recorded
/// nothing.
pub(super) fn in_part<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = RECORDED.with_borrow(Vec::len);
    let result = work();
    if result.is_err() {
        RECORDED.with_borrow_mut(|recorded| recorded.truncate(before));
    }
    result
}
