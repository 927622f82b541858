//! The parts of a statement that reads one page of a list, so that it costs as much as the page,
//! however long the list is.

use diesel::backend::Backend;
use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Bool;
use diesel::{QueryResult, RunQueryDsl};

use super::{Db, MultiBackend};

/// How many rows a page looks at when an index finds only those that meet some of the conditions.
pub const LOOKED_AT: i64 = 5_000;

/// Makes a struct a condition of a query, or a part of its order.
macro_rules! is_condition {
    ($name:ty $(, $generic:tt)*) => {
        is_condition!(@ $name [$($generic),*] [$($generic,)* Source] [$($generic,)* GroupBy]);
    };
    (@ $name:ty [$($own:tt)*] [$($source:tt)*] [$($group:tt)*]) => {
        impl<$($own)*> Expression for $name {
            type SqlType = Bool;
        }

        impl<$($own)*> QueryId for $name {
            type QueryId = ();
            const HAS_STATIC_QUERY_ID: bool = false;
        }

        impl<$($source)*> AppearsOnTable<Source> for $name {}
        impl<$($source)*> SelectableExpression<Source> for $name {}

        impl<$($group)*> ValidGrouping<GroupBy> for $name {
            type IsAggregate = is_aggregate::Never;
        }
    };
}

/// The condition that the two columns come before these values, compared like a word's letters:
/// `(a, b) < (x, y)`. Both databases find the first such row by an index on both columns; in
/// `a < x OR (a = x AND b < y)` they would not.
pub struct IsBefore<A, B, X, Y>(pub (A, B), pub (X, Y));

impl<DB: Backend, A, B, X, Y> QueryFragment<DB> for IsBefore<A, B, X, Y>
where
    A: QueryFragment<DB>,
    B: QueryFragment<DB>,
    X: QueryFragment<DB>,
    Y: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let ((a, b), (x, y)) = (&self.0, &self.1);
        out.push_sql("(");
        a.walk_ast(out.reborrow())?;
        out.push_sql(", ");
        b.walk_ast(out.reborrow())?;
        out.push_sql(") < (");
        x.walk_ast(out.reborrow())?;
        out.push_sql(", ");
        y.walk_ast(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}

is_condition!(IsBefore<A, B, X, Y>, A, B, X, Y);

/// The descending order of a column that is never null, for a list of everything. PostgreSQL takes
/// an index only for the order that it was made with, and the indexes of everything were made with
/// this one, the others with the plain one. So no list of, say, one service is read along the index
/// of everything, which PostgreSQL may otherwise believe to be shorter when services are few.
pub struct OfAll<C>(pub C);

/// [`OfAll`] in SQL. It is the plain order on SQLite.
pub const OF_ALL: &str = " DESC NULLS LAST";

impl<DB: Backend, C: QueryFragment<DB>> QueryFragment<DB> for OfAll<C> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(OF_ALL);
        Ok(())
    }
}

is_condition!(OfAll<C>, C);

/// The condition that all of these hold. True, if there are none.
pub struct All<'a, DB = MultiBackend>(pub Vec<Box<dyn QueryFragment<DB> + Send + 'a>>);

impl<DB: Backend> QueryFragment<DB> for All<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        for (n, condition) in self.0.iter().enumerate() {
            out.push_sql(if n == 0 { "(" } else { " AND (" });
            condition.walk_ast(out.reborrow())?;
            out.push_sql(")");
        }
        if self.0.is_empty() {
            out.push_sql("1 = 1");
        }
        Ok(())
    }
}

is_condition!(All<'_, DB>, DB);

/// Those rows of a query that meet more conditions, at most `limit` of them, in the order of the
/// query. The query has a limit of its own: that is how many rows are looked at.
pub struct Narrowed<'a, Q> {
    /// The query. It selects the columns of `conditions` and `order`.
    pub rows: Q,
    /// The table that the query selects from, whose columns the conditions name.
    pub table: &'static str,
    /// The conditions.
    pub conditions: All<'a>,
    /// The columns of the order of the query.
    pub order: [&'static str; 2],
    /// Whether the query is in the order [`OfAll`].
    pub of_all: bool,
    /// The largest number of rows.
    pub limit: i64,
}

impl<Q: QueryFragment<MultiBackend>> QueryFragment<MultiBackend> for Narrowed<'_, Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        out.push_sql("SELECT * FROM (");
        self.rows.walk_ast(out.reborrow())?;
        out.push_sql(") AS ");
        out.push_identifier(self.table)?;
        out.push_sql(" WHERE ");
        self.conditions.walk_ast(out.reborrow())?;
        out.push_sql(" ORDER BY ");
        for (n, column) in self.order.iter().enumerate() {
            out.push_sql(if n == 0 { "" } else { ", " });
            out.push_identifier(column)?;
            out.push_sql(if self.of_all { OF_ALL } else { " DESC" });
        }
        out.push_sql(" LIMIT ");
        out.push_bind_param::<diesel::sql_types::BigInt, _>(&self.limit)
    }
}

impl<Q> QueryId for Narrowed<'_, Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Narrowed<'_, Q> {
    type SqlType = Q::SqlType;
}

impl<Q> RunQueryDsl<Db> for Narrowed<'_, Q> {}
