//! The states of a deployment and the moves between them.
//!
//! ```text
//! requested -> awaiting_approval | approved | cancelled
//! awaiting_approval -> approved | rejected | cancelled | expired
//! approved -> running | cancelled | expired
//! running -> succeeded | failed | cancelled
//! succeeded -> superseded | rolled_back
//! ```
//!
//! A witness, who saw what happened whatever prop had decided, sets right what is not settled by a later success:
//!
//! ```text
//! every state but succeeded, superseded, rolled_back -> running | succeeded | failed | cancelled | superseded
//! succeeded -> failed | superseded
//! ```
//!
//! And what a success had replaced is `succeeded` again when that success turns out to be none.

use crate::text_enum;

text_enum! {
    /// Where a deployment is on its way. `requested` lasts only inside the transaction that creates it.
    State {
        /// Just recorded; nobody outside ever sees it.
        Requested = "requested",
        /// Approvals are missing.
        AwaitingApproval = "awaiting_approval",
        /// May start.
        Approved = "approved",
        /// Being rolled out.
        Running = "running",
        /// Live in its place.
        Succeeded = "succeeded",
        /// The rollout failed; what was live before still is.
        Failed = "failed",
        /// Given up by a person or a pipeline.
        Cancelled = "cancelled",
        /// An approver said no.
        Rejected = "rejected",
        /// Waited longer than approvals last.
        Expired = "expired",
        /// Was live until a later success in the same place.
        Superseded = "superseded",
        /// Was live until it was rolled back.
        RolledBack = "rolled_back",
    }
}

text_enum! {
    /// A state that a client may report or move a deployment to. The others are consequences.
    Report {
        /// Being rolled out.
        Running = "running",
        /// Live in its place.
        Succeeded = "succeeded",
        /// The rollout failed; what was live before still is.
        Failed = "failed",
        /// Given up by a person or a pipeline.
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
    /// What a deployment is to its place. Derived, never given.
    Kind {
        /// A release that was not live there before.
        Normal = "normal",
        /// The release that is live there now.
        Redeploy = "redeploy",
        /// A release that was live there before.
        Rollback = "rollback",
        /// Not planned, to mend something.
        Hotfix = "hotfix",
    }
}

/// What asks for a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A caller, through a transition.
    Caller,
    /// prop itself, as the consequence of something else: an approval, a later success, the passing of time.
    Ledger,
    /// Somebody who saw it happen, and may tell it late, in any order, and against what prop had decided.
    Witness,
}

/// The moves that `by` may make from a state.
pub const fn moves(from: State, by: By) -> &'static [State] {
    use State::*;
    match (from, by) {
        (Requested, By::Ledger) => &[AwaitingApproval, Approved, Cancelled],
        (AwaitingApproval, By::Ledger) => &[Approved, Rejected, Cancelled, Expired],
        (Approved, By::Ledger) => &[Running, Cancelled, Expired],
        (Succeeded, By::Ledger) => &[Superseded, RolledBack],
        (Running, By::Witness) => &[Succeeded, Failed, Cancelled, Superseded],
        (Running, _) => &[Succeeded, Failed, Cancelled],
        (
            Requested | AwaitingApproval | Approved | Rejected | Expired | Failed | Cancelled,
            By::Witness,
        ) => &[Running, Succeeded, Failed, Cancelled, Superseded],
        (Succeeded, By::Witness) => &[Failed, Superseded],
        (AwaitingApproval, By::Caller) => &[Cancelled],
        (Approved, By::Caller) => &[Running, Cancelled],
        _ => &[],
    }
}

/// What is to be done about an asked-for move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It is there already: nothing changes.
    None,
    /// Allowed.
    To(State),
    /// Not from here; these moves there are.
    Refused(&'static [State]),
}

/// Decides on a move from `from` to `to`.
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
    /// Nothing follows any more, except that a success may be superseded or rolled back.
    pub const fn is_finished(self) -> bool {
        !matches!(
            self,
            State::Requested | State::AwaitingApproval | State::Approved | State::Running
        )
    }

    /// It is live, or was.
    pub const fn went_live(self) -> bool {
        matches!(self, State::Succeeded | State::Superseded | State::RolledBack)
    }
}

/// What is known about the place when a deployment's kind is derived.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The release is the one that is live.
    pub is_live: bool,
    /// The release was live some time before.
    pub was_live: bool,
    /// The caller says that it was not planned, or that it fixes an incident.
    pub unplanned: bool,
}

/// The kind of a deployment. V1, V1 is a redeploy; V1, V2, V1 ends with a rollback, also when it was not planned.
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
        (Approved, &[Running, Cancelled, Expired]),
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
            let corrected = moves(*from, By::Witness);
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
        assert_eq!(decide(Succeeded, Running, By::Witness), Move::Refused(&[Failed, Superseded]));
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
