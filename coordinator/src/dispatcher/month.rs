//! A month of a fleet in a moment: 200 hosts on 20 repositories, clocks that go back in Europe and America, a coordinator that
//! restarts, agents that come and go and run by themselves what they can't ask for. What is decided is decided by the
//! real functions (timetables, firings, maintenance, lanes); the ledger is a map with the rules that db/runs has in SQL.

use super::admission::{conflict, is_exclusive};
use super::lanes::Lanes;
use crate::config::Leases;
use crate::db::jobs::{Job as Record, JobState, NewJob};
use crate::db::json::Json;
use crate::db::maintenance::Entry;
use crate::db::repositories::Repository;
use crate::db::runs::{Outcome, Run};
use crate::db::schedules::Schedule;
use crate::expected;
use crate::firing::{Verdict, judge};
use crate::maintenance::{Action, Candidate, Situation, decide, expected as expected_maintenance};
use crate::timetable::Timetable;
use chrono::TimeDelta;
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
const GRACE: TimeDelta = TimeDelta::minutes(10);
const CRONS: [&str; 5] = ["0 2 * * *", "30 2 * * 1-5", "15 */6 * * *", "0 1,13 * * *", "*/20 3 * * *"];
const ZONES: [&str; 4] = ["Europe/Berlin", "America/New_York", "UTC", "Australia/Lord_Howe"];

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

    fn judge(&mut self, number: u128, due_at: Timestamp, job: Uuid) {
        let schedule = &self.agents[number as usize].schedule;
        let run = Run { job_id: Some(job), ..Run::of_schedule(schedule.id, host(number), GROUP, due_at, self.now) };
        let lanes = self.lanes.as_ref().expect("it is there");
        let open = lanes.backups_of(host(number), GROUP).find(|id| *id != job);
        match judge(schedule, due_at, open, None, self.now) {
            Verdict::Run => self.submit(run, new_job(job, Kind::Backup, number, None, self.now)),
            Verdict::Skip(why) => self.note(run.with(Outcome::Skipped, why)),
            Verdict::Miss(why) => self.note(run.with(Outcome::Missed, why)),
        }
    }

    /// As in `NoteRuns`.
    fn note(&mut self, run: Run) {
        let there = self.ledger.get(&run.id).map(|run| run.outcome.as_str());
        if there.is_none_or(|outcome| outcome == "expected" || outcome == "missed") {
            self.ledger.insert(run.id, run);
        }
    }

    /// As in `claim_many`.
    fn claim(&mut self, run: &Run, job: Uuid) -> bool {
        let row = self.ledger.entry(run.id).or_insert_with(|| run.clone());
        let free = matches!(row.outcome.as_str(), "expected" | "missed")
            || (row.outcome == "skipped" && row.job_id == Some(job));
        if free {
            row.outcome = Outcome::Running.as_str().to_owned();
            row.job_id = Some(job);
            self.open.insert(run.id);
        }
        free
    }

    fn submit(&mut self, run: Run, new: NewJob) {
        let (id, repository_id) = (new.id, new.repository_id);
        let new = NewJob { run_id: Some(run.id), ..new };
        if !self.claim(&run, id) {
            return;
        }
        let alone = self.work.get(&id).is_some_and(|work| work.alone);
        let ended = self.work.get(&id).is_some_and(|work| work.ended);
        let work =
            Work { new: new.clone(), asked: self.now, begun: alone, alone, ended, dispatched: false, over: false };
        self.work.insert(id, work);
        let moment = self.moment();
        let lanes = self.lanes.as_mut().expect("it is there");
        if lanes.add_new(&new, moment) {
            self.send(id);
        } else {
            lanes.committed(Record::of(new, JobState::new()));
            self.grant(repository_id);
        }
    }

    fn grant(&mut self, repository: Uuid) {
        let moment = self.moment();
        let Some(lanes) = &mut self.lanes else { return };
        for record in lanes.grant(repository, moment) {
            self.send(record.new.id);
        }
    }

    /// A job has its lease, and its agent is there.
    fn send(&mut self, id: Uuid) {
        let now = self.now;
        let work = self.work.get_mut(&id).expect("a job");
        work.dispatched = true;
        self.longest_wait = self.longest_wait.max(now - work.asked);
        if work.begun {
            return; // it was started by its agent alone
        }
        let (kind, repository) = (kind_of(&work.new), work.new.repository_id);
        for other in self.at_work.iter().map(|job| &self.work[job]).filter(|other| !other.alone) {
            let same = other.new.repository_id == repository;
            assert!(!(same && conflict(kind, kind_of(&other.new))), "{kind} beside {} at {now}", other.new.kind);
        }
        self.work.get_mut(&id).expect("a job").begun = true;
        self.at_work.insert(id);
        let length = match kind {
            Kind::Prune => 3_600 + self.random(7_200),
            kind if is_exclusive(kind) => 300 + self.random(1_800),
            _ => 300 + self.random(2_100),
        };
        self.after(length, Event::End(id));
    }

    /// An agent is at work on a job.
    fn heard_of(&mut self, number: u128, job: Uuid) {
        let lanes = self.lanes.as_mut().expect("it is there");
        if lanes.contains(job) {
            if lanes.force_out(job).is_some() {
                self.work.get_mut(&job).expect("a job").dispatched = true;
            }
            return;
        }
        let left = self.ledger.values().find(|run| run.job_id == Some(job) && run.host_id == Some(host(number)));
        let run = left.expect("what an agent has run is in the ledger").clone();
        assert!(self.claim(&run, job), "{run:?} can be adopted");
        self.adopted += 1;
        let work = self.work.get_mut(&job).expect("a job");
        (work.new.run_id, work.dispatched) = (Some(run.id), true);
        self.lanes.as_mut().expect("it is there").add_found(&work.new);
    }

    fn over(&mut self, job: Uuid) {
        let work = self.work.get_mut(&job).expect("a job");
        work.over = true;
        let run = self.ledger.get_mut(&work.new.run_id.expect("a run")).expect("a row");
        assert_eq!((run.outcome.as_str(), run.job_id), ("running", Some(job)));
        run.outcome = Outcome::Succeeded.as_str().to_owned();
        if let Some(repository) = self.lanes.as_mut().and_then(|lanes| lanes.remove(job)) {
            self.grant(repository);
        }
    }

    /// The ticker's look.
    fn look(&mut self) {
        if self.lanes.is_none() {
            return;
        }
        let (now, mut due) = (self.now, Vec::new());
        for agent in self.agents.iter_mut().filter(|agent| agent.schedule.next_due_at.is_some_and(|due| due <= now)) {
            let (rows, next) = expected::of(&agent.schedule, now, usize::MAX);
            agent.schedule.next_due_at = next;
            due.extend(rows);
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.next_due_at.is_some_and(|due| due <= now)) {
            let (rows, next) = expected_maintenance(entry, now, usize::MAX);
            entry.next_due_at = next;
            due.extend(rows);
        }
        for run in due {
            self.open.insert(run.id);
            self.ledger.entry(run.id).or_insert(run);
        }
        let mut open: BTreeMap<Uuid, Vec<Run>> = BTreeMap::new();
        for id in self.open.clone() {
            let run = self.ledger.get_mut(&id).expect("a row");
            if run.schedule_id.is_some() && run.outcome == "expected" && run.due_at < now - GRACE {
                run.outcome = Outcome::Missed.as_str().to_owned();
            }
            match run.outcome.as_str() {
                "expected" | "running" if run.schedule_id.is_none() => {
                    open.entry(run.repository_id.expect("a repository")).or_default().push(run.clone());
                }
                "expected" | "running" => {}
                _ => {
                    self.open.remove(&id);
                }
            }
        }
        for (repository, mut runs) in open {
            runs.sort_by_key(|run| run.due_at);
            self.maintain(repository, &runs);
        }
    }

    fn maintain(&mut self, id: Uuid, runs: &[Run]) {
        let repository = self.repositories.iter().find(|repository| repository.id == id).expect("a repository").clone();
        let entries: Vec<Entry> = self.entries.iter().filter(|entry| entry.repository_id == id).cloned().collect();
        let candidates: Vec<Candidate> = (0..HOSTS)
            .filter(|number| repository_of(*number) == id)
            .map(|number| (number, &self.agents[number as usize]))
            .map(|(number, agent)| Candidate {
                host_id: host(number),
                ready: agent.connected,
                expected_back: !agent.connected && self.now - agent.seen < TimeDelta::seconds(90),
                guards: true,
            })
            .collect();
        let situation = Situation {
            repository: &repository,
            entries: &entries,
            candidates: &candidates,
            paused: None,
            longest_jitter: TimeDelta::minutes(10),
            now: self.now,
        };
        for action in decide(runs, situation) {
            match action {
                Action::Leave(run) => self.note(run),
                Action::Start(run, host_id) => {
                    let kind = run.kind.parse().expect("a kind");
                    let job = Uuid::from_u128(u128::from(self.queued) << 64 | 7_000_000);
                    self.queued += 1;
                    self.submit(run, new_job(job, kind, number_of(host_id), None, self.now));
                }
                Action::Split(run) => panic!("every agent guards: {run:?}"),
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

fn agent(number: u128, begin: Timestamp) -> Agent {
    let (cron, timezone) = (CRONS[number as usize % CRONS.len()], ZONES[number as usize / 3 % ZONES.len()]);
    let timetable = Timetable::parse(cron, timezone).expect("a timetable");
    let schedule = Schedule {
        id: Uuid::from_u128(9_000 + number),
        host_id: host(number),
        cron: cron.to_owned(),
        timezone: timezone.to_owned(),
        enabled: true,
        source_groups: Json(vec![GROUP.to_owned()]),
        catch_up_seconds: 3_600,
        bandwidth_up_kbps: None,
        bandwidth_down_kbps: None,
        interval_seconds: 86_400,
        version: 1,
        next_due_at: timetable.next_after(begin),
        created_at: begin,
        updated_at: begin,
        deleted_at: None,
    };
    Agent { schedule, timetable, connected: false, seen: begin - TimeDelta::days(1), journal: Vec::new() }
}

fn entry(number: u128, kind: Kind, cron: &str, begin: Timestamp) -> Entry {
    let timezone = ZONES[number as usize % ZONES.len()];
    let timetable = Timetable::parse(cron, timezone).expect("a timetable");
    Entry {
        repository_id: repository_of(number),
        kind: kind.as_str().to_owned(),
        cron: cron.to_owned(),
        timezone: timezone.to_owned(),
        enabled: true,
        subset: None,
        interval_seconds: timetable.interval_seconds(begin),
        next_due_at: timetable.next_after(begin),
        last_success_at: None,
        last_subset: None,
        overdue_at: None,
        created_at: begin,
        updated_at: begin,
    }
}

fn month() -> Month {
    // Berlin's clocks go back on the 25th, New York's a week later.
    let begin: Timestamp = "2026-10-12T00:00:00Z".parse().expect("a time");
    let kinds = [(Kind::Forget, "0 3 * * *"), (Kind::Prune, "30 3 * * 0"), (Kind::Check, "30 5 * * *")];
    let entries = (0..REPOSITORIES).flat_map(|number| kinds.map(|(kind, cron)| entry(number, kind, cron, begin)));
    let mut month = Month {
        begin,
        now: begin,
        instant: Instant::now(),
        random: 4_711,
        queue: BinaryHeap::new(),
        queued: 0,
        agents: (0..HOSTS).map(|number| agent(number, begin)).collect(),
        repositories: (0..REPOSITORIES).map(|number| Repository::sample(repository_of(number))).collect(),
        entries: entries.collect(),
        lanes: None,
        ledger: BTreeMap::new(),
        open: BTreeSet::new(),
        work: HashMap::new(),
        at_work: BTreeSet::new(),
        longest_wait: TimeDelta::zero(),
        adopted: 0,
    };
    month.after(0, Event::Start);
    month.after(60, Event::Look);
    for number in 0..HOSTS {
        let first = month.agents[number as usize].schedule.next_due_at.expect("a firing");
        month.at(first, Event::Fire(number));
    }
    for day in [3, 7, 13, 14, 22, 28] {
        let seconds = day * 24 * 3600 + month.random(24 * 3600);
        month.after(seconds, Event::Stop);
    }
    month
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
