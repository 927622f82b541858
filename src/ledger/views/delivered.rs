//! The releases that the deployments of a service delivered, for the measures.

use diesel::prelude::*;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::db::Db;
use crate::db::columns::Json;
use crate::db::schema::{deployments, releases};
use crate::each_backend;
use crate::rules::dora::{Commit, Deployment, Release};
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;

/// How many releases or deployments one statement asks for by name. SQLite allows 32,766 values.
const AT_ONCE: usize = 1000;

type ByVersion = HashMap<String, Rc<Release>>;

/// Gives the deployments of a service, which are in order, their releases. Returns all releases
/// that they may have skipped, in the order of their commit times.
///
/// # Errors
/// That of the database.
pub fn releases(
    db: &mut Db,
    service: &str,
    deployments: &mut [Deployment],
) -> QueryResult<Vec<Rc<Release>>> {
    if !has_commit_times(db, service)? {
        return Ok(vec![]);
    }
    let live = deployments.iter().filter(|deployment| deployment.state.went_live());
    let versions: HashSet<&str> = live.map(|it| &*it.version).collect();
    let mut known = by_version(db, service, &Vec::from_iter(versions))?;
    let first = first_of_their_places(deployments);
    let replaced_before = replaced_by(db, &first)?;
    fill_in(deployments, &known, &replaced_before);
    let others = between(db, service, deployments)?;
    let unknown = |version: &&str| !known.contains_key(*version);
    let others: Vec<&str> = others.iter().map(String::as_str).filter(unknown).collect();
    let others = by_version(db, service, &others)?;
    known.extend(others);
    let mut ordered: Vec<_> =
        known.into_iter().filter(|(_, release)| release.last_commit_at.is_some()).collect();
    ordered.sort_by(|(a, x), (b, y)| (x.last_commit_at, a).cmp(&(y.last_commit_at, b)));
    Ok(ordered.into_iter().map(|(_, release)| release).collect())
}

/// Whether any release of the service has commit times.
fn has_commit_times(db: &mut Db, service: &str) -> QueryResult<bool> {
    let any = each_backend!(db, |c| {
        let ordered = releases::table
            .filter(releases::service.eq(service))
            .filter(releases::last_commit_at.is_not_null());
        ordered.select(releases::last_commit_at).limit(1).load::<Option<Timestamp>>(c)
    })?;
    Ok(!any.is_empty())
}

/// The releases of a service with these versions.
fn by_version(db: &mut Db, service: &str, versions: &[&str]) -> QueryResult<ByVersion> {
    let mut found = HashMap::with_capacity(versions.len());
    for some in versions.chunks(AT_ONCE) {
        let rows: Vec<ReleaseRow> = each_backend!(db, |c| {
            releases::table
                .filter(releases::service.eq(service))
                .filter(releases::version.eq_any(some))
                .select(ReleaseRow::as_select())
                .load(c)
        })?;
        found.extend(rows.into_iter().map(|row| (row.version.clone(), Rc::new(row.into()))));
    }
    Ok(found)
}

/// In each place, the first of these deployments that went live.
fn first_of_their_places(deployments: &[Deployment]) -> Vec<DeploymentId> {
    let mut places = HashSet::new();
    let live = deployments.iter().filter(|deployment| deployment.state.went_live());
    live.filter(|it| places.insert(&it.environment)).map(|it| it.id).collect()
}

/// The releases that were live before these deployments.
fn replaced_by(
    db: &mut Db,
    first: &[DeploymentId],
) -> QueryResult<HashMap<DeploymentId, Rc<Release>>> {
    let previous = diesel::alias!(deployments as previous);
    let is_its_previous = previous.field(deployments::id).nullable().eq(deployments::previous_id);
    let was_live_before = releases::id.eq(previous.field(deployments::release_id));
    let mut replaced = HashMap::new();
    for some in first.chunks(AT_ONCE) {
        let rows: Vec<(DeploymentId, ReleaseRow)> = deployments::table
            .inner_join(previous.on(is_its_previous))
            .inner_join(releases::table.on(was_live_before))
            .filter(deployments::id.eq_any(some))
            .select((deployments::id, ReleaseRow::as_select()))
            .load(db)?;
        replaced.extend(rows.into_iter().map(|(id, row)| (id, Rc::new(row.into()))));
    }
    Ok(replaced)
}

/// Gives each deployment that went live its release and the one that was live before it in its
/// place. That is the one of the deployment before it, which the timeline makes its `previous_id`.
fn fill_in(
    deployments: &mut [Deployment],
    known: &ByVersion,
    replaced_before: &HashMap<DeploymentId, Rc<Release>>,
) {
    let mut live: HashMap<Rc<str>, Rc<Release>> = HashMap::new();
    for deployment in deployments.iter_mut().filter(|deployment| deployment.state.went_live()) {
        deployment.release = known.get(&*deployment.version).cloned().unwrap_or_default();
        let before = live.insert(deployment.environment.clone(), deployment.release.clone());
        deployment.replaced = before.or_else(|| replaced_before.get(&deployment.id).cloned());
    }
}

/// The versions of the service's releases between the oldest that a deployment replaced and the
/// newest that it brought: the releases that were skipped, and perhaps others.
fn between(db: &mut Db, service: &str, deployments: &[Deployment]) -> QueryResult<Vec<String>> {
    let skipping = deployments.iter().filter_map(|deployment| {
        let after = deployment.replaced.as_ref()?.last_commit_at?;
        let until = deployment.release.last_commit_at?;
        (after < until).then_some((after, until))
    });
    let widest = skipping.reduce(|(a, b), (after, until)| (a.min(after), b.max(until)));
    let Some((after, until)) = widest else { return Ok(vec![]) };
    each_backend!(db, |c| {
        releases::table
            .filter(releases::service.eq(service))
            .filter(releases::last_commit_at.gt(Timestamp::from(after)))
            .filter(releases::last_commit_at.le(Timestamp::from(until)))
            .select(releases::version)
            .load(c)
    })
}

/// The commits of a release: its list, and the one it was built from.
#[derive(Queryable, Selectable)]
#[diesel(table_name = releases)]
struct ReleaseRow {
    version: String,
    commits: Option<Json<Vec<Commit>>>,
    git_sha: Option<String>,
    committed_at: Option<Timestamp>,
    last_commit_at: Option<Timestamp>,
}

impl From<ReleaseRow> for Release {
    fn from(row: ReleaseRow) -> Self {
        Self {
            commits: row.commits.map_or_else(Vec::new, |commits| commits.0),
            sha: row.git_sha.unwrap_or(row.version),
            committed_at: row.committed_at.map(Into::into),
            last_commit_at: row.last_commit_at.map(Into::into),
        }
    }
}
