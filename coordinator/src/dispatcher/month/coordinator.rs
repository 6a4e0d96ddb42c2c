//! The coordinator of the month: what it makes of what agents tell, and its ticker.

use super::{Event, GROUP, HOSTS, Month, Work, host, kind_of, new_job, number_of, repository_of};
use crate::db::jobs::{Job as Record, JobState, NewJob};
use crate::db::maintenance::Entry;
use crate::db::runs::{Outcome, Run};
use crate::dispatcher::admission::{conflict, is_exclusive};
use crate::expected;
use crate::firing::{Verdict, judge};
use crate::maintenance::{Action, Candidate, Situation, decide, expected as expected_maintenance};
use chrono::TimeDelta;
use fleet_wire::{Kind, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

/// As in the ticker.
const GRACE: TimeDelta = TimeDelta::minutes(10);

impl Month {
    pub(super) fn judge(&mut self, number: u128, due_at: Timestamp, job: Uuid) {
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
    pub(super) fn heard_of(&mut self, number: u128, job: Uuid) {
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

    pub(super) fn over(&mut self, job: Uuid) {
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
    pub(super) fn look(&mut self) {
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
