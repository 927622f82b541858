//! The fields of a PATCH, and the times that clients report.

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer};

use crate::error::{Code, Error};
use crate::types::time::Timestamp;

/// Deserializes a field of a PATCH that can be cleared. An absent field (`None`) stays as it is;
/// `null` (`Some(None)`) clears it.
pub fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Deserializes a field of a PATCH that cannot be cleared: it may be absent, but not `null`.
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The text of an optional value.
pub fn text<T: Into<String>>(value: Option<T>) -> Option<String> {
    value.map(Into::into)
}

/// How far a reporting clock may be ahead of prop's. A report from there counts as now.
const CLOCK_AHEAD: SignedDuration = SignedDuration::from_secs(60);

/// The time at which something is reported to have happened: one up to a minute ahead counts as
/// now.
///
/// # Errors
/// `invalid_value` for the field at `pointer` when the time is further in the future.
pub fn reported_time(at: Timestamp, pointer: &str, now: Timestamp) -> Result<Timestamp, Error> {
    if at > now.plus(CLOCK_AHEAD) {
        return Err(Error::field(Code::InvalidValue, pointer, "is in the future"));
    }
    Ok(at.min(now))
}
