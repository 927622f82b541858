//! The id of the request that the running code works for, so that every log line can name it.

use std::cell::RefCell;
use std::sync::Arc;

/// The id of a request, which several threads work for.
pub type RequestId = Arc<str>;

thread_local! {
    static CURRENT: RefCell<Option<RequestId>> = const { RefCell::new(None) };
}

/// The id of the request that this thread works for now. `None` outside of requests.
pub fn current() -> Option<RequestId> {
    CURRENT.with_borrow(Option::clone)
}

/// Runs `work` for a request. A future needs this at each poll.
pub fn within<T>(id: Option<RequestId>, work: impl FnOnce() -> T) -> T {
    /// Sets the id back, even when `work` panics.
    struct Before(Option<RequestId>);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _before = Before(CURRENT.replace(id));
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_holds_while_the_work_runs() {
        let id = |text: &str| Some(RequestId::from(text));
        assert_eq!(current(), None);
        within(id("a"), || {
            assert_eq!(within(id("b"), current), id("b"));
            let panicked = std::panic::catch_unwind(|| within(id("c"), || panic!("on purpose")));
            assert!(panicked.is_err());
            assert_eq!(current(), id("a"));
        });
        assert_eq!(current(), None);
    }
}
