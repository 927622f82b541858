//! The releases that the deployments of a service delivered, for the measures.

use diesel::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter;
use std::rc::Rc;

use crate::db::columns::Json;
use crate::db::schema::{deployments, releases};
use crate::db::{Db, caller, stream};
use crate::each_backend;
use crate::error::Error;
use crate::rules::dora::{self, Commit, Deliveries, Deployment, Measuring, Release};
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;

/// How many releases or deployments one statement asks for by name. SQLite allows 32,766 values.
const AT_ONCE: usize = 5000;

/// How many deployments are in memory with the lists of the commits of their releases. A list has
/// up to 1000 commits of some 100 bytes.
const WITH_LISTS: usize = 100;

type ByVersion = HashMap<String, Rc<Release>>;

/// What the deployments of a service delivered, and the releases that are live in its places while
/// they are read in the order of time.
pub struct Places<'a> {
    service: &'a str,
    live: HashMap<Rc<str>, Rc<Release>>,
    deliveries: Deliveries<'a>,
}

impl<'a> Places<'a> {
    /// No deployment of this service was read yet.
    pub fn new(service: &'a str) -> Self {
        Self { service, live: HashMap::new(), deliveries: Deliveries::new(service) }
    }

    /// Adds what the next deployments delivered to the measures.
    ///
    /// # Errors
    /// That of the database, or that the caller is gone.
    pub fn deliver(
        &mut self,
        db: &mut Db,
        deployments: impl Iterator<Item = Deployment>,
        measuring: &mut Measuring,
    ) -> Result<(), Error> {
        for mut some in at_once(deployments, AT_ONCE) {
            caller::check()?;
            let releases = self.releases(db, &mut some)?;
            let own = some.iter().map(|it| &it.release);
            if !releases.iter().chain(own).any(|release| release.lists_commits) {
                measuring.add_delivered(&mut self.deliveries, &some, &releases);
                continue;
            }
            for mut few in at_once(some.into_iter(), WITH_LISTS) {
                caller::check()?;
                let releases = with_lists(db, self.service, &mut few, &releases)?;
                measuring.add_delivered(&mut self.deliveries, &few, &releases);
            }
        }
        Ok(())
    }

    /// Gives the next deployments their releases. Returns all releases that they may have skipped,
    /// in the order of their commit times. None has its list of commits yet.
    fn releases(
        &mut self,
        db: &mut Db,
        deployments: &mut [Deployment],
    ) -> QueryResult<Vec<Rc<Release>>> {
        let live = deployments.iter().filter(|deployment| deployment.state.went_live());
        let versions: HashSet<&str> = live.map(|it| &*it.version).collect();
        let mut known = by_version(db, self.service, &Vec::from_iter(versions))?;
        let replaced_before = replaced_by(db, &self.first(deployments))?;
        self.fill_in(deployments, &known, &replaced_before);
        for skipped in skipped(deployments) {
            for row in between(db, self.service, skipped)? {
                if !known.contains_key(&*row.version) {
                    known.insert(row.version.clone(), Rc::new(row.into()));
                }
            }
        }
        let mut ordered: Vec<_> =
            known.into_values().filter(|release| release.last_commit_at.is_some()).collect();
        ordered.sort_unstable_by(|a, b| in_order(a).cmp(&in_order(b)));
        Ok(ordered)
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

/// Some of the deployments at a time.
fn at_once(
    mut deployments: impl Iterator<Item = Deployment>,
    n: usize,
) -> impl Iterator<Item = Vec<Deployment>> {
    let next = move || deployments.by_ref().take(n).collect::<Vec<_>>();
    iter::repeat_with(next).take_while(|some| !some.is_empty())
}

/// What the releases of a service are ordered by.
fn in_order(release: &Release) -> (Option<jiff::Timestamp>, &str) {
    (release.last_commit_at, &release.version)
}

/// Gives some deployments their releases with the lists of commits. Returns the same for those that
/// they skipped, of `releases`.
fn with_lists(
    db: &mut Db,
    service: &str,
    deployments: &mut [Deployment],
    releases: &[Rc<Release>],
) -> QueryResult<Vec<Rc<Release>>> {
    let mut needed = BTreeMap::new();
    for deployment in deployments.iter().filter(|deployment| deployment.is_change()) {
        let skipped = dora::skipped(deployment, releases).unwrap_or_default();
        for release in skipped.iter().chain([&deployment.release]) {
            needed.entry(in_order(release)).or_insert_with(|| Rc::clone(release));
        }
    }
    let listing = needed.values().filter(|release| release.lists_commits);
    let versions: Vec<&str> = listing.map(|release| &*release.version).collect();
    let mut lists = HashMap::with_capacity(versions.len());
    for some in versions.chunks(AT_ONCE) {
        each_backend!(db, |c| {
            let listed = releases::table
                .filter(releases::service.eq(service))
                .filter(releases::version.eq_any(some))
                .select((releases::version, releases::commits));
            for row in stream::rows::<_, _, (String, Option<Json<Vec<Commit>>>)>(c, listed)? {
                let (version, commits) = row?;
                lists.insert(version, commits.map_or_else(Vec::new, |commits| commits.0));
            }
        });
    }
    let mut needed: Vec<Rc<Release>> = needed.into_values().collect();
    for release in &mut needed {
        if let Some(commits) = lists.remove(&*release.version) {
            *release = Rc::new(Release { commits, ..Release::clone(release) });
        }
    }
    let full: HashMap<&str, _> =
        needed.iter().map(|release| (&*release.version, release)).collect();
    for deployment in deployments {
        if let Some(release) = full.get(&*deployment.version) {
            deployment.release = Rc::clone(release);
        }
    }
    needed.retain(|release| release.last_commit_at.is_some());
    Ok(needed)
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

/// The service's releases after the first of these commit times, up to the second.
fn between(
    db: &mut Db,
    service: &str,
    (after, until): (Timestamp, Timestamp),
) -> QueryResult<Vec<ReleaseRow>> {
    each_backend!(db, |c| {
        releases::table
            .filter(releases::service.eq(service))
            .filter(releases::last_commit_at.gt(after))
            .filter(releases::last_commit_at.le(until))
            .select(ReleaseRow::as_select())
            .load(c)
    })
}

/// A release without its list of commits.
#[derive(Queryable, Selectable)]
#[diesel(table_name = releases)]
struct ReleaseRow {
    version: String,
    #[diesel(select_expression = releases::commits.is_not_null())]
    lists_commits: bool,
    git_sha: Option<String>,
    committed_at: Option<Timestamp>,
    last_commit_at: Option<Timestamp>,
}

impl From<ReleaseRow> for Release {
    fn from(row: ReleaseRow) -> Self {
        Self {
            lists_commits: row.lists_commits,
            commits: vec![],
            sha: row.git_sha.unwrap_or_else(|| row.version.clone()),
            version: row.version.into(),
            committed_at: row.committed_at.map(Into::into),
            last_commit_at: row.last_commit_at.map(Into::into),
        }
    }
}
