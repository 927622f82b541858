//! The states of a deployment, and the changes between them.
//!
//! ```text
//! requested -> awaiting_approval | approved | cancelled
//! awaiting_approval -> approved | rejected | cancelled | expired
//! approved -> running | cancelled | expired | awaiting_approval
//! running -> succeeded | failed | cancelled
//! succeeded -> superseded | rolled_back
//! ```
//!
//! An approved deployment waits again when a rejection withdraws an approval that it needs.
//!
//! An observer, such as a GitHub webhook, reports what really happened, whatever prop had decided.
//! It may correct every state that no later success has settled:
//!
//! ```text
//! every state but succeeded, superseded, rolled_back -> running | succeeded | failed | cancelled |
//! superseded succeeded -> failed | superseded
//! ```
//!
//! When a success is corrected to a failure, the deployment that it had replaced is `succeeded`
//! again.

use crate::text_enum;

text_enum! {
    /// The state of a deployment.
    State {
        /// Just recorded. It lasts only inside a transaction and never appears in a response.
        Requested = "requested",
        /// Waits for approvals that the environment requires.
        AwaitingApproval = "awaiting_approval",
        /// Has all approvals that it needs, and may start if nothing else blocks it.
        Approved = "approved",
        /// Has started: the release is being rolled out.
        Running = "running",
        /// Has succeeded and is live in its place.
        Succeeded = "succeeded",
        /// The rollout failed. What was live before is still live.
        Failed = "failed",
        /// A person or a pipeline cancelled it.
        Cancelled = "cancelled",
        /// An approver rejected it.
        Rejected = "rejected",
        /// Waited too long for its approvals or its start.
        Expired = "expired",
        /// Was live until a later deployment in the same place succeeded.
        Superseded = "superseded",
        /// Was live until a later deployment rolled it back.
        RolledBack = "rolled_back",
    }
}

text_enum! {
    /// A state that a client may report. prop derives the others.
    Report {
        /// The rollout goes on.
        Running = "running",
        /// The rollout succeeded.
        Succeeded = "succeeded",
        /// The rollout failed; what was live before still is.
        Failed = "failed",
        /// A person or a pipeline cancelled the rollout.
        Cancelled = "cancelled",
    }
}

impl From<Report> for State {
    fn from(report: Report) -> Self {
        match report {
            Report::Running => State::Running,
            Report::Succeeded => State::Succeeded,
            Report::Failed => State::Failed,
            Report::Cancelled => State::Cancelled,
        }
    }
}

text_enum! {
    /// How a deployment compares with what was live in its place before. prop derives it.
    Kind {
        /// Deploys a release that was never live there, as planned.
        Normal = "normal",
        /// Deploys the release that is already live there.
        Redeploy = "redeploy",
        /// Deploys a release that was live there before.
        Rollback = "rollback",
        /// Deploys a release that was never live there, unplanned, to fix a problem.
        Hotfix = "hotfix",
    }
}

/// Who changes the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A caller of the API.
    Caller,
    /// prop itself, because of an approval, a later success, or the passing of time.
    Ledger,
    /// An observer that reports what happened: perhaps late, in any order, and against a decision
    /// of prop.
    Observer,
}

/// The states to which `by` may change a deployment with the state `from`.
pub const fn moves(from: State, by: By) -> &'static [State] {
    use State::*;
    match (from, by) {
        (Requested, By::Ledger) => &[AwaitingApproval, Approved, Cancelled],
        (AwaitingApproval, By::Ledger) => &[Approved, Rejected, Cancelled, Expired],
        (Approved, By::Ledger) => &[Running, Cancelled, Expired, AwaitingApproval],
        (Succeeded, By::Ledger) => &[Superseded, RolledBack],
        (Running, By::Observer) => &[Succeeded, Failed, Cancelled, Superseded],
        (Running, _) => &[Succeeded, Failed, Cancelled],
        (
            Requested | AwaitingApproval | Approved | Rejected | Expired | Failed | Cancelled,
            By::Observer,
        ) => &[Running, Succeeded, Failed, Cancelled, Superseded],
        (Succeeded, By::Observer) => &[Failed, Superseded],
        (AwaitingApproval, By::Caller) => &[Cancelled],
        (Approved, By::Caller) => &[Running, Cancelled],
        _ => &[],
    }
}

/// The decision about a state change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// The deployment already has the state. Nothing changes.
    None,
    /// The change to this state is allowed.
    To(State),
    /// The change is not allowed. Changes to these states are.
    Refused(&'static [State]),
}

/// Decides whether `by` may change the state from `from` to `to`.
pub fn decide(from: State, to: State, by: By) -> Move {
    let moves = moves(from, by);
    if from == to {
        Move::None
    } else if moves.contains(&to) {
        Move::To(to)
    } else {
        Move::Refused(moves)
    }
}

impl State {
    /// Whether the deployment has ended. Only a success can then still be superseded or rolled
    /// back.
    pub const fn is_finished(self) -> bool {
        !matches!(
            self,
            State::Requested | State::AwaitingApproval | State::Approved | State::Running
        )
    }

    /// Whether the deployment waits, runs or is live. It is history otherwise.
    pub const fn is_current(self) -> bool {
        !self.is_finished() || matches!(self, State::Succeeded)
    }

    /// Whether the deployment is live or was live.
    pub const fn went_live(self) -> bool {
        matches!(self, State::Succeeded | State::Superseded | State::RolledBack)
    }
}

/// The facts from which the kind of a deployment is derived.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Whether the release is live in the place now.
    pub is_live: bool,
    /// Whether the release was live in the place before.
    pub was_live: bool,
    /// Whether the deployment is unplanned, or fixes an incident.
    pub unplanned: bool,
}

/// Derives the kind of a deployment. V1, V1 ends with a redeploy. V1, V2, V1 ends with a rollback,
/// even if it was unplanned.
pub const fn kind(place: Place) -> Kind {
    match place {
        Place { is_live: true, .. } => Kind::Redeploy,
        Place { was_live: true, .. } => Kind::Rollback,
        Place { unplanned: true, .. } => Kind::Hotfix,
        _ => Kind::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    /// The whole table of domain states, by hand: what may follow what.
    const TABLE: &[(State, &[State])] = &[
        (Requested, &[AwaitingApproval, Approved, Cancelled]),
        (AwaitingApproval, &[Approved, Rejected, Cancelled, Expired]),
        (Approved, &[Running, Cancelled, Expired, AwaitingApproval]),
        (Running, &[Succeeded, Failed, Cancelled]),
        (Succeeded, &[Superseded, RolledBack]),
        (Failed, &[]),
        (Cancelled, &[]),
        (Rejected, &[]),
        (Expired, &[]),
        (Superseded, &[]),
        (RolledBack, &[]),
    ];

    #[test]
    fn every_pair_of_states_is_decided_as_the_table_says() {
        assert_eq!(TABLE.len(), State::ALL.len());
        for (from, allowed) in TABLE {
            for to in State::ALL {
                let expected = match to {
                    to if to == from => Move::None,
                    to if allowed.contains(to) => Move::To(*to),
                    _ => Move::Refused(allowed),
                };
                assert_eq!(decide(*from, *to, By::Ledger), expected, "{from} -> {to}");
            }
        }
    }

    #[test]
    fn a_caller_makes_no_move_that_is_a_consequence() {
        for from in State::ALL {
            for to in moves(*from, By::Caller) {
                assert!(moves(*from, By::Ledger).contains(to), "{from} -> {to}");
                assert!(matches!(to, Running | Succeeded | Failed | Cancelled), "{from} -> {to}");
            }
        }
        assert_eq!(decide(Succeeded, RolledBack, By::Caller), Move::Refused(&[]));
        assert_eq!(decide(AwaitingApproval, Approved, By::Caller), Move::Refused(&[Cancelled]));
    }

    #[test]
    fn a_witness_corrects_everything_but_what_a_later_success_has_settled() {
        for from in State::ALL {
            let corrected = moves(*from, By::Observer);
            assert_eq!(corrected.is_empty(), matches!(from, Superseded | RolledBack), "{from}");
            assert!(
                corrected
                    .iter()
                    .all(|to| matches!(to, Running | Succeeded | Failed | Cancelled | Superseded)),
                "{from}"
            );
            for to in moves(*from, By::Caller) {
                assert!(corrected.contains(to), "{from} -> {to}");
            }
        }
        assert_eq!(decide(Succeeded, Running, By::Observer), Move::Refused(&[Failed, Superseded]));
    }

    #[test]
    fn finished_states_have_no_move_but_out_of_live() {
        for state in State::ALL {
            let ends = moves(*state, By::Ledger).is_empty() || *state == Succeeded;
            assert_eq!(state.is_finished(), ends, "{state}");
        }
    }

    #[test]
    fn the_kind_follows_from_the_place() {
        let cases = [
            ((false, false, false), Kind::Normal),
            ((false, false, true), Kind::Hotfix),
            ((false, true, false), Kind::Rollback),
            ((false, true, true), Kind::Rollback),
            ((true, true, false), Kind::Redeploy),
            ((true, true, true), Kind::Redeploy),
            ((true, false, false), Kind::Redeploy),
        ];
        for ((is_live, was_live, unplanned), expected) in cases {
            assert_eq!(
                kind(Place { is_live, was_live, unplanned }),
                expected,
                "{is_live} {was_live} {unplanned}"
            );
        }
    }
}
