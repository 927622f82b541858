//! The five DORA measures, computed from the ledger.

use diesel::prelude::*;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;
use utoipa::{IntoParams, ToSchema};

use super::delivered::{self, Places};
use super::finished::{BATCH, Batches, Direction, Stretch};
use crate::db::schema::{deployments, environments, incident_deployments, incidents, services};
use crate::db::{Db, MultiBackend};
use crate::each_backend;
use crate::error::{Code, Error};
use crate::http::context::{Ctx, Read};
use crate::http::extract::Query;
use crate::http::pagination::Limit;
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::Role;
use crate::ledger::environments::{Tier, unknown as unknown_environment};
use crate::ledger::services as ledger_services;
use crate::rules::dora::{self, Deployment, Fix, Incident, Measures, Step, Window};
use crate::rules::lifecycle::State;
use crate::types::ids::{DeploymentId, IncidentId};
use crate::types::time::Timestamp;
use crate::types::values::Slug;

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config.add(show, __path_show);
}

/// The length of the window when the caller does not give one.
const DEFAULT: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The query parameters of the measures.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// Only deployments of this service. All services, if absent.
    #[param(inline)]
    service: Option<Slug>,
    /// Only deployments to this environment. Cannot be used together with `tier`.
    #[param(inline)]
    environment: Option<Slug>,
    /// Only deployments to environments of this tier. `production`, if this and `environment` are
    /// absent.
    #[param(inline)]
    tier: Option<Tier>,
    /// The start of the window: deployments that finished at this time or later. 90 days before
    /// `until`, if absent; at most 366 days before it.
    since: Option<Timestamp>,
    /// The end of the window: deployments that finished before this time. Now, if absent or later.
    until: Option<Timestamp>,
    /// The length of the intervals of `series`. If absent, days for a window of up to 35 days, else
    /// weeks.
    #[param(inline)]
    bucket: Option<Step>,
    /// The largest number of deployments that each measure lists, from 1 to 100. 50, if absent.
    #[param(inline)]
    limit: Limit,
}

/// The DORA measures of a time window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "service": "checkout", "environments": ["production"], "since": "2026-02-02T00:00:00.000000Z",
    "until": "2026-02-04T00:00:00.000000Z",
    "deployment_frequency": {"per_day": 1.0, "n": 2, "left_out": [{"reason": "rollback", "n": 1}],
        "deployments": [
        {"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout",
            "environment": "production", "version": "1.4.2",
            "kind": "normal", "finished_at": "2026-02-03T04:07:00.000000Z"},
        {"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e40", "service": "checkout",
            "environment": "production", "version": "1.4.1",
            "kind": "normal", "finished_at": "2026-02-02T10:00:00.000000Z"}]},
    "change_lead_time": {"p50_seconds": 4020, "p90_seconds": 4020, "n": 1,
        "basis": {"commits": 0, "release": 1},
        "left_out": [{"reason": "no_commit_time", "n": 1}], "deployments": [
        {"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout",
            "environment": "production", "version": "1.4.2",
            "kind": "normal", "finished_at": "2026-02-03T04:07:00.000000Z", "basis": "release",
            "n": 1, "p50_seconds": 4020}]},
    "change_fail_rate": {"rate": 0.5, "failed": 1, "n": 2,
        "left_out": [{"reason": "rollback", "n": 1}], "deployments": [
        {"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout",
            "environment": "production", "version": "1.4.2",
            "kind": "normal", "finished_at": "2026-02-03T04:07:00.000000Z",
            "because": ["incident", "rolled_back"],
            "incidents": ["019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e46"]}]},
    "failed_deployment_recovery_time": {"p50_seconds": 3600, "p90_seconds": 3600, "n": 1, "open": 0,
        "left_out": [], "deployments": [
        {"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42", "service": "checkout",
            "environment": "production", "version": "1.4.2",
            "kind": "normal", "finished_at": "2026-02-03T04:07:00.000000Z", "seconds": 3600,
            "recovered_at": "2026-02-03T05:07:00.000000Z",
            "basis": "fix", "fixed_by": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e47"}]},
    "deployment_rework_rate": {"rate": 0.333, "hotfixes": 0, "rollbacks": 1, "n": 3, "left_out": [],
        "deployments": [
        {"id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e47", "service": "checkout",
            "environment": "production", "version": "1.4.1",
            "kind": "rollback", "finished_at": "2026-02-03T05:07:00.000000Z"}]},
    "series": {"bucket": "day", "buckets": [
        {"from": "2026-02-02T00:00:00.000000Z", "until": "2026-02-03T00:00:00.000000Z",
            "deployments": 1, "failed": 0, "went_live": 1,
            "rework": 0, "lead_time_p50_seconds": null, "recovery_p50_seconds": null},
        {"from": "2026-02-03T00:00:00.000000Z", "until": "2026-02-04T00:00:00.000000Z",
            "deployments": 1, "failed": 1, "went_live": 2,
            "rework": 1, "lead_time_p50_seconds": 4020, "recovery_p50_seconds": 3600}]}
}))]
pub struct DoraMeasures {
    /// The slug of the service that was measured. `null` for all services.
    service: Option<String>,
    /// The slugs of the environments that were measured.
    environments: Vec<String>,
    /// The start of the window, which is inside the window.
    since: Timestamp,
    /// The end of the window, which is outside the window.
    until: Timestamp,
    #[serde(flatten)]
    measures: Measures,
}

/// Measure software delivery
///
/// Answers the five DORA measures of the deployments that finished in a time window. Each measure
/// has the number of items it is based on (`n`), what was left out and why, and the newest
/// deployments behind it, at most `limit` of them. To see more, ask for one service or a shorter
/// window. `docs/dora.md` defines every figure. Fails with 400 when the window is empty or longer
/// than 366 days (`invalid_window`), or when `tier` is used together with `environment`
/// (`invalid_query`).
#[utoipa::path(get, path = "/metrics/dora",
    tag = "metrics", operation_id = "get_dora_metrics", security(("key" = ["read"])),
    params(Question),
    responses(
        (status = 200, description = "The measures of the window.", body = DoraMeasures,
            headers(("ETag" = String))),
        (status = 404, description = "The service or the environment does not exist.")))]
async fn show(ctx: Ctx<Read>, query: Query<Question>) -> Result<Reply, Error> {
    let question = query.0;
    let measures = ctx.read(move |db| measure(db, &question, BATCH)).await?;
    Ok(Reply::ok(&measures)?.tagged())
}

impl Question {
    fn window(&self, now: Timestamp) -> Result<Window, Error> {
        if self.environment.is_some() && self.tier.is_some() {
            return Err(Error::field(
                Code::InvalidQuery,
                "tier",
                "cannot be used together with `environment`",
            ));
        }
        let until = self.until.map_or(now, |until| until.min(now));
        let since = self.since.unwrap_or_else(|| until.plus(-DEFAULT));
        let invalid = |pointer, detail| Err(Error::field(Code::InvalidWindow, pointer, detail));
        if since >= until {
            return invalid(
                "since",
                "must be before the end of the window, which is `until` or now, whichever is \
                    earlier",
            );
        }
        if until.since(since) > dora::LONGEST {
            return invalid("since", "must be at most 366 days before the end of the window");
        }
        Ok(Window { since: since.into(), until: until.into() })
    }
}

/// Computes the measures, one service after the other, in small batches of deployments. What was
/// not finished in and around the window costs nothing.
///
/// # Errors
/// `invalid_window`, `invalid_query`, or `not_found` for the service or environment.
pub fn measure(db: &mut Db, question: &Question, batch: usize) -> Result<DoraMeasures, Error> {
    let window = question.window(Timestamp::now())?;
    let environments = environments_of(db, question)?;
    let services: Vec<String> = match &question.service {
        Some(service) => vec![ledger_services::find(db, service.as_ref())?.slug.to_string()],
        None => services::table.select(services::slug).load(db)?,
    };
    let slugs = environments.iter().map(|slug| slug.as_str().into()).collect();
    let scope = Scope { environments: slugs, window, batch };
    let named = question.limit.rows();
    let mut measuring =
        dora::Measuring::new(dora::Question { window, step: question.bucket, named });
    for service in services {
        scope.add(db, &service, &mut measuring)?;
    }
    Ok(DoraMeasures {
        service: question.service.as_ref().map(ToString::to_string),
        environments,
        since: window.since.into(),
        until: window.until.into(),
        measures: measuring.measures(),
    })
}

fn environments_of(db: &mut Db, question: &Question) -> Result<Vec<String>, Error> {
    let mut query = environments::table
        .select(environments::slug)
        .order(environments::slug)
        .into_boxed::<MultiBackend>();
    query = match &question.environment {
        Some(environment) => query.filter(environments::slug.eq(environment.to_string())),
        None => query.filter(environments::tier.eq(question.tier.unwrap_or(Tier::Production))),
    };
    let found: Vec<String> = query.load(db)?;
    match &question.environment {
        Some(environment) if found.is_empty() => Err(unknown_environment(db, environment)?),
        _ => Ok(found),
    }
}

/// The part of the ledger that is measured.
struct Scope {
    environments: Vec<Rc<str>>,
    window: Window,
    /// How many deployments of a service are in memory.
    batch: usize,
}

impl Scope {
    /// The time of the measured deployments, and of those that tell something about them.
    fn around(&self) -> (Timestamp, Timestamp) {
        let Window { since, until } = self.window;
        (Timestamp::from(since).plus(-dora::AROUND), Timestamp::from(until).plus(dora::AROUND))
    }

    /// Adds what finished of a service to the measures.
    fn add(
        &self,
        db: &mut Db,
        service: &str,
        measuring: &mut dora::Measuring,
    ) -> Result<(), Error> {
        let (since, until) = self.around();
        let all = Stretch { service, environments: &self.environments, since, until };
        let mut batches = Batches::new(all, Direction::Back, self.batch);
        let newest = batches.next(db)?.unwrap_or_default();
        if newest.is_empty() && batches.is_over() {
            return Ok(());
        }
        let has_times = delivered::has_commit_times(db, service)?;
        let incidents = self.incidents(db, service)?;
        let mut failures = dora::Failures::new(service, &incidents);
        let mut add = |batch: &[Deployment]| {
            measuring.add_finished(&mut failures, batch);
            if !has_times {
                // Without any commits, the order in which they are delivered does not matter.
                measuring.add_delivered(&mut dora::Deliveries::new(service), batch, &[]);
            }
        };
        add(&newest);
        // Kept only if it is all there is.
        let whole = batches.is_over().then_some(newest);
        while let Some(batch) = batches.next(db)? {
            add(&batch);
        }
        if !has_times {
            return Ok(());
        }
        let (mut places, until) = (Places::new(service), self.window.until);
        if let Some(whole) = whole {
            let delivered = whole.into_iter().rev().take_while(|it| it.finished_at < until);
            return places.deliver(db, delivered, measuring);
        }
        let all = Stretch { until: until.into(), ..all };
        let mut batches = Batches::new(all, Direction::Onward, self.batch);
        while let Some(batch) = batches.next(db)? {
            places.deliver(db, batch.into_iter(), measuring)?;
        }
        Ok(())
    }

    /// The incidents that any of the service's deployments caused or fixed, each with all
    /// deployments that caused or fixed it.
    fn incidents(&self, db: &mut Db, service: &str) -> QueryResult<Vec<Incident>> {
        let (earliest, latest) = self.around();
        let environments: Vec<&str> = self.environments.iter().map(|slug| &**slug).collect();
        let finished = diesel::alias!(deployments as finished);
        let links = diesel::alias!(incident_deployments as links);
        let links_it =
            links.field(incident_deployments::deployment_id).eq(finished.field(deployments::id));
        let is_linked = incidents::id.eq(links.field(incident_deployments::incident_id));
        let links: Vec<Link> = each_backend!(db, |c| {
            finished
                .inner_join(links.on(links_it))
                .inner_join(incidents::table.on(is_linked))
                .inner_join(
                    incident_deployments::table
                        .on(incident_deployments::incident_id.eq(incidents::id)),
                )
                .inner_join(
                    deployments::table.on(deployments::id.eq(incident_deployments::deployment_id)),
                )
                .filter(finished.field(deployments::service).eq(service))
                .filter(finished.field(deployments::environment).eq_any(&environments))
                .filter(finished.field(deployments::voided_at).is_null())
                .filter(finished.field(deployments::finished_at).ge(earliest))
                .filter(finished.field(deployments::finished_at).lt(latest))
                .select(Link::as_select())
                .distinct()
                .load(c)
        })?;
        Ok(incidents_of(links))
    }
}

/// The link of a deployment to an incident that it caused or fixed.
#[derive(Queryable, Selectable)]
#[diesel(table_name = incident_deployments)]
struct Link {
    incident_id: IncidentId,
    #[diesel(select_expression = incidents::resolved_at)]
    resolved_at: Option<Timestamp>,
    role: Role,
    deployment_id: DeploymentId,
    #[diesel(select_expression = deployments::state)]
    state: State,
    #[diesel(select_expression = deployments::finished_at)]
    finished_at: Option<Timestamp>,
}

/// The incidents with what caused and fixed them. A fix counts if it went live.
fn incidents_of(links: Vec<Link>) -> Vec<Incident> {
    let mut incidents = BTreeMap::new();
    for link in links {
        let incident = incidents.entry(link.incident_id).or_insert_with(|| Incident {
            id: link.incident_id,
            resolved_at: link.resolved_at.map(Into::into),
            caused_by: vec![],
            fixed_by: vec![],
        });
        match (link.role, link.finished_at) {
            (Role::CausedBy, _) => incident.caused_by.push(link.deployment_id),
            (Role::FixedBy, Some(at)) if link.state.went_live() => {
                incident.fixed_by.push(Fix { finished_at: at.into(), id: link.deployment_id });
            }
            (Role::FixedBy, _) => {}
        }
    }
    incidents.into_values().collect()
}
