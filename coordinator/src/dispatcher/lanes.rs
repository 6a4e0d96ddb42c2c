//! The jobs that are not over, in a lane for each repository: those that are out, and those that wait in the order of
//! asking.

use super::admission::{self, Claim, Obstacle};
use crate::db::jobs::{JobState, NewJob};
use fleet_wire::{Kind, Timestamp};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// A waiting job, with what its actor needs once it may go.
struct Waiting {
    claim: Claim,
    since: Timestamp,
    /// Absent until its row is committed: before that it keeps its place but does not go.
    job: Option<Box<Granted>>,
}

/// A job that may go out.
#[derive(Debug, PartialEq)]
pub(super) struct Granted {
    pub(super) new: NewJob,
    pub(super) state: JobState,
}

#[derive(Default)]
struct Lane {
    out: Vec<Claim>,
    waiting: Vec<Waiting>,
}

impl Lane {
    /// The claims that wait before the one at `place`.
    fn ahead_of(&self, place: usize) -> Vec<Claim> {
        self.waiting[..place].iter().map(|waiting| waiting.claim).collect()
    }
}

/// All lanes, and where each job and host is in them.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Uuid, Lane>,
    places: HashMap<Uuid, Place>,
    jobs_of_host: HashMap<Uuid, HashSet<Uuid>>,
}

#[derive(Clone, Copy)]
struct Place {
    repository_id: Uuid,
    host_id: Uuid,
}

/// A row whose kind this version does not know gets the strictest lease.
fn claim(new: &NewJob) -> Claim {
    Claim { job_id: new.id, host_id: new.host_id, kind: new.kind.parse().unwrap_or(Kind::Prune) }
}

impl Lanes {
    fn index(&mut self, new: &NewJob) -> &mut Lane {
        self.places.insert(new.id, Place { repository_id: new.repository_id, host_id: new.host_id });
        self.jobs_of_host.entry(new.host_id).or_default().insert(new.id);
        self.lanes.entry(new.repository_id).or_default()
    }

    /// Adds a job that was out before the start.
    pub(super) fn add_out(&mut self, new: &NewJob) {
        self.index(new).out.push(claim(new));
    }

    /// Adds a job that waited before the start.
    pub(super) fn add_waiting(&mut self, new: NewJob, state: JobState) {
        let (claim, since) = (claim(&new), new.created_at);
        self.index(&new).waiting.push(Waiting { claim, since, job: Some(Box::new(Granted { new, state })) });
    }

    /// Adds a job that is about to be written; true if it has its lease already.
    pub(super) fn add_new(&mut self, new: &NewJob, connected: impl Fn(Uuid) -> bool) -> bool {
        let claim = claim(new);
        let lane = self.index(new);
        // Before its init nothing of a host can work, so that goes ahead of what waits already.
        let place = if claim.kind == Kind::Init { 0 } else { lane.waiting.len() };
        let free = admission::obstacle(&claim, &lane.out, &lane.ahead_of(place), connected).is_none();
        if free {
            lane.out.push(claim);
        } else {
            lane.waiting.insert(place, Waiting { claim, since: new.created_at, job: None });
        }
        free
    }

    /// The row of a waiting job is written: it may go when its turn comes.
    pub(super) fn committed(&mut self, new: NewJob, state: JobState) {
        let Some(lane) = self.lanes.get_mut(&new.repository_id) else { return };
        if let Some(waiting) = lane.waiting.iter_mut().find(|waiting| waiting.claim.job_id == new.id) {
            waiting.job = Some(Box::new(Granted { new, state }));
        }
    }

    /// Gives leases to those that may go now, and hands them over.
    pub(super) fn grant(&mut self, repository_id: Uuid, connected: impl Fn(Uuid) -> bool) -> Vec<Granted> {
        let Some(lane) = self.lanes.get_mut(&repository_id) else { return Vec::new() };
        let claims = lane.ahead_of(lane.waiting.len());
        let granted: HashSet<Uuid> =
            admission::grant(&lane.out, &claims, connected).iter().map(|claim| claim.job_id).collect();
        let mut going = Vec::new();
        lane.waiting.retain_mut(|waiting| {
            if !granted.contains(&waiting.claim.job_id) {
                return true;
            }
            let Some(job) = waiting.job.take() else { return true };
            lane.out.push(waiting.claim);
            going.push(*job);
            false
        });
        going
    }

    /// Makes a committed waiting job one that is out, whatever is in its way, and hands it over: it ends without being
    /// sent, or its agent has it already.
    pub(super) fn force_out(&mut self, job_id: Uuid) -> Option<Granted> {
        let lane = self.lanes.get_mut(&self.places.get(&job_id)?.repository_id)?;
        let at = lane.waiting.iter().position(|waiting| waiting.claim.job_id == job_id && waiting.job.is_some())?;
        let Waiting { claim, job, .. } = lane.waiting.remove(at);
        lane.out.push(claim);
        job.map(|job| *job)
    }

    /// Forgets a job; returns its repository, where others may go now.
    pub(super) fn remove(&mut self, job_id: Uuid) -> Option<Uuid> {
        let Place { repository_id, host_id } = self.places.remove(&job_id)?;
        if let Some(jobs) = self.jobs_of_host.get_mut(&host_id) {
            jobs.remove(&job_id);
            if jobs.is_empty() {
                self.jobs_of_host.remove(&host_id);
            }
        }
        let lane = self.lanes.get_mut(&repository_id)?;
        lane.out.retain(|claim| claim.job_id != job_id);
        lane.waiting.retain(|waiting| waiting.claim.job_id != job_id);
        if lane.out.is_empty() && lane.waiting.is_empty() {
            self.lanes.remove(&repository_id);
        }
        Some(repository_id)
    }

    /// The host of a job that is not over.
    pub(super) fn host_of(&self, job_id: Uuid) -> Option<Uuid> {
        self.places.get(&job_id).map(|place| place.host_id)
    }

    /// The jobs that wait, and since when.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Uuid, Timestamp)> {
        let waiting = self.lanes.values().flat_map(|lane| &lane.waiting);
        waiting.filter(|waiting| waiting.job.is_some()).map(|waiting| (waiting.claim.job_id, waiting.since))
    }

    /// The jobs that are out, and their hosts.
    pub(super) fn out(&self) -> impl Iterator<Item = (Uuid, Uuid)> {
        self.lanes.values().flat_map(|lane| &lane.out).map(|claim| (claim.job_id, claim.host_id))
    }

    /// Whether the job is not over.
    pub(super) fn contains(&self, job_id: Uuid) -> bool {
        self.places.contains_key(&job_id)
    }

    /// Whether an init of this host for this repository is not over.
    pub(super) fn has_init(&self, host_id: Uuid, repository_id: Uuid) -> bool {
        let Some(lane) = self.lanes.get(&repository_id) else { return false };
        let mut claims = lane.out.iter().chain(lane.waiting.iter().map(|waiting| &waiting.claim));
        claims.any(|claim| claim.host_id == host_id && claim.kind == Kind::Init)
    }

    /// The jobs of a host that are not over.
    pub(super) fn of_host(&self, host_id: Uuid) -> Vec<Uuid> {
        self.jobs_of_host.get(&host_id).into_iter().flatten().copied().collect()
    }

    /// The jobs of a host that are not over and do not wait.
    pub(super) fn out_of(&self, host_id: Uuid) -> Vec<Uuid> {
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        let is_out = |job: &&Uuid| {
            let lane = self.places.get(job).and_then(|place| self.lanes.get(&place.repository_id));
            lane.is_some_and(|lane| lane.out.iter().any(|claim| claim.job_id == **job))
        };
        jobs.filter(is_out).copied().collect()
    }

    /// The repositories in which a host has jobs that are not over.
    pub(super) fn repositories_of(&self, host_id: Uuid) -> HashSet<Uuid> {
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        jobs.filter_map(|job| self.places.get(job)).map(|place| place.repository_id).collect()
    }

    /// What a job waits for; `None` if it does not wait.
    pub(super) fn obstacle(&self, job_id: Uuid, connected: impl Fn(Uuid) -> bool) -> Option<Obstacle> {
        let lane = self.lanes.get(&self.places.get(&job_id)?.repository_id)?;
        let at = lane.waiting.iter().position(|waiting| waiting.claim.job_id == job_id)?;
        admission::obstacle(&lane.waiting[at].claim, &lane.out, &lane.ahead_of(at), connected)
    }
}
