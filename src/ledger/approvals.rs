//! Approvals and rejections of a release. Each one is bound to the release's image and to one
//! environment.

use diesel::dsl::AsSelect;
use diesel::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use utoipa::{IntoParams, ToSchema};

use crate::db::columns::lower;
use crate::db::pages::All;
use crate::db::schema::approvals;
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::caller::Scope;
use crate::http::context::{Actor, ApproveOrMirror, Author, Ctx, Read};
use crate::http::extract::Body;
use crate::http::pagination::{List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::{self, transitions};
use crate::ledger::environments::{self, Environment};
use crate::ledger::events::{self, About, Entity};
use crate::ledger::releases::{self, Release};
use crate::ledger::services;
use crate::ledger::times::reported_time;
use crate::rules::lifecycle::State;
use crate::types::ids::{ApprovalId, DeploymentId, ReleaseId};
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::values::{Digest, LongText, ShortText, Slug, Url, Version};
use crate::{conditions, newest_first, read_along, text_enum};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(list, __path_list).add(create, __path_create);
}

text_enum! {
    /// The decision of the approver.
    Verdict {
        /// The release may be deployed to the environment.
        Approved = "approved",
        /// The release must not be deployed to the environment.
        Rejected = "rejected",
    }
}

text_enum! {
    /// Where the decision was made.
    Source {
        /// In prop, by the holder of a key with the scope `approve`.
        Api = "api",
        /// In a review of a GitHub environment, and recorded with a key with the scope `mirror` or
        /// by a webhook.
        GitHub = "github",
    }
}

/// An approval or a rejection of a release for an environment.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = approvals, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e43",
    "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "service": "checkout",
    "environment": "production",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "decision": "approved", "approver": "alice", "comment": "Go.", "source": "api", "run_url": null,
    "review_id": null, "recorded_by": "alice",
    "at": null, "created_at": "2026-02-03T04:05:06.000000Z",
    "expires_at": "2026-02-06T04:05:06.000000Z", "consumed_by": null
}))]
pub struct Approval {
    /// The identifier of the approval.
    id: ApprovalId,
    /// The identifier of the release.
    release_id: ReleaseId,
    /// The slug of the service.
    service: Slug,
    /// The slug of the environment for which the decision was made.
    environment: Slug,
    /// The image digest of the release at that time. The approval counts only for this image.
    /// `null` when the release had none.
    image_digest: Option<Digest>,
    /// Whether the release was approved or rejected.
    decision: Verdict,
    /// The name of the person who decided: the name of the key, or the GitHub login. Two names that
    /// differ only in the case of letters are one person.
    #[schema(value_type = String)]
    approver: Name,
    /// The comment of the approver. `null` when there is none.
    comment: Option<LongText>,
    /// Where the decision was made.
    source: Source,
    /// The URL of the pipeline run that was reviewed. `null` for a decision that was made in prop.
    run_url: Option<Url>,
    /// The identifier of the review in its source. `null` for a decision that was made in prop.
    review_id: Option<String>,
    /// The name of the key that recorded the approval, or `github:` and a login for a webhook.
    recorded_by: String,
    /// When the approver decided. `null` when it was not reported; `created_at` then counts.
    at: Option<Timestamp>,
    /// When the approval was recorded in prop.
    created_at: Timestamp,
    /// When the approval expires, counted from the decision. From then on it does not count.
    expires_at: Timestamp,
    /// The deployment that started with this approval, which counts for no other one. `null` while
    /// it is unused.
    consumed_by: Option<DeploymentId>,
}

impl Approval {
    fn about(&self) -> About<'_> {
        About {
            entity: Entity::Approval,
            id: &self.id,
            service: Some(&self.service),
            environment: Some(&self.environment),
        }
    }
}

/// An approval or a rejection to record.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"service": "checkout", "version": "1.4.2", "environment": "production",
    "decision": "approved", "comment": "Go."}))]
pub struct NewApproval {
    /// The slug of the service.
    pub service: Slug,
    /// The version of the release.
    pub version: Version,
    /// The slug of the environment for which the decision is made.
    pub environment: Slug,
    /// Whether the release is approved or rejected. `approve` and `reject` are accepted as well.
    #[serde(deserialize_with = "verdict")]
    pub decision: Verdict,
    /// A comment of the approver. May be absent or `null`.
    pub comment: Option<LongText>,
    /// Where the decision was made: `github` requires the scope `mirror`, `api` the scope
    /// `approve`. `api`, if absent or `null`.
    pub source: Option<Source>,
    /// The GitHub login of the approver. Required with the source `github`; must be absent or
    /// `null` with `api`. `prop`, `anonymous`, `github` and names that begin with `github:` are
    /// reserved.
    #[schema(value_type = Option<ShortText>)]
    pub approver: Option<Name>,
    /// The URL of the pipeline run that was reviewed. Required with the source `github`; must be
    /// absent or `null` with `api`.
    pub run_url: Option<Url>,
    /// The identifier of the review on GitHub. A repeat with the same identifier answers the
    /// recorded approval. If absent or `null`, prop makes one from run, approver, decision and the
    /// number 1. Must be absent or `null` with the source `api`.
    pub review_id: Option<ShortText>,
    /// When the approver decided. The last decision of each approver counts, whatever the order of
    /// the reports. Now, if absent or `null`. Up to a minute in the future counts as now.
    pub at: Option<Timestamp>,
}

/// Reads a decision; accepts the verb (`approve`) as well as the participle.
fn verdict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Verdict, D::Error> {
    let word = Cow::<str>::deserialize(deserializer)?;
    match &*word {
        "approve" => Ok(Verdict::Approved),
        "reject" => Ok(Verdict::Rejected),
        other => other.parse().map_err(serde::de::Error::custom),
    }
}

/// The sort key of the list of approvals.
type After = (Timestamp, ApprovalId);

/// The query parameters of the list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Only approvals of releases of this service.
    #[param(inline)]
    service: Option<Slug>,
    /// Only approvals for this environment.
    #[param(inline)]
    environment: Option<Slug>,
    /// Only approvals of the release with this identifier.
    release_id: Option<ReleaseId>,
}

/// List approvals
///
/// Answers a page of the approvals and rejections that match all parameters, the newest first.
///
/// A page looks at no more than 5,000 of the release, or else of the service, that is asked for.
/// Then it ends, with fewer items or none, and `next` continues with older ones.
#[utoipa::path(get, path = "/approvals",
    tag = "approvals", operation_id = "list_approvals", security(("key" = ["read"])),
    params(Filter, Paging),
    responses((status = 200, description = "A page of approvals and rejections.",
        body = Page<Approval>)))]
async fn list(ctx: Ctx<Read>, params: List<Filter, After>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::page(&find_all(db, &params)?)).await
}

/// Approve or reject a release
///
/// Records the decision for one environment and answers it. Deployments that wait for it become
/// `approved` or `rejected`. A rejection takes an approved deployment that needs the withdrawn
/// approval back to `awaiting_approval`. The last decision of each approver by `at` counts, so a
/// late report of an earlier one changes nothing. With the source `github`, a repeat of a review
/// answers 200 and the recorded approval, with the `at` that it adds. With `api`, each request
/// records another approval. Fails with 403 (`own_approval`) when the approver has requested the
/// deployment and the environment does not allow self-approval.
#[utoipa::path(post, path = "/approvals",
    tag = "approvals", operation_id = "create_approval",
    security(("key" = ["approve"]), ("key" = ["mirror"])), request_body = NewApproval,
    responses(
        (status = 201, description = "The approval or rejection that was recorded.",
            body = Approval),
        (status = 200,
            description = "The review had been recorded before; this is the recorded approval.",
            body = Approval),
        (status = 404, description = "The service, environment or release does not exist."),
        (status = 422,
            description = "The body is malformed; `approver` or `run_url` is missing with the \
                `source` `github` (`missing_field`), or one of them or `review_id` is there with \
                `api`; `approver` is a reserved name; or `at` is more than a minute in the future \
                (`invalid_value`).")))]
async fn create(ctx: Ctx<ApproveOrMirror>, body: Body<NewApproval>) -> Result<Reply, Error> {
    ctx.require(&[if body.0.source == Some(Source::GitHub) {
        Scope::Mirror
    } else {
        Scope::Approve
    }])?;
    ctx.post(move |db, author| {
        let Recorded { approval, is_new, .. } = record(db, author, body.0.clone())?;
        if is_new { Reply::made(&approval) } else { Reply::ok(&approval) }
    })
    .await
}

fn find_all(db: &mut Db, params: &List<Filter, After>) -> Result<Page<Approval>, Error> {
    let (along, rest) = read_along!(params.filter;; release_id, service);
    let query = || all().filter(conditions(&along));
    let (rest, of_all) = (conditions(&rest), along == Filter::default());
    newest_first!(db, params, Approval, query, rest, approvals::{created_at, id}, of_all)
}

fn all<'a>() -> approvals::BoxedQuery<'a, MultiBackend, AsSelect<Approval, MultiBackend>> {
    approvals::table.select(Approval::as_select()).into_boxed()
}

fn conditions(filter: &Filter) -> All<'_> {
    conditions!(
        &filter.service => |it| approvals::service.eq(it),
        &filter.environment => |it| approvals::environment.eq(it),
        filter.release_id => |it| approvals::release_id.eq(it))
}

/// A review that was recorded, or had been.
pub struct Recorded {
    /// The approval or rejection.
    pub approval: Approval,
    /// Whether it had not been recorded before.
    pub is_new: bool,
    /// Whether something about it was recorded now.
    pub is_change: bool,
}

/// Records an approval or rejection, and applies it to the deployments that wait for it.
///
/// # Errors
/// `not_found`, `own_approval`, `approval_used`, or that the fields contradict each other.
pub fn record(db: &mut Db, author: &Author, new: NewApproval) -> Result<Recorded, Error> {
    let actor = &services::lock_known(db, author, &new.service)?;
    let environment = environments::find(db, &new.environment)?;
    let release = releases::find_version(db, &new.service, &new.version)?;
    let mut approval = approval(actor, new, &release, &environment)?;
    approval.consumed_by = started_since(db, &approval, &environment)?;
    let is_rejection = approval.decision == Verdict::Rejected;
    if let Some(known) = find_review(db, &approval)? {
        let known = the_same(known, &approval)?;
        let is_change = known.at.is_none() && approval.at.is_some();
        if !is_change {
            return Ok(Recorded { approval: known, is_new: false, is_change });
        }
        let approval = add_time(db, actor, known, approval)?;
        transitions::apply_review(db, actor, &release, &environment, is_rejection)?;
        return Ok(Recorded { approval, is_new: false, is_change });
    }
    refuse_own(db, &approval, &release, &environment)?;
    diesel::insert_into(approvals::table).values(&approval).execute(db)?;
    events::record(db, actor, &approval.about(), approval.decision.as_str(), &approval)?;
    transitions::apply_review(db, actor, &release, &environment, is_rejection)?;
    Ok(Recorded { approval, is_new: true, is_change: true })
}

fn approval(
    actor: &Actor,
    new: NewApproval,
    release: &Release,
    environment: &Environment,
) -> Result<Approval, Error> {
    let source = new.source.unwrap_or(Source::Api);
    let (approver, run_url) = match (source, new.approver, new.run_url) {
        (Source::Api, None, None) if new.review_id.is_none() => (actor.name.as_str().into(), None),
        (Source::Api, ..) => {
            let detail =
                "approver, run_url and review_id are only allowed with the source `github`";
            return Err(Error::field(Code::InvalidValue, "/source", detail));
        }
        (Source::GitHub, Some(approver), Some(run_url)) => (approver, Some(run_url)),
        (Source::GitHub, None, _) => {
            return Err(Error::field(
                Code::MissingField,
                "/approver",
                "is missing; the source `github` requires it",
            ));
        }
        (Source::GitHub, _, None) => {
            return Err(Error::field(
                Code::MissingField,
                "/run_url",
                "is missing; the source `github` requires it",
            ));
        }
    };
    let at = new.at.map(|at| reported_time(at, "/at", actor.now)).transpose()?;
    let review_id = new
        .review_id
        .map(String::from)
        .or_else(|| run_url.as_ref().map(|run| format!("{run} {approver} {} 1", new.decision)));
    Ok(Approval {
        id: ApprovalId::new(),
        release_id: release.id,
        service: release.service.clone(),
        environment: environment.slug.clone(),
        image_digest: release.image_digest.clone(),
        decision: new.decision,
        approver,
        comment: new.comment,
        source,
        run_url,
        review_id,
        recorded_by: actor.name.clone(),
        at,
        created_at: actor.now,
        expires_at: at.unwrap_or(actor.now).plus(environment.approval_ttl()),
        consumed_by: None,
    })
}

/// The recorded approval of the same review. The case of its identifier does not matter, because it
/// contains a login.
fn find_review(db: &mut Db, approval: &Approval) -> Result<Option<Approval>, Error> {
    let Some(review) = &approval.review_id else { return Ok(None) };
    let the_same = approvals::table
        .filter(approvals::release_id.eq(approval.release_id))
        .filter(approvals::environment.eq(&approval.environment))
        .filter(lower(approvals::review_id).eq(lower(review)));
    Ok(the_same.select(Approval::as_select()).first(db).optional()?)
}

/// Returns the recorded approval for a repeated review, if it has the same decision and approver
/// and no deployment has started with it.
fn the_same(known: Approval, sent: &Approval) -> Result<Approval, Error> {
    if let Some(deployment) = known.consumed_by {
        let detail = format!("Deployment {deployment} has started with this approval.");
        return Err(Error::new(Code::ApprovalUsed, detail).with("deployment_id", deployment));
    }
    if known.decision != sent.decision || known.approver != sent.approver {
        let detail =
            format!("This review is already recorded as {} by {}.", known.decision, known.approver);
        return Err(Error::new(Code::AlreadyExists, detail).with("approval_id", known.id));
    }
    Ok(known)
}

/// Adds the time of the decision, and what follows from it, to a recorded approval.
fn add_time(
    db: &mut Db,
    actor: &Actor,
    known: Approval,
    sent: Approval,
) -> Result<Approval, Error> {
    let Approval { at, expires_at, consumed_by, .. } = sent;
    let times = (
        approvals::at.eq(at),
        approvals::expires_at.eq(expires_at),
        approvals::consumed_by.eq(consumed_by),
    );
    diesel::update(approvals::table.find(known.id)).set(times).execute(db)?;
    let approval = Approval { at, expires_at, consumed_by, ..known };
    events::record(db, actor, &approval.about(), "corrected", &approval)?;
    Ok(approval)
}

/// The deployment that has started with this image since an approval was given, if the environment
/// requires approvals. A start consumes every approval given before it, however late prop learns of
/// it; the start stays what it was then. A rejection that arrives late counts for the next start.
fn started_since(
    db: &mut Db,
    approval: &Approval,
    environment: &Environment,
) -> QueryResult<Option<DeploymentId>> {
    let Some(at) = approval.at.filter(|_| approval.decision == Verdict::Approved) else {
        return Ok(None);
    };
    if environment.required_approvals == 0 {
        return Ok(None);
    }
    deployments::first_start_since(db, approval.release_id, &environment.slug, at)
}

/// Rejects an approval that could only count for the approver's own request (four-eyes principle).
fn refuse_own(
    db: &mut Db,
    approval: &Approval,
    release: &Release,
    environment: &Environment,
) -> Result<(), Error> {
    if approval.decision == Verdict::Rejected || environment.allow_self_approval {
        return Ok(());
    }
    // An overdue deployment no longer waits, even if it has not been expired yet.
    let mut waiting =
        deployments::in_state(db, release.id, &environment.slug, State::AwaitingApproval)?;
    waiting.retain(|deployment| !deployment.is_overdue_at(approval.created_at));
    if waiting.is_empty()
        || !waiting.iter().all(|deployment| deployment.belongs_to(&approval.approver))
    {
        return Ok(());
    }
    let detail = format!(
        "{} requested this deployment; {} requires the approval of another person.",
        approval.approver, environment.slug
    );
    Err(Error::new(Code::OwnApproval, detail))
}
