//! Rows of a subquery as one JSON document, so that a statement answers lists beside its own row.

use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use serde::{Deserialize, Deserializer};

use super::columns::Document;
use crate::types::time::Timestamp;

/// The rows of a subquery as an array of objects, each with the columns as its fields.
#[derive(Debug, Clone, Copy)]
pub struct JsonRows {
    /// The columns of `from`, in which `r` is a row.
    pub columns: &'static [Column],
    /// The subquery.
    pub from: &'static str,
    /// The columns that give the order, such as `r.id`.
    pub order: &'static str,
}

/// A column by its name, and what it contains.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Text or an identifier.
    Plain(&'static str),
    /// A boolean.
    Bool(&'static str),
    /// An instant, for [`instant`] or [`instant_if_any`].
    Instant(&'static str),
    /// A JSON document.
    Document(&'static str),
}

impl Column {
    fn name(self) -> &'static str {
        let (Self::Plain(name) | Self::Bool(name) | Self::Instant(name) | Self::Document(name)) =
            self;
        name
    }

    /// What stands before and after the column. As text, PostgreSQL has years before 1 in a form of
    /// its own; SQLite has no booleans, and keeps documents as text.
    fn in_postgres(self) -> (&'static str, &'static str) {
        match self {
            Self::Instant(_) => ("CAST(extract(epoch FROM ", ") * 1000000 AS bigint)"),
            _ => ("", ""),
        }
    }

    fn in_sqlite(self) -> (&'static str, &'static str) {
        match self {
            Self::Plain(_) | Self::Instant(_) => ("", ""),
            Self::Bool(_) => ("json(CASE WHEN ", " THEN 'true' ELSE 'false' END)"),
            Self::Document(_) => ("json(", ")"),
        }
    }
}

impl JsonRows {
    fn write<DB: diesel::backend::Backend>(
        &self,
        out: &mut AstPass<'_, '_, DB>,
        (begin, end): (&str, &str),
        spelled: impl Fn(Column) -> (&'static str, &'static str),
    ) {
        out.push_sql(begin);
        for (index, column) in self.columns.iter().enumerate() {
            let (before, after) = spelled(*column);
            out.push_sql(if index == 0 { "'" } else { ", '" });
            out.push_sql(column.name());
            out.push_sql("', ");
            out.push_sql(before);
            out.push_sql("r.");
            out.push_sql(column.name());
            out.push_sql(after);
        }
        out.push_sql(") ORDER BY ");
        out.push_sql(self.order);
        out.push_sql(end);
        out.push_sql(self.from);
        out.push_sql(") AS r)");
    }
}

impl QueryFragment<Pg> for JsonRows {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let around = ("(SELECT coalesce(jsonb_agg(jsonb_build_object(", "), '[]') FROM (");
        self.write(&mut out, around, Column::in_postgres);
        Ok(())
    }
}

impl QueryFragment<Sqlite> for JsonRows {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let around = ("(SELECT json_group_array(json_object(", ") FROM (");
        self.write(&mut out, around, Column::in_sqlite);
        Ok(())
    }
}

impl Expression for JsonRows {
    type SqlType = Document;
}

impl QueryId for JsonRows {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Source> AppearsOnTable<Source> for JsonRows {}
impl<Source> SelectableExpression<Source> for JsonRows {}

impl<GroupBy> ValidGrouping<GroupBy> for JsonRows {
    type IsAggregate = is_aggregate::Never;
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    /// Microseconds since 1970.
    Micros(i64),
    Text(Timestamp),
}

/// Reads a [`Column::Instant`], for `deserialize_with`.
///
/// # Errors
/// When it is `null`, or no instant.
pub fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    time(Time::deserialize(deserializer)?)
}

/// Reads a [`Column::Instant`] that may be `null`, for `deserialize_with`.
///
/// # Errors
/// When it is no instant.
pub fn instant_if_any<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    Option::<Time>::deserialize(deserializer)?.map(time).transpose()
}

fn time<E: serde::de::Error>(time: Time) -> Result<Timestamp, E> {
    match time {
        Time::Text(at) => Ok(at),
        Time::Micros(at) => {
            jiff::Timestamp::from_microsecond(at).map(Timestamp::from).map_err(E::custom)
        }
    }
}
