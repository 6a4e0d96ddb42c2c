//! The jobs that are not over, in a lane for each repository: those that are out, and those that wait in the order of
//! asking. Those of hosts that are offline stand aside and hold up nobody; so do those that their operation holds.
//!
//! Whatever happens to one job or host costs the same however many others there are.

use super::admission::{self, Claim, Kinds, Obstacle};
use crate::db::jobs::{Job as JobRecord, NewJob};
use chrono::Utc;
use fleet_wire::{Kind, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// A waiting job, with what its actor needs once it may go.
struct Waiting {
    claim: Claim,
    operation: Option<Uuid>,
    /// Absent until its row is committed: before that it keeps its place but does not go.
    job: Option<JobRecord>,
    /// From when its waiting counts; absent while only its operation is in its way.
    since: Option<Timestamp>,
}

/// The order of asking; an init goes before what waits already.
type Turn = i64;

#[derive(Default)]
struct Lane {
    out: HashMap<Uuid, Claim>,
    held: Kinds,
    /// Of hosts that are connected.
    ready: BTreeMap<Turn, Waiting>,
    ready_kinds: Kinds,
    /// Of hosts that are not.
    aside: BTreeMap<Turn, Waiting>,
    /// Of the first and the last that came.
    turns: (Turn, Turn),
}

impl Lane {
    fn go_out(&mut self, claim: Claim) {
        self.held.add(claim.kind);
        self.out.insert(claim.job_id, claim);
    }

    fn wait(&mut self, turn: Turn, waiting: Waiting, connected: bool) {
        if connected {
            self.ready_kinds.add(waiting.claim.kind);
            self.ready.insert(turn, waiting);
        } else {
            self.aside.insert(turn, waiting);
        }
    }

    fn waiting_mut(&mut self, turn: Turn) -> Option<&mut Waiting> {
        self.ready.get_mut(&turn).or_else(|| self.aside.get_mut(&turn))
    }

    fn waiting(&self, turn: Turn) -> Option<&Waiting> {
        self.ready.get(&turn).or_else(|| self.aside.get(&turn))
    }

    fn stop_waiting(&mut self, turn: Turn) -> Option<Waiting> {
        let Some(waiting) = self.ready.remove(&turn) else { return self.aside.remove(&turn) };
        self.ready_kinds.take(waiting.claim.kind);
        Some(waiting)
    }

    fn is_empty(&self) -> bool {
        self.out.is_empty() && self.ready.is_empty() && self.aside.is_empty()
    }
}

/// Where a job is.
#[derive(Clone, Copy)]
struct Place {
    repository_id: Uuid,
    host_id: Uuid,
    /// Absent once it is out.
    turn: Option<Turn>,
}

/// All lanes, and where each job and host is in them.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Uuid, Lane>,
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

/// What a release came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// The job may go when its turn in this repository comes.
    Ready(Uuid),
    /// Its host is not connected: it stays held.
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
    /// Notes where a job is, and gives its lane.
    fn index(&mut self, claim: Claim, repository_id: Uuid, turn: Option<Turn>) -> &mut Lane {
        self.places.insert(claim.job_id, Place { repository_id, host_id: claim.host_id, turn });
        self.jobs_of_host.entry(claim.host_id).or_default().insert(claim.job_id);
        self.lanes.entry(repository_id).or_default()
    }

    /// A job's turn: the last, or the first for an init, without which nothing of its host can work.
    fn turn(&mut self, claim: Claim, repository_id: Uuid) -> Turn {
        let (first, last) = &mut self.lanes.entry(repository_id).or_default().turns;
        if claim.kind == Kind::Init {
            *first -= 1;
            *first
        } else {
            *last += 1;
            *last
        }
    }

    fn wait(&mut self, new: &NewJob, job: Option<JobRecord>) {
        let claim = claim(new);
        let turn = self.turn(claim, new.repository_id);
        let held = self.held.contains(&new.id);
        let ready = self.connected.contains(&claim.host_id) && !held;
        let mut waiting = Waiting { claim, operation: new.operation_id, job, since: None };
        // How long its operation has held it before a start is not known.
        let since = if held { Utc::now() } else { new.created_at };
        count_from(Some(since), &mut waiting, &mut self.by_age);
        self.index(claim, new.repository_id, Some(turn)).wait(turn, waiting, ready);
    }

    /// Adds a job that was out before the start.
    pub(super) fn add_out(&mut self, new: &NewJob) {
        let claim = claim(new);
        self.index(claim, new.repository_id, None).go_out(claim);
    }

    /// Adds a job that waited before the start. One of an operation is held until that has looked at all of them.
    pub(super) fn add_waiting(&mut self, job: JobRecord) {
        if job.new.operation_id.is_some() {
            self.held.insert(job.new.id);
        }
        self.wait(&Arc::clone(&job.new), Some(job));
    }

    /// Adds a job that is about to be written; true if it has its lease already.
    pub(super) fn add_new(&mut self, new: &NewJob) -> bool {
        let claim = claim(new);
        let connected = self.connected.contains(&claim.host_id);
        let lane = self.lanes.entry(new.repository_id).or_default();
        let behind = claim.kind != Kind::Init && lane.ready_kinds.conflict_with(claim.kind);
        let free = connected && !behind && !lane.held.conflict_with(claim.kind);
        if free {
            self.index(claim, new.repository_id, None).go_out(claim);
        } else {
            self.wait(new, None);
        }
        free
    }

    /// Adds a job that is about to be written, and that its operation has yet to release.
    pub(super) fn add_held(&mut self, new: &NewJob) {
        self.held.insert(new.id);
        self.wait(new, None);
    }

    /// Whether a job's operation has yet to release it.
    pub(super) fn is_held(&self, job_id: Uuid) -> bool {
        self.held.contains(&job_id)
    }

    /// A job's operation releases it.
    pub(super) fn release(&mut self, job_id: Uuid) -> Released {
        let Some(&Place { repository_id, host_id, turn: Some(turn) }) = self.places.get(&job_id) else {
            return Released::Gone;
        };
        if !self.connected.contains(&host_id) {
            return Released::Away;
        }
        self.held.remove(&job_id);
        if let Some(lane) = self.lanes.get_mut(&repository_id)
            && let Some(mut waiting) = lane.stop_waiting(turn)
        {
            count_from(Some(Utc::now()), &mut waiting, &mut self.by_age);
            lane.wait(turn, waiting, true);
        }
        Released::Ready(repository_id)
    }

    /// The row of a waiting job is written: it may go when its turn comes.
    pub(super) fn committed(&mut self, job: JobRecord) {
        let Some(Place { repository_id, host_id, turn: Some(turn) }) = self.places.get(&job.new.id) else { return };
        let only_held = self.held.contains(&job.new.id) && self.connected.contains(host_id);
        let lane = self.lanes.get_mut(repository_id);
        if let Some(waiting) = lane.and_then(|lane| lane.waiting_mut(*turn)) {
            let since = (!only_held).then_some(job.new.created_at);
            waiting.job = Some(job);
            count_from(since, waiting, &mut self.by_age);
        }
    }

    /// Gives leases to those that may go now, and hands them over.
    pub(super) fn grant(&mut self, repository_id: Uuid) -> Vec<JobRecord> {
        let Some(lane) = self.lanes.get_mut(&repository_id) else { return Vec::new() };
        let waiting = lane.ready.values().map(|waiting| waiting.claim.kind);
        let granted = admission::grant(lane.held, lane.ready_kinds, waiting);
        let Some(&last) = granted.last() else { return Vec::new() };
        let turns: Vec<Turn> = lane.ready.keys().copied().take(last + 1).collect();
        let mut going = Vec::new();
        for turn in granted.into_iter().filter_map(|place| turns.get(place)) {
            if lane.ready.get(turn).is_none_or(|waiting| waiting.job.is_none()) {
                continue;
            }
            let Some(mut waiting) = lane.stop_waiting(*turn) else { continue };
            count_from(None, &mut waiting, &mut self.by_age);
            let Waiting { claim, job: Some(job), .. } = waiting else { continue };
            lane.go_out(claim);
            if let Some(place) = self.places.get_mut(&claim.job_id) {
                place.turn = None;
            }
            going.push(job);
        }
        going
    }

    /// Makes a committed waiting job one that is out, whatever is in its way, and hands it over: it ends without being
    /// sent, or its agent has it already.
    pub(super) fn force_out(&mut self, job_id: Uuid) -> Option<JobRecord> {
        let place = self.places.get_mut(&job_id)?;
        let (lane, turn) = (self.lanes.get_mut(&place.repository_id)?, place.turn?);
        lane.waiting(turn)?.job.as_ref()?;
        let mut waiting = lane.stop_waiting(turn)?;
        count_from(None, &mut waiting, &mut self.by_age);
        let Waiting { claim, job, .. } = waiting;
        lane.go_out(claim);
        place.turn = None;
        self.held.remove(&job_id);
        job
    }

    /// Forgets a job; returns its repository, where others may go now.
    pub(super) fn remove(&mut self, job_id: Uuid) -> Option<Uuid> {
        let Place { repository_id, host_id, turn } = self.places.remove(&job_id)?;
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
                if let Some(claim) = lane.out.remove(&job_id) {
                    lane.held.take(claim.kind);
                }
            }
        }
        if lane.is_empty() {
            self.lanes.remove(&repository_id);
        }
        Some(repository_id)
    }

    /// A host can take jobs: what it has waiting takes its place among the others. Gives those that are held: their
    /// operations may release them now.
    pub(super) fn host_ready(&mut self, host_id: Uuid) -> Vec<Member> {
        self.connected.insert(host_id);
        self.move_waiting(host_id, true)
    }

    /// A host can take none: what it has waiting stands aside. Gives those of operations, which are held from now on, so
    /// that others may go in their place.
    pub(super) fn host_gone(&mut self, host_id: Uuid) -> Vec<Member> {
        self.connected.remove(&host_id);
        self.move_waiting(host_id, false)
    }

    fn move_waiting(&mut self, host_id: Uuid, connected: bool) -> Vec<Member> {
        let mut members = Vec::new();
        for job_id in self.jobs_of_host.get(&host_id).into_iter().flatten() {
            let Some(Place { repository_id, turn: Some(turn), .. }) = self.places.get(job_id) else { continue };
            let Some(lane) = self.lanes.get_mut(repository_id) else { continue };
            let Some(mut waiting) = lane.stop_waiting(*turn) else { continue };
            if !connected && waiting.operation.is_some() {
                self.held.insert(*job_id);
            }
            let held = self.held.contains(job_id);
            if held {
                count_from((!connected).then(Utc::now), &mut waiting, &mut self.by_age);
            }
            members.extend(waiting.operation.filter(|_| held).map(|operation| (operation, *job_id)));
            lane.wait(*turn, waiting, connected && !held);
        }
        members
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
            None => lane.out.get(job).copied(),
        };
        jobs.filter_map(claim).any(|claim| claim.kind == Kind::Init)
    }

    /// The jobs of a host that are not over.
    pub(super) fn of_host(&self, host_id: Uuid) -> Vec<Uuid> {
        self.jobs_of_host.get(&host_id).into_iter().flatten().copied().collect()
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
    pub(super) fn obstacle(&self, job_id: Uuid) -> Option<Obstacle> {
        let Place { repository_id, host_id, turn } = self.places.get(&job_id)?;
        let (lane, turn) = (self.lanes.get(repository_id)?, (*turn)?);
        let claim = lane.waiting(turn)?.claim;
        if self.held.contains(&job_id) && self.connected.contains(host_id) {
            return Some(Obstacle::Operation);
        }
        if !lane.ready.contains_key(&turn) {
            return Some(Obstacle::HostOffline);
        }
        let conflicts = |other: &&Claim| admission::conflict(claim.kind, other.kind);
        let ahead = lane.ready.range(..turn).map(|(_, waiting)| &waiting.claim);
        let held = lane.out.values().find(conflicts).map(|claim| Obstacle::Held(*claim));
        held.or_else(|| ahead.into_iter().find(conflicts).map(|claim| Obstacle::Behind(*claim)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::jobs::JobState;
    use crate::db::json::Json;
    use fleet_wire::CommandRun;

    const REPOSITORY: Uuid = Uuid::from_u128(99);

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn job(number: u128, host: u128, kind: Kind) -> NewJob {
        NewJob {
            id: id(number),
            host_id: id(host),
            repository_id: REPOSITORY,
            kind: kind.as_str().to_owned(),
            origin: "operator".to_owned(),
            source_group: None,
            schedule_id: None,
            scheduled_at: None,
            attempt: 1,
            retry_of: None,
            requested_by: None,
            command: Json(CommandRun::new("j".into(), kind)),
            created_at: Utc::now(),
            operation_id: None,
        }
    }

    /// Adds a job and has it written; true if it went out at once.
    fn add(lanes: &mut Lanes, job: &NewJob) -> bool {
        let out = lanes.add_new(job);
        lanes.committed(JobRecord::of(job.clone(), JobState::new()));
        out
    }

    fn granted(lanes: &mut Lanes) -> Vec<u128> {
        lanes.grant(REPOSITORY).into_iter().map(|granted| granted.new.id.as_u128()).collect()
    }

    #[test]
    fn jobs_go_in_the_order_of_asking_and_say_what_they_wait_for() {
        let mut lanes = Lanes::default();
        lanes.host_ready(id(1));
        assert!(add(&mut lanes, &job(10, 1, Kind::Backup)));
        assert!(!add(&mut lanes, &job(11, 1, Kind::Prune)));
        assert!(!add(&mut lanes, &job(12, 1, Kind::Backup)));
        let waits_for = |lanes: &Lanes, job| match lanes.obstacle(id(job)) {
            Some(Obstacle::Held(claim) | Obstacle::Behind(claim)) => claim.job_id.as_u128(),
            other => panic!("{other:?}"),
        };
        assert_eq!((waits_for(&lanes, 11), waits_for(&lanes, 12)), (10, 11));
        assert_eq!(granted(&mut lanes), [0_u128; 0]);
        assert_eq!(lanes.remove(id(10)), Some(REPOSITORY));
        assert_eq!(granted(&mut lanes), [11]);
        assert_eq!(lanes.obstacle(id(11)), None);
        lanes.remove(id(11));
        assert_eq!(granted(&mut lanes), [12]);
        lanes.remove(id(12));
        assert!(lanes.lanes.is_empty() && lanes.places.is_empty() && lanes.jobs_of_host.is_empty());
        assert!(lanes.by_age.is_empty());
    }

    #[test]
    fn a_job_of_an_offline_host_holds_up_nobody_and_keeps_its_turn() {
        let mut lanes = Lanes::default();
        lanes.host_ready(id(2));
        assert!(!add(&mut lanes, &job(10, 1, Kind::Prune)));
        assert_eq!(lanes.obstacle(id(10)), Some(Obstacle::HostOffline));
        assert!(add(&mut lanes, &job(11, 2, Kind::Backup)));
        lanes.host_ready(id(1));
        assert!(!add(&mut lanes, &job(12, 2, Kind::Backup)), "the prune asked before");
        lanes.host_gone(id(1));
        assert_eq!(granted(&mut lanes), [12]);
        lanes.host_ready(id(1));
        lanes.remove(id(11));
        assert_eq!(granted(&mut lanes), [0_u128; 0]);
        lanes.remove(id(12));
        assert_eq!(granted(&mut lanes), [10]);
    }

    #[test]
    fn what_an_operation_holds_goes_when_it_is_released_and_its_host_is_there() {
        let mut lanes = Lanes::default();
        lanes.host_ready(id(1));
        let of_operation = |number| NewJob { operation_id: Some(id(7)), ..job(number, 1, Kind::Prune) };
        for held in [of_operation(10), of_operation(11)] {
            lanes.add_held(&held);
            lanes.committed(JobRecord::of(held, JobState::new()));
        }
        assert_eq!(lanes.obstacle(id(10)), Some(Obstacle::Operation));
        assert_eq!(lanes.waiting().count(), 0, "how long it is held is its operation's affair");
        assert!(add(&mut lanes, &job(12, 1, Kind::Backup)), "what is held holds up nobody");
        lanes.remove(id(12));
        assert_eq!(granted(&mut lanes), [0_u128; 0]);
        let before = Utc::now();
        assert_eq!(lanes.release(id(11)), Released::Ready(REPOSITORY));
        assert!(lanes.waiting().all(|(job, since)| job == id(11) && since >= before));
        // It goes back while its host is away, and its operation hears of it.
        let both = |members: Vec<Member>| members.into_iter().map(|(_, job)| job).collect::<HashSet<_>>();
        assert_eq!(both(lanes.host_gone(id(1))), HashSet::from([id(10), id(11)]));
        assert_eq!(lanes.obstacle(id(11)), Some(Obstacle::HostOffline));
        assert_eq!(lanes.waiting().count(), 2, "now it is their host that they wait for");
        assert_eq!(lanes.release(id(11)), Released::Away);
        assert_eq!(both(lanes.host_ready(id(1))), HashSet::from([id(10), id(11)]));
        assert_eq!(lanes.release(id(10)), Released::Ready(REPOSITORY));
        assert_eq!(granted(&mut lanes), [10]);
        assert_eq!(lanes.release(id(10)), Released::Gone);
        assert_eq!(lanes.force_out(id(11)).map(|forced| forced.new.id), Some(id(11)));
        assert!(lanes.held.is_empty() && lanes.by_age.is_empty());
    }

    #[test]
    fn an_init_goes_before_what_waits_and_an_unwritten_job_keeps_its_turn() {
        let mut lanes = Lanes::default();
        lanes.host_ready(id(1));
        add(&mut lanes, &job(10, 1, Kind::Check));
        let unwritten = job(11, 1, Kind::Prune);
        assert!(!lanes.add_new(&unwritten));
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
}
