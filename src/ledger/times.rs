//! The times that clients report.

use jiff::SignedDuration;

use crate::error::{Code, Error};
use crate::types::time::Timestamp;

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
