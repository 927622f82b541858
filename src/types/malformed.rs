//! The error for what is not a value of its type.

use std::fmt;

/// Why a text or number is not a value of its type.
///
/// serde passes on nothing of an error but its text. So the text has a fixed form, the code before
/// the detail (`invalid_slug: a slug has ...`), and [`Malformed::split`] takes it apart again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The word of the error code that clients see, such as `invalid_slug`.
    pub code: &'static str,
    /// What is wrong, or which form the value must have.
    pub detail: String,
}

impl Malformed {
    /// Creates the error from the word of its code.
    pub fn new(code: &'static str, detail: impl fmt::Display) -> Self {
        Self { code, detail: detail.to_string() }
    }

    /// The same error with more after the detail.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.detail.push_str(more);
        self
    }

    /// The word of the code and the detail, if `message` is the text of such an error.
    pub fn split(message: &str) -> Option<(&str, &str)> {
        let (code, detail) = message.split_once(": ")?;
        let is_word = code.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
        is_word.then_some((code, detail))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::Malformed;
    use serde::de::Error;

    #[test]
    fn a_malformed_value_is_told_apart_from_other_messages_of_serde() {
        let malformed = Malformed::new("invalid_slug", "a slug is: short").and("; try `a`");
        let message = serde_json::Error::custom(malformed).to_string();
        assert_eq!(Malformed::split(&message), Some(("invalid_slug", "a slug is: short; try `a`")));
        for other in ["invalid type: null, expected a string", "missing field `a: b`", "slug"] {
            assert_eq!(Malformed::split(other), None, "{other}");
        }
    }
}
