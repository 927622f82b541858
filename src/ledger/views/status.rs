//! The status grid of all places: what is live in each one, and what is about to be deployed there.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use serde::Serialize;
use std::collections::HashMap;
use utoipa::ToSchema;

use crate::db::Db;
use crate::db::columns::{Instant, Json};
use crate::db::kept::Fixed;
use crate::db::schema::{deployments, environments, releases, services};
use crate::each_backend;
use crate::error::Error;
use crate::http::context::{Ctx, Read};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::expiry::{Snapshot, settled};
use crate::ledger::deployments::gate;
use crate::ledger::environments::Tier;
use crate::ledger::freezes;
use crate::ledger::incidents::{self, ImpactLevel};
use crate::ledger::releases::{Scan, ScanStatus};
use crate::rules::gate::Code;
use crate::rules::lifecycle::{Kind, State};
use crate::rules::schedule::Until;
use crate::types::ids::{DeploymentId, FreezeId, IncidentId, ReleaseId};
use crate::types::time::Timestamp;

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(show, __path_show);
}

/// The status of all places: services as rows, environments as columns.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "environments": [{"slug": "production", "name": "Production", "tier": "production",
        "require_scan": true}],
    "services": [{"slug": "checkout", "name": "Checkout", "owner": "payments", "places": [{
        "environment": "production",
        "live": {"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42",
            "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2",
            "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
            "image_digest":
                "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "state": "succeeded", "kind": "normal", "requested_by": "pipeline",
            "since": "2026-02-03T04:07:00.000000Z", "expires_at": null,
            "blocked": null, "scan": "passed", "ungated": false},
        "running": null, "waiting": [], "more_waiting": 0, "last_failed": null, "frozen": null,
        "incident": null,
        "behind": {"environment": "staging", "version": "1.5.0", "releases": 2,
            "since": "2026-02-03T06:00:00.000000Z"}}]}]
}))]
struct Grid {
    /// The environments, from development to production.
    environments: Vec<Column>,
    /// The services, in the order of their slugs.
    services: Vec<Row>,
}

/// An environment: a column of the grid.
#[derive(Debug, Serialize, ToSchema, Queryable, Selectable)]
#[diesel(table_name = environments)]
struct Column {
    /// The name of the environment in URLs.
    slug: String,
    /// The name of the environment for people.
    name: String,
    /// The purpose of the environment.
    tier: Tier,
    /// Whether a release must have passed a scan.
    require_scan: bool,
}

/// A service with its places: a row of the grid.
#[derive(Debug, Serialize, ToSchema)]
struct Row {
    /// The name of the service in URLs.
    slug: String,
    /// The name of the service for people.
    name: String,
    /// The team or person that is responsible for the service. `null` when it is unknown.
    owner: Option<String>,
    /// The places that have a current deployment, a last failure or an open incident, in the order
    /// of their environments' slugs. Other places are omitted.
    places: Vec<Cell>,
}

/// A place: a service in an environment.
#[derive(Debug, Serialize, ToSchema)]
struct Cell {
    /// The slug of the environment.
    environment: String,
    /// The deployment that is live. `null` when nothing is live.
    live: Option<Current>,
    /// The deployment that is being rolled out. `null` when none is.
    running: Option<Current>,
    /// The deployments that wait for approval or for their start, the oldest request first. Only
    /// the 10 that were requested last are listed.
    waiting: Vec<Current>,
    /// The number of deployments that wait besides those in `waiting`.
    more_waiting: i64,
    /// When the first of all that wait expires.
    #[serde(skip)]
    first_expiry: Option<Timestamp>,
    /// The last failed deployment, if it failed after the live one had succeeded. `null` when there
    /// is none.
    last_failed: Option<Current>,
    /// A freeze that applies to the place now. `null` when none does.
    frozen: Option<Frozen>,
    /// The open incident that was detected first. `null` when there is none.
    incident: Option<OpenIncident>,
    /// The newer release that is live in the preceding environment. `null` when there is none.
    behind: Option<Behind>,
}

/// The summary of a freeze.
#[derive(Debug, Serialize, ToSchema)]
struct Frozen {
    /// The identifier of the freeze.
    freeze_id: FreezeId,
    /// Why deployments are blocked, for the people who are affected.
    reason: String,
    /// When the freeze ends if nobody ends it earlier. `null` when it lasts until somebody ends it.
    until: Option<Timestamp>,
}

/// The summary of an open incident.
#[derive(Debug, Serialize, ToSchema)]
struct OpenIncident {
    /// The identifier of the incident.
    id: IncidentId,
    /// What is wrong, in one line.
    title: String,
    /// The impact of the incident on users.
    severity: ImpactLevel,
    /// When the incident was detected.
    since: Timestamp,
}

/// How far a place is behind its preceding environment: its `predecessor`, or, for production
/// without one, staging.
#[derive(Debug, Serialize, ToSchema)]
struct Behind {
    /// The slug of the preceding environment.
    environment: String,
    /// The version that is live there.
    version: String,
    /// The number of releases after the one that is live here, up to the one that is live there, in
    /// the order of their newest commits. The time at which a release was made, or was recorded,
    /// counts where the commits are unknown. 100, when there are more.
    releases: i64,
    /// The time of the earliest of these releases.
    since: Timestamp,
}

/// The summary of a deployment.
#[derive(Debug, Serialize, ToSchema)]
struct Current {
    /// The identifier of the deployment.
    id: DeploymentId,
    /// The identifier of the release that is deployed.
    release_id: ReleaseId,
    /// The version of the release.
    version: String,
    /// The git commit of the release. `null` while it is unknown.
    git_sha: Option<String>,
    /// The image digest of the release. `null` while it is unknown.
    image_digest: Option<String>,
    /// The current state of the deployment.
    state: State,
    /// How the release compares with what was live in the place before.
    kind: Kind,
    /// The name of the person or pipeline that requested the deployment.
    requested_by: String,
    /// Since when the deployment has been live, running or waiting, or when it failed.
    since: Timestamp,
    /// When a waiting deployment expires. `null` when it does not wait.
    expires_at: Option<Timestamp>,
    /// The codes of the gate for the reasons why a waiting deployment cannot start now. Empty when
    /// nothing blocks it. `null` when it does not wait, and for all but the 20 deployments listed
    /// here that have waited longest.
    blocked: Option<Vec<Code>>,
    /// Whether the release was scanned, and whether it passed.
    scan: ScanStatus,
    /// Whether it started although the gate blocked it.
    ungated: bool,
}

/// Read the status of all places
///
/// Answers the grid of all services and environments: what is live in each place, what is being
/// rolled out or waits there, and what blocks it.
#[utoipa::path(get, path = "/status",
    tag = "status", operation_id = "get_status", security(("key" = ["read"])),
    responses((status = 200, description = "The status of all places.", body = Grid,
        headers(("ETag" = String)))))]
async fn show(ctx: Ctx<Read>) -> Result<Reply, Error> {
    settled(&ctx, async || {
        ctx.read(|db| {
            let grid = grid(db)?;
            Ok(Snapshot { reply: Reply::ok(&grid)?.tagged(), is_overdue: grid.has_overdue() })
        })
        .await
    })
    .await
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = services)]
struct Service {
    slug: String,
    name: String,
    owner: Option<String>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = deployments)]
struct DeploymentRow {
    environment: String,
    id: DeploymentId,
    release_id: ReleaseId,
    version: String,
    git_sha: Option<String>,
    image_digest: Option<String>,
    state: State,
    kind: Kind,
    requested_by: String,
    requested_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    ungated: bool,
    #[diesel(select_expression = releases::scan)]
    scan: Json<Scan>,
}

/// How many deployments of a place the status lists of those that wait.
const LISTED: &str = "10";

/// The condition of those that wait.
const WAITS: &str = "state IN ('awaiting_approval', 'approved')";

/// Of a waiting deployment: a value of all that wait in its place. The partial index of those that
/// wait serves it, and at most [`LISTED`] rows of a place have it.
fn of_waiting_place(value: &str) -> String {
    format!(
        "(CASE WHEN deployments.{WAITS} THEN (SELECT {value} FROM deployments w
            WHERE w.service = deployments.service AND w.environment = deployments.environment
                AND w.{WAITS}) END)"
    )
}

impl From<DeploymentRow> for Current {
    fn from(found: DeploymentRow) -> Self {
        Self {
            since: found.finished_at.or(found.started_at).unwrap_or(found.requested_at),
            id: found.id,
            release_id: found.release_id,
            version: found.version,
            git_sha: found.git_sha,
            image_digest: found.image_digest,
            state: found.state,
            kind: found.kind,
            requested_by: found.requested_by,
            expires_at: found.expires_at,
            blocked: None,
            scan: found.scan.0.status,
            ungated: found.ungated,
        }
    }
}

impl Grid {
    /// The rows by the slugs of their services.
    fn rows(&mut self) -> HashMap<String, &mut Row> {
        self.services.iter_mut().map(|row| (row.slug.clone(), row)).collect()
    }

    fn has_overdue(&self) -> bool {
        let now = Timestamp::now();
        let places = self.services.iter().flat_map(|row| &row.places);
        places.filter_map(|cell| cell.first_expiry).any(|end| end <= now)
    }
}

/// A place in which an older release is live than in the preceding environment.
#[derive(QueryableByName)]
struct Lag {
    #[diesel(sql_type = Text)]
    service: String,
    #[diesel(sql_type = Text)]
    environment: String,
    #[diesel(sql_type = Text)]
    before: String,
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = BigInt)]
    releases: i64,
    #[diesel(sql_type = Instant)]
    since: Timestamp,
}

/// Selects the places that are behind. The index of a service's releases in their order serves it,
/// and it counts up to 100 for a place. Production without a predecessor follows staging.
const LAGS: &str = "
    SELECT service, environment, before, version, releases, since FROM (
        SELECT service, environment, before, version,
            (SELECT count(*) FROM (
                SELECT coalesce(m.last_commit_at, m.at, m.created_at) AS missing_at
                FROM releases m WHERE m.service = pairs.service
                AND coalesce(m.last_commit_at, m.at, m.created_at) > here_at
                ORDER BY coalesce(m.last_commit_at, m.at, m.created_at) LIMIT 100) missing
                WHERE missing_at <= there_at) AS releases,
            (SELECT coalesce(m.last_commit_at, m.at, m.created_at) FROM releases m
                WHERE m.service = pairs.service
                AND coalesce(m.last_commit_at, m.at, m.created_at) > here_at
                ORDER BY coalesce(m.last_commit_at, m.at, m.created_at) LIMIT 1) AS since
        FROM (
            SELECT here.service, here.environment, there.environment AS before, there.version,
                (SELECT coalesce(r.last_commit_at, r.at, r.created_at) FROM releases r
                    WHERE r.id = here.release_id) AS here_at,
                (SELECT coalesce(r.last_commit_at, r.at, r.created_at) FROM releases r
                    WHERE r.id = there.release_id) AS there_at
            FROM environments e
            JOIN deployments here ON here.environment = e.slug AND here.state = 'succeeded'
            JOIN deployments there ON there.service = here.service AND there.state = 'succeeded'
                AND there.environment = coalesce(e.predecessor, (
                    SELECT min(s.slug) FROM environments s
                    WHERE s.tier = 'staging' AND e.tier = 'production'))) pairs) lags
    WHERE releases > 0";

/// The last failure of each place since its live deployment succeeded. The cost depends on the
/// number of places, and of attempts since then: the index of the ends of a place serves it.
const LAST_FAILURES: &str = "
    deployments.id IN (SELECT (
        SELECT f.id FROM deployments f
        WHERE f.service = s.slug AND f.environment = e.slug AND f.state = 'failed'
            AND f.finished_at > coalesce((
                SELECT l.finished_at FROM deployments l
                WHERE l.service = s.slug AND l.environment = e.slug AND l.state = 'succeeded'),
                '0001-01-01T00:00:00Z')
        ORDER BY f.finished_at DESC, f.id DESC LIMIT 1)
    FROM services s CROSS JOIN environments e)";

/// Loads the grid with six queries, whatever the length of the history: the environments, the
/// services with their current deployments, the last failures, the incidents, the places that are
/// behind, and the freezes. The gate takes two more for each of at most [`EVALUATED`] waiting
/// deployments.
fn grid(db: &mut Db) -> Result<Grid, Error> {
    let environments = environments(db)?;
    let mut grid = Grid { environments, services: services_with_deployments(db)? };
    add_last_failures(db, &mut grid)?;
    add_incidents(db, &mut grid)?;
    add_lags(db, &mut grid)?;
    add_freezes(db, &mut grid)?;
    evaluate_waiting(db, &mut grid)?;
    Ok(grid)
}

fn environments(db: &mut Db) -> QueryResult<Vec<Column>> {
    let mut columns: Vec<Column> =
        environments::table.select(Column::as_select()).order(environments::slug).load(db)?;
    columns.sort_by_key(|column| column.tier as u8);
    Ok(columns)
}

/// Loads the services, each with what is live, running or waiting in its places. What waits is
/// limited for each place, since a client may record any number.
fn services_with_deployments(db: &mut Db) -> QueryResult<Vec<Row>> {
    // Each part has its partial index. With OR between them the whole history would be read.
    let is_current = sql::<Bool>(&format!(
        "deployments.id IN (
            SELECT id FROM deployments WHERE state = 'succeeded'
            UNION ALL
            SELECT id FROM deployments WHERE state = 'running'
            UNION ALL
            SELECT id FROM (
                SELECT id, row_number() OVER (
                    PARTITION BY service, environment ORDER BY requested_at DESC, id DESC) AS n
                FROM deployments WHERE {WAITS}) waiting WHERE n <= {LISTED})"
    ));
    type Found = (Service, Option<DeploymentRow>, Option<i64>, Option<Timestamp>);
    struct ServicesWithDeployments;
    let joined = services::table.left_join(
        deployments::table
            .inner_join(releases::table.on(releases::id.eq(deployments::release_id)))
            .on(deployments::service.eq(services::slug).and(is_current)),
    );
    let found: Vec<Found> = each_backend!(db, |c| {
        let query = joined
            .select((
                Service::as_select(),
                Option::<DeploymentRow>::as_select(),
                sql::<Nullable<BigInt>>(&of_waiting_place("count(*)")),
                sql::<Nullable<Instant>>(&of_waiting_place("min(w.expires_at)")),
            ))
            .order((services::slug, deployments::environment, deployments::requested_at));
        Fixed::new(query, ServicesWithDeployments).load(c)
    })?;
    let mut rows: Vec<Row> = Vec::new();
    for (Service { slug, name, owner }, deployment, waiting, first_expiry) in found {
        if rows.last().is_none_or(|row| row.slug != slug) {
            rows.push(Row { slug, name, owner, places: Vec::new() });
        }
        if let (Some(row), Some(deployment)) = (rows.last_mut(), deployment) {
            let cell = row.add(deployment);
            if let Some(waiting) = waiting {
                cell.more_waiting = waiting - cell.waiting.len() as i64;
                cell.first_expiry = first_expiry;
            }
        }
    }
    Ok(rows)
}

fn add_last_failures(db: &mut Db, grid: &mut Grid) -> QueryResult<()> {
    struct LastFailures;
    let failures: Vec<(String, DeploymentRow)> = each_backend!(db, |c| {
        let query = deployments::table
            .inner_join(releases::table.on(releases::id.eq(deployments::release_id)))
            .filter(sql::<Bool>(LAST_FAILURES))
            .select((deployments::service, DeploymentRow::as_select()));
        Fixed::new(query, LastFailures).load(c)
    })?;
    let mut rows = grid.rows();
    for (service, failure) in failures {
        if let Some(row) = rows.get_mut(&service) {
            row.add(failure);
        }
    }
    Ok(())
}

/// Adds to each place the first of its open incidents.
fn add_incidents(db: &mut Db, grid: &mut Grid) -> QueryResult<()> {
    let mut rows = grid.rows();
    for incident in incidents::open(db)? {
        if let Some(row) = rows.get_mut(&*incident.service) {
            row.at(&incident.environment).incident.get_or_insert(OpenIncident {
                id: incident.id,
                title: incident.title.into(),
                severity: incident.severity,
                since: incident.detected_at,
            });
        }
    }
    Ok(())
}

fn add_lags(db: &mut Db, grid: &mut Grid) -> QueryResult<()> {
    struct Lags;
    let lags: Vec<Lag> = each_backend!(db, |c| Fixed::new(diesel::sql_query(LAGS), Lags).load(c))?;
    let mut rows = grid.rows();
    for lag in lags {
        let places = rows.get_mut(&lag.service).map(|row| row.places.iter_mut());
        let cell = places.and_then(|mut it| it.find(|cell| cell.environment == lag.environment));
        if let Some(cell) = cell {
            cell.behind = Some(Behind {
                environment: lag.before,
                version: lag.version,
                releases: lag.releases,
                since: lag.since,
            });
        }
    }
    Ok(())
}

/// Adds the freezes that apply now. A freeze of a place without a cell is not shown.
fn add_freezes(db: &mut Db, grid: &mut Grid) -> QueryResult<()> {
    let now = Timestamp::now();
    let freezes = freezes::open(db, now)?;
    for Row { slug, places, .. } in &mut grid.services {
        for cell in places {
            cell.frozen = freezes.iter().find_map(|freeze| {
                let until = match freeze.holds(slug, &cell.environment, now)? {
                    Until::At(end) => Some(end),
                    Until::Ended => None,
                };
                Some(Frozen { freeze_id: freeze.id, reason: freeze.reason.clone().into(), until })
            });
        }
    }
    Ok(())
}

/// For how many waiting deployments the status evaluates the gate.
const EVALUATED: usize = 20;

/// Evaluates the gate for the deployments that have waited longest.
fn evaluate_waiting(db: &mut Db, grid: &mut Grid) -> Result<(), Error> {
    let mut waiting: Vec<&mut Current> = Vec::new();
    for Cell { waiting: here, .. } in grid.services.iter_mut().flat_map(|row| &mut row.places) {
        waiting.extend(here);
    }
    waiting.sort_by_key(|current| (current.since, current.id));
    for current in waiting.into_iter().take(EVALUATED) {
        current.blocked = Some(gate::blocked(db, current.id)?);
    }
    Ok(())
}

impl Cell {
    fn empty(environment: &str) -> Self {
        let environment = environment.to_owned();
        Self {
            environment,
            live: None,
            running: None,
            waiting: Vec::new(),
            more_waiting: 0,
            first_expiry: None,
            last_failed: None,
            frozen: None,
            incident: None,
            behind: None,
        }
    }
}

impl Row {
    /// Adds a deployment to its place, and returns the place.
    fn add(&mut self, found: DeploymentRow) -> &mut Cell {
        let cell = self.at(&found.environment);
        match found.state {
            State::Succeeded => cell.live = Some(found.into()),
            State::Running => cell.running = Some(found.into()),
            State::Failed => cell.last_failed = Some(found.into()),
            _ => cell.waiting.push(found.into()),
        }
        cell
    }

    /// The place in an environment, added if it is missing. Places are sorted by environment.
    fn at(&mut self, environment: &str) -> &mut Cell {
        let at = self
            .places
            .binary_search_by(|cell| cell.environment.as_str().cmp(environment))
            .unwrap_or_else(|at| {
                self.places.insert(at, Cell::empty(environment));
                at
            });
        &mut self.places[at]
    }
}
