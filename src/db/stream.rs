//! Rows that are handed over one by one, while the database still finds the next ones.

use diesel::connection::DefaultLoadingMode;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::query_dsl::LoadQuery;
use diesel::{Connection, PgConnection, QueryResult, SqliteConnection};

/// A connection that hands over rows one by one.
pub trait Streams: Connection {
    /// How diesel loads them.
    type Mode;
}

impl Streams for PgConnection {
    type Mode = PgRowByRowLoadingMode;
}

impl Streams for SqliteConnection {
    type Mode = DefaultLoadingMode;
}

/// Runs a query whose rows are not all in memory at once. Until the iterator is dropped, the
/// connection runs no other statement.
///
/// # Errors
/// That of the database, which may also follow some of the rows.
pub fn rows<'query, 'c, C, Q, T>(c: &'c mut C, query: Q) -> QueryResult<Q::RowIter<'c>>
where
    'query: 'c,
    C: Streams,
    Q: LoadQuery<'query, C, T, C::Mode> + 'c,
    T: 'c,
{
    query.load_iter::<T, C::Mode>(c)
}
