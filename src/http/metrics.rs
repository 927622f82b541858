//! The metrics of the process for Prometheus.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::time::Duration;

use crate::db::pool::Database;
use crate::error::Error;
use crate::types::counted::Counted;

/// What is live in a place: service, environment and version.
pub type Live = (String, String, String);

/// The values of the labels of what is counted, so that each counter is there from the start: the
/// rate of one that appears with its first fact leaves that fact out.
pub struct Labels {
    /// How rollouts end.
    pub outcomes: Vec<&'static str>,
    /// The kinds of deployments.
    pub kinds: Vec<&'static str>,
    /// The codes of the gate's reasons.
    pub codes: Vec<&'static str>,
}

/// What deployments wait for.
const UNTIL: [&str; 2] = ["approval", "start"];

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    queued: IntGauge,
    statements: IntCounter,
    log_dropped: IntCounter,
    ended: IntCounterVec,
    blocked: IntCounterVec,
    waited: HistogramVec,
}

impl Metrics {
    /// Creates and registers the metrics, all at zero.
    ///
    /// # Errors
    /// When the name of a metric is malformed or used twice.
    pub fn new(labels: &Labels) -> prometheus::Result<Self> {
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
            ended: counters(
                "prop_deployments_total",
                "Rollouts that ended, as they were reported to this process.",
                &["outcome", "kind"],
            )?,
            blocked: counters(
                "prop_gate_blocks_total",
                "Reasons for which the gate blocked deployments in this process. An attempt with \
                    two reasons counts for both.",
                &["code"],
            )?,
            waited: HistogramVec::new(waited(), &["until"])?,
        };
        metrics.begin(labels);
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.queued.clone()))?;
        metrics.registry.register(Box::new(metrics.statements.clone()))?;
        metrics.registry.register(Box::new(metrics.log_dropped.clone()))?;
        metrics.registry.register(Box::new(metrics.ended.clone()))?;
        metrics.registry.register(Box::new(metrics.blocked.clone()))?;
        metrics.registry.register(Box::new(metrics.waited.clone()))?;
        Ok(metrics)
    }

    /// Sets every counter of facts to zero.
    fn begin(&self, labels: &Labels) {
        for outcome in &labels.outcomes {
            for kind in &labels.kinds {
                self.ended.with_label_values(&[outcome, kind]).reset();
            }
        }
        for code in &labels.codes {
            self.blocked.with_label_values(&[code]).reset();
        }
        for until in UNTIL {
            self.waited.with_label_values(&[until]);
        }
    }

    /// Counts a request. `route` is the pattern of the route and not the path, to keep the number
    /// of time series small.
    pub fn count(&self, method: &str, route: &str, status: &str, took: Duration) {
        self.requests.with_label_values(&[method, route, status]).observe(took.as_secs_f64());
    }

    /// Counts a fact that was recorded.
    pub fn count_fact(&self, fact: Counted) {
        match fact {
            Counted::Ended { outcome, kind } => {
                self.ended.with_label_values(&[outcome, kind]).inc();
            }
            Counted::Blocked { code } => self.blocked.with_label_values(&[code]).inc(),
            Counted::Waited { until, time } => {
                self.waited.with_label_values(&[until]).observe(time.as_secs_f64());
            }
        }
    }

    /// All metrics, with what is live, in the text format 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn render(&self, db: &Database, live: &[Live]) -> Result<String, Error> {
        self.queued.set(db.queued() as i64);
        self.statements.inc_by(db.statements().saturating_sub(self.statements.get()));
        self.log_dropped.inc_by(crate::logging::dropped().saturating_sub(self.log_dropped.get()));
        let mut text = Vec::new();
        let mut encode = |registry: &Registry| {
            TextEncoder::new().encode(&registry.gather(), &mut text).map_err(Error::internal)
        };
        encode(&self.registry)?;
        encode(&gauge_of(live).map_err(Error::internal)?)?;
        String::from_utf8(text).map_err(Error::internal)
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

/// From ten seconds, for what a pipeline approves by itself, to the week in which somebody is away.
fn waited() -> HistogramOpts {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    HistogramOpts::new(
        "prop_deployment_waiting_seconds",
        "Seconds from the request of a deployment until it had all approvals, or started. What \
            starts at once is not in it.",
    )
    .buckets(vec![
        10.0,
        MINUTE,
        5.0 * MINUTE,
        15.0 * MINUTE,
        HOUR,
        4.0 * HOUR,
        12.0 * HOUR,
        DAY,
        3.0 * DAY,
        7.0 * DAY,
    ])
}

/// A gauge that is 1 for each of these. It is made for each answer, so that what is not live any
/// more is not in it.
fn gauge_of(live: &[Live]) -> prometheus::Result<Registry> {
    let info = Opts::new(
        "prop_live_info",
        "What is live: 1 for each service and environment, with its version. From the database, so \
            every process answers the same.",
    );
    let gauge = IntGaugeVec::new(info, &["service", "environment", "version"])?;
    for (service, environment, version) in live {
        gauge.with_label_values(&[service, environment, version]).set(1);
    }
    let registry = Registry::new();
    registry.register(Box::new(gauge))?;
    Ok(registry)
}
