//! What operations hold: jobs that wait for a release, and stand aside until then; and what becomes of them when their
//! host comes and goes.

use super::{Lanes, Place, claim, count_from};
use crate::db::jobs::NewJob;
use crate::dispatcher::admission::Claim;
use crate::dispatcher::lane::Lane;
use fleet_wire::Kind;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A member of an operation: (operation, job).
pub(in crate::dispatcher) type Member = (Uuid, Uuid);

/// What operations hold of some jobs, after something has changed there.
#[derive(Debug, Default)]
pub(in crate::dispatcher) struct Held {
    /// Nothing is in their way any more: they may be released.
    pub(in crate::dispatcher) back: Vec<Member>,
    /// They can't go: others may in their place.
    pub(in crate::dispatcher) away: Vec<Member>,
}

/// What a release came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatcher) enum Released {
    /// The job may go when its turn in this repository comes.
    Ready(Uuid),
    /// Its host is not connected, or something is paused: it stays held.
    Away,
    /// It does not wait any more.
    Gone,
}

impl Lanes {
    /// Adds a job that is about to be written, and that its operation has yet to release.
    pub(in crate::dispatcher) fn add_held(&mut self, new: &NewJob, now: Instant) {
        self.held.insert(new.id);
        let turn = self.next_turn(claim(new).kind);
        self.wait_unwritten(new, turn, now);
    }

    /// Whether a job's operation has yet to release it.
    pub(in crate::dispatcher) fn is_held(&self, job_id: Uuid) -> bool {
        self.held.contains(&job_id)
    }

    /// A job's operation releases it.
    pub(in crate::dispatcher) fn release(&mut self, job_id: Uuid, now: Instant) -> Released {
        let Some(&Place { repository_id, turn: Some(turn), .. }) = self.places.get(&job_id) else {
            return Released::Gone;
        };
        let waiting = self.lanes.get(&repository_id).and_then(|lane| lane.waiting(turn));
        if waiting.is_some_and(|waiting| !self.could_go(repository_id, &waiting.claim)) {
            return Released::Away;
        }
        self.held.remove(&job_id);
        let since = self.count_before(now, Duration::ZERO);
        if let Some(mut waiting) = self.lanes.get_mut(&repository_id).and_then(|lane| lane.stop_waiting(turn)) {
            count_from(Some(since), &mut waiting, &mut self.by_age);
            self.put_back(repository_id, turn, waiting, now);
        }
        Released::Ready(repository_id)
    }

    /// Whether a job could go if its operation let it: its host can take it, and its repository is not paused. One that could
    /// not would only take a place of its operation.
    pub(super) fn could_go(&self, repository_id: Uuid, claim: &Claim) -> bool {
        self.takes(claim) && (claim.kind == Kind::Unlock || !self.pauses.stop_repository(repository_id))
    }

    /// A host can take jobs: what it has waiting takes its place among the others. Gives those that are held: their
    /// operations may release them now.
    pub(in crate::dispatcher) fn host_ready(&mut self, host_id: Uuid, now: Instant) -> Held {
        self.connected.insert(host_id);
        self.move_waiting(host_id, now)
    }

    /// A host can take none: what it has waiting stands aside. Gives those of operations, which are held from now on, so
    /// that others may go in their place.
    pub(in crate::dispatcher) fn host_gone(&mut self, host_id: Uuid, now: Instant) -> Held {
        self.connected.remove(&host_id);
        self.move_waiting(host_id, now)
    }

    /// Looks anew what of a host's waiting jobs could go: a pause of it has begun or ended.
    pub(in crate::dispatcher) fn move_waiting(&mut self, host_id: Uuid, now: Instant) -> Held {
        self.move_jobs(self.of_host(host_id), now)
    }

    /// The same for those of operations that wait for a repository.
    pub(in crate::dispatcher) fn move_members(&mut self, repository_id: Uuid, now: Instant) -> Held {
        let members = self.lanes.get(&repository_id).map(Lane::members).unwrap_or_default();
        self.move_jobs(members, now)
    }

    /// What can't go and is an operation's is held from now on.
    fn move_jobs(&mut self, jobs: Vec<Uuid>, now: Instant) -> Held {
        let (mut held, since) = (Held::default(), self.count_before(now, Duration::ZERO));
        for job_id in jobs {
            let Some(&Place { repository_id, turn: Some(turn), .. }) = self.places.get(&job_id) else { continue };
            let Some(lane) = self.lanes.get_mut(&repository_id) else { continue };
            let Some(mut waiting) = lane.stop_waiting(turn) else { continue };
            let could_go = self.could_go(repository_id, &waiting.claim);
            if !could_go && waiting.operation.is_some() {
                self.held.insert(job_id);
            }
            if self.held.contains(&job_id) {
                count_from((!could_go).then_some(since), &mut waiting, &mut self.by_age);
                let members = if could_go { &mut held.back } else { &mut held.away };
                members.extend(waiting.operation.map(|operation| (operation, job_id)));
            }
            self.put_back(repository_id, turn, waiting, now);
        }
        held
    }
}
