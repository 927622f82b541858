//! Answers deployments and their history.

use actix_web::web;
use diesel::prelude::*;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::db::columns::ToWord;
use crate::db::rows::{Listed, LoadListed};
use crate::db::schema::deployments;
use crate::db::together::{ByKey, Loaded};
use crate::db::{Db, MultiBackend};
use crate::error::Error;
use crate::http::context::{Ctx, Read};
use crate::http::pagination::{Everything, List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::expiry::{Snapshot, expire_overdue, settled};
use crate::ledger::deployments::{Deployment, DeploymentWithDecision};
use crate::ledger::events::{self, Event};
use crate::rules::lifecycle::State;
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;
use crate::types::values::Slug;
use crate::{conditions, each_backend, in_order, newest_first, read_along, with_keys};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(list, __path_list).add(show, __path_show).add(list_events, __path_list_events);
}

/// The sort key of the list of deployments.
type After = (Timestamp, DeploymentId);

/// The query parameters of the list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Only deployments of this service.
    service: Option<Slug>,
    /// Only deployments to this environment.
    environment: Option<Slug>,
    /// Only deployments that are in this state now.
    #[param(inline)]
    state: Option<State>,
    /// Only deployments that were requested at this time or later.
    since: Option<Timestamp>,
    /// Only deployments that were requested before this time.
    until: Option<Timestamp>,
}

/// List deployments
///
/// Answers a page of the deployments that match all parameters. The latest request comes first.
///
/// A page looks at no more than 5,000 past deployments of the time, and of the service or else the
/// state, that are asked for. Then it ends, with fewer items or none, and `next` continues with
/// older ones.
#[utoipa::path(get, path = "/deployments",
    tag = "deployments", operation_id = "list_deployments", security(("key" = ["read"])),
    params(Filter, Paging),
    responses((status = 200, description = "One page of the deployments.",
        body = Page<Deployment>)))]
async fn list(ctx: Ctx<Read>, params: List<Filter, After>) -> Result<Reply, Error> {
    if params.filter.state == Some(State::Expired) {
        expire_overdue(&ctx).await?;
    }
    settled(&ctx, async || {
        let params = params.clone();
        ctx.read(move |db| find_all(db, &params)).await
    })
    .await
}

/// Read a deployment
///
/// Answers the deployment with the decision of the gate.
#[utoipa::path(get, path = "/deployments/{id}",
    tag = "deployments", operation_id = "get_deployment", security(("key" = ["read"])),
    params(("id" = DeploymentId, Path, description = "The identifier of the deployment.")),
    responses((status = 200, description = "The deployment with the decision of the gate.",
        body = DeploymentWithDecision, headers(("ETag" = String)))))]
async fn show(ctx: Ctx<Read>, id: web::Path<DeploymentId>) -> Result<Reply, Error> {
    settled(&ctx, async || {
        let found = ctx.find::<ById>(*id).await?;
        found.ok_or_else(|| Error::not_found("deployment", *id))
    })
    .await
}

/// The answers about single deployments.
struct ById;

impl ByKey for ById {
    type Key = DeploymentId;
    type Value = Snapshot;
    type Error = Error;

    fn load(db: &mut Db, ids: &[DeploymentId]) -> Result<Loaded<Self>, Error> {
        let found = with_keys!(db, ids, deployments::id, DeploymentWithDecision)?;
        let answer = |found: DeploymentWithDecision| {
            let Deployment { id, revision, .. } = found.deployment;
            let reply = Reply::ok(&found)?.at_revision(revision);
            Ok((id, Snapshot { reply, is_overdue: found.deployment.is_overdue() }))
        };
        found.into_iter().map(answer).collect()
    }
}

/// List the events of a deployment
///
/// Answers a page of the deployment's events, the newest first.
#[utoipa::path(get, path = "/deployments/{id}/events",
    tag = "deployments", operation_id = "list_deployment_events",
    security(("key" = ["read"])),
    params(("id" = DeploymentId, Path, description = "The identifier of the deployment."), Paging),
    responses((status = 200, description = "One page of the events.", body = Page<Event>)))]
async fn list_events(
    ctx: Ctx<Read>,
    id: web::Path<DeploymentId>,
    params: List<Everything, events::After>,
) -> Result<Reply, Error> {
    let (id, is_first) = (*id, params.after.is_none());
    ctx.read(move |db| {
        let page = events::of_deployment(db, id, &params)?;
        // Every deployment has at least one event, so an empty first page means that there is none.
        if page.items.is_empty() && is_first {
            return Err(Error::not_found("deployment", id));
        }
        Reply::page(&page)
    })
    .await
}

/// A page of the deployments. Most lists find all that they ask for along one index, so their rows
/// are written as they come.
fn find_all(db: &mut Db, params: &List<Filter, After>) -> Result<Snapshot, Error> {
    let (along, rest) = params.filter.split();
    let of_all = Filter { since: None, until: None, ..along.clone() } == Filter::default();
    if rest == Filter::default() {
        let page = listed(db, params, &along, of_all)?;
        let is_overdue = page.rows.iter().any(Deployment::is_overdue);
        let reply = Reply::listed(&page, |last| (last.requested_at, last.id))?;
        return Ok(Snapshot { reply, is_overdue });
    }
    let page = narrowed(db, params, &along, &rest, of_all)?;
    let is_overdue = page.items.iter().any(Deployment::is_overdue);
    Ok(Snapshot { reply: Reply::page(&page)?, is_overdue })
}

/// The conditions of a filter, for the backend of the query that they belong to.
macro_rules! conditions_of {
    ($filter:expr) => {
        conditions!(
            &$filter.service => |it| deployments::service.eq(it),
            &$filter.environment => |it| deployments::environment.eq(it),
            // As text, so that the database knows whether the state is rare, and which of its
            // partial indexes are for it.
            $filter.state => |it| deployments::state.eq(it.word()),
            $filter.since => |it| deployments::requested_at.ge(it),
            $filter.until => |it| deployments::requested_at.lt(it))
    };
}

/// A page of what an index finds, with the deployments that may expire.
fn listed(
    db: &mut Db,
    params: &List<Filter, After>,
    along: &Filter,
    of_all: bool,
) -> QueryResult<Listed<Deployment>> {
    each_backend!(db, |c| {
        let all = deployments::table.select(Deployment::as_select());
        let rows = all.filter(conditions_of!(along)).into_boxed();
        let rows = in_order!(params, rows, deployments::{requested_at, id}, of_all);
        c.load_listed(rows.limit(params.limit.and_one()), params.limit.rows(), "expires_at")
    })
}

/// A page of what an index finds with `along`, and of which only some meet `rest`.
fn narrowed(
    db: &mut Db,
    params: &List<Filter, After>,
    along: &Filter,
    rest: &Filter,
    of_all: bool,
) -> Result<Page<Deployment>, Error> {
    let all = || deployments::table.select(Deployment::as_select()).into_boxed::<MultiBackend>();
    let query = || all().filter(conditions_of!(along));
    let rest = conditions_of!(rest);
    newest_first!(db, params, Deployment, query, rest, deployments::{requested_at, id}, of_all)
}

impl Filter {
    /// The part that a page is read along, by an index, and the rest.
    fn split(&self) -> (Self, Self) {
        match self {
            // Few are in one of these, whatever the length of the history.
            Self { state: Some(state), .. } if state.is_current() => {
                (self.clone(), Self::default())
            }
            Self { service: Some(_), .. } => read_along!(self; since, until, service, environment),
            _ => read_along!(self; since, until; state),
        }
    }
}
