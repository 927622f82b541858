//! The metrics for Prometheus: the counters of the process, and what is live.

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};
use diesel::prelude::*;
use std::time::Duration;

use crate::db::Db;
use crate::db::columns::ToWord;
use crate::db::pool::Unavailable;
use crate::db::schema::deployments;
use crate::error::{self, Error};
use crate::http::auth;
use crate::http::metrics::{Labels, Live};
use crate::http::routes::Routes;
use crate::http::state::State;
use crate::rules::gate::Code;
use crate::rules::lifecycle::{self, Kind, Report};

/// How many places the metrics show. Each is a time series, with one more for each version that
/// goes live there.
const MOST_PLACES: i64 = 10_000;

/// How long a scrape waits for the database. Prometheus waits 10 s for the whole answer, and the
/// counters of the process matter most when the database is slow.
const LIVE_WITHIN: Duration = Duration::from_secs(2);

/// The route of this file.
pub fn routes(config: &mut Routes) {
    config.add(metrics, __path_metrics);
}

/// The values of the labels of what is counted.
pub fn labels() -> Labels {
    Labels {
        outcomes: Report::ALL
            .iter()
            .filter(|report| **report != Report::Running)
            .map(|report| report.as_str())
            .collect(),
        kinds: Kind::ALL.iter().map(|kind| kind.as_str()).collect(),
        codes: Code::ALL.iter().map(|code| code.as_str()).collect(),
    }
}

/// Read the metrics of the process
///
/// Answers the metrics for Prometheus in the text format 0.0.4. The counters are those of this
/// process: requests by route and status, the length of the database queue, the number of SQL
/// statements, deployments by outcome, the gate's reasons, and how long deployments waited. For a
/// key with the scope `read`, or if everybody may read, it also answers what is live, from the
/// database; without the database, it leaves this out. Needs no key.
#[utoipa::path(get, path = "/metrics",
    tag = "operations", operation_id = "metrics",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 401, description = "The request has a key, and the key is wrong.")))]
async fn metrics(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Error> {
    // A load balancer that hides this path from the world compares what was sent, which may have
    // been `/%6detrics`.
    if request.uri().path() != "/metrics" {
        return Err(Error::new(error::Code::NotFound, "The metrics are at /metrics only."));
    }
    let live = tokio::time::timeout(LIVE_WITHIN, live_for(&request, &state)).await;
    let live = match live.unwrap_or_else(|_| Err(Unavailable::TimedOut.into())) {
        Err(error) if error.code.status().is_client_error() => return Err(error),
        found => found.unwrap_or_else(|error| {
            log::warn!("the metrics lack what is live: {error}");
            Vec::new()
        }),
    };
    // On a thread of its own: a web worker serves others meanwhile.
    let text = web::block(move || state.metrics.render(&state.db, &live)).await;
    let text = text.map_err(Error::internal)??;
    Ok(HttpResponse::Ok()
        .content_type(ContentType::plaintext())
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(text))
}

/// What is live, if the caller may read it.
async fn live_for(request: &HttpRequest, state: &State) -> Result<Vec<Live>, Error> {
    if !auth::may_read(request.headers(), state).await? {
        return Ok(Vec::new());
    }
    state.db.read(|db| Ok(live(db)?)).await
}

fn live(db: &mut Db) -> QueryResult<Vec<Live>> {
    deployments::table
        .filter(deployments::state.eq(lifecycle::State::Succeeded.word()))
        .order((deployments::service, deployments::environment))
        .limit(MOST_PLACES)
        .select((deployments::service, deployments::environment, deployments::version))
        .load(db)
}
