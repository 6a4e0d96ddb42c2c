//! The coordinator of the month: what it makes of what agents tell, and its ticker.

use super::verdict::{Attempt, Stop};
use super::{Agent, End, GROUP, HOSTS, Month, Scope, Work, host, kind_of, new_job, number_of, repository_of};
use crate::clock::Steady;
use crate::config::Leases;
use crate::db::jobs::{Job as Record, JobState, NewJob};
use crate::db::maintenance::Entry;
use crate::db::runs::{Outcome, Run};
use crate::dispatcher::admission::conflict;
use crate::dispatcher::lanes::Lanes;
use crate::expected;
use crate::firing::{Verdict, judge};
use crate::job::ending;
use crate::job::transitions::{Event as JobEvent, apply};
use crate::maintenance::{Action, Candidate, Situation, decide, expected as expected_maintenance, skipping};
use crate::pauses::Pause;
use crate::timetable::Timetable;
use chrono::TimeDelta;
use fleet_wire::{CommandResult, JobFinished, JobId, JobStarted, Kind, Status, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// As in the ticker.
const GRACE: TimeDelta = TimeDelta::minutes(10);
/// How long a job may wait, as deadlines have it.
const QUEUED: Duration = Duration::from_secs(24 * 3600);

fn lanes(month: &Month) -> Lanes {
    let leases = Leases { drain_after: Duration::from_secs(60), backups_per_repository: None, backups_at_once: None };
    Lanes::new(leases, HashMap::new(), Arc::clone(&month.pauses))
}

fn wire_id(job: Uuid) -> JobId {
    job.to_string().into()
}

/// What an agent says of the end of a job.
fn report(job: Uuid, end: End, at: Timestamp) -> JobEvent {
    let failed = |error: &str| (Status::Failed, 1, Some(error.to_owned()));
    let (status, exit_code, error) = match end {
        End::Succeeded => (Status::Succeeded, 0, None),
        End::Partial => (Status::Succeeded, 3, None),
        End::Failed => failed("it broke"),
        End::Cancelled => (Status::Cancelled, 130, None),
        End::Refused => {
            let error = Some("no room".to_owned());
            return JobEvent::Answered(CommandResult { job_id: wire_id(job), accepted: false, error });
        }
    };
    let (finished_at, stats) = (Some(at), None);
    JobEvent::Finished(JobFinished { job_id: wire_id(job), status, exit_code, finished_at, stats, error })
}

impl Month {
    fn lanes(&mut self) -> &mut Lanes {
        self.lanes.as_mut().expect("it is there")
    }

    pub(super) fn start(&mut self) {
        let latest = self.looked_at.unwrap_or(self.begin);
        self.clock = Steady::after(latest, self.now + self.ahead, self.passed());
        self.looked_at = None;
        let (mut lanes, moment) = (lanes(self), self.moment());
        let mut open: Vec<&Work> = self.work.values().filter(|work| !work.over && work.new.run_id.is_some()).collect();
        open.sort_by_key(|work| (work.asked, work.new.id));
        for work in open {
            if work.dispatched {
                lanes.add_out(&work.new);
                continue;
            }
            let waited = (self.now - work.asked).to_std().unwrap_or_default();
            lanes.add_waiting(Record::of(work.new.clone(), JobState::new()), waited, moment);
        }
        self.lanes = Some(lanes);
        for number in 0..HOSTS {
            let soon = 1 + self.random(60);
            self.after(soon, super::Event::Connect(number));
        }
    }

    pub(super) fn judge(&mut self, number: u128, due_at: Timestamp, job: Uuid) {
        if self.lanes().contains(job) {
            return; // it is told once more
        }
        let now = self.read_clock().nearest(due_at);
        let open = self.lanes().backups_of(host(number), GROUP).find(|id| *id != job);
        let schedule = &self.agents[number as usize].schedule;
        let run = Run { job_id: Some(job), ..Run::of_schedule(schedule.id, host(number), GROUP, due_at, now) };
        let paused = self.pauses.why_at(Some(host(number)), Some(repository_of(number)), due_at);
        match judge(schedule, due_at, open, paused.as_deref(), now) {
            Verdict::Run => self.submit(run, new_job(job, Kind::Backup, number, now), None),
            Verdict::Skip(why) => self.ledger.note(run.with(Outcome::Skipped, why)),
            Verdict::Miss(why) => self.ledger.note(run.with(Outcome::Missed, why)),
        }
    }

    fn submit(&mut self, run: Run, new: NewJob, previous: Option<Uuid>) {
        let (id, repository_id) = (new.id, new.repository_id);
        let new = NewJob { run_id: Some(run.id), ..new };
        if !self.ledger.claim(&run, id, new.attempt, previous) {
            return;
        }
        let alone = self.work.get(&id).is_some_and(|work| work.alone);
        let (state, asked) = (JobState::new(), self.now);
        let work = Work {
            new: new.clone(),
            state,
            made_at: asked,
            asked,
            begun: alone,
            alone,
            dispatched: false,
            over: false,
        };
        self.work.insert(id, work);
        let moment = self.moment();
        let lanes = self.lanes();
        if lanes.add_new(&new, moment) {
            self.send(id);
        } else {
            lanes.committed(Record::of(new, JobState::new()), moment);
            self.grant(repository_id);
        }
    }

    pub(super) fn grant(&mut self, repository: Uuid) {
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
        if std::mem::replace(&mut work.begun, true) {
            return; // it was started by its agent alone
        }
        let (kind, repository, of) = (kind_of(&work.new), work.new.repository_id, work.new.host_id);
        assert_eq!(self.pauses.why(Some(of), Some(repository)), None, "{kind} begins at {now}");
        for other in self.at_work.iter().map(|job| &self.work[job]).filter(|other| !other.alone) {
            let same = other.new.repository_id == repository;
            assert!(!(same && conflict(kind, kind_of(&other.new))), "{kind} beside {} at {now}", other.new.kind);
        }
        self.work_on(id);
    }

    /// Its agent says something about a job.
    fn apply(&mut self, job: Uuid, event: &JobEvent) {
        let now = self.read_clock().now;
        let work = self.work.get_mut(&job).expect("a job");
        if let Some(next) = apply(&work.state, event, now) {
            work.state = next;
        }
    }

    /// An agent is at work on a job.
    pub(super) fn heard_of(&mut self, number: u128, job: Uuid) {
        if self.lanes().contains(job) {
            if self.lanes().force_out(job).is_some() {
                self.work.get_mut(&job).expect("a job").dispatched = true;
            }
        } else {
            let its = |run: &&Run| run.job_id == Some(job) && run.host_id == Some(host(number));
            let run = self.ledger.rows.values().find(its).expect("what an agent has run is in the ledger").clone();
            assert!(self.ledger.claim(&run, job, 1, None), "{run:?} can be adopted");
            self.adopted += 1;
            let work = self.work.get_mut(&job).expect("a job");
            (work.new.run_id, work.dispatched) = (Some(run.id), true);
            let new = work.new.clone();
            self.lanes().add_found(&new);
        }
        let (kind, started_at) = (fleet_wire::MaybeKnown::Known(Kind::Backup), Some(self.now));
        self.apply(job, &JobEvent::Started(JobStarted { job_id: wire_id(job), kind, started_at }));
    }

    pub(super) fn over(&mut self, job: Uuid, end: End) {
        self.apply(job, &report(job, end, self.now));
        let work = self.work.get_mut(&job).expect("a job");
        work.over = true;
        let ending = ending::of(&work.new, &work.state).expect("it is over");
        let retries = self.agents[number_of(work.new.host_id) as usize].retries;
        let attempt = work.new.attempt;
        if let Some(due) = self.ledger.settle(&ending, retries) {
            let (failed_at, backoff) = (self.now, retries.backoff);
            self.attempts.push(Attempt { job, attempt, backoff, failed_at, pause: due - ending.at, made_at: None });
        }
        if let Some(repository) = self.lanes().remove(job) {
            self.grant(repository);
        }
    }

    /// The ticker's look.
    pub(super) fn look(&mut self) {
        if self.lanes.is_none() {
            return;
        }
        let reading = self.read_clock();
        let now = reading.now;
        let went_back = self.looked_at.is_none_or(|before| now < before);
        let right = !went_back || reading.is_certain;
        if went_back && right {
            self.set_right(now);
        }
        self.expect(now);
        self.ledger.mark_missed(now - GRACE, now);
        self.retry(now);
        for (repository, runs) in self.ledger.open_maintenance() {
            self.maintain(repository, &runs, now);
        }
        self.look_at_waiting();
        self.looked_at = right.then_some(now);
    }

    /// Notes what has come due.
    fn expect(&mut self, now: Timestamp) {
        let (mut due, pauses) = (Vec::new(), Arc::clone(&self.pauses));
        let is_due = |next: Option<Timestamp>| next.is_some_and(|due| due <= now);
        for agent in self.agents.iter_mut().filter(|agent| is_due(agent.schedule.next_due_at)) {
            let (rows, next) = expected::of(&agent.schedule, now, usize::MAX);
            agent.schedule.next_due_at = next;
            let of = agent.schedule.host_id;
            let paused = |run: &Run| pauses.why_at(Some(of), Some(repository_of(number_of(of))), run.due_at);
            due.extend(expected::skipping(rows, paused));
        }
        for entry in self.entries.iter_mut().filter(|entry| is_due(entry.next_due_at)) {
            let (rows, next) = expected_maintenance(entry, now, usize::MAX);
            entry.next_due_at = next;
            due.extend(skipping(rows, &pauses));
        }
        self.ledger.expect(due);
    }

    /// As the ticker does it with a clock that has gone back.
    fn set_right(&mut self, now: Timestamp) {
        let sooner =
            |next: &mut Option<Timestamp>, timetable: &Timetable| *next = (*next).min(timetable.next_after(now));
        for Agent { schedule, timetable, .. } in &mut self.agents {
            sooner(&mut schedule.next_due_at, timetable);
        }
        for entry in &mut self.entries {
            let timetable = Timetable::parse(&entry.cron, &entry.timezone).expect("a timetable");
            sooner(&mut entry.next_due_at, &timetable);
        }
        self.ledger.set_right(now);
        self.pauses.began_by(now);
    }

    /// As `dispatcher/retry` makes attempts.
    fn retry(&mut self, now: Timestamp) {
        for run in self.ledger.attempts_due(now) {
            let of = run.host_id.expect("a host");
            let made_at = self.now;
            let failed = self.attempts.iter_mut().find(|attempt| Some(attempt.job) == run.job_id);
            failed.expect("it has failed").made_at = Some(made_at);
            let open = self.lanes().backups_of(of, GROUP).next();
            if let Some(open) = open {
                self.ledger.give_up(&run, &format!("not tried again: job {open} is at the same source group"));
                continue;
            }
            let id = Uuid::from_u128(u128::from(self.queued) << 64 | 8_000_000);
            self.queued += 1;
            let new = new_job(id, Kind::Backup, number_of(of), now);
            let (attempt, previous) = (run.attempt + 1, run.job_id);
            self.submit(run, NewJob { attempt, retry_of: previous, ..new }, previous);
        }
    }

    fn maintain(&mut self, id: Uuid, runs: &[Run], now: Timestamp) {
        let repository = self.repositories.iter().find(|repository| repository.id == id).expect("a repository").clone();
        let entries: Vec<Entry> = self.entries.iter().filter(|entry| entry.repository_id == id).cloned().collect();
        let of_repository = (0..HOSTS).filter(|number| repository_of(*number) == id);
        let candidate = |number: u128| {
            let Agent { connected, seen, .. } = self.agents[number as usize];
            let paused = self.pauses.get(crate::db::pauses::Target::Host(host(number))).is_some();
            let expected_back = !connected && self.now - seen < TimeDelta::seconds(90);
            Candidate { host_id: host(number), ready: connected && !paused, expected_back, guards: true }
        };
        let candidates: Vec<Candidate> = of_repository.map(candidate).collect();
        let situation = Situation {
            repository: &repository,
            entries: &entries,
            candidates: &candidates,
            pauses: &self.pauses,
            longest_jitter: TimeDelta::minutes(10),
            now,
        };
        for action in decide(runs, situation) {
            match action {
                Action::Leave(run) => self.ledger.note(run),
                Action::Start(run, host_id) => {
                    let kind = run.kind.parse().expect("a kind");
                    let job = Uuid::from_u128(u128::from(self.queued) << 64 | 7_000_000);
                    self.queued += 1;
                    self.submit(run, new_job(job, kind, number_of(host_id), now), None);
                }
                Action::Split(run) => panic!("every agent guards: {run:?}"),
            }
        }
    }

    /// Only a pause lets a job wait for so long that it would expire.
    fn look_at_waiting(&mut self) {
        let (now, moment) = (self.now, self.moment());
        let expired: Vec<_> = self.lanes().waiting(moment).take_while(|(_, waited)| *waited > QUEUED).collect();
        for (job, waited) in expired {
            assert!(self.lanes().is_paused(job), "{:?} waits for {waited:?} at {now}", self.work[&job].new);
            self.lanes().count_waiting(job, Duration::ZERO, moment);
        }
    }

    pub(super) fn pause(&mut self, scope: Scope) {
        if self.pauses.get(scope.target()).is_some() {
            return;
        }
        let since = self.read_clock().now;
        let pause = Pause { reason: "new disks".to_owned(), by: "anna".to_owned(), since };
        self.pauses.set(scope.target(), Some(pause));
        self.stops.push(Stop { scope, from: self.now, to: None });
        self.pause_changed(scope);
        let hours = if scope == Scope::Fleet { 3 } else { 40 };
        let lasts = 1_800 + self.random(hours * 3600);
        self.after(lasts, super::Event::GoOn(scope));
    }

    pub(super) fn go_on(&mut self, scope: Scope) {
        let now = self.read_clock().now;
        self.expect(now);
        self.pauses.set(scope.target(), None);
        let stop = self.stops.iter_mut().rev().find(|stop| stop.scope == scope).expect("it was paused");
        stop.to = Some(self.now);
        self.pause_changed(scope);
    }

    /// As `dispatcher/terms` has it; and agents are told that their schedules are off, or on.
    fn pause_changed(&mut self, scope: Scope) {
        let (now, moment) = (self.now, self.moment());
        let lanes = self.lanes();
        let repositories = match scope {
            Scope::Fleet => lanes.repositories(),
            Scope::Repository(number) => vec![repository_of(number)],
            Scope::Host(number) => {
                lanes.move_waiting(host(number), moment);
                lanes.repositories_of(host(number)).into_iter().collect()
            }
        };
        // How long it took is nobody's wait.
        for work in self.work.values_mut().filter(|work| !work.begun && repositories.contains(&work.new.repository_id))
        {
            work.asked = now;
        }
        for repository in repositories {
            self.lanes().count_anew(repository, moment);
            self.lanes().move_members(repository, moment);
            self.grant(repository);
        }
        self.tell_schedules(scope);
    }
}
