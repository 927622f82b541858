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

/// The places of a service, with the releases that are live there while its deployments are read in
/// the order of time, a batch at a time.
pub struct Places<'a> {
    service: &'a str,
    live: HashMap<Rc<str>, Rc<Release>>,
}

impl<'a> Places<'a> {
    /// No deployment of this service was read yet.
    pub fn new(service: &'a str) -> Self {
        Self { service, live: HashMap::new() }
    }

    /// Gives the next deployments their releases. Returns all releases that they may have skipped,
    /// in the order of their commit times.
    ///
    /// # Errors
    /// That of the database.
    pub fn releases(
        &mut self,
        db: &mut Db,
        deployments: &mut [Deployment],
    ) -> QueryResult<Vec<Rc<Release>>> {
        let live = deployments.iter().filter(|deployment| deployment.state.went_live());
        let versions: HashSet<&str> = live.map(|it| &*it.version).collect();
        let mut known = by_version(db, self.service, &Vec::from_iter(versions))?;
        let replaced_before = replaced_by(db, &self.first(deployments))?;
        self.fill_in(deployments, &known, &replaced_before);
        let mut others: HashSet<String> = HashSet::new();
        for skipped in skipped(deployments) {
            others.extend(between(db, self.service, skipped)?);
        }
        others.retain(|version| !known.contains_key(version));
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        known.extend(by_version(db, self.service, &others)?);
        let mut ordered: Vec<_> =
            known.into_iter().filter(|(_, release)| release.last_commit_at.is_some()).collect();
        ordered.sort_by(|(a, x), (b, y)| (x.last_commit_at, a).cmp(&(y.last_commit_at, b)));
        Ok(ordered.into_iter().map(|(_, release)| release).collect())
    }

    /// Of each place where nothing was live before, the first of these deployments that went live.
    fn first(&self, deployments: &[Deployment]) -> Vec<DeploymentId> {
        let mut places = HashSet::new();
        let live = deployments.iter().filter(|deployment| deployment.state.went_live());
        let new = live.filter(|it| !self.live.contains_key(&it.environment));
        new.filter(|it| places.insert(&it.environment)).map(|it| it.id).collect()
    }

    /// Gives each deployment that went live its release and the one that was live before it in its
    /// place. That is the one of the deployment before it, which the timeline makes its
    /// `previous_id`.
    fn fill_in(
        &mut self,
        deployments: &mut [Deployment],
        known: &ByVersion,
        replaced_before: &HashMap<DeploymentId, Rc<Release>>,
    ) {
        for deployment in deployments.iter_mut().filter(|deployment| deployment.state.went_live()) {
            deployment.release = known.get(&*deployment.version).cloned().unwrap_or_default();
            let (place, release) = (deployment.environment.clone(), deployment.release.clone());
            let before = self.live.insert(place, release);
            deployment.replaced = before.or_else(|| replaced_before.get(&deployment.id).cloned());
        }
    }
}

/// Whether any release of the service has commit times.
///
/// # Errors
/// That of the database.
pub fn has_commit_times(db: &mut Db, service: &str) -> QueryResult<bool> {
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

/// The stretches of commit times of the releases that these deployments skipped, without overlaps:
/// after the first time, up to the second.
fn skipped(deployments: &[Deployment]) -> Vec<(Timestamp, Timestamp)> {
    let skipping = deployments.iter().filter_map(|deployment| {
        let after = deployment.replaced.as_ref()?.last_commit_at?;
        let until = deployment.release.last_commit_at?;
        (after < until).then_some((after.into(), until.into()))
    });
    let mut ordered: Vec<(Timestamp, Timestamp)> = skipping.collect();
    ordered.sort();
    let mut apart: Vec<(Timestamp, Timestamp)> = Vec::new();
    for (after, until) in ordered {
        match apart.last_mut().filter(|last| after <= last.1) {
            Some(last) => last.1 = last.1.max(until),
            None => apart.push((after, until)),
        }
    }
    apart
}

/// The versions of the service's releases after the first of these commit times, up to the second.
fn between(
    db: &mut Db,
    service: &str,
    (after, until): (Timestamp, Timestamp),
) -> QueryResult<Vec<String>> {
    each_backend!(db, |c| {
        releases::table
            .filter(releases::service.eq(service))
            .filter(releases::last_commit_at.gt(after))
            .filter(releases::last_commit_at.le(until))
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
