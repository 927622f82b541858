//! How values are stored: the column types that PostgreSQL and SQLite store differently (an
//! instant, an identifier, a JSON document), and constants in the text of a statement.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::{
    AppearsOnTable, AsExpression, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{HasSqlType, Nullable, SqlType, Text};
use diesel::sqlite::Sqlite;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use uuid::Uuid;

use super::MultiBackend;
use crate::types::ids::{
    ApprovalId, DeploymentId, FreezeId, IncidentId, KeyId, OverrideId, ReleaseId,
};
use crate::types::time::Timestamp;

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

diesel::define_sql_function! {
    /// The text in lower case: at least the ASCII letters, on both databases.
    fn lower(text: Nullable<Text>) -> Nullable<Text>;
}

/// Lets [`super::Db`] use a column type that both backends have.
macro_rules! column_type {
    ($sql:ident) => {
        impl HasSqlType<$sql> for MultiBackend {
            fn metadata(lookup: &mut Self::MetadataLookup) -> Self::TypeMetadata {
                MultiBackend::lookup_sql_type::<$sql>(lookup)
            }
        }
    };
}

column_type!(Instant);
column_type!(Identifier);
column_type!(Document);

/// Lets [`super::Db`] bind and read a Rust type that both backends can bind and read.
macro_rules! on_both_backends {
    ($sql:ident, $rust:ty $(, $generic:ident: $($bound:path),+)?) => {
        impl$(<$generic: $($bound +)+ 'static>)? FromSql<$sql, MultiBackend> for $rust {
            fn from_sql(raw: <MultiBackend as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
                raw.from_sql::<Self, $sql>()
            }
        }
        impl$(<$generic: $($bound +)+ 'static>)? ToSql<$sql, MultiBackend> for $rust {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, MultiBackend>) -> serialize::Result {
                out.set_value(($sql, self));
                Ok(IsNull::No)
            }
        }
    };
}

/// Makes a type of the ground floor, which does not know this one, an expression of a column type.
macro_rules! expression {
    ($sql:ident, $rust:ident) => {
        const _: () = {
            // With `foreign_derive`, the implementations are those of the type inside.
            #[derive(AsExpression, FromSqlRow)]
            #[diesel(foreign_derive, sql_type = $sql)]
            #[allow(dead_code, reason = "only carries the derived implementations")]
            struct Proxy($rust);
        };
    };
}

/// PostgreSQL counts microseconds from 2000-01-01 (`src/include/datatype/timestamp.h`).
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl ToSql<Instant, Pg> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = jiff::Timestamp::from(*self).as_microsecond();
        out.write_all(&(micros - POSTGRES_EPOCH_MICROS).to_be_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Pg> for Timestamp {
    fn from_sql(raw: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let micros = i64::from_be_bytes(raw.as_bytes().try_into()?);
        let micros = micros.saturating_add(POSTGRES_EPOCH_MICROS);
        Ok(jiff::Timestamp::from_microsecond(micros)?.into())
    }
}

impl ToSql<Instant, Sqlite> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.to_string());
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Sqlite> for Timestamp {
    fn from_sql(mut raw: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(raw.read_text().parse::<jiff::Timestamp>()?.into())
    }
}

on_both_backends!(Instant, Timestamp);
expression!(Instant, Timestamp);

/// Stores a type of UUID.
macro_rules! uuid {
    ($id:ident) => {
        impl ToSql<Identifier, Pg> for $id {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(Uuid::from(*self).as_bytes())?;
                Ok(IsNull::No)
            }
        }

        impl FromSql<Identifier, Pg> for $id {
            fn from_sql(raw: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
                Ok(Uuid::from_slice(raw.as_bytes())?.into())
            }
        }

        impl ToSql<Identifier, Sqlite> for $id {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                out.set_value(self.to_string());
                Ok(IsNull::No)
            }
        }

        impl FromSql<Identifier, Sqlite> for $id {
            fn from_sql(mut raw: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
                Ok(raw.read_text().parse()?)
            }
        }

        on_both_backends!(Identifier, $id);
    };
}

// For a statement whose rows are of several kinds.
uuid!(Uuid);

/// Stores identifiers, which are all UUIDs.
macro_rules! identifiers {
    ($($id:ident),+) => {$(
        uuid!($id);
        expression!(Identifier, $id);
    )+};
}

identifiers!(ApprovalId, DeploymentId, FreezeId, IncidentId, KeyId, OverrideId, ReleaseId);

/// A value stored as a JSON document. In an answer it is serialized as the value itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = Document)]
#[serde(transparent)]
pub struct Json<T: fmt::Debug + 'static>(pub T);

/// The version byte that precedes `jsonb` on the wire (`src/backend/utils/adt/jsonb.c`).
const JSONB_VERSION: u8 = 1;

impl<T: fmt::Debug + Serialize + 'static> ToSql<Document, Pg> for Json<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[JSONB_VERSION])?;
        serde_json::to_writer(out, &self.0)?;
        Ok(IsNull::No)
    }
}

impl<T: fmt::Debug + DeserializeOwned + 'static> FromSql<Document, Pg> for Json<T> {
    fn from_sql(raw: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        match raw.as_bytes() {
            [JSONB_VERSION, json @ ..] => Ok(Self(serde_json::from_slice(json)?)),
            _ => Err("a jsonb value of an unknown version".into()),
        }
    }
}

impl<T: fmt::Debug + Serialize + 'static> ToSql<Document, Sqlite> for Json<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(serde_json::to_string(&self.0)?);
        Ok(IsNull::No)
    }
}

impl<T: fmt::Debug + DeserializeOwned + 'static> FromSql<Document, Sqlite> for Json<T> {
    fn from_sql(mut raw: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(serde_json::from_str(raw.read_text())?))
    }
}

on_both_backends!(Document, Json<T>, T: fmt::Debug, Serialize, DeserializeOwned, Send, Sync);

/// A text that is parsed where it is in the row, without a copy.
#[derive(Debug, FromSqlRow)]
pub struct Parsed<T>(pub T);

impl<T> FromSql<Text, Pg> for Parsed<T>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    fn from_sql(raw: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        std::str::from_utf8(raw.as_bytes())?.parse().map(Self).map_err(Into::into)
    }
}

impl<T> FromSql<Text, Sqlite> for Parsed<T>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    fn from_sql(mut raw: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        raw.read_text().parse().map(Self).map_err(Into::into)
    }
}

/// A constant word that is written into the SQL text instead of being bound as a parameter.
///
/// The database uses a partial index (such as the rows with one state) only when the statement
/// contains the word. A plan that is made for any bound value cannot use that index.
#[derive(Debug, Clone, Copy)]
pub struct Word(&'static str);

/// A value of an enum that a statement can contain as a [`Word`].
pub trait ToWord {
    /// The word of the value, to be written into the SQL text.
    fn word(self) -> Word;
}

impl<T: Into<&'static str>> ToWord for T {
    fn word(self) -> Word {
        Word(self.into())
    }
}

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
