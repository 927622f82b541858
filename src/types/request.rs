//! The ids of requests, and that of the request that the running code works for, so that every log
//! line can name it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// The id of a request, which several threads work for.
pub type RequestId = Arc<str>;

/// How many bytes a UUIDv7 takes besides its time, without the bits that are fixed.
const RANDOM: usize = 10;

/// For how many ids random bytes are read at once: a system call takes longer than all else here.
const IDS_AT_ONCE: usize = 64;

thread_local! {
    static WAITING: RefCell<Vec<[u8; RANDOM]>> = const { RefCell::new(Vec::new()) };
    static CURRENT: RefCell<Option<RequestId>> = const { RefCell::new(None) };
}

/// Creates an id: a UUIDv7 (RFC 9562, section 5.7).
pub fn new_id() -> RequestId {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = match random_bytes() {
        Some(random) => {
            uuid::Builder::from_unix_timestamp_millis(since_1970.as_millis() as u64, &random)
                .into_uuid()
        }
        None => Uuid::now_v7(),
    };
    RequestId::from(&*id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
}

/// Random bytes for one id. `None` when the operating system has none.
fn random_bytes() -> Option<[u8; RANDOM]> {
    WAITING.with_borrow_mut(|waiting| {
        if waiting.is_empty() {
            let mut bytes = [0; RANDOM * IDS_AT_ONCE];
            getrandom::fill(&mut bytes).ok()?;
            waiting.extend(bytes.as_chunks().0);
        }
        waiting.pop()
    })
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
    use std::collections::HashSet;

    #[test]
    fn new_ids_are_distinct_and_have_their_time() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let make =
            || -> Vec<Uuid> { (0..3 * IDS_AT_ONCE).map(|_| new_id().parse().unwrap()).collect() };
        let another = std::thread::spawn(make);
        let ids: Vec<_> = make().into_iter().chain(another.join().unwrap()).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        for id in &ids {
            assert_eq!(id.get_version(), Some(uuid::Version::SortRand), "{id}");
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122, "{id}");
            let millis = (id.as_u128() >> 80) as u64;
            assert!((before..=now).contains(&millis), "{id}");
        }
        let random = |bits: fn(&Uuid) -> u64| ids.iter().map(bits).collect::<HashSet<_>>().len();
        assert_eq!(random(|id| id.as_u128() as u64 & (u64::MAX >> 2)), ids.len(), "rand_b");
        assert!(random(|id| (id.as_u128() >> 64) as u64 & 0xfff) > 100, "rand_a");
    }

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
