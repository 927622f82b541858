//! The figures over time: a window divided into days or weeks.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::counting::Durations;
use super::finished::Finished;
use super::input::Window;
use super::recovery::End;
use crate::rules::gate::micros;
use crate::text_enum;

/// By default, a window of up to this length is divided into days, and a longer one into weeks.
const IN_DAYS: SignedDuration = SignedDuration::from_hours(35 * 24);

text_enum! {
    /// The length of the intervals of a series, in UTC.
    Step {
        /// From midnight to midnight in UTC.
        Day = "day",
        /// From Monday to Monday, at midnight in UTC.
        Week = "week",
    }
}

/// One interval of a series: a day or a week, or the part of it that is in the window.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Bucket {
    /// The start of the interval, which is inside.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// The end of the interval, which is outside.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// The number of changes that went live, as for the deployment frequency.
    pub deployments: usize,
    /// The number of deployments that finished in the interval and failed.
    pub failed: usize,
    /// The number of deployments of every kind that went live.
    pub went_live: usize,
    /// The number of hotfixes and rollbacks that went live.
    pub rework: usize,
    /// The median lead time, in seconds, of the commits that were delivered. `null` when there were
    /// none.
    pub lead_time_p50_seconds: Option<i64>,
    /// The median recovery time, in seconds, of the deployments that finished in the interval and
    /// failed. `null` when none has recovered.
    pub recovery_p50_seconds: Option<i64>,
}

/// The figures over time: the window divided into days or weeks.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Series {
    /// The length of the intervals.
    pub bucket: Step,
    /// The intervals in the order of time. The first and the last may be shorter.
    pub buckets: Vec<Bucket>,
}

/// Counts by day or week.
pub(super) struct Tally {
    step: Step,
    window: Window,
    buckets: Vec<Counts>,
}

/// What is counted of one interval.
#[derive(Default)]
struct Counts {
    deployments: usize,
    failed: usize,
    went_live: usize,
    rework: usize,
    lead_times: Durations,
    recovery_times: Durations,
}

impl Tally {
    pub(super) fn new(window: Window, step: Option<Step>) -> Self {
        let step = step.unwrap_or(if window.length() <= IN_DAYS { Step::Day } else { Step::Week });
        let buckets = step.divide(window).map(|_| Counts::default()).collect();
        Self { step, window, buckets }
    }

    /// Adds a deployment of the window and, if it failed, the end of the failure.
    pub(super) fn add(&mut self, finished: &Finished, end: Option<End>) {
        let deployment = finished.deployment;
        let Some(bucket) = self.bucket(deployment.finished_at) else { return };
        bucket.deployments += usize::from(deployment.is_change());
        bucket.failed += usize::from(end.is_some());
        bucket.went_live += usize::from(deployment.went_live());
        bucket.rework += usize::from(deployment.is_rework());
        bucket.recovery_times.add(end.and_then(End::seconds));
    }

    /// Adds the lead times of the commits that were delivered at a time in the window.
    pub(super) fn add_lead_times(&mut self, delivered_at: Timestamp, seconds: &[i64]) {
        if let Some(bucket) = self.bucket(delivered_at) {
            bucket.lead_times.add(seconds.iter().copied());
        }
    }

    /// The interval that contains a time in the window.
    fn bucket(&mut self, at: Timestamp) -> Option<&mut Counts> {
        let index = self.step.number(at) - self.step.number(self.window.since);
        usize::try_from(index).ok().and_then(|i| self.buckets.get_mut(i))
    }

    /// The lead times of all commits.
    pub(super) fn lead_times(&self) -> Durations {
        Durations::of_all(self.buckets.iter().map(|counts| &counts.lead_times))
    }

    /// The recovery times of all failures.
    pub(super) fn recovery_times(&self) -> Durations {
        Durations::of_all(self.buckets.iter().map(|counts| &counts.recovery_times))
    }

    pub(super) fn series(self) -> Series {
        let bucket = |(interval, mut counts): (Window, Counts)| Bucket {
            from: interval.since,
            until: interval.until,
            deployments: counts.deployments,
            failed: counts.failed,
            went_live: counts.went_live,
            rework: counts.rework,
            lead_time_p50_seconds: counts.lead_times.percentile(50),
            recovery_p50_seconds: counts.recovery_times.percentile(50),
        };
        let intervals = self.step.divide(self.window).zip(self.buckets);
        Series { bucket: self.step, buckets: intervals.map(bucket).collect() }
    }
}

const DAY: i64 = 86_400;

impl Step {
    /// The days or weeks of a window, of which the first and the last may be cut short.
    fn divide(self, window: Window) -> impl Iterator<Item = Window> {
        (self.number(window.since)..)
            .map(move |number| Window {
                since: self.start(number).max(window.since),
                until: self.start(number + 1).min(window.until),
            })
            .take_while(move |part| part.since < window.until)
    }

    /// The number of the day in UTC, or of the week, since 1970. That year began on a Thursday,
    /// three days after a Monday.
    fn number(self, at: Timestamp) -> i64 {
        let day = at.as_second().div_euclid(DAY);
        match self {
            Step::Day => day,
            Step::Week => (day + 3).div_euclid(7),
        }
    }

    /// The instant at which the day or week with this number begins.
    fn start(self, number: i64) -> Timestamp {
        let day = match self {
            Step::Day => number,
            Step::Week => number * 7 - 3,
        };
        Timestamp::from_second(day * DAY).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::super::stories::{HOUR, at, built_from, hour, march, measure, place, release};
    use super::*;

    /// The step that a window is divided by, and the instants where it is.
    fn divide(since: &str, until: &str, step: Option<Step>) -> (Step, Vec<String>) {
        let window = Window { since: at(since), until: at(until) };
        let series = measure(&[], &[], Question { window, step, named: 1 }).series;
        assert!(series.buckets.windows(2).all(|pair| pair[0].until == pair[1].from));
        let starts = series.buckets.iter().map(|bucket| bucket.from);
        let edges = starts.chain(series.buckets.last().map(|bucket| bucket.until));
        (series.bucket, edges.map(|edge| edge.to_string()).collect())
    }

    #[test]
    fn a_series_covers_its_window_in_days_or_weeks() {
        let days = [
            "2026-03-01T12:00:00Z",
            "2026-03-02T00:00:00Z",
            "2026-03-03T00:00:00Z",
            "2026-03-03T06:00:00Z",
        ];
        assert_eq!(divide(days[0], days[3], None), (Step::Day, days.map(str::to_owned).to_vec()));
        // 2026-03-02 is a Monday.
        let weeks = ["2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"];
        let expected = (Step::Week, weeks.map(str::to_owned).to_vec());
        assert_eq!(divide(weeks[0], weeks[2], Some(Step::Week)), expected);
        assert_eq!(divide("1969-12-31T00:00:00Z", "1970-01-02T00:00:00Z", None).1.len(), 3);
        let year = divide("2025-01-01T00:00:00Z", "2026-01-02T00:00:00Z", Some(Step::Day));
        assert_eq!(year.1.len(), 367);
    }

    #[test]
    fn a_window_of_more_than_35_days_is_divided_into_weeks() {
        let since = "2026-01-01T00:00:00Z";
        assert_eq!(divide(since, "2026-02-05T00:00:00Z", None).0, Step::Day);
        let (step, edges) = divide(since, "2026-02-05T00:00:00.000001Z", None);
        assert_eq!((step, edges.len()), (Step::Week, 7));
    }

    #[test]
    fn each_interval_has_the_figures_of_what_finished_in_it() {
        let mut deployments = place("1 2 1 3h");
        deployments[1].release = release("a-5 b-1 c0");
        deployments[3].finished_at = hour(24);
        deployments[3].release = built_from("d", 23);
        let series = measure(&deployments, &[], march()).series;
        let [monday, tuesday] = [1, 2].map(|day: usize| &series.buckets[day]);
        let figures =
            |bucket: &Bucket| (bucket.deployments, bucket.failed, bucket.went_live, bucket.rework);
        assert_eq!((figures(monday), figures(tuesday)), ((2, 1, 3, 1), (1, 0, 1, 1)));
        let medians = |bucket: &Bucket| (bucket.lead_time_p50_seconds, bucket.recovery_p50_seconds);
        assert_eq!(medians(monday), (Some(2 * HOUR), Some(HOUR)));
        assert_eq!(medians(tuesday), (Some(HOUR), None));
        let all: usize = series.buckets.iter().map(|bucket| bucket.went_live).sum();
        assert_eq!(all, 4, "nothing elsewhere");
    }
}
