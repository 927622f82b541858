//! Releases: versions of a service, each with its commit, image digest and scan result.

use actix_web::web;
use diesel::dsl::AsSelect;
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::db::columns::Json;
use crate::db::locks::Locked;
use crate::db::pages::All;
use crate::db::schema::releases;
use crate::db::{Db, MultiBackend};
use crate::error::{Code, Error};
use crate::http::context::{Actor, Attest, Author, Ctx, Deploy, Read};
use crate::http::extract::{self, Body, Object, Query, malformed, object};
use crate::http::pagination::{List, Page, Paging};
use crate::http::response::Reply;
use crate::http::routes::Routes;
use crate::ledger::deployments::store;
use crate::ledger::events::{self, About, Entity};
use crate::ledger::services;
use crate::ledger::times::reported_time;
use crate::rules::scan::{self, Severities, Severity};
use crate::types::ids::ReleaseId;
use crate::types::time::Timestamp;
use crate::types::values::{Digest, GitSha, ShortText, Slug, Url, Version};
use crate::{conditions, newest_first, read_along, text_enum};

/// The routes of this file.
pub fn routes(config: &mut Routes) {
    config
        .add(list, __path_list)
        .add(create, __path_create)
        .add(show, __path_show)
        .add(record_scan, __path_record_scan);
}

/// A release: a version of a service.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = releases, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "service": "checkout", "version": "1.4.2",
    "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "committed_at": "2026-02-03T03:00:00.000000Z",
    "source_url": "https://git.example.org/shop/checkout/tree/1.4.2",
    "scan": {"status": "passed", "tool": "trivy 0.66",
        "summary": {"critical": 0, "high": 0, "medium": 2, "low": 7, "unknown": 0},
             "max_severity": "medium", "report_url": null, "at": "2026-02-03T04:05:06.000000Z",
             "recorded_at": "2026-02-03T04:05:06.000000Z"},
    "created_by": "pipeline", "at": null, "created_at": "2026-02-03T04:05:06.000000Z", "revision": 2
}))]
pub struct Release {
    /// The identifier of the release.
    pub id: ReleaseId,
    /// The slug of the service.
    pub service: Slug,
    /// The version, which is unique for the service.
    pub version: Version,
    /// The git commit that the release was built from. `null` while it is unknown.
    pub git_sha: Option<GitSha>,
    /// The digest of the container image. `null` while it is unknown. Once known, it cannot change.
    pub image_digest: Option<Digest>,
    /// When the commit was made. `null` while it is unknown.
    pub committed_at: Option<Timestamp>,
    /// The URL of the source code of this version. `null` while it is unknown.
    pub source_url: Option<Url>,
    /// The result of the latest scan of its image. It is `missing` again once the image digest is
    /// added: what was scanned before could be another image. The history keeps the earlier result.
    #[schema(value_type = Scan)]
    pub scan: Json<Scan>,
    /// The name of the key that recorded the release.
    pub created_by: String,
    /// When the release was made. `null` when it was not reported; `created_at` then counts.
    pub at: Option<Timestamp>,
    /// When the release was recorded in prop.
    pub created_at: Timestamp,
    /// The number of the current version of this record, which each change increases. It is also
    /// the `ETag`.
    pub revision: i32,
    /// The time of its newest known commit.
    #[serde(skip)]
    pub last_commit_at: Option<Timestamp>,
}

/// A release with the commits that it delivers.
#[derive(Debug, Clone, Serialize, ToSchema, Queryable, Selectable, Insertable)]
#[diesel(table_name = releases, treat_none_as_default_value = false)]
#[schema(example = json!({
    "id": "019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e41", "service": "checkout", "version": "1.4.2",
    "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "committed_at": "2026-02-03T03:00:00.000000Z",
    "source_url": "https://git.example.org/shop/checkout/tree/1.4.2",
    "scan": {"status": "passed", "tool": "trivy 0.66",
        "summary": {"critical": 0, "high": 0, "medium": 2, "low": 7, "unknown": 0},
             "max_severity": "medium", "report_url": null, "at": "2026-02-03T04:05:06.000000Z",
             "recorded_at": "2026-02-03T04:05:06.000000Z"},
    "created_by": "pipeline", "at": null, "created_at": "2026-02-03T04:05:06.000000Z",
    "revision": 2,
    "commits": [{"sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
        "committed_at": "2026-02-03T03:00:00.000000Z", "is_merge": false}]
}))]
pub struct ReleaseWithCommits {
    /// The fields of the release itself.
    #[diesel(embed)]
    #[serde(flatten)]
    pub release: Release,
    /// The commits since the previous release. `null` when they were not reported.
    #[schema(value_type = Option<Vec<Commit>>)]
    commits: Option<Json<Vec<Commit>>>,
}

/// The time by which the releases of a service are ordered: that of the release's own commit or, if
/// unknown, of the newest commit in its list.
fn last_commit_at(
    committed_at: Option<Timestamp>,
    commits: Option<&Json<Vec<Commit>>>,
) -> Option<Timestamp> {
    committed_at.or_else(|| {
        commits.and_then(|listed| listed.0.iter().map(|commit| commit.committed_at).max())
    })
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
    /// The full git commit id.
    sha: GitSha,
    /// When the commit was made.
    committed_at: Timestamp,
    /// Whether it is a merge commit. Merge commits do not count for the lead time.
    #[serde(default)]
    is_merge: bool,
}

text_enum! {
    /// The state of a release's scan.
    ScanStatus {
        /// No scan was reported.
        Missing = "missing",
        /// The scan found nothing worse than allowed.
        Passed = "passed",
        /// The scan found something worse than allowed.
        Failed = "failed",
    }
}

/// The result of the latest scan of a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Scan {
    /// Whether the release was scanned, and whether it passed.
    pub status: ScanStatus,
    /// The name and version of the scanner. `null` when there was no scan.
    pub tool: Option<String>,
    /// The number of findings of each severity. `null` when there was no scan.
    pub summary: Option<Severities>,
    /// The worst severity that was allowed. `null` when there was no scan.
    #[serde(default)]
    pub max_severity: Option<Severity>,
    /// The URL of the scanner's report. `null` when it was not reported.
    pub report_url: Option<String>,
    /// When the release was scanned. `null` when there was no scan.
    pub at: Option<Timestamp>,
    /// When the scan was recorded in prop. `null` when there was no scan, or it was recorded before
    /// prop stored this.
    #[serde(default)]
    pub recorded_at: Option<Timestamp>,
}

impl Scan {
    const MISSING: Scan = Scan {
        status: ScanStatus::Missing,
        tool: None,
        summary: None,
        max_severity: None,
        report_url: None,
        at: None,
        recorded_at: None,
    };
}

/// A release to record or to complete.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "service": "checkout", "version": "1.4.2",
    "git_sha": "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d",
    "image_digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "create_missing": true
}))]
pub struct NewRelease {
    /// The slug of the service.
    pub service: Slug,
    /// The version, which is unique for the service.
    pub version: Version,
    /// The git commit that the release was built from. May be absent or `null` and added later.
    pub git_sha: Option<GitSha>,
    /// The digest of the container image. May be absent or `null` and added later.
    pub image_digest: Option<Digest>,
    /// When the commit was made. May be absent or `null` and added later.
    pub committed_at: Option<Timestamp>,
    /// The URL of the source code of this version. May be absent or `null` and added later.
    pub source_url: Option<Url>,
    /// The commits since the previous release, at most 1,000. May be absent or `null` and added
    /// later.
    pub commits: Option<Commits>,
    /// When the release was made. May be absent or `null` and added later. Up to a minute in the
    /// future counts as now.
    pub at: Option<Timestamp>,
    /// Whether to create the service if it does not exist. It is not created, if absent.
    #[serde(default)]
    pub create_missing: bool,
}

impl NewRelease {
    /// A release of which only the version is known, and perhaps the commit and the image.
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
            at: None,
            create_missing: false,
        }
    }
}

/// A list of at most 1,000 commits.
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
            Err(malformed(Code::InvalidValue, "at most 1000 commits are allowed"))
        }
    }
}

/// The result of a scan with the findings counted by the sender. Instead of this object, the body
/// may be a SARIF 2.1.0 or Trivy JSON report as the tool wrote it; prop then counts the findings.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tool": "trivy 0.66", "summary": {"medium": 2, "low": 7}}))]
pub struct NewScan {
    /// The result, if the sender has decided it. If absent or `null`, it follows from the findings
    /// and `max_severity`.
    status: Option<ScanVerdict>,
    /// The name and version of the scanner.
    tool: ShortText,
    /// The number of findings of each severity. No findings, if absent.
    #[serde(default, deserialize_with = "object")]
    summary: Severities,
    /// The worst severity that passes. If absent or `null`, the query parameter with the same name
    /// applies.
    max_severity: Option<Severity>,
    /// The URL of the scanner's report. If absent or `null`, the query parameter with the same name
    /// applies.
    report_url: Option<Url>,
    /// When the release was scanned. If absent or `null`, the query parameter with the same name
    /// applies.
    at: Option<Timestamp>,
}

text_enum! {
    /// The result of a scan.
    ScanVerdict {
        /// The scan found nothing worse than allowed.
        Passed = "passed",
        /// The scan found something worse than allowed.
        Failed = "failed",
    }
}

/// The body of a scan request.
#[derive(Debug, Clone)]
pub enum SentScan {
    /// Findings that the sender has counted.
    Counted(NewScan),
    /// The report of a tool, with the findings counted by prop.
    Report(scan::Report),
}

impl SentScan {
    /// Parses a body. A report is recognised by its fields.
    fn read(body: Map<String, Value>) -> Result<Self, Error> {
        let body = Value::Object(body);
        match scan::read(&body) {
            Some(report) => Ok(Self::Report(report)),
            None => extract::parse(body.to_string().as_bytes()).map(Self::Counted),
        }
    }
}

/// The query parameters of a scan request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct ScanPolicy {
    /// The worst severity that passes. `medium`, if absent.
    #[param(inline)]
    max_severity: Option<Severity>,
    /// The URL of the scanner's report, for a body that does not have it.
    #[param(inline)]
    report_url: Option<Url>,
    /// When the release was scanned, for a body that does not have it. Now, if absent. Up to a
    /// minute in the future counts as now.
    at: Option<Timestamp>,
}

/// The sort key of the list of releases.
type After = (Timestamp, ReleaseId);

/// The query parameters of the list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Only releases of this service.
    service: Option<Slug>,
    /// Only releases with this version.
    version: Option<Version>,
    /// Only releases that were built from this git commit.
    git_sha: Option<GitSha>,
}

/// List releases
///
/// Answers a page of the releases that match all parameters, the newest first, without their
/// commits.
///
/// A page looks at no more than 5,000 releases of the commit, or else of the service, that is
/// asked for. Then it ends, with fewer items or none, and `next` continues with older ones.
#[utoipa::path(get, path = "/releases",
    tag = "releases", operation_id = "list_releases", security(("key" = ["read"])),
    params(Filter, Paging),
    responses((status = 200, description = "One page of the releases.", body = Page<Release>)))]
async fn list(ctx: Ctx<Read>, params: List<Filter, After>) -> Result<Reply, Error> {
    ctx.read(move |db| Reply::page(&find_all(db, &params)?)).await
}

/// Record a release
///
/// Records a release and answers it. A repeat for the same version answers 200. It adds values that
/// were unknown before, such as the image digest. It fails with 409 (`release_conflict`) when a
/// known value differs. Fails with 404 when the service does not exist and `create_missing` is not
/// set.
#[utoipa::path(post, path = "/releases",
    tag = "releases", operation_id = "create_release", security(("key" = ["deploy"])),
    request_body = NewRelease,
    responses(
        (status = 201, description = "The release that was recorded.", body = ReleaseWithCommits,
            headers(("Location" = String), ("ETag" = String))),
        (status = 200,
            description = "The release had been recorded before; unknown values were added.",
            body = ReleaseWithCommits, headers(("ETag" = String))),
        (status = 404,
            description = "The service does not exist, and `create_missing` is not set."),
        (status = 422, description = "The body is malformed, or `at` is more than a minute in the \
            future (`invalid_value`).")))]
async fn create(ctx: Ctx<Deploy>, body: Body<NewRelease>) -> Result<Reply, Error> {
    ctx.post(move |db, author| {
        let service = &body.0.service;
        let Locked { exists, now } = services::lock(db, service)?;
        let mut actor = author.at(now);
        if !exists {
            if !body.0.create_missing {
                return Err(services::unknown(db, service)?.or_create_missing());
            }
            (actor, _) = services::ensure(db, &actor, service, None)?;
        }
        let (recorded, is_new) = record(db, &actor, body.0.clone())?;
        let release = &recorded.release;
        let reply =
            if is_new { Reply::created(release.path(), &recorded)? } else { Reply::ok(&recorded)? };
        Ok(reply.at_revision(release.revision))
    })
    .await
}

/// Read a release
///
/// Answers the release with its commits and its scan result.
#[utoipa::path(get, path = "/releases/{id}",
    tag = "releases", operation_id = "get_release", security(("key" = ["read"])),
    params(("id" = ReleaseId, Path, description = "The identifier of the release.")),
    responses((status = 200, description = "The release with its commits.",
        body = ReleaseWithCommits, headers(("ETag" = String)))))]
async fn show(ctx: Ctx<Read>, id: web::Path<ReleaseId>) -> Result<Reply, Error> {
    ctx.read(move |db| {
        let found = find(db, *id)?;
        Ok(Reply::ok(&found)?.at_revision(found.release.revision))
    })
    .await
}

/// Record a scan of a release
///
/// The body has the findings counted by severity, or is a SARIF 2.1.0 or Trivy JSON report. The
/// scan passes when no finding is worse than `max_severity`. It is for the image that the release
/// has now: record the digest first. Answers the release with the scan that counts: the last one by
/// `at`. A late report of an earlier scan is kept in the history only; one of the same time
/// replaces the result.
#[utoipa::path(put, path = "/releases/{id}/scan",
    tag = "releases", operation_id = "record_scan", security(("key" = ["attest"])),
    request_body = NewScan,
    params(("id" = ReleaseId, Path, description = "The identifier of the release."), ScanPolicy),
    responses(
        (status = 200, description = "The release with the result of the scan.",
            body = ReleaseWithCommits, headers(("ETag" = String))),
        (status = 422, description = "The body is neither the result of a scan nor a report in a \
            format that prop reads, or `at` is more than a minute in the future \
            (`invalid_value`).")))]
async fn record_scan(
    ctx: Ctx<Attest>,
    id: web::Path<ReleaseId>,
    policy: Query<ScanPolicy>,
    body: Body<Map<String, Value>>,
) -> Result<Reply, Error> {
    let sent = SentScan::read(body.0)?;
    ctx.write(move |db, author| {
        let found = scan(db, author, *id, policy.0.clone(), sent.clone())?;
        Ok(Reply::ok(&found)?.at_revision(found.release.revision))
    })
    .await
}

fn find_all(db: &mut Db, params: &List<Filter, After>) -> Result<Page<Release>, Error> {
    let (along, rest) = match &params.filter {
        // At most one release.
        Filter { service: Some(_), version: Some(_), .. } => {
            read_along!(params.filter; service, version)
        }
        _ => read_along!(params.filter;; git_sha, service),
    };
    let query = || all().filter(conditions(&along));
    let (rest, of_all) = (conditions(&rest), along == Filter::default());
    newest_first!(db, params, Release, query, rest, releases::{created_at, id}, of_all)
}

fn all<'a>() -> releases::BoxedQuery<'a, MultiBackend, AsSelect<Release, MultiBackend>> {
    releases::table.select(Release::as_select()).into_boxed()
}

fn conditions(filter: &Filter) -> All<'_> {
    conditions!(
        &filter.service => |it| releases::service.eq(it),
        &filter.version => |it| releases::version.eq(it),
        &filter.git_sha => |it| releases::git_sha.eq(it))
}

fn find(db: &mut Db, id: ReleaseId) -> Result<ReleaseWithCommits, Error> {
    let found =
        releases::table.find(id).select(ReleaseWithCommits::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found("release", id))
}

/// Loads the release with this version of a service.
///
/// # Errors
/// `not_found` when there is none.
pub fn find_version(db: &mut Db, service: &str, version: &str) -> Result<Release, Error> {
    let of_version =
        releases::table.filter(releases::service.eq(service)).filter(releases::version.eq(version));
    let found = of_version.select(Release::as_select()).first(db).optional()?;
    found.ok_or_else(|| Error::not_found(&format!("release of {service} with version"), version))
}

/// The latest release of a service that was built from this git commit.
pub fn find_commit(db: &mut Db, service: &str, git_sha: &str) -> QueryResult<Option<Release>> {
    let of_commit =
        releases::table.filter(releases::service.eq(service)).filter(releases::git_sha.eq(git_sha));
    of_commit
        .select(Release::as_select())
        .order((releases::created_at.desc(), releases::id.desc()))
        .first(db)
        .optional()
}

/// Makes sure that the release of a deployment is recorded. A known release gets the values that
/// the deployment adds; else a new one is recorded.
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

/// Checks that the commit and the image of a release agree with the recorded ones.
///
/// # Errors
/// `release_conflict` when one of them differs.
pub fn check_same(known: &Release, new: &NewRelease) -> Result<(), Error> {
    addition(known, "git_sha", &known.git_sha, new.git_sha.clone())?;
    addition(known, "image_digest", &known.image_digest, new.image_digest.clone())?;
    Ok(())
}

/// Records a release, or adds unknown values to the recorded one. Returns the release and whether
/// it is new. The service must exist and be locked.
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
    let commits = new.commits.map(|commits| Json(commits.0));
    let recorded = ReleaseWithCommits {
        release: Release {
            id: ReleaseId::new(),
            service: new.service,
            version: new.version,
            git_sha: new.git_sha,
            image_digest: new.image_digest,
            committed_at: new.committed_at,
            source_url: new.source_url,
            scan: Json(Scan::MISSING),
            created_by: actor.name.clone(),
            at: new.at.map(|at| reported_time(at, "/at", actor.now)).transpose()?,
            created_at: actor.now,
            revision: 1,
            last_commit_at: last_commit_at(new.committed_at, commits.as_ref()),
        },
        commits,
    };
    diesel::insert_into(releases::table).values(&recorded).execute(db)?;
    events::record(db, actor, &recorded.release.about(), "created", &recorded.release)?;
    Ok(recorded)
}

#[derive(AsChangeset, Serialize, Default, PartialEq)]
#[diesel(table_name = releases)]
struct Additions {
    #[serde(skip_serializing_if = "Option::is_none")]
    git_sha: Option<GitSha>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_url: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    #[serde(skip)]
    commits: Option<Json<Vec<Commit>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scan: Option<Json<Scan>>,
}

/// Adds values that were unknown. A value that differs from the recorded one is an error.
fn complete(
    db: &mut Db,
    actor: &Actor,
    known: ReleaseWithCommits,
    new: NewRelease,
) -> Result<ReleaseWithCommits, Error> {
    let release = &known.release;
    let mut additions = Additions {
        git_sha: addition(release, "git_sha", &release.git_sha, new.git_sha)?,
        image_digest: addition(release, "image_digest", &release.image_digest, new.image_digest)?,
        committed_at: addition(release, "committed_at", &release.committed_at, new.committed_at)?,
        source_url: addition(release, "source_url", &release.source_url, new.source_url)?,
        at: addition(
            release,
            "at",
            &release.at,
            new.at.map(|at| reported_time(at, "/at", actor.now)).transpose()?,
        )?,
        commits: addition(
            release,
            "commits",
            &known.commits,
            new.commits.map(|commits| Json(commits.0)),
        )?,
        scan: None,
    };
    if additions.image_digest.is_some() && release.scan.0.status != ScanStatus::Missing {
        additions.scan = Some(Json(Scan::MISSING));
    }
    if additions == Additions::default() {
        return Ok(known);
    }
    let last_commit_at = last_commit_at(
        release.committed_at.or(additions.committed_at),
        known.commits.as_ref().or(additions.commits.as_ref()),
    );
    diesel::update(releases::table.find(release.id))
        .set((
            &additions,
            releases::last_commit_at.eq(last_commit_at),
            releases::revision.eq(release.revision + 1),
        ))
        .execute(db)?;
    let Additions { git_sha, image_digest, .. } = &additions;
    store::follow_release(db, actor, release.id, git_sha, image_digest, last_commit_at)?;
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
    author: &Author,
    id: ReleaseId,
    policy: ScanPolicy,
    sent: SentScan,
) -> Result<ReleaseWithCommits, Error> {
    let service = releases::table.find(id).select(releases::service);
    let service: Option<String> = service.first(db).optional()?;
    let service = service.ok_or_else(|| Error::not_found("release", id))?;
    let actor = &services::lock_known(db, author, &service)?;
    let known = find(db, id)?;
    let scan = scan_result(policy, sent, actor.now)?;
    if known.release.scan.0.at > scan.at {
        events::record(db, actor, &known.release.about(), "scan_superseded", &scan)?;
        return Ok(known);
    }
    let scanned =
        (releases::scan.eq(Json(scan.clone())), releases::revision.eq(releases::revision + 1));
    diesel::update(releases::table.find(id)).set(scanned).execute(db)?;
    events::record(db, actor, &known.release.about(), "scanned", &scan)?;
    find(db, id)
}

/// The result of a scan as it was sent.
fn scan_result(policy: ScanPolicy, sent: SentScan, now: Timestamp) -> Result<Scan, Error> {
    let (verdict, tool, summary, max_severity, report_url, at) = match sent {
        SentScan::Counted(new) => {
            (new.status, new.tool.into(), new.summary, new.max_severity, new.report_url, new.at)
        }
        SentScan::Report(report) => (None, report.tool, report.findings, None, None, None),
    };
    let at = match at.or(policy.at) {
        Some(at) => reported_time(at, "/at", now)?,
        None => now,
    };
    let max_severity = max_severity.or(policy.max_severity).unwrap_or(Severity::Medium);
    let has_passed = verdict
        .map_or_else(|| summary.pass(max_severity), |verdict| verdict == ScanVerdict::Passed);
    Ok(Scan {
        status: if has_passed { ScanStatus::Passed } else { ScanStatus::Failed },
        tool: Some(tool),
        summary: Some(summary),
        max_severity: Some(max_severity),
        report_url: report_url.or(policy.report_url).map(Into::into),
        at: Some(at),
        recorded_at: Some(now),
    })
}
