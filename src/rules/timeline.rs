//! What happened in a place, in the order in which it happened.
//!
//! A deployment's own facts are when it started, when it ended, and how. Everything else about it
//! follows from the facts of all deployments of its place: which one is live, what each one
//! replaced, which ones were rolled back. So reporting late, twice or in another order changes
//! nothing in the end.
//!
//! Successes are ordered by the time they ended; at the same time by when they started, then by id:
//!
//! - The *previous* of a success is the success before it.
//! - Its *kind* is [`lifecycle::kind`] of its release: against what was live before it, and what
//!   was live at any time before.
//! - The last success is live (`succeeded`), unless its source has reported that it is gone. One
//!   that a rollback followed
//!   is `rolled_back`, every other is `superseded`.
//!
//! What did not succeed takes its kind and previous from what was live when it started. Of the
//! deployments that have started and not ended, the last one to start is `running` if nothing
//! started after it; the others were overtaken and count as `cancelled` until their own end is
//! reported.

use jiff::SignedDuration;
use std::collections::HashSet;

use crate::rules::lifecycle::{self, Kind, State};
use crate::types::ids::{DeploymentId, ReleaseId};
use crate::types::time::Timestamp;

/// How a deployment ended, by its own report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It went live.
    Succeeded,
    /// It failed.
    Failed,
    /// It was given up.
    Cancelled,
}

/// A deployment that has started and is not void: its own facts, and what was derived from them
/// last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which deployment.
    pub id: DeploymentId,
    /// Its release.
    pub release: ReleaseId,
    /// When it started.
    pub started_at: Timestamp,
    /// When and how it ended; `None` until its end is reported.
    pub end: Option<(Timestamp, Outcome)>,
    /// It was reported as unplanned, or is linked to an incident as its fix.
    pub is_fix: bool,
    /// Its source reported that it is gone.
    pub is_retired: bool,
    /// What was derived before. It stands where the facts since [`Head::at`] can't change it.
    pub derived: Derived,
}

/// What follows for a deployment from the facts of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// Where it stands.
    pub state: State,
    /// What it was to its place.
    pub kind: Kind,
    /// What it replaced or, if it did not succeed, what was live when it started.
    pub previous: Option<DeploymentId>,
}

impl Derived {
    /// The deployment that this one rolled back, or set out to.
    pub fn rollback_of(&self) -> Option<DeploymentId> {
        self.previous.filter(|_| self.kind == Kind::Rollback)
    }
}

/// How much earlier than its newest commit a deployment may start. Clocks of developers and of
/// pipelines differ, and a commit can be amended after its build.
pub const COMMIT_SKEW: SignedDuration = SignedDuration::from_hours(24);

/// Whether a deployment started before its release can have existed: one of the two times is wrong.
pub fn starts_before_commit(
    started_at: Option<Timestamp>,
    last_commit_at: Option<Timestamp>,
) -> bool {
    let times = started_at.zip(last_commit_at);
    times.is_some_and(|(start, commit)| commit.since(start) > COMMIT_SKEW)
}

/// The place before the moment from which it is derived again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The earliest time at which a fact has changed; `None` derives everything.
    pub at: Option<Timestamp>,
    /// The releases among the entries that had been live before that time.
    pub was_live: HashSet<ReleaseId>,
}

/// Derives a place from `before.at` on. The result has one item per entry, in the same order.
///
/// The entries are all that started or ended at that time or later, all that have not ended, and
/// the last success before it.
pub fn derive(before: &Head, entries: &[Entry]) -> Vec<Derived> {
    let is_before = |time: Timestamp| before.at.is_some_and(|at| time < at);
    let successes = Successes::of(before, entries);
    let last_start = entries.iter().map(|entry| (entry.started_at, entry.id)).max();
    let relation = |entry: &Entry| {
        let (time, index) = match entry.end {
            Some((end, Outcome::Succeeded)) => (end, successes.before(end, entry)),
            _ => (entry.started_at, successes.until(entry.started_at)),
        };
        match is_before(time) {
            true => entry.derived,
            false => successes.relation(entry, index),
        }
    };
    let kinds: Vec<Derived> = entries.iter().map(relation).collect();
    let rollbacks: HashSet<DeploymentId> = entries
        .iter()
        .zip(&kinds)
        .filter(|(entry, _)| matches!(entry.end, Some((_, Outcome::Succeeded))))
        .filter_map(|(_, derived)| derived.rollback_of())
        .collect();
    let state = |entry: &Entry| match entry.end {
        Some((_, Outcome::Failed)) => State::Failed,
        Some((_, Outcome::Cancelled)) => State::Cancelled,
        Some((_, Outcome::Succeeded)) if successes.is_last(entry.id) && !entry.is_retired => {
            State::Succeeded
        }
        Some((_, Outcome::Succeeded)) if rollbacks.contains(&entry.id) => State::RolledBack,
        Some((_, Outcome::Succeeded)) => State::Superseded,
        None if last_start == Some((entry.started_at, entry.id)) => State::Running,
        None => State::Cancelled,
    };
    entries
        .iter()
        .zip(kinds)
        .map(|(entry, derived)| Derived { state: state(entry), ..derived })
        .collect()
}

/// The successes among the entries, in the order in which they went live, and the releases that
/// were live until each.
struct Successes<'a> {
    in_order: Vec<(Timestamp, &'a Entry)>,
    /// For each release, when it first went live, as an index; 0 for one that was live before the
    /// first entry.
    first_live: std::collections::HashMap<ReleaseId, usize>,
}

impl<'a> Successes<'a> {
    fn of(before: &Head, entries: &'a [Entry]) -> Self {
        let mut in_order: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry.end {
                Some((end, Outcome::Succeeded)) => Some((end, entry)),
                _ => None,
            })
            .collect();
        in_order.sort_by_key(|(end, entry)| (*end, entry.started_at, entry.id));
        let mut first_live = before.was_live.iter().map(|release| (*release, 0)).collect();
        for (index, (_, entry)) in in_order.iter().enumerate() {
            std::collections::HashMap::entry(&mut first_live, entry.release).or_insert(index + 1);
        }
        Self { in_order, first_live }
    }

    /// How many successes came before the one that ended then.
    fn before(&self, end: Timestamp, entry: &Entry) -> usize {
        let key = (end, entry.started_at, entry.id);
        self.in_order.partition_point(|(end, other)| (*end, other.started_at, other.id) < key)
    }

    /// How many successes there were at a time.
    fn until(&self, time: Timestamp) -> usize {
        self.in_order.partition_point(|(end, _)| *end <= time)
    }

    fn is_last(&self, id: DeploymentId) -> bool {
        self.in_order.last().is_some_and(|(_, entry)| entry.id == id)
    }

    /// Kind and previous of an entry after the first `index` successes.
    fn relation(&self, entry: &Entry, index: usize) -> Derived {
        let live = index.checked_sub(1).map(|last| self.in_order[last].1);
        let kind = lifecycle::kind(lifecycle::Place {
            is_live: live.is_some_and(|live| live.release == entry.release),
            was_live: self.first_live.get(&entry.release).is_some_and(|first| *first <= index),
            unplanned: entry.is_fix,
        });
        Derived { kind, previous: live.map(|live| live.id), ..entry.derived }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn deployment(n: u32) -> DeploymentId {
        format!("00000000-0000-7000-8000-{n:012}").parse().unwrap()
    }

    fn release(n: u32) -> ReleaseId {
        format!("00000000-0000-7000-9000-{n:012}").parse().unwrap()
    }

    fn minute(n: u32) -> Timestamp {
        jiff::Timestamp::from_second(1_770_000_000 + 60 * i64::from(n)).unwrap().into()
    }

    const UNKNOWN: Derived =
        Derived { state: State::Requested, kind: Kind::Normal, previous: None };

    fn entry(n: u32, version: u32, start: u32, end: Option<(u32, Outcome)>) -> Entry {
        Entry {
            id: deployment(n),
            release: release(version),
            started_at: minute(start),
            end: end.map(|(at, outcome)| (minute(at), outcome)),
            is_fix: false,
            is_retired: false,
            derived: UNKNOWN,
        }
    }

    /// A success of this version that takes a minute.
    fn success(n: u32, version: u32, start: u32) -> Entry {
        entry(n, version, start, Some((start + 1, Outcome::Succeeded)))
    }

    fn derive_all(entries: &[Entry]) -> Vec<(State, Kind, Option<DeploymentId>)> {
        let derived = derive(&Head::default(), entries).into_iter();
        derived.map(|it| (it.state, it.kind, it.previous)).collect()
    }

    #[test]
    fn a_start_more_than_a_day_before_the_commit_is_noticed() {
        let day = 24 * 60;
        let cases = [
            (Some(0), Some(day), false),
            (Some(0), Some(day + 1), true),
            (Some(day), Some(0), false),
            (None, Some(5 * day), false),
            (Some(0), None, false),
        ];
        for (start, commit, expected) in cases {
            let is_before = starts_before_commit(start.map(minute), commit.map(minute));
            assert_eq!(is_before, expected, "{start:?} {commit:?}");
        }
    }

    #[test]
    fn the_last_success_is_live_and_supersedes_the_one_before() {
        let story = [success(1, 1, 0), success(2, 2, 10)];
        let expected = [
            (State::Superseded, Kind::Normal, None),
            (State::Succeeded, Kind::Normal, Some(deployment(1))),
        ];
        assert_eq!(derive_all(&story), expected);
    }

    #[test]
    fn what_is_gone_is_live_no_more_and_nothing_takes_its_place() {
        let gone = |entry: Entry| Entry { is_retired: true, ..entry };
        let state = |story: &[Entry]| derive_all(story).last().map(|(state, ..)| *state);
        assert_eq!(state(&[success(1, 1, 0), gone(success(2, 2, 10))]), Some(State::Superseded));
        assert_eq!(state(&[gone(success(1, 1, 0)), success(2, 2, 10)]), Some(State::Succeeded));
    }

    #[test]
    fn of_two_that_ended_at_the_same_time_the_one_that_started_later_is_live() {
        let end = Some((20, Outcome::Succeeded));
        let story = [entry(2, 2, 5, end), entry(1, 1, 10, end)];
        let states: Vec<_> = derive_all(&story).into_iter().map(|(state, ..)| state).collect();
        assert_eq!(states, [State::Superseded, State::Succeeded]);
    }

    #[test]
    fn going_back_to_an_earlier_release_rolls_back_what_was_live() {
        let story = [success(1, 1, 0), success(2, 2, 10), success(3, 1, 20)];
        let expected = [
            (State::Superseded, Kind::Normal, None),
            (State::RolledBack, Kind::Normal, Some(deployment(1))),
            (State::Succeeded, Kind::Rollback, Some(deployment(2))),
        ];
        assert_eq!(derive_all(&story), expected);
        // Reported as V1, V1, V2: the order of the times decides.
        let [first, second, third] = story;
        let reordered = derive_all(&[first, third, second]);
        assert_eq!(reordered, [expected[0], expected[2], expected[1]]);
    }

    #[test]
    fn the_same_release_again_is_a_redeploy_and_rolls_nothing_back() {
        let story = [success(1, 1, 0), success(2, 1, 10)];
        let expected = [
            (State::Superseded, Kind::Normal, None),
            (State::Succeeded, Kind::Redeploy, Some(deployment(1))),
        ];
        assert_eq!(derive_all(&story), expected);
    }

    #[test]
    fn a_fix_is_a_hotfix_unless_it_goes_back_or_deploys_again() {
        let fix = |entry: Entry| Entry { is_fix: true, ..entry };
        let story = [
            success(1, 1, 0),
            fix(success(2, 2, 10)),
            fix(success(3, 2, 20)),
            fix(success(4, 1, 30)),
        ];
        let kinds: Vec<_> = derive_all(&story).into_iter().map(|(_, kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Normal, Kind::Hotfix, Kind::Redeploy, Kind::Rollback]);
    }

    #[test]
    fn what_did_not_succeed_is_compared_with_what_was_live_when_it_started() {
        let story = [
            success(1, 1, 0),
            entry(2, 2, 10, Some((15, Outcome::Failed))),
            success(3, 3, 12),
            entry(4, 1, 20, Some((21, Outcome::Cancelled))),
        ];
        let expected = [
            (State::Superseded, Kind::Normal, None),
            (State::Failed, Kind::Normal, Some(deployment(1))),
            (State::Succeeded, Kind::Normal, Some(deployment(1))),
            (State::Cancelled, Kind::Rollback, Some(deployment(3))),
        ];
        assert_eq!(derive_all(&story), expected);
    }

    #[test]
    fn a_later_start_overtakes_one_that_has_not_ended() {
        let states = |story: &[Entry]| -> Vec<State> {
            derive_all(story).into_iter().map(|(state, ..)| state).collect()
        };
        let running = entry(1, 1, 0, None);
        assert_eq!(states(std::slice::from_ref(&running)), [State::Running]);
        let overtaken = [running.clone(), entry(2, 2, 5, Some((6, Outcome::Failed)))];
        assert_eq!(states(&overtaken), [State::Cancelled, State::Failed]);
        let both = [running, entry(2, 2, 5, None)];
        assert_eq!(states(&both), [State::Cancelled, State::Running]);
        // Its own end is known later.
        let late = [success(1, 1, 0), entry(2, 2, 5, None)];
        assert_eq!(states(&late), [State::Succeeded, State::Running]);
    }

    /// A place that is kept up to date fact by fact, as `ledger/deployments/store.rs` does it.
    #[derive(Default)]
    struct Place(BTreeMap<DeploymentId, Entry>);

    impl Place {
        /// Takes in new facts of a deployment; `None` declares it void.
        fn report(&mut self, id: DeploymentId, facts: Option<Entry>) {
            let before = self.0.remove(&id);
            let mut changed = facts.clone();
            if let (Some(now), Some(before)) = (&mut changed, &before) {
                now.derived = before.derived;
            }
            let times = [before, facts].into_iter().flatten();
            let times = times.flat_map(|it| [Some(it.started_at), it.end.map(|(at, _)| at)]);
            let Some(since) = times.flatten().min() else { return };
            self.0.extend(changed.map(|now| (id, now)));
            let went_live = |it: &Entry| match it.end {
                Some((at, Outcome::Succeeded)) if at < since => Some((at, it.started_at, it.id)),
                _ => None,
            };
            let live_before = self.0.values().filter_map(went_live).max().map(|(.., id)| id);
            let is_affected = |it: &&Entry| {
                it.started_at >= since
                    || it.end.is_none_or(|(at, _)| at >= since)
                    || Some(it.id) == live_before
            };
            let affected: Vec<Entry> = self.0.values().filter(is_affected).cloned().collect();
            let former = self.0.values().filter(|it| went_live(it).is_some());
            let head = Head { at: Some(since), was_live: former.map(|it| it.release).collect() };
            for (entry, derived) in affected.iter().zip(derive(&head, &affected)) {
                self.0.insert(entry.id, Entry { derived, ..entry.clone() });
            }
        }

        fn derived(&self) -> Vec<Derived> {
            self.0.values().map(|entry| entry.derived).collect()
        }
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            3 => Just(Outcome::Succeeded),
            1 => Just(Outcome::Failed),
            1 => Just(Outcome::Cancelled),
        ]
    }

    /// The facts of up to twelve deployments of five releases in forty minutes: many at the same
    /// minute.
    fn story() -> impl Strategy<Value = Vec<Entry>> {
        let facts = (
            0..5_u32,
            0..40_u32,
            prop::option::weighted(0.85, (0..8_u32, outcome())),
            any::<bool>(),
        );
        prop::collection::vec(facts, 0..12).prop_map(|facts| {
            let entries = facts.into_iter().enumerate();
            entries
                .map(|(n, (version, start, end, is_fix))| {
                    let end = end.map(|(takes, outcome)| (start + takes, outcome));
                    Entry { is_fix, ..entry(u32::try_from(n).unwrap(), version, start, end) }
                })
                .collect()
        })
    }

    /// The story as the order of the times alone tells it.
    fn in_order(story: &[Entry]) -> Vec<Derived> {
        derive(&Head::default(), story)
    }

    proptest! {
        /// Starts, ends, repetitions, corrections and voids of a story, in any order of reporting,
        /// end as the ordered story.
        #[test]
        fn any_order_of_reporting_ends_the_same(
            story in story(),
            mistakes in prop::collection::vec(
                (0..12_usize, 0..40_u32, prop::option::of((0..8_u32, outcome()))),
                0..6,
            ),
            order in prop::collection::vec(any::<prop::sample::Index>(), 36),
        ) {
            let mut reports: Vec<(DeploymentId, Option<Entry>)> = Vec::new();
            for (which, start, end) in mistakes {
                let Some(real) = story.get(which) else { continue };
                let end = end.map(|(takes, outcome)| (start + takes, outcome));
                reports.push((real.id, Some(Entry { id: real.id, ..entry(0, 0, start, end) })));
                reports.push((real.id, None));
            }
            // Last come the right facts of each deployment, each first without its end, in any
            // order, some of them twice.
            let mut right: Vec<&Entry> = story.iter().chain(story.iter().take(4)).collect();
            for (at, index) in order.iter().enumerate().take(right.len()) {
                let other = index.index(right.len());
                right.swap(at, other);
            }
            for entry in right {
                reports.push((entry.id, Some(Entry { end: None, ..entry.clone() })));
                reports.push((entry.id, Some(entry.clone())));
            }
            let mut place = Place::default();
            for (id, facts) in reports {
                place.report(id, facts);
            }
            prop_assert_eq!(place.derived(), in_order(&story));
        }

        /// What is derived from the middle on, given what was derived before, is what is derived
        /// from the start.
        #[test]
        fn deriving_from_the_middle_equals_deriving_from_the_start(
            story in story(),
            at in 0..45_u32,
        ) {
            let whole = in_order(&story);
            let since = minute(at);
            let went_live = |it: &Entry| {
                matches!(it.end, Some((end, Outcome::Succeeded)) if end < since)
            };
            let known: Vec<Entry> = story.iter().zip(&whole)
                .map(|(entry, derived)| Entry { derived: *derived, ..entry.clone() }).collect();
            let was_live = known.iter().filter(|it| went_live(it)).map(|it| it.release).collect();
            let head = Head { at: Some(since), was_live };
            prop_assert_eq!(derive(&head, &known), whole);
        }

        #[test]
        fn one_is_live_one_runs_and_each_success_follows_another(story in story()) {
            let derived = in_order(&story);
            let count = |state| derived.iter().filter(|it| it.state == state).count();
            let succeeded = |it: &&Entry| matches!(it.end, Some((_, Outcome::Succeeded)));
            let successes = story.iter().filter(succeeded).count();
            prop_assert_eq!(count(State::Succeeded), successes.min(1));
            prop_assert!(count(State::Running) <= 1);
            let went_live = derived.iter().filter(|it| it.state.went_live());
            let previous: HashSet<_> = went_live.filter_map(|it| it.previous).collect();
            prop_assert_eq!(previous.len(), successes.saturating_sub(1));
            for it in &derived {
                prop_assert_eq!(it.rollback_of().is_some(), it.kind == Kind::Rollback);
            }
            let went_live = derived.iter().filter(|it| it.state.went_live());
            let rolled_back = went_live.filter(|it| it.kind == Kind::Rollback);
            prop_assert_eq!(count(State::RolledBack), rolled_back.count());
        }
    }
}
