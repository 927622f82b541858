//! The only file that writes a deployment. A change of its facts is written together with
//! everything that follows for its place, an event for each deployment that changes, and what
//! the log and the metrics say of it.

use diesel::prelude::*;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

use crate::db::columns::Json;
use crate::db::schema::{deployments, incident_deployments, releases};
use crate::db::{Db, chain, counting, kept};
use crate::error::{Code, Error, OnConflict};
use crate::http::context::Actor;
use crate::ledger::deployments::affected::{self, Affected};
use crate::ledger::deployments::{Deployment, DeploymentWithDecision, Role};
use crate::ledger::events::{self, NewEvent};
use crate::rules::lifecycle::{self, By, Move, State};
use crate::rules::timeline::{self, Entry, Head, Outcome};
use crate::types::counted::Counted;
use crate::types::ids::{DeploymentId, ReleaseId};
use crate::types::time::Timestamp;
use crate::types::values::{Digest, GitSha};

/// A deployment whose facts have changed.
pub struct Change<'a> {
    /// As it stood.
    pub before: &'a Deployment,
    /// As it stands now, but for what follows from its place.
    pub now: Deployment,
    /// What the gate decided, if it was evaluated.
    pub decision: Option<Value>,
    /// What was reported, for the history.
    pub facts: &'a [Fact],
}

/// What follows from a change for its place.
pub enum Follows {
    /// It is still to be found out.
    Unknown,
    /// The row has it, and nothing follows for others.
    Nothing,
    /// It follows from these, which the earliest fact of the change affects.
    From(Vec<Affected>),
}

/// What was reported of a deployment, as the history names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// It was asked for, or observed.
    Requested,
    /// Only a webhook had reported it; now its own script or pipeline does.
    Adopted,
    /// It has the approvals that it needs.
    Approved,
    /// A rejection withdrew an approval that it needs. It waits again.
    Withdrawn,
    /// It started.
    Started,
    /// It ended, or was given up before it started.
    Ended,
    /// Its times, its run or who asked for it are known better.
    Corrected,
    /// It is no longer live, by its source's report.
    Retired,
    /// It counts for nothing.
    Voided,
}

/// Inserts a new deployment. Nothing is derived: it has not started, or it starts now in a place
/// where nothing runs, or [`save`] follows.
///
/// # Errors
/// [`Code::ExternalIdTaken`] when another deployment has been recorded under its external id in the
/// meantime.
pub fn insert(
    db: &mut Db,
    actor: &Actor,
    row: &DeploymentWithDecision,
    facts: &[Fact],
) -> Result<(), Error> {
    let decision = row.decision.as_ref().map(|decision| &decision.0);
    let events = events_of(actor, State::Approved, &row.deployment, facts, decision)?;
    let insert = diesel::insert_into(deployments::table).values(row);
    events::write_with(db, insert, &events).on_conflict(|| {
        Error::new(Code::ExternalIdTaken, "Another request has just recorded it. Ask again.")
    })?;
    report_outcome(&row.deployment, facts);
    Ok(())
}

/// Writes a deployment whose facts have changed, and what follows for its place. In the service's
/// lock.
pub fn save(db: &mut Db, actor: &Actor, change: Change<'_>) -> Result<Deployment, Error> {
    save_with(db, actor, change, Follows::Unknown)
}

/// [`save`], with what is known already of what follows.
pub fn save_with(
    db: &mut Db,
    actor: &Actor,
    change: Change<'_>,
    follows: Follows,
) -> Result<Deployment, Error> {
    let Change { before, now, decision, facts } = change;
    // An end without success changes nothing but the deployment itself.
    let is_plain_end = *facts == [Fact::Ended]
        && before.outcome().is_none()
        && now.outcome() != Some(Outcome::Succeeded);
    let (mut now, others) = match follows {
        Follows::Nothing => (now, Vec::new()),
        _ if is_plain_end => (now, Vec::new()),
        Follows::Unknown => derive(db, before, now, None)?,
        Follows::From(affected) => derive(db, before, now, Some(affected))?,
    };
    if before.success() != now.success() {
        // The first report of the success counts; one that happened later counts from then.
        let learned_at = before.counts_from().unwrap_or(actor.now);
        now.counts_from = now.success().map(|end| end.max(learned_at));
    }
    let is_changed = *before != now;
    now.revision = before.revision + i32::from(is_changed);
    let (first, last) = make_room(others);
    let from = if before.state == State::Requested { State::Approved } else { before.state };
    let mut events = events_of(actor, from, &now, facts, decision.as_ref())?;
    if is_changed && facts.is_empty() {
        events.push(derived_event(actor, before.state, &now, Some(&now))?);
    }
    for other in first.iter().chain(&last) {
        events.push(derived_event(actor, other.before, &other.now, Some(&now))?);
    }
    if is_changed {
        write(db, &first, &now, decision.as_ref(), &events)?;
    } else {
        update_all(db, &first)?;
        events::write(db, &events)?;
    }
    update_all(db, &last)?;
    count_waiting(actor, before, &now, facts);
    report_outcome(&now, facts);
    Ok(now)
}

/// Writes a changed deployment and its events, once the others have made room in the unique
/// indexes. No decision keeps the one that is stored.
fn write(
    db: &mut Db,
    first: &[Other],
    now: &Deployment,
    decision: Option<&Value>,
    events: &[NewEvent],
) -> QueryResult<()> {
    let decision = || decision.map(|decision| deployments::decision.eq(Json(decision.clone())));
    let row = deployments::table.find(now.id);
    let one_by_one = |db: &mut Db| {
        update_all(db, first)?;
        events::write_with(db, diesel::update(row).set((now, decision())), events)
    };
    let [Other { now: other, .. }] = first else { return one_by_one(db) };
    let room = diesel::update(deployments::table.find(other.id)).set(other);
    let written = diesel::update(row.filter(chain::has_room())).set((now, decision()));
    events::write_in_room(db, (room, written), events, one_by_one)
}

/// What gives up being live or running, and the rest. The former is written first, to make room in
/// the unique indexes.
fn make_room(others: Vec<Other>) -> (Vec<Other>, Vec<Other>) {
    others
        .into_iter()
        .partition(|other| !matches!(other.now.state, State::Running | State::Succeeded))
}

/// How many deployments [`derive_place`] changes at once, so that nothing waits long for the lock.
const AT_ONCE: usize = 1000;

/// Ends deployments of one service that have waited too long. Nothing follows from that for others.
/// In the service's lock.
///
/// # Errors
/// That of the database.
pub fn expire(db: &mut Db, actor: &Actor, waiting: Vec<Deployment>) -> Result<(), Error> {
    let mut events = Vec::with_capacity(waiting.len());
    let ids: Vec<DeploymentId> = waiting.iter().map(|before| before.id).collect();
    for before in waiting {
        let from = before.state;
        let (state, finished_at) = (State::Expired, Some(actor.now));
        let now = Deployment { state, finished_at, expires_at: None, reason: None, ..before };
        events.extend(events_of(actor, from, &now, &[Fact::Ended], None)?);
    }
    diesel::update(deployments::table.filter(deployments::id.eq_any(ids)))
        .set((
            deployments::state.eq(State::Expired),
            deployments::finished_at.eq(actor.now),
            deployments::expires_at.eq(None::<Timestamp>),
            deployments::reason.eq(None::<String>),
            deployments::revision.eq(deployments::revision + 1),
        ))
        .execute(db)?;
    events::write_all(db, &events)?;
    Ok(())
}

/// Derives a whole place again, once `correct` has corrected the facts in the rows of its
/// deployments that have started. Returns how many of them were changed, and whether these were all
/// that differ. In the service's lock.
pub fn derive_place(
    db: &mut Db,
    actor: &Actor,
    service: &str,
    environment: &str,
    correct: impl FnOnce(&mut Db, &mut [Deployment]) -> Result<(), Error>,
) -> Result<(usize, bool), Error> {
    let rows = started_in(db, service, environment)?;
    let fixes = fixes_in(db, service, environment)?;
    let mut deployments: Vec<Deployment> = rows.iter().map(|(row, _)| row.clone()).collect();
    correct(db, &mut deployments)?;
    let entries: Vec<Entry> =
        deployments.iter().filter_map(|row| row.entry(fixes.contains(&row.id))).collect();
    let derived = timeline::derive(&Head::default(), &entries);
    let mut others = Vec::new();
    for ((mut now, (before, last_commit_at)), derived) in
        deployments.into_iter().zip(rows).zip(derived)
    {
        now.set_derived(derived, last_commit_at);
        if now != before {
            now.revision += 1;
            others.push(Other { before: before.state, now });
        }
    }
    let is_complete = others.len() <= AT_ONCE;
    let (first, last) = make_room(others);
    let mut changed = 0;
    for other in first.iter().chain(&last).take(AT_ONCE) {
        update(db, &other.now)?;
        events::write(db, &[derived_event(actor, other.before, &other.now, None)?])?;
        changed += 1;
    }
    Ok((changed, is_complete))
}

/// The deployments of a place that have started and are not void, each with the time of its
/// release's newest commit.
fn started_in(
    db: &mut Db,
    service: &str,
    environment: &str,
) -> QueryResult<Vec<(Deployment, Option<Timestamp>)>> {
    deployments::table
        .inner_join(releases::table.on(releases::id.eq(deployments::release_id)))
        .filter(deployments::service.eq(service))
        .filter(deployments::environment.eq(environment))
        .filter(deployments::started_at.is_not_null())
        .filter(deployments::voided_at.is_null())
        .select((Deployment::as_select(), releases::last_commit_at))
        .load(db)
}

/// The deployments of a place that are linked to an incident as its fix.
fn fixes_in(db: &mut Db, service: &str, environment: &str) -> QueryResult<HashSet<DeploymentId>> {
    let linked: Vec<DeploymentId> = incident_deployments::table
        .inner_join(deployments::table.on(deployments::id.eq(incident_deployments::deployment_id)))
        .filter(deployments::service.eq(service))
        .filter(deployments::environment.eq(environment))
        .filter(incident_deployments::role.eq(Role::FixedBy))
        .select(deployments::id)
        .load(db)?;
    Ok(linked.into_iter().collect())
}

/// Records that a deployment moved at `at`, with what follows for its place.
pub fn advance(
    db: &mut Db,
    actor: &Actor,
    before: Deployment,
    to: State,
    at: Timestamp,
    reason: Option<String>,
) -> Result<Deployment, Error> {
    advance_with(db, actor, before, to, at, reason, Follows::Unknown)
}

/// [`advance`], with what is known already of what follows.
pub fn advance_with(
    db: &mut Db,
    actor: &Actor,
    before: Deployment,
    to: State,
    at: Timestamp,
    reason: Option<String>,
    follows: Follows,
) -> Result<Deployment, Error> {
    if lifecycle::decide(before.reported_state(), to, By::Ledger) != Move::To(to) {
        let (id, from) = (before.id, before.state);
        return Err(Error::internal(format!("deployment {id} can't go from {from} to {to}")));
    }
    let mut now = Deployment { state: to, reason, ..before.clone() };
    let fact = match to {
        State::Approved => Fact::Approved,
        State::AwaitingApproval => Fact::Withdrawn,
        State::Running => Fact::Started,
        _ => Fact::Ended,
    };
    match fact {
        Fact::Approved | Fact::Withdrawn => {}
        Fact::Started => now.started_at = Some(at),
        _ => now.finished_at = Some(at),
    }
    if !matches!(fact, Fact::Approved | Fact::Withdrawn) {
        now.expires_at = None;
    }
    let change = Change { before: &before, now, decision: None, facts: &[fact] };
    save_with(db, actor, change, follows)
}

/// Derives the place of a deployment again, after something besides its own reports has changed,
/// such as its links to incidents.
pub fn refresh(db: &mut Db, actor: &Actor, deployment: Deployment) -> Result<Deployment, Error> {
    let now = deployment.clone();
    save(db, actor, Change { before: &deployment, now, decision: None, facts: &[] })
}

/// Copies what has become known of a release to its deployments, and flags those that started more
/// than a day before its newest commit. The gate decided on each of them without an image that
/// becomes known now. Each that changes gets an event `deployment.completed`.
///
/// # Errors
/// That the database is unavailable.
pub fn follow_release(
    db: &mut Db,
    actor: &Actor,
    release: ReleaseId,
    git_sha: &Option<GitSha>,
    image_digest: &Option<Digest>,
    last_commit_at: Option<Timestamp>,
) -> Result<(), Error> {
    let deployed: Vec<Deployment> = deployments::table
        .filter(deployments::release_id.eq(release))
        .select(Deployment::as_select())
        .load(db)?;
    for before in deployed {
        let started_at = before.started_at;
        let mut now = Deployment {
            git_sha: git_sha.clone().or(before.git_sha.clone()),
            image_digest: image_digest.clone().or(before.image_digest.clone()),
            image_added_later: before.image_added_later || image_digest.is_some(),
            ..before.clone()
        };
        if last_commit_at.is_some() {
            now.before_commit = timeline::starts_before_commit(started_at, last_commit_at);
        }
        if now == before {
            continue;
        }
        now.revision += 1;
        update(db, &now)?;
        let payload = json!({
            "git_sha": now.git_sha, "image_digest": now.image_digest,
            "before_commit": now.before_commit,
        });
        events::record(db, actor, &now.about(), "completed", payload)?;
    }
    Ok(())
}

fn update(db: &mut Db, row: &Deployment) -> QueryResult<usize> {
    kept::execute(db, diesel::update(deployments::table.find(row.id)).set(row))
}

fn update_all(db: &mut Db, others: &[Other]) -> QueryResult<()> {
    others.iter().try_for_each(|other| update(db, &other.now).map(drop))
}

/// Another deployment of the place about which something else is true now.
struct Other {
    before: State,
    now: Deployment,
}

/// What follows for the changed deployment and for the others of its place.
fn derive(
    db: &mut Db,
    before: &Deployment,
    changed: Deployment,
    affected: Option<Vec<Affected>>,
) -> Result<(Deployment, Vec<Other>), Error> {
    let times = [before, &changed].into_iter().filter_map(Deployment::times).flatten().flatten();
    let Some(since) = times.min() else { return Ok((changed, Vec::new())) };
    let mut rows = match affected {
        Some(affected) => affected,
        None => affected::load(db, &changed, since)?,
    };
    if let Some(row) = rows.iter_mut().find(|row| row.deployment.id == changed.id) {
        row.deployment = changed.clone();
    }
    rows.retain(|row| row.deployment.entry(row.is_fix).is_some());
    let was_live = rows.iter().filter(|row| row.was_live).map(|row| row.deployment.release_id);
    let head = Head { at: Some(since), was_live: was_live.collect() };
    let entries: Vec<Entry> =
        rows.iter().filter_map(|row| row.deployment.entry(row.is_fix)).collect();
    let derived = timeline::derive(&head, &entries);
    let (mut now, mut others) = (changed, Vec::new());
    for (Affected { deployment, last_commit_at, .. }, derived) in rows.into_iter().zip(derived) {
        if deployment.id == now.id {
            now.set_derived(derived, last_commit_at);
        } else if deployment.derived() != derived {
            let before = deployment.state;
            let mut other = Deployment { revision: deployment.revision + 1, ..deployment };
            other.set_derived(derived, last_commit_at);
            others.push(Other { before, now: other });
        }
    }
    Ok((now, others))
}

/// What the gate decided, without the facts that it used: those are kept with the deployment.
fn brief(decision: Option<&Value>) -> Option<Value> {
    let mut brief = decision?.as_object()?.clone();
    brief.remove("facts");
    Some(brief.into())
}

/// The events of what was reported of a deployment, and of what the gate decided, if it was
/// evaluated.
fn events_of(
    actor: &Actor,
    mut from: State,
    now: &Deployment,
    facts: &[Fact],
    decision: Option<&Value>,
) -> Result<Vec<NewEvent>, Error> {
    let mut events = Vec::with_capacity(facts.len());
    for fact in facts {
        let (verb, to, at) = match fact {
            Fact::Requested | Fact::Adopted => {
                let verb = if *fact == Fact::Requested { "requested" } else { "adopted" };
                let mut payload = serde_json::to_value(now).map_err(Error::internal)?;
                payload["decision"] = json!(brief(decision));
                events.push(NewEvent::new(actor, &now.about(), verb, payload)?);
                continue;
            }
            Fact::Corrected => {
                let payload = json!({
                    "started_at": now.started_at, "finished_at": now.finished_at,
                    "reason": now.reason,
                    "run_url": now.run_url, "requested_by": now.requested_by,
                });
                events.push(NewEvent::new(actor, &now.about(), "corrected", payload)?);
                continue;
            }
            Fact::Approved => ("approved", State::Approved, actor.now),
            Fact::Withdrawn => ("approval_withdrawn", State::AwaitingApproval, actor.now),
            Fact::Started => ("started", State::Running, now.started_at.unwrap_or(actor.now)),
            Fact::Ended => {
                (now.reported_state().as_str(), now.state, now.finished_at.unwrap_or(actor.now))
            }
            Fact::Retired => (now.state.as_str(), now.state, now.retired_at.unwrap_or(actor.now)),
            Fact::Voided => ("voided", now.state, actor.now),
        };
        let reason = now.reason.as_ref().filter(|_| *fact != Fact::Started || facts.len() == 1);
        let mut payload =
            json!({"from": from, "to": to, "reason": reason, "at": at, "ungated": now.ungated});
        if *fact == Fact::Started {
            payload["decision"] = json!(brief(decision));
        }
        events.push(NewEvent::new(actor, &now.about(), verb, payload)?);
        from = to;
    }
    Ok(events)
}

/// The event of what follows for another deployment of the place from what was reported of `cause`,
/// or from deriving the whole place.
fn derived_event(
    actor: &Actor,
    from: State,
    now: &Deployment,
    cause: Option<&Deployment>,
) -> Result<NewEvent, Error> {
    let verb = match (from, now.state) {
        (State::Succeeded, State::Superseded | State::RolledBack)
        | (State::Running, State::Cancelled)
            if cause.is_some() =>
        {
            now.state.as_str()
        }
        _ => "rederived",
    };
    let payload = json!({
        "from": from, "to": now.state, "kind": now.kind, "previous_id": now.previous_id,
        "at": cause.and_then(|cause| cause.finished_at.or(cause.started_at)),
        "because_of": cause.map(|cause| cause.id), "ungated": now.ungated,
    });
    NewEvent::new(actor, &now.about(), verb, payload)
}

/// Counts how long a deployment waited, when it gets its approvals or starts later than it was
/// requested.
fn count_waiting(actor: &Actor, before: &Deployment, now: &Deployment, facts: &[Fact]) {
    if facts.iter().any(|fact| matches!(fact, Fact::Requested | Fact::Adopted)) {
        return;
    }
    for fact in facts {
        let (until, at) = match fact {
            Fact::Approved => ("approval", actor.now),
            Fact::Started if before.started_at.is_none() => {
                ("start", now.started_at.unwrap_or(actor.now))
            }
            _ => continue,
        };
        // A reported start may be before the request.
        let time = Duration::try_from(at.since(now.requested_at)).unwrap_or_default();
        counting::count(Counted::Waited { until, time });
    }
}

/// Counts each rollout that has ended, and logs a line, for dashboards that count log lines. The
/// line is written before the transaction is committed: a transaction that is then lost leaves a
/// line too many, never one too few.
fn report_outcome(deployment: &Deployment, facts: &[Fact]) {
    if !facts.contains(&Fact::Ended) || deployment.started_at.is_none() {
        return;
    }
    let (outcome, kind) = (deployment.reported_state().as_str(), deployment.kind.as_str());
    counting::count(Counted::Ended { outcome, kind });
    log::info!(
        target: "deployment",
        id:serde = deployment.id,
        service = &*deployment.service,
        environment = &*deployment.environment,
        version = &*deployment.version,
        kind,
        state = deployment.state.as_str(),
        ungated = deployment.ungated;
        "ended"
    );
}
