//! A month of a fleet in a moment: 200 hosts on 20 repositories, clocks that go back in Europe and America, a coordinator that
//! restarts, agents that come and go and run by themselves what they can't ask for. What is decided is decided by the
//! real functions (timetables, firings, maintenance, lanes); the ledger is a map with the rules that db/runs has in SQL.

mod coordinator;
mod fleet;

use super::lanes::Lanes;
use crate::config::Leases;
use crate::db::jobs::{Job as Record, JobState, NewJob};
use crate::db::maintenance::Entry;
use crate::db::repositories::Repository;
use crate::db::runs::Run;
use crate::db::schedules::Schedule;
use crate::timetable::Timetable;
use chrono::TimeDelta;
use fleet::month;
use fleet_wire::{Kind, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const HOSTS: u128 = 200;
const REPOSITORIES: u128 = 20;
const DAYS: i64 = 31;
const GROUP: &str = "docs";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Connect(u128),
    Disconnect(u128),
    Fire(u128),
    /// The agent looks whether it is still on its own with a firing.
    Alone(u128, Uuid),
    End(Uuid),
    /// The ticker.
    Look,
    Stop,
    Start,
}

/// What an agent has in its journal.
#[derive(Clone, Copy, Debug)]
enum Told {
    Fired(Timestamp, Uuid),
    Started(Uuid),
    Ended(Uuid),
}

struct Agent {
    schedule: Schedule,
    timetable: Timetable,
    connected: bool,
    seen: Timestamp,
    journal: Vec<Told>,
}

struct Work {
    new: NewJob,
    asked: Timestamp,
    /// An agent is at work on it, or was.
    begun: bool,
    alone: bool,
    ended: bool,
    /// As the coordinator knows it.
    dispatched: bool,
    over: bool,
}

struct Month {
    begin: Timestamp,
    now: Timestamp,
    instant: Instant,
    random: u64,
    queue: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    queued: u64,
    agents: Vec<Agent>,
    repositories: Vec<Repository>,
    entries: Vec<Entry>,
    lanes: Option<Lanes>,
    ledger: BTreeMap<Uuid, Run>,
    /// Rows that are expected or running; some may have come further.
    open: BTreeSet<Uuid>,
    work: HashMap<Uuid, Work>,
    /// What agents are at work on.
    at_work: BTreeSet<Uuid>,
    longest_wait: TimeDelta,
    adopted: usize,
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

fn lanes() -> Lanes {
    let leases = Leases { drain_after: Duration::from_secs(60), backups_per_repository: None, backups_at_once: None };
    Lanes::new(leases, HashMap::new(), Arc::default())
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

    fn moment(&self) -> Instant {
        self.instant + (self.now - self.begin).to_std().unwrap_or_default()
    }

    fn is_on(&self) -> bool {
        self.now < self.begin + TimeDelta::days(DAYS)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Connect(number) if self.lanes.is_some() => self.connect(number),
            again @ Event::Connect(_) => self.after(60, again),
            Event::Disconnect(number) => {
                self.disconnect(number);
                let away = 60 + self.random(5 * 3600);
                self.after(away, Event::Connect(number));
            }
            Event::Fire(number) => self.fire(number),
            Event::Alone(number, job) => self.run_alone(number, job),
            Event::End(job) => {
                let number = number_of(self.work[&job].new.host_id);
                self.work.get_mut(&job).expect("a job").ended = true;
                self.at_work.remove(&job);
                self.agents[number as usize].journal.push(Told::Ended(job));
                self.tell(number);
            }
            Event::Look => {
                self.look();
                self.after(60, Event::Look);
            }
            Event::Stop => {
                (0..HOSTS).for_each(|number| self.disconnect(number));
                self.lanes = None;
                let away = 60 + self.random(7_000);
                self.after(away, Event::Start);
            }
            Event::Start => self.start(),
        }
    }

    fn connect(&mut self, number: u128) {
        let agent = &mut self.agents[number as usize];
        if std::mem::replace(&mut agent.connected, true) {
            return;
        }
        let moment = self.moment();
        if let Some(lanes) = &mut self.lanes {
            lanes.host_ready(host(number), moment);
        }
        self.tell(number);
        self.grant(repository_of(number));
        if self.is_on() {
            let there = 6 * 3600 + self.random(4 * 24 * 3600);
            self.after(there, Event::Disconnect(number));
        }
    }

    fn disconnect(&mut self, number: u128) {
        self.agents[number as usize].connected = false;
        self.agents[number as usize].seen = self.now;
        let moment = self.moment();
        if let Some(lanes) = &mut self.lanes {
            lanes.host_gone(host(number), moment);
        }
        self.grant(repository_of(number));
    }

    fn start(&mut self) {
        let mut lanes = lanes();
        let mut open: Vec<&Work> = self.work.values().filter(|work| !work.over && work.new.run_id.is_some()).collect();
        open.sort_by_key(|work| (work.asked, work.new.id));
        for work in open {
            match work.dispatched {
                true => lanes.add_out(&work.new),
                false => lanes.add_waiting(Record::of(work.new.clone(), JobState::new()), self.moment()),
            }
        }
        self.lanes = Some(lanes);
        for number in 0..HOSTS {
            let soon = 1 + self.random(60);
            self.after(soon, Event::Connect(number));
        }
    }

    fn fire(&mut self, number: u128) {
        let job = Uuid::from_u128(u128::from(self.queued) << 64 | number);
        let due_at = self.now;
        let agent = &mut self.agents[number as usize];
        agent.journal.push(Told::Fired(due_at, job));
        let next = agent.timetable.next_after(due_at).expect("a next time");
        self.tell(number);
        self.after(30, Event::Alone(number, job));
        if next <= self.begin + TimeDelta::days(DAYS) {
            self.at(next, Event::Fire(number));
        }
    }

    fn run_alone(&mut self, number: u128, job: Uuid) {
        let untold =
            self.agents[number as usize].journal.iter().any(|told| matches!(told, Told::Fired(_, id) if *id == job));
        let busy = self.at_work.iter().any(|job| self.work[job].new.host_id == host(number));
        if untold && !busy {
            let new = new_job(job, Kind::Backup, number, None, self.now);
            let work =
                Work { new, asked: self.now, begun: true, alone: true, ended: false, dispatched: false, over: false };
            self.work.insert(job, work);
            self.at_work.insert(job);
            self.agents[number as usize].journal.push(Told::Started(job));
            let length = 300 + self.random(2_100);
            self.after(length, Event::End(job));
        }
    }

    /// The agent says what is in its journal, and the coordinator writes it down.
    fn tell(&mut self, number: u128) {
        if self.lanes.is_none() || !self.agents[number as usize].connected {
            return;
        }
        for told in std::mem::take(&mut self.agents[number as usize].journal) {
            match told {
                Told::Fired(due_at, job) => self.judge(number, due_at, job),
                Told::Started(job) => self.heard_of(number, job),
                Told::Ended(job) => self.over(job),
            }
        }
    }
}

fn kind_of(new: &NewJob) -> Kind {
    new.kind.parse().expect("a kind")
}

fn new_job(id: Uuid, kind: Kind, number: u128, run_id: Option<Uuid>, at: Timestamp) -> NewJob {
    let source_group = (kind == Kind::Backup).then(|| GROUP.to_owned());
    let new = NewJob::sample(id, host(number), repository_of(number), kind);
    NewJob { source_group, run_id, created_at: at, ..new }
}

#[test]
fn every_run_that_was_due_is_accounted_for_and_nothing_meets_what_it_must_not() {
    let mut month = month();
    let end = month.begin + TimeDelta::days(DAYS);
    while let Some(Reverse((when, _, event))) = month.queue.pop() {
        if when > end + TimeDelta::days(3) {
            break;
        }
        month.now = when;
        month.step(event);
    }
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut due = 0;
    for agent in &month.agents {
        for due_at in agent.timetable.after(month.begin).take_while(|due_at| *due_at <= end) {
            let id = Run::of_schedule(agent.schedule.id, agent.schedule.host_id, GROUP, due_at, due_at).id;
            *outcomes.entry(month.ledger[&id].outcome.as_str()).or_default() += 1;
            due += 1;
        }
    }
    for entry in &month.entries {
        let timetable = Timetable::parse(&entry.cron, &entry.timezone).expect("a timetable");
        for due_at in timetable.after(month.begin).take_while(|due_at| *due_at <= end) {
            let id = Run::of_maintenance(entry.repository_id, &entry.kind, None, due_at, due_at).id;
            *outcomes.entry(month.ledger[&id].outcome.as_str()).or_default() += 1;
            due += 1;
        }
    }
    let open =
        month.ledger.values().filter(|run| run.due_at <= end && matches!(run.outcome.as_str(), "expected" | "running"));
    assert_eq!(open.count(), 0, "{outcomes:?}");
    assert!(due > 9_000 && outcomes["succeeded"] * 10 > due * 9, "{due}: {outcomes:?}");
    assert!(month.adopted > 50, "agents were on their own {} times", month.adopted);
    assert!(month.longest_wait < TimeDelta::hours(12), "{}", month.longest_wait);
}
