//! What the requests of a process share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;

use crate::config::{Http, Tiers, WebhookSecret};
use crate::db::pool::Database;
use crate::db::together::Together;
use crate::http::caller::Keys;
use crate::http::metrics::Metrics;

/// How many large bodies of callers without a key may be read at a time: each takes memory until
/// it is known who sent it. Webhooks are signed, which shows at their end only.
pub const ANONYMOUS_BODIES: usize = 8;

/// What the requests of a process share. Everything that must survive a restart is in the database.
pub struct State {
    /// The database, with its threads and queue.
    pub db: Database,
    /// The reads by primary key, which share statements.
    pub together: Together,
    /// The cache of keys that were checked recently.
    pub keys: Keys,
    /// The counters for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Permits to read a large body of somebody without a key; see [`ANONYMOUS_BODIES`].
    pub anonymous_bodies: Semaphore,
    /// The rules of environments that are created by their names.
    pub tiers: Tiers,
    /// The settings of the HTTP server.
    pub http: Http,
    /// The secrets that GitHub may sign webhooks with. Empty when webhooks are off.
    pub webhook_secrets: Vec<WebhookSecret>,
    /// The digest of the image that this process runs in. `None` when `image_digest` is not set.
    pub image_digest: Option<String>,
    /// Whether reading needs no key (setting `public_read`).
    pub public_read: bool,
    /// Set at SIGTERM or SIGINT. The process is then no longer ready.
    pub draining: AtomicBool,
}
