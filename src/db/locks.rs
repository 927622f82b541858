//! Locks that last until the transaction ends. SQLite has one writer at a time, which is the
//! transaction that would lock, so there a lock is nothing.

use diesel::dsl::{select, sql};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use super::columns::{Identifier, Instant};
use super::kept::{Fixed, Kept};
use super::schema::{environments, freezes};
use super::{Db, clock};
use crate::each_backend;
use crate::types::ids::{DeploymentId, FreezeId};
use crate::types::time::Timestamp;
use crate::types::values::Slug;

/// A service that a transaction locks as it begins, so that this costs no statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// The service with this slug.
    Named(Slug),
    /// The service of this deployment, which never changes.
    OfDeployment(DeploymentId),
}

/// The text of [`Service::statement`] before and after the slug.
const LOCK: (&str, &str) = (
    "SELECT set_config('prop.locked', slug, true) FROM (SELECT slug FROM services WHERE slug = ",
    " FOR NO KEY UPDATE) AS locked",
);
/// The text of the slug of a deployment's service, before and after the deployment's id.
const SLUG: (&str, &str) = ("(SELECT service FROM deployments WHERE id = ", ")");

impl Service {
    /// The statement that locks the row, if it exists, on PostgreSQL. It notes the slug for the
    /// rest of the transaction: whoever looks afterwards finds it ([`super::asked`]), but not for a
    /// service that was committed after this statement.
    ///
    /// The value stands in the text, because this is sent together with the `BEGIN`. The types
    /// allow no character that means something in SQL.
    pub(super) fn statement(&self) -> String {
        let slug = match self {
            Self::Named(slug) => format!("'{slug}'"),
            Self::OfDeployment(id) => format!("{}'{id}'{}", SLUG.0, SLUG.1),
        };
        format!("{}{slug}{}", LOCK.0, LOCK.1)
    }

    /// Locks the row in a transaction that began without it.
    ///
    /// # Errors
    /// That of the database.
    pub fn lock(&self, db: &mut Db) -> QueryResult<()> {
        struct LockNamed;
        struct LockOfDeployment;
        let Db::Pg(c) = db else { return Ok(()) };
        let (lock, end) = (sql::<Nullable<Text>>(&format!("({}", LOCK.0)), format!("{})", LOCK.1));
        let _: Option<String> = match self {
            Self::Named(slug) => {
                let lock = lock.bind::<Text, _>(slug).sql(&end);
                Fixed::new(select(lock), LockNamed).get_result(c)?
            }
            Self::OfDeployment(id) => {
                let lock = lock.sql(SLUG.0).bind::<Identifier, _>(id).sql(SLUG.1).sql(&end);
                Fixed::new(select(lock), LockOfDeployment).get_result(c)?
            }
        };
        Ok(())
    }

    /// The time of the transaction for the column `given` of a query about the service
    /// ([`super::asked`]). On PostgreSQL there is none: the query reads the clock itself.
    ///
    /// # Errors
    /// That of the database.
    pub fn time(&self, db: &mut Db) -> QueryResult<Option<Timestamp>> {
        let Db::Sqlite(c) = db else { return Ok(None) };
        #[derive(QueryableByName)]
        struct Newest {
            #[diesel(sql_type = Nullable<Instant>)]
            at: Option<Timestamp>,
        }
        let of_slug = "SELECT max(at) AS at FROM events WHERE service = $1";
        let of_deployment = "SELECT max(at) AS at FROM events
            WHERE service = (SELECT service FROM deployments WHERE id = $1)";
        let newest: Newest = match self {
            Self::Named(slug) => {
                Kept(diesel::sql_query(of_slug).bind::<Text, _>(slug)).get_result(c)?
            }
            Self::OfDeployment(id) => {
                Kept(diesel::sql_query(of_deployment).bind::<Identifier, _>(id)).get_result(c)?
            }
        };
        Ok(Some(clock::after(newest.at)))
    }
}

/// A service that a transaction has locked.
#[derive(Debug, Clone, Copy)]
pub struct Locked {
    /// Whether the service exists. One that does not cannot be locked.
    pub exists: bool,
    /// The time of the transaction, later than every event of the service: whoever waited for the
    /// lock is later than whoever held it, whatever the clocks say.
    pub now: Timestamp,
}

#[derive(QueryableByName)]
struct LockedRow {
    #[diesel(sql_type = Bool)]
    is_known: bool,
    /// On PostgreSQL the time of the transaction, on SQLite that of the newest event.
    #[diesel(sql_type = Nullable<Instant>)]
    now: Option<Timestamp>,
}

/// Locks the row of a service. This takes one statement.
pub fn service(db: &mut Db, slug: &str) -> QueryResult<Locked> {
    let statement = match db {
        Db::Pg(_) => "SELECT is_known, now FROM lock_service($1)",
        Db::Sqlite(_) => {
            "SELECT EXISTS (SELECT 1 FROM services WHERE slug = $1) AS is_known,
                (SELECT max(at) FROM events WHERE service = $1) AS now"
        }
    };
    struct LockService;
    let row: LockedRow = each_backend!(db, |c| {
        let query = diesel::sql_query(statement).bind::<Text, _>(slug);
        Fixed::new(query, LockService).get_result(c)
    })?;
    let now = match db {
        Db::Pg(_) => row.now.unwrap_or_else(Timestamp::now),
        Db::Sqlite(_) => clock::after(row.now),
    };
    Ok(Locked { exists: row.is_known, now })
}

/// Locks the row of an environment, if it exists.
pub fn environment(db: &mut Db, slug: &str) -> QueryResult<()> {
    if let Db::Pg(c) = db {
        let row = environments::table.find(slug).select(environments::slug).for_no_key_update();
        row.execute(c)?;
    }
    Ok(())
}

/// Locks the row of a freeze, if it exists.
pub fn freeze(db: &mut Db, id: FreezeId) -> QueryResult<()> {
    if let Db::Pg(c) = db {
        freezes::table.find(id).select(freezes::id).for_no_key_update().execute(c)?;
    }
    Ok(())
}

/// Locks all environments against changes by others, who can still read them.
pub fn all_environments(db: &mut Db) -> QueryResult<()> {
    table(db, "environments")
}

/// Locks all keys against changes by others, who can still read them.
pub fn all_keys(db: &mut Db) -> QueryResult<()> {
    table(db, "keys")
}

fn table(db: &mut Db, name: &'static str) -> QueryResult<()> {
    if let Db::Pg(c) = db {
        let lock = format!("LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE");
        diesel::sql_query(lock).execute(c)?;
    }
    Ok(())
}

/// Locks a number, unless another transaction has locked it. Returns whether it is locked now.
pub fn try_number(db: &mut Db, number: i64) -> QueryResult<bool> {
    match db {
        Db::Pg(c) => {
            struct TryNumber;
            let lock = sql::<Bool>("pg_try_advisory_xact_lock(").bind::<BigInt, _>(number).sql(")");
            Fixed::new(select(lock), TryNumber).get_result(c)
        }
        Db::Sqlite(_) => Ok(true),
    }
}
