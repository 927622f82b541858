//! Statements that are prepared once for each connection.
//!
//! diesel prepares a statement anew at each execution when it can't know that its text is always
//! the same: `sql_query` and `update`. And it builds the text at each execution when the query has
//! no type of its own to be found by, as one with parts in SQL. These wrappers say what diesel
//! can't know. With `prepared_statements = false` nothing is kept, as with all statements.

use diesel::backend::Backend;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Integer, Untyped};
use diesel::sqlite::Sqlite;
use diesel::{Connection, QueryResult, RunQueryDsl};
use std::marker::PhantomData;

use super::Db;
use crate::each_backend;

/// A query that is kept and found by its text. There must be few different texts: each one is
/// kept as long as its connection.
pub struct Kept<Q>(pub Q);

/// A query whose text never changes, kept and found by the type `Id`, so that the text is not
/// even built again. Each place in the code that uses it needs an `Id` of its own.
pub struct Fixed<Q, Id>(Q, PhantomData<Id>);

impl<Q, Id> Fixed<Q, Id> {
    /// The statement `query`, found by `Id`.
    pub fn new(query: Q, _: Id) -> Self {
        Self(query, PhantomData)
    }
}

/// Runs a statement that writes, which is kept and found by its text, and returns the number of
/// rows. There must be few different texts.
///
/// # Errors
/// That of the database.
pub fn execute<W>(db: &mut Db, statement: W) -> QueryResult<usize>
where
    W: QueryFragment<Pg> + QueryFragment<Sqlite>,
{
    let written: Vec<i32> = each_backend!(db, |c| Returning(statement).load(c))?;
    Ok(written.len())
}

/// A statement that writes, as a query of its rows: diesel's own `execute` asks a reference to the
/// statement, and so not the method below, whether it may be kept.
pub(super) struct Returning<W>(pub(super) W);

impl<W> QueryId for Returning<W> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<W> Query for Returning<W> {
    type SqlType = Integer;
}

macro_rules! is_kept {
    ($kept:ident<Q $(, $id:ident)?>, $end:literal) => {
        impl<DB: Backend, Q: QueryFragment<DB> $(, $id)?> QueryFragment<DB> for $kept<Q $(, $id)?> {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
                self.0.walk_ast(out.reborrow())?;
                out.push_sql($end);
                Ok(())
            }

            /// Whether diesel may keep the prepared statement. The method is not documented; it is
            /// how diesel's own `sql_query` and `update` say no (`diesel::query_builder`,
            /// `sql_query.rs` and `update_statement/mod.rs` of 2.3).
            fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
                Ok(true)
            }
        }

        impl<Q, C: Connection $(, $id)?> RunQueryDsl<C> for $kept<Q $(, $id)?> {}
    };
}
is_kept!(Kept<Q>, "");
is_kept!(Fixed<Q, Id>, "");
is_kept!(Returning<Q>, " RETURNING 1");

impl<Q> QueryId for Kept<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q, Id: 'static> QueryId for Fixed<Q, Id> {
    type QueryId = Id;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<Q> Query for Kept<Q> {
    type SqlType = Untyped;
}

impl<Q: Query, Id> Query for Fixed<Q, Id> {
    type SqlType = Q::SqlType;
}
