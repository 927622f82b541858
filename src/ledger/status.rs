//! The grid: what is live in each place, and what is on its way there.

use actix_web::get;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use serde::Serialize;
use std::collections::HashMap;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::Db;
use crate::db::schema::{deployments, environments, releases, services};
use crate::db::types::sql::Instant;
use crate::db::types::{Json, Timestamp};
use crate::error::Error;
use crate::http::context::{Ctx, Read};
use crate::http::reply::Reply;
use crate::ledger::deployments::settled;
use crate::ledger::environments::Tier;
use crate::ledger::freezes;
use crate::ledger::ids::{DeploymentId, FreezeId, IncidentId, ReleaseId};
use crate::ledger::incidents::{self, ImpactLevel};
use crate::ledger::releases::{Scan, ScanStatus};
use crate::rules::calendar::Until;
use crate::rules::lifecycle::{Kind, State};

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(show);
}

/// Every service in every environment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "environments": [{"slug": "production", "name": "Production", "tier": "production", "require_scan": true}],
    "services": [{"slug": "checkout", "name": "Checkout", "owner": "payments", "places": [{
        "environment": "production",
        "live": {"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2",
            "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
            "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "state": "succeeded", "kind": "normal", "requested_by": "pipeline", "since": "2026-02-03T04:07:00.000000Z", "expires_at": null,
            "scan": "passed", "ungated": false},
        "running": null, "waiting": [], "frozen": null, "incident": null,
        "behind": {"environment": "staging", "version": "1.5.0", "releases": 2, "since": "2026-02-03T06:00:00.000000Z"}}]}]
}))]
struct Grid {
    /// The columns: from development to production.
    environments: Vec<Column>,
    /// The rows, by slug.
    services: Vec<Row>,
}

/// An environment.
#[derive(Debug, Serialize, ToSchema, Queryable, Selectable)]
#[diesel(table_name = environments)]
struct Column {
    slug: String,
    name: String,
    tier: Tier,
    /// Whether it asks for a scan of what goes there.
    require_scan: bool,
}

/// A service, and the places where something of it is or will be.
#[derive(Debug, Serialize, ToSchema)]
struct Row {
    slug: String,
    name: String,
    owner: Option<String>,
    /// Places with neither a current deployment nor an open incident are left out.
    places: Vec<Cell>,
}

/// A service in an environment.
#[derive(Debug, Serialize, ToSchema)]
struct Cell {
    environment: String,
    /// What runs there.
    live: Option<Current>,
    /// What is being rolled out.
    running: Option<Current>,
    /// What awaits approval or its start.
    waiting: Vec<Current>,
    /// The freeze that holds there now.
    frozen: Option<Frozen>,
    /// What is wrong there: the open incident that was noticed first.
    incident: Option<OpenIncident>,
    /// What is live in the environment that comes before, and newer than what is live here.
    behind: Option<Behind>,
}

/// A freeze, in brief.
#[derive(Debug, Serialize, ToSchema)]
struct Frozen {
    freeze_id: FreezeId,
    reason: String,
    /// Until when, if nobody ends it earlier; `null`, when somebody must.
    until: Option<Timestamp>,
}

/// An incident that goes on, in brief.
#[derive(Debug, Serialize, ToSchema)]
struct OpenIncident {
    id: IncidentId,
    title: String,
    severity: ImpactLevel,
    /// When it was noticed.
    since: Timestamp,
}

/// How far a place is behind the environment that comes before it: its predecessor, or staging where none is named for
/// production.
#[derive(Debug, Serialize, ToSchema)]
struct Behind {
    environment: String,
    /// What is live there.
    version: String,
    /// How many releases were recorded from the one that is live here to the one that is live there.
    releases: i64,
    /// When the first of them was committed; recorded, where that is not known.
    since: Timestamp,
}

/// A deployment, in brief.
#[derive(Debug, Serialize, ToSchema)]
struct Current {
    id: DeploymentId,
    release_id: ReleaseId,
    version: String,
    git_sha: Option<String>,
    image_digest: Option<String>,
    state: State,
    kind: Kind,
    requested_by: String,
    /// Live since, running since, or waiting since.
    since: Timestamp,
    /// Until when it may wait, if it waits.
    expires_at: Option<Timestamp>,
    /// What came of the release's scan.
    scan: ScanStatus,
    /// It started although the gate said no.
    ungated: bool,
}

/// What runs where
///
/// The grid of services by environments.
#[utoipa::path(tag = "status", operation_id = "get_status", security(("key" = ["read"])),
    responses((status = 200, body = Grid, headers(("ETag" = String)))))]
#[get("/status")]
async fn show(ctx: Ctx<Read>) -> Result<Reply, Error> {
    let grid = settled(&ctx, grid, Grid::has_overdue).await?;
    Ok(Reply::ok(&grid)?.tagged())
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
struct Found {
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

impl From<Found> for Current {
    fn from(found: Found) -> Self {
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
            scan: found.scan.0.status,
            ungated: found.ungated,
        }
    }
}

impl Grid {
    fn has_overdue(&self) -> bool {
        let now = Timestamp::now();
        let waiting =
            self.services.iter().flat_map(|row| &row.places).flat_map(|cell| &cell.waiting);
        waiting.filter_map(|current| current.expires_at).any(|end| end <= now)
    }
}

/// What is live in a place, beside what is newer and live in the environment before it.
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

/// Costs as much as there are releases between the two. Where nothing names a predecessor, production follows staging.
const LAGS: &str = "
    SELECT here.service AS service, here.environment AS environment, there.environment AS before, there.version AS version,
        count(*) AS releases, min(coalesce(missing.committed_at, missing.created_at)) AS since
    FROM environments e
    JOIN deployments here ON here.environment = e.slug AND here.state = 'succeeded'
    JOIN deployments there ON there.service = here.service AND there.state = 'succeeded' AND there.environment = coalesce(
        e.predecessor, (SELECT min(s.slug) FROM environments s WHERE s.tier = 'staging' AND e.tier = 'production'))
    JOIN releases live ON live.id = here.release_id
    JOIN releases next ON next.id = there.release_id
    JOIN releases missing ON missing.service = here.service AND missing.created_at > live.created_at AND missing.created_at <= next.created_at
    GROUP BY here.service, here.environment, there.environment, there.version";

/// Five queries whatever the size of the history: the columns, the services with what is current of them, the freezes, the
/// incidents, and what is behind.
fn grid(db: &mut Db) -> Result<Grid, Error> {
    let mut columns: Vec<Column> =
        environments::table.select(Column::as_select()).order(environments::slug).load(db)?;
    columns.sort_by_key(|column| column.tier as u8);

    let is_current = deployments::state
        .eq(State::Succeeded.word())
        .or(deployments::state.eq(State::Running.word()))
        .or(deployments::state.eq(State::AwaitingApproval.word()))
        .or(deployments::state.eq(State::Approved.word()));
    let rows: Vec<(Service, Option<Found>)> = services::table
        .left_join(
            deployments::table
                .inner_join(releases::table.on(releases::id.eq(deployments::release_id)))
                .on(deployments::service.eq(services::slug).and(is_current)),
        )
        .select((Service::as_select(), Option::<Found>::as_select()))
        .order((services::slug, deployments::environment, deployments::requested_at))
        .load(db)?;

    let now = Timestamp::now();
    let freezes = freezes::open(db, now)?;
    let mut incidents: HashMap<String, Vec<_>> = HashMap::new();
    for incident in incidents::open(db)? {
        incidents.entry(incident.service.clone()).or_default().push(incident);
    }
    let lags: Vec<Lag> = diesel::sql_query(LAGS).load(db)?;
    let mut lags: HashMap<_, _> =
        lags.into_iter().map(|lag| ((lag.service.clone(), lag.environment.clone()), lag)).collect();
    let mut grid = Grid { environments: columns, services: Vec::new() };
    for (service, found) in rows {
        if grid.services.last().is_none_or(|row| row.slug != service.slug) {
            grid.services.push(Row {
                slug: service.slug,
                name: service.name,
                owner: service.owner,
                places: Vec::new(),
            });
        }
        if let (Some(row), Some(found)) = (grid.services.last_mut(), found) {
            row.add(found);
        }
    }
    for row in &mut grid.services {
        for incident in incidents.remove(&row.slug).unwrap_or_default() {
            let cell = row.at(&incident.environment);
            cell.incident.get_or_insert(OpenIncident {
                id: incident.id,
                title: incident.title,
                severity: incident.severity,
                since: incident.detected_at,
            });
        }
        for cell in &mut row.places {
            cell.behind =
                lags.remove(&(row.slug.clone(), cell.environment.clone())).map(|lag| Behind {
                    environment: lag.before,
                    version: lag.version,
                    releases: lag.releases,
                    since: lag.since,
                });
            cell.frozen = freezes.iter().find_map(|freeze| {
                let until = freeze.holds(&row.slug, &cell.environment, now)?;
                let until = if let Until::At(end) = until { Some(end.into()) } else { None };
                Some(Frozen { freeze_id: freeze.id, reason: freeze.reason.clone(), until })
            });
        }
    }
    Ok(grid)
}

impl Cell {
    fn empty(environment: &str) -> Self {
        let environment = environment.to_owned();
        Self {
            environment,
            live: None,
            running: None,
            waiting: Vec::new(),
            frozen: None,
            incident: None,
            behind: None,
        }
    }
}

impl Row {
    fn add(&mut self, found: Found) {
        let cell = self.at(&found.environment);
        match found.state {
            State::Succeeded => cell.live = Some(found.into()),
            State::Running => cell.running = Some(found.into()),
            _ => cell.waiting.push(found.into()),
        }
    }

    /// The place in an environment; they are kept in the order of these.
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
