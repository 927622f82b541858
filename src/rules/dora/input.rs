//! What is measured: deployments that finished in and around a window, their releases, and the
//! incidents linked to them.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::rc::Rc;
use utoipa::ToSchema;

use crate::rules::gate::micros;
use crate::rules::lifecycle::{Kind, State};
use crate::types::ids::{DeploymentId, IncidentId};

/// A half-open time window: it includes `since` and excludes `until`, so adjacent windows do not
/// overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The start, which is inside the window.
    pub since: Timestamp,
    /// The end, which is outside the window.
    pub until: Timestamp,
}

impl Window {
    pub(super) fn length(&self) -> SignedDuration {
        self.until.duration_since(self.since)
    }

    /// The length in days.
    pub(super) fn days(&self) -> f64 {
        self.length().as_secs_f64() / SignedDuration::from_hours(24).as_secs_f64()
    }
}

/// A deployment that a figure is based on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Counted {
    /// The identifier of the deployment.
    #[schema(value_type = String)]
    pub id: DeploymentId,
    /// The slug of the service that was deployed.
    pub service: String,
    /// The slug of the environment that it was deployed to.
    pub environment: String,
    /// The version that was deployed.
    pub version: String,
    /// How the release compared with what was live in the place before.
    pub kind: Kind,
    /// When the deployment went live, or otherwise ended.
    #[serde(serialize_with = "micros")]
    #[schema(value_type = String, format = DateTime)]
    pub finished_at: Timestamp,
}

/// A deployment that finished.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The identifier of the deployment.
    pub id: DeploymentId,
    /// The slug of the environment that it was deployed to.
    pub environment: Rc<str>,
    /// The version that was deployed.
    pub version: Box<str>,
    /// How the release compared with what was live in the place before.
    pub kind: Kind,
    /// The current state of the deployment.
    pub state: State,
    /// When it started, if it did.
    pub started_at: Option<Timestamp>,
    /// When it went live, or otherwise ended.
    pub finished_at: Timestamp,
    /// Its release.
    pub release: Rc<Release>,
    /// The release that was live in the place before. `None` if none was.
    pub replaced: Option<Rc<Release>>,
}

/// What deployments are ordered by: when they finished, when they started, their identifiers. The
/// timeline of a place has the same order.
pub type Order = (Timestamp, Option<Timestamp>, DeploymentId);

impl Deployment {
    /// Where the deployment is in the order of time.
    pub fn order(&self) -> Order {
        (self.finished_at, self.started_at, self.id)
    }

    /// The deployment of a service as it is listed in a measure.
    pub(super) fn counted(&self, service: &str) -> Counted {
        let Deployment { id, environment, version, kind, finished_at, .. } = self;
        Counted {
            id: *id,
            service: service.to_owned(),
            environment: environment.to_string(),
            version: version.to_string(),
            kind: *kind,
            finished_at: *finished_at,
        }
    }

    pub(super) fn went_live(&self) -> bool {
        self.state.went_live()
    }

    /// Whether it is a change: it went live, and is neither a redeploy nor a rollback.
    pub fn is_change(&self) -> bool {
        self.went_live() && matches!(self.kind, Kind::Normal | Kind::Hotfix)
    }

    /// Whether it fixed a problem: a rollback or a hotfix that went live.
    pub(super) fn is_rework(&self) -> bool {
        self.went_live() && matches!(self.kind, Kind::Rollback | Kind::Hotfix)
    }
}

/// A commit that a release delivers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The git commit id.
    pub sha: String,
    /// When the commit was made.
    pub committed_at: Timestamp,
    /// Whether it is a merge commit.
    #[serde(default)]
    pub is_merge: bool,
}

/// A release, with the commits that it adds to the release before it.
#[derive(Debug, Clone, Default)]
pub struct Release {
    /// Its version.
    pub version: Box<str>,
    /// Whether it lists commits.
    pub lists_commits: bool,
    /// Its list of commits. Empty when it was not reported, or is not needed yet.
    pub commits: Vec<Commit>,
    /// The commit that it was built from. The version, if the commit is unknown.
    pub sha: String,
    /// When that commit was made, if known.
    pub committed_at: Option<Timestamp>,
    /// The time that orders the releases of a service: `committed_at` or, if unknown, the time of
    /// the newest commit in its list.
    pub last_commit_at: Option<Timestamp>,
}

/// An incident that some of the deployments caused or fixed.
#[derive(Debug, Clone)]
pub struct Incident {
    /// The identifier of the incident.
    pub id: IncidentId,
    /// When the incident was resolved. `None` while it is open.
    pub resolved_at: Option<Timestamp>,
    /// The identifiers of the deployments that caused the incident.
    pub caused_by: Vec<DeploymentId>,
    /// The deployments that fixed the incident.
    pub fixed_by: Vec<Fix>,
}

/// A deployment that fixed a failure: a rollback or hotfix that followed, or a deployment that is
/// linked to the incident as its fix and went live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fix {
    /// When the deployment went live.
    pub finished_at: Timestamp,
    /// The identifier of the deployment.
    pub id: DeploymentId,
}
