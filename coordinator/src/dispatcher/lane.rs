//! One repository: the jobs that are out in it, and those that wait for it in the order of asking. Those of hosts that
//! are offline or paused stand aside and hold up nobody; so do those that their operation holds.

use super::admission::{self, Claim, Hindrance, Kinds, Scene, Turn};
use crate::db::jobs::Job as JobRecord;
use fleet_wire::Kind;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;
use uuid::Uuid;

/// A waiting job, with what its actor needs once it may go.
pub(super) struct Waiting {
    pub(super) claim: Claim,
    /// The operation that it belongs to.
    pub(super) operation: Option<Uuid>,
    /// From when its waiting counts, as [`Lanes`](super::lanes::Lanes) count; absent while only its operation is in its way.
    pub(super) since: Option<i64>,
    /// Absent until its row is committed: before that it keeps its place but does not go.
    pub(super) job: Option<JobRecord>,
    /// From when on an exclusive one lets nobody overtake it; absent until it could go for the first time.
    pub(super) drains_at: Option<Instant>,
}

/// What counts in a repository beside its jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) most_backups: Option<u32>,
    pub(super) paused: bool,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Lane {
    out: HashMap<Uuid, Claim>,
    held: Kinds,
    /// Of hosts that can take jobs,
    ready: BTreeMap<Turn, Waiting>,
    /// by kind,
    of_kind: [BTreeSet<Turn>; Kind::ALL.len()],
    /// the backups whose row is written,
    written: BTreeSet<Turn>,
    /// and exclusive ones, those whose drain time is over and the others.
    drained: BTreeSet<Turn>,
    draining: BTreeSet<(Instant, Turn)>,
    /// Of hosts that can't.
    aside: BTreeMap<Turn, Waiting>,
    /// The backup that waits for its place in the fleet.
    pub(super) head: Option<Turn>,
}

impl Lane {
    /// A job has its lease.
    pub(super) fn go_out(&mut self, claim: Claim) {
        self.held.add(claim.kind);
        self.out.insert(claim.job_id, claim);
    }

    /// A job gives its lease back.
    pub(super) fn come_back(&mut self, job_id: Uuid) -> Option<Claim> {
        let claim = self.out.remove(&job_id)?;
        self.held.take(claim.kind);
        Some(claim)
    }

    /// The claim of a job that is out.
    pub(super) fn out(&self, job_id: Uuid) -> Option<Claim> {
        self.out.get(&job_id).copied()
    }

    /// A job that is out and conflicts with one of this kind.
    pub(super) fn holder(&self, kind: Kind) -> Option<Claim> {
        self.out.values().find(|claim| admission::conflict(kind, claim.kind)).copied()
    }

    /// A job waits; one that is not `ready` stands aside. What its drain time was once it was ready for the first time it
    /// stays: a host that comes and goes does not begin anew. It is `drains_at` if that is now.
    pub(super) fn wait(&mut self, turn: Turn, mut waiting: Waiting, ready: bool, drains_at: Instant) {
        if !ready {
            self.aside.insert(turn, waiting);
            return;
        }
        let kind = waiting.claim.kind;
        self.of_kind[kind as usize].insert(turn);
        if admission::is_exclusive(kind) {
            let drains_at = *waiting.drains_at.get_or_insert(drains_at);
            self.draining.insert((drains_at, turn));
        }
        if kind == Kind::Backup && waiting.job.is_some() {
            self.written.insert(turn);
        }
        self.ready.insert(turn, waiting);
    }

    /// A job waits no longer.
    pub(super) fn stop_waiting(&mut self, turn: Turn) -> Option<Waiting> {
        let Some(waiting) = self.ready.remove(&turn) else { return self.aside.remove(&turn) };
        self.of_kind[waiting.claim.kind as usize].remove(&turn);
        self.written.remove(&turn);
        self.drained.remove(&turn);
        if let Some(drains_at) = waiting.drains_at {
            self.draining.remove(&(drains_at, turn));
        }
        Some(waiting)
    }

    /// The row of a waiting job is written.
    pub(super) fn committed(&mut self, turn: Turn, job: JobRecord) {
        if let Some(waiting) = self.ready.get_mut(&turn) {
            if waiting.claim.kind == Kind::Backup {
                self.written.insert(turn);
            }
            waiting.job = Some(job);
        } else if let Some(waiting) = self.aside.get_mut(&turn) {
            waiting.job = Some(job);
        }
    }

    pub(super) fn waiting(&self, turn: Turn) -> Option<&Waiting> {
        self.ready.get(&turn).or_else(|| self.aside.get(&turn))
    }

    pub(super) fn waiting_mut(&mut self, turn: Turn) -> Option<&mut Waiting> {
        self.ready.get_mut(&turn).or_else(|| self.aside.get_mut(&turn))
    }

    /// How many have their lease.
    pub(super) fn count_out(&self) -> usize {
        self.out.len()
    }

    /// Those that wait, and whether they are ready.
    pub(super) fn all_waiting(&self) -> impl Iterator<Item = (&Waiting, bool)> {
        let ready = self.ready.values().map(|waiting| (waiting, true));
        ready.chain(self.aside.values().map(|waiting| (waiting, false)))
    }

    /// The waiting jobs that are operations'.
    pub(super) fn members(&self) -> Vec<Uuid> {
        let waiting = self.ready.values().chain(self.aside.values());
        waiting.filter(|waiting| waiting.operation.is_some()).map(|waiting| waiting.claim.job_id).collect()
    }

    /// All that waits.
    pub(super) fn waiting_jobs(&self) -> Vec<Uuid> {
        self.ready.values().chain(self.aside.values()).map(|waiting| waiting.claim.job_id).collect()
    }

    pub(super) fn is_ready(&self, turn: Turn) -> bool {
        self.ready.contains_key(&turn)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.ready.is_empty() && self.aside.is_empty()
    }

    /// What decides here at `now`.
    pub(super) fn scene(&mut self, terms: Terms, now: Instant) -> Scene {
        while let Some((drains_at, turn)) = self.draining.pop_first() {
            if drains_at > now {
                self.draining.insert((drains_at, turn));
                break;
            }
            self.drained.insert(turn);
        }
        let of_kind = |kind: Kind| Some((*self.of_kind[kind as usize].first()?, kind));
        let exclusive = Kind::ALL.iter().copied().filter(|kind| admission::is_exclusive(*kind)).filter_map(of_kind);
        Scene {
            held: self.held,
            exclusive: exclusive.min_by_key(|(turn, _)| *turn),
            drained: self.drained.first().copied(),
            backup: of_kind(Kind::Backup).map(|(turn, _)| turn),
            most_backups: terms.most_backups,
            paused: terms.paused,
        }
    }

    /// What keeps a waiting job from going, but for the limit of the fleet.
    pub(super) fn hindrance(&mut self, turn: Turn, terms: Terms, now: Instant) -> Option<Hindrance> {
        let kind = self.ready.get(&turn)?.claim.kind;
        self.scene(terms, now).hinders(kind, turn)
    }

    /// The next job other than a backup that may go: its turn.
    pub(super) fn next_other(&mut self, terms: Terms, now: Instant) -> Option<Turn> {
        let scene = self.scene(terms, now);
        let may_go = |(turn, kind): &(Turn, Kind)| scene.hinders(*kind, *turn).is_none();
        let written = |turn: &Turn| self.ready.get(turn).is_some_and(|waiting| waiting.job.is_some());
        let exclusive = scene.exclusive.filter(may_go).map(|(turn, _)| turn).filter(written);
        let unlocks = || self.of_kind[Kind::Unlock as usize].iter().copied().find(written);
        exclusive.or_else(|| unlocks().filter(|turn| may_go(&(*turn, Kind::Unlock))))
    }

    /// The next backup that may go if the fleet has a place for it: its turn.
    pub(super) fn next_backup(&mut self, terms: Terms, now: Instant) -> Option<Turn> {
        let first = *self.written.first()?;
        self.scene(terms, now).hinders(Kind::Backup, first).is_none().then_some(first)
    }
}
