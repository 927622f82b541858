//! Column types that PostgreSQL and SQLite store differently (an instant, an identifier, a JSON
//! document), and enums that are stored as text.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::{
    AppearsOnTable, AsExpression, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{HasSqlType, Text};
use diesel::sqlite::Sqlite;
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use super::MultiBackend;

/// The SQL types of the Rust types below, for `diesel::table!`.
pub mod sql {
    use diesel::query_builder::QueryId;
    use diesel::sql_types::SqlType;

    /// `timestamptz` on PostgreSQL, RFC 3339 text in UTC with six decimals on SQLite.
    #[derive(Debug, Clone, Copy, SqlType, QueryId)]
    #[diesel(postgres_type(oid = 1184, array_oid = 1185), sqlite_type(name = "Text"))]
    pub struct Instant;

    /// `uuid` on PostgreSQL, its text form on SQLite.
    #[derive(Debug, Clone, Copy, SqlType, QueryId)]
    #[diesel(postgres_type(oid = 2950, array_oid = 2951), sqlite_type(name = "Text"))]
    pub struct Identifier;

    /// `jsonb` on PostgreSQL, text on SQLite. No query looks inside a document.
    #[derive(Debug, Clone, Copy, SqlType, QueryId)]
    #[diesel(postgres_type(oid = 3802, array_oid = 3807), sqlite_type(name = "Text"))]
    pub struct Document;
}

/// Lets [`super::Db`] bind and read a Rust type that both backends can bind and read.
#[macro_export]
#[doc(hidden)]
macro_rules! on_both_backends {
    ($sql:ident, $rust:ty $(, $generic:ident: $($bound:path),+)?) => {
        impl$(<$generic: $($bound +)+ 'static>)? FromSql<sql::$sql, MultiBackend> for $rust {
            fn from_sql(raw: <MultiBackend as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
                raw.from_sql::<Self, sql::$sql>()
            }
        }
        impl$(<$generic: $($bound +)+ 'static>)? ToSql<sql::$sql, MultiBackend> for $rust {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, MultiBackend>) -> serialize::Result {
                out.set_value((sql::$sql, self));
                Ok(IsNull::No)
            }
        }
    };
}

impl HasSqlType<sql::Instant> for MultiBackend {
    fn metadata(lookup: &mut Self::MetadataLookup) -> Self::TypeMetadata {
        MultiBackend::lookup_sql_type::<sql::Instant>(lookup)
    }
}

impl HasSqlType<sql::Identifier> for MultiBackend {
    fn metadata(lookup: &mut Self::MetadataLookup) -> Self::TypeMetadata {
        MultiBackend::lookup_sql_type::<sql::Identifier>(lookup)
    }
}

impl HasSqlType<sql::Document> for MultiBackend {
    fn metadata(lookup: &mut Self::MetadataLookup) -> Self::TypeMetadata {
        MultiBackend::lookup_sql_type::<sql::Document>(lookup)
    }
}

/// An instant in UTC with microsecond precision, the finest that both databases store.
///
/// Written as RFC 3339 with six decimals (`2026-02-03T04:05:06.000000Z`), so that the texts sort by
/// time. Years 0 to 9999, as in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql::Instant)]
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

    /// `self` plus `span`. Beyond the last instant of the calendar it is that last instant.
    pub fn plus(self, span: SignedDuration) -> Self {
        Self(self.0.saturating_add(span).unwrap_or(jiff::Timestamp::MAX))
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

/// The text is not an RFC 3339 date and time with an offset.
#[derive(Debug)]
pub struct NotATimestamp;

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        // jiff also accepts spaces, named zones, and shortened times and offsets. RFC 3339, section
        // 5.6, does not.
        let at = |index: usize| text.as_bytes().get(index).copied();
        let time_is_whole = at(10) == Some(b'T') && at(13) == Some(b':') && at(16) == Some(b':');
        let from_end =
            |back: usize| text.len().checked_sub(back).filter(|index| *index >= 19).and_then(at);
        let offset_is_whole = text.ends_with('Z')
            || (from_end(3) == Some(b':') && matches!(from_end(6), Some(b'+' | b'-')));
        if !time_is_whole || !offset_is_whole || text.contains([' ', '[', ',']) {
            return Err(NotATimestamp);
        }
        let instant: jiff::Timestamp = text.parse().map_err(|_| NotATimestamp)?;
        if instant < Self::EARLIEST {
            return Err(NotATimestamp);
        }
        Ok(Self::truncated(instant))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|NotATimestamp| {
            // The word before the colon becomes the code of the error.
            let detail =
                "is not an RFC 3339 date and time with an offset, such as 2026-02-03T04:05:06Z";
            serde::de::Error::custom(format_args!("invalid_time: {text:?} {detail}"))
        })
    }
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some(
                "A date and time as in RFC 3339. Answers are in UTC with microseconds; requests may use any offset.",
            ))
            .examples(["2026-02-03T04:05:06.000000Z"])
            .build()
            .into()
    }
}
impl ToSchema for Timestamp {}

/// PostgreSQL counts microseconds from 2000-01-01 (`src/include/datatype/timestamp.h`).
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl ToSql<sql::Instant, Pg> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&(self.0.as_microsecond() - POSTGRES_EPOCH_MICROS).to_be_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<sql::Instant, Pg> for Timestamp {
    fn from_sql(raw: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let micros = i64::from_be_bytes(raw.as_bytes().try_into()?);
        Ok(Self(jiff::Timestamp::from_microsecond(micros.saturating_add(POSTGRES_EPOCH_MICROS))?))
    }
}

impl ToSql<sql::Instant, Sqlite> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.to_string());
        Ok(IsNull::No)
    }
}

impl FromSql<sql::Instant, Sqlite> for Timestamp {
    fn from_sql(mut raw: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(raw.read_text().parse()?))
    }
}

on_both_backends!(Instant, Timestamp);

/// Declares the identifier type of one kind of row: a UUIDv7 (RFC 9562), so that identifiers sort
/// by the time of their creation. The doc comment is also the description in the OpenAPI document.
#[macro_export]
macro_rules! identifier {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
            diesel::expression::AsExpression, diesel::deserialize::FromSqlRow,
        )]
        #[diesel(sql_type = $crate::db::types::sql::Identifier)]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// Creates a new, unique identifier.
            #[allow(clippy::new_without_default, reason = "every new identifier is another one")]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
                let format = SchemaFormat::Custom("uuid".into());
                let description = concat!($($doc),+).trim();
                ObjectBuilder::new().schema_type(Type::String).format(Some(format)).description(Some(description)).build().into()
            }
        }
        impl utoipa::ToSchema for $name {}

        const _: () = {
            use diesel::backend::Backend;
            use diesel::deserialize::{self, FromSql};
            use diesel::pg::Pg;
            use diesel::serialize::{self, IsNull, Output, ToSql};
            use diesel::sqlite::Sqlite;
            use $crate::db::MultiBackend;
            use $crate::db::types::sql;

            impl ToSql<sql::Identifier, Pg> for $name {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                    std::io::Write::write_all(out, self.0.as_bytes())?;
                    Ok(IsNull::No)
                }
            }
            impl FromSql<sql::Identifier, Pg> for $name {
                fn from_sql(raw: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
                    Ok(Self(uuid::Uuid::from_slice(raw.as_bytes())?))
                }
            }
            impl ToSql<sql::Identifier, Sqlite> for $name {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                    out.set_value(self.0.to_string());
                    Ok(IsNull::No)
                }
            }
            impl FromSql<sql::Identifier, Sqlite> for $name {
                fn from_sql(mut raw: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
                    Ok(Self(raw.read_text().parse()?))
                }
            }
            $crate::on_both_backends!(Identifier, $name);
        };
    };
}

/// A value stored as a JSON document. In an answer it is serialized as the value itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql::Document)]
#[serde(transparent)]
pub struct Json<T: fmt::Debug + 'static>(pub T);

/// The version byte that precedes `jsonb` on the wire (`src/backend/utils/adt/jsonb.c`).
const JSONB_VERSION: u8 = 1;

impl<T: fmt::Debug + Serialize + 'static> ToSql<sql::Document, Pg> for Json<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[JSONB_VERSION])?;
        serde_json::to_writer(out, &self.0)?;
        Ok(IsNull::No)
    }
}

impl<T: fmt::Debug + DeserializeOwned + 'static> FromSql<sql::Document, Pg> for Json<T> {
    fn from_sql(raw: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        match raw.as_bytes() {
            [JSONB_VERSION, json @ ..] => Ok(Self(serde_json::from_slice(json)?)),
            _ => Err("a jsonb value of an unknown version".into()),
        }
    }
}

impl<T: fmt::Debug + Serialize + 'static> ToSql<sql::Document, Sqlite> for Json<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(serde_json::to_string(&self.0)?);
        Ok(IsNull::No)
    }
}

impl<T: fmt::Debug + DeserializeOwned + 'static> FromSql<sql::Document, Sqlite> for Json<T> {
    fn from_sql(mut raw: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(serde_json::from_str(raw.read_text())?))
    }
}

on_both_backends!(Document, Json<T>, T: fmt::Debug, Serialize, DeserializeOwned, Send, Sync);

/// A constant word that is written into the SQL text instead of being bound as a parameter.
///
/// The database uses a partial index (such as the rows with one state) only when the statement
/// contains the word. A plan that is made for any bound value cannot use that index.
#[derive(Debug, Clone, Copy)]
pub struct Word(pub &'static str);

impl Expression for Word {
    type SqlType = Text;
}

impl<DB: Backend> QueryFragment<DB> for Word {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("'");
        out.push_sql(self.0);
        out.push_sql("'");
        Ok(())
    }
}

impl QueryId for Word {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Source> AppearsOnTable<Source> for Word {}
impl<Source> SelectableExpression<Source> for Word {}

impl<GroupBy> ValidGrouping<GroupBy> for Word {
    type IsAggregate = is_aggregate::Never;
}

/// Declares an enum that is stored, sent and received as one of the given words. The doc comments
/// of the enum and of each value are its description in the OpenAPI document.
#[macro_export]
macro_rules! text_enum {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize,
            diesel::expression::AsExpression, diesel::deserialize::FromSqlRow,
        )]
        #[diesel(sql_type = diesel::sql_types::Text)]
        pub enum $name {
            $($(#[doc = $variant_doc])+ #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// All values, in the order of declaration.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The word that is stored and sent for this value.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }

            /// The word, to be written into an SQL statement instead of being bound.
            pub const fn word(self) -> $crate::db::types::Word {
                $crate::db::types::Word(self.as_str())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text)
                    .ok_or_else(|| format!("must be one of {}; {text:?} is not", [$($text),+].join(", ")))
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                let description = concat!($($doc),+, "\n" $(, "\n* `", $text, "`:" $(, $variant_doc)+)+).trim();
                ObjectBuilder::new().schema_type(Type::String).description(Some(description)).enum_values(Some([$($text),+])).build().into()
            }
        }
        impl utoipa::ToSchema for $name {}

        // Accepts only a word. The derived implementation would also accept `{"word": null}`, and
        // would report a number as malformed JSON.
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = std::borrow::Cow::<str>::deserialize(deserializer)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }

        impl<DB> diesel::serialize::ToSql<diesel::sql_types::Text, DB> for $name
        where
            DB: diesel::backend::Backend,
            str: diesel::serialize::ToSql<diesel::sql_types::Text, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, DB>) -> diesel::serialize::Result {
                self.as_str().to_sql(out)
            }
        }

        impl<DB> diesel::deserialize::FromSql<diesel::sql_types::Text, DB> for $name
        where
            DB: diesel::backend::Backend,
            String: diesel::deserialize::FromSql<diesel::sql_types::Text, DB>,
        {
            fn from_sql(raw: DB::RawValue<'_>) -> diesel::deserialize::Result<Self> {
                Ok(String::from_sql(raw)?.parse()?)
            }
        }
    };
}
