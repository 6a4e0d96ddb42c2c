//! A month of a fleet in a moment: 200 hosts on 20 repositories, clocks that go back in Europe and America, a coordinator that
//! restarts and whose clock jumps, agents that come and go and run by themselves what they can't ask for, jobs that fail and
//! are tried again, pauses of hosts, repositories and the fleet.
//!
//! What is decided is decided by the real functions (timetables, firings, transitions, endings, maintenance, pauses, lanes, the
//! coordinator's clock); the ledger is a map with the rules that db/runs has in SQL.

mod agents;
mod coordinator;
mod fleet;
mod ledger;
mod verdict;

use super::lanes::Lanes;
use crate::clock::{Reading, Steady};
use crate::db::jobs::{JobState, NewJob};
use crate::db::maintenance::Entry;
use crate::db::pauses::Target;
use crate::db::repositories::Repository;
use crate::db::schedules::Schedule;
use crate::pauses::Pauses;
use crate::timetable::Timetable;
use chrono::TimeDelta;
use fleet::month;
use fleet_wire::{Kind, Timestamp};
use ledger::{Ledger, Retries};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use verdict::{Attempt, Stop};

const HOSTS: u128 = 200;
const REPOSITORIES: u128 = 20;
const DAYS: i64 = 31;
const GROUP: &str = "docs";

/// What is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Host(u128),
    Repository(u128),
    Fleet,
}

impl Scope {
    fn target(self) -> Target {
        match self {
            Self::Host(number) => Target::Host(host(number)),
            Self::Repository(number) => Target::Repository(repository_of(number)),
            Self::Fleet => Target::Fleet,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Connect(u128),
    Disconnect(u128),
    /// A schedule fires, if it is still the one with this number.
    Fire(u128, u32),
    /// The agent looks whether it is still on its own with a firing.
    Alone(u128, Uuid),
    End(Uuid),
    /// The ticker.
    Look,
    Stop,
    Start,
    Pause(Scope),
    GoOn(Scope),
    /// From now on the coordinator's machine shows a time that is so many seconds ahead.
    Clock(i64),
}

/// How a job ends, as its agent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Succeeded,
    Partial,
    Failed,
    Refused,
    Cancelled,
}

/// What an agent has in its journal.
#[derive(Clone, Copy, Debug)]
enum Told {
    Fired(Timestamp, Uuid),
    Started(Uuid),
    Ended(Uuid, End),
}

struct Agent {
    /// As it stands in the ledger.
    schedule: Schedule,
    timetable: Timetable,
    retries: Retries,
    /// What the agent was told: whether its schedule is on.
    enabled: bool,
    /// Counts how often it was told something else.
    told: u32,
    connected: bool,
    seen: Timestamp,
    journal: Vec<Told>,
    /// Its last firing: where an acknowledgement is lost, it is told again.
    last_fired: Option<(Timestamp, Uuid)>,
    /// How long its backups take, in seconds.
    backup_takes: (i64, i64),
}

struct Work {
    new: NewJob,
    state: JobState,
    made_at: Timestamp,
    /// From when on nobody but others was in its way.
    asked: Timestamp,
    /// An agent is at work on it, or was.
    begun: bool,
    alone: bool,
    /// As the coordinator knows it.
    dispatched: bool,
    over: bool,
}

struct Month {
    begin: Timestamp,
    /// The time in truth, by which agents go.
    now: Timestamp,
    /// By how much the coordinator's machine is wrong.
    ahead: TimeDelta,
    clock: Steady,
    /// As in the ticker.
    looked_at: Option<Timestamp>,
    instant: Instant,
    random: u64,
    queue: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    queued: u64,
    agents: Vec<Agent>,
    repositories: Vec<Repository>,
    entries: Vec<Entry>,
    pauses: Arc<Pauses>,
    lanes: Option<Lanes>,
    ledger: Ledger,
    work: HashMap<Uuid, Work>,
    /// What agents are at work on.
    at_work: BTreeSet<Uuid>,
    longest_wait: TimeDelta,
    adopted: usize,
    /// What was paused when, by the coordinator's clock.
    stops: Vec<Stop>,
    attempts: Vec<Attempt>,
    /// When the coordinator was away, or its clock in doubt: from, to.
    away: Vec<(Timestamp, Timestamp)>,
}

fn host(number: u128) -> Uuid {
    Uuid::from_u128(1_000 + number)
}

fn number_of(host: Uuid) -> u128 {
    host.as_u128() - 1_000
}

fn repository_of(number: u128) -> Uuid {
    Uuid::from_u128(5_000 + number % REPOSITORIES)
}

fn kind_of(new: &NewJob) -> Kind {
    new.kind.parse().expect("a kind")
}

fn new_job(id: Uuid, kind: Kind, number: u128, at: Timestamp) -> NewJob {
    let source_group = (kind == Kind::Backup).then(|| GROUP.to_owned());
    let new = NewJob::sample(id, host(number), repository_of(number), kind);
    NewJob { source_group, created_at: at, ..new }
}

impl Month {
    fn random(&mut self, below: i64) -> i64 {
        // xorshift: the same month every time.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        i64::try_from(self.random % below.unsigned_abs()).expect("small")
    }

    fn at(&mut self, when: Timestamp, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse((when, self.queued, event)));
    }

    fn after(&mut self, seconds: i64, event: Event) {
        self.at(self.now + TimeDelta::seconds(seconds), event);
    }

    /// The time that has passed.
    fn passed(&self) -> Duration {
        (self.now - self.begin).to_std().unwrap_or_default()
    }

    fn moment(&self) -> Instant {
        self.instant + self.passed()
    }

    /// What time it is for the coordinator.
    fn read_clock(&mut self) -> Reading {
        let (shown, passed) = (self.now + self.ahead, self.passed());
        self.clock.read(shown, passed)
    }

    fn end(&self) -> Timestamp {
        self.begin + TimeDelta::days(DAYS)
    }

    fn is_on(&self) -> bool {
        self.now < self.end()
    }

    fn step(&mut self, event: Event) {
        let is_there = self.lanes.is_some();
        match event {
            // Nobody is there to whom it could be told.
            Event::Connect(_) | Event::Pause(_) | Event::GoOn(_) if !is_there => self.after(60, event),
            Event::Connect(number) => self.connect(number),
            Event::Disconnect(number) => {
                self.disconnect(number);
                let away = 60 + self.random(5 * 3600);
                self.after(away, Event::Connect(number));
            }
            Event::Fire(number, told) => self.fire(number, told),
            Event::Alone(number, job) => self.run_alone(number, job),
            Event::End(job) => self.finish(job),
            Event::Look => {
                self.look();
                self.after(60, Event::Look);
            }
            Event::Stop => {
                (0..HOSTS).for_each(|number| self.disconnect(number));
                self.lanes = None;
                let away = 60 + self.random(7_000);
                self.away.push((self.now, self.now + TimeDelta::seconds(away + 120)));
                self.after(away, Event::Start);
            }
            Event::Start => self.start(),
            Event::Pause(scope) => self.pause(scope),
            Event::GoOn(scope) => self.go_on(scope),
            Event::Clock(seconds) => self.ahead = TimeDelta::seconds(seconds),
        }
    }

    /// Plays it to its end, and three days more in which nothing comes due.
    fn play(&mut self) {
        while let Some(Reverse((when, _, event))) = self.queue.pop() {
            if when > self.end() + TimeDelta::days(3) {
                return;
            }
            self.now = when;
            self.step(event);
        }
    }
}

#[test]
fn every_run_that_was_due_is_accounted_for_and_nothing_meets_what_it_must_not() {
    let mut month = month();
    month.play();
    verdict::judge(&month);
}
