//! The fields of a PATCH: how they are read, and applied to a row. The row is then saved as a
//! whole, with its next revision and an event that has it as it is now.

use serde::{Deserialize, Deserializer};

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

/// Sets a field of a row to its new value, if a PATCH has one.
pub fn apply<T>(field: &mut T, change: Option<impl Into<T>>) {
    if let Some(value) = change {
        *field = value.into();
    }
}
