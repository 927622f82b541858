//! Releases: versions of a service, and the image that each one is.

use actix_web::{get, post, put, web};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::db::schema::{deployments, releases};
use crate::db::types::{Json, Timestamp};
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Attest, Ctx, Deploy, Read};
use crate::http::extract::{self, Body, Object, Query, malformed, object};
use crate::http::page::{Cursor, Limit, Page};
use crate::http::reply::Reply;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::ids::ReleaseId;
use crate::ledger::services;
use crate::ledger::values::{Digest, GitSha, Line, Slug, Url, Version, text};
use crate::rules::scan::{self, Severities, Severity};
use crate::text_enum;

/// The routes of this file.
pub fn routes(config: &mut ServiceConfig) {
    config.service(list).service(create).service(show).service(record_scan);
}

/// A version of a service.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = releases, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "service": "checkout", "version": "1.4.2",
    "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "committed_at": "2026-02-03T03:00:00.000000Z", "source_url": "https://git.example.org/shop/checkout/tree/1.4.2",
    "scan": {"status": "passed", "tool": "trivy 0.66", "summary": {"critical": 0, "high": 0, "medium": 2, "low": 7, "unknown": 0},
             "max_severity": "medium", "report_url": null, "at": "2026-02-03T04:05:06.000000Z"},
    "created_by": "pipeline", "created_at": "2026-02-03T04:05:06.000000Z", "revision": 2
}))]
pub struct Release {
    /// Its identifier.
    pub id: ReleaseId,
    /// The service it is a version of.
    pub service: String,
    /// Its name, unique for the service.
    pub version: String,
    /// The commit it was built from.
    pub git_sha: Option<String>,
    /// The image it is; can't change once it is known.
    pub image_digest: Option<String>,
    /// When that commit was made.
    pub committed_at: Option<Timestamp>,
    /// Where to look at its source.
    pub source_url: Option<String>,
    /// What a scanner found in it.
    #[schema(value_type = Scan)]
    pub scan: Json<Scan>,
    /// Who recorded it.
    pub created_by: String,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// Grows with every change; the ETag.
    pub revision: i32,
}

/// A release with the commits that it delivers.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = releases, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "service": "checkout", "version": "1.4.2",
    "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "committed_at": "2026-02-03T03:00:00.000000Z", "source_url": "https://git.example.org/shop/checkout/tree/1.4.2",
    "scan": {"status": "passed", "tool": "trivy 0.66", "summary": {"critical": 0, "high": 0, "medium": 2, "low": 7, "unknown": 0},
             "max_severity": "medium", "report_url": null, "at": "2026-02-03T04:05:06.000000Z"},
    "created_by": "pipeline", "created_at": "2026-02-03T04:05:06.000000Z", "revision": 2,
    "commits": [{"sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d", "committed_at": "2026-02-03T03:00:00.000000Z", "is_merge": false}]
}))]
pub struct ReleaseWithCommits {
    #[allow(missing_docs, reason = "a comment here would end up in the OpenAPI document")]
    #[diesel(embed)]
    #[serde(flatten)]
    pub release: Release,
    /// The commits since the release before, if they were told.
    #[schema(value_type = Option<Vec<Commit>>)]
    commits: Option<Json<Vec<Commit>>>,
}

impl Release {
    fn about(&self) -> About<'_> {
        About {
            entity: Entity::Release,
            id: &self.id,
            service: Some(&self.service),
            environment: None,
        }
    }

    fn path(&self) -> String {
        format!("/v1/releases/{}", self.id)
    }
}

/// A commit that a release delivers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Its id.
    sha: GitSha,
    /// When it was made.
    committed_at: Timestamp,
    /// Whether it only joins others.
    #[serde(default)]
    is_merge: bool,
}

text_enum! {
    /// What came of a scan.
    ScanStatus {
        /// Nobody has scanned it, as far as prop was told.
        Missing = "missing",
        /// Nothing was found that would keep it back.
        Passed = "passed",
        /// Something was.
        Failed = "failed",
    }
}

/// What a scanner found in a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Scan {
    /// What came of it.
    pub status: ScanStatus,
    /// The scanner and its version.
    pub tool: Option<String>,
    /// How many findings of which severity.
    pub summary: Option<Severities>,
    /// The worst severity that passed.
    #[serde(default)]
    pub max_severity: Option<Severity>,
    /// Where the report is.
    pub report_url: Option<String>,
    /// When it was scanned.
    pub at: Option<Timestamp>,
}

impl Scan {
    const MISSING: Scan = Scan {
        status: ScanStatus::Missing,
        tool: None,
        summary: None,
        max_severity: None,
        report_url: None,
        at: None,
    };
}

/// A release to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "service": "checkout", "version": "1.4.2", "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "create_missing": true
}))]
pub struct NewRelease {
    /// The service it is a version of.
    pub service: Slug,
    /// Its name.
    pub version: Version,
    /// The commit it was built from.
    pub git_sha: Option<GitSha>,
    /// The image it is.
    pub image_digest: Option<Digest>,
    /// When that commit was made.
    pub committed_at: Option<Timestamp>,
    /// Where to look at its source.
    pub source_url: Option<Url>,
    /// The commits since the release before; at most 1,000.
    pub commits: Option<Commits>,
    /// Create the service if it does not exist.
    #[serde(default)]
    pub create_missing: bool,
}

impl NewRelease {
    /// A release of which only the name is known, and perhaps commit and image.
    pub fn named(
        service: &Slug,
        version: &Version,
        git_sha: Option<GitSha>,
        image_digest: Option<Digest>,
    ) -> Self {
        Self {
            service: service.clone(),
            version: version.clone(),
            git_sha,
            image_digest,
            committed_at: None,
            source_url: None,
            commits: None,
            create_missing: false,
        }
    }
}

/// At most 1,000 commits.
#[derive(Debug, Clone, ToSchema)]
#[schema(value_type = Vec<Commit>, max_items = 1000)]
pub struct Commits(Vec<Commit>);

impl<'de> Deserialize<'de> for Commits {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let commits: Vec<Object<Commit>> = Vec::deserialize(deserializer)?;
        let commits: Vec<Commit> = commits.into_iter().map(|commit| commit.0).collect();
        if commits.len() <= 1000 {
            Ok(Self(commits))
        } else {
            Err(malformed(Code::InvalidValue, "allowed are at most 1000 commits"))
        }
    }
}

/// The result of a scan, counted by the sender. A report in SARIF 2.1.0 or Trivy's JSON is taken as well, as it comes from
/// the tool, and counted here.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tool": "trivy 0.66", "summary": {"medium": 2, "low": 7}}))]
pub struct NewScan {
    /// What came of it, where the sender has a policy of its own; else it follows from the findings.
    status: Option<ScanVerdict>,
    /// The scanner and its version.
    tool: Line,
    /// How many findings of which severity.
    #[serde(default, deserialize_with = "object")]
    summary: Severities,
    /// The worst severity that passes; overrides the parameter of the same name.
    max_severity: Option<Severity>,
    /// Where the report is.
    report_url: Option<Url>,
    /// When it was scanned; now, if not said.
    at: Option<Timestamp>,
}

text_enum! {
    /// What came of a scan that took place.
    ScanVerdict {
        /// Nothing was found that would keep it back.
        Passed = "passed",
        /// Something was.
        Failed = "failed",
    }
}

/// A scan as it was sent.
#[derive(Debug)]
pub enum SentScan {
    /// Counted by the sender.
    Counted(NewScan),
    /// A report of a tool.
    Report(scan::Report),
}

impl SentScan {
    /// Reads a body as what it is: a report shows by its fields.
    fn read(body: Map<String, Value>) -> Result<Self, Error> {
        let body = Value::Object(body);
        match scan::read(&body) {
            Some(report) => Ok(Self::Report(report)),
            None => extract::parse(body.to_string().as_bytes()).map(Self::Counted),
        }
    }
}

/// What passes.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct ScanPolicy {
    /// The worst severity that passes; `medium`, if not said.
    #[param(inline)]
    max_severity: Option<Severity>,
    /// Where the report is.
    #[param(inline)]
    report_url: Option<Url>,
}

/// What a list of releases is ordered by.
type After = (Timestamp, ReleaseId);

/// Which releases.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Releases of this service.
    service: Option<Slug>,
    /// Releases with this version.
    version: Option<Version>,
    /// Releases built from this commit.
    git_sha: Option<GitSha>,
    /// How many items a page has at most.
    #[param(inline)]
    limit: Limit,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<After>>,
}

/// List releases
///
/// The newest first, without their commits.
#[utoipa::path(tag = "releases", operation_id = "list_releases", security(("key" = ["read"])), params(Filter),
    responses((status = 200, body = Page<Release>)))]
#[get("/releases")]
async fn list(ctx: Ctx<Read>, query: Query<Filter>) -> Result<Reply, Error> {
    let page = ctx.read(move |db| find_all(db, &query.0)).await?;
    Reply::page(&page)
}

/// Record a release
///
/// The same again answers 200. What was not known before, such as the image, is added; what is known can't change: 409.
#[utoipa::path(tag = "releases", operation_id = "create_release", security(("key" = ["deploy"])), request_body = NewRelease,
    responses((status = 201, body = ReleaseWithCommits, headers(("Location" = String), ("ETag" = String))),
        (status = 200, description = "It was recorded before.", body = ReleaseWithCommits, headers(("ETag" = String))),
        (status = 404, description = "The service does not exist, and `create_missing` was not set.")))]
#[post("/releases")]
async fn create(ctx: Ctx<Deploy>, body: Body<NewRelease>) -> Result<Reply, Error> {
    ctx.post(move |db, actor| {
        let service = &body.0.service;
        if !services::lock(db, service)? {
            if !body.0.create_missing {
                return Err(services::unknown(db, service)?.or_create_missing());
            }
            services::ensure(db, actor, service, None)?;
        }
        let (recorded, is_new) = record(db, actor, body.0)?;
        let release = &recorded.release;
        let reply =
            if is_new { Reply::created(release.path(), &recorded)? } else { Reply::ok(&recorded)? };
        Ok(reply.at_revision(release.revision))
    })
    .await
}

/// Read a release
#[utoipa::path(tag = "releases", operation_id = "get_release", security(("key" = ["read"])),
    params(("id" = ReleaseId, Path, description = "The release.")),
    responses((status = 200, body = ReleaseWithCommits, headers(("ETag" = String)))))]
#[get("/releases/{id}")]
async fn show(ctx: Ctx<Read>, id: web::Path<ReleaseId>) -> Result<Reply, Error> {
    let found = ctx.read(move |db| find(db, *id)).await?;
    Ok(Reply::ok(&found)?.at_revision(found.release.revision))
}

/// Record what a scanner found in a release
///
/// Passed, when nothing is worse than `max_severity`. The latest scan counts. The body is a count, or a report in SARIF 2.1.0
/// or Trivy's JSON.
#[utoipa::path(tag = "releases", operation_id = "record_scan", security(("key" = ["attest"])), request_body = NewScan,
    params(("id" = ReleaseId, Path, description = "The release."), ScanPolicy),
    responses((status = 200, body = ReleaseWithCommits, headers(("ETag" = String)))))]
#[put("/releases/{id}/scan")]
async fn record_scan(
    ctx: Ctx<Attest>,
    id: web::Path<ReleaseId>,
    policy: Query<ScanPolicy>,
    body: Body<Map<String, Value>>,
) -> Result<Reply, Error> {
    let sent = SentScan::read(body.0)?;
    ctx.write(move |db, actor| {
        let found = scan(db, actor, *id, policy.0, sent)?;
        Ok(Reply::ok(&found)?.at_revision(found.release.revision))
    })
    .await
}

fn find_all(db: &mut Db, filter: &Filter) -> Result<Page<Release>, Error> {
    let mut query = releases::table.select(Release::as_select()).into_boxed::<MultiBackend>();
    if let Some(service) = &filter.service {
        query = query.filter(releases::service.eq(service.to_string()));
    }
    if let Some(version) = &filter.version {
        query = query.filter(releases::version.eq(version.to_string()));
    }
    if let Some(sha) = &filter.git_sha {
        query = query.filter(releases::git_sha.eq(sha.to_string()));
    }
    if let Some(Cursor((at, id))) = filter.cursor {
        query = query.filter(
            releases::created_at.lt(at).or(releases::created_at.eq(at).and(releases::id.lt(id))),
        );
    }
    let rows = query
        .order((releases::created_at.desc(), releases::id.desc()))
        .limit(filter.limit.and_one())
        .load(db)?;
    Ok(Page::of(rows, filter.limit, |release: &Release| (release.created_at, release.id)))
}

fn find(db: &mut Db, id: ReleaseId) -> Result<ReleaseWithCommits, Error> {
    let found =
        releases::table.find(id).select(ReleaseWithCommits::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("release", id))
}

/// The release of this version of a service, or 404.
pub fn find_version(db: &mut Db, service: &str, version: &str) -> Result<Release, Error> {
    let of_version =
        releases::table.filter(releases::service.eq(service)).filter(releases::version.eq(version));
    let found = of_version.select(Release::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found(&format!("release of {service} with version"), version))
}

/// The latest release of a service that was built from this commit.
pub fn find_commit(db: &mut Db, service: &str, git_sha: &str) -> QueryResult<Option<Release>> {
    let of_commit =
        releases::table.filter(releases::service.eq(service)).filter(releases::git_sha.eq(git_sha));
    of_commit
        .select(Release::as_select())
        .order((releases::created_at.desc(), releases::id.desc()))
        .first(db)
        .optional()
}

/// The release that a deployment is of: `known`, with what the deployment adds to it, or a new one.
pub fn ensure(
    db: &mut Db,
    actor: &Actor,
    new: NewRelease,
    known: Option<&Release>,
) -> Result<Release, Error> {
    match known {
        Some(known) if !adds(known, &new) => Ok(known.clone()),
        _ => Ok(record(db, actor, new)?.0.release),
    }
}

fn adds(known: &Release, new: &NewRelease) -> bool {
    known.git_sha.is_none() && new.git_sha.is_some()
        || known.image_digest.is_none() && new.image_digest.is_some()
}

/// Refuses a release that differs from the known one in what can't change.
pub fn check_same(known: &Release, new: &NewRelease) -> Result<(), Error> {
    addition(known, "git_sha", &known.git_sha, text(new.git_sha.clone()))?;
    addition(known, "image_digest", &known.image_digest, text(new.image_digest.clone()))?;
    Ok(())
}

/// Records a release, or adds to the recorded one what was not known of it; says whether it is new. The service must
/// exist, and be locked.
fn record(
    db: &mut Db,
    actor: &Actor,
    new: NewRelease,
) -> Result<(ReleaseWithCommits, bool), Error> {
    let of_version = releases::table
        .filter(releases::service.eq(&*new.service))
        .filter(releases::version.eq(&*new.version));
    match of_version.select(ReleaseWithCommits::as_select()).first(db).optional()? {
        Some(known) => Ok((complete(db, actor, known, new)?, false)),
        None => Ok((insert(db, actor, new)?, true)),
    }
}

fn insert(db: &mut Db, actor: &Actor, new: NewRelease) -> Result<ReleaseWithCommits, Error> {
    let recorded = ReleaseWithCommits {
        release: Release {
            id: ReleaseId::new(),
            service: new.service.into(),
            version: new.version.into(),
            git_sha: text(new.git_sha),
            image_digest: text(new.image_digest),
            committed_at: new.committed_at,
            source_url: text(new.source_url),
            scan: Json(Scan::MISSING),
            created_by: actor.name.clone(),
            created_at: actor.now,
            revision: 1,
        },
        commits: new.commits.map(|commits| Json(commits.0)),
    };
    diesel::insert_into(releases::table).values(&recorded).execute(db)?;
    events::record(db, actor, &recorded.release.about(), "created", &recorded.release)?;
    Ok(recorded)
}

#[derive(AsChangeset, Serialize, Default, PartialEq)]
#[diesel(table_name = releases)]
struct Additions {
    #[serde(skip_serializing_if = "Option::is_none")]
    git_sha: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_url: Option<String>,
    #[serde(skip)]
    commits: Option<Json<Vec<Commit>>>,
}

/// Adds what was not known; refuses what differs from what is.
fn complete(
    db: &mut Db,
    actor: &Actor,
    known: ReleaseWithCommits,
    new: NewRelease,
) -> Result<ReleaseWithCommits, Error> {
    let release = &known.release;
    let additions = Additions {
        git_sha: addition(release, "git_sha", &release.git_sha, text(new.git_sha))?,
        image_digest: addition(
            release,
            "image_digest",
            &release.image_digest,
            text(new.image_digest),
        )?,
        committed_at: addition(release, "committed_at", &release.committed_at, new.committed_at)?,
        source_url: addition(release, "source_url", &release.source_url, text(new.source_url))?,
        commits: addition(
            release,
            "commits",
            &known.commits,
            new.commits.map(|commits| Json(commits.0)),
        )?,
    };
    if additions == Additions::default() {
        return Ok(known);
    }
    diesel::update(releases::table.find(release.id))
        .set((&additions, releases::revision.eq(release.revision + 1)))
        .execute(db)?;
    // Deployments say what was put there: what becomes known of the release becomes known of them.
    let deployed = deployments::table.filter(deployments::release_id.eq(release.id));
    if let Some(sha) = &additions.git_sha {
        diesel::update(deployed).set(deployments::git_sha.eq(sha)).execute(db)?;
    }
    if let Some(digest) = &additions.image_digest {
        diesel::update(deployed).set(deployments::image_digest.eq(digest)).execute(db)?;
    }
    events::record(db, actor, &release.about(), "completed", &additions)?;
    find(db, release.id)
}

fn addition<T: PartialEq + Serialize>(
    release: &Release,
    field: &str,
    known: &Option<T>,
    new: Option<T>,
) -> Result<Option<T>, Error> {
    match (known, new) {
        (Some(known), Some(new)) if *known != new => {
            let Release { version, service, .. } = release;
            let detail = match (serde_json::to_value(known), serde_json::to_value(new)) {
                (Ok(Value::String(known)), Ok(Value::String(new))) => {
                    format!("version {version} of {service} is recorded with {known}, not {new}")
                }
                _ => format!("version {version} of {service} is recorded with other {field}"),
            };
            Err(Error::field(Code::ReleaseConflict, format!("/{field}"), detail)
                .with("release_id", release.id))
        }
        (None, new) => Ok(new),
        (Some(_), _) => Ok(None),
    }
}

fn scan(
    db: &mut Db,
    actor: &Actor,
    id: ReleaseId,
    policy: ScanPolicy,
    sent: SentScan,
) -> Result<ReleaseWithCommits, Error> {
    let (verdict, tool, summary, max_severity, report_url, at) = match sent {
        SentScan::Counted(new) => (
            new.status,
            new.tool.into(),
            new.summary,
            new.max_severity,
            text(new.report_url),
            new.at,
        ),
        SentScan::Report(report) => (None, report.tool, report.findings, None, None, None),
    };
    let max_severity = max_severity.or(policy.max_severity).unwrap_or(Severity::Medium);
    let has_passed = verdict
        .map_or_else(|| summary.pass(max_severity), |verdict| verdict == ScanVerdict::Passed);
    let scan = Scan {
        status: if has_passed { ScanStatus::Passed } else { ScanStatus::Failed },
        tool: Some(tool),
        summary: Some(summary),
        max_severity: Some(max_severity),
        report_url: report_url.or(text(policy.report_url)),
        at: Some(at.unwrap_or(actor.now)),
    };
    let scanned =
        (releases::scan.eq(Json(scan.clone())), releases::revision.eq(releases::revision + 1));
    if diesel::update(releases::table.find(id)).set(scanned).execute(db)? == 0 {
        return Err(Error::not_found("release", id));
    }
    let found = find(db, id)?;
    events::record(db, actor, &found.release.about(), "scanned", &scan)?;
    Ok(found)
}
