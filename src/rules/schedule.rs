//! When a freeze applies: between two instants, and, for a weekly freeze, only in a window of local
//! time on some days of the week.

use jiff::Span;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::text_enum;
use crate::types::time::Timestamp;
use crate::types::values::ClockTime;

text_enum! {
    /// A day of the week.
    Day {
        /// Monday.
        Monday = "mon",
        /// Tuesday.
        Tuesday = "tue",
        /// Wednesday.
        Wednesday = "wed",
        /// Thursday.
        Thursday = "thu",
        /// Friday.
        Friday = "fri",
        /// Saturday.
        Saturday = "sat",
        /// Sunday.
        Sunday = "sun",
    }
}

impl Day {
    const fn of(weekday: Weekday) -> Self {
        match weekday {
            Weekday::Monday => Day::Monday,
            Weekday::Tuesday => Day::Tuesday,
            Weekday::Wednesday => Day::Wednesday,
            Weekday::Thursday => Day::Thursday,
            Weekday::Friday => Day::Friday,
            Weekday::Saturday => Day::Saturday,
            Weekday::Sunday => Day::Sunday,
        }
    }
}

/// A window of local time on some days of every week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weekly {
    /// The days on which the window begins.
    pub days: Vec<Day>,
    /// The local time at which it begins.
    pub from: ClockTime,
    /// The local time at which it ends: on the same day if it is later than `from`, else on the
    /// next day.
    pub to: ClockTime,
    /// The IANA name of the time zone.
    pub time_zone: String,
}

/// The schedule of a freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// When the freeze begins; this instant is inside.
    pub starts_at: Timestamp,
    /// When the freeze ends; this instant is outside. `None` when it has no end.
    pub ends_at: Option<Timestamp>,
    /// The weekly window in which it applies. `None` when it always applies.
    pub weekly: Option<Weekly>,
}

/// Until when a freeze applies that applies now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until this instant, if nobody ends the freeze earlier.
    At(Timestamp),
    /// Until somebody ends the freeze.
    Ended,
}

impl Schedule {
    /// Until when the freeze applies. `None` when it does not apply at `at`. It applies at its
    /// start, but not at its end.
    pub fn holds(&self, at: Timestamp) -> Option<Until> {
        if at < self.starts_at || self.ends_at.is_some_and(|end| at >= end) {
            return None;
        }
        let window = match &self.weekly {
            Some(weekly) => weekly.holds(at)?,
            None => Until::Ended,
        };
        Some(match (window, self.ends_at) {
            (Until::At(window), Some(end)) => Until::At(window.min(end)),
            (Until::Ended, Some(end)) => Until::At(end),
            (window, None) => window,
        })
    }
}

impl Weekly {
    /// Until when the windows cover `at`. `None` when no window does. Windows that meet or overlap
    /// count as one.
    pub fn holds(&self, at: Timestamp) -> Option<Until> {
        // The zone was checked when the freeze was recorded. If the system no longer knows it, the
        // freeze applies.
        let Ok(zone) = TimeZone::get(&self.time_zone) else { return Some(Until::Ended) };
        let today = at.to_zoned(zone.clone()).date();
        // A window is at most one day long, and a local day differs from 24 hours by less than a
        // day. So a window that covers `at` began at most two days ago.
        let mut end = (-2..=1)
            .filter_map(|days| self.window(today, days, &zone))
            .filter(|(from, to)| *from <= at && at < *to)
            .map(|(_, to)| to)
            .max()?;
        // If the windows of a whole week meet, the freeze has no gap.
        for days in -1..=8 {
            if let Some((from, to)) = self.window(today, days, &zone)
                && from <= end
            {
                end = end.max(to);
            }
        }
        let week_on =
            today.checked_add(Span::new().days(8)).ok()?.to_zoned(zone).ok()?.timestamp().into();
        Some(if end > week_on { Until::Ended } else { Until::At(end) })
    }

    /// The window that begins `days` after `today`. When clocks change, the longer of the possible
    /// windows applies: from the earlier instant of `from` to the later instant of `to`.
    fn window(&self, today: Date, days: i64, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        let date = today.checked_add(Span::new().days(days)).ok()?;
        if !self.days.contains(&Day::of(date.weekday())) {
            return None;
        }
        let last = if self.to > self.from { date } else { date.tomorrow().ok()? };
        let from =
            zone.to_ambiguous_timestamp(date.to_datetime(self.from.time())).earlier().ok()?;
        let to = zone.to_ambiguous_timestamp(last.to_datetime(self.to.time())).later().ok()?;
        Some((from.into(), to.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn weekly(days: &[Day], from: &str, to: &str, zone: &str) -> Weekly {
        Weekly {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            time_zone: zone.into(),
        }
    }

    #[test]
    fn a_one_off_freeze_is_half_open() {
        let freeze = Schedule {
            starts_at: at("2026-12-24T00:00:00Z"),
            ends_at: Some(at("2026-12-27T00:00:00Z")),
            weekly: None,
        };
        assert_eq!(freeze.holds(at("2026-12-23T23:59:59.999999Z")), None);
        assert_eq!(
            freeze.holds(at("2026-12-24T00:00:00Z")),
            Some(Until::At(at("2026-12-27T00:00:00Z")))
        );
        assert_eq!(
            freeze.holds(at("2026-12-26T23:59:59.999999Z")),
            Some(Until::At(at("2026-12-27T00:00:00Z")))
        );
        assert_eq!(freeze.holds(at("2026-12-27T00:00:00Z")), None);
        let open = Schedule { ends_at: None, ..freeze };
        assert_eq!(open.holds(at("2030-01-01T00:00:00Z")), Some(Until::Ended));
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_it_begins_on() {
        // Friday evening to Saturday morning in India, which has no daylight saving: UTC+05:30.
        let window = weekly(&[Day::Friday], "18:00", "08:00", "Asia/Kolkata");
        let end = Some(Until::At(at("2026-11-21T02:30:00Z")));
        assert_eq!(window.holds(at("2026-11-20T12:29:59.999999Z")), None);
        assert_eq!(window.holds(at("2026-11-20T12:30:00Z")), end);
        assert_eq!(window.holds(at("2026-11-21T02:29:59.999999Z")), end);
        assert_eq!(window.holds(at("2026-11-21T02:30:00Z")), None);
        assert_eq!(
            window.holds(at("2026-11-21T12:30:00Z")),
            None,
            "Saturday evening is none of it"
        );
    }

    #[test]
    fn windows_that_meet_are_one() {
        let weekend = weekly(&[Day::Saturday, Day::Sunday], "00:00", "00:00", "Europe/Berlin");
        assert_eq!(
            weekend.holds(at("2026-11-21T10:00:00Z")),
            Some(Until::At(at("2026-11-22T23:00:00Z")))
        );
        assert_eq!(
            weekend.holds(at("2026-11-22T22:59:59Z")),
            Some(Until::At(at("2026-11-22T23:00:00Z")))
        );
        assert_eq!(weekend.holds(at("2026-11-22T23:00:00Z")), None);
        let overlapping = weekly(&[Day::Monday, Day::Tuesday], "20:00", "22:00", "UTC");
        assert_eq!(
            overlapping.holds(at("2026-11-23T21:00:00Z")),
            Some(Until::At(at("2026-11-23T22:00:00Z")))
        );
        let always = weekly(Day::ALL, "09:00", "09:00", "America/New_York");
        assert_eq!(always.holds(at("2026-11-23T21:00:00Z")), Some(Until::Ended));
    }

    #[test]
    fn spring_forward_in_berlin() {
        // 2026-03-29: 02:00 CET is 03:00 CEST. A window of local time is an hour shorter.
        let night = weekly(&[Day::Saturday], "22:00", "06:00", "Europe/Berlin");
        assert_eq!(
            night.holds(at("2026-03-28T21:00:00Z")),
            Some(Until::At(at("2026-03-29T04:00:00Z")))
        );
        assert_eq!(
            night.holds(at("2026-03-29T03:59:59.999999Z")),
            Some(Until::At(at("2026-03-29T04:00:00Z")))
        );
        assert_eq!(night.holds(at("2026-03-29T04:00:00Z")), None);
        // 02:30 does not exist that night: the freeze begins early and ends late.
        let from_the_gap = weekly(&[Day::Sunday], "02:30", "05:00", "Europe/Berlin");
        assert_eq!(from_the_gap.holds(at("2026-03-29T00:29:59Z")), None);
        assert_eq!(
            from_the_gap.holds(at("2026-03-29T00:30:00Z")),
            Some(Until::At(at("2026-03-29T03:00:00Z")))
        );
        let into_the_gap = weekly(&[Day::Sunday], "01:00", "02:30", "Europe/Berlin");
        assert_eq!(
            into_the_gap.holds(at("2026-03-29T01:29:59Z")),
            Some(Until::At(at("2026-03-29T01:30:00Z")))
        );
        assert_eq!(into_the_gap.holds(at("2026-03-29T01:30:00Z")), None);
    }

    #[test]
    fn fall_back_in_berlin() {
        // 2026-10-25: 03:00 CEST is 02:00 CET. 02:30 comes twice, at 00:30Z and 01:30Z.
        let from_the_fold = weekly(&[Day::Sunday], "02:30", "05:00", "Europe/Berlin");
        assert_eq!(from_the_fold.holds(at("2026-10-25T00:29:59Z")), None);
        assert_eq!(
            from_the_fold.holds(at("2026-10-25T00:30:00Z")),
            Some(Until::At(at("2026-10-25T04:00:00Z")))
        );
        let into_the_fold = weekly(&[Day::Sunday], "01:00", "02:30", "Europe/Berlin");
        assert_eq!(
            into_the_fold.holds(at("2026-10-25T01:29:59Z")),
            Some(Until::At(at("2026-10-25T01:30:00Z")))
        );
        assert_eq!(into_the_fold.holds(at("2026-10-25T01:30:00Z")), None);
    }

    #[test]
    fn a_new_york_evening_follows_its_own_clock() {
        let evening = weekly(&[Day::Friday], "17:00", "23:00", "America/New_York");
        assert_eq!(
            evening.holds(at("2026-03-06T22:00:00Z")),
            Some(Until::At(at("2026-03-07T04:00:00Z"))),
            "EST"
        );
        assert_eq!(
            evening.holds(at("2026-03-13T21:00:00Z")),
            Some(Until::At(at("2026-03-14T03:00:00Z"))),
            "EDT"
        );
        assert_eq!(
            evening.holds(at("2026-10-30T21:00:00Z")),
            Some(Until::At(at("2026-10-31T03:00:00Z"))),
            "EDT"
        );
        assert_eq!(evening.holds(at("2026-11-06T21:59:59Z")), None);
        assert_eq!(
            evening.holds(at("2026-11-06T22:00:00Z")),
            Some(Until::At(at("2026-11-07T04:00:00Z"))),
            "EST"
        );
    }

    #[test]
    fn a_weekly_freeze_keeps_to_its_bounds() {
        let weekly = Some(weekly(&[Day::Friday], "18:00", "23:00", "UTC"));
        let freeze = Schedule {
            starts_at: at("2026-11-20T20:00:00Z"),
            ends_at: Some(at("2026-11-27T19:00:00Z")),
            weekly,
        };
        assert_eq!(freeze.holds(at("2026-11-20T19:59:59Z")), None);
        assert_eq!(
            freeze.holds(at("2026-11-20T20:00:00Z")),
            Some(Until::At(at("2026-11-20T23:00:00Z")))
        );
        assert_eq!(
            freeze.holds(at("2026-11-27T18:00:00Z")),
            Some(Until::At(at("2026-11-27T19:00:00Z")))
        );
        assert_eq!(freeze.holds(at("2026-11-27T19:00:00Z")), None);
    }
}
