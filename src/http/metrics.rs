//! Counters for Prometheus.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry, TextEncoder,
};
use std::time::Duration;

use crate::db::pool::Database;
use crate::error::Error;

/// What is counted.
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    queued: IntGauge,
    statements: IntCounter,
    log_dropped: IntCounter,
}

impl Metrics {
    /// Everything at zero.
    ///
    /// # Errors
    /// When a name is malformed or used twice.
    pub fn new() -> prometheus::Result<Self> {
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let requests = HistogramOpts::new(
            "prop_http_request_duration_seconds",
            "Time from a request's head to its answer.",
        )
        .buckets(buckets);
        let metrics = Self {
            registry: Registry::new(),
            requests: HistogramVec::new(requests, &["method", "route", "status"])?,
            queued: IntGauge::new(
                "prop_database_queue_length",
                "Requests that wait for a database thread.",
            )?,
            statements: IntCounter::new("prop_database_statements_total", "SQL statements run.")?,
            log_dropped: IntCounter::new(
                "prop_log_lines_dropped_total",
                "Log lines that were not written because too many waited.",
            )?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.queued.clone()))?;
        metrics.registry.register(Box::new(metrics.statements.clone()))?;
        metrics.registry.register(Box::new(metrics.log_dropped.clone()))?;
        Ok(metrics)
    }

    /// Counts a request. `route` is the pattern, not the path: there are few of them.
    pub fn count(&self, method: &str, route: &str, status: &str, took: Duration) {
        self.requests.with_label_values(&[method, route, status]).observe(took.as_secs_f64());
    }

    /// Everything, in the text format 0.0.4.
    pub fn render(&self, db: &Database) -> Result<String, Error> {
        self.queued.set(db.queued() as i64);
        self.statements.inc_by(db.statements().saturating_sub(self.statements.get()));
        self.log_dropped.inc_by(crate::logging::dropped().saturating_sub(self.log_dropped.get()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).map_err(Error::internal)?;
        String::from_utf8(text).map_err(Error::internal)
    }
}
