//! Two statements that write, one after the other: on PostgreSQL as one, in one message.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, RunQueryDsl};

use super::Db;
use super::kept::{self, Returning};

/// Two statements as one. Neither sees what the other has written.
struct Both<A, B>(A, B);

impl<A: QueryFragment<Pg>, B: QueryFragment<Pg>> QueryFragment<Pg> for Both<A, B> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH first AS (");
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(") ");
        self.1.walk_ast(out)
    }
}

/// Runs `first` and then `second`, on PostgreSQL as one statement. `on_sqlite` is `second` as that
/// database runs it. There must be few different texts of both.
///
/// # Errors
/// That of the database.
pub fn execute<A, B>(
    db: &mut Db,
    first: A,
    second: B,
    on_sqlite: impl FnOnce(&mut Db) -> QueryResult<()>,
) -> QueryResult<()>
where
    A: QueryFragment<Pg> + QueryFragment<Sqlite>,
    B: QueryFragment<Pg>,
{
    if let Db::Pg(c) = db {
        let _: Vec<i32> = Returning(Both(first, second)).load(c)?;
        return Ok(());
    }
    kept::execute(db, first)?;
    on_sqlite(db)
}
