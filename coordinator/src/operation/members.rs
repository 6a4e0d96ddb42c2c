//! Which jobs of an operation may go, and when it is at its end. Pure: the actor carries it out.
//!
//! A member is held until it is released; from then on it takes one of the operation's places until it is over. One
//! whose host is not connected, or that a pause holds up, takes none: it goes back to those that are held. The canaries are
//! the first members, and as long as one of them has not succeeded no other is released.

use crate::db::operations::{Operation, Standing, Tally};
use fleet_wire::Status;
use std::collections::{BTreeSet, HashSet};
use uuid::Uuid;

/// How an operation is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many members go first, alone.
    pub canaries: usize,
    /// How many may be released and not over at once.
    pub max_parallel: Option<usize>,
    /// After how many failures nothing more is let go.
    pub stop_after_failures: Option<usize>,
}

impl Limits {
    /// The limits of an operation in the ledger.
    pub fn of(operation: &Operation) -> Self {
        let count = |count: i64| usize::try_from(count).unwrap_or(0);
        Self {
            canaries: count(operation.canaries),
            max_parallel: operation.max_parallel.map(count),
            stop_after_failures: operation.stop_after_failures.map(count),
        }
    }

    /// Whether some members have to wait for others.
    pub fn hold(&self) -> bool {
        self.canaries > 0 || self.max_parallel.is_some()
    }
}

/// What happens to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its host is not connected, or something is paused: it is held again.
    Away,
    /// It could go again.
    Back,
    /// Its agent is at work on it.
    Began,
    /// It is over.
    Over {
        /// Its terminal status.
        status: Status,
        /// It succeeded, but not wholly.
        partial: bool,
    },
}

/// Why nothing more is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Halted,
    Cancelled,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// These may go.
    pub release: Vec<Uuid>,
    /// Nothing more may go, for this reason: what was not let go is taken back.
    pub halt: Option<String>,
    /// No member is left.
    pub end: bool,
}

/// The members of one operation.
#[derive(Clone, Debug, Default)]
pub struct Members {
    limits: Limits,
    /// Those that wait to be released, in their order.
    held: BTreeSet<Uuid>,
    /// The same whose host is not connected.
    away: BTreeSet<Uuid>,
    /// Those that are released and not over.
    going: HashSet<Uuid>,
    /// Those of them that have begun.
    running: HashSet<Uuid>,
    /// The canaries that have not succeeded.
    canaries: HashSet<Uuid>,
    /// A canary that ended otherwise.
    dead_canary: Option<(Uuid, Status)>,
    tally: Tally,
    stop: Option<Stop>,
}

impl Members {
    /// The members as they stand; `is_held` tells those that wait for a release.
    pub fn new(limits: Limits, standings: &[Standing], is_held: impl Fn(Uuid) -> bool) -> Self {
        let ids: BTreeSet<Uuid> = standings.iter().map(|standing| standing.job_id).collect();
        let mut members = Self { limits, canaries: ids.into_iter().take(limits.canaries).collect(), ..Self::default() };
        for &Standing { job_id, status, partial, .. } in standings {
            if is_held(job_id) && !status.is_terminal() {
                members.held.insert(job_id);
                continue;
            }
            members.going.insert(job_id);
            match status {
                Status::Queued => {}
                Status::Running => members.note(job_id, Event::Began),
                status => members.note(job_id, Event::Over { status, partial }),
            }
        }
        members
    }

    /// Something has happened to a member.
    pub fn note(&mut self, job_id: Uuid, event: Event) {
        match event {
            Event::Away => {
                if self.going.remove(&job_id) || self.held.remove(&job_id) {
                    self.away.insert(job_id);
                }
            }
            Event::Back => {
                if self.away.remove(&job_id) {
                    self.held.insert(job_id);
                }
            }
            Event::Began => {
                if self.going.contains(&job_id) {
                    self.running.insert(job_id);
                }
            }
            Event::Over { status, partial } => self.over(job_id, status, partial),
        }
    }

    fn over(&mut self, job_id: Uuid, status: Status, partial: bool) {
        let open = self.going.remove(&job_id) | self.held.remove(&job_id) | self.away.remove(&job_id);
        if !open {
            return; // what comes late changes no outcome
        }
        self.running.remove(&job_id);
        match status {
            Status::Succeeded => self.tally.succeeded += 1,
            Status::Cancelled => self.tally.cancelled += 1,
            Status::Failed | Status::Queued | Status::Running => self.tally.failed += 1,
        }
        self.tally.partial += i64::from(partial);
        if self.canaries.contains(&job_id) {
            if status == Status::Succeeded {
                self.canaries.remove(&job_id);
            } else {
                self.dead_canary.get_or_insert((job_id, status));
            }
        }
    }

    /// What is to be done now. Asked again after it is done, there is nothing more.
    pub fn decide(&self) -> Actions {
        let halt = self.stop.is_none().then(|| self.reason_to_halt()).flatten();
        let release = if halt.is_some() || self.stop.is_some() { Vec::new() } else { self.next() };
        let end = self.going.is_empty() && self.held.is_empty() && self.away.is_empty();
        Actions { release, halt: halt.filter(|_| !end), end }
    }

    fn reason_to_halt(&self) -> Option<String> {
        if let Some((job_id, status)) = self.dead_canary {
            return Some(format!("job {job_id}, a canary, is {status}"));
        }
        let most = self.limits.stop_after_failures?;
        let failed = usize::try_from(self.tally.failed).unwrap_or(0);
        (failed >= most).then(|| format!("{failed} of its jobs have failed"))
    }

    /// The next ones that may go.
    fn next(&self) -> Vec<Uuid> {
        let places = self.limits.max_parallel.map_or(usize::MAX, |most| most.saturating_sub(self.going.len()));
        if self.canaries.is_empty() {
            self.held.iter().copied().take(places).collect()
        } else {
            let mut canaries: Vec<Uuid> = self.canaries.iter().copied().filter(|id| self.held.contains(id)).collect();
            canaries.sort_unstable();
            canaries.truncate(places);
            canaries
        }
    }

    /// These were released.
    pub fn released(&mut self, job_ids: &[Uuid]) {
        for job_id in job_ids {
            if self.held.remove(job_id) {
                self.going.insert(*job_id);
            }
        }
    }

    /// Nothing more is released, for too much has failed.
    pub fn halt(&mut self) {
        self.stop.get_or_insert(Stop::Halted);
    }

    /// Nothing more is released, for somebody wants the end.
    pub fn cancel(&mut self) {
        self.stop = Some(Stop::Cancelled);
    }

    /// Those that are not over.
    pub fn open(&self) -> Vec<Uuid> {
        self.held.iter().chain(&self.away).chain(&self.going).copied().collect()
    }

    /// Those that are not over and have not begun: they may have been let go or not.
    pub fn not_begun(&self) -> Vec<Uuid> {
        self.open().into_iter().filter(|id| !self.running.contains(id)).collect()
    }

    /// How many have ended how.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How many have yet to begin, and how many are being worked on.
    pub fn queued_and_running(&self) -> (usize, usize) {
        let open = self.held.len() + self.away.len() + self.going.len();
        (open - self.running.len(), self.running.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn standing(number: u128, status: Status) -> Standing {
        Standing { job_id: id(number), status, partial: false, dispatched: status != Status::Queued }
    }

    fn held(limits: Limits, count: u128) -> Members {
        let standings: Vec<_> = (1..=count).map(|number| standing(number, Status::Queued)).collect();
        Members::new(limits, &standings, |_| true)
    }

    /// Releases what may go; its numbers.
    fn go(members: &mut Members) -> Vec<u128> {
        let release = members.decide().release;
        members.released(&release);
        assert!(members.decide().release.is_empty(), "asked again there is nothing more");
        release.iter().map(Uuid::as_u128).collect()
    }

    fn ends(members: &mut Members, number: u128, status: Status) {
        members.note(id(number), Event::Over { status, partial: false });
    }

    const NONE: [u128; 0] = [];

    #[test]
    fn without_limits_all_go_and_the_last_one_is_the_end() {
        let mut members = held(Limits::default(), 3);
        assert_eq!(go(&mut members), [1, 2, 3]);
        members.note(id(2), Event::Began);
        assert_eq!(members.queued_and_running(), (2, 1));
        ends(&mut members, 1, Status::Failed);
        members.note(id(2), Event::Over { status: Status::Succeeded, partial: true });
        ends(&mut members, 2, Status::Failed);
        assert!(!members.decide().end);
        ends(&mut members, 3, Status::Cancelled);
        assert_eq!(members.decide(), Actions { end: true, ..Actions::default() });
        assert_eq!(members.tally(), Tally { succeeded: 1, partial: 1, failed: 1, cancelled: 1 });
    }

    #[test]
    fn no_more_go_at_once_than_may_and_who_is_away_takes_no_place() {
        let mut members = held(Limits { max_parallel: Some(2), ..Limits::default() }, 5);
        assert_eq!(go(&mut members), [1, 2]);
        members.note(id(1), Event::Away);
        assert_eq!(go(&mut members), [3]);
        members.note(id(1), Event::Back);
        assert_eq!(go(&mut members), NONE);
        ends(&mut members, 2, Status::Succeeded);
        assert_eq!(go(&mut members), [1]);
        // One that is held can end too: somebody cancels it.
        ends(&mut members, 4, Status::Cancelled);
        ends(&mut members, 1, Status::Succeeded);
        assert_eq!(go(&mut members), [5]);
    }

    #[test]
    fn the_rest_goes_when_all_canaries_have_succeeded() {
        let limits = Limits { canaries: 2, max_parallel: Some(1), ..Limits::default() };
        let mut members = held(limits, 4);
        assert_eq!(go(&mut members), [1]);
        ends(&mut members, 1, Status::Succeeded);
        assert_eq!(go(&mut members), [2]);
        ends(&mut members, 2, Status::Succeeded);
        assert_eq!(go(&mut members), [3]);
        assert_eq!(members.decide().halt, None);
    }

    #[test]
    fn a_canary_that_does_not_succeed_halts_the_rest_once() {
        for status in [Status::Failed, Status::Cancelled] {
            let mut members = held(Limits { canaries: 1, ..Limits::default() }, 3);
            assert_eq!(go(&mut members), [1]);
            ends(&mut members, 1, status);
            let actions = members.decide();
            assert!(actions.halt.is_some_and(|why| why.contains(&id(1).to_string())) && actions.release.is_empty());
            members.halt();
            assert_eq!(members.decide(), Actions::default());
            assert_eq!(members.not_begun(), [id(2), id(3)]);
            ends(&mut members, 2, Status::Cancelled);
            ends(&mut members, 3, Status::Cancelled);
            assert!(members.decide().end);
        }
    }

    #[test]
    fn too_many_failures_halt_it_and_the_last_one_needs_no_halt() {
        let limits = Limits { stop_after_failures: Some(2), ..Limits::default() };
        let mut members = held(limits, 4);
        go(&mut members);
        ends(&mut members, 1, Status::Failed);
        ends(&mut members, 2, Status::Succeeded);
        assert_eq!(members.decide().halt, None);
        ends(&mut members, 3, Status::Failed);
        assert!(members.decide().halt.is_some());
        ends(&mut members, 4, Status::Succeeded);
        assert_eq!(members.decide(), Actions { end: true, ..Actions::default() }, "there is nothing left to stop");
    }

    #[test]
    fn after_a_restart_it_goes_on_where_it_was() {
        let limits = Limits { canaries: 1, max_parallel: Some(2), ..Limits::default() };
        let is_held = |job: Uuid| job.as_u128() >= 3;
        let standings = |first, second| {
            let waiting = (3..=5).map(|number| standing(number, Status::Queued));
            [standing(1, first), standing(2, second)].into_iter().chain(waiting).collect::<Vec<_>>()
        };
        let mut members = Members::new(limits, &standings(Status::Succeeded, Status::Running), is_held);
        assert_eq!(go(&mut members), [3]);
        assert_eq!(members.queued_and_running(), (3, 1));
        let mut members = Members::new(limits, &standings(Status::Running, Status::Running), is_held);
        assert_eq!(go(&mut members), NONE, "the canary is still at it");
        let members = Members::new(limits, &standings(Status::Failed, Status::Running), is_held);
        assert!(members.decide().halt.is_some());
    }

    #[test]
    fn a_cancel_lets_nothing_go() {
        let mut members = held(Limits { max_parallel: Some(1), ..Limits::default() }, 2);
        go(&mut members);
        members.cancel();
        members.halt();
        ends(&mut members, 1, Status::Cancelled);
        assert_eq!((go(&mut members), members.open()), (vec![], vec![id(2)]));
    }

    proptest! {
        /// Whatever happens in whatever order: no more places are taken than there are, nothing overtakes the canaries,
        /// and everyone who is not over is somewhere.
        #[test]
        fn limits_hold_in_any_order(
            canaries in 0_usize..4,
            most in 1_usize..4,
            happens in prop::collection::vec((1_u128..9, 0_u8..6), 0..80),
        ) {
            let limits = Limits { canaries, max_parallel: Some(most), ..Limits::default() };
            let mut members = held(limits, 8);
            let mut over = HashSet::new();
            for (number, what) in happens {
                go(&mut members);
                if what >= 3 {
                    over.insert(number);
                }
                let event = match what {
                    0 => Event::Away,
                    1 => Event::Back,
                    2 => Event::Began,
                    3 => Event::Over { status: Status::Failed, partial: false },
                    _ => Event::Over { status: Status::Succeeded, partial: false },
                };
                members.note(id(number), event);
                let released: Vec<u128> = go(&mut members).into_iter().collect();
                prop_assert!(members.going.len() <= most);
                prop_assert!(members.canaries.is_empty() || released.iter().all(|&number| number <= canaries as u128));
                let (queued, running) = members.queued_and_running();
                prop_assert_eq!(queued + running, 8 - over.len());
                prop_assert_eq!(members.open().len(), 8 - over.len());
            }
        }
    }
}
