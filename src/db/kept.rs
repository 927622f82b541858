//! Statements that are prepared once for each connection.
//!
//! diesel prepares a statement anew at each execution when it can't know that its text is always
//! the same: `sql_query` and `update`. And it builds the text at each execution when the query has
//! no type of its own to be found by, as one with parts in SQL. These wrappers say what diesel
//! can't know. With `prepared_statements = false` nothing is kept, as with all statements.

use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;
use diesel::{Connection, QueryResult, RunQueryDsl};
use std::marker::PhantomData;

/// A statement that is kept and found by its text. There must be few different texts: each one is
/// kept as long as its connection.
pub struct Kept<Q>(pub Q);

/// A statement whose text never changes, kept and found by the type `Id`, so that the text is not
/// even built again. Each place in the code that uses it needs an `Id` of its own.
pub struct Fixed<Q, Id>(Q, PhantomData<Id>);

impl<Q, Id> Fixed<Q, Id> {
    /// The statement `query`, found by `Id`.
    pub fn new(query: Q, _: Id) -> Self {
        Self(query, PhantomData)
    }
}

macro_rules! is_kept {
    ($kept:ident<Q $(, $id:ident)?>) => {
        impl<DB: Backend, Q: QueryFragment<DB> $(, $id)?> QueryFragment<DB> for $kept<Q $(, $id)?> {
            fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
                self.0.walk_ast(out)
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
is_kept!(Kept<Q>);
is_kept!(Fixed<Q, Id>);

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
