//! The gate: gathers what the rule needs to know, and answers the question without changing anything.

use actix_web::get;
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::Db;
use crate::db::schema::{
    approvals, deployments, environments, freeze_overrides, releases, services,
};
use crate::db::types::sql::{Document, Identifier, Instant};
use crate::db::types::{Json, Timestamp};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Ctx, Read};
use crate::http::extract::Query;
use crate::http::reply::Reply;
use crate::ledger;
use crate::ledger::deployments::find_witnessed;
use crate::ledger::environments::Environment;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::ids::{ApprovalId, DeploymentId, FreezeId, IncidentId, OverrideId, ReleaseId};
use crate::ledger::releases::{Release, ScanStatus};
use crate::ledger::values::{Line, Slug, Url, Version};
use crate::rules::calendar::{Schedule, Weekly};
use crate::rules::gate::{self, Decision, Facts, Freeze, Incident, Opinion, Step};
use crate::rules::lifecycle::{self, Kind, State};

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(ask);
}

/// What is asked.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Question {
    /// What is to be deployed.
    #[param(inline)]
    service: Slug,
    /// Where to.
    #[param(inline)]
    environment: Slug,
    /// Which release.
    #[param(inline)]
    version: Version,
    /// Who would ask for it; the caller, if not said. Their own approval may not count.
    #[param(inline)]
    requested_by: Option<Line>,
    /// The pipeline run that would do it. What a webhook has told of that run already does not stand in its way.
    #[param(inline)]
    run_url: Option<Url>,
}

/// May this release go there now
///
/// Answers as the start of a deployment would be answered, with every reason, and changes nothing.
#[utoipa::path(tag = "gate", operation_id = "ask_gate", security(("key" = ["read"])), params(Question),
    responses((status = 200, body = Decision), (status = 404, description = "The service, environment or release does not exist.")))]
#[get("/gate")]
async fn ask(ctx: Ctx<Read>, query: Query<Question>) -> Result<Reply, Error> {
    let Question { service, environment, version, requested_by, run_url } = query.0;
    let caller = ctx.name().to_owned();
    let requested_by = requested_by.map_or_else(|| caller.clone(), Into::into);
    let decision = ctx
        .read(move |db| {
            let now = Timestamp::now();
            let seen = look(db, &service, &environment, &version)?;
            if !seen.has_service {
                return Err(ledger::services::unknown(db, &service)?);
            }
            let Some(here) = &seen.environment else {
                return Err(ledger::environments::unknown(db, &environment)?);
            };
            let release = seen.release.as_ref().ok_or_else(|| {
                Error::not_found(&format!("release of {service} with version"), &version)
            })?;
            let asked = Asked {
                step: Step::Start,
                requested_by: &requested_by,
                recorded_by: Some(&caller),
                unplanned: false,
                deployment: find_witnessed(db, &service, &environment, run_url.as_deref())?
                    .map(|told| told.id),
                fixes: None,
            };
            Ok(gate::decide(
                &facts(db, &seen, here, &Candidate::of(release), &asked, now)?,
                now.into(),
            ))
        })
        .await?;
    Reply::ok(&decision)
}

/// A place as it is, and the release in question.
pub struct Seen {
    service: String,
    has_service: bool,
    /// The environment, if there is one.
    pub environment: Option<Environment>,
    /// The release, if there is one.
    pub release: Option<Release>,
    /// What is live there: the deployment, and its release.
    pub live: Option<(DeploymentId, ReleaseId)>,
    running: Option<DeploymentId>,
    /// How the release last ceased to be live there.
    last_end: Option<State>,
    succeeded_before_at: Option<Timestamp>,
}

impl Seen {
    /// What is live there.
    pub fn live_id(&self) -> Option<DeploymentId> {
        self.live.map(|(id, _)| id)
    }

    /// What runs there.
    pub fn running(&self) -> Option<DeploymentId> {
        self.running
    }

    /// Whether going to the release is going back to what was good: what was rolled back itself is nothing to go back to.
    pub fn is_way_back(&self) -> bool {
        self.kind(false) == Kind::Rollback && self.last_end == Some(State::Superseded)
    }

    /// What a deployment of the release is to the place.
    pub fn kind(&self, unplanned: bool) -> Kind {
        let release = self.release.as_ref().map(|release| release.id);
        let is_live = self.live.is_some_and(|(_, live)| Some(live) == release);
        lifecycle::kind(lifecycle::Place { is_live, was_live: self.last_end.is_some(), unplanned })
    }
}

/// The release in question: recorded, or about to be.
pub struct Candidate {
    id: Option<ReleaseId>,
    version: String,
    image_digest: Option<String>,
    scan: ScanStatus,
}

impl Candidate {
    /// A release that is recorded.
    pub fn of(release: &Release) -> Self {
        let Release { id, version, image_digest, scan, .. } = release;
        Self {
            id: Some(*id),
            version: version.clone(),
            image_digest: image_digest.clone(),
            scan: scan.0.status,
        }
    }

    /// A release that is not recorded yet.
    pub fn unrecorded(version: &str, image_digest: Option<&str>) -> Self {
        Self {
            id: None,
            version: version.to_owned(),
            image_digest: image_digest.map(str::to_owned),
            scan: ScanStatus::Missing,
        }
    }

    /// The same with an image that is about to become known.
    pub fn with_digest(self, digest: Option<&str>) -> Self {
        Self { image_digest: self.image_digest.or(digest.map(str::to_owned)), ..self }
    }
}

/// The environment, the release, what is live, what runs, how the release last ceased to be live there, and when it first
/// succeeded in the environment that comes before.
type Row = (
    Option<Environment>,
    Option<Release>,
    Option<(DeploymentId, ReleaseId)>,
    Option<DeploymentId>,
    Option<State>,
    Option<Timestamp>,
);

/// Looks at a place with a release in mind: one query, and one more when there is no such service.
pub fn look(db: &mut Db, service: &str, environment: &str, version: &str) -> Result<Seen, Error> {
    let (live, running, former, earlier) = diesel::alias!(
        deployments as live,
        deployments as running,
        deployments as former,
        deployments as earlier
    );
    let (this, same) = diesel::alias!(releases as this_release, releases as same_release);
    let before = diesel::alias!(environments as before);

    // A subselect that is a single value must own what is bound in it, and so must what it stands beside.
    let (service, environment, version) =
        (|| service.to_owned(), || environment.to_owned(), || version.to_owned());
    let last_end = former
        .filter(former.field(deployments::service).eq(service()))
        .filter(former.field(deployments::environment).eq(environment()))
        .filter(
            former
                .field(deployments::state)
                .eq(State::Superseded.word())
                .or(former.field(deployments::state).eq(State::RolledBack.word())),
        )
        .filter(
            former.field(deployments::release_id).eq_any(
                this.filter(this.field(releases::service).eq(service()))
                    .filter(this.field(releases::version).eq(version()))
                    .select(this.field(releases::id)),
            ),
        )
        .order(former.field(deployments::finished_at).desc())
        .limit(1)
        .select(former.field(deployments::state));
    let succeeded_before = earlier
        .filter(
            earlier.field(deployments::environment).nullable().eq_any(
                before
                    .filter(before.field(environments::slug).eq(environment()))
                    .select(before.field(environments::predecessor)),
            ),
        )
        .filter(
            earlier
                .field(deployments::state)
                .eq(State::Succeeded.word())
                .or(earlier.field(deployments::state).eq(State::Superseded.word()))
                .or(earlier.field(deployments::state).eq(State::RolledBack.word())),
        )
        .filter(
            earlier.field(deployments::release_id).eq_any(
                same.filter(same.field(releases::service).eq(service()))
                    .filter(same.field(releases::version).eq(version()))
                    .select(same.field(releases::id)),
            ),
        )
        .order(earlier.field(deployments::finished_at))
        .limit(1)
        .select(earlier.field(deployments::finished_at));

    let row: Option<Row> = services::table
        .left_join(environments::table.on(environments::slug.eq(environment())))
        .left_join(
            releases::table
                .on(releases::service.eq(services::slug).and(releases::version.eq(version()))),
        )
        .left_join(
            live.on(live
                .field(deployments::service)
                .eq(services::slug)
                .and(live.field(deployments::environment).eq(environment()))
                .and(live.field(deployments::state).eq(State::Succeeded.word()))),
        )
        .left_join(
            running.on(running
                .field(deployments::service)
                .eq(services::slug)
                .and(running.field(deployments::environment).eq(environment()))
                .and(running.field(deployments::state).eq(State::Running.word()))),
        )
        .filter(services::slug.eq(service()))
        .select((
            Option::<Environment>::as_select(),
            Option::<Release>::as_select(),
            live.fields((deployments::id, deployments::release_id)).nullable(),
            running.field(deployments::id).nullable(),
            last_end.single_value(),
            succeeded_before.single_value(),
        ))
        .first(db)
        .optional()?;
    let has_service = row.is_some();
    let (environment, release, live, running, last_end, succeeded_before_at) = match row {
        Some(row) => row,
        None => {
            let alone = environments::table
                .find(environment())
                .select(Environment::as_select())
                .first(db)
                .optional()?;
            (alone, None, None, None, None, None)
        }
    };
    Ok(Seen {
        service: service(),
        has_service,
        environment,
        release,
        live,
        running,
        last_end,
        succeeded_before_at,
    })
}

/// Who asks the gate, and for what.
pub struct Asked<'a> {
    /// Which step asks.
    pub step: Step,
    /// Who asks for the deployment.
    pub requested_by: &'a str,
    /// Who told prop of it.
    pub recorded_by: Option<&'a str>,
    /// It was not planned.
    pub unplanned: bool,
    /// The deployment, once it is recorded.
    pub deployment: Option<DeploymentId>,
    /// The incident that it fixes.
    pub fixes: Option<IncidentId>,
}

/// A freeze, an incident or an opinion: three lists in one query.
#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    fact: String,
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    words: String,
    #[diesel(sql_type = Text)]
    approver: String,
    #[diesel(sql_type = Bool)]
    allow_rollback: bool,
    /// Overridden, approved, or fixed by this.
    #[diesel(sql_type = Bool)]
    yes: bool,
    #[diesel(sql_type = Instant)]
    since: Timestamp,
    #[diesel(sql_type = Nullable<Instant>)]
    until: Option<Timestamp>,
    #[diesel(sql_type = Nullable<Document>)]
    weekly: Option<Json<Weekly>>,
}

/// Everything but the place: what holds now (`$1` service, `$2` environment, `$3` now, `$4` version, `$5` deployment,
/// `$6` incident to be fixed, `$7` release, `$8` its image). Both databases number parameters by their first appearance.
const HOLDS: &str = "
    SELECT 'freeze' AS fact, CAST(f.id AS text) AS id, f.reason AS words, '' AS approver, f.allow_rollback AS allow_rollback,
        EXISTS (SELECT 1 FROM freeze_overrides o WHERE o.service = $1 AND o.environment = $2 AND f.starts_at <= $3 AND o.freeze_id = f.id
            AND o.version = $4 AND (o.consumed_by IS NULL OR o.consumed_by = $5)) AS yes,
        f.starts_at AS since, f.ends_at AS until, f.weekly AS weekly
    FROM freezes f
    WHERE f.ended_at IS NULL AND f.starts_at <= $3 AND (f.ends_at IS NULL OR f.ends_at > $3)
        AND (f.service IS NULL OR f.service = $1) AND (f.environment IS NULL OR f.environment = $2)
    UNION ALL
    SELECT 'incident', CAST(i.id AS text), i.title, '', false,
        i.id = $6 OR EXISTS (SELECT 1 FROM incident_deployments l WHERE l.incident_id = i.id AND l.deployment_id = $5 AND l.role = 'fixed_by'),
        i.detected_at, CAST(NULL AS timestamptz), CAST(NULL AS jsonb)
    FROM incidents i
    WHERE i.resolved_at IS NULL AND i.service = $1 AND i.environment = $2
    UNION ALL
    SELECT 'opinion', CAST(a.id AS text), a.decision, a.approver, false, a.decision = 'approved', a.created_at, a.expires_at, CAST(NULL AS jsonb)
    FROM approvals a
    WHERE a.release_id = $7 AND a.environment = $2 AND (a.consumed_by IS NULL OR a.consumed_by = $5) AND a.image_digest IS NOT DISTINCT FROM $8
    ORDER BY 7, 2";

/// Gathers everything that the rule needs to know beyond what was seen: one query.
pub fn facts(
    db: &mut Db,
    seen: &Seen,
    environment: &Environment,
    release: &Candidate,
    asked: &Asked<'_>,
    now: Timestamp,
) -> Result<Facts, Error> {
    // Identifiers of nothing, where there is none: `NULL` would make of every comparison neither true nor false.
    let found: Vec<Found> = diesel::sql_query(HOLDS)
        .bind::<Text, _>(&seen.service)
        .bind::<Text, _>(&environment.slug)
        .bind::<Instant, _>(now)
        .bind::<Text, _>(&release.version)
        .bind::<Identifier, _>(asked.deployment.unwrap_or_else(DeploymentId::new))
        .bind::<Identifier, _>(asked.fixes.unwrap_or_else(IncidentId::new))
        .bind::<Identifier, _>(release.id.unwrap_or_else(ReleaseId::new))
        .bind::<Nullable<Text>, _>(&release.image_digest)
        .load(db)?;
    let mut facts = Facts {
        step: asked.step,
        requested_by: asked.requested_by.to_owned(),
        recorded_by: asked.recorded_by.map(str::to_owned),
        is_rollback: seen.is_way_back(),
        policy: environment.policy(),
        release: gate::Candidate {
            version: release.version.clone(),
            has_digest: release.image_digest.is_some(),
            scan_passed: match release.scan {
                ScanStatus::Missing => None,
                ScanStatus::Passed => Some(true),
                ScanStatus::Failed => Some(false),
            },
            succeeded_before_at: seen.succeeded_before_at.map(Into::into),
        },
        // A deployment does not stand in its own way.
        running: seen.running.filter(|id| asked.deployment != Some(*id)).map(|id| id.to_string()),
        freezes: Vec::new(),
        incidents: Vec::new(),
        opinions: Vec::new(),
    };
    for row in found {
        match row.fact.as_str() {
            "freeze" => facts.freezes.push(Freeze {
                id: row.id,
                reason: row.words,
                schedule: Schedule {
                    starts_at: row.since.into(),
                    ends_at: row.until.map(Into::into),
                    weekly: row.weekly.map(|w| w.0),
                },
                allow_rollback: row.allow_rollback,
                is_overridden: row.yes,
            }),
            "incident" => facts.incidents.push(Incident {
                id: row.id,
                title: row.words,
                is_fixed_by_this: row.yes,
            }),
            _ => facts.opinions.push(Opinion {
                id: row.id,
                approver: row.approver,
                approved: row.yes,
                at: row.since.into(),
                expires_at: row.until.unwrap_or(row.since).into(),
            }),
        }
    }
    Ok(facts)
}

/// A decision with what it was made from, as it is kept with a deployment and in the history.
#[derive(Debug, Serialize)]
pub struct Ruling {
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
    /// What was known.
    pub facts: Facts,
}

impl Ruling {
    /// Lets the rule decide.
    pub fn on(facts: Facts, now: Timestamp) -> Self {
        Self { decision: gate::decide(&facts, now.into()), facts }
    }

    /// Whether nobody needs to approve any more.
    pub fn is_approved(&self) -> bool {
        gate::is_approved(&self.facts, self.decision.evaluated_at)
    }

    /// As it is kept.
    pub fn document(&self) -> Result<Value, Error> {
        serde_json::to_value(self).map_err(Error::internal)
    }
}

/// The refusal of a step that the gate does not let through. The attempt is in the history.
pub fn refuse(
    db: &mut Db,
    actor: &Actor,
    service: &str,
    deployment: Option<DeploymentId>,
    ruling: &Ruling,
) -> Result<Error, Error> {
    let Facts { policy, release, step, .. } = &ruling.facts;
    let place = format!("{service}/{}", policy.environment);
    let about = About {
        entity: Entity::Gate,
        id: &place,
        service: Some(service),
        environment: Some(&policy.environment),
    };
    let payload = serde_json::json!({"step": step, "version": release.version, "deployment_id": deployment, "decision": ruling});
    events::record(db, actor, &about, "blocked", payload)?;
    let details: Vec<_> =
        ruling.decision.reasons.iter().map(|reason| reason.detail.as_str()).collect();
    let refusal = Error::new(Code::GateBlocked, details.join(" "));
    Ok(refusal
        .with("reasons", &ruling.decision.reasons)
        .with("evaluated_at", Timestamp::from(ruling.decision.evaluated_at))
        .recorded())
}

/// Takes one override of each freeze that holds for this deployment, so that no other one passes with it.
pub fn take_overrides(
    db: &mut Db,
    deployment: DeploymentId,
    service: &str,
    facts: &Facts,
    now: Timestamp,
) -> Result<(), Error> {
    let needed = |freeze: &&Freeze| {
        freeze.is_overridden
            && !(facts.is_rollback && freeze.allow_rollback)
            && freeze.schedule.holds(now.into()).is_some()
    };
    for freeze in facts.freezes.iter().filter(needed) {
        let freeze_id: FreezeId = freeze.id.parse().map_err(Error::internal)?;
        let of_freeze =
            || freeze_overrides::table.filter(freeze_overrides::freeze_id.eq(freeze_id));
        let has_one = exists(of_freeze().filter(freeze_overrides::consumed_by.eq(deployment)));
        if diesel::select(has_one).get_result(db)? {
            continue;
        }
        let unused: OverrideId = of_freeze()
            .filter(freeze_overrides::service.eq(service))
            .filter(freeze_overrides::environment.eq(&facts.policy.environment))
            .filter(freeze_overrides::version.eq(&facts.release.version))
            .filter(freeze_overrides::consumed_by.is_null())
            .order(freeze_overrides::created_at)
            .select(freeze_overrides::id)
            .first(db)?;
        diesel::update(freeze_overrides::table.find(unused))
            .set(freeze_overrides::consumed_by.eq(deployment))
            .execute(db)?;
    }
    Ok(())
}

/// Gives back the approvals and overrides that a start has used up which was none.
pub fn give_back(db: &mut Db, deployment: DeploymentId) -> QueryResult<()> {
    let of_it = approvals::table.filter(approvals::consumed_by.eq(deployment));
    diesel::update(of_it).set(approvals::consumed_by.eq(None::<DeploymentId>)).execute(db)?;
    let of_it = freeze_overrides::table.filter(freeze_overrides::consumed_by.eq(deployment));
    diesel::update(of_it)
        .set(freeze_overrides::consumed_by.eq(None::<DeploymentId>))
        .execute(db)?;
    Ok(())
}

/// Uses up the approvals that carry this start, and whatever else was said before it.
pub fn use_approvals(db: &mut Db, deployment: DeploymentId, facts: &Facts) -> Result<(), Error> {
    for opinion in gate::settled_by_start(facts) {
        let id: ApprovalId = opinion.id.parse().map_err(Error::internal)?;
        diesel::update(approvals::table.find(id))
            .set(approvals::consumed_by.eq(deployment))
            .execute(db)?;
    }
    Ok(())
}
