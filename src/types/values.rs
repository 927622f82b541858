//! The values that clients send. They are checked when they are parsed, so a value of one of these
//! types is well formed, or was when it was recorded.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use jiff::civil::Time;
use regex_lite::Regex;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use std::ops::Deref;
use std::sync::LazyLock;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::invisible;
use super::malformed::Malformed;

/// Declares a text type with a pattern and a largest number of characters. The OpenAPI document
/// shows both. `and` is what a pattern cannot say, and `is` the error message for other texts.
macro_rules! value {
    ($(#[doc = $doc:literal])+ $name:ident {
        code: $code:literal, pattern: $pattern:expr, most: $most:literal,
        $(and: $and:expr,)?
        example: $example:expr, is: $is:literal
    }) => {
        $(#[doc = $doc])+
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, AsExpression, FromSqlRow,
        )]
        #[diesel(sql_type = Text)]
        #[serde(transparent)]
        pub struct $name(String);

        impl std::str::FromStr for $name {
            type Err = Malformed;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                static PATTERN: LazyLock<Option<Regex>> =
                    LazyLock::new(|| Regex::new($pattern).ok());
                // A text of at most `most` bytes has at most `most` characters, so counting the
                // characters is rarely needed.
                let fits = text.len() <= $most || text.chars().count() <= $most;
                let pattern = PATTERN.as_ref().filter(|_| fits);
                let matches = pattern.is_some_and(|pattern| pattern.is_match(text));
                $(let matches = matches && $and(text);)?
                matches.then(|| Self(text.to_owned())).ok_or_else(|| Malformed::new($code, $is))
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl<DB: Backend> ToSql<Text, DB> for $name
        where
            str: ToSql<Text, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
                self.0.as_str().to_sql(out)
            }
        }

        // A stored text was checked when it was recorded. It is not checked again: a ledger must
        // stay readable when a pattern becomes stricter.
        impl<DB: Backend> FromSql<Text, DB> for $name
        where
            String: FromSql<Text, DB>,
        {
            fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
                String::from_sql(raw).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|malformed: Malformed| {
                    D::Error::custom(malformed.and(&hint($code, &text)))
                })
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some($pattern))
                    .min_length(Some(1))
                    .max_length(Some($most))
                    .description(Some(concat!($($doc),+).trim()))
                    .examples([$example])
                    .build()
                    .into()
            }
        }
        impl ToSchema for $name {}
    };
}

/// What to send instead of a malformed value, where that can be said.
fn hint(code: &str, text: &str) -> String {
    let near = Slug::from_name(text).ok().filter(|near| code == "invalid_slug" && **near != *text);
    near.map_or_else(String::new, |near| format!("; try `{near}`"))
}

value! {
    /// The name of a service or an environment in URLs: lower-case letters, digits and hyphens.
    Slug {
        code: "invalid_slug", pattern: "^[a-z0-9-]{1,63}$", most: 63, example: "checkout",
        is: "a slug has 1 to 63 lower-case letters, digits and hyphens"
    }
}

impl Slug {
    /// Turns a name, such as one on GitHub, into a slug: `Hello-World` becomes `hello-world`,
    /// `pr 12/preview` becomes `pr-12-preview`.
    ///
    /// # Errors
    /// When the name has no letter from a to z and no digit.
    pub fn from_name(name: &str) -> Result<Self, Malformed> {
        let mut slug = String::new();
        for letter in name.chars().map(|letter| letter.to_ascii_lowercase()) {
            match letter {
                'a'..='z' | '0'..='9' => slug.push(letter),
                _ if slug.ends_with('-') || slug.is_empty() => {}
                _ => slug.push('-'),
            }
        }
        slug.truncate(63);
        slug.trim_end_matches('-').parse()
    }
}

/// Every slug is also a line of text.
impl From<Slug> for ShortText {
    fn from(slug: Slug) -> Self {
        Self(slug.0)
    }
}

value! {
    /// The version of a release, unique for its service. Image tags and semantic versions are
    /// allowed.
    Version {
        code: "invalid_version", pattern: "^[A-Za-z0-9][A-Za-z0-9._+-]*$", most: 128,
        example: "1.4.2",
        is: "a version has 1 to 128 letters, digits, dots, underscores, plus signs and hyphens, \
            and starts with a letter or digit"
    }
}

value! {
    /// A full git commit id in lower-case hexadecimal: SHA-1 with 40 digits, or SHA-256 with 64.
    GitSha {
        code: "invalid_sha", pattern: "^([0-9a-f]{40}|[0-9a-f]{64})$", most: 64,
        example: "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
        is: "a commit id has 40 (or 64) hexadecimal digits in lower case"
    }
}

value! {
    /// The digest of a container image (OCI image specification, "Digests").
    Digest {
        code: "invalid_digest", pattern: "^sha256:[0-9a-f]{64}$", most: 71,
        example: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        is: "a digest is `sha256:` and 64 hexadecimal digits in lower case"
    }
}

/// A URL as browsers take it (WHATWG URL, "host parsing"), in the characters of RFC 3986: a host
/// whose last part is no number, an IPv4 address or an IPv6 address, and a port up to 65535.
const URL: &str = concat!(
    r"^https?://",
    r"([A-Za-z0-9._~!$&'()*+,;=:%-]*@)?",
    r"(([A-Za-z0-9_-]+\.)*([A-Za-z_-]|[1-9][0-9]*[A-Za-z_-])[A-Za-z0-9_-]*\.?",
    r"|((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])",
    r"|\[(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,7}:",
    r"|([0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f]{1,4}",
    r"|([0-9A-Fa-f]{1,4}:){1,5}(:[0-9A-Fa-f]{1,4}){1,2}",
    r"|([0-9A-Fa-f]{1,4}:){1,4}(:[0-9A-Fa-f]{1,4}){1,3}",
    r"|([0-9A-Fa-f]{1,4}:){1,3}(:[0-9A-Fa-f]{1,4}){1,4}",
    r"|([0-9A-Fa-f]{1,4}:){1,2}(:[0-9A-Fa-f]{1,4}){1,5}",
    r"|[0-9A-Fa-f]{1,4}:(:[0-9A-Fa-f]{1,4}){1,6}|:((:[0-9A-Fa-f]{1,4}){1,7}|:))\])",
    r"(:([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])?)?",
    r"([/?#][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?$",
);

/// Whether browsers take this for a URL with a host. They refuse a little more than the pattern
/// does, such as a malformed `xn--` name.
fn is_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| url.has_host())
}

value! {
    /// An absolute URL that starts with `http://` or `https://`, with a host that browsers accept.
    Url {
        code: "invalid_url", pattern: URL, most: 2000, and: is_url,
        example: "https://ci.example.org/runs/17",
        is: "a URL starts with http:// or https:// and a host that browsers accept, and has at \
            most 2000 characters, all of which RFC 3986 allows"
    }
}

/// The characters of the Basic Multilingual Plane that [`invisible::in_name`] refuses, except for
/// those that [`invisible::in_line`] allows.
macro_rules! invisible_in_line {
    () => {
        concat!(
            r"\u0000-\u001F\u007F-\u009F\u00AD\u034F\u0600-\u0605\u061C\u06DD\u070F",
            r"\u0890-\u0891\u08E2\u115F-\u1160\u17B4-\u17B5\u180B-\u180F\u200B\u200E-\u200F",
            r"\u2028-\u202E\u2060-\u206F\u3164\uFEFF\uFFA0\uFFF0-\uFFFB"
        )
    };
}

/// The characters of the Basic Multilingual Plane that [`invisible::in_name`] refuses.
macro_rules! invisible_in_name {
    () => {
        concat!(invisible_in_line!(), r"\u200C-\u200D\uFE00-\uFE0F")
    };
}

value! {
    /// One line of text, 1 to 200 characters long, that starts with a visible one. So that no two
    /// names look alike, it has no control characters, no invisible ones, and none that change the
    /// direction of text: no characters of Unicode's categories Cc, Cf, Zl and Zp or with its
    /// property Default_Ignorable_Code_Point, and so no emoji of several parts.
    ShortText {
        code: "invalid_text",
        pattern: concat!("^[^ ", invisible_in_name!(), "][^", invisible_in_name!(), "]*$"),
        most: 200, and: |text: &str| !text.contains(invisible::in_name), example: "Checkout",
        is: "this text must have 1 to 200 characters, start with a visible one, and contain no \
            control characters, no invisible ones, and none that change the direction of text"
    }
}

value! {
    /// One line of text for people, 1 to 200 characters long, that starts with a visible one. It
    /// has no control characters, no invisible ones, and none that change the direction of text,
    /// except for joiners and variation selectors: emoji of several parts are allowed.
    Title {
        code: "invalid_text",
        pattern: concat!(
            r"^[^ \u200C-\u200D\uFE00-\uFE0F", invisible_in_line!(), "][^", invisible_in_line!(),
            "]*$"
        ),
        most: 200, and: |text: &str| !text.contains(invisible::in_line),
        example: "Card payments are down",
        is: "this text must have 1 to 200 characters, start with a visible one, and contain no \
            control characters, no invisible ones, and none that change the direction of text"
    }
}

value! {
    /// Text of one or more lines, 1 to 4000 characters long. It has no control characters except
    /// for tabs and line breaks, no overrides, embeddings or isolates of the direction of text, and
    /// no tags (U+E0000 to U+E007F). Joiners, as in emoji of several parts, are allowed.
    LongText {
        code: "invalid_text",
        pattern: concat!(
            r"^[^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F",
            r"\u202A-\u202E\u2066-\u206F\uFFF9-\uFFFB]+$"
        ),
        most: 4000, and: |text: &str| !text.contains(invisible::in_text),
        example: "Takes the money.",
        is: "this text must have 1 to 4000 characters, no control characters except tabs and line \
            breaks, and none that override the direction of text"
    }
}

value! {
    /// A time of day as hours and minutes, from 00:00 to 23:59.
    ClockTime {
        code: "invalid_time", pattern: "^([01][0-9]|2[0-3]):[0-5][0-9]$", most: 5, example: "18:00",
        is: "a time of day has hours and minutes, from 00:00 to 23:59"
    }
}

impl ClockTime {
    /// The time of day that the text names.
    pub fn time(&self) -> Time {
        let number = |digits: &str| digits.parse().unwrap_or_default();
        let (hour, minute) = self.split_once(':').unwrap_or_default();
        // The pattern allows only times of day.
        Time::new(number(hour), number(minute), 0, 0).unwrap_or(Time::midnight())
    }
}

/// The name of a time zone in the IANA database, such as `Europe/Berlin`.
#[derive(Debug, Clone, ToSchema)]
#[schema(value_type = String, example = "Europe/Berlin")]
pub struct Zone(pub String);

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let zone = jiff::tz::TimeZone::get(&name).ok();
        // Names are found in any case; store the spelling of the database.
        let name = zone.as_ref().and_then(|zone| zone.iana_name()).map(str::to_owned);
        name.map(Self).ok_or_else(|| {
            D::Error::custom(Malformed::new(
                "invalid_time_zone",
                "a time zone must be a name of the IANA database, such as Europe/Berlin",
            ))
        })
    }
}

/// A whole number from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy)]
pub struct BoundedInt<const LEAST: i32, const MOST: i32>(pub i32);

impl<const LEAST: i32, const MOST: i32> From<BoundedInt<LEAST, MOST>> for i32 {
    fn from(value: BoundedInt<LEAST, MOST>) -> i32 {
        value.0
    }
}

impl<'de, const LEAST: i32, const MOST: i32> Deserialize<'de> for BoundedInt<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = whole_number(deserializer)?;
        let fits = i32::try_from(number).ok().filter(|number| (LEAST..=MOST).contains(number));
        fits.map(Self).ok_or_else(|| {
            D::Error::custom(Malformed::new(
                "invalid_value",
                format_args!("{number} is out of range; it must be from {LEAST} to {MOST}"),
            ))
        })
    }
}

impl<const LEAST: i32, const MOST: i32> PartialSchema for BoundedInt<LEAST, MOST> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(LEAST))
            .maximum(Some(MOST))
            .build()
            .into()
    }
}
impl<const LEAST: i32, const MOST: i32> ToSchema for BoundedInt<LEAST, MOST> {}

/// Deserializes a whole number. JSON has no integer type: `1.0` is as valid as `1` (JSON Schema
/// core, section 4.2.1).
pub fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    /// From this number on, a floating-point number cannot represent every whole number.
    const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
    let number = serde_json::Number::deserialize(deserializer)?;
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT_BELOW);
    number.as_i64().or(float.map(|float| float as i64)).ok_or_else(|| {
        D::Error::invalid_type(
            Unexpected::Float(number.as_f64().unwrap_or(f64::INFINITY)),
            &"a whole number",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_time_is_a_time_of_day() {
        for (text, hour, minute) in [("00:00", 0, 0), ("09:05", 9, 5), ("23:59", 23, 59)] {
            let clock: ClockTime = text.parse().unwrap();
            assert_eq!(clock.time(), jiff::civil::time(hour, minute, 0, 0), "{text}");
        }
    }

    fn is<T: std::str::FromStr>(text: &str) -> bool {
        text.parse::<T>().is_ok()
    }

    #[test]
    fn each_value_has_its_form() {
        let long = |n| "a".repeat(n);
        assert!(is::<Slug>("checkout-2") && is::<Slug>(&long(63)));
        assert!(
            !is::<Slug>("")
                && !is::<Slug>("Checkout")
                && !is::<Slug>("a_b")
                && !is::<Slug>(&long(64))
                && !is::<Slug>("a\n")
        );
        assert!(
            is::<Version>("1.4.2") && is::<Version>("v2-rc.1+build_7") && is::<Version>(&long(128))
        );
        assert!(
            !is::<Version>("")
                && !is::<Version>("-1")
                && !is::<Version>("1 2")
                && !is::<Version>(&long(129))
        );
        assert!(is::<GitSha>(&long(40)) && is::<GitSha>(&long(64)));
        assert!(
            !is::<GitSha>(&long(39))
                && !is::<GitSha>(&long(41))
                && !is::<GitSha>(&"A".repeat(40))
                && !is::<GitSha>(&"g".repeat(40))
        );
        assert!(
            is::<Digest>(&format!("sha256:{}", long(64)))
                && !is::<Digest>(&long(64))
                && !is::<Digest>(&format!("sha512:{}", long(64)))
        );
        assert!(is::<Url>("https://a.example/b?c=d#e") && is::<Url>("http://[::1]:8080/"));
        assert!(
            is::<Url>("http://alice@bitbucket.org:443/team/repo.git")
                && is::<Url>("https://10.0.0.1?a=[b]")
                && is::<Url>("http://runner_1:8080")
                && is::<Url>("http://[2001:db8::8a2e:370:7334]/")
                && is::<Url>("http://2048-app./")
        );
        for refused in [
            "https://[",
            "https://]",
            "https://[::1",
            "https://[1:2]",
            "https://[::g]",
            "https://a:b",
            "https://a:65536",
            "https://1.2.3.256",
            "https://1.2.3.4.5",
            "https://0x1",
            "https://a%zz",
            "https://@",
            "https://a@",
            "https:///a",
            "https://?",
            "https://a@b@c",
            "https://xn--a",
            "https://a\\b",
            "http://a|b",
            "https://[::1]x",
            "https://a.08",
        ] {
            assert!(!is::<Url>(refused), "{refused}");
        }
        assert!(
            !is::<Url>("ftp://a")
                && !is::<Url>("https://")
                && !is::<Url>("https://a b")
                && !is::<Url>("javascript:alert(1)")
        );
        assert!(is::<ShortText>("Zahlung & Co – ü") && is::<ShortText>(&"ü".repeat(200)));
        assert!(
            !is::<ShortText>("")
                && !is::<ShortText>(" a")
                && !is::<ShortText>("a\nb")
                && !is::<ShortText>("a\0")
                && !is::<ShortText>(&"ü".repeat(201))
        );
        assert!(
            is::<LongText>("a\n\tb\r\n")
                && is::<LongText>(&long(4000))
                && !is::<LongText>("a\0b")
                && !is::<LongText>(&long(4001))
                && !is::<LongText>("")
        );
    }

    /// The pattern that the document shows.
    fn pattern<T: PartialSchema>() -> Regex {
        let schema = serde_json::to_value(T::schema()).unwrap();
        Regex::new(schema["pattern"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn the_patterns_refuse_what_the_tables_refuse() {
        let (name, line, text) =
            (pattern::<ShortText>(), pattern::<Title>(), pattern::<LongText>());
        for character in (0..=0xFFFF).filter_map(char::from_u32) {
            let sent = format!("a{character}");
            assert_eq!(name.is_match(&sent), !invisible::in_name(character), "{sent:?}");
            assert_eq!(line.is_match(&sent), !invisible::in_line(character), "{sent:?}");
            assert_eq!(text.is_match(&sent), !invisible::in_text(character), "{sent:?}");
        }
        // Beyond, where a pattern would depend on the dialect, only the table says it.
        assert!(!is::<ShortText>("a\u{E0061}") && !is::<LongText>("a\u{E0061}"));
        assert!(is::<Title>("\u{26A0}\u{FE0F} down") && !is::<Title>("\u{FE0F} down"));
    }

    #[test]
    fn names_become_slugs() {
        for (name, slug) in [
            ("Hello-World", "hello-world"),
            ("pr 12 / preview", "pr-12-preview"),
            ("a--b-", "a-b"),
            ("github-pages", "github-pages"),
        ] {
            assert_eq!(&*Slug::from_name(name).unwrap(), slug);
        }
        assert!(Slug::from_name("-_.é").is_err());
        assert_eq!(Slug::from_name(&"ab-".repeat(40)).unwrap().len(), 62);
    }
}
