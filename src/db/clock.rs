//! The time that prop assigns to what it records: that of the database, because the clocks of its
//! processes differ. SQLite has none of its own, but only the processes of one machine share it.
//!
//! In a service this time never runs backwards, even if a clock does: a transaction is later than
//! every event of the service that was committed before it (see [`super::locks::service`]).

use diesel::dsl::{select, sql};
use diesel::prelude::*;
use jiff::SignedDuration;

use super::Db;
use super::columns::Instant;
use crate::types::time::Timestamp;

/// The time of a transaction that locks no service. On PostgreSQL this takes one statement.
pub fn now(db: &mut Db) -> QueryResult<Timestamp> {
    match db {
        Db::Pg(c) => select(sql::<Instant>("clock_timestamp()")).get_result(c),
        Db::Sqlite(_) => Ok(Timestamp::now()),
    }
}

/// The process's time, but later than `last`.
pub(super) fn after(last: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::now();
    last.map_or(now, |last| now.max(last.plus(SignedDuration::from_micros(1))))
}
