//! The metrics of the process for Prometheus.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry, TextEncoder,
};
use std::time::Duration;

use crate::db::pool::Database;
use crate::error::Error;

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    queued: IntGauge,
    statements: IntCounter,
    log_dropped: IntCounter,
}

impl Metrics {
    /// Creates and registers the metrics, all at zero.
    ///
    /// # Errors
    /// When the name of a metric is malformed or used twice.
    pub fn new() -> prometheus::Result<Self> {
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let requests = HistogramOpts::new(
            "prop_http_request_duration_seconds",
            "Seconds from the head of a request to its response.",
        )
        .buckets(buckets);
        let metrics = Self {
            registry: Registry::new(),
            requests: HistogramVec::new(requests, &["method", "route", "status"])?,
            queued: IntGauge::new(
                "prop_database_queue_length",
                "Requests that are waiting for a database thread.",
            )?,
            statements: IntCounter::new(
                "prop_database_statements_total",
                "SQL statements that were run.",
            )?,
            log_dropped: IntCounter::new(
                "prop_log_lines_dropped_total",
                "Log lines that were dropped because too many were waiting.",
            )?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.queued.clone()))?;
        metrics.registry.register(Box::new(metrics.statements.clone()))?;
        metrics.registry.register(Box::new(metrics.log_dropped.clone()))?;
        Ok(metrics)
    }

    /// Counts a request. `route` is the pattern of the route and not the path, to keep the number
    /// of time series small.
    pub fn count(&self, method: &str, route: &str, status: &str, took: Duration) {
        self.requests.with_label_values(&[method, route, status]).observe(took.as_secs_f64());
    }

    /// All metrics in the text format 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn render(&self, db: &Database) -> Result<String, Error> {
        self.queued.set(db.queued() as i64);
        self.statements.inc_by(db.statements().saturating_sub(self.statements.get()));
        self.log_dropped.inc_by(crate::logging::dropped().saturating_sub(self.log_dropped.get()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).map_err(Error::internal)?;
        String::from_utf8(text).map_err(Error::internal)
    }
}
