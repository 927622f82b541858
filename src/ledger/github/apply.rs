//! Applies the facts of GitHub webhooks to the ledger: finds the service, environment, release and
//! deployment that a fact is about, and makes the change. `docs/webhooks.md` has the rules.

use diesel::prelude::*;

use crate::db::Db;
use crate::db::columns::ToWord;
use crate::db::schema::{deliveries, deployments};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Author};
use crate::ledger::approvals::{self, NewApproval, Source, Verdict};
use crate::ledger::deployments::create::{self, NewDeployment, Observation, Report};
use crate::ledger::deployments::snapshot;
use crate::ledger::deployments::store::{self, Change, Fact as Reported};
use crate::ledger::deployments::transitions::{self, Transition};
use crate::ledger::deployments::{Deployment, GITHUB, find, of_run, running_in};
use crate::ledger::environments::{self, Environment};
use crate::ledger::releases::{self, NewRelease, Release};
use crate::ledger::services;
use crate::rules::github::{
    self, DeploymentStatus, Fact, Repository, Review, RunEnded, normalized_url,
};
use crate::rules::lifecycle::{self, By, Move, State};
use crate::rules::timeline::Outcome;
use crate::types::ids::DeploymentId;
use crate::types::malformed::Malformed;
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::values::{GitSha, LongText, ShortText, Slug, Url, Version};

/// The result of applying a fact.
pub struct Applied {
    /// Whether the ledger was changed.
    pub is_change: bool,
    /// Whether the ledger is set to ignore such facts.
    pub is_ignored: bool,
    /// The result in a sentence for people.
    pub detail: String,
    /// The deployment that the fact is about, if any.
    pub deployment: Option<DeploymentId>,
}

impl Applied {
    fn changed(detail: impl Into<String>, deployment: Option<DeploymentId>) -> Self {
        Self { is_change: true, is_ignored: false, detail: detail.into(), deployment }
    }

    fn ignored(detail: impl Into<String>) -> Self {
        Self { is_change: false, is_ignored: true, detail: detail.into(), deployment: None }
    }

    fn unchanged(detail: impl Into<String>, deployment: Option<DeploymentId>) -> Self {
        Self { is_change: false, is_ignored: false, detail: detail.into(), deployment }
    }
}

/// Applies a fact to the ledger.
///
/// # Errors
/// Why the fact cannot be applied.
pub fn apply(db: &mut Db, author: &Author, fact: &Fact) -> Result<Applied, Error> {
    match fact {
        Fact::Nothing(why) => Ok(Applied::unchanged(*why, None)),
        Fact::Deployment(report) => deployment(db, author, report),
        Fact::Review(review) => self::review(db, author, review),
        Fact::RunEnded(run) => run_ended(db, author, run),
    }
}

/// The subject of a fact, by which all deliveries about one GitHub deployment or one run are found:
/// the number of the deployment, or the URL of the run.
pub fn subject(fact: &Fact) -> Option<String> {
    match fact {
        Fact::Deployment(report) => Some(report.id.to_string()),
        Fact::Review(review) => {
            Some(github::run_of(&review.run_url).unwrap_or(&review.run_url).to_owned())
        }
        Fact::RunEnded(run) => Some(run.run_url.clone()),
        Fact::Nothing(_) => None,
    }
}

/// Applies a fact about a deployment. The service is locked first, so that simultaneous deliveries
/// about one deployment are applied one after another.
fn deployment(db: &mut Db, author: &Author, report: &github::Deployment) -> Result<Applied, Error> {
    let environment = environment_of(&report.environment)?;
    if environments::ignores_github(db, &environment)? && !is_linked(db, report)? {
        return Ok(Applied::ignored(format!(
            "{environment} has ignore_github_deployments set. Nothing was recorded."
        )));
    }
    let (actor, service) = service_of(db, author, &report.repository, report.service.as_deref())?;
    let actor = &actor;
    let subject = report.id.to_string();
    let all = all_reports(db, &subject, &[normalized_url(&report.repository.html_url)])?;
    let status = with_its_run(db, github::deployment_status(&all))?;
    let known = find_known(db, &service, &environment, report, &status)?;
    if known.is_none() && services::find(db, &service)?.ignore_github_deployments {
        return Ok(Applied::ignored(format!(
            "{service} has ignore_github_deployments set. Nothing was recorded."
        )));
    }
    if let Some(known) = known.as_ref().filter(|known| known.source != GITHUB) {
        return apply_to_self_reported(db, actor, known, status);
    }
    if let Some(refused) = defers_to_running(db, &service, &environment, known.as_ref(), &status)? {
        return Ok(refused);
    }
    if let Some(known) = known {
        return apply_to_observed(db, actor, known, status);
    }
    if status.state == Some(State::Cancelled) && status.started_at.is_none() {
        return Ok(Applied::unchanged(
            "The deployment was cancelled before it started. It was not recorded.",
            None,
        ));
    }
    if status.state.is_none() && all.len() > 1 {
        return Ok(Applied::unchanged(
            "The deployment has not started. The gate blocked it when it was first reported.",
            None,
        ));
    }
    let requested_at = Timestamp::from(report.created_at).min(actor.now);
    let new = new_deployment(db, service, environment, report, &status)?;
    let report = Report { new, observation: observation(&status, actor.now), requested_at };
    match create::record(db, actor, true, report) {
        // Nothing has happened yet. If the deployment starts anyway, GitHub reports that, and it is
        // recorded as ungated.
        Err(refusal) if refusal.code == Code::GateBlocked => {
            Ok(Applied::unchanged(refusal.to_string(), None))
        }
        recorded => {
            let deployment = recorded?.0.deployment;
            Ok(Applied::changed(format!("Recorded as {}.", deployment.state), Some(deployment.id)))
        }
    }
}

/// The course of a deployment by GitHub's reports. A time in the future counts as now, because
/// GitHub's clock may be ahead.
fn observation(status: &DeploymentStatus, now: Timestamp) -> Option<Observation> {
    let time = |at: Option<jiff::Timestamp>| at.map(|at| Timestamp::from(at).min(now));
    Some(Observation {
        state: status.state?,
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
    })
}

/// A job that begins has not rolled out anything yet. So its start does not cancel a running
/// deployment that its own script reports; only the end of the job can.
fn defers_to_running(
    db: &mut Db,
    service: &Slug,
    environment: &Slug,
    known: Option<&Deployment>,
    status: &DeploymentStatus,
) -> Result<Option<Applied>, Error> {
    if status.state != Some(State::Running)
        || known.is_some_and(|known| known.state == State::Running)
    {
        return Ok(None);
    }
    let running = running_in(db, service, environment)?.filter(|running| running.source != GITHUB);
    Ok(running.map(|running| {
        let detail = format!(
            "Deployment {} is already running there. This one is recorded when it ends.",
            running.id
        );
        Applied::unchanged(detail, known.map(|known| known.id))
    }))
}

/// Applies a fact to a deployment that only GitHub reports: it gets the state that GitHub reports.
fn apply_to_observed(
    db: &mut Db,
    actor: &Actor,
    known: Deployment,
    status: DeploymentStatus,
) -> Result<Applied, Error> {
    let (id, before) = (known.id, known.state);
    let (known, is_completed) = add_missing_details(db, actor, known, &status)?;
    let stays = |why: String| match is_completed {
        true => Applied::changed(format!("Added the run or the requester. {why}"), Some(id)),
        false => Applied::unchanged(why, Some(id)),
    };
    // GitHub reports a failure for a job that was rejected and never began.
    let never_ran =
        before == State::Rejected && status.state == Some(State::Failed) && !status.was_running;
    if known.voided_at.is_some() {
        return Ok(stays("The deployment is void.".into()));
    }
    if status.state.is_none() || never_ran {
        return Ok(stays(format!("The deployment stays {before}.")));
    }
    // A start that is reported late does not undo an end that was recorded since.
    let restarted_at = status.restarted_at.map(Timestamp::from);
    if status.state == Some(State::Running)
        && matches!(known.outcome(), Some(Outcome::Failed | Outcome::Cancelled))
        && known.started_at.is_some()
        && known.finished_at >= restarted_at
    {
        return Ok(stays(format!("The deployment became {before} after this start.")));
    }
    match observe(db, actor, known, status)? {
        (now, true) if now.state == before => {
            let detail = format!("Corrected the times. The deployment stays {before}.");
            Ok(Applied::changed(detail, Some(id)))
        }
        (now, true) => {
            Ok(Applied::changed(format!("Changed from {before} to {}.", now.state), Some(id)))
        }
        (now, false) => Ok(stays(format!(
            "The deployment is already {}, or a newer state is known.",
            now.state
        ))),
    }
}

/// Records the course of a deployment that is already known. Returns whether that changed anything.
fn observe(
    db: &mut Db,
    actor: &Actor,
    known: Deployment,
    status: DeploymentStatus,
) -> Result<(Deployment, bool), Error> {
    let Some(seen) = observation(&status, actor.now) else { return Ok((known, false)) };
    let from = known.reported_state();
    let moves = match lifecycle::decide(from, seen.state, By::Observer) {
        Move::To(_) => true,
        Move::None => false,
        Move::Refused(_) => return Ok((known, false)),
    };
    let mut now = Deployment {
        state: seen.state,
        started_at: seen.started_at.or(known.started_at),
        finished_at: seen.finished_at,
        retired_at: status.retired_at.map(|at| Timestamp::from(at).min(actor.now)),
        reason: status.reason,
        expires_at: None,
        ..known.clone()
    };
    let reports = |row: &Deployment| {
        (row.started_at, row.finished_at, row.retired_at.is_some(), row.reason.clone())
    };
    if !moves && reports(&now) == reports(&known) {
        return Ok((known, false));
    }
    let starts = known.started_at.is_none() && now.started_at.is_some();
    let mut decision = None;
    if starts {
        let snapshot = snapshot::of(db, actor, known.id)?;
        let ruling = transitions::evaluate_start(db, actor, &known, &snapshot, true)?;
        now.ungated = !ruling.decision.allowed;
        now.image_added_later = false;
        decision = Some(ruling.document()?);
    }
    let mut facts = Vec::new();
    facts.extend((starts || moves && seen.state == State::Running).then_some(Reported::Started));
    facts.extend((moves && seen.state != State::Running).then_some(Reported::Ended));
    facts.extend((known.retired_at != now.retired_at).then_some(Reported::Retired));
    if facts.is_empty() {
        facts.push(Reported::Corrected);
    }
    let change = Change { before: &known, now, decision, facts: &facts };
    Ok((store::save(db, actor, change)?, true))
}

/// Adds what only later deliveries contain: the run, and the person on whose behalf a bot acts.
fn add_missing_details(
    db: &mut Db,
    actor: &Actor,
    known: Deployment,
    status: &DeploymentStatus,
) -> Result<(Deployment, bool), Error> {
    let run_url = status.run_url.as_deref().filter(|_| known.run_url.is_none());
    let run_url = run_url.and_then(|url| url.parse::<Url>().ok());
    let person = status
        .requested_by
        .clone()
        .filter(|login| github::is_bot(&known.requested_by) && !github::is_bot(login));
    if run_url.is_none() && person.is_none() {
        return Ok((known, false));
    }
    let now = Deployment {
        run_url: run_url.or(known.run_url.clone()),
        requested_by: person.map_or_else(|| known.requested_by.clone(), Name::from),
        ..known.clone()
    };
    let facts = &[Reported::Corrected];
    let change = Change { before: &known, now, decision: None, facts };
    Ok((store::save(db, actor, change)?, true))
}

/// Applies a fact to a deployment that its own script reports. GitHub only ends it if the script
/// left it running.
fn apply_to_self_reported(
    db: &mut Db,
    actor: &Actor,
    known: &Deployment,
    status: DeploymentStatus,
) -> Result<Applied, Error> {
    let id = Some(known.id);
    let ended = status
        .state
        .filter(|state| matches!(state, State::Succeeded | State::Failed | State::Cancelled));
    let at = status.finished_at.map(Timestamp::from);
    let is_running = known.reported_state() == State::Running;
    if let (true, Some(to), true) = (is_running, ended, at >= known.started_at) {
        end_deployment(db, actor, known.id, to, at, status.reason)?;
        return Ok(Applied::changed(
            format!("The run ended without a report from `{}`: {to}.", known.source),
            id,
        ));
    }
    Ok(Applied::unchanged(
        format!("`{}` reports this deployment itself. It is {}.", known.source, known.state),
        id,
    ))
}

fn end_deployment(
    db: &mut Db,
    actor: &Actor,
    id: DeploymentId,
    to: State,
    at: Option<Timestamp>,
    reason: Option<String>,
) -> Result<(), Error> {
    let at = at.map(|at| at.min(actor.now));
    let reason = reason.and_then(|reason| reason.parse::<LongText>().ok());
    transitions::transition(db, actor, id, Transition { to, reason, observed: true, at })?;
    Ok(())
}

/// All reports about one GitHub deployment, including the current delivery. Only these repositories
/// (normalized URLs) have a say in it: on another GitHub, another deployment may have its number.
fn all_reports(
    db: &mut Db,
    subject: &str,
    repositories: &[String],
) -> Result<Vec<github::Deployment>, Error> {
    let facts = facts_of(db, subject)?.into_iter();
    let reports = facts
        .filter_map(|fact| if let Fact::Deployment(report) = fact { Some(*report) } else { None });
    Ok(reports
        .filter(|report| repositories.contains(&normalized_url(&report.repository.html_url)))
        .collect())
}

/// The status of a deployment by the deliveries about it. `None` for a deployment of another
/// source.
fn status_of(db: &mut Db, known: &Deployment) -> Result<Option<DeploymentStatus>, Error> {
    let Some(external_id) = known.external_id.as_deref().filter(|_| known.source == GITHUB) else {
        return Ok(None);
    };
    let linked = deliveries::table
        .filter(deliveries::deployment_id.eq(known.id))
        .filter(deliveries::body.is_not_null());
    let linked: Vec<(String, String)> =
        linked.select((deliveries::event, deliveries::body.assume_not_null())).load(db)?;
    let mut repositories: Vec<_> = linked
        .into_iter()
        .filter_map(|delivery| match fact(delivery)? {
            Fact::Deployment(report) => Some(normalized_url(&report.repository.html_url)),
            _ => None,
        })
        .collect();
    repositories.sort();
    repositories.dedup();
    let reports = all_reports(db, number_of(external_id), &repositories)?;
    Ok(Some(github::deployment_status(&reports)))
}

/// When GitHub reported a deployment as no longer live. `None` when it did not.
///
/// # Errors
/// That of the database.
pub fn retired_at(db: &mut Db, known: &Deployment) -> Result<Option<Timestamp>, Error> {
    let status = status_of(db, known)?;
    Ok(status.and_then(|status| status.retired_at).map(Timestamp::from))
}

/// The status of a deployment, with the end of its run. GitHub may deliver the end of the run
/// first.
fn with_its_run(db: &mut Db, status: DeploymentStatus) -> Result<DeploymentStatus, Error> {
    let Some(run) = status
        .run_url
        .as_deref()
        .filter(|_| status.state == Some(State::Running))
        .and_then(github::run_of)
    else {
        return Ok(status);
    };
    let facts = facts_of(db, run)?.into_iter();
    let ends: Vec<_> = facts
        .filter_map(|fact| if let Fact::RunEnded(end) = fact { Some(end) } else { None })
        .collect();
    Ok(github::ended_with_run(status, &ends))
}

/// The facts about a subject that could be parsed, in the order of arrival.
fn facts_of(db: &mut Db, subject: &str) -> Result<Vec<Fact>, Error> {
    let of_it = deliveries::table
        .filter(deliveries::subject.eq(subject))
        .order((deliveries::received_at, deliveries::id));
    let of_it = of_it
        .filter(deliveries::body.is_not_null())
        .select((deliveries::event, deliveries::body.assume_not_null()));
    let bodies: Vec<(String, String)> = of_it.load(db)?;
    Ok(bodies.into_iter().filter_map(fact).collect())
}

/// The fact of a delivery that was stored.
fn fact((event, body): (String, String)) -> Option<Fact> {
    github::read(&event, &github::parse(&body).ok()?).ok()
}

/// Finds the deployment in the ledger that a GitHub deployment is.
///
/// GitHub may have reported it before, an earlier delivery may have been linked to it, or its own
/// script may have recorded it. The latter is recognised by the run, or, without a known run, by
/// the commit that is being deployed there.
fn find_known(
    db: &mut Db,
    service: &Slug,
    environment: &Slug,
    report: &github::Deployment,
    status: &DeploymentStatus,
) -> Result<Option<Deployment>, Error> {
    let subject = report.id.to_string();
    if let Some(known) = find_linked(db, service, report)? {
        return Ok(Some(known));
    }
    let candidates = match status.run_url.as_deref().and_then(github::run_of) {
        Some(run) => of_run(db, service, environment, run)?,
        None => {
            let here = deployments::table
                .filter(deployments::service.eq(&**service))
                .filter(deployments::environment.eq(&**environment));
            let on_its_way = deployments::state
                .eq(State::Running.word())
                .or(deployments::state.eq(State::Approved.word()))
                .or(deployments::state.eq(State::AwaitingApproval.word()));
            let of_commit = here.filter(on_its_way).filter(deployments::git_sha.eq(&report.sha));
            of_commit.select(Deployment::as_select()).order(deployments::id.desc()).load(db)?
        }
    };
    // A repeated run is another deployment on GitHub, and here too.
    let ids: Vec<_> = candidates.iter().map(|candidate| candidate.id).collect();
    let of_others = deliveries::table
        .filter(deliveries::deployment_id.eq_any(ids))
        .filter(deliveries::subject.ne(&subject));
    let of_others = of_others.filter(deliveries::event.eq_any(["deployment", "deployment_status"]));
    let taken: Vec<DeploymentId> =
        of_others.select(deliveries::deployment_id.assume_not_null()).distinct().load(db)?;
    Ok(candidates
        .into_iter()
        .find(|candidate| candidate.source != GITHUB && !taken.contains(&candidate.id)))
}

/// The deployment of a service that GitHub has reported before, or that an earlier delivery was
/// linked to. A number alone finds nothing: in another service, or recorded by somebody else, it
/// means another deployment.
fn find_linked(
    db: &mut Db,
    service: &Slug,
    report: &github::Deployment,
) -> Result<Option<Deployment>, Error> {
    let is_ours = |known: &Deployment| {
        known.service == *service && (known.source != GITHUB || is_reported(known))
    };
    let reported = with_number(db, report)?.into_iter().find(is_ours);
    if reported.is_some() {
        return Ok(reported);
    }
    let linked = deliveries::table
        .filter(deliveries::subject.eq(report.id.to_string()))
        .filter(deliveries::deployment_id.is_not_null());
    let linked: Vec<DeploymentId> =
        linked.select(deliveries::deployment_id.assume_not_null()).distinct().load(db)?;
    if linked.is_empty() {
        return Ok(None);
    }
    let linked = deployments::table.filter(deployments::id.eq_any(linked));
    let linked: Vec<Deployment> =
        linked.select(Deployment::as_select()).order(deployments::id).load(db)?;
    Ok(linked.into_iter().find(is_ours))
}

/// Whether a deployment that GitHub reports is known. Its service need not exist yet.
fn is_linked(db: &mut Db, report: &github::Deployment) -> Result<bool, Error> {
    match service_named(db, &report.repository, report.service.as_deref()) {
        Ok(service) => Ok(find_linked(db, &service, report)?.is_some()),
        Err(error) if error.code.status().is_server_error() => Err(error),
        Err(_) => Ok(false),
    }
}

/// The deployments under the external ids that a GitHub deployment may have.
fn with_number(db: &mut Db, report: &github::Deployment) -> QueryResult<Vec<Deployment>> {
    let named = deployments::table
        .filter(deployments::source.eq(GITHUB))
        .filter(deployments::external_id.eq_any([report.id.to_string(), qualified_id(report)]));
    named.select(Deployment::as_select()).load(db)
}

/// Whether a webhook recorded this deployment. Earlier versions let any key use the source
/// `github`, and so take a number before GitHub reported it.
fn is_reported(known: &Deployment) -> bool {
    let recorder = known.recorded_by.as_deref().and_then(|name| name.strip_prefix(GITHUB));
    known.source == GITHUB && recorder.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// The external id of a GitHub deployment whose number is taken: an external id is unique.
fn qualified_id(report: &github::Deployment) -> String {
    format!("{}@{}", report.id, report.repository.html_url)
}

/// The number of the GitHub deployment with this external id.
fn number_of(external_id: &str) -> &str {
    external_id.split_once('@').map_or(external_id, |(number, _)| number)
}

fn new_deployment(
    db: &mut Db,
    service: Slug,
    environment: Slug,
    report: &github::Deployment,
    status: &DeploymentStatus,
) -> Result<NewDeployment, Error> {
    let (version, git_sha) = release_of(db, &service, &report.reference, &report.sha)?;
    let is_taken = !with_number(db, report)?.is_empty();
    let external_id = if is_taken { qualified_id(report) } else { report.id.to_string() };
    Ok(NewDeployment {
        service,
        environment,
        version: Some(version),
        rollback: false,
        git_sha,
        image_digest: None,
        requested_by: status
            .requested_by
            .as_deref()
            .and_then(|login| login.parse::<ShortText>().ok())
            .map(Name::from),
        source: GITHUB.parse::<Slug>().ok(),
        external_id: external_id.parse::<ShortText>().ok(),
        run_url: status.run_url.as_deref().and_then(|url| url.parse::<Url>().ok()),
        unplanned: false,
        reason: status.reason.as_deref().and_then(|reason| reason.parse::<LongText>().ok()),
        start: false,
        fixes: None,
        observed: false,
        state: None,
        at: status.started_at.map(Into::into),
        finished_at: None,
        create_missing: true,
    })
}

/// Finds the service of a repository: the one with this `repository_url`, else one with the name of
/// the repository, which may not exist yet. If several services have the same repository, the
/// payload of the deployment must name one.
fn service_named(db: &mut Db, repository: &Repository, named: Option<&str>) -> Result<Slug, Error> {
    let ours = normalized_url(&repository.html_url);
    let (of_it, of_others): (Vec<_>, Vec<_>) =
        services::repositories(db)?.into_iter().partition(|(_, url)| normalized_url(url) == ours);
    let of_it: Vec<_> = of_it.into_iter().map(|(slug, _)| slug).collect();
    let is_taken = |slug: &Slug| of_others.iter().any(|(other, _)| other == slug);
    let (short, long) = (Slug::from_name(&repository.name), Slug::from_name(&repository.full_name));
    let slug = match (named, &of_it[..], short) {
        (Some(named), ..) => named.parse(),
        (None, [one], _) => Ok(one.clone()),
        (None, [], Ok(short)) if is_taken(&short) => long,
        (None, [], short) => short,
        (None, several, Ok(short)) if several.contains(&short) => Ok(short),
        (None, several, _) => {
            let names: Vec<&str> = several.iter().map(|slug| &**slug).collect();
            let detail = format!(
                "{} is the repository of the services {}; the payload of the deployment must name \
                    one of them.",
                ours,
                names.join(", ")
            );
            return Err(Error::new(Code::InvalidValue, detail));
        }
    };
    slug.map_err(|is: Malformed| {
        let name = named.unwrap_or_default();
        let detail = format!("{name:?} is not a valid service name: {}.", is.detail);
        Error::new(Code::InvalidSlug, detail)
    })
}

/// Finds and locks the service of a repository ([`service_named`]), and creates it if it does not
/// exist. Returns the author with the time of the lock, and the service.
fn service_of(
    db: &mut Db,
    author: &Author,
    repository: &Repository,
    named: Option<&str>,
) -> Result<(Actor, Slug), Error> {
    let slug = service_named(db, repository, named)?;
    Ok((own_service(db, author, &slug, repository)?, slug))
}

/// Locks a service, which must belong to the repository, or creates it. Returns the author with the
/// time of the lock.
fn own_service(
    db: &mut Db,
    author: &Author,
    slug: &Slug,
    repository: &Repository,
) -> Result<Actor, Error> {
    let ours = normalized_url(&repository.html_url);
    let url = repository.html_url.parse::<Url>().map_err(|is| {
        let detail = format!("{:?} is no URL of a repository: {}.", repository.html_url, is.detail);
        Error::new(Code::InvalidUrl, detail)
    })?;
    let (actor, is_new) = services::lock_or_create(db, author, slug, Some(url))?;
    if is_new {
        return Ok(actor);
    }
    // A webhook of one repository must not change a service of another one. This is checked again
    // under the lock of the service.
    match services::find(db, slug)?.repository_url {
        Some(url) if normalized_url(&url) == ours => Ok(actor),
        Some(_) => Err(Error::new(
            Code::AlreadyExists,
            format!("The service {slug} does not belong to the repository {ours}."),
        )),
        None => {
            let detail = format!(
                "The service {slug} has no repository_url. If {ours} is its repository, set it \
                    with PATCH /v1/services/{slug}."
            );
            Err(Error::new(Code::InvalidValue, detail))
        }
    }
}

fn environment_of(name: &str) -> Result<Slug, Error> {
    Slug::from_name(name).map_err(|is| {
        let detail =
            format!("The environment {name:?} cannot be turned into a slug: {}.", is.detail);
        Error::new(Code::InvalidSlug, detail)
    })
}

/// The version and commit of the release to deploy: the latest release with this commit, else the
/// tag or the first digits of the commit.
fn release_of(
    db: &mut Db,
    service: &Slug,
    reference: &str,
    sha: &str,
) -> Result<(Version, Option<GitSha>), Error> {
    let git_sha = sha.parse::<GitSha>().ok();
    let known = releases::find_commit(db, service, sha)?.map(|release| release.version);
    let of_name = |name: String| {
        name.parse().map_err(|is: Malformed| {
            let detail = format!("{name:?} is not a valid version: {}.", is.detail);
            Error::new(Code::InvalidVersion, detail)
        })
    };
    let version = match known {
        Some(version) => version,
        None => of_name(github::version(reference, sha))?,
    };
    let is_another = |known: Release| known.git_sha.is_some_and(|known| *known != *sha);
    if releases::find_version(db, service, &version).is_ok_and(is_another) {
        // The tag was moved to another commit. A version never changes its commit.
        return Ok((of_name(github::version("", sha))?, git_sha));
    }
    Ok((version, git_sha))
}

/// Records a GitHub review as approvals or rejections, as `POST /v1/approvals` does. Each
/// environment is recorded on its own: if one fails, the others stay recorded.
fn review(db: &mut Db, author: &Author, review: &Review) -> Result<Applied, Error> {
    let run = github::run_of(&review.run_url).unwrap_or(&review.run_url);
    let (mut is_change, mut about, mut recorded_in, mut refused) =
        (false, None, Vec::new(), Vec::new());
    let mut places = Vec::new();
    for name in &review.environments {
        let found = environment_of(name).and_then(|environment| {
            let services = services_of_run(db, &review.repository, &environment, run)?;
            Ok((environment, services))
        });
        places.push((name, found));
    }
    let found = places.iter().filter_map(|(_, found)| found.as_ref().ok());
    services::lock_all(db, author, found.flat_map(|(_, services)| services).cloned().collect())?;
    for (name, found) in places {
        let recorded = found.and_then(|(environment, services)| {
            db.savepoint(|db| record_in(db, author, review, run, &environment, services))
        });
        match recorded {
            Ok(recorded) => {
                recorded_in.push(name.as_str());
                is_change |= recorded.iter().any(|(_, is_new)| *is_new);
                about = about.or(recorded.iter().find_map(|(known, _)| *known));
            }
            Err(fault) if fault.code.status().is_server_error() => return Err(fault),
            Err(refusal) => refused.push(refusal),
        }
    }
    let verdict = if review.is_approved { "approved" } else { "rejected" };
    let detail =
        format!("{} {verdict} the release for {}.", review.approver, recorded_in.join(", "));
    match refused.pop() {
        Some(refusal) if recorded_in.is_empty() => Err(refusal),
        Some(refusal) => Err(Error::new(
            refusal.code,
            format!("{detail} Another environment failed: {}", refusal.detail),
        )
        .recorded()),
        None if is_change => Ok(Applied::changed(detail, about)),
        None => Ok(Applied::unchanged(detail, about)),
    }
}

/// The services of the repository that have a deployment of the run in the environment; if there is
/// none, the service of the repository, which may not exist yet.
fn services_of_run(
    db: &mut Db,
    repository: &Repository,
    environment: &Slug,
    run: &str,
) -> Result<Vec<Slug>, Error> {
    let ours = normalized_url(&repository.html_url);
    let mut found = Vec::new();
    for (service, url) in services::repositories(db)? {
        if normalized_url(&url) == ours && !of_run(db, &service, environment, run)?.is_empty() {
            found.push(service);
        }
    }
    Ok(if found.is_empty() { vec![service_named(db, repository, None)?] } else { found })
}

/// Records a review for the services of its run in one environment. Returns for each the deployment
/// that it is about, and whether the review was new.
fn record_in(
    db: &mut Db,
    author: &Author,
    review: &Review,
    run: &str,
    environment: &Slug,
    services: Vec<Slug>,
) -> Result<Vec<(Option<DeploymentId>, bool)>, Error> {
    let record = |service: Slug| {
        let actor = own_service(db, author, &service, &review.repository)?;
        record_for_place(db, &actor, review, service, environment, run)
    };
    services.into_iter().map(record).collect()
}

/// Records a review for one place, in the lock of its service. Returns the deployment that it is
/// about, and whether the review was new.
fn record_for_place(
    db: &mut Db,
    actor: &Actor,
    review: &Review,
    service: Slug,
    environment: &Slug,
    run: &str,
) -> Result<(Option<DeploymentId>, bool), Error> {
    let known = of_run(db, &service, environment, run)?.into_iter().next();
    let about = known.as_ref().map(|known| known.id);
    let version = match known {
        Some(known) => known.version,
        None => {
            let (version, git_sha) = release_of(db, &service, &review.reference, &review.sha)?;
            environments::ensure(db, actor, &Environment::missing(environment, actor)?)?;
            releases::ensure(
                db,
                actor,
                NewRelease::named(&service, &version, git_sha, None),
                None,
            )?;
            version
        }
    };
    let decision = if review.is_approved { Verdict::Approved } else { Verdict::Rejected };
    let review_id = format!(
        "{run} {} {decision} {}",
        review.approver,
        review_number(db, review, environment, run)?
    );
    let malformed =
        |code, text: &str, is: Malformed| Error::new(code, format!("{text:?}: {}.", is.detail));
    let line =
        |text: &str| text.parse::<ShortText>().map_err(|is| malformed(Code::InvalidText, text, is));
    let new = NewApproval {
        service,
        version,
        environment: environment.clone(),
        decision,
        comment: review.comment.as_deref().and_then(|comment| comment.parse::<LongText>().ok()),
        source: Some(Source::GitHub),
        approver: Some(line(&review.approver)?.into()),
        run_url: Some(run.parse::<Url>().map_err(|is| malformed(Code::InvalidUrl, run, is))?),
        review_id: Some(line(&review_id)?),
        at: Some(Timestamp::from(review.at).min(actor.now)),
    };
    match approvals::record(db, actor, new) {
        // The pipeline has already recorded the review, and a deployment has started with it.
        Err(refusal) if refusal.code == Code::ApprovalUsed => Ok((about, false)),
        recorded => Ok((about, recorded?.is_change)),
    }
}

/// The number of the review among those of the run with the same environment, approver and
/// decision, from 1.
///
/// GitHub reviews have no identifier, so `scripts/record-approval.sh` counts them in the same way.
/// A repeated run is reviewed again.
fn review_number(
    db: &mut Db,
    review: &Review,
    environment: &Slug,
    run: &str,
) -> Result<usize, Error> {
    let mut before: Vec<Review> = Vec::new();
    for fact in facts_of(db, run)? {
        let Fact::Review(report) = fact else { continue };
        if *report == *review {
            break;
        }
        let is_here = report
            .environments
            .iter()
            .any(|name| Slug::from_name(name).is_ok_and(|slug| slug == *environment));
        if is_here
            && report.approver == review.approver
            && report.is_approved == review.is_approved
            && !before.contains(&*report)
        {
            before.push(*report);
        }
    }
    Ok(before.len() + 1)
}

/// Ends the deployments that are still running although their run has failed or was cancelled.
fn run_ended(db: &mut Db, author: &Author, run: &RunEnded) -> Result<Applied, Error> {
    let Some(to) = run.leaves else {
        return Ok(Applied::unchanged(
            format!("The run ended: {}. Its deployments report their own end.", run.conclusion),
            None,
        ));
    };
    let has_not_ended =
        deployments::started_at.is_not_null().and(deployments::finished_at.is_null());
    let candidates =
        deployments::table.filter(deployments::run_url.is_not_null()).filter(has_not_ended);
    let candidates: Vec<Deployment> = candidates
        .select(Deployment::as_select())
        .order((deployments::service, deployments::id))
        .load(db)?;
    let at = Timestamp::from(run.at);
    let mut ended = Vec::new();
    for known in candidates {
        if known.run_url.as_deref().and_then(github::run_of) != Some(run.run_url.as_str()) {
            continue;
        }
        let actor = &services::lock_known(db, author, &known.service)?;
        let known = find(db, known.id)?.deployment;
        // The end of an earlier attempt does not end what a later attempt has started.
        if known.reported_state() == State::Running
            && known.started_at <= Some(at)
            && restarted_at(db, &known)? <= Some(at)
        {
            end_deployment(
                db,
                actor,
                known.id,
                to,
                Some(at),
                Some(format!("its run ended: {}", run.conclusion)),
            )?;
            ended.push(known);
        }
    }
    let about = ended.first().map(|known| known.id);
    Ok(match ended.len() {
        0 => Applied::unchanged(
            format!("The run ended: {}. None of its deployments was running.", run.conclusion),
            None,
        ),
        n => Applied::changed(
            format!(
                "The run ended: {}. {n} of its deployments still ran, and became {to}.",
                run.conclusion
            ),
            about,
        ),
    })
}

/// When GitHub last reported the start of a deployment. `None` for deployments of other sources.
fn restarted_at(db: &mut Db, known: &Deployment) -> Result<Option<Timestamp>, Error> {
    let status = status_of(db, known)?;
    Ok(status.and_then(|status| status.restarted_at).map(Timestamp::from))
}
