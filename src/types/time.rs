//! Instants.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Zoned};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use super::malformed::Malformed;

/// An instant in UTC with microsecond precision, the finest that both databases store.
///
/// Written as RFC 3339 with six decimals (`2026-02-03T04:05:06.000000Z`), so that the texts sort by
/// time. Years 0 to 9999, as in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The beginning of year 0, the earliest instant of RFC 3339.
    const EARLIEST: jiff::Timestamp = jiff::Timestamp::constant(-62_167_219_200, 0);

    /// The current time, cut to microseconds.
    pub fn now() -> Self {
        Self::truncated(jiff::Timestamp::now())
    }

    fn truncated(instant: jiff::Timestamp) -> Self {
        Self(jiff::Timestamp::from_microsecond(instant.as_microsecond()).unwrap_or(instant))
    }

    /// Its text, if its year has four digits. Writing each digit to its place takes a tenth of the
    /// time that jiff takes for any format.
    fn text(self) -> Option<[u8; 27]> {
        let at = Offset::UTC.to_datetime(self.0);
        let (year, micros) = (i32::from(at.year()), at.subsec_nanosecond() / 1000);
        if year < 0 {
            return None;
        }
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut write = |place: usize, two_digits: i32| {
            text[place] += (two_digits / 10) as u8;
            text[place + 1] += (two_digits % 10) as u8;
        };
        write(0, year / 100);
        write(2, year % 100);
        write(5, at.month().into());
        write(8, at.day().into());
        write(11, at.hour().into());
        write(14, at.minute().into());
        write(17, at.second().into());
        write(20, micros / 10_000);
        write(22, micros / 100 % 100);
        write(24, micros % 100);
        Some(text)
    }

    /// `self` plus `span`. Beyond the last instant of the calendar it is that last instant.
    pub fn plus(self, span: SignedDuration) -> Self {
        Self(self.0.saturating_add(span).unwrap_or(jiff::Timestamp::MAX))
    }

    /// The time of day and the date in a time zone.
    pub fn to_zoned(self, zone: TimeZone) -> Zoned {
        self.0.to_zoned(zone)
    }

    /// The time from `earlier` to `self`; negative when `earlier` is later.
    pub fn since(self, earlier: Self) -> SignedDuration {
        self.0.duration_since(earlier.0)
    }
}

impl From<Timestamp> for jiff::Timestamp {
    fn from(at: Timestamp) -> Self {
        at.0
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(at: jiff::Timestamp) -> Self {
        Self::truncated(at)
    }
}

impl FromStr for Timestamp {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || {
            let form = "an RFC 3339 date and time with an offset, such as 2026-02-03T04:05:06Z";
            Malformed::new("invalid_time", format_args!("{text:?} is not {form}"))
        };
        // jiff also accepts spaces, named zones, and shortened times and offsets. RFC 3339, section
        // 5.6, does not.
        let at = |index: usize| text.as_bytes().get(index).copied();
        let time_is_whole = at(10) == Some(b'T') && at(13) == Some(b':') && at(16) == Some(b':');
        let from_end =
            |back: usize| text.len().checked_sub(back).filter(|index| *index >= 19).and_then(at);
        let offset_is_whole = text.ends_with('Z')
            || (from_end(3) == Some(b':') && matches!(from_end(6), Some(b'+' | b'-')));
        if !time_is_whole || !offset_is_whole || text.contains([' ', '[', ',']) {
            return Err(malformed());
        }
        // The hour of an offset ends at 23; jiff goes to 25, as the time zone database does.
        let offset_hour = text.len().checked_sub(5).and_then(|start| text.get(start..start + 2));
        if !text.ends_with('Z') && offset_hour.is_none_or(|hour| hour > "23") {
            return Err(malformed());
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| malformed())?;
        if instant < Self::EARLIEST {
            return Err(malformed());
        }
        Ok(Self::truncated(instant))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(&String::from_utf8_lossy(&text)),
            None => write!(f, "{:.6}", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.text() {
            Some(text) => serializer.serialize_str(&String::from_utf8_lossy(&text)),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some(
                "A date and time as in RFC 3339. Answers are in UTC with microseconds; requests \
                    may use any offset.",
            ))
            .examples(["2026-02-03T04:05:06.000000Z"])
            .build()
            .into()
    }
}
impl ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_jiff() {
        let (first, last) = (Timestamp::EARLIEST, jiff::Timestamp::MAX);
        let (from, to) = (first.as_microsecond(), last.as_second() * 1_000_000);
        // Nearly eleven days, so that all days of all months are met, at all times of the day.
        let steps = (from..=to).step_by(950_399_999_813);
        let before_year_0 = from - 1;
        let edges = [before_year_0, from + 1, -1, 0, 1, 951_825_599_999_999, 951_825_600_000_000];
        let all = steps.chain(edges).map(|at| jiff::Timestamp::from_microsecond(at).unwrap());
        for at in all.chain([last]) {
            assert_eq!(Timestamp(at).to_string(), format!("{at:.6}"));
            assert_eq!(serde_json::to_value(Timestamp(at)).unwrap(), format!("{at:.6}"));
        }
    }

    #[test]
    fn an_offset_has_hours_to_23() {
        for taken in ["+23:59", "-23:59", "+05:30", "-00:00"] {
            assert!(format!("2026-02-03T04:05:06{taken}").parse::<Timestamp>().is_ok(), "{taken}");
        }
        for refused in ["+24:00", "+25:00", "-25:59", "+99:00", "+2:00", "+0a:00", "+é:00"] {
            let text = format!("2026-02-03T04:05:06{refused}");
            assert!(text.parse::<Timestamp>().is_err(), "{refused}");
        }
    }
}
