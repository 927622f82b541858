//! Names of people and programs.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use super::malformed::Malformed;
use super::values::ShortText;

/// The name of a person or a program: that of a key, or a login on GitHub.
///
/// Two names that differ only in the case of ASCII letters are equal, as logins are on GitHub. So
/// whoever approves with a key `alice` and on GitHub as `Alice` is one person.
///
/// A name that a client sends is a [`ShortText`] that prop does not use for itself; see
/// [`Name::from_str`]. A name that is already recorded, or that a webhook reports, is taken as it
/// is (`From`).
#[derive(Debug, Clone, Eq, Serialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
#[serde(transparent)]
pub struct Name(String);

/// What the history calls prop itself, a reader without a key, and the sender of a webhook that
/// names nobody.
const RESERVED: [&str; 3] = ["prop", "anonymous", "github"];

/// How the history's names of the senders of webhooks begin.
const RESERVED_PREFIX: &str = "github:";

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl FromStr for Name {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let name = text.parse::<ShortText>()?;
        let lower = name.trim_end().to_ascii_lowercase();
        if RESERVED.contains(&&*lower) || lower.starts_with(RESERVED_PREFIX) {
            let detail = "this name is reserved: prop uses `prop`, `anonymous`, `github` and names \
                that begin with `github:` for itself";
            return Err(Malformed::new("invalid_value", detail));
        }
        Ok(Self(name.into()))
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl From<ShortText> for Name {
    fn from(name: ShortText) -> Self {
        Self(name.into())
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<DB: Backend> ToSql<Text, DB> for Name
where
    str: ToSql<Text, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        self.0.as_str().to_sql(out)
    }
}

impl<DB: Backend> FromSql<Text, DB> for Name
where
    String: FromSql<Text, DB>,
{
    fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
        String::from_sql(raw).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn the_case_of_ascii_letters_does_not_matter() {
        assert_eq!(Name::from("Alice"), Name::from("aLICE"));
        assert_ne!(Name::from("alice"), Name::from("alice2"));
        assert_ne!(Name::from("ä"), Name::from("Ä"), "GitHub has none of these");
    }

    #[test]
    fn a_client_cannot_take_a_name_of_prop() {
        let reserved =
            ["prop", "PROP", "prop ", "anonymous", "GitHub", "github:", "GITHUB:octocat"];
        for name in reserved {
            assert_eq!(name.parse::<Name>().unwrap_err().code, "invalid_value", "{name}");
        }
        for name in ["", " prop", "a\nb"] {
            assert_eq!(name.parse::<Name>().unwrap_err().code, "invalid_text", "{name}");
        }
        for name in ["property", "github-approvals", "octocat", "dependabot[bot]", "my prop"] {
            assert_eq!(&*name.parse::<Name>().unwrap(), name);
        }
    }
}
