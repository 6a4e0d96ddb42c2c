//! The jobs that are not over, in a [`Lane`] for each repository, and how many backups may be out in all.
//!
//! While the fleet has its limit of backups, the first of each lane that could go otherwise is in one index, by its
//! turn: the place that becomes free is that of the one which has waited longest.
//!
//! Whatever happens to one job or host costs the same however many others there are.

mod census;
mod held;
mod look;

pub(super) use held::{Held, Member, Released};

use super::admission::{Claim, Turn};
use super::lane::{Lane, Terms, Waiting};
use crate::config::Leases;
use crate::db::jobs::{Job as JobRecord, NewJob};
use crate::db::pauses::Target;
use crate::pauses::Pauses;
use fleet_wire::Kind;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Where a job is.
#[derive(Clone)]
struct Place {
    repository_id: Uuid,
    host_id: Uuid,
    /// Absent once it is out.
    turn: Option<Turn>,
    /// What it backs up.
    source_group: Option<Arc<str>>,
}

/// All lanes, and where each job and host is in them.
pub(super) struct Lanes {
    leases: Leases,
    /// The repositories with a limit of their own.
    most_backups: HashMap<Uuid, u32>,
    pauses: Arc<Pauses>,
    lanes: HashMap<Uuid, Lane>,
    /// How many have asked so far.
    asked: u64,
    /// In all repositories.
    backups_out: u32,
    /// The backups that wait for nothing but their place in the fleet: the first of each repository.
    heads: BTreeSet<(Turn, Uuid)>,
    places: HashMap<Uuid, Place>,
    jobs_of_host: HashMap<Uuid, HashSet<Uuid>>,
    /// When these were made: waiting counts in milliseconds from then on, by a clock that nobody sets; below zero it is what was
    /// before.
    began: Instant,
    /// Those that wait, are written and are not only held, the oldest first.
    by_age: BTreeSet<(i64, Uuid)>,
    connected: HashSet<Uuid>,
    /// Waiting jobs that their operation has yet to release.
    held: HashSet<Uuid>,
}

/// A row whose kind this version does not know gets the strictest lease.
fn claim(new: &NewJob) -> Claim {
    Claim { job_id: new.id, host_id: new.host_id, kind: new.kind.parse().unwrap_or(Kind::Prune) }
}

/// A written job's waiting counts from `since` on, or not at all.
fn count_from(since: Option<i64>, waiting: &mut Waiting, by_age: &mut BTreeSet<(i64, Uuid)>) {
    let job_id = waiting.claim.job_id;
    if let Some(before) = waiting.since.take() {
        by_age.remove(&(before, job_id));
    }
    waiting.since = since.filter(|_| waiting.job.is_some());
    by_age.extend(waiting.since.map(|since| (since, job_id)));
}

impl Lanes {
    /// No jobs yet. `most_backups` are the limits that repositories have of their own.
    pub(super) fn new(leases: Leases, most_backups: HashMap<Uuid, u32>, pauses: Arc<Pauses>) -> Self {
        Self {
            leases,
            most_backups,
            pauses,
            lanes: HashMap::new(),
            asked: 0,
            backups_out: 0,
            heads: BTreeSet::new(),
            places: HashMap::new(),
            jobs_of_host: HashMap::new(),
            began: Instant::now(),
            by_age: BTreeSet::new(),
            connected: HashSet::new(),
            held: HashSet::new(),
        }
    }

    /// What counts in a repository.
    fn terms(&self, repository_id: Uuid) -> Terms {
        let usual = self.leases.backups_per_repository.map(NonZeroU32::get);
        Terms {
            most_backups: self.most_backups.get(&repository_id).copied().or(usual),
            paused: self.pauses.stop_repository(repository_id),
        }
    }

    /// How long a job of this kind lets others overtake it. An init does not: without it nothing of its host can work.
    fn drain_after(&self, kind: Kind) -> Duration {
        if kind == Kind::Init { Duration::ZERO } else { self.leases.drain_after }
    }

    /// Whether the fleet has a place for one more backup.
    fn has_place(&self) -> bool {
        self.leases.backups_at_once.is_none_or(|most| self.backups_out < most.get())
    }

    /// Whether a host can take a job. One that is paused takes unlocks only.
    fn takes(&self, claim: &Claim) -> bool {
        let paused = || self.pauses.get(Target::Host(claim.host_id)).is_some();
        self.connected.contains(&claim.host_id) && (claim.kind == Kind::Unlock || !paused())
    }

    /// Whether a job may take its turn: its host can take it, and its operation does not hold it.
    fn is_ready(&self, claim: &Claim) -> bool {
        self.takes(claim) && !self.held.contains(&claim.job_id)
    }

    /// Notes where a job is, and gives its lane.
    fn index(&mut self, new: &NewJob, turn: Option<Turn>) -> &mut Lane {
        let source_group = new.source_group.as_deref().map(Arc::from);
        let NewJob { id, host_id, repository_id, .. } = *new;
        self.places.insert(id, Place { repository_id, host_id, turn, source_group });
        self.jobs_of_host.entry(host_id).or_default().insert(id);
        self.lanes.entry(repository_id).or_default()
    }

    fn next_turn(&mut self, kind: Kind) -> Turn {
        self.asked += 1;
        Turn::new(kind, self.asked)
    }

    fn count_out(&mut self, kind: Kind) {
        self.backups_out += u32::from(kind == Kind::Backup);
    }

    /// A time as waiting counts, so long before now.
    fn count_before(&self, now: Instant, waited: Duration) -> i64 {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        millis(now.saturating_duration_since(self.began)).saturating_sub(millis(waited))
    }

    fn wait(&mut self, new: &NewJob, turn: Turn, waiting: Waiting, drains_at: Instant) {
        let ready = self.is_ready(&waiting.claim);
        self.index(new, Some(turn)).wait(turn, waiting, ready, drains_at);
    }

    /// Adds a job that was out before the start.
    pub(super) fn add_out(&mut self, new: &NewJob) {
        let claim = claim(new);
        self.count_out(claim.kind);
        self.index(new, None).go_out(claim);
    }

    /// Adds a job that its agent has told of, if it is not known.
    pub(super) fn add_found(&mut self, new: &NewJob) {
        if !self.contains(new.id) {
            self.add_out(new);
        }
    }

    /// Adds a job that has waited for so long before the start. Its drain time counts as long. One of an operation is held until
    /// that has looked at all of them, and how long it was held before is not known.
    pub(super) fn add_waiting(&mut self, job: JobRecord, waited: Duration, now: Instant) {
        let (new, claim) = (Arc::clone(&job.new), claim(&job.new));
        if new.operation_id.is_some() {
            self.held.insert(new.id);
        }
        let turn = self.next_turn(claim.kind);
        let counted = if self.held.contains(&new.id) { Duration::ZERO } else { waited };
        let drains_at = now + self.drain_after(claim.kind).saturating_sub(waited);
        let operation = new.operation_id;
        let mut waiting = Waiting { claim, operation, since: None, job: Some(job), drains_at: Some(drains_at) };
        count_from(Some(self.count_before(now, counted)), &mut waiting, &mut self.by_age);
        self.wait(&new, turn, waiting, drains_at);
    }

    /// Adds a job that is about to be written; true if it has its lease already.
    pub(super) fn add_new(&mut self, new: &NewJob, now: Instant) -> bool {
        let claim = claim(new);
        let turn = self.next_turn(claim.kind);
        let terms = self.terms(new.repository_id);
        let place = claim.kind != Kind::Backup || self.has_place();
        let ready = self.is_ready(&claim) && place;
        let lane = self.lanes.entry(new.repository_id).or_default();
        let free = ready && lane.scene(terms, now).hinders(claim.kind, turn).is_none();
        if free {
            self.add_out(new);
        } else {
            self.wait_unwritten(new, turn, now);
        }
        free
    }

    fn wait_unwritten(&mut self, new: &NewJob, turn: Turn, now: Instant) {
        let claim = claim(new);
        let drains_at = now + self.drain_after(claim.kind);
        let waiting = Waiting { claim, operation: new.operation_id, since: None, job: None, drains_at: None };
        self.wait(new, turn, waiting, drains_at);
    }

    /// Lets a job wait on, ready or aside.
    fn put_back(&mut self, repository_id: Uuid, turn: Turn, waiting: Waiting, now: Instant) {
        let (ready, drains_at) = (self.is_ready(&waiting.claim), now + self.drain_after(waiting.claim.kind));
        if let Some(lane) = self.lanes.get_mut(&repository_id) {
            lane.wait(turn, waiting, ready, drains_at);
        }
    }

    /// The row of a waiting job is written: it may go when its turn comes.
    pub(super) fn committed(&mut self, job: JobRecord, now: Instant) {
        let Some(Place { repository_id, turn: Some(turn), .. }) = self.places.get(&job.new.id) else { return };
        let only_held = self.held.contains(&job.new.id) && self.could_go(*repository_id, &claim(&job.new));
        let since = (!only_held).then(|| self.count_before(now, Duration::ZERO));
        if let Some(lane) = self.lanes.get_mut(repository_id) {
            lane.committed(*turn, job);
            if let Some(waiting) = lane.waiting_mut(*turn) {
                count_from(since, waiting, &mut self.by_age);
            }
        }
    }

    /// The waiting of a job counts as if it had lasted for so long; nothing while only its operation is in its way.
    pub(super) fn count_waiting(&mut self, job_id: Uuid, waited: Duration, now: Instant) {
        let Some(&Place { repository_id, turn: Some(turn), .. }) = self.places.get(&job_id) else { return };
        let since = self.count_before(now, waited);
        let waiting = self.lanes.get_mut(&repository_id).and_then(|lane| lane.waiting_mut(turn));
        if let Some(waiting) = waiting.filter(|waiting| waiting.since.is_some()) {
            count_from(Some(since), waiting, &mut self.by_age);
        }
    }

    /// All waiting in a repository counts from now on.
    pub(super) fn count_anew(&mut self, repository_id: Uuid, now: Instant) {
        for job_id in self.lanes.get(&repository_id).map(Lane::waiting_jobs).unwrap_or_default() {
            self.count_waiting(job_id, Duration::ZERO, now);
        }
    }

    /// Something has changed in a repository: gives leases to those that may go now, and hands them over. Among them may
    /// be backups of other repositories, for a place in the fleet is that of whoever has waited longest.
    pub(super) fn grant(&mut self, repository_id: Uuid, now: Instant) -> Vec<JobRecord> {
        let mut going = Vec::new();
        let terms = self.terms(repository_id);
        while let Some(turn) = self.lanes.get_mut(&repository_id).and_then(|lane| lane.next_other(terms, now)) {
            going.extend(self.let_go(repository_id, turn));
        }
        self.find_head(repository_id, now);
        while self.has_place()
            && let Some((turn, repository_id)) = self.heads.pop_first()
        {
            // It may be stale: time has passed, or the job has gone.
            let terms = self.terms(repository_id);
            let next = self.lanes.get_mut(&repository_id).and_then(|lane| lane.next_backup(terms, now));
            if next == Some(turn) {
                going.extend(self.let_go(repository_id, turn));
            }
            self.find_head(repository_id, now);
        }
        going
    }

    /// Puts the backup of a repository that may go into the index.
    fn find_head(&mut self, repository_id: Uuid, now: Instant) {
        let terms = self.terms(repository_id);
        let Some(lane) = self.lanes.get_mut(&repository_id) else { return };
        let head = lane.next_backup(terms, now);
        if let Some(turn) = std::mem::replace(&mut lane.head, head) {
            self.heads.remove(&(turn, repository_id));
        }
        self.heads.extend(head.map(|turn| (turn, repository_id)));
    }

    /// Gives a waiting job that is written its lease, and hands it over.
    fn let_go(&mut self, repository_id: Uuid, turn: Turn) -> Option<JobRecord> {
        let lane = self.lanes.get_mut(&repository_id)?;
        lane.waiting(turn)?.job.as_ref()?;
        let mut waiting = lane.stop_waiting(turn)?;
        count_from(None, &mut waiting, &mut self.by_age);
        let Waiting { claim, job, .. } = waiting;
        lane.go_out(claim);
        self.count_out(claim.kind);
        self.held.remove(&claim.job_id);
        if let Some(place) = self.places.get_mut(&claim.job_id) {
            place.turn = None;
        }
        job
    }

    /// Makes a committed waiting job one that is out, whatever is in its way, and hands it over: it ends without being
    /// sent, or its agent has it already.
    pub(super) fn force_out(&mut self, job_id: Uuid) -> Option<JobRecord> {
        let place = self.places.get(&job_id)?;
        let (repository_id, turn) = (place.repository_id, place.turn?);
        self.let_go(repository_id, turn)
    }

    /// Forgets a job; returns its repository, where others may go now.
    pub(super) fn remove(&mut self, job_id: Uuid) -> Option<Uuid> {
        let Place { repository_id, host_id, turn, .. } = self.places.remove(&job_id)?;
        self.held.remove(&job_id);
        if let Some(jobs) = self.jobs_of_host.get_mut(&host_id) {
            jobs.remove(&job_id);
            if jobs.is_empty() {
                self.jobs_of_host.remove(&host_id);
            }
        }
        let lane = self.lanes.get_mut(&repository_id)?;
        match turn {
            Some(turn) => {
                if let Some(mut waiting) = lane.stop_waiting(turn) {
                    count_from(None, &mut waiting, &mut self.by_age);
                }
            }
            None => {
                let backup = lane.come_back(job_id).is_some_and(|claim| claim.kind == Kind::Backup);
                self.backups_out -= u32::from(backup);
            }
        }
        if lane.is_empty() {
            if let Some(turn) = lane.head {
                self.heads.remove(&(turn, repository_id));
            }
            self.lanes.remove(&repository_id);
        }
        Some(repository_id)
    }

    /// Sets how many backups may be out at once in a repository; without a number what is usual.
    pub(super) fn limit_backups(&mut self, repository_id: Uuid, most: Option<u32>) {
        match most {
            Some(most) => self.most_backups.insert(repository_id, most),
            None => self.most_backups.remove(&repository_id),
        };
    }
}

#[cfg(test)]
mod tests;
