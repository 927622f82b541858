//! Approvals: what people say about a release, bound to its image and to one environment.

use actix_web::{get, post};
use diesel::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::approvals;
use crate::db::types::Timestamp;
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::auth::Scope;
use crate::http::context::{Actor, ApproveOrMirror, Ctx, Read};
use crate::http::extract::{Body, Query};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::environments::{self, Environment};
use crate::ledger::events::{self, About, Entity};
use crate::ledger::ids::{ApprovalId, DeploymentId, ReleaseId};
use crate::ledger::releases::{self, Release};
use crate::ledger::values::{Line, Prose, Slug, Url, Version, text};
use crate::ledger::{deployments, services, transitions};
use crate::text_enum;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create);
}

text_enum! {
    /// Yes or no.
    Verdict {
        /// Yes.
        Approved = "approved",
        /// No.
        Rejected = "rejected",
    }
}

text_enum! {
    /// Where it was said.
    Source {
        /// Here, by the holder of a key with the scope `approve`.
        Api = "api",
        /// In a review of a GitHub environment; told by the holder of a key with the scope `mirror`.
        GitHub = "github",
    }
}

/// What somebody said about a release in an environment.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = approvals, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e43", "release_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "service": "checkout",
    "environment": "production", "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "decision": "approved", "approver": "alice", "comment": "Go.", "source": "api", "run_url": null, "review_id": null, "recorded_by": "alice",
    "created_at": "2026-02-03T04:05:06.000000Z", "expires_at": "2026-02-06T04:05:06.000000Z", "consumed_by": null
}))]
pub struct Approval {
    id: ApprovalId,
    release_id: ReleaseId,
    service: String,
    environment: String,
    /// The image that it is about: another image of the same version is another matter.
    image_digest: Option<String>,
    decision: Verdict,
    /// Who said it.
    approver: String,
    comment: Option<String>,
    source: Source,
    /// The run that it was said in.
    run_url: Option<String>,
    /// Its name there.
    review_id: Option<String>,
    /// Who told prop.
    recorded_by: String,
    created_at: Timestamp,
    /// It does not count from then on.
    expires_at: Timestamp,
    /// The deployment that started with it: it counts for no other.
    consumed_by: Option<DeploymentId>,
}

/// Something to say about a release.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"service": "checkout", "version": "1.4.2", "environment": "production", "decision": "approved", "comment": "Go."}))]
pub struct NewApproval {
    /// Whose release.
    pub service: Slug,
    /// Which one.
    pub version: Version,
    /// Where to.
    pub environment: Slug,
    /// Yes or no. `approve` and `reject` are accepted as well.
    #[serde(deserialize_with = "verdict")]
    pub decision: Verdict,
    /// What else they say.
    pub comment: Option<Prose>,
    /// `github` tells of a review that was given there, and takes the scope `mirror`; `api`, if not said, takes `approve`.
    pub source: Option<Source>,
    /// Who said it: the GitHub login. Only for what was said elsewhere, and needed there.
    pub approver: Option<Line>,
    /// The run that it was said in. Only for what was said elsewhere, and needed there.
    pub run_url: Option<Url>,
    /// Its name there; if not said, made of run, approver, decision, and 1 for the first such one in the run. The same one again
    /// is the same approval.
    pub review_id: Option<Line>,
}

/// The verdict; also where the verb is sent instead of the participle.
fn verdict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Verdict, D::Error> {
    let word = Cow::<str>::deserialize(deserializer)?;
    match &*word {
        "approve" => Ok(Verdict::Approved),
        "reject" => Ok(Verdict::Rejected),
        other => other.parse().map_err(serde::de::Error::custom),
    }
}

/// What a list of approvals is ordered by.
type After = (Timestamp, ApprovalId);

/// Which approvals.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Approvals of this service's releases.
    #[param(inline)]
    service: Option<Slug>,
    /// Approvals for this environment.
    #[param(inline)]
    environment: Option<Slug>,
    /// Approvals of this release.
    release_id: Option<ReleaseId>,
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
}

/// List approvals
///
/// The newest first; rejections too.
#[utoipa::path(tag = "approvals", operation_id = "list_approvals", security(("key" = ["read"])), params(Filter),
    responses((status = 200, body = Page<Approval>)))]
#[get("/approvals")]
async fn list(ctx: Ctx<Read>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Approve or reject a release
///
/// For one environment. Deployments that wait for it move on. Who asked for a deployment can't approve it, unless the
/// environment says so.
#[utoipa::path(tag = "approvals", operation_id = "create_approval", security(("key" = ["approve"]), ("key" = ["mirror"])), request_body = NewApproval,
    responses((status = 201, body = Approval), (status = 200, description = "This review was recorded before.", body = Approval),
        (status = 404, description = "The service, environment or release does not exist.")))]
#[post("/approvals")]
async fn create(ctx: Ctx<ApproveOrMirror>, body: Body<NewApproval>) -> Result<Reply, Error> {
    ctx.require(&[if body.0.source == Some(Source::GitHub) {
        Scope::Mirror
    } else {
        Scope::Approve
    }])?;
    ctx.post(move |db, actor| {
        let (approval, is_new) = say(db, actor, body.0)?;
        if is_new { Reply::made(&approval) } else { Reply::ok(&approval) }
    })
    .await
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Approval>, Error> {
    let mut query = approvals::table.select(Approval::as_select()).into_boxed::<MultiBackend>();
    if let Some(service) = &filter.service {
        query = query.filter(approvals::service.eq(service.to_string()));
    }
    if let Some(environment) = &filter.environment {
        query = query.filter(approvals::environment.eq(environment.to_string()));
    }
    if let Some(release) = filter.release_id {
        query = query.filter(approvals::release_id.eq(release));
    }
    if let Some(Cursor((at, id))) = filter.cursor {
        query = query.filter(
            approvals::created_at.lt(at).or(approvals::created_at.eq(at).and(approvals::id.lt(id))),
        );
    }
    let rows = query
        .order((approvals::created_at.desc(), approvals::id.desc()))
        .limit(filter.limit.and_one())
        .load(db)?;
    Ok(Page::of(rows, filter.limit, |approval: &Approval| (approval.created_at, approval.id)))
}

/// Records what somebody said, and lets the deployments that wait for it move on.
pub fn say(db: &mut Db, actor: &Actor, new: NewApproval) -> Result<(Approval, bool), Error> {
    if !services::lock(db, &new.service)? {
        return Err(services::unknown(db, &new.service)?);
    }
    let actor = &actor.afresh();
    let environment = environments::find(db, &new.environment)?;
    let release = releases::find_version(db, &new.service, &new.version)?;
    let approval = approval(actor, new, &release, &environment)?;
    if let Some(known) = find_review(db, &approval)? {
        return the_same(known, &approval).map(|known| (known, false));
    }
    refuse_own(db, &approval, &release, &environment)?;
    diesel::insert_into(approvals::table).values(&approval).execute(db)?;
    let about = About {
        entity: Entity::Approval,
        id: &approval.id,
        service: Some(&release.service),
        environment: Some(&environment.slug),
    };
    events::record(db, actor, &about, approval.decision.as_str(), &approval)?;
    transitions::hear(db, actor, &release, &environment, approval.decision == Verdict::Approved)?;
    Ok((approval, true))
}

fn approval(
    actor: &Actor,
    new: NewApproval,
    release: &Release,
    environment: &Environment,
) -> Result<Approval, Error> {
    let source = new.source.unwrap_or(Source::Api);
    let (approver, run_url) = match (source, new.approver, new.run_url) {
        (Source::Api, None, None) if new.review_id.is_none() => (actor.name.clone(), None),
        (Source::Api, ..) => {
            let detail = "approver, run_url and review_id are for what was said elsewhere: `source` says where";
            return Err(Error::field(Code::InvalidValue, "/source", detail));
        }
        (Source::GitHub, Some(approver), Some(run_url)) => {
            (approver.to_string(), Some(run_url.to_string()))
        }
        (Source::GitHub, None, _) => {
            return Err(Error::field(Code::MissingField, "/approver", "is missing: who said it?"));
        }
        (Source::GitHub, _, None) => {
            return Err(Error::field(
                Code::MissingField,
                "/run_url",
                "is missing: where was it said?",
            ));
        }
    };
    let review_id = text(new.review_id)
        .or_else(|| run_url.as_ref().map(|run| format!("{run} {approver} {} 1", new.decision)));
    Ok(Approval {
        id: ApprovalId::new(),
        release_id: release.id,
        service: release.service.clone(),
        environment: environment.slug.clone(),
        image_digest: release.image_digest.clone(),
        decision: new.decision,
        approver,
        comment: text(new.comment),
        source,
        run_url,
        review_id,
        recorded_by: actor.name.clone(),
        created_at: actor.now,
        expires_at: actor.now.plus(environment.approval_ttl()),
        consumed_by: None,
    })
}

fn find_review(db: &mut Db, approval: &Approval) -> Result<Option<Approval>, Error> {
    let Some(review) = &approval.review_id else { return Ok(None) };
    let the_same = approvals::table
        .filter(approvals::release_id.eq(approval.release_id))
        .filter(approvals::environment.eq(&approval.environment))
        .filter(approvals::review_id.eq(review));
    Ok(the_same.select(Approval::as_select()).first(db).optional()?)
}

/// The review that is sent again, if it says the same and nothing has started with it.
fn the_same(known: Approval, sent: &Approval) -> Result<Approval, Error> {
    if let Some(deployment) = known.consumed_by {
        let detail = format!("Deployment {deployment} has started with it.");
        return Err(Error::new(Code::ApprovalUsed, detail).with("deployment_id", deployment));
    }
    if known.decision != sent.decision || known.approver != sent.approver {
        let detail =
            format!("This review is recorded already: {} by {}.", known.decision, known.approver);
        return Err(Error::new(Code::AlreadyExists, detail).with("approval_id", known.id));
    }
    Ok(known)
}

/// Four eyes: an approval that could count for nobody but the approver's own request is refused.
fn refuse_own(
    db: &mut Db,
    approval: &Approval,
    release: &Release,
    environment: &Environment,
) -> Result<(), Error> {
    if approval.decision == Verdict::Rejected || environment.allow_self_approval {
        return Ok(());
    }
    // What has waited too long waits no more, whether anybody has looked at it since or not.
    let mut waiting = deployments::awaiting(db, release.id, &environment.slug)?;
    waiting.retain(|deployment| !deployment.is_overdue());
    if waiting.is_empty()
        || !waiting.iter().all(|deployment| deployment.belongs_to(&approval.approver))
    {
        return Ok(());
    }
    let detail = format!(
        "{} asked for this deployment; {} wants somebody else's approval.",
        approval.approver, environment.slug
    );
    Err(Error::new(Code::OwnApproval, detail))
}
