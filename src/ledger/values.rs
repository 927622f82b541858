//! The fields of a PATCH.

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

/// The text of an optional value.
pub fn text<T: Into<String>>(value: Option<T>) -> Option<String> {
    value.map(Into::into)
}
