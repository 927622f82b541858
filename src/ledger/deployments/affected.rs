//! The deployments of a place for which something else may follow from a changed fact.

use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};
use serde_json::Value;

use crate::db::Db;
use crate::db::asked::Asking;
use crate::db::columns::{Document, Identifier, Instant, Json};
use crate::db::kept::Fixed;
use crate::db::locks::Service;
use crate::each_backend;
use crate::ledger::deployments::{Deployment, DeploymentWithDecision};
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;

/// A deployment that a changed fact can affect.
#[derive(Debug, QueryableByName)]
pub struct Affected {
    /// The deployment itself.
    #[diesel(embed)]
    pub deployment: Deployment,
    /// Its release had been live in the place before.
    #[diesel(sql_type = Bool)]
    pub was_live: bool,
    /// It is linked to an incident as its fix.
    #[diesel(sql_type = Bool)]
    pub is_fix: bool,
    /// The time of its release's newest commit.
    #[diesel(sql_type = Nullable<Instant>)]
    pub last_commit_at: Option<Timestamp>,
}

/// What a fact of the deployment `asked.deployment` at `asked.since` can affect in its place: what
/// started or ended then or later, what has not ended, what was live until then, and the deployment
/// itself.
///
/// The last part has no join: only so does PostgreSQL know that the rows come in the order of the
/// index, and reads no more than the first.
const AFFECTED: &str = "
    SELECT d.*, moment.now, moment.is_locked,
        EXISTS (SELECT 1 FROM deployments f
            WHERE f.finished_at < asked.since AND f.release_id = d.release_id
            AND f.environment = d.environment
            AND f.state IN ('succeeded', 'superseded', 'rolled_back')) AS was_live,
        EXISTS (SELECT 1 FROM incident_deployments l
            WHERE l.deployment_id = d.id AND l.role = 'fixed_by') AS is_fix,
        (SELECT r.last_commit_at FROM releases r WHERE r.id = d.release_id) AS last_commit_at
    FROM asked, moment, deployments d
    WHERE d.id IN (
        SELECT a.deployment FROM asked a
        UNION ALL
        SELECT s.id FROM asked a, deployments s
        WHERE s.service = a.service AND s.environment = a.environment AND s.started_at >= a.since
        UNION ALL
        SELECT e.id FROM asked a, deployments e
        WHERE e.service = a.service AND e.environment = a.environment AND e.finished_at >= a.since
        UNION ALL
        SELECT u.id FROM asked a, deployments u
        WHERE u.service = a.service AND u.environment = a.environment AND u.finished_at IS NULL
            AND u.started_at IS NOT NULL
        UNION ALL
        SELECT id FROM (SELECT p.id FROM deployments p
            WHERE p.service = (SELECT service FROM asked)
            AND p.environment = (SELECT environment FROM asked)
            AND p.finished_at < (SELECT since FROM asked)
            AND p.state IN ('succeeded', 'superseded', 'rolled_back')
            ORDER BY p.finished_at DESC, p.started_at DESC, p.id DESC LIMIT 1) AS live_before)";

/// Loads what a fact of the deployment at `since` can affect.
///
/// # Errors
/// That of the database.
pub fn load(db: &mut Db, changed: &Deployment, since: Timestamp) -> QueryResult<Vec<Affected>> {
    struct AtFact;
    let asked = diesel::sql_query(
        "SELECT $1 AS deployment, $2 AS service, $3 AS environment, $4 AS since, $4 AS given",
    )
    .bind::<Identifier, _>(changed.id)
    .bind::<Text, _>(&changed.service)
    .bind::<Text, _>(&changed.environment)
    .bind::<Instant, _>(since);
    let query = Asking { asked, query: diesel::sql_query(AFFECTED) };
    each_backend!(db, |c| Fixed::new(query, AtFact).load(c))
}

/// A deployment that is to end, and what its end can affect.
pub struct Ending {
    /// The deployment.
    pub found: DeploymentWithDecision,
    /// What its end can affect, if it has started, and the deployment itself.
    pub affected: Vec<Affected>,
    /// The time of the transaction, if it has locked the service.
    pub now: Timestamp,
    /// Whether the transaction began with the lock of the service.
    pub is_locked: bool,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(embed)]
    affected: Affected,
    #[diesel(sql_type = Nullable<Document>)]
    decision: Option<Json<Value>>,
    #[diesel(sql_type = Instant)]
    now: Timestamp,
    #[diesel(sql_type = Bool)]
    is_locked: bool,
}

/// Loads a deployment and what its end can affect. `None` when it does not exist. `given` is the
/// time of the transaction, if it is known already.
///
/// # Errors
/// That of the database.
pub fn load_ending(
    db: &mut Db,
    id: DeploymentId,
    given: Option<Timestamp>,
) -> QueryResult<Option<Ending>> {
    struct AtEnd;
    let given = match given {
        Some(now) => Some(now),
        None => Service::OfDeployment(id).time(db)?,
    };
    let asked = diesel::sql_query(
        "SELECT d.id AS deployment, d.service, d.environment, d.started_at AS since, $1 AS given
            FROM deployments d WHERE d.id = $2",
    )
    .bind::<Nullable<Instant>, _>(given)
    .bind::<Identifier, _>(id);
    let query = Asking { asked, query: diesel::sql_query(AFFECTED) };
    let mut rows: Vec<Row> = each_backend!(db, |c| Fixed::new(query, AtEnd).load(c))?;
    let own = rows.iter_mut().find(|row| row.affected.deployment.id == id);
    Ok(own
        .map(|own| {
            let (deployment, decision) = (own.affected.deployment.clone(), own.decision.take());
            let found = DeploymentWithDecision { deployment, decision };
            (found, own.now, own.is_locked)
        })
        .map(|(found, now, is_locked)| Ending {
            found,
            affected: rows.into_iter().map(|row| row.affected).collect(),
            now,
            is_locked,
        }))
}
