//! The gate: loads the facts that the rule in `rules::gate` needs, and answers whether a release
//! may be deployed. Answering changes nothing.

use actix_web::get;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::db::columns::{Document, Identifier, Instant, Json};
use crate::db::kept::Kept;
use crate::db::schema::{approvals, environments, freeze_overrides, releases, services};
use crate::db::{Db, clock};
use crate::each_backend;
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Read};
use crate::http::extract::Query;
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::{Deployment, find, find_reported_by_webhook, is_way_back};
use crate::ledger::environments::{Environment, unknown as unknown_environment};
use crate::ledger::events::{self, About, Entity};
use crate::ledger::releases::{Release, ScanStatus};
use crate::ledger::services::unknown as unknown_service;
use crate::rules::gate::{self, Decision, Facts, Freeze, Incident, Review, Reviewed, Step};
use crate::rules::lifecycle::{self, Kind, State};
use crate::rules::schedule::{Schedule, Weekly};
use crate::types::ids::{ApprovalId, DeploymentId, IncidentId, OverrideId, ReleaseId};
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::values::{Digest, ShortText, Slug, Url, Version};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.service(evaluate_gate);
}

/// The query parameters of the gate.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Question {
    /// The identifier of a recorded deployment that has not started. The question then concerns its
    /// service, environment and version, with its own requester and recorder, so that the answer is
    /// the same for every caller. It cannot be combined with the other parameters.
    deployment: Option<DeploymentId>,
    /// The slug of the service to deploy. Required without `deployment`.
    #[param(inline)]
    service: Option<Slug>,
    /// The slug of the environment to deploy to. Required without `deployment`.
    #[param(inline)]
    environment: Option<Slug>,
    /// The version of the release to deploy. Required without `deployment`.
    #[param(inline)]
    version: Option<Version>,
    /// The name of the person or pipeline that would request the deployment. The caller's, if
    /// absent. Their own approval does not count, unless the environment allows it.
    #[param(inline, value_type = Option<ShortText>)]
    requested_by: Option<Name>,
    /// The URL of the pipeline run that would perform the deployment. A deployment that a webhook
    /// has already reported for this run does not block it. No such run, if absent.
    #[param(inline)]
    run_url: Option<Url>,
    /// Whether the deployment would be a rollback. `is_rollback` in the answer says whether the
    /// gate exempts it as one. It would not, if absent.
    rollback: Option<bool>,
}

/// Ask whether a release may be deployed now
///
/// Answers 200 with the decision that a start of the deployment would get now, with every reason
/// against it. Changes nothing. The question names either a service, an environment and a version,
/// or a recorded `deployment`. Fails with 404 when one of them does not exist, and with 400
/// (`invalid_query`) when one of the three is missing without `deployment`, or when `deployment` is
/// combined with another parameter, or has already started or ended.
#[utoipa::path(tag = "gate", operation_id = "evaluate_gate", security(("key" = ["read"])),
    params(Question),
    responses(
        (status = 200,
            description = "The decision: `allowed`, or the reasons that block the deployment.",
            body = Decision),
        (status = 404,
            description = "The service, environment, release or deployment does not exist.")))]
#[get("/gate")]
async fn evaluate_gate(ctx: Ctx<Read>, query: Query<Question>) -> Result<Reply, Error> {
    let (question, caller) = (query.0, ctx.name().to_owned());
    let decision = ctx
        .read(move |db| match question.deployment {
            Some(id) => answer_for(db, id, &question),
            None => answer(db, &question, &caller),
        })
        .await?;
    Reply::ok(&decision)
}

impl Question {
    /// The names of the parameters that cannot be combined with `deployment`, and whether the
    /// question has them.
    fn others(&self) -> [(&'static str, bool); 6] {
        [
            ("service", self.service.is_some()),
            ("environment", self.environment.is_some()),
            ("version", self.version.is_some()),
            ("requested_by", self.requested_by.is_some()),
            ("run_url", self.run_url.is_some()),
            ("rollback", self.rollback.is_some()),
        ]
    }
}

/// Decides on the start of a recorded deployment, whoever asks.
///
/// # Errors
/// `not_found`, or `invalid_query` when the question has other parameters or the deployment does
/// not wait for its start.
fn answer_for(db: &mut Db, id: DeploymentId, question: &Question) -> Result<Decision, Error> {
    let invalid = |name: &str, detail| Err(Error::field(Code::InvalidQuery, name, detail));
    if let Some((name, _)) = question.others().into_iter().find(|(_, is_given)| *is_given) {
        return invalid(name, "cannot be combined with `deployment`".to_owned());
    }
    let deployment = find(db, id)?.deployment;
    if deployment.is_overdue() {
        return invalid("deployment", "has expired and cannot start".to_owned());
    }
    if !matches!(deployment.state, State::AwaitingApproval | State::Approved) {
        let detail = format!("is {}; only a deployment that has not started can", deployment.state);
        return invalid("deployment", detail);
    }
    let place = (&*deployment.service, &*deployment.environment);
    evaluate(db, place, &deployment.version, &GateRequest::to_start(&deployment))
}

/// Decides on a start that the caller would request.
fn answer(db: &mut Db, question: &Question, caller: &str) -> Result<Decision, Error> {
    let missing = |name| {
        Error::field(Code::InvalidQuery, name, "is missing; it is required without `deployment`")
    };
    let service = question.service.as_deref().ok_or_else(|| missing("service"))?;
    let environment = question.environment.as_deref().ok_or_else(|| missing("environment"))?;
    let version = question.version.as_deref().ok_or_else(|| missing("version"))?;
    let run = question.run_url.as_deref();
    let request = GateRequest {
        step: Step::Start,
        requested_by: question.requested_by.as_deref().unwrap_or(caller),
        recorded_by: Some(caller),
        unplanned: false,
        rollback: question.rollback.unwrap_or(false),
        deployment: find_reported_by_webhook(db, service, environment, run)?
            .map(|reported| reported.id),
        fixes: None,
    };
    evaluate(db, (service, environment), version, &request)
}

/// The codes of the reasons why a deployment of a version cannot start in a place now.
pub fn blocked(
    db: &mut Db,
    place: (&str, &str),
    version: &str,
    request: &GateRequest<'_>,
) -> Result<Vec<gate::Code>, Error> {
    let decision = evaluate(db, place, version, request)?;
    Ok(decision.reasons.into_iter().map(|reason| reason.code).collect())
}

/// Evaluates the gate for a version in a place, which is a service and an environment, now.
///
/// # Errors
/// `not_found` when the service, environment or release does not exist.
fn evaluate(
    db: &mut Db,
    (service, environment): (&str, &str),
    version: &str,
    request: &GateRequest<'_>,
) -> Result<Decision, Error> {
    let snapshot = load_snapshot(db, service, environment, version)?;
    let now = snapshot.seen_at;
    if !snapshot.has_service {
        return Err(unknown_service(db, service)?);
    }
    let Some(here) = &snapshot.environment else {
        return Err(unknown_environment(db, environment)?);
    };
    let release = snapshot
        .release
        .as_ref()
        .ok_or_else(|| Error::not_found(&format!("release of {service} with version"), version))?;
    let facts = facts(db, &snapshot, here, &Candidate::of(release), request, now)?;
    Ok(gate::decide(&facts, now))
}

/// The current state of a place, and the release in question.
pub struct PlaceSnapshot {
    service: String,
    has_service: bool,
    /// The environment. `None` when it does not exist.
    pub environment: Option<Environment>,
    /// The release. `None` when it does not exist.
    pub release: Option<Release>,
    /// The live deployment and its release. `None` when nothing is live there.
    pub live: Option<(DeploymentId, ReleaseId)>,
    running: Option<DeploymentId>,
    /// The state of the release's last deployment that was live there before: superseded or rolled
    /// back.
    last_end: Option<State>,
    /// Whether one of the release's former deployments there allows a rollback to it.
    has_way_back: bool,
    /// From when the release's first success in the preceding environment counts.
    succeeded_before_at: Option<Timestamp>,
    /// When the state was read.
    seen_at: Timestamp,
}

impl PlaceSnapshot {
    /// The deployment that is live in the place.
    pub fn live_id(&self) -> Option<DeploymentId> {
        self.live.map(|(id, _)| id)
    }

    /// The deployment that is being rolled out in the place.
    pub fn running(&self) -> Option<DeploymentId> {
        self.running
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
}

/// The release in question, which may not be recorded yet.
pub struct Candidate {
    id: Option<ReleaseId>,
    version: Version,
    image_digest: Option<Digest>,
    scan: ScanStatus,
}

impl Candidate {
    /// A release that is recorded.
    pub fn of(release: &Release) -> Self {
        let Release { id, version, image_digest, scan, .. } = release;
        Self {
            id: Some(*id),
            version: version.clone(),
            image_digest: image_digest.clone(),
            scan: scan.0.status,
        }
    }

    /// A release that is not recorded yet.
    pub fn unrecorded(version: &Version, image_digest: Option<&Digest>) -> Self {
        Self {
            id: None,
            version: version.clone(),
            image_digest: image_digest.cloned(),
            scan: ScanStatus::Missing,
        }
    }

    /// The same release with the image digest that the request adds, if none is recorded. Nobody
    /// has scanned that image.
    pub fn with_digest(self, digest: Option<&Digest>) -> Self {
        match digest.filter(|_| self.image_digest.is_none()) {
            None => self,
            Some(added) => {
                Self { image_digest: Some(added.clone()), scan: ScanStatus::Missing, ..self }
            }
        }
    }
}

/// The environment, the release, the live deployment and its release, the running one, how the
/// release last stopped being live there, whether the gate exempts a rollback to it, from when its
/// first success in the preceding environment counts, and the reading of the clock.
type Row = (
    Option<Environment>,
    Option<Release>,
    Option<DeploymentId>,
    Option<ReleaseId>,
    Option<DeploymentId>,
    Option<State>,
    bool,
    Option<Timestamp>,
    Option<Timestamp>,
);

const LIVE: &str = "(SELECT d.id FROM deployments d WHERE d.service = services.slug
    AND d.environment = environments.slug AND d.state = 'succeeded')";
const LIVE_RELEASE: &str = "(SELECT d.release_id FROM deployments d WHERE d.service = services.slug
    AND d.environment = environments.slug AND d.state = 'succeeded')";
const RUNNING: &str = "(SELECT d.id FROM deployments d WHERE d.service = services.slug
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

/// Loads the state of a place for a release, with one query. Nothing is there when the service does
/// not exist.
///
/// # Errors
/// That the database is unavailable.
pub fn load_snapshot(
    db: &mut Db,
    service: &str,
    environment: &str,
    version: &str,
) -> Result<PlaceSnapshot, Error> {
    // A query with parts in SQL must own its bound values.
    let is_of_version = releases::version.eq(version.to_owned());
    let row: Option<Row> = services::table
        .left_join(environments::table.on(environments::slug.eq(environment.to_owned())))
        .left_join(releases::table.on(releases::service.eq(services::slug).and(is_of_version)))
        .filter(services::slug.eq(service.to_owned()))
        .select((
            Option::<Environment>::as_select(),
            Option::<Release>::as_select(),
            sql::<Nullable<Identifier>>(LIVE),
            sql::<Nullable<Identifier>>(LIVE_RELEASE),
            sql::<Nullable<Identifier>>(RUNNING),
            sql::<Nullable<Text>>(LAST_END),
            sql::<Bool>(WAY_BACK),
            sql::<Nullable<Instant>>(SUCCEEDED_BEFORE),
            clock::reading(db),
        ))
        .first(db)
        .optional()?;
    let has_service = row.is_some();
    let (
        environment,
        release,
        live,
        live_release,
        running,
        last_end,
        has_way_back,
        before_at,
        read,
    ) = row.unwrap_or_default();
    Ok(PlaceSnapshot {
        service: service.to_owned(),
        has_service,
        environment,
        release,
        live: live.zip(live_release),
        running,
        last_end,
        has_way_back,
        succeeded_before_at: before_at,
        seen_at: clock::seen(db, read),
    })
}

/// The question to the gate: who wants to deploy, and at which step.
pub struct GateRequest<'a> {
    /// The step of the deployment that is to be decided.
    pub step: Step,
    /// The name of the person or pipeline that requests the deployment.
    pub requested_by: &'a str,
    /// The name of the key that records the deployment.
    pub recorded_by: Option<&'a str>,
    /// Whether the deployment is unplanned.
    pub unplanned: bool,
    /// Whether it was asked for as a rollback.
    pub rollback: bool,
    /// The deployment. `None` while it is not recorded.
    pub deployment: Option<DeploymentId>,
    /// The incident that the deployment fixes, if it is not linked to it yet.
    pub fixes: Option<IncidentId>,
}

impl<'a> GateRequest<'a> {
    /// The question for the start of a recorded deployment. An incident that it fixes is already
    /// linked to it, so `fixes` is empty.
    pub fn to_start(deployment: &'a Deployment) -> Self {
        Self {
            step: Step::Start,
            requested_by: &deployment.requested_by,
            recorded_by: deployment.recorded_by.as_deref(),
            unplanned: deployment.unplanned,
            rollback: deployment.rollback,
            deployment: Some(deployment.id),
            fixes: None,
        }
    }
}

/// A row of [`HOLDS`]: a freeze, an incident, or an approval or rejection.
#[derive(QueryableByName)]
struct FactRow {
    #[diesel(sql_type = Text)]
    fact: String,
    #[diesel(sql_type = Identifier)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    label: String,
    #[diesel(sql_type = Text)]
    approver: String,
    #[diesel(sql_type = Bool)]
    allow_rollback: bool,
    /// Whether the incident is fixed by this deployment, or the approval a yes.
    #[diesel(sql_type = Bool)]
    is_set: bool,
    #[diesel(sql_type = Instant)]
    since: Timestamp,
    #[diesel(sql_type = Nullable<Instant>)]
    until: Option<Timestamp>,
    #[diesel(sql_type = Nullable<Document>)]
    weekly: Option<Json<Weekly>>,
    /// The override of the freeze that this deployment may use or has used.
    #[diesel(sql_type = Nullable<Identifier>)]
    overridden_by: Option<Uuid>,
}

impl FactRow {
    fn add_to(self, facts: &mut Facts) {
        match self.fact.as_str() {
            "freeze" => facts.freezes.push(Freeze {
                id: self.id.into(),
                reason: self.label,
                schedule: Schedule {
                    starts_at: self.since,
                    ends_at: self.until,
                    weekly: self.weekly.map(|w| w.0),
                },
                allow_rollback: self.allow_rollback,
                overridden_by: self.overridden_by.map(Into::into),
            }),
            "incident" => facts.incidents.push(Incident {
                id: self.id.into(),
                title: self.label,
                is_fixed_by_this: self.is_set,
            }),
            _ => facts.reviews.push(Review {
                id: self.id.into(),
                approver: self.approver.into(),
                approved: self.is_set,
                at: self.since,
                expires_at: self.until.unwrap_or(self.since),
            }),
        }
    }
}

/// Selects the freezes, incidents, approvals and rejections that apply now.
///
/// Parameters: `$1` service, `$2` environment, `$3` now, `$4` version, `$5` deployment, `$6` image
/// digest, `$7` incident that the deployment fixes, `$8` release. They must first appear in this
/// order, because SQLite numbers them so.
const HOLDS: &str = "
    SELECT 'freeze' AS fact, f.id AS id, f.reason AS label, '' AS approver,
        f.allow_rollback AS allow_rollback, false AS is_set,
        f.starts_at AS since, f.ends_at AS until, f.weekly AS weekly,
        (SELECT o.id FROM freeze_overrides o
            WHERE o.service = $1 AND o.environment = $2 AND f.starts_at <= $3
            AND o.freeze_id = f.id AND o.version = $4
            AND (o.consumed_by IS NULL OR o.consumed_by = $5)
            AND o.image_digest IS NOT DISTINCT FROM $6 AND o.expires_at > $3
            ORDER BY CASE WHEN o.consumed_by IS NULL THEN 1 ELSE 0 END, o.created_at, o.id
            LIMIT 1) AS overridden_by
    FROM freezes f
    WHERE f.ended_at IS NULL AND f.starts_at <= $3 AND (f.ends_at IS NULL OR f.ends_at > $3)
        AND (f.service IS NULL OR f.service = $1) AND (f.environment IS NULL OR f.environment = $2)
    UNION ALL
    SELECT 'incident', i.id, i.title, '', false,
        i.id = $7 OR EXISTS (SELECT 1 FROM incident_deployments l
            WHERE l.incident_id = i.id AND l.deployment_id = $5 AND l.role = 'fixed_by'),
        i.detected_at, CAST(NULL AS timestamptz), CAST(NULL AS jsonb), CAST(NULL AS uuid)
    FROM incidents i
    WHERE i.resolved_at IS NULL AND i.service = $1 AND i.environment = $2
    UNION ALL
    SELECT 'review', a.id, a.decision, a.approver, false, a.decision = 'approved',
        coalesce(a.at, a.created_at), a.expires_at, CAST(NULL AS jsonb), CAST(NULL AS uuid)
    FROM approvals a
    WHERE a.release_id = $8 AND a.environment = $2
        AND (a.consumed_by IS NULL OR a.consumed_by = $5)
        AND a.image_digest IS NOT DISTINCT FROM $6
    ORDER BY 7, 2";

/// Loads the freezes, incidents, approvals and rejections that apply to the request.
fn load_holds(
    db: &mut Db,
    snapshot: &PlaceSnapshot,
    environment: &Environment,
    release: &Candidate,
    request: &GateRequest<'_>,
    now: Timestamp,
) -> QueryResult<Vec<FactRow>> {
    // A missing identifier becomes a new one, which matches nothing. A comparison with NULL would
    // be neither true nor false.
    each_backend!(db, |c| Kept(
        diesel::sql_query(HOLDS)
            .bind::<Text, _>(&snapshot.service)
            .bind::<Text, _>(&environment.slug)
            .bind::<Instant, _>(now)
            .bind::<Text, _>(&release.version)
            .bind::<Identifier, _>(request.deployment.unwrap_or_else(DeploymentId::new))
            .bind::<Nullable<Text>, _>(&release.image_digest)
            .bind::<Identifier, _>(request.fixes.unwrap_or_else(IncidentId::new))
            .bind::<Identifier, _>(release.id.unwrap_or_else(ReleaseId::new))
    )
    .load(c))
}

/// Loads the facts that the rule needs in addition to the state of the place, with one query.
pub fn facts(
    db: &mut Db,
    snapshot: &PlaceSnapshot,
    environment: &Environment,
    release: &Candidate,
    request: &GateRequest<'_>,
    now: Timestamp,
) -> Result<Facts, Error> {
    let mut facts = Facts {
        step: request.step,
        requested_by: request.requested_by.into(),
        recorded_by: request.recorded_by.map(Name::from),
        is_rollback: request.rollback && snapshot.is_way_back(),
        policy: environment.policy(),
        release: gate::Candidate {
            version: release.version.clone(),
            image_digest: release.image_digest.clone(),
            scan_passed: match release.scan {
                ScanStatus::Missing => None,
                ScanStatus::Passed => Some(true),
                ScanStatus::Failed => Some(false),
            },
            succeeded_before_at: snapshot.succeeded_before_at,
        },
        // A deployment does not block itself.
        running: snapshot.running.filter(|id| request.deployment != Some(*id)),
        freezes: Vec::new(),
        incidents: Vec::new(),
        reviews: Vec::new(),
    };
    for row in load_holds(db, snapshot, environment, release, request, now)? {
        row.add_to(&mut facts);
    }
    Ok(facts)
}

/// A decision with the facts it was made from, as it is stored with a deployment and in events.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// The decision of the gate.
    #[serde(flatten)]
    pub decision: Decision,
    /// The facts that the decision was made from.
    pub facts: Facts,
}

impl Evaluation {
    /// Applies the rule to the facts.
    pub fn of(facts: Facts, now: Timestamp) -> Self {
        Self { decision: gate::decide(&facts, now), facts }
    }

    /// Whether no approval is missing.
    pub fn is_approved(&self) -> bool {
        self.reviewed() == Reviewed::Approved
    }

    /// What the reviews of the release come to.
    pub fn reviewed(&self) -> Reviewed {
        gate::reviewed(&self.facts, self.decision.evaluated_at)
    }

    /// The JSON document that is stored.
    pub fn document(&self) -> Result<Value, Error> {
        serde_json::to_value(self).map_err(Error::internal)
    }
}

/// Records the event `gate.blocked`, and returns the error for the caller with all reasons.
pub fn refuse(
    db: &mut Db,
    actor: &Actor,
    service: &str,
    deployment: Option<DeploymentId>,
    evaluation: &Evaluation,
) -> Result<Error, Error> {
    let Facts { policy, release, step, .. } = &evaluation.facts;
    let place = format!("{service}/{}", policy.environment);
    let about = About {
        entity: Entity::Gate,
        id: &place,
        service: Some(service),
        environment: Some(&policy.environment),
    };
    let payload = serde_json::json!({"step": step, "version": release.version,
        "deployment_id": deployment, "decision": evaluation});
    events::record(db, actor, &about, "blocked", payload)?;
    let details: Vec<_> =
        evaluation.decision.reasons.iter().map(|reason| reason.detail.as_str()).collect();
    let refusal = Error::new(Code::GateBlocked, details.join(" "));
    Ok(refusal
        .with("reasons", &evaluation.decision.reasons)
        .with("evaluated_at", evaluation.decision.evaluated_at)
        .recorded())
}

/// What a start uses up, so that no other deployment can use it.
#[derive(Debug, Default, Serialize)]
pub struct Consumed {
    /// The reviews, by their identifiers.
    pub approvals: Vec<ApprovalId>,
    /// The overrides of freezes, by theirs.
    pub overrides: Vec<OverrideId>,
}

impl Consumed {
    /// Records the event of a deployment that consumed these, or of one whose consumption was
    /// reverted (`verb`). Nothing is recorded of nothing.
    pub fn record(
        &self,
        db: &mut Db,
        actor: &Actor,
        deployment: &Deployment,
        verb: &str,
    ) -> Result<(), Error> {
        if self.approvals.is_empty() && self.overrides.is_empty() {
            return Ok(());
        }
        events::record(db, actor, &deployment.about(), verb, self)
    }
}

/// Consumes the overrides by which the deployment passes freezes, so that no other deployment can
/// use them, and returns those that it had not consumed before.
pub fn consume_overrides(
    db: &mut Db,
    deployment: DeploymentId,
    facts: &Facts,
    now: Timestamp,
) -> Result<Vec<OverrideId>, Error> {
    let mut consumed = Vec::new();
    for used in gate::consumed_overrides(facts, now) {
        let unused = freeze_overrides::table
            .filter(freeze_overrides::id.eq(used))
            .filter(freeze_overrides::consumed_by.is_null());
        let is_new =
            diesel::update(unused).set(freeze_overrides::consumed_by.eq(deployment)).execute(db)?;
        consumed.extend((is_new == 1).then_some(used));
    }
    Ok(consumed)
}

/// Releases the approvals and overrides that a deployment has consumed, because it did not really
/// start, and records which.
pub fn release_consumed(db: &mut Db, actor: &Actor, deployment: &Deployment) -> Result<(), Error> {
    let reviews = approvals::table.filter(approvals::consumed_by.eq(deployment.id));
    let passed = freeze_overrides::table.filter(freeze_overrides::consumed_by.eq(deployment.id));
    let consumed = Consumed {
        approvals: reviews.select(approvals::id).order(approvals::id).load(db)?,
        overrides: passed.select(freeze_overrides::id).order(freeze_overrides::id).load(db)?,
    };
    let nobody = None::<DeploymentId>;
    diesel::update(reviews).set(approvals::consumed_by.eq(nobody)).execute(db)?;
    diesel::update(passed).set(freeze_overrides::consumed_by.eq(nobody)).execute(db)?;
    consumed.record(db, actor, deployment, "consumption_reverted")
}

/// Consumes the approvals of this start, and all other approvals and rejections that were given
/// before it, and returns which.
pub fn consume_reviews(
    db: &mut Db,
    deployment: DeploymentId,
    facts: &Facts,
) -> Result<Vec<ApprovalId>, Error> {
    let consumed: Vec<ApprovalId> =
        gate::consumed_by_start(facts).iter().map(|review| review.id).collect();
    if !consumed.is_empty() {
        diesel::update(approvals::table.filter(approvals::id.eq_any(&consumed)))
            .set(approvals::consumed_by.eq(deployment))
            .execute(db)?;
    }
    Ok(consumed)
}
