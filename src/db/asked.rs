//! A query that begins with what is asked, by name, and the time at which it is answered:
//! `WITH asked AS (...), moment AS (...)`.

use diesel::backend::Backend;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sqlite::Sqlite;
use diesel::{Connection, QueryResult, RunQueryDsl};

/// `query`, which may read the columns of two rows:
///
/// - `asked` is what the first query selects. It has all bound values, and at least the columns
///   `service` and `given`, a time of the transaction that is known already
///   ([`super::locks::Service::time`]), or `NULL`.
/// - `moment` has `now`, the time of the transaction: later than every event of the service; and
///   `is_locked`, whether the transaction began with the lock of the service
///   ([`super::Db::begin_locked`]).
pub struct Asking<A, Q> {
    /// The query of the row `asked`.
    pub asked: A,
    /// The query that is run.
    pub query: Q,
}

const IN_POSTGRES: &str = "SELECT
    coalesce(asked.given, greatest(clock_timestamp(), (SELECT max(e.at) + interval '1 microsecond'
        FROM events e WHERE e.service = asked.service))) AS now,
    coalesce(current_setting('prop.locked', true) = asked.service, false) AS is_locked
    FROM asked";
const IN_SQLITE: &str = "SELECT asked.given AS now, true AS is_locked FROM asked";

impl<A, Q> Asking<A, Q> {
    fn walk<'b, DB>(&'b self, mut out: AstPass<'_, 'b, DB>, moment: &str) -> QueryResult<()>
    where
        DB: Backend,
        A: QueryFragment<DB>,
        Q: QueryFragment<DB>,
    {
        out.push_sql("WITH asked AS MATERIALIZED (");
        self.asked.walk_ast(out.reborrow())?;
        out.push_sql("), moment AS MATERIALIZED (");
        out.push_sql(moment);
        out.push_sql(") ");
        self.query.walk_ast(out)
    }
}

impl<A: QueryFragment<Pg>, Q: QueryFragment<Pg>> QueryFragment<Pg> for Asking<A, Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.walk(out, IN_POSTGRES)
    }
}

impl<A: QueryFragment<Sqlite>, Q: QueryFragment<Sqlite>> QueryFragment<Sqlite> for Asking<A, Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        self.walk(out, IN_SQLITE)
    }
}

impl<A, Q> QueryId for Asking<A, Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<A, Q: Query> Query for Asking<A, Q> {
    type SqlType = Q::SqlType;
}

impl<A, Q, C: Connection> RunQueryDsl<C> for Asking<A, Q> {}
