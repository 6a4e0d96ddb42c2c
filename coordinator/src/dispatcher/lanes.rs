//! The jobs that are not over, in a [`Lane`] for each repository, and how many backups may be out in all.
//!
//! While the fleet has its limit of backups, the first of each lane that could go otherwise is in one index, by its
//! turn: the place that becomes free is that of the one which has waited longest.
//!
//! Whatever happens to one job or host costs the same however many others there are.

use super::admission::{Claim, Hindrance, Obstacle, Turn};
use super::lane::{Lane, Terms, Waiting};
use crate::config::Leases;
use crate::db::jobs::{Job as JobRecord, NewJob};
use crate::db::pauses::Target;
use crate::pauses::Pauses;
use chrono::Utc;
use fleet_wire::{Kind, Timestamp};
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
    /// Those that wait, are written and are not only held, the oldest first.
    by_age: BTreeSet<(Timestamp, Uuid)>,
    connected: HashSet<Uuid>,
    /// Waiting jobs that their operation has yet to release.
    held: HashSet<Uuid>,
}

/// A member of an operation: (operation, job).
pub(super) type Member = (Uuid, Uuid);

/// What operations hold of a host's jobs, after something has changed there.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The host can take them: they may be released.
    pub(super) back: Vec<Member>,
    /// It can't: others may go in their place.
    pub(super) away: Vec<Member>,
}

/// What a release came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// The job may go when its turn in this repository comes.
    Ready(Uuid),
    /// Its host is not connected, or paused: it stays held.
    Away,
    /// It does not wait any more.
    Gone,
}

/// A row whose kind this version does not know gets the strictest lease.
fn claim(new: &NewJob) -> Claim {
    Claim { job_id: new.id, host_id: new.host_id, kind: new.kind.parse().unwrap_or(Kind::Prune) }
}

/// A written job's waiting counts from `since` on, or not at all.
fn count_from(since: Option<Timestamp>, waiting: &mut Waiting, by_age: &mut BTreeSet<(Timestamp, Uuid)>) {
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

    fn wait(&mut self, new: &NewJob, turn: Turn, mut waiting: Waiting, drains_at: Instant) {
        let ready = self.is_ready(&waiting.claim);
        // How long its operation has held it before a start is not known.
        let since = if self.held.contains(&new.id) { Utc::now() } else { new.created_at };
        count_from(Some(since), &mut waiting, &mut self.by_age);
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

    /// Adds a job that waited before the start. Its drain time is counted from when it was made. One of an operation is held
    /// until that has looked at all of them.
    pub(super) fn add_waiting(&mut self, job: JobRecord, now: Instant) {
        let (new, claim) = (Arc::clone(&job.new), claim(&job.new));
        if new.operation_id.is_some() {
            self.held.insert(new.id);
        }
        let turn = self.next_turn(claim.kind);
        let waited = (Utc::now() - job.new.created_at).to_std().unwrap_or_default();
        let drains_at = now + self.drain_after(claim.kind).saturating_sub(waited);
        let operation = new.operation_id;
        let waiting = Waiting { claim, operation, since: None, job: Some(job), drains_at: Some(drains_at) };
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

    /// Adds a job that is about to be written, and that its operation has yet to release.
    pub(super) fn add_held(&mut self, new: &NewJob, now: Instant) {
        self.held.insert(new.id);
        let turn = self.next_turn(claim(new).kind);
        self.wait_unwritten(new, turn, now);
    }

    /// Whether a job's operation has yet to release it.
    pub(super) fn is_held(&self, job_id: Uuid) -> bool {
        self.held.contains(&job_id)
    }

    /// A job's operation releases it.
    pub(super) fn release(&mut self, job_id: Uuid, now: Instant) -> Released {
        let Some(&Place { repository_id, turn: Some(turn), .. }) = self.places.get(&job_id) else {
            return Released::Gone;
        };
        let waiting = self.lanes.get(&repository_id).and_then(|lane| lane.waiting(turn));
        if waiting.is_some_and(|waiting| !self.takes(&waiting.claim)) {
            return Released::Away;
        }
        self.held.remove(&job_id);
        if let Some(mut waiting) = self.lanes.get_mut(&repository_id).and_then(|lane| lane.stop_waiting(turn)) {
            count_from(Some(Utc::now()), &mut waiting, &mut self.by_age);
            self.put_back(repository_id, turn, waiting, now);
        }
        Released::Ready(repository_id)
    }

    /// Lets a job wait on, ready or aside.
    fn put_back(&mut self, repository_id: Uuid, turn: Turn, waiting: Waiting, now: Instant) {
        let (ready, drains_at) = (self.is_ready(&waiting.claim), now + self.drain_after(waiting.claim.kind));
        if let Some(lane) = self.lanes.get_mut(&repository_id) {
            lane.wait(turn, waiting, ready, drains_at);
        }
    }

    /// The row of a waiting job is written: it may go when its turn comes.
    pub(super) fn committed(&mut self, job: JobRecord) {
        let Some(Place { repository_id, turn: Some(turn), .. }) = self.places.get(&job.new.id) else { return };
        let only_held = self.held.contains(&job.new.id) && self.takes(&claim(&job.new));
        let since = (!only_held).then_some(job.new.created_at);
        if let Some(lane) = self.lanes.get_mut(repository_id) {
            lane.committed(*turn, job);
            if let Some(waiting) = lane.waiting_mut(*turn) {
                count_from(since, waiting, &mut self.by_age);
            }
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

    /// The repositories in which there are jobs that are not over.
    pub(super) fn repositories(&self) -> Vec<Uuid> {
        self.lanes.keys().copied().collect()
    }

    /// A host can take jobs: what it has waiting takes its place among the others. Gives those that are held: their
    /// operations may release them now.
    pub(super) fn host_ready(&mut self, host_id: Uuid, now: Instant) -> Held {
        self.connected.insert(host_id);
        self.move_waiting(host_id, now)
    }

    /// A host can take none: what it has waiting stands aside. Gives those of operations, which are held from now on, so
    /// that others may go in their place.
    pub(super) fn host_gone(&mut self, host_id: Uuid, now: Instant) -> Held {
        self.connected.remove(&host_id);
        self.move_waiting(host_id, now)
    }

    /// Looks anew whether a host can take what it has waiting. What it can't take and is an operation's is held from now on.
    pub(super) fn move_waiting(&mut self, host_id: Uuid, now: Instant) -> Held {
        let mut held = Held::default();
        for job_id in self.of_host(host_id) {
            let Some(&Place { repository_id, turn: Some(turn), .. }) = self.places.get(&job_id) else { continue };
            let Some(lane) = self.lanes.get_mut(&repository_id) else { continue };
            let Some(mut waiting) = lane.stop_waiting(turn) else { continue };
            let takes = self.takes(&waiting.claim);
            if !takes && waiting.operation.is_some() {
                self.held.insert(job_id);
            }
            if self.held.contains(&job_id) {
                count_from((!takes).then(Utc::now), &mut waiting, &mut self.by_age);
                let members = if takes { &mut held.back } else { &mut held.away };
                members.extend(waiting.operation.map(|operation| (operation, job_id)));
            }
            self.put_back(repository_id, turn, waiting, now);
        }
        held
    }

    /// The host of a job that is not over.
    pub(super) fn host_of(&self, job_id: Uuid) -> Option<Uuid> {
        self.places.get(&job_id).map(|place| place.host_id)
    }

    /// The jobs that wait and since when, the oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Uuid, Timestamp)> {
        self.by_age.iter().map(|(since, job_id)| (*job_id, *since))
    }

    /// Whether the job is not over.
    pub(super) fn contains(&self, job_id: Uuid) -> bool {
        self.places.contains_key(&job_id)
    }

    /// Whether an init of this host for this repository is not over.
    pub(super) fn has_init(&self, host_id: Uuid, repository_id: Uuid) -> bool {
        let Some(lane) = self.lanes.get(&repository_id) else { return false };
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        let claim = |job: &Uuid| match self.places.get(job)?.turn {
            Some(turn) => lane.waiting(turn).map(|waiting| waiting.claim).filter(|claim| claim.job_id == *job),
            None => lane.out(*job),
        };
        jobs.filter_map(claim).any(|claim| claim.kind == Kind::Init)
    }

    /// The jobs of a host that are not over.
    pub(super) fn of_host(&self, host_id: Uuid) -> Vec<Uuid> {
        self.jobs_of_host.get(&host_id).into_iter().flatten().copied().collect()
    }

    /// The jobs of a host that back up this group.
    pub(super) fn backups_of<'a>(&'a self, host_id: Uuid, group: &'a str) -> impl Iterator<Item = Uuid> + 'a {
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        let of_group = move |place: &Place| place.source_group.as_deref() == Some(group);
        jobs.filter(move |job| self.places.get(job).is_some_and(of_group)).copied()
    }

    /// The jobs of a host that are not over and do not wait.
    pub(super) fn out_of(&self, host_id: Uuid) -> Vec<Uuid> {
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        jobs.filter(|job| self.places.get(job).is_some_and(|place| place.turn.is_none())).copied().collect()
    }

    /// The repositories in which a host has jobs that are not over.
    pub(super) fn repositories_of(&self, host_id: Uuid) -> HashSet<Uuid> {
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        jobs.filter_map(|job| self.places.get(job)).map(|place| place.repository_id).collect()
    }

    /// What a job waits for; `None` if it does not wait, or may go as soon as it is written.
    pub(super) fn obstacle(&mut self, job_id: Uuid, now: Instant) -> Option<Obstacle> {
        let &Place { repository_id, host_id, turn, .. } = self.places.get(&job_id)?;
        let (terms, has_place) = (self.terms(repository_id), self.has_place());
        let (lane, turn) = (self.lanes.get_mut(&repository_id)?, turn?);
        let claim = lane.waiting(turn)?.claim;
        if claim.kind != Kind::Unlock
            && let Some(why) = self.pauses.why(Some(host_id), Some(repository_id))
        {
            return Some(Obstacle::Paused(why));
        }
        if self.held.contains(&job_id) && self.connected.contains(&host_id) {
            return Some(Obstacle::Operation);
        }
        if !lane.is_ready(turn) {
            return Some(Obstacle::HostOffline);
        }
        match lane.hindrance(turn, terms, now) {
            // The pause has just ended.
            Some(Hindrance::Paused) => None,
            Some(Hindrance::Held) => lane.holder(claim.kind).map(Obstacle::Held),
            Some(Hindrance::Behind(first)) => lane.waiting(first).map(|first| Obstacle::Behind(first.claim)),
            Some(Hindrance::Full(most)) => Some(Obstacle::RepositoryFull(most)),
            None if claim.kind == Kind::Backup && !has_place => {
                self.leases.backups_at_once.map(|most| Obstacle::FleetFull(most.get()))
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::jobs::JobState;
    use crate::pauses::Pause;
    use chrono::Utc;

    const REPOSITORY: Uuid = Uuid::from_u128(99);

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn job(number: u128, host: u128, kind: Kind) -> NewJob {
        NewJob::sample(id(number), id(host), REPOSITORY, kind)
    }

    /// Without a limit, and where everything drains at once.
    fn lanes() -> Lanes {
        let leases = Leases { drain_after: Duration::ZERO, backups_per_repository: None, backups_at_once: None };
        Lanes::new(leases, HashMap::new(), Arc::default())
    }

    fn obstacle(lanes: &mut Lanes, job: u128) -> Option<Obstacle> {
        lanes.obstacle(id(job), Instant::now())
    }

    /// Adds a job and has it written; true if it went out at once.
    fn add(lanes: &mut Lanes, job: &NewJob) -> bool {
        let out = lanes.add_new(job, Instant::now());
        lanes.committed(JobRecord::of(job.clone(), JobState::new()));
        out
    }

    fn granted(lanes: &mut Lanes) -> Vec<u128> {
        lanes.grant(REPOSITORY, Instant::now()).into_iter().map(|granted| granted.new.id.as_u128()).collect()
    }

    #[test]
    fn jobs_go_in_the_order_of_asking_and_say_what_they_wait_for() {
        let mut lanes = lanes();
        lanes.host_ready(id(1), Instant::now());
        assert!(add(&mut lanes, &job(10, 1, Kind::Backup)));
        assert!(!add(&mut lanes, &job(11, 1, Kind::Prune)));
        assert!(!add(&mut lanes, &job(12, 1, Kind::Backup)));
        let waits_for = |lanes: &mut Lanes, job| match obstacle(lanes, job) {
            Some(Obstacle::Held(claim) | Obstacle::Behind(claim)) => claim.job_id.as_u128(),
            other => panic!("{other:?}"),
        };
        assert_eq!((waits_for(&mut lanes, 11), waits_for(&mut lanes, 12)), (10, 11));
        assert_eq!(granted(&mut lanes), [0_u128; 0]);
        assert_eq!(lanes.remove(id(10)), Some(REPOSITORY));
        assert_eq!(granted(&mut lanes), [11]);
        assert_eq!(obstacle(&mut lanes, 11), None);
        lanes.remove(id(11));
        assert_eq!(granted(&mut lanes), [12]);
        lanes.remove(id(12));
        assert!(lanes.lanes.is_empty() && lanes.places.is_empty() && lanes.jobs_of_host.is_empty());
        assert!(lanes.by_age.is_empty() && lanes.heads.is_empty() && lanes.backups_out == 0);
    }

    #[test]
    fn a_job_of_an_offline_host_holds_up_nobody_and_keeps_its_turn() {
        let mut lanes = lanes();
        lanes.host_ready(id(2), Instant::now());
        assert!(!add(&mut lanes, &job(10, 1, Kind::Prune)));
        assert_eq!(obstacle(&mut lanes, 10), Some(Obstacle::HostOffline));
        assert!(add(&mut lanes, &job(11, 2, Kind::Backup)));
        lanes.host_ready(id(1), Instant::now());
        assert!(!add(&mut lanes, &job(12, 2, Kind::Backup)), "the prune asked before");
        lanes.host_gone(id(1), Instant::now());
        assert_eq!(granted(&mut lanes), [12]);
        lanes.host_ready(id(1), Instant::now());
        lanes.remove(id(11));
        assert_eq!(granted(&mut lanes), [0_u128; 0]);
        lanes.remove(id(12));
        assert_eq!(granted(&mut lanes), [10]);
    }

    #[test]
    fn what_an_operation_holds_goes_when_it_is_released_and_its_host_is_there() {
        let mut lanes = lanes();
        let now = Instant::now();
        lanes.host_ready(id(1), now);
        let of_operation = |number| NewJob { operation_id: Some(id(7)), ..job(number, 1, Kind::Prune) };
        for held in [of_operation(10), of_operation(11)] {
            lanes.add_held(&held, now);
            lanes.committed(JobRecord::of(held, JobState::new()));
        }
        assert_eq!(lanes.obstacle(id(10), now), Some(Obstacle::Operation));
        assert_eq!(lanes.waiting().count(), 0, "how long it is held is its operation's affair");
        assert!(add(&mut lanes, &job(12, 1, Kind::Backup)), "what is held holds up nobody");
        lanes.remove(id(12));
        assert_eq!(granted(&mut lanes), [0_u128; 0]);
        let before = Utc::now();
        assert_eq!(lanes.release(id(11), now), Released::Ready(REPOSITORY));
        assert!(lanes.waiting().all(|(job, since)| job == id(11) && since >= before));
        // It goes back while its host is away, and its operation hears of it.
        let both = |members: Vec<Member>| members.into_iter().map(|(_, job)| job).collect::<HashSet<_>>();
        assert_eq!(both(lanes.host_gone(id(1), now).away), HashSet::from([id(10), id(11)]));
        assert_eq!(lanes.obstacle(id(11), now), Some(Obstacle::HostOffline));
        assert_eq!(lanes.waiting().count(), 2, "now it is their host that they wait for");
        assert_eq!(lanes.release(id(11), now), Released::Away);
        assert_eq!(both(lanes.host_ready(id(1), now).back), HashSet::from([id(10), id(11)]));
        assert_eq!(lanes.release(id(10), now), Released::Ready(REPOSITORY));
        assert_eq!(granted(&mut lanes), [10]);
        assert_eq!(lanes.release(id(10), now), Released::Gone);
        assert_eq!(lanes.force_out(id(11)).map(|forced| forced.new.id), Some(id(11)));
        assert!(lanes.held.is_empty() && lanes.by_age.is_empty());
    }

    #[test]
    fn an_operation_hears_of_a_pause_as_of_a_host_that_goes() {
        let pauses = Arc::new(Pauses::default());
        let leases = Leases { drain_after: Duration::ZERO, backups_per_repository: None, backups_at_once: None };
        let mut lanes = Lanes::new(leases, HashMap::new(), Arc::clone(&pauses));
        let now = Instant::now();
        let waiting = NewJob { operation_id: Some(id(7)), ..job(10, 1, Kind::Prune) };
        assert!(!add(&mut lanes, &waiting), "its host is away, and its operation does not hold it");
        let pause = Pause { reason: "a move".to_owned(), by: "anna".to_owned(), since: Utc::now() };
        pauses.set(Target::Host(id(1)), Some(pause));
        let member = vec![(id(7), id(10))];
        assert_eq!(lanes.move_waiting(id(1), now).away, member);
        assert_eq!(lanes.host_ready(id(1), now).away, member, "it is there, and paused");
        assert_eq!(lanes.release(id(10), now), Released::Away);
        pauses.set(Target::Host(id(1)), None);
        assert_eq!(lanes.move_waiting(id(1), now).back, member);
        assert_eq!(lanes.release(id(10), now), Released::Ready(REPOSITORY));
        assert_eq!(granted(&mut lanes), [10]);
    }

    #[test]
    fn an_init_goes_before_what_waits_and_an_unwritten_job_keeps_its_turn() {
        let mut lanes = lanes();
        lanes.host_ready(id(1), Instant::now());
        add(&mut lanes, &job(10, 1, Kind::Check));
        let unwritten = job(11, 1, Kind::Prune);
        assert!(!lanes.add_new(&unwritten, Instant::now()));
        add(&mut lanes, &job(12, 1, Kind::Backup));
        add(&mut lanes, &job(13, 1, Kind::Init));
        assert!(lanes.has_init(id(1), REPOSITORY) && !lanes.has_init(id(2), REPOSITORY));
        lanes.remove(id(10));
        assert_eq!(granted(&mut lanes), [13]);
        lanes.remove(id(13));
        assert_eq!(granted(&mut lanes), [0_u128; 0], "the backup does not overtake the prune");
        lanes.committed(JobRecord::of(unwritten, JobState::new()));
        assert_eq!(granted(&mut lanes), [11]);
        assert_eq!(lanes.force_out(id(12)).map(|granted| granted.new.id), Some(id(12)));
        assert_eq!(lanes.out_of(id(1)).len(), 2);
    }

    #[test]
    fn a_place_in_the_fleet_goes_to_whoever_has_waited_longest() {
        let leases = Leases {
            drain_after: Duration::from_secs(60),
            backups_per_repository: NonZeroU32::new(2),
            backups_at_once: NonZeroU32::new(3),
        };
        let other = id(98);
        let mut lanes = Lanes::new(leases, HashMap::from([(other, 1)]), Arc::default());
        lanes.host_ready(id(1), Instant::now());
        let in_other = |number| NewJob { repository_id: other, ..job(number, 1, Kind::Backup) };
        assert!(add(&mut lanes, &job(10, 1, Kind::Backup)) && add(&mut lanes, &job(11, 1, Kind::Backup)));
        assert!(!add(&mut lanes, &job(12, 1, Kind::Backup)));
        assert_eq!(obstacle(&mut lanes, 12), Some(Obstacle::RepositoryFull(2)));
        assert!(add(&mut lanes, &in_other(20)));
        assert!(!add(&mut lanes, &in_other(21)));
        assert_eq!(obstacle(&mut lanes, 21), Some(Obstacle::RepositoryFull(1)));
        lanes.limit_backups(other, Some(9));
        assert_eq!(lanes.grant(other, Instant::now()).len(), 0);
        assert_eq!(obstacle(&mut lanes, 21), Some(Obstacle::FleetFull(3)));
        assert!(!add(&mut lanes, &in_other(22)));
        // The one in the full repository has waited longer, but could not go.
        let mut end = |job, repository| {
            lanes.remove(id(job));
            let gone: Vec<_> = lanes.grant(repository, Instant::now()).iter().map(|job| job.new.id.as_u128()).collect();
            gone
        };
        assert_eq!(end(20, other), [21]);
        assert_eq!(end(21, other), [22]);
        assert_eq!(end(11, REPOSITORY), [12]);
        assert_eq!(end(22, other), [0_u128; 0]);
        assert_eq!((lanes.backups_out, lanes.heads.len()), (2, 0));
    }

    #[test]
    fn what_has_waited_before_a_start_lets_nobody_overtake_it_again() {
        let leases = Leases { drain_after: Duration::from_secs(60), ..lanes().leases };
        let mut lanes = Lanes::new(leases, HashMap::new(), Arc::default());
        lanes.add_out(&job(10, 1, Kind::Backup));
        let old = NewJob { created_at: Utc::now() - chrono::TimeDelta::seconds(61), ..job(11, 1, Kind::Prune) };
        lanes.add_waiting(JobRecord::of(old, JobState::new()), Instant::now());
        lanes.host_ready(id(1), Instant::now());
        assert!(!add(&mut lanes, &job(12, 1, Kind::Backup)));
        lanes.remove(id(11));
        assert_eq!(granted(&mut lanes), [12]);
        assert!(!add(&mut lanes, &job(13, 1, Kind::Prune)));
        assert!(add(&mut lanes, &job(14, 1, Kind::Backup)), "this one has just begun to wait");
    }
}
