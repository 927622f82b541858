//! The gate: loads the facts that the rule in `rules::gate` needs, and answers whether a release
//! may be deployed. Answering changes nothing.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;

use crate::db::schema::{approvals, freeze_overrides};
use crate::db::{Db, counting, kept};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Read};
use crate::http::extract::Query;
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::snapshot::{self, PlaceSnapshot, Subject};
use crate::ledger::deployments::{Deployment, find_reported_by_webhook};
use crate::ledger::environments::{Environment, unknown as unknown_environment};
use crate::ledger::events::{self, About, Entity};
use crate::ledger::releases::{Release, ScanStatus};
use crate::ledger::services::unknown as unknown_service;
use crate::rules::gate::{self, Decision, Facts, Reviewed, Step};
use crate::rules::lifecycle::State;
use crate::types::counted::Counted;
use crate::types::ids::{ApprovalId, DeploymentId, OverrideId};
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::values::{Digest, ShortText, Slug, Url, Version};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(evaluate_gate, __path_evaluate_gate);
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
#[utoipa::path(get, path = "/gate",
    tag = "gate", operation_id = "evaluate_gate", security(("key" = ["read"])),
    params(Question),
    responses(
        (status = 200,
            description = "The decision: `allowed`, or the reasons that block the deployment.",
            body = Decision),
        (status = 404,
            description = "The service, environment, release or deployment does not exist.")))]
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
    let (snapshot, deployment) = of_deployment(db, id)?;
    if deployment.is_overdue() {
        return invalid("deployment", "has expired and cannot start".to_owned());
    }
    if !matches!(deployment.state, State::AwaitingApproval | State::Approved) {
        let detail = format!("is {}; only a deployment that has not started can", deployment.state);
        return invalid("deployment", detail);
    }
    decide(&snapshot, &GateRequest::to_start(&deployment))
}

/// Decides on a start that the caller would request.
///
/// # Errors
/// `not_found` when the service, environment or release does not exist.
fn answer(db: &mut Db, question: &Question, caller: &str) -> Result<Decision, Error> {
    let missing = |name| {
        Error::field(Code::InvalidQuery, name, "is missing; it is required without `deployment`")
    };
    let service = question.service.as_ref().ok_or_else(|| missing("service"))?;
    let environment = question.environment.as_deref().ok_or_else(|| missing("environment"))?;
    let version = question.version.as_deref().ok_or_else(|| missing("version"))?;
    let run = question.run_url.as_deref();
    let mut subject = Subject::place(service, environment);
    (subject.version, subject.has_run) = (Some(version), run.is_some());
    let mut found = snapshot::load(db, &subject, None)?;
    if found.as_ref().is_some_and(|snapshot| snapshot.has_reported) {
        let reported = find_reported_by_webhook(db, service, environment, run)?;
        subject.deployment = reported.map(|reported| reported.id);
        if subject.deployment.is_some() {
            found = snapshot::load(db, &subject, None)?;
        }
    }
    let Some(snapshot) = found else { return Err(unknown_service(db, service)?) };
    if snapshot.environment.is_none() {
        return Err(unknown_environment(db, environment)?);
    }
    if snapshot.release.is_none() {
        return Err(Error::not_found(&format!("release of {service} with version"), version));
    }
    let request = GateRequest {
        step: Step::Start,
        requested_by: question.requested_by.as_deref().unwrap_or(caller),
        recorded_by: Some(caller),
        rollback: question.rollback.unwrap_or(false),
        deployment: subject.deployment,
    };
    decide(&snapshot, &request)
}

/// The codes of the reasons why a recorded deployment cannot start now.
///
/// # Errors
/// `not_found` when there is no such deployment.
pub fn blocked(db: &mut Db, id: DeploymentId) -> Result<Vec<gate::Code>, Error> {
    let (snapshot, deployment) = of_deployment(db, id)?;
    let decision = decide(&snapshot, &GateRequest::to_start(&deployment))?;
    Ok(decision.reasons.into_iter().map(|reason| reason.code).collect())
}

fn of_deployment(db: &mut Db, id: DeploymentId) -> Result<(PlaceSnapshot, Deployment), Error> {
    let found = snapshot::load_of(db, id, None)?;
    let (found, snapshot) = found.ok_or_else(|| Error::not_found("deployment", id))?;
    Ok((snapshot, found.deployment))
}

/// Decides for a place and a release that exist.
fn decide(snapshot: &PlaceSnapshot, request: &GateRequest<'_>) -> Result<Decision, Error> {
    let (environment, release) = snapshot.known()?;
    let facts = facts(snapshot, environment, &Candidate::of(release), request);
    Ok(gate::decide(&facts, snapshot.now))
}

/// The release in question, which may not be recorded yet.
pub struct Candidate {
    version: Version,
    image_digest: Option<Digest>,
    scan: ScanStatus,
}

impl Candidate {
    /// A release that is recorded.
    pub fn of(release: &Release) -> Self {
        let Release { version, image_digest, scan, .. } = release;
        Self { version: version.clone(), image_digest: image_digest.clone(), scan: scan.0.status }
    }

    /// A release that is not recorded yet.
    pub fn unrecorded(version: &Version, image_digest: Option<&Digest>) -> Self {
        Self {
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

/// The question to the gate: who wants to deploy, and at which step.
pub struct GateRequest<'a> {
    /// The step of the deployment that is to be decided.
    pub step: Step,
    /// The name of the person or pipeline that requests the deployment.
    pub requested_by: &'a str,
    /// The name of the key that records the deployment.
    pub recorded_by: Option<&'a str>,
    /// Whether it was asked for as a rollback.
    pub rollback: bool,
    /// The deployment. `None` while it is not recorded.
    pub deployment: Option<DeploymentId>,
}

impl<'a> GateRequest<'a> {
    /// The question for the start of a recorded deployment.
    pub fn to_start(deployment: &'a Deployment) -> Self {
        Self {
            step: Step::Start,
            requested_by: &deployment.requested_by,
            recorded_by: deployment.recorded_by.as_deref(),
            rollback: deployment.rollback,
            deployment: Some(deployment.id),
        }
    }
}

/// The facts that the rule needs.
pub fn facts(
    snapshot: &PlaceSnapshot,
    environment: &Environment,
    release: &Candidate,
    request: &GateRequest<'_>,
) -> Facts {
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
    snapshot.add_holds_to(&mut facts);
    facts
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

/// Records the event `gate.blocked` and a log line, and returns the error for the caller with all
/// reasons.
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
    for reason in &evaluation.decision.reasons {
        counting::count(Counted::Blocked { code: reason.code.as_str() });
    }
    // For dashboards that count log lines.
    log::info!(
        target: "gate",
        service,
        environment = &*policy.environment,
        version = &*release.version,
        step:serde = step;
        "blocked"
    );
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
        let use_it = diesel::update(unused).set(freeze_overrides::consumed_by.eq(deployment));
        let is_new = kept::execute(db, use_it)?;
        consumed.extend((is_new == 1).then_some(used));
    }
    Ok(consumed)
}

/// Releases the approvals and overrides that a deployment has consumed, because it did not really
/// start, and records which.
pub fn release_consumed(db: &mut Db, actor: &Actor, deployment: &Deployment) -> Result<(), Error> {
    // It has consumed only what is for its release and place, by which there are indexes.
    let reviews = approvals::table
        .filter(approvals::release_id.eq(deployment.release_id))
        .filter(approvals::environment.eq(&deployment.environment))
        .filter(approvals::consumed_by.eq(deployment.id));
    let passed = freeze_overrides::table
        .filter(freeze_overrides::service.eq(&deployment.service))
        .filter(freeze_overrides::environment.eq(&deployment.environment))
        .filter(freeze_overrides::version.eq(&deployment.version))
        .filter(freeze_overrides::consumed_by.eq(deployment.id));
    let consumed = Consumed {
        approvals: reviews.select(approvals::id).order(approvals::id).load(db)?,
        overrides: passed.select(freeze_overrides::id).order(freeze_overrides::id).load(db)?,
    };
    let nobody = None::<DeploymentId>;
    kept::execute(db, diesel::update(reviews).set(approvals::consumed_by.eq(nobody)))?;
    kept::execute(db, diesel::update(passed).set(freeze_overrides::consumed_by.eq(nobody)))?;
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
        let used = approvals::table.filter(approvals::id.eq_any(&consumed));
        kept::execute(db, diesel::update(used).set(approvals::consumed_by.eq(deployment)))?;
    }
    Ok(consumed)
}
