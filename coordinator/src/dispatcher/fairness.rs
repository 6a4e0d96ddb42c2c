//! What the lanes promise, on random sequences of events: nothing conflicts, no limit is passed, nobody waits for
//! nothing, and nobody is starved.

use super::admission::{Obstacle, conflict, is_exclusive};
use super::lanes::Lanes;
use crate::config::Leases;
use crate::db::jobs::{Job, JobState, NewJob};
use crate::db::pauses::Target;
use crate::pauses::{Pause, Pauses};
use chrono::Utc;
use fleet_wire::Kind;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const REPOSITORIES: u128 = 3;
const HOSTS: u128 = 4;
const DRAIN_AFTER: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Event {
    /// A host asks for a job; its row is written at once or with the next event.
    Ask { host: u128, repository: u128, kind: Kind, late: bool },
    /// One of those that are out is over.
    End(prop::sample::Index),
    /// One that waits is cancelled.
    Cancel(prop::sample::Index),
    /// Time passes.
    Pass(u64),
    /// A host comes or goes.
    Toggle(u128),
    /// Something is paused or goes on.
    Pause(Target),
}

fn host(number: u128) -> Uuid {
    Uuid::from_u128(1_000 + number)
}

fn repository(number: u128) -> Uuid {
    Uuid::from_u128(2_000 + number)
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0..HOSTS).prop_map(|number| Target::Host(host(number))),
        (0..REPOSITORIES).prop_map(|number| Target::Repository(repository(number))),
        Just(Target::Fleet),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![6 => Just(Kind::Backup), 3 => prop::sample::select(Kind::ALL)];
    prop_oneof![
        12 => (0..HOSTS, 0..REPOSITORIES, kind, prop::bool::weighted(0.2))
            .prop_map(|(host, repository, kind, late)| Event::Ask { host, repository, kind, late }),
        10 => any::<prop::sample::Index>().prop_map(Event::End),
        1 => any::<prop::sample::Index>().prop_map(Event::Cancel),
        4 => (1..50_u64).prop_map(Event::Pass),
        2 => (0..HOSTS).prop_map(Event::Toggle),
        1 => target().prop_map(Event::Pause),
    ]
}

fn leases() -> impl Strategy<Value = Leases> {
    let limit = || prop::option::of((1..4_u32).prop_map(|limit| NonZeroU32::new(limit).expect("not zero")));
    (limit(), limit()).prop_map(|(backups_per_repository, backups_at_once)| Leases {
        drain_after: DRAIN_AFTER,
        backups_per_repository,
        backups_at_once,
    })
}

/// A job as the test knows it; its key is the order of asking.
#[derive(Clone, Debug)]
struct Known {
    host: Uuid,
    repository: Uuid,
    kind: Kind,
    /// Since when it waits and its host can take it, for the first time.
    ready_since: Option<Instant>,
    /// Who may go before it: set at its drain time.
    before: Option<BTreeSet<u128>>,
}

struct World {
    lanes: Lanes,
    leases: Leases,
    pauses: Arc<Pauses>,
    now: Instant,
    asked: u128,
    connected: HashSet<Uuid>,
    out: BTreeMap<u128, Known>,
    waiting: BTreeMap<u128, Known>,
    unwritten: Vec<Job>,
}

impl World {
    fn new(leases: Leases) -> Self {
        let pauses = Arc::new(Pauses::default());
        let lanes = Lanes::new(leases.clone(), HashMap::new(), Arc::clone(&pauses));
        let (out, waiting) = (BTreeMap::new(), BTreeMap::new());
        let (now, connected) = (Instant::now(), HashSet::new());
        Self { lanes, leases, pauses, now, asked: 0, connected, out, waiting, unwritten: Vec::new() }
    }

    fn is_ready(&self, job: &Known) -> bool {
        let paused = self.pauses.get(Target::Host(job.host)).is_some();
        self.connected.contains(&job.host) && (!paused || job.kind == Kind::Unlock)
    }

    /// Lets go what may go in these repositories, and checks who it is.
    fn grant(&mut self, repositories: impl IntoIterator<Item = Uuid>) -> Result<usize, TestCaseError> {
        let mut granted = 0;
        for repository in repositories {
            for job in self.lanes.grant(repository, self.now) {
                granted += 1;
                self.goes(job.new.id.as_u128())?;
            }
        }
        Ok(granted)
    }

    fn goes(&mut self, number: u128) -> Result<(), TestCaseError> {
        let job = self.waiting.remove(&number).expect("it waited");
        prop_assert!(self.is_ready(&job), "{job:?} can't take it");
        if job.kind != Kind::Unlock {
            prop_assert_eq!(self.pauses.why(Some(job.host), Some(job.repository)), None);
        }
        for (other, waits) in &self.waiting {
            if waits.repository != job.repository || !self.is_ready(waits) || !conflict(waits.kind, job.kind) {
                continue;
            }
            let unwritten = self.unwritten.iter().any(|job| job.new.id.as_u128() == *other);
            if job.kind != Kind::Backup && job.kind != Kind::Init && !unwritten {
                prop_assert!(
                    *other > number || waits.kind == Kind::Unlock,
                    "{number} {job:?} overtakes {other} {waits:?}"
                );
            }
            if let Some(before) = &waits.before {
                let init = job.kind == Kind::Init;
                prop_assert!(init || before.contains(&number), "{job:?} goes before {waits:?} after its drain time");
            }
        }
        self.out.insert(number, job);
        Ok(())
    }

    fn apply(&mut self, event: Event) -> Result<(), TestCaseError> {
        for job in std::mem::take(&mut self.unwritten) {
            let repository = job.new.repository_id;
            self.lanes.committed(job, self.now);
            self.grant([repository])?;
        }
        match event {
            Event::Ask { host: of, repository: within, kind, late } => {
                self.ask(host(of), repository(within), kind, late)?
            }
            Event::End(index) => {
                if !self.out.is_empty() {
                    let number = *self.out.keys().nth(index.index(self.out.len())).expect("there");
                    self.end(number)?;
                }
            }
            Event::Cancel(index) => {
                if !self.waiting.is_empty() {
                    let number = *self.waiting.keys().nth(index.index(self.waiting.len())).expect("there");
                    self.waiting.remove(&number);
                    let repository = self.lanes.remove(Uuid::from_u128(number)).expect("known");
                    self.grant([repository])?;
                }
            }
            Event::Pass(seconds) => {
                self.pass(Duration::from_secs(seconds));
                let granted = self.grant((0..REPOSITORIES).map(repository))?;
                prop_assert_eq!(granted, 0, "nothing becomes free by time");
            }
            Event::Toggle(number) => self.toggle(host(number))?,
            Event::Pause(target) => self.pause(target)?,
        }
        self.check()
    }

    fn ask(&mut self, host: Uuid, repository: Uuid, kind: Kind, late: bool) -> Result<(), TestCaseError> {
        self.asked += 1;
        let number = self.asked;
        let new = NewJob::sample(Uuid::from_u128(number), host, repository, kind);
        let known = Known { host, repository, kind, ready_since: None, before: None };
        self.waiting.insert(number, known);
        let full: Vec<u128> = self.fleet_full();
        if self.lanes.add_new(&new, self.now) {
            prop_assert!(kind != Kind::Backup || full.is_empty(), "{full:?} have waited longer for the fleet");
            return self.goes(number);
        }
        let job = Job::of(new, JobState::new());
        if late {
            self.unwritten.push(job);
            return Ok(());
        }
        self.lanes.committed(job, self.now);
        self.grant([repository]).map(drop)
    }

    /// The backups that wait for nothing but a place in the fleet.
    fn fleet_full(&mut self) -> Vec<u128> {
        let waiting: Vec<u128> = self.waiting.keys().copied().collect();
        let full = |number: &u128| {
            matches!(self.lanes.obstacle(Uuid::from_u128(*number), self.now), Some(Obstacle::FleetFull(_)))
        };
        waiting.into_iter().filter(full).collect()
    }

    fn end(&mut self, number: u128) -> Result<(), TestCaseError> {
        let waited = self.fleet_full();
        self.out.remove(&number);
        let repository = self.lanes.remove(Uuid::from_u128(number)).expect("known");
        self.grant([repository])?;
        let still = self.fleet_full();
        let late: Vec<u128> = self.unwritten.iter().map(|job| job.new.id.as_u128()).collect();
        let longest = waited.iter().find(|number| still.contains(number) && !late.contains(number));
        if let Some(longest) = longest {
            let shorter = waited.iter().find(|number| *number > longest && self.out.contains_key(number));
            prop_assert!(shorter.is_none(), "{shorter:?} goes before {longest}, which has waited longer for the fleet");
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn toggle(&mut self, host: Uuid) -> Result<(), TestCaseError> {
        if self.connected.remove(&host) {
            self.lanes.host_gone(host, self.now);
        } else {
            self.connected.insert(host);
            self.lanes.host_ready(host, self.now);
        }
        self.grant(self.lanes.repositories_of(host)).map(drop)
    }

    fn pause(&mut self, target: Target) -> Result<(), TestCaseError> {
        let pause = Pause { reason: "r".to_owned(), by: "b".to_owned(), since: Utc::now() };
        self.pauses.set(target, self.pauses.get(target).is_none().then_some(pause));
        match target {
            Target::Host(id) => {
                self.lanes.move_waiting(id, self.now);
                self.grant(self.lanes.repositories_of(id)).map(drop)
            }
            Target::Repository(id) => self.grant([id]).map(drop),
            Target::Fleet => self.grant(self.lanes.repositories()).map(drop),
        }
    }

    /// What holds after every event.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let out: Vec<&Known> = self.out.values().collect();
        for (index, a) in out.iter().enumerate() {
            for b in out[index + 1..].iter().filter(|b| b.repository == a.repository) {
                prop_assert!(!conflict(a.kind, b.kind), "{a:?} beside {b:?}");
            }
        }
        let backups = |repository: Option<Uuid>| {
            let within = |job: &&&Known| repository.is_none_or(|id| id == job.repository);
            out.iter().filter(within).filter(|job| job.kind == Kind::Backup).count()
        };
        let within = |limit: Option<NonZeroU32>, count| limit.is_none_or(|most| count <= most.get() as usize);
        prop_assert!(within(self.leases.backups_at_once, backups(None)));
        for number in 0..REPOSITORIES {
            prop_assert!(within(self.leases.backups_per_repository, backups(Some(repository(number)))));
        }
        self.note_drain_times();
        for number in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.check_waiting(number)?;
        }
        Ok(())
    }

    /// Who waits has a reason that is true, and an exclusive job whose drain time is over waits for nobody new.
    fn check_waiting(&mut self, number: u128) -> Result<(), TestCaseError> {
        let obstacle = self.lanes.obstacle(Uuid::from_u128(number), self.now);
        let unwritten = self.unwritten.iter().any(|job| job.new.id.as_u128() == number);
        let job = &self.waiting[&number];
        let place = |id: Uuid| id.as_u128();
        match obstacle {
            None => prop_assert!(unwritten, "{number} {job:?} waits for nothing"),
            Some(Obstacle::Held(claim)) => prop_assert!(self.out.contains_key(&place(claim.job_id))),
            Some(Obstacle::Behind(claim)) => prop_assert!(self.waiting.contains_key(&place(claim.job_id))),
            Some(Obstacle::Operation) => prop_assert!(false, "{number} {job:?} is of no operation"),
            Some(Obstacle::HostOffline) => prop_assert!(!self.connected.contains(&job.host)),
            Some(Obstacle::Paused(_)) => {
                prop_assert!(self.pauses.why(Some(job.host), Some(job.repository)).is_some());
            }
            Some(Obstacle::RepositoryFull(_) | Obstacle::FleetFull(_)) => prop_assert_eq!(job.kind, Kind::Backup),
        }
        let Some(before) = &job.before else { return Ok(()) };
        let stopped = self.pauses.why(Some(job.host), Some(job.repository)).is_some();
        if stopped || unwritten || !self.is_ready(job) {
            return Ok(());
        }
        // Inits go before all.
        let in_the_way = |(other, one): &(&u128, &Known)| {
            one.repository == job.repository && (before.contains(other) || one.kind == Kind::Init)
        };
        let waiting = self.waiting.iter().filter(in_the_way).any(|(_, one)| self.is_ready(one));
        let left = waiting || self.out.iter().any(|one| in_the_way(&one));
        prop_assert!(left, "{number} {job:?} waits although all are over that were there at its drain time");
        Ok(())
    }

    /// At its drain time an exclusive job gets to know who may go before it: those that are out, and those that asked before.
    fn note_drain_times(&mut self) {
        // One that stands aside meanwhile lets others go; when it is back it waits for those.
        let away: Vec<u128> = self.waiting.iter().filter(|(_, job)| !self.is_ready(job)).map(|(n, _)| *n).collect();
        for number in away {
            self.waiting.get_mut(&number).expect("there").before = None;
        }
        let ready: Vec<u128> = self.waiting.iter().filter(|(_, job)| self.is_ready(job)).map(|(n, _)| *n).collect();
        for number in ready {
            let job = self.waiting.get_mut(&number).expect("there");
            let since = *job.ready_since.get_or_insert(self.now);
            if !is_exclusive(job.kind) || job.before.is_some() || (self.now < since + DRAIN_AFTER) {
                continue;
            }
            let repository = job.repository;
            let here = |(other, job): (&u128, &Known)| (job.repository == repository).then_some(*other);
            let out = self.out.iter().filter_map(here);
            let before = self.waiting.iter().filter_map(here).filter(|other| *other < number);
            let before = out.chain(before).collect();
            self.waiting.get_mut(&number).expect("there").before = Some(before);
        }
    }

    /// Without new ones, everything that can be done is done when one after the other ends.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        for number in 0..HOSTS {
            if !self.connected.contains(&host(number)) {
                self.toggle(host(number))?;
            }
            if self.pauses.get(Target::Host(host(number))).is_some() {
                self.pause(Target::Host(host(number)))?;
            }
        }
        for target in (0..REPOSITORIES).map(|number| Target::Repository(repository(number))).chain([Target::Fleet]) {
            if self.pauses.get(target).is_some() {
                self.pause(target)?;
            }
        }
        self.apply(Event::Pass(1))?;
        while let Some(number) = self.out.keys().next().copied() {
            self.end(number)?;
            self.check()?;
        }
        prop_assert!(self.waiting.is_empty(), "{:?} would wait for ever", self.waiting);
        prop_assert_eq!(self.lanes.repositories(), Vec::<Uuid>::new());
        Ok(())
    }
}

proptest! {
    #[test]
    fn nothing_conflicts_and_nobody_is_starved(leases in leases(), events in prop::collection::vec(event(), 1..150)) {
        let mut world = World::new(leases);
        for number in 0..HOSTS {
            world.toggle(host(number))?;
        }
        for event in events {
            world.apply(event)?;
        }
        world.finish()?;
    }
}
