//! Statements that write, one after the other: on PostgreSQL as one, in one message.

use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::query_dsl::methods::ExecuteDsl;
use diesel::sql_types::Bool;
use diesel::sqlite::Sqlite;
use diesel::{PgConnection, QueryResult, RunQueryDsl};

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

/// Three statements as one: what makes room in a unique index, what takes it, and a third.
struct InRoom<R, A, B>(R, A, B);

impl<R, A, B> QueryFragment<Pg> for InRoom<R, A, B>
where
    R: QueryFragment<Pg>,
    A: QueryFragment<Pg>,
    B: QueryFragment<Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH room AS (");
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(" RETURNING 1), first AS (");
        self.1.walk_ast(out.reborrow())?;
        out.push_sql(") ");
        self.2.walk_ast(out)
    }
}

/// The condition of a statement that takes the room which one row made. PostgreSQL runs the parts
/// of a statement in any order, but what counts the rows of another part runs after it.
pub fn has_room() -> SqlLiteral<Bool> {
    sql("(SELECT count(*) FROM room) = 1")
}

/// Runs `room`, then `first` with the condition [`has_room`], and then `second`: on PostgreSQL as
/// one statement. `on_sqlite` is all three as that database runs them.
///
/// # Errors
/// That of the database.
pub fn execute_in_room<R, A, B>(
    db: &mut Db,
    (room, first, second): (R, A, B),
    on_sqlite: impl FnOnce(&mut Db) -> QueryResult<()>,
) -> QueryResult<()>
where
    R: QueryFragment<Pg>,
    A: QueryFragment<Pg>,
    B: QueryFragment<Pg>,
{
    let Db::Pg(c) = db else { return on_sqlite(db) };
    let _: Vec<i32> = Returning(InRoom(room, first, second)).load(c)?;
    Ok(())
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

/// Inserts many rows: on PostgreSQL with the one statement `insert`, which is not kept. `on_sqlite`
/// inserts them as that database does.
///
/// # Errors
/// That of the database.
pub fn execute_many(
    db: &mut Db,
    insert: impl ExecuteDsl<PgConnection>,
    on_sqlite: impl FnOnce(&mut Db) -> QueryResult<()>,
) -> QueryResult<()> {
    let Db::Pg(c) = db else { return on_sqlite(db) };
    ExecuteDsl::execute(insert, c)?;
    Ok(())
}
