//! The deployments of a service that finished in a stretch of time, for the measures.

use diesel::prelude::*;
use std::mem;
use std::rc::Rc;

use crate::db::schema::deployments;
use crate::db::{Db, caller};
use crate::each_backend;
use crate::error::Error;
use crate::rules::dora::{Deployment, Release};
use crate::rules::lifecycle::{Kind, State};
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;

/// How many deployments are in memory. Each has a release with up to 1000 commits.
const BATCH: usize = 1000;

/// What to read: non-voided deployments that finished in a half-open stretch of time.
#[derive(Clone, Copy)]
pub struct Stretch<'a> {
    /// The slug of the service.
    pub service: &'a str,
    /// The slugs of the environments.
    pub environments: &'a [Rc<str>],
    /// The start, which is inside.
    pub since: Timestamp,
    /// The end, which is outside.
    pub until: Timestamp,
}

/// In which order to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The oldest first.
    Onward,
    /// The newest first.
    Back,
}

/// Reads the deployments of a stretch of time in the order of [`Deployment::order`] or its reverse,
/// a batch at a time.
pub struct Batches<'a> {
    stretch: Stretch<'a>,
    direction: Direction,
    /// The last one that was read.
    last: Option<(Timestamp, DeploymentId)>,
    is_over: bool,
    /// What was read, but belongs to the next batch.
    held: Vec<Deployment>,
    /// The release of each: none.
    release: Rc<Release>,
}

impl<'a> Batches<'a> {
    /// Nothing was read yet.
    pub fn new(stretch: Stretch<'a>, direction: Direction) -> Self {
        let (held, release) = (Vec::new(), Rc::default());
        Self { stretch, direction, last: None, is_over: false, held, release }
    }

    /// The next deployments, without their releases. `None` when there are no more.
    ///
    /// # Errors
    /// That of the database, or that the caller is gone.
    pub fn next(&mut self, db: &mut Db) -> Result<Option<Vec<Deployment>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        caller::check()?;
        let rows = self.rows(db)?;
        self.is_over = rows.len() < BATCH;
        self.last = rows.last().map(|row| (row.finished_at, row.id));
        let mut batch = mem::take(&mut self.held);
        batch.extend(rows.into_iter().filter_map(|row| self.deployment(row)));
        batch.sort_by_key(Deployment::order);
        if self.direction == Direction::Back {
            batch.reverse();
        }
        // What finished at the time of the last one may not be complete.
        if let Some(last) = batch.last().map(|it| it.finished_at).filter(|_| !self.is_over) {
            self.held = batch.split_off(batch.partition_point(|it| it.finished_at != last));
        }
        Ok(Some(batch))
    }

    fn rows(&self, db: &mut Db) -> QueryResult<Vec<FinishedRow>> {
        let Stretch { service, environments, since, until } = self.stretch;
        let environments: Vec<&str> = environments.iter().map(|slug| &**slug).collect();
        each_backend!(db, |c| {
            let finished = deployments::table
                .filter(deployments::service.eq(service))
                .filter(deployments::environment.eq_any(&environments))
                .filter(deployments::voided_at.is_null())
                .select(FinishedRow::as_select())
                .limit(BATCH as i64);
            let (at, id) = (deployments::finished_at, deployments::id);
            match (self.direction, self.last) {
                (Direction::Onward, last) => {
                    let (from, after) = last.unwrap_or((since, nil()));
                    finished
                        .filter(at.ge(from).and(at.lt(until)))
                        .filter(at.gt(from).or(id.gt(after)))
                        .order((at, id))
                        .load(c)
                }
                (Direction::Back, None) => finished
                    .filter(at.ge(since).and(at.lt(until)))
                    .order((at.desc(), id.desc()))
                    .load(c),
                (Direction::Back, Some((to, before))) => finished
                    .filter(at.ge(since).and(at.le(to)))
                    .filter(at.lt(to).or(id.lt(before)))
                    .order((at.desc(), id.desc()))
                    .load(c),
            }
        })
    }

    /// `None` if the environment is none of those.
    fn deployment(&self, row: FinishedRow) -> Option<Deployment> {
        let environments = self.stretch.environments;
        Some(Deployment {
            id: row.id,
            environment: environments.iter().find(|slug| ***slug == *row.environment)?.clone(),
            version: row.version.into(),
            kind: row.kind,
            state: row.state,
            started_at: row.started_at.map(Into::into),
            finished_at: row.finished_at.into(),
            release: self.release.clone(),
            replaced: None,
        })
    }
}

fn nil() -> DeploymentId {
    DeploymentId::from(uuid::Uuid::nil())
}

/// The columns of the index `deployments_measured`, so that the table itself is not read.
#[derive(Queryable, Selectable)]
#[diesel(table_name = deployments)]
struct FinishedRow {
    id: DeploymentId,
    environment: String,
    version: String,
    state: State,
    kind: Kind,
    started_at: Option<Timestamp>,
    #[diesel(select_expression = deployments::finished_at.assume_not_null())]
    finished_at: Timestamp,
}
