//! The rows of a list as JSON. On PostgreSQL they are written without making a struct of each row:
//! that would take as long as all the rest of the request.
//!
//! The struct still says what is written: its columns are selected, and its fields are those of the
//! answer. Each field must be named and written like its column, in the same order.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::deserialize::{FromSql, FromSqlRow};
use diesel::expression::QueryMetadata;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::Error;
use diesel::row::{Field, Row};
use serde::Serialize;
use uuid::Uuid;

use super::columns::Instant;
use crate::types::time::Timestamp;

/// The rows of a page.
#[derive(Debug)]
pub struct Listed<T> {
    /// The page as a JSON array.
    pub json: Vec<u8>,
    /// Whether there are more rows than the page takes.
    pub more: bool,
    /// The last row of the page. Before it at least those that were asked for, in their order.
    pub rows: Vec<T>,
}

/// The columns of a struct.
type Columns<T, DB> = diesel::dsl::SqlTypeOf<<T as Selectable<DB>>::SelectExpression>;

/// A connection that loads the rows of a list as JSON.
pub trait LoadListed<T>: Connection {
    /// Loads a page of at most `most` rows. `keep` names a column: rows with a value in it are
    /// returned as structs, too.
    ///
    /// # Errors
    /// That of the database, or that a row does not fit the struct.
    fn load_listed<Q>(&mut self, query: Q, most: usize, keep: &str) -> QueryResult<Listed<T>>
    where
        Q: Query + QueryFragment<Self::Backend> + QueryId,
        Self::Backend: QueryMetadata<Q::SqlType>;
}

impl<T> LoadListed<T> for SqliteConnection
where
    T: Selectable<diesel::sqlite::Sqlite>
        + FromSqlRow<Columns<T, diesel::sqlite::Sqlite>, diesel::sqlite::Sqlite>
        + Serialize,
{
    fn load_listed<Q>(&mut self, query: Q, most: usize, _: &str) -> QueryResult<Listed<T>>
    where
        Q: Query + QueryFragment<Self::Backend> + QueryId,
        Self::Backend: QueryMetadata<Q::SqlType>,
    {
        let rows = LoadConnection::<DefaultLoadingMode>::load(self, query)?;
        let rows = rows.map(|row| T::build_from_row(&row?).map_err(Error::DeserializationError));
        let mut rows: Vec<T> = rows.collect::<QueryResult<_>>()?;
        let more = rows.len() > most;
        rows.truncate(most);
        Ok(Listed { json: serde_json::to_vec(&rows).map_err(not_json)?, more, rows })
    }
}

impl<T> LoadListed<T> for PgConnection
where
    T: Selectable<Pg> + FromSqlRow<Columns<T, Pg>, Pg> + Serialize,
{
    fn load_listed<Q>(&mut self, query: Q, most: usize, keep: &str) -> QueryResult<Listed<T>>
    where
        Q: Query + QueryFragment<Self::Backend> + QueryId,
        Self::Backend: QueryMetadata<Q::SqlType>,
    {
        let rows = LoadConnection::<DefaultLoadingMode>::load(self, query)?;
        let mut found = rows.collect::<QueryResult<Vec<_>>>()?;
        let more = found.len() > most;
        found.truncate(most);
        let (mut json, mut rows) = (vec![b'['], Vec::new());
        let build = |row: &_| T::build_from_row(row).map_err(Error::DeserializationError);
        if let Some(first) = found.first() {
            let fields = fields(first, &build(first)?)?;
            let keep = fields.iter().position(|field| field.column == keep);
            for (n, row) in found.iter().enumerate() {
                write(row, &fields, &mut json).map_err(Error::DeserializationError)?;
                let is_kept = keep.and_then(|at| row.get(at)).is_some_and(|it| !it.is_null());
                if is_kept || n + 1 == found.len() {
                    rows.push(build(row)?);
                }
            }
            // After the last row there is a comma.
            json.pop();
        }
        json.push(b']');
        Ok(Listed { json, more, rows })
    }
}

/// A column of a query, and the field of the answer.
struct Column {
    column: String,
    /// What precedes the value. `None` when the answer does not have it.
    before: Option<String>,
}

/// The columns of a query: an example shows which of them the answer has.
fn fields<'a, T: Serialize>(row: &impl Row<'a, Pg>, example: &T) -> QueryResult<Vec<Column>> {
    let example = serde_json::to_value(example).map_err(not_json)?;
    let mut punctuation = '{';
    let columns = (0..row.field_count()).filter_map(|at| row.get(at));
    let columns = columns.map(|column| {
        let column = column.field_name().unwrap_or_default().to_owned();
        let before = example.get(&column).map(|_| format!("{punctuation}\"{column}\":"));
        punctuation = if before.is_some() { ',' } else { punctuation };
        Column { column, before }
    });
    Ok(columns.collect())
}

/// Writes a row as an object, and a comma.
fn write<'a>(
    row: &impl Row<'a, Pg>,
    fields: &[Column],
    json: &mut Vec<u8>,
) -> diesel::deserialize::Result<()> {
    for (at, field) in fields.iter().enumerate() {
        let Some(before) = &field.before else { continue };
        json.extend_from_slice(before.as_bytes());
        match row.get(at).as_ref().and_then(Field::value) {
            Some(value) => write_value(value, json)?,
            None => json.extend_from_slice(b"null"),
        }
    }
    json.extend_from_slice(b"},");
    Ok(())
}

/// Writes a value by the type of its column (`src/include/catalog/pg_type.dat` of PostgreSQL).
fn write_value(value: PgValue<'_>, json: &mut Vec<u8>) -> diesel::deserialize::Result<()> {
    match value.get_oid().get() {
        16 => serde_json::to_writer(json, &(value.as_bytes() == [1]))?,
        23 => {
            let number = i32::from_be_bytes(value.as_bytes().try_into()?);
            serde_json::to_writer(json, &number)?;
        }
        25 => write_text(std::str::from_utf8(value.as_bytes())?, json)?,
        1184 => {
            let at = <Timestamp as FromSql<Instant, Pg>>::from_sql(value)?;
            serde_json::to_writer(json, &at)?;
        }
        2950 => serde_json::to_writer(json, &Uuid::from_slice(value.as_bytes())?)?,
        other => return Err(format!("no JSON is known for the column type {other}").into()),
    }
    Ok(())
}

/// Writes a text: usually as it is, since nothing in it must be escaped.
fn write_text(text: &str, json: &mut Vec<u8>) -> serde_json::Result<()> {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return serde_json::to_writer(json, text);
    }
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
    Ok(())
}

fn not_json(error: serde_json::Error) -> Error {
    Error::SerializationError(error.into())
}
