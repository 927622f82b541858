//! Deliveries: what GitHub's webhooks sent, each once, as it came, with what came of it.

use actix_web::http::StatusCode;
use actix_web::{get, post, web};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::deliveries;
use crate::db::types::Timestamp;
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::auth::hex;
use crate::http::context::{Actor, Admin, Ctx, Operate};
use crate::http::extract::Query;
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::http::webhook::Signed;
use crate::ledger::deployments::GITHUB;
use crate::ledger::github::{self, Applied};
use crate::ledger::ids::DeploymentId;
use crate::ledger::values::Line;
use crate::rules::github::{Fact, heading, is_of_use, read};
use crate::{each_backend, text_enum};

/// The routes of this file below `/v1`.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(show);
}

/// The route that GitHub sends to. It takes a signature instead of a key.
pub fn receiver(config: &mut ServiceConfig) {
    config.service(receive);
}

text_enum! {
    /// What came of a delivery.
    Outcome {
        /// The ledger says something else than before.
        Applied = "applied",
        /// It was understood, and says nothing new.
        Unchanged = "unchanged",
        /// It is of a kind that prop has no use for.
        Ignored = "ignored",
        /// It could not be brought into the ledger; `detail` says why.
        Failed = "failed",
    }
}

/// A delivery of a webhook.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = deliveries, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "event": "deployment_status", "action": "created", "repository": "shop/checkout",
    "subject": "145988746", "outcome": "applied", "detail": "From running to succeeded.",
    "deployment_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "received_at": "2026-02-03T04:05:06.000000Z"
}))]
pub struct Delivery {
    /// GitHub's name of it (`X-GitHub-Delivery`).
    id: String,
    /// What kind of event (`X-GitHub-Event`).
    event: String,
    /// What happened, in GitHub's words.
    action: Option<String>,
    /// Where, with its owner.
    repository: Option<String>,
    /// GitHub's number of the deployment, or the address of the run, that it tells of.
    subject: Option<String>,
    /// What came of it.
    outcome: Outcome,
    /// The same, in a sentence.
    detail: String,
    /// The deployment that it is about.
    deployment_id: Option<DeploymentId>,
    /// When it first came.
    received_at: Timestamp,
}

/// A delivery with its body.
#[derive(Debug, Serialize, ToSchema, Queryable, Selectable)]
#[diesel(table_name = deliveries)]
#[schema(example = json!({
    "id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "event": "ping", "action": null, "repository": "shop/checkout",
    "subject": null, "outcome": "ignored", "detail": "GitHub asks whether prop is there: it is.",
    "deployment_id": null, "received_at": "2026-02-03T04:05:06.000000Z", "body": "{\"zen\": \"Keep it logically awesome.\"}"
}))]
pub struct DeliveryWithBody {
    #[diesel(embed)]
    #[serde(flatten)]
    delivery: Delivery,
    /// The body, byte for byte; not of events that prop has no use for, nor of what another delivery had told.
    body: Option<String>,
}

/// What a list of deliveries is ordered by.
type After = (Timestamp, String);

/// Which deliveries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Deliveries of this kind of event.
    event: Option<Line>,
    /// Deliveries of which this came.
    #[param(inline)]
    outcome: Option<Outcome>,
    /// Deliveries about this deployment.
    #[param(inline)]
    deployment_id: Option<DeploymentId>,
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
}

/// List deliveries
///
/// The newest first, without their bodies.
#[utoipa::path(tag = "webhooks", operation_id = "list_deliveries", security(("key" = ["operate"])), params(Filter),
    responses((status = 200, body = Page<Delivery>)))]
#[get("/deliveries")]
async fn list(ctx: Ctx<Operate>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Read a delivery
///
/// With its body, as it came.
#[utoipa::path(tag = "webhooks", operation_id = "get_delivery", security(("key" = ["admin"])),
    params(("id" = Line, Path, description = "The delivery.")), responses((status = 200, body = DeliveryWithBody)))]
#[get("/deliveries/{id}")]
async fn show(ctx: Ctx<Admin>, id: web::Path<Line>) -> Result<Reply, Error> {
    let found = ctx.read(move |db| find(db, &id)).await?;
    Reply::ok(&found)
}

/// Take a webhook of GitHub
///
/// `ping`, `deployment`, `deployment_status`, `deployment_review` and `workflow_run`; of other events it is kept that they came. The
/// body is signed with the secret of `github.webhook_secret`. Each delivery is done once; in which order they come does not matter.
#[utoipa::path(tag = "webhooks", operation_id = "receive_github_webhook", security(("signature" = [])),
    request_body(content = Object, description = "What GitHub sends.", example = json!({"zen": "Keep it logically awesome.", "hook_id": 109948940})),
    params(("X-GitHub-Delivery" = Line, Header, description = "Names the delivery."), ("X-GitHub-Event" = Line, Header, description = "What kind of event.")),
    responses((status = 202, description = "It is kept, and `outcome` says what came of it.", body = Delivery),
        (status = 200, description = "It came before, and had not failed; nothing was done again.", body = Delivery)))]
#[post("/webhooks/github")]
async fn receive(signed: Signed) -> Result<Reply, Error> {
    let (delivery, is_new) = signed.write(take).await?;
    let mut reply = Reply::ok(&delivery)?;
    if is_new {
        reply.status = StatusCode::ACCEPTED;
    }
    Ok(reply)
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Delivery>, Error> {
    let mut query = deliveries::table.select(Delivery::as_select()).into_boxed::<MultiBackend>();
    if let Some(event) = &filter.event {
        query = query.filter(deliveries::event.eq(event.to_string()));
    }
    if let Some(outcome) = filter.outcome {
        query = query.filter(deliveries::outcome.eq(outcome));
    }
    if let Some(id) = filter.deployment_id {
        query = query.filter(deliveries::deployment_id.eq(id));
    }
    if let Some(Cursor((at, id))) = filter.cursor.clone() {
        query = query.filter(
            deliveries::received_at
                .lt(at)
                .or(deliveries::received_at.eq(at).and(deliveries::id.lt(id))),
        );
    }
    let rows = query
        .order((deliveries::received_at.desc(), deliveries::id.desc()))
        .limit(filter.limit.and_one())
        .load(db)?;
    Ok(Page::of(rows, filter.limit, |delivery: &Delivery| {
        (delivery.received_at, delivery.id.clone())
    }))
}

fn find(db: &mut Db, id: &str) -> Result<DeliveryWithBody, Error> {
    let found =
        deliveries::table.find(id).select(DeliveryWithBody::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("delivery", id))
}

/// Keeps a delivery and applies what it tells, in one transaction; says whether that was done now. What can't be applied is
/// kept all the same, and says why: sent again, it is applied again, as what was in the way may be gone. Only when prop itself
/// or its database is at fault GitHub hears of it, and nothing is kept.
fn take(db: &mut Db, id: &str, event: &str, body: &str) -> Result<(Delivery, bool), Error> {
    let payload: Value = serde_json::from_str(body)
        .map_err(|cause| Error::new(Code::MalformedJson, format!("{cause}.")))?;
    let fact = read(event, &payload);
    let (action, repository) = heading(&payload);
    let sender = payload["sender"]["login"]
        .as_str()
        .map_or_else(|| GITHUB.to_owned(), |login| format!("{GITHUB}:{login}"));
    let actor = Actor::new(sender);
    let mut delivery = Delivery {
        id: id.to_owned(),
        event: event.to_owned(),
        action,
        repository,
        subject: fact.as_ref().ok().and_then(github::subject),
        outcome: Outcome::Ignored,
        detail: String::new(),
        deployment_id: None,
        received_at: actor.now,
    };
    let digest = hex(&Sha256::digest(body));
    let row = (
        &delivery,
        deliveries::digest.eq(&digest),
        deliveries::body.eq(is_of_use(event).then_some(body)),
    );
    let is_new = each_backend!(db, |c| diesel::insert_into(deliveries::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))?
        == 1;
    if !is_new {
        let known = find(db, id)?;
        let is_due = known.delivery.outcome == Outcome::Failed
            && known.delivery.event == event
            && known.body.as_deref() == Some(body);
        if !is_due {
            return Ok((known.delivery, false));
        }
        delivery.received_at = known.delivery.received_at;
    }
    if let Some((same, deployment)) = told_before(db, &delivery, &digest)? {
        // Whatever is sent, however often: it is kept and read once.
        (delivery.outcome, delivery.detail, delivery.deployment_id) =
            (Outcome::Unchanged, format!("Delivery {same} told the same."), deployment);
        delivery.subject = None;
        diesel::update(deliveries::table.find(id))
            .set((&delivery, deliveries::body.eq(None::<String>)))
            .execute(db)?;
        return Ok((delivery, true));
    }
    let applied = match fact {
        Ok(fact) => {
            delivery.outcome = if matches!(fact, Fact::Nothing(_)) {
                Outcome::Ignored
            } else {
                Outcome::Unchanged
            };
            attempt(db, |db| github::apply(db, &actor, &fact))?
        }
        Err(lacks) => Err(Error::new(Code::InvalidValue, lacks)),
    };
    match applied {
        Ok(Applied { is_change, detail, deployment }) => {
            if is_change {
                delivery.outcome = Outcome::Applied;
            }
            (delivery.detail, delivery.deployment_id) = (detail, deployment);
        }
        Err(failure) => {
            (delivery.outcome, delivery.detail) = (Outcome::Failed, failure.to_string());
        }
    }
    diesel::update(deliveries::table.find(id)).set(&delivery).execute(db)?;
    Ok((delivery, true))
}

/// The delivery that told the very same under another name and was understood, with the deployment that it is about.
fn told_before(
    db: &mut Db,
    delivery: &Delivery,
    digest: &str,
) -> QueryResult<Option<(String, Option<DeploymentId>)>> {
    let is_understood = deliveries::outcome
        .eq(Outcome::Applied.as_str())
        .or(deliveries::outcome.eq(Outcome::Unchanged.as_str()));
    let the_same = deliveries::table
        .filter(deliveries::digest.eq(digest))
        .filter(deliveries::event.eq(&delivery.event));
    let understood = the_same
        .filter(deliveries::id.ne(&delivery.id))
        .filter(is_understood)
        .filter(deliveries::body.is_not_null());
    understood.select((deliveries::id, deliveries::deployment_id)).first(db).optional()
}

/// Does the work in a savepoint: when it fails, everything of it is undone but the record of a refusal, and the transaction
/// goes on. What prop or its database is at fault for ends the transaction.
fn attempt<T>(
    db: &mut Db,
    work: impl FnOnce(&mut Db) -> Result<T, Error>,
) -> Result<Result<T, Error>, Error> {
    let attempted = db.transaction(|db| match work(db) {
        Err(refusal) if refusal.is_recorded => Ok(Err(refusal)),
        other => other.map(Ok),
    });
    match attempted {
        Err(error) if error.code.status().is_server_error() => Err(error),
        Err(error) => Ok(Err(error)),
        Ok(done) => Ok(done),
    }
}
