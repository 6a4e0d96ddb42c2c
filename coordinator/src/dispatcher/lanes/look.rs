//! What is asked of the lanes: where jobs are, and what they wait for.

use super::{Lanes, Place};
use crate::dispatcher::admission::{Hindrance, Obstacle};
use fleet_wire::Kind;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use uuid::Uuid;

impl Lanes {
    /// The repositories in which there are jobs that are not over.
    pub(in crate::dispatcher) fn repositories(&self) -> Vec<Uuid> {
        self.lanes.keys().copied().collect()
    }

    /// The host of a job that is not over.
    pub(in crate::dispatcher) fn host_of(&self, job_id: Uuid) -> Option<Uuid> {
        self.places.get(&job_id).map(|place| place.host_id)
    }

    /// The jobs that wait and for how long, the oldest first.
    pub(in crate::dispatcher) fn waiting(&self, now: Instant) -> impl Iterator<Item = (Uuid, Duration)> {
        self.by_age.iter().map(move |(since, job_id)| (*job_id, self.waited(*since, now)))
    }

    /// How long ago `since` is, as waiting counts.
    pub(super) fn waited(&self, since: i64, now: Instant) -> Duration {
        let ago = self.count_before(now, Duration::ZERO).saturating_sub(since);
        Duration::from_millis(u64::try_from(ago).unwrap_or(0))
    }

    /// Whether the job is not over.
    pub(in crate::dispatcher) fn contains(&self, job_id: Uuid) -> bool {
        self.places.contains_key(&job_id)
    }

    /// Whether an init of this host for this repository is not over.
    pub(in crate::dispatcher) fn has_init(&self, host_id: Uuid, repository_id: Uuid) -> bool {
        let Some(lane) = self.lanes.get(&repository_id) else { return false };
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        let claim = |job: &Uuid| match self.places.get(job)?.turn {
            Some(turn) => lane.waiting(turn).map(|waiting| waiting.claim).filter(|claim| claim.job_id == *job),
            None => lane.out(*job),
        };
        jobs.filter_map(claim).any(|claim| claim.kind == Kind::Init)
    }

    /// The jobs of a host that are not over.
    pub(in crate::dispatcher) fn of_host(&self, host_id: Uuid) -> Vec<Uuid> {
        self.jobs_of_host.get(&host_id).into_iter().flatten().copied().collect()
    }

    /// The jobs of a host that back up this group.
    pub(in crate::dispatcher) fn backups_of<'a>(
        &'a self,
        host_id: Uuid,
        group: &'a str,
    ) -> impl Iterator<Item = Uuid> + 'a {
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        let of_group = move |place: &Place| place.source_group.as_deref() == Some(group);
        jobs.filter(move |job| self.places.get(job).is_some_and(of_group)).copied()
    }

    /// The jobs of a host that are not over and do not wait.
    pub(in crate::dispatcher) fn out_of(&self, host_id: Uuid) -> Vec<Uuid> {
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        jobs.filter(|job| self.places.get(job).is_some_and(|place| place.turn.is_none())).copied().collect()
    }

    /// The repositories in which a host has jobs that are not over.
    pub(in crate::dispatcher) fn repositories_of(&self, host_id: Uuid) -> HashSet<Uuid> {
        let jobs = self.jobs_of_host.get(&host_id).into_iter().flatten();
        jobs.filter_map(|job| self.places.get(job)).map(|place| place.repository_id).collect()
    }

    /// Why a job is not let go, if that is because something is paused.
    pub(in crate::dispatcher) fn is_paused(&self, job_id: Uuid) -> bool {
        let Some(place) = self.places.get(&job_id) else { return false };
        self.pauses.why(Some(place.host_id), Some(place.repository_id)).is_some()
    }

    /// What a job waits for; `None` if it does not wait, or may go as soon as it is written.
    pub(in crate::dispatcher) fn obstacle(&mut self, job_id: Uuid, now: Instant) -> Option<Obstacle> {
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
