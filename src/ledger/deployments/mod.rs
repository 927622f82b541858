//! Deployments of a release to an environment: their rows and how they are found.
//!
//! `read` answers deployments, `create` records one, `transitions` reports its start and its end,
//! `expiry` ends those that waited too long, `void` declares that one did not take place. `gate`
//! says whether one may start, from what `snapshot` loads. `store` is the only file that writes a
//! deployment; `affected` loads those for which something follows.

use diesel::prelude::*;
use diesel::sql_types::Text;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::db::Db;
use crate::db::columns::{Identifier, Json, ToWord};
use crate::db::kept::Fixed;
use crate::db::schema::{deployments, incident_deployments};
use crate::error::Error;
use crate::http::routes::Routes;
use crate::ledger::events::{About, Entity};
use crate::rules::github;
use crate::rules::lifecycle::{Kind, State};
use crate::rules::timeline::{self, Derived, Entry, Outcome};
use crate::types::ids::{DeploymentId, IncidentId, ReleaseId};
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::values::{Digest, GitSha, ShortText, Slug, Url, Version};
use crate::{each_backend, text_enum};

pub mod affected;
pub mod create;
pub mod expiry;
pub mod gate;
pub mod read;
pub mod snapshot;
pub mod store;
pub mod transitions;
pub mod void;

/// The routes of this folder.
pub fn routes(config: &mut Routes) {
    config.configure(create::routes).configure(read::routes);
    config.configure(transitions::routes).configure(void::routes);
}

/// The source of deployments that GitHub webhooks report.
pub const GITHUB: &str = "github";

/// How many of the latest deployments of a place are searched for one of a pipeline run.
const LATEST: i64 = 20;

/// A deployment of a release to an environment, from the request to the end.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Serialize,
    ToSchema,
    Queryable,
    QueryableByName,
    Selectable,
    Insertable,
    AsChangeset,
)]
#[diesel(table_name = deployments, treat_none_as_default_value = false, treat_none_as_null = true)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout",
    "environment": "production",
    "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2",
    "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "state": "running", "kind": "normal",
    "unplanned": false, "rollback": false, "requested_by": "pipeline", "source": "api",
    "external_id": null, "run_url": "https://ci.example.org/runs/17",
    "reason": null, "previous_id": null, "rollback_of": null,
    "requested_at": "2026-02-03T04:05:06.000000Z",
    "started_at": "2026-02-03T04:05:06.000000Z", "finished_at": null, "revision": 1,
    "ungated": false, "expires_at": null, "recorded_by": "pipeline", "voided_at": null,
    "retired_at": null, "before_commit": false
}))]
pub struct Deployment {
    /// The identifier of the deployment.
    pub id: DeploymentId,
    /// The slug of the service that is deployed.
    pub service: Slug,
    /// The slug of the environment that it is deployed to.
    pub environment: Slug,
    /// The identifier of the release that is deployed.
    pub release_id: ReleaseId,
    /// The version of the release.
    pub version: Version,
    /// The git commit of the release. `null` while it is unknown.
    pub git_sha: Option<GitSha>,
    /// The image digest of the release. `null` while it is unknown.
    pub image_digest: Option<Digest>,
    /// The current state of the deployment.
    pub state: State,
    /// How the release compares with what was live in the place before.
    pub kind: Kind,
    /// Whether the caller reported the deployment as unplanned.
    pub unplanned: bool,
    /// Whether the caller asked for a rollback. Only then does the gate exempt it as one.
    pub rollback: bool,
    /// The name of the person or pipeline that requested the deployment.
    #[schema(value_type = String)]
    pub requested_by: Name,
    /// The kind of client that reported the deployment, such as `api`, `script` or `github`.
    pub source: String,
    /// The identifier of the deployment in that source. `null` when the source gave none.
    pub external_id: Option<ShortText>,
    /// The URL of the pipeline run that performs the deployment. `null` when it is unknown.
    pub run_url: Option<Url>,
    /// The reason of the latest state change. `null` when none was given.
    pub reason: Option<String>,
    /// The deployment that was live in the place before this one: at the request, then at the
    /// start, then when this one went live. `null` when nothing was live.
    pub previous_id: Option<DeploymentId>,
    /// The deployment that this one rolls back. `null` when this is not a rollback.
    pub rollback_of: Option<DeploymentId>,
    /// When the deployment was requested.
    pub requested_at: Timestamp,
    /// When the rollout started. `null` while it has not started.
    pub started_at: Option<Timestamp>,
    /// When the deployment succeeded, failed, was cancelled or rejected, or expired. `null` until
    /// then.
    pub finished_at: Option<Timestamp>,
    /// The number of the current version, which each change increases. It is also the `ETag`.
    pub revision: i32,
    /// Whether it started although the gate blocked it.
    pub ungated: bool,
    /// When the deployment expires if it has not started by then. `null` when it no longer waits.
    pub expires_at: Option<Timestamp>,
    /// The name of the key that recorded the deployment. `null` for deployments that were recorded
    /// before prop stored it.
    #[schema(value_type = Option<String>)]
    pub recorded_by: Option<Name>,
    /// When the deployment was declared void, because it did not take place. `null` when it was
    /// not.
    pub voided_at: Option<Timestamp>,
    /// When its source reported that it is no longer live, without a later deployment (GitHub's
    /// `inactive`). `null` when it was not reported.
    pub retired_at: Option<Timestamp>,
    /// Whether it started more than a day before the newest known commit of its release, so that
    /// one of the two times is wrong.
    pub before_commit: bool,
    /// From when its success gives rights: the later of when it happened and when prop recorded it.
    /// `None` without a success, and for one that a version without this column recorded.
    #[serde(skip)]
    pub counts_from: Option<Timestamp>,
    /// Whether its release got an image only after the gate had decided on the deployment. The gate
    /// has not decided on that image, so the deployment gives no rights.
    #[serde(skip)]
    pub image_added_later: bool,
}

/// A deployment with the decision of the gate.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = deployments, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout",
    "environment": "production",
    "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "version": "1.4.2",
    "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "state": "running", "kind": "normal",
    "unplanned": false, "rollback": false, "requested_by": "pipeline", "source": "api",
    "external_id": null, "run_url": "https://ci.example.org/runs/17",
    "reason": null, "previous_id": null, "rollback_of": null,
    "requested_at": "2026-02-03T04:05:06.000000Z",
    "started_at": "2026-02-03T04:05:06.000000Z", "finished_at": null, "revision": 1,
    "ungated": false, "expires_at": null,
    "recorded_by": "pipeline", "voided_at": null, "retired_at": null, "before_commit": false,
    "decision": {"allowed": true, "reasons": [], "evaluated_at": "2026-02-03T04:05:06.000000Z",
        "facts": {"step": "start", "requested_by": "pipeline"}}
}))]
pub struct DeploymentWithDecision {
    /// The fields of the deployment itself.
    #[diesel(embed)]
    #[serde(flatten)]
    pub deployment: Deployment,
    /// The decision of the gate with the facts that it used: at the start of the deployment, or,
    /// before that, at its request. `null` for deployments that were recorded before prop stored
    /// it.
    #[schema(value_type = Option<Object>)]
    pub decision: Option<Json<Value>>,
}

impl Deployment {
    /// The subject of the deployment's events.
    pub fn about(&self) -> About<'_> {
        About {
            entity: Entity::Deployment,
            id: &self.id,
            service: Some(&self.service),
            environment: Some(&self.environment),
        }
    }

    /// The path of the deployment in the API.
    pub fn path(&self) -> String {
        format!("/v1/deployments/{}", self.id)
    }

    /// The times of its start and end, as far as they are known. `None` before its start.
    fn times(&self) -> Option<[Option<Timestamp>; 2]> {
        self.started_at.map(|started_at| [Some(started_at), self.finished_at])
    }

    /// How it ended by its own report, whatever happened in its place since.
    pub fn outcome(&self) -> Option<Outcome> {
        self.finished_at?;
        match self.state {
            State::Succeeded | State::Superseded | State::RolledBack => Some(Outcome::Succeeded),
            State::Failed => Some(Outcome::Failed),
            _ => Some(Outcome::Cancelled),
        }
    }

    /// Its state by its own reports alone: an overtaken deployment is still running, and a
    /// superseded one succeeded.
    pub fn reported_state(&self) -> State {
        match self.state {
            State::Superseded | State::RolledBack => State::Succeeded,
            State::Cancelled
                if self.started_at.is_some()
                    && self.finished_at.is_none()
                    && self.voided_at.is_none() =>
            {
                State::Running
            }
            state => state,
        }
    }

    /// Its facts for the timeline. `None` before its start and when it is void.
    fn entry(&self, is_fix: bool) -> Option<Entry> {
        let started_at = self.started_at.filter(|_| self.voided_at.is_none())?;
        Some(Entry {
            id: self.id,
            release: self.release_id,
            started_at,
            end: self.finished_at.zip(self.outcome()),
            is_fix: is_fix || self.unplanned,
            is_retired: self.retired_at.is_some(),
            derived: self.derived(),
        })
    }

    /// What was derived for it last.
    fn derived(&self) -> Derived {
        Derived { state: self.state, kind: self.kind, previous: self.previous_id }
    }

    /// Takes in what follows from its place, and from the commits of its release.
    fn set_derived(&mut self, derived: Derived, last_commit_at: Option<Timestamp>) {
        self.before_commit = timeline::starts_before_commit(self.started_at, last_commit_at);
        (self.state, self.kind, self.previous_id) = (derived.state, derived.kind, derived.previous);
        self.rollback_of = derived.rollback_of();
    }

    /// When it succeeded, by its own report.
    fn success(&self) -> Option<Timestamp> {
        self.finished_at.filter(|_| self.outcome() == Some(Outcome::Succeeded))
    }

    /// From when its success gives rights.
    fn counts_from(&self) -> Option<Timestamp> {
        self.counts_from.or(self.success())
    }

    /// Whether this person requested or recorded the deployment.
    pub fn belongs_to(&self, person: &Name) -> bool {
        self.requested_by == *person || self.recorded_by.as_ref() == Some(person)
    }

    /// Whether it is still waiting although it should have expired.
    pub fn is_overdue(&self) -> bool {
        self.is_overdue_at(Timestamp::now())
    }

    /// Whether it is still waiting at `now` although it should have expired.
    pub fn is_overdue_at(&self, now: Timestamp) -> bool {
        matches!(self.state, State::AwaitingApproval | State::Approved)
            && self.expires_at.is_some_and(|end| end <= now)
    }
}

/// Loads the deployment with this id.
///
/// # Errors
/// `not_found` when there is none.
pub fn find(db: &mut Db, id: DeploymentId) -> Result<DeploymentWithDecision, Error> {
    let found = each_backend!(db, |c| {
        let with_id = deployments::table.find(id);
        with_id.select(DeploymentWithDecision::as_select()).get_result(c).optional()
    })?;
    found.ok_or_else(|| Error::not_found("deployment", id))
}

/// The services of these deployments; none for those that do not exist.
pub fn services_of(db: &mut Db, ids: &[DeploymentId]) -> QueryResult<Vec<Slug>> {
    let these = deployments::table.filter(deployments::id.eq_any(ids));
    these.select(deployments::service).distinct().load(db)
}

/// The deployment with this external id in this source.
pub fn find_external(
    db: &mut Db,
    source: &str,
    external_id: Option<&str>,
) -> Result<Option<DeploymentWithDecision>, Error> {
    let Some(external_id) = external_id else { return Ok(None) };
    Ok(each_backend!(db, |c| {
        let named = deployments::table
            .filter(deployments::source.eq(source))
            .filter(deployments::external_id.eq(external_id));
        named.select(DeploymentWithDecision::as_select()).get_result(c).optional()
    })?)
}

/// The deployment that is live in a place.
pub fn live_in(db: &mut Db, service: &str, environment: &str) -> QueryResult<Option<Deployment>> {
    let here = deployments::table
        .filter(deployments::service.eq(service))
        .filter(deployments::environment.eq(environment));
    here.filter(deployments::state.eq(State::Succeeded.word()))
        .select(Deployment::as_select())
        .first(db)
        .optional()
}

/// The deployments of a pipeline run among the latest ones of a place, the newest first.
pub fn of_run(
    db: &mut Db,
    service: &str,
    environment: &str,
    run: &str,
) -> QueryResult<Vec<Deployment>> {
    let here = deployments::table
        .filter(deployments::service.eq(service))
        .filter(deployments::environment.eq(environment));
    let latest: Vec<Deployment> = here
        .select(Deployment::as_select())
        .order((deployments::requested_at.desc(), deployments::id.desc()))
        .limit(LATEST)
        .load(db)?;
    Ok(latest
        .into_iter()
        .filter(|known| known.run_url.as_deref().and_then(github::run_of) == Some(run))
        .collect())
}

/// The unfinished deployment that a webhook has reported for the same run and place.
///
/// A script that reports its own deployment takes it over: one rollout is one deployment, and the
/// script knows most about it.
pub fn find_reported_by_webhook(
    db: &mut Db,
    service: &str,
    environment: &str,
    run_url: Option<&str>,
) -> QueryResult<Option<Deployment>> {
    let Some(run) = run_url.and_then(github::run_of) else { return Ok(None) };
    let same_run = of_run(db, service, environment, run)?.into_iter();
    Ok(same_run
        .filter(|known| known.source == GITHUB)
        .find(|known| !known.reported_state().is_finished()))
}

/// The deployment that is being rolled out in a place.
pub fn running_in(
    db: &mut Db,
    service: &str,
    environment: &str,
) -> QueryResult<Option<Deployment>> {
    let here = deployments::table
        .filter(deployments::service.eq(service))
        .filter(deployments::environment.eq(environment));
    here.filter(deployments::state.eq(State::Running.word()))
        .select(Deployment::as_select())
        .first(db)
        .optional()
}

/// Whether deployment `d` lets the gate exempt a rollback to its release: it went live through the
/// gate with the image that the release has now, and nothing has rolled the release back since. The
/// states of the partial index `deployments_successes` stand in full, because SQLite uses such an
/// index only for its very condition.
macro_rules! is_way_back {
    () => {
        "d.state = 'superseded' AND NOT d.ungated AND NOT d.image_added_later
            AND d.finished_at > coalesce((SELECT max(r.finished_at) FROM deployments r
                WHERE r.release_id = d.release_id AND r.environment = d.environment
                AND r.state IN ('succeeded', 'superseded', 'rolled_back')
                AND r.state = 'rolled_back'), '0001-01-01T00:00:00Z')"
    };
}
pub(crate) use is_way_back;

/// The former deployments of service `$1` in environment `$2` that were live there with another
/// release than `$3` and were not rolled back: the latest one to which the gate exempts a rollback
/// or, if there is none, the latest one.
const PREVIOUS_GOOD: &str = concat!(
    "SELECT p.* FROM deployments p WHERE p.id = coalesce(
        (SELECT d.id FROM deployments d WHERE d.service = $1 AND d.environment = $2
            AND d.release_id <> $3 AND ",
    is_way_back!(),
    " ORDER BY d.finished_at DESC, d.started_at DESC, d.id DESC LIMIT 1),
        (SELECT d.id FROM deployments d WHERE d.service = $1 AND d.environment = $2
            AND d.release_id <> $3 AND d.state = 'superseded'
            ORDER BY d.finished_at DESC, d.started_at DESC, d.id DESC LIMIT 1))"
);

/// The deployment that a rollback of the place of `live` goes back to: the latest one of another
/// release that was live there and was not rolled back. One that the gate lets a rollback go back
/// to comes before all others.
pub fn previous_good(db: &mut Db, live: &Deployment) -> QueryResult<Option<Deployment>> {
    struct PreviousGood;
    each_backend!(db, |c| {
        let query = diesel::sql_query(PREVIOUS_GOOD)
            .bind::<Text, _>(&live.service)
            .bind::<Text, _>(&live.environment)
            .bind::<Identifier, _>(live.release_id);
        Fixed::new(query, PreviousGood).get_result(c).optional()
    })
}

/// The deployments of a release in an environment that are in this state, in the order of their
/// ids.
pub fn in_state(
    db: &mut Db,
    release: ReleaseId,
    environment: &str,
    state: State,
) -> QueryResult<Vec<Deployment>> {
    deployments::table
        .filter(deployments::release_id.eq(release))
        .filter(deployments::environment.eq(environment))
        .filter(deployments::state.eq(state.word()))
        .select(Deployment::as_select())
        .order(deployments::id)
        .load(db)
}

/// The first deployment of a release in an environment that has started at this time or later.
pub fn first_start_since(
    db: &mut Db,
    release: ReleaseId,
    environment: &str,
    at: Timestamp,
) -> QueryResult<Option<DeploymentId>> {
    deployments::table
        .filter(deployments::release_id.eq(release))
        .filter(deployments::environment.eq(environment))
        .filter(deployments::voided_at.is_null())
        .filter(deployments::started_at.ge(at))
        .select(deployments::id)
        .order((deployments::started_at, deployments::id))
        .first(db)
        .optional()
}

text_enum! {
    /// The role of a deployment in an incident.
    Role {
        /// The deployment caused the incident.
        CausedBy = "caused_by",
        /// The deployment fixed the incident.
        FixedBy = "fixed_by",
    }
}

/// Links a deployment to an incident. Linking it again has no effect.
pub fn link(
    db: &mut Db,
    incident: IncidentId,
    deployment: DeploymentId,
    role: Role,
) -> QueryResult<usize> {
    let row = (
        incident_deployments::incident_id.eq(incident),
        incident_deployments::deployment_id.eq(deployment),
        incident_deployments::role.eq(role),
    );
    each_backend!(db, |c| diesel::insert_into(incident_deployments::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))
}
