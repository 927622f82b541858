//! The state of a place as the gate needs it, loaded with one statement.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};
use serde::Deserialize;
use uuid::Uuid;

use crate::db::Db;
use crate::db::asked::Asking;
use crate::db::columns::{Identifier, Instant, Json};
use crate::db::json::{self, Column, JsonRows};
use crate::db::kept::Fixed;
use crate::db::locks::Service;
use crate::db::schema::{deployments, environments, releases, services};
use crate::each_backend;
use crate::error::Error;
use crate::http::context::Actor;
use crate::ledger::deployments::{Deployment, DeploymentWithDecision, is_way_back};
use crate::ledger::environments::Environment;
use crate::ledger::releases::Release;
use crate::rules::gate::{Facts, Freeze, Incident, Review};
use crate::rules::lifecycle::{self, Kind, State};
use crate::rules::schedule::{Schedule, Weekly};
use crate::rules::timeline;
use crate::types::ids::{DeploymentId, IncidentId, ReleaseId};
use crate::types::time::Timestamp;
use crate::types::values::{Digest, Slug};

/// The current state of a place for a release, and perhaps for a recorded deployment.
pub struct PlaceSnapshot {
    /// The environment. `None` when it does not exist.
    pub environment: Option<Environment>,
    /// The release. `None` when it does not exist.
    pub release: Option<Release>,
    /// The live deployment and its release. `None` when nothing is live there.
    pub live: Option<(DeploymentId, ReleaseId)>,
    /// The deployment that is being rolled out in the place.
    pub running: Option<DeploymentId>,
    /// The state of the release's last deployment that was live there before: superseded or rolled
    /// back.
    last_end: Option<State>,
    /// Whether one of the release's former deployments there allows a rollback to it.
    has_way_back: bool,
    /// From when the release's first success in the preceding environment counts.
    pub succeeded_before_at: Option<Timestamp>,
    holds: Vec<Hold>,
    /// Whether the deployment is linked to an incident as its fix.
    pub is_fix: bool,
    /// Whether a deployment is recorded under the external id.
    pub is_recorded: bool,
    /// Whether a webhook has reported a deployment of the place that has not ended, so that it may
    /// be one of the run.
    pub has_reported: bool,
    /// When the state was read. For a transaction that has locked the service, this is its time.
    pub now: Timestamp,
    /// Whether the transaction began with the lock of the service.
    pub is_locked: bool,
}

impl PlaceSnapshot {
    #[rustfmt::skip]
    fn new(environment: Option<Environment>, release: Option<Release>, rest: Rest) -> Self {
        let (
            live, live_release, running, last_end, has_way_back, succeeded_before_at, holds,
            is_fix, is_recorded, has_reported, now, is_locked,
        ) = rest;
        Self {
            environment, release, live: live.zip(live_release), running, last_end, has_way_back,
            succeeded_before_at, holds: holds.0, is_fix, is_recorded,
            has_reported: has_reported.unwrap_or_default(), now, is_locked,
        }
    }

    /// The deployment that is live in the place.
    pub fn live_id(&self) -> Option<DeploymentId> {
        self.live.map(|(id, _)| id)
    }

    /// Whether deploying the release goes back to what was live in the place before. A release that
    /// was rolled back itself is nothing to go back to.
    pub fn goes_back(&self) -> bool {
        self.kind(false) == Kind::Rollback && self.last_end == Some(State::Superseded)
    }

    /// Whether the gate exempts a rollback to this release. Only what passed the gate with the same
    /// image gives that right: what was merely reported to be live could be anything.
    pub fn is_way_back(&self) -> bool {
        self.goes_back() && self.has_way_back
    }

    /// The same place for the release with the image digest that the request adds to it. Nothing
    /// that happened before had that image, so nothing of it gives rights.
    pub fn with_digest(self, digest: Option<&Digest>) -> Self {
        let known = self.release.as_ref().map(|release| &release.image_digest);
        if !matches!((known, digest), (Some(None), Some(_))) {
            return self;
        }
        Self { has_way_back: false, succeeded_before_at: None, ..self }
    }

    /// The kind that a deployment of the release to the place would have.
    pub fn kind(&self, unplanned: bool) -> Kind {
        let release = self.release.as_ref().map(|release| release.id);
        let is_live = self.live.is_some_and(|(_, live)| Some(live) == release);
        lifecycle::kind(lifecycle::Place { is_live, was_live: self.last_end.is_some(), unplanned })
    }

    /// What follows for a deployment of the release that starts now, after all that has happened in
    /// the place, where nothing runs and something is live.
    pub fn start(&self, now: &mut Deployment) {
        let live = self.live_id();
        now.kind = self.kind(now.unplanned || self.is_fix);
        (now.previous_id, now.rollback_of) = (live, live.filter(|_| now.kind == Kind::Rollback));
        let last_commit_at = self.release.as_ref().and_then(|release| release.last_commit_at);
        now.before_commit = timeline::starts_before_commit(now.started_at, last_commit_at);
    }

    /// The environment and the release, of a deployment that is recorded or was found to have both.
    ///
    /// # Errors
    /// That the ledger is damaged, when one of them does not exist.
    pub fn known(&self) -> Result<(&Environment, &Release), Error> {
        let both = self.environment.as_ref().zip(self.release.as_ref());
        both.ok_or_else(|| Error::internal("a deployment without its environment or release"))
    }

    /// Adds the freezes, incidents, approvals and rejections that apply to the deployment.
    pub fn add_holds_to(&self, facts: &mut Facts) {
        for hold in &self.holds {
            hold.add_to(facts);
        }
    }
}

/// What to load, by its name in the API.
pub struct Subject<'a> {
    /// The service.
    pub service: &'a Slug,
    /// The environment.
    pub environment: &'a str,
    /// The version of the release. `None` while it is unknown: then no release is loaded.
    pub version: Option<&'a str>,
    /// The deployment in question, if it is recorded.
    pub deployment: Option<DeploymentId>,
    /// The incident that the deployment fixes, if it is not linked to it yet.
    pub fixes: Option<IncidentId>,
    /// The image digest that the request adds to the release.
    pub image_digest: Option<&'a Digest>,
    /// The source and the external id under which the deployment may be recorded.
    pub external: Option<(&'a str, &'a str)>,
    /// Whether a webhook may have reported a deployment of the same run.
    pub has_run: bool,
}

impl<'a> Subject<'a> {
    /// A place alone.
    pub fn place(service: &'a Slug, environment: &'a str) -> Self {
        Self {
            service,
            environment,
            version: None,
            deployment: None,
            fixes: None,
            image_digest: None,
            external: None,
            has_run: false,
        }
    }
}

const LIVE: &str = "(SELECT d.id FROM deployments d WHERE d.service = (SELECT service FROM asked)
    AND d.environment = environments.slug AND d.state = 'succeeded')";
const LIVE_RELEASE: &str =
    "(SELECT d.release_id FROM deployments d WHERE d.service = (SELECT service FROM asked)
    AND d.environment = environments.slug AND d.state = 'succeeded')";
const RUNNING: &str =
    "(SELECT d.id FROM deployments d WHERE d.service = (SELECT service FROM asked)
    AND d.environment = environments.slug AND d.state = 'running')";

/// The states of the partial index `deployments_successes` stand in full, because SQLite uses such
/// an index only for its very condition.
const LAST_END: &str = "(SELECT d.state FROM deployments d WHERE d.release_id = releases.id
    AND d.environment = environments.slug AND d.state IN ('succeeded', 'superseded', 'rolled_back')
    AND d.state <> 'succeeded' ORDER BY d.finished_at DESC LIMIT 1)";
const WAY_BACK: &str = concat!(
    "EXISTS (SELECT 1 FROM deployments d WHERE d.release_id = releases.id
    AND d.environment = environments.slug AND d.state IN ('succeeded', 'superseded', 'rolled_back')
    AND ",
    is_way_back!(),
    ")"
);
/// Only what passed the gate with the image that the release has now seasons it, and not before
/// prop learned of it.
const SUCCEEDED_BEFORE: &str = "(SELECT min(coalesce(d.counts_from, d.finished_at))
    FROM deployments d WHERE d.release_id = releases.id
    AND d.environment = environments.predecessor
    AND d.state IN ('succeeded', 'superseded', 'rolled_back')
    AND NOT d.ungated AND NOT d.image_added_later)";
/// Whether a webhook has reported a deployment that is waiting or has not ended. Each condition has
/// a partial index.
const REPORTED: &str = "(SELECT has_run FROM asked) AND (
    EXISTS (SELECT 1 FROM deployments d WHERE d.service = (SELECT service FROM asked)
        AND d.environment = environments.slug AND d.state IN ('awaiting_approval', 'approved')
        AND d.source = 'github')
    OR EXISTS (SELECT 1 FROM deployments d WHERE d.service = (SELECT service FROM asked)
        AND d.environment = environments.slug AND d.finished_at IS NULL
        AND d.started_at IS NOT NULL AND d.source = 'github'))";
const RECORDED: &str = "EXISTS (SELECT 1 FROM deployments d
    WHERE d.source = (SELECT source FROM asked)
    AND d.external_id = (SELECT external_id FROM asked))";
const IS_FIX: &str = "EXISTS (SELECT 1 FROM incident_deployments l
    WHERE l.deployment_id = (SELECT deployment FROM asked) AND l.role = 'fixed_by')";

/// The freezes, incidents, approvals and rejections that apply now.
const HOLDS: JsonRows = JsonRows {
    columns: &[
        Column::Plain("fact"),
        Column::Plain("id"),
        Column::Plain("label"),
        Column::Plain("approver"),
        Column::Bool("allow_rollback"),
        Column::Bool("is_set"),
        Column::Instant("since"),
        Column::Instant("until"),
        Column::Document("weekly"),
        Column::Plain("overridden_by"),
    ],
    from: "
    SELECT 'freeze' AS fact, f.id AS id, f.reason AS label, '' AS approver,
        f.allow_rollback AS allow_rollback, false AS is_set,
        f.starts_at AS since, f.ends_at AS until, f.weekly AS weekly,
        (SELECT o.id FROM freeze_overrides o
            WHERE o.service = asked.service AND o.environment = asked.environment
            AND o.freeze_id = f.id AND o.version = asked.version
            AND (o.consumed_by IS NULL OR o.consumed_by = asked.deployment)
            AND o.image_digest IS NOT DISTINCT FROM
                coalesce(releases.image_digest, asked.image_digest)
            AND o.expires_at > moment.now
            ORDER BY CASE WHEN o.consumed_by IS NULL THEN 1 ELSE 0 END, o.created_at, o.id
            LIMIT 1) AS overridden_by
    FROM asked, moment, freezes f
    WHERE f.ended_at IS NULL AND f.starts_at <= moment.now
        AND (f.ends_at IS NULL OR f.ends_at > moment.now)
        AND (f.service IS NULL OR f.service = asked.service)
        AND (f.environment IS NULL OR f.environment = asked.environment)
    UNION ALL
    SELECT 'incident', i.id, i.title, '', false,
        coalesce(i.id = asked.fixes, false) OR EXISTS (SELECT 1 FROM incident_deployments l
            WHERE l.incident_id = i.id AND l.deployment_id = asked.deployment
            AND l.role = 'fixed_by'),
        i.detected_at, CAST(NULL AS timestamptz), CAST(NULL AS jsonb), CAST(NULL AS uuid)
    FROM asked, incidents i
    WHERE i.resolved_at IS NULL AND i.service = asked.service AND i.environment = asked.environment
    UNION ALL
    SELECT 'review', a.id, a.decision, a.approver, false, a.decision = 'approved',
        coalesce(a.at, a.created_at), a.expires_at, CAST(NULL AS jsonb), CAST(NULL AS uuid)
    FROM asked, approvals a
    WHERE a.release_id = releases.id AND a.environment = asked.environment
        AND (a.consumed_by IS NULL OR a.consumed_by = asked.deployment)
        AND a.image_digest IS NOT DISTINCT FROM
            coalesce(releases.image_digest, asked.image_digest)",
    order: "r.since, r.id",
};

/// A freeze, an incident, or an approval or rejection.
#[derive(Debug, Clone, Deserialize)]
struct Hold {
    fact: String,
    id: Uuid,
    label: String,
    approver: String,
    allow_rollback: bool,
    /// Whether the incident is fixed by this deployment, or the approval a yes.
    is_set: bool,
    #[serde(deserialize_with = "json::instant")]
    since: Timestamp,
    #[serde(deserialize_with = "json::instant_if_any")]
    until: Option<Timestamp>,
    weekly: Option<Weekly>,
    /// The override of the freeze that this deployment may use or has used.
    overridden_by: Option<Uuid>,
}

impl Hold {
    fn add_to(&self, facts: &mut Facts) {
        match self.fact.as_str() {
            "freeze" => facts.freezes.push(Freeze {
                id: self.id.into(),
                reason: self.label.clone(),
                schedule: Schedule {
                    starts_at: self.since,
                    ends_at: self.until,
                    weekly: self.weekly.clone(),
                },
                allow_rollback: self.allow_rollback,
                overridden_by: self.overridden_by.map(Into::into),
            }),
            "incident" => facts.incidents.push(Incident {
                id: self.id.into(),
                title: self.label.clone(),
                is_fixed_by_this: self.is_set,
            }),
            _ => facts.reviews.push(Review {
                id: self.id.into(),
                approver: self.approver.as_str().into(),
                approved: self.is_set,
                at: self.since,
                expires_at: self.until.unwrap_or(self.since),
            }),
        }
    }
}

/// The live deployment and its release, the running one; how the release last stopped being live
/// there, whether the gate exempts a rollback to it, from when its first success in the preceding
/// environment counts; what holds it; whether it is a fix; whether it is recorded, or may be
/// reported by a webhook; the time, and whether the service is locked.
type Rest = (
    Option<DeploymentId>,
    Option<ReleaseId>,
    Option<DeploymentId>,
    Option<State>,
    bool,
    Option<Timestamp>,
    Json<Vec<Hold>>,
    bool,
    bool,
    Option<bool>,
    Timestamp,
    bool,
);

/// The columns of [`Rest`], for a query that joins `environments` and `releases`.
macro_rules! rest {
    () => {
        (
            sql::<Nullable<Identifier>>(LIVE),
            sql::<Nullable<Identifier>>(LIVE_RELEASE),
            sql::<Nullable<Identifier>>(RUNNING),
            sql::<Nullable<Text>>(LAST_END),
            sql::<Bool>(WAY_BACK),
            sql::<Nullable<Instant>>(SUCCEEDED_BEFORE),
            HOLDS,
            sql::<Bool>(IS_FIX),
            sql::<Bool>(RECORDED),
            sql::<Nullable<Bool>>(REPORTED),
            sql::<Instant>("(SELECT now FROM moment)"),
            sql::<Bool>("(SELECT is_locked FROM moment)"),
        )
    };
}

/// Loads the state of a place for a release and perhaps a deployment. `None` when the service does
/// not exist. `given` is the time of the transaction, if it is known already.
///
/// # Errors
/// That of the database.
pub fn load(
    db: &mut Db,
    subject: &Subject<'_>,
    given: Option<Timestamp>,
) -> QueryResult<Option<PlaceSnapshot>> {
    struct OfPlace;
    let given = match given {
        Some(now) => Some(now),
        None => Service::Named(subject.service.clone()).time(db)?,
    };
    let asked = diesel::sql_query(
        "SELECT $1 AS service, $2 AS environment, $3 AS version, $4 AS deployment, $5 AS fixes,
            $6 AS image_digest, $7 AS source, $8 AS external_id, $9 AS has_run, $10 AS given",
    )
    .bind::<Text, _>(subject.service)
    .bind::<Text, _>(subject.environment)
    .bind::<Nullable<Text>, _>(subject.version)
    .bind::<Nullable<Identifier>, _>(subject.deployment)
    .bind::<Nullable<Identifier>, _>(subject.fixes)
    .bind::<Nullable<Text>, _>(subject.image_digest)
    .bind::<Nullable<Text>, _>(subject.external.map(|(source, _)| source))
    .bind::<Nullable<Text>, _>(subject.external.map(|(_, id)| id))
    .bind::<Bool, _>(subject.has_run)
    .bind::<Nullable<Instant>, _>(given);
    let row: Option<(Option<Environment>, Option<Release>, Rest)> = each_backend!(db, |c| {
        let is_release = releases::service
            .eq(services::slug)
            .and(releases::version.eq(sql::<Text>("(SELECT version FROM asked)")));
        let is_here = environments::slug.eq(sql::<Text>("(SELECT environment FROM asked)"));
        let query = services::table
            .left_join(environments::table.on(is_here))
            .left_join(releases::table.on(is_release))
            .filter(services::slug.eq(sql::<Text>("(SELECT service FROM asked)")))
            .select((Option::<Environment>::as_select(), Option::<Release>::as_select(), rest!()));
        Fixed::new(Asking { asked, query }, OfPlace).get_result(c).optional()
    })?;
    Ok(row.map(|(environment, release, rest)| PlaceSnapshot::new(environment, release, rest)))
}

/// Loads a recorded deployment, with its release and the state of its place. `None` when it does
/// not exist. `given` is the time of the transaction, if it is known already.
///
/// # Errors
/// That of the database.
pub fn load_of(
    db: &mut Db,
    id: DeploymentId,
    given: Option<Timestamp>,
) -> QueryResult<Option<(DeploymentWithDecision, PlaceSnapshot)>> {
    struct OfDeployment;
    let given = match given {
        Some(now) => Some(now),
        None => Service::OfDeployment(id).time(db)?,
    };
    let asked = diesel::sql_query(
        "SELECT d.service, d.environment, d.version, d.id AS deployment,
            CAST(NULL AS uuid) AS fixes, CAST(NULL AS text) AS image_digest,
            CAST(NULL AS text) AS source, CAST(NULL AS text) AS external_id,
            false AS has_run, $1 AS given
        FROM deployments d WHERE d.id = $2",
    )
    .bind::<Nullable<Instant>, _>(given)
    .bind::<Identifier, _>(id);
    let row: Option<(DeploymentWithDecision, Environment, Release, Rest)> =
        each_backend!(db, |c| {
            let is_here = environments::slug.eq(deployments::environment);
            let is_release = releases::id.eq(deployments::release_id);
            let query = deployments::table
                .inner_join(environments::table.on(is_here))
                .inner_join(releases::table.on(is_release))
                .filter(deployments::id.eq(sql::<Identifier>("(SELECT deployment FROM asked)")))
                .select((
                    DeploymentWithDecision::as_select(),
                    Environment::as_select(),
                    Release::as_select(),
                    rest!(),
                ));
            Fixed::new(Asking { asked, query }, OfDeployment).get_result(c).optional()
        })?;
    Ok(row.map(|(deployment, environment, release, rest)| {
        (deployment, PlaceSnapshot::new(Some(environment), Some(release), rest))
    }))
}

/// Loads a recorded deployment in a transaction whose time is known.
///
/// # Errors
/// `not_found` when there is no such deployment.
pub fn of(db: &mut Db, actor: &Actor, id: DeploymentId) -> Result<PlaceSnapshot, Error> {
    let found = load_of(db, id, Some(actor.now))?;
    found.map(|(_, snapshot)| snapshot).ok_or_else(|| Error::not_found("deployment", id))
}
