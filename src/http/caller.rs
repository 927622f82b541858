//! The caller of a request, and the scopes of its key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::text_enum;
use crate::types::ids::KeyId;

text_enum! {
    /// A scope of a key: a set of operations that the key may use.
    Scope {
        /// May read everything except keys, their events and webhook deliveries.
        Read = "read",
        /// May record releases and deployments, and change the state of deployments.
        Deploy = "deploy",
        /// May record scan results of releases.
        Attest = "attest",
        /// May approve and reject releases in its own name.
        Approve = "approve",
        /// May record approvals and rejections that people gave on GitHub.
        Mirror = "mirror",
        /// May create and change services, environments, freezes and incidents, and list webhook
        /// deliveries.
        Operate = "operate",
        /// May override a freeze for one deployment.
        Override = "override",
        /// May do all of the above, and manage keys and read webhook deliveries.
        Admin = "admin",
    }
}

/// The caller of a request.
#[derive(Debug)]
pub struct Caller {
    /// The key of the request. `None` when the request has no key and reading needs none.
    pub id: Option<KeyId>,
    /// The name of the key, used as the actor of events.
    pub name: String,
    /// The scopes of the key.
    pub scopes: Vec<Scope>,
}

impl Caller {
    /// The caller of a request without a key, when `public_read` is on.
    pub fn anonymous() -> Self {
        Self { id: None, name: "anonymous".into(), scopes: vec![Scope::Read] }
    }

    /// Whether the key has the scope. A key with `admin` has all scopes.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// Parses the scopes of a key's row, which are separated by spaces.
pub fn parse_scopes(kept: &str) -> Vec<Scope> {
    kept.split(' ').filter_map(|word| word.parse().ok()).collect()
}

/// A cache of the keys that were checked during the last 5 seconds, and of texts that are no key.
///
/// Another process may therefore accept a revoked key for up to 5 seconds, and refuse a new one
/// that was sent before it was made.
#[derive(Default)]
pub struct Keys(Mutex<Known>);

#[derive(Default)]
struct Known {
    checked: HashMap<[u8; 32], Checked>,
    generation: Generation,
}

/// How often the cache was emptied.
pub type Generation = u64;

/// When a key was checked, and whose it is: nobody's when it is unknown.
type Checked = (Instant, Option<Arc<Caller>>);

const REMEMBERED: Duration = Duration::from_secs(5);
const MOST: usize = 10_000;

impl Keys {
    /// The caller with the key of this SHA-256, if it was checked recently; nobody if it is
    /// unknown.
    pub fn get(&self, digest: &[u8; 32]) -> Option<Option<Arc<Caller>>> {
        let known = self.known();
        let checked = known.checked.get(digest);
        checked.filter(|(at, _)| at.elapsed() < REMEMBERED).map(|(_, caller)| caller.clone())
    }

    /// For [`Self::put`]: take it before you look a key up.
    pub fn generation(&self) -> Generation {
        self.known().generation
    }

    /// Remembers the caller with the key of this SHA-256, or that it is unknown. Has no effect when
    /// the cache was emptied since `generation`: the key may have been made or revoked meanwhile.
    pub fn put(&self, digest: [u8; 32], caller: Option<Arc<Caller>>, generation: Generation) {
        let mut known = self.known();
        if known.generation != generation {
            return;
        }
        if known.checked.len() >= MOST {
            known.checked.clear();
        }
        known.checked.insert(digest, (Instant::now(), caller));
    }

    /// Empties the cache. Call it after a key was made or revoked.
    pub fn forget(&self) {
        let mut known = self.known();
        known.checked.clear();
        known.generation += 1;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
