//! Webhook deliveries: what GitHub sent, stored as it was received, with the outcome.

use actix_web::http::StatusCode;
use actix_web::web;
use diesel::dsl::AsSelect;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use crate::db::columns::ToWord;
use crate::db::pages::All;
use crate::db::schema::deliveries;
use crate::db::{Db, MultiBackend, clock};
use crate::error::{Code, Error};
use crate::http::context::{Admin, Author, Ctx, Operate};
use crate::http::pagination::{List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::GITHUB;
use crate::ledger::github::apply::{self, Applied};
use crate::ledger::github::signature::Signed;
use crate::rules::github::{Fact, heading, is_of_use, parse, read};
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;
use crate::types::token::hex;
use crate::types::values::ShortText;
use crate::{conditions, each_backend, newest_first, read_along, text_enum};

/// The routes of this file below `/v1`.
pub fn routes(config: &mut Routes) {
    config.add(list, __path_list).add(show, __path_show);
}

/// The route that GitHub sends to. It requires a signature instead of a key.
pub fn receiver(config: &mut Routes) {
    config.add(receive, __path_receive);
}

text_enum! {
    /// The outcome of a delivery.
    Outcome {
        /// The delivery has changed the ledger.
        Applied = "applied",
        /// The delivery was understood and contained nothing new.
        Unchanged = "unchanged",
        /// The delivery is of a kind that prop does not use, or a setting says to ignore it.
        Ignored = "ignored",
        /// The delivery could not be applied; `detail` has the reason. GitHub may send it again.
        Failed = "failed",
    }
}

/// A delivery: one request that a GitHub webhook sent.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = deliveries, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "event": "deployment_status", "action": "created",
    "repository": "shop/checkout",
    "subject": "145988746", "outcome": "applied", "detail": "Changed from running to succeeded.",
    "deployment_id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42",
    "received_at": "2026-02-03T04:05:06.000000Z"
}))]
pub struct Delivery {
    /// The identifier of the delivery on GitHub (`X-GitHub-Delivery`).
    id: String,
    /// The kind of event (`X-GitHub-Event`), such as `deployment_status`.
    event: String,
    /// The action of the event as GitHub names it, such as `created`. `null` when the event has
    /// none.
    action: Option<String>,
    /// The full name of the repository on GitHub. `null` when the event has none.
    repository: Option<String>,
    /// The number of the deployment on GitHub, or the URL of the workflow run, that the event is
    /// about. `null` when it is about neither.
    subject: Option<String>,
    /// What prop did with the delivery.
    outcome: Outcome,
    /// The outcome in a sentence for people.
    detail: String,
    /// The deployment in prop that the delivery is about. `null` when there is none.
    deployment_id: Option<DeploymentId>,
    /// When prop first received the delivery.
    received_at: Timestamp,
}

/// A delivery with its body.
#[derive(Debug, Serialize, ToSchema, Queryable, Selectable)]
#[diesel(table_name = deliveries)]
#[schema(example = json!({
    "id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "event": "ping", "action": null,
    "repository": "shop/checkout",
    "subject": null, "outcome": "ignored", "detail": "GitHub checked that the webhook works.",
    "deployment_id": null, "received_at": "2026-02-03T04:05:06.000000Z",
    "body": "{\"zen\": \"Keep it logically awesome.\"}"
}))]
pub struct DeliveryWithBody {
    #[diesel(embed)]
    #[serde(flatten)]
    delivery: Delivery,
    /// The body as it was received. `null` when prop does not use the event, or another delivery
    /// had the same body.
    body: Option<String>,
}

/// The sort key of the list of deliveries.
type After = (Timestamp, ShortText);

/// The query parameters of the list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Only deliveries of this kind of event, such as `deployment_status`.
    event: Option<ShortText>,
    /// Only deliveries with this outcome.
    #[param(inline)]
    outcome: Option<Outcome>,
    /// Only deliveries about the deployment with this identifier.
    #[param(inline)]
    deployment_id: Option<DeploymentId>,
}

/// List webhook deliveries
///
/// Answers a page of the deliveries that match all parameters, the newest first, without their
/// bodies.
///
/// A page looks at no more than 5,000 of the deployment, or else the outcome, that is asked for.
/// Then it ends, with fewer items or none, and `next` continues with older ones.
#[utoipa::path(get, path = "/deliveries",
    tag = "webhooks", operation_id = "list_deliveries", security(("key" = ["operate"])),
    params(Filter, Paging),
    responses((status = 200, description = "One page of the deliveries.", body = Page<Delivery>)))]
async fn list(ctx: Ctx<Operate>, params: List<Filter, After>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::page(&find_all(db, &params)?)).await
}

/// Read a webhook delivery
///
/// Answers the delivery with its body as it was received.
#[utoipa::path(get, path = "/deliveries/{id}",
    tag = "webhooks", operation_id = "get_delivery", security(("key" = ["admin"])),
    params(("id" = ShortText, Path, description = "The identifier of the delivery on GitHub.")),
    responses((status = 200, description = "The delivery with its body.",
        body = DeliveryWithBody)))]
async fn show(ctx: Ctx<Admin>, id: web::Path<ShortText>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::ok(&find(db, &id)?)).await
}

/// Receive a GitHub webhook
///
/// Stores a delivery of GitHub, applies it to the ledger, and answers the outcome. prop uses the
/// events `ping`, `deployment`, `deployment_status`, `deployment_review` and `workflow_run`; it
/// ignores others. The body must be signed with the secret in the setting `github.webhook_secret`,
/// or with one of `github.webhook_secrets` that may sign for the repository.
/// A repeat of a delivery is applied again only if it had failed. The order of the deliveries does
/// not matter. Fails with 401 (`invalid_signature`) when the signature does not match, and with 403
/// (`webhooks_off`) without a secret.
#[utoipa::path(post, path = "/webhooks/github",
    tag = "webhooks", operation_id = "receive_github_webhook",
    security(("signature" = [])),
    request_body(content = Object, description = "The payload of the event, as GitHub sends it.",
        example = json!({"zen": "Keep it logically awesome.", "hook_id": 109948940})),
    params(
        ("X-GitHub-Delivery" = ShortText, Header,
            description = "The identifier of the delivery, which GitHub chooses."),
        ("X-GitHub-Event" = ShortText, Header,
            description = "The kind of event, such as `deployment_status`.")),
    responses(
        (status = 202, description = "The delivery was stored; `outcome` is what prop did with it.",
            body = Delivery),
        (status = 200,
            description = "The delivery had been received before without a failure; it was not \
                applied again.",
            body = Delivery)))]
async fn receive(signed: Signed) -> Result<Reply, Error> {
    let (delivery, is_new) = signed.write(take).await?;
    let mut reply = Reply::ok(&delivery)?;
    if is_new {
        reply.status = StatusCode::ACCEPTED;
    }
    Ok(reply)
}

fn find_all(db: &mut Db, params: &List<Filter, After>) -> Result<Page<Delivery>, Error> {
    let (along, rest) = read_along!(params.filter;; deployment_id, outcome);
    let query = || all().filter(conditions(&along));
    let (rest, of_all) = (conditions(&rest), along == Filter::default());
    newest_first!(db, params, Delivery, query, rest, deliveries::{received_at, id}, of_all)
}

fn all<'a>() -> deliveries::BoxedQuery<'a, MultiBackend, AsSelect<Delivery, MultiBackend>> {
    deliveries::table.select(Delivery::as_select()).into_boxed()
}

fn conditions(filter: &Filter) -> All<'_> {
    conditions!(
        &filter.event => |it| deliveries::event.eq(it.to_string()),
        // As text, so that the database knows whether the outcome is rare.
        filter.outcome => |it| deliveries::outcome.eq(it.word()),
        filter.deployment_id => |it| deliveries::deployment_id.eq(it))
}

fn find(db: &mut Db, id: &str) -> Result<DeliveryWithBody, Error> {
    let found =
        deliveries::table.find(id).select(DeliveryWithBody::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("delivery", id))
}

/// Stores a delivery and applies it, in one transaction. Returns it, and whether it was applied
/// now.
///
/// A delivery that cannot be applied is stored with the reason. When GitHub sends it again, it is
/// applied again, because the obstacle may be gone. Only an error of prop or its database is
/// answered to GitHub as an error; then nothing is stored.
fn take(
    db: &mut Db,
    author: &Author,
    id: &str,
    event: &str,
    body: &str,
) -> Result<(Delivery, bool), Error> {
    let payload =
        parse(body).map_err(|cause| Error::new(Code::MalformedJson, format!("{cause}.")))?;
    let fact = read(event, &payload);
    let author = Author { name: sender(&payload), ..author.clone() };
    let digest = hex(&Sha256::digest(body));
    let (action, repository) = heading(&payload);
    let mut delivery = Delivery {
        id: id.to_owned(),
        event: event.to_owned(),
        action,
        repository,
        subject: fact.as_ref().ok().and_then(apply::subject),
        outcome: Outcome::Ignored,
        detail: String::new(),
        deployment_id: None,
        received_at: clock::now(db)?,
    };
    if !insert(db, &delivery, &digest, body)? {
        let known = find(db, id)?;
        if !known.is_due(event, body) {
            return Ok((known.delivery, false));
        }
        delivery.received_at = known.delivery.received_at;
    }
    let delivery = match find_duplicate(db, &delivery, &digest)? {
        Some(duplicate) => update_as_duplicate(db, delivery, duplicate)?,
        None => update_as_applied(db, &author, delivery, fact)?,
    };
    Ok((delivery, true))
}

/// Whoever caused the event on GitHub.
fn sender(payload: &Value) -> String {
    let login = payload["sender"]["login"].as_str();
    login.map_or_else(|| GITHUB.to_owned(), |login| format!("{GITHUB}:{login}"))
}

/// Stores a delivery as it was received. Returns whether it is new.
fn insert(db: &mut Db, delivery: &Delivery, digest: &str, body: &str) -> QueryResult<bool> {
    let row = (
        delivery,
        deliveries::digest.eq(digest),
        deliveries::body.eq(is_of_use(&delivery.event).then_some(body)),
    );
    let inserted = each_backend!(db, |c| diesel::insert_into(deliveries::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(inserted == 1)
}

impl DeliveryWithBody {
    /// Whether a repeat of the delivery is to be applied again: it had failed, and is the same.
    fn is_due(&self, event: &str, body: &str) -> bool {
        self.delivery.outcome == Outcome::Failed
            && self.delivery.event == event
            && self.body.as_deref() == Some(body)
    }
}

/// The id of a delivery that was understood, and the deployment that it is about.
type Understood = (String, Option<DeploymentId>);

/// Finds an earlier delivery with the same body that was understood.
fn find_duplicate(
    db: &mut Db,
    delivery: &Delivery,
    digest: &str,
) -> QueryResult<Option<Understood>> {
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

/// Stores that another delivery had the same body: however often it is sent, it is stored and
/// parsed only once.
fn update_as_duplicate(
    db: &mut Db,
    mut delivery: Delivery,
    (same, deployment): Understood,
) -> QueryResult<Delivery> {
    delivery.outcome = Outcome::Unchanged;
    delivery.detail = format!("Delivery {same} had the same body.");
    delivery.deployment_id = deployment;
    delivery.subject = None;
    diesel::update(deliveries::table.find(&delivery.id))
        .set((&delivery, deliveries::body.eq(None::<String>)))
        .execute(db)?;
    Ok(delivery)
}

/// Applies what the delivery reports, and stores the outcome.
fn update_as_applied(
    db: &mut Db,
    author: &Author,
    mut delivery: Delivery,
    fact: Result<Fact, String>,
) -> Result<Delivery, Error> {
    let applied = match &fact {
        Ok(fact) => attempt(db, |db| apply::apply(db, author, fact))?,
        Err(missing) => Err(Error::new(Code::InvalidValue, missing)),
    };
    match applied {
        Ok(Applied { is_change, is_ignored, detail, deployment }) => {
            delivery.outcome = match fact {
                _ if is_change => Outcome::Applied,
                _ if is_ignored => Outcome::Ignored,
                Ok(Fact::Nothing(_)) => Outcome::Ignored,
                _ => Outcome::Unchanged,
            };
            (delivery.detail, delivery.deployment_id) = (detail, deployment);
        }
        Err(failure) => {
            (delivery.outcome, delivery.detail) = (Outcome::Failed, failure.to_string());
        }
    }
    diesel::update(deliveries::table.find(&delivery.id)).set(&delivery).execute(db)?;
    Ok(delivery)
}

/// Runs the work in a savepoint. When it fails, its writes are undone, except for the events that
/// record the failure, and the transaction goes on. An error of prop or its database ends the
/// transaction.
fn attempt<T>(
    db: &mut Db,
    work: impl FnOnce(&mut Db) -> Result<T, Error>,
) -> Result<Result<T, Error>, Error> {
    let attempted = db.savepoint(|db| match work(db) {
        Err(refusal) if refusal.is_recorded => Ok(Err(refusal)),
        other => other.map(Ok),
    });
    match attempted {
        Err(error) if error.code.status().is_server_error() => Err(error),
        Err(error) => Ok(Err(error)),
        Ok(done) => Ok(done),
    }
}
