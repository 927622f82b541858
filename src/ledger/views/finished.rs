//! The deployments of a service that finished in a stretch of time, for the measures.

use diesel::prelude::*;
use std::cmp::Reverse;
use std::mem;
use std::rc::Rc;

use crate::db::columns::Parsed;
use crate::db::schema::deployments;
use crate::db::{Db, caller, stream};
use crate::each_backend;
use crate::error::Error;
use crate::rules::dora::{Deployment, Release};
use crate::rules::lifecycle::{Kind, State};
use crate::types::ids::DeploymentId;
use crate::types::time::Timestamp;

/// How many deployments of a service are in memory, without their releases: some 150 bytes each. A
/// service with fewer around the window is read only once.
pub const BATCH: usize = 32_000;

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
#[derive(Clone, Copy)]
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
    /// The largest number of deployments in a batch.
    most: usize,
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
    pub fn new(stretch: Stretch<'a>, direction: Direction, most: usize) -> Self {
        let (held, release) = (Vec::new(), Rc::default());
        Self { stretch, direction, most, last: None, is_over: false, held, release }
    }

    /// Whether everything was read.
    pub fn is_over(&self) -> bool {
        self.is_over
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
        let mut batch = mem::take(&mut self.held);
        self.read(db, &mut batch)?;
        match self.direction {
            Direction::Onward => batch.sort_unstable_by_key(Deployment::order),
            Direction::Back => batch.sort_unstable_by_key(|it| Reverse(it.order())),
        }
        // What finished at the time of the last one may not be complete.
        if let Some(last) = batch.last().map(|it| it.finished_at).filter(|_| !self.is_over) {
            self.held = batch.split_off(batch.partition_point(|it| it.finished_at != last));
        }
        Ok(Some(batch))
    }

    /// Adds the next rows to a batch.
    fn read(&mut self, db: &mut Db, batch: &mut Vec<Deployment>) -> QueryResult<()> {
        let Stretch { service, environments, since, until } = self.stretch;
        let environments: Vec<&str> = environments.iter().map(|slug| &**slug).collect();
        let mut read = 0;
        each_backend!(db, |c| {
            let (at, id) = (deployments::finished_at, deployments::id);
            let finished = deployments::table
                .filter(deployments::service.eq(service))
                .filter(deployments::environment.eq_any(&environments))
                .filter(deployments::voided_at.is_null())
                .select(FinishedRow::as_select())
                .limit(self.most as i64)
                .into_boxed();
            let finished = match self.direction {
                Direction::Onward => {
                    let (from, after) = self.last.unwrap_or((since, nil()));
                    finished
                        .filter(at.ge(from).and(at.lt(until)))
                        .filter(at.gt(from).or(id.gt(after)))
                        .order((at, id))
                }
                Direction::Back => {
                    let (to, before) = self.last.unwrap_or((until, nil()));
                    finished
                        .filter(at.ge(since).and(at.le(to)))
                        .filter(at.lt(to).or(id.lt(before)))
                        .order((at.desc(), id.desc()))
                }
            };
            for row in stream::rows::<_, _, FinishedRow>(c, finished)? {
                let row = row?;
                read += 1;
                self.last = Some((row.finished_at, row.id));
                batch.extend(self.deployment(row));
            }
        });
        self.is_over = read < self.most;
        Ok(())
    }

    /// `None` if the environment is none of those.
    fn deployment(&self, row: FinishedRow) -> Option<Deployment> {
        let environments = self.stretch.environments;
        Some(Deployment {
            id: row.id,
            environment: environments.iter().find(|slug| ***slug == *row.environment)?.clone(),
            version: row.version.into(),
            kind: row.kind.0,
            state: row.state.0,
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
    state: Parsed<State>,
    kind: Parsed<Kind>,
    started_at: Option<Timestamp>,
    #[diesel(select_expression = deployments::finished_at.assume_not_null())]
    finished_at: Timestamp,
}
