//! What must hold of the month once it is over.

use super::ledger::OPEN;
use super::{GROUP, Month, Scope, host, number_of, repository_of};
use crate::db::runs::{Outcome, Run};
use crate::job::transitions::REFUSED;
use crate::timetable::Timetable;
use chrono::TimeDelta;
use fleet_wire::{Status, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// A pause, in truth.
pub(super) struct Stop {
    pub(super) scope: Scope,
    pub(super) from: Timestamp,
    pub(super) to: Option<Timestamp>,
}

/// A failure after which there was to be another attempt.
pub(super) struct Attempt {
    pub(super) job: Uuid,
    pub(super) attempt: i64,
    pub(super) backoff: i64,
    pub(super) failed_at: Timestamp,
    /// How long until the next.
    pub(super) pause: TimeDelta,
    /// When it was made, or given up.
    pub(super) made_at: Option<Timestamp>,
}

/// A clock that is wrong for so long that it is believed is this much ahead at most; the ticker looks each minute.
const SLACK: TimeDelta = TimeDelta::minutes(25);

impl Stop {
    /// Whether it concerns a run: also that of a repository whose runner is paused.
    fn concerns(&self, run: &Run, month: &Month) -> bool {
        let runner = |id: Uuid| month.repositories.iter().find(|it| it.id == id).and_then(|it| it.runner_host_id);
        let its_host = run.host_id.or_else(|| run.repository_id.and_then(runner));
        let of_host = |number| its_host == Some(host(number));
        let of_repository = |number| {
            let its = run.repository_id.or(run.host_id.map(|host| repository_of(number_of(host))));
            its == Some(repository_of(number))
        };
        match self.scope {
            Scope::Host(number) => of_host(number),
            Scope::Repository(number) => of_repository(number),
            Scope::Fleet => true,
        }
    }

    /// Whether it lasts at a time; with some slack, more or less.
    fn lasts_at(&self, time: Timestamp, slack: TimeDelta) -> bool {
        self.from - slack <= time && self.to.is_none_or(|to| time <= to + slack)
    }
}

pub(super) fn judge(month: &Month) {
    let due = account(month);
    each_attempt_is_one_job(month);
    pauses_skip_what_comes_due_in_them(month);
    attempts_come_in_time(month);
    let count = |outcome: Outcome| due.get(outcome.as_str()).copied().unwrap_or_default();
    let all: usize = due.values().sum();
    assert!(all > 9_000 && count(Outcome::Succeeded) * 10 > all * 6, "{all}: {due:?}");
    // It would show nothing if nothing had happened.
    for (outcome, least) in
        [(Outcome::Partial, 100), (Outcome::Failed, 100), (Outcome::Cancelled, 20), (Outcome::Skipped, 100)]
    {
        assert!(count(outcome) > least, "{outcome}: {due:?}");
    }
    assert!(month.attempts.len() > 200 && month.stops.len() > 20, "{} {}", month.attempts.len(), month.stops.len());
    assert!(month.adopted > 50, "agents were on their own {} times", month.adopted);
    assert!(month.longest_wait < TimeDelta::hours(12), "{}", month.longest_wait);
}

/// Each run that was due has a row, and none is open; how many came to what.
fn account(month: &Month) -> BTreeMap<&str, usize> {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut note = |run: Run| {
        let row = month.ledger.rows.get(&run.id).unwrap_or_else(|| panic!("nobody knows of {run:?}"));
        assert!(OPEN.iter().all(|open| open.as_str() != row.outcome), "{row:?}");
        *outcomes.entry(row.outcome.as_str()).or_default() += 1;
    };
    for agent in &month.agents {
        for due_at in agent.timetable.after(month.begin).take_while(|due_at| *due_at <= month.end()) {
            note(Run::of_schedule(agent.schedule.id, agent.schedule.host_id, GROUP, due_at, due_at));
        }
    }
    for entry in &month.entries {
        let timetable = Timetable::parse(&entry.cron, &entry.timezone).expect("a timetable");
        for due_at in timetable.after(month.begin).take_while(|due_at| *due_at <= month.end()) {
            note(Run::of_maintenance(entry.repository_id, &entry.kind, None, due_at, due_at));
        }
    }
    outcomes
}

/// As many jobs as attempts, each the next of the one before; no more than the group wants, and as many if all failed.
fn each_attempt_is_one_job(month: &Month) {
    let mut jobs: HashMap<Uuid, usize> = HashMap::new();
    for work in month.work.values() {
        *jobs.entry(work.new.run_id.expect("a run")).or_default() += 1;
    }
    let tried_again: HashSet<Uuid> = month.work.values().filter_map(|work| work.new.retry_of).collect();
    for work in month.work.values().filter(|work| work.over) {
        let refused = work.state.error.as_deref().is_some_and(|error| error.starts_with(REFUSED));
        let settled = refused || work.state.status != Status::Failed;
        assert!(!(settled && tried_again.contains(&work.new.id)), "tried again: {:?}", work.state);
    }
    for run in month.ledger.rows.values() {
        let made = jobs.get(&run.id).copied().unwrap_or_default();
        let has_job = run.has_job();
        assert_eq!(made as i64, if has_job { run.attempt } else { 0 }, "{run:?}");
        let Some(of) = run.host_id.filter(|_| has_job) else { continue };
        let most = month.agents[number_of(of) as usize].retries.most;
        assert!(run.attempt <= most + 1, "{run:?}");
        let why = run.reason.as_deref().unwrap_or_default();
        if run.outcome == Outcome::Failed.as_str() && !why.starts_with(REFUSED) && !why.contains("not tried again") {
            assert_eq!(run.attempt, most + 1, "{run:?}");
        }
    }
}

/// What comes due in a pause is skipped, unless its agent had not heard of that; and nothing else is skipped for one.
fn pauses_skip_what_comes_due_in_them(month: &Month) {
    let (mut inside, mut held) = (0, 0);
    // One of whose attempts was: what failed of these the coordinator has tried again.
    let alone: HashSet<Uuid> =
        month.work.values().filter(|work| work.alone).filter_map(|work| work.new.run_id).collect();
    for run in month.ledger.rows.values() {
        let skipped = run.outcome == Outcome::Skipped.as_str()
            && run.reason.as_deref().is_some_and(|why| why.starts_with("paused: "));
        let stops = || month.stops.iter().filter(|stop| stop.concerns(run, month));
        let covered = |slack| stops().any(|stop| stop.lasts_at(run.due_at, slack));
        if covered(-SLACK) {
            assert!(skipped || alone.contains(&run.id), "{run:?}");
            inside += 1;
        }
        assert!(!skipped || covered(SLACK), "{run:?}");
        // What was due well before a pause and had not begun by then has waited for its end, and was done.
        let began = run.job_id.filter(|_| run.has_job()).and_then(|job| month.work.get(&job)).map(|work| work.made_at);
        let waited =
            |stop: &&Stop| run.due_at < stop.from - SLACK && began.is_some_and(|at| stop.to.is_some_and(|to| at >= to));
        held += usize::from(run.schedule_id.is_none() && stops().any(|stop| waited(&stop)));
    }
    assert!(inside > 100 && held > 0, "{inside} came due in a pause, {held} waited for its end");
}

/// Each attempt is made when it was to be, unless the coordinator was away or in doubt; and each pause is twice as long.
fn attempts_come_in_time(month: &Month) {
    for Attempt { job, attempt, backoff, failed_at, pause, made_at } in &month.attempts {
        let usual = TimeDelta::seconds(backoff << (attempt - 1));
        assert!((usual * 4 / 5..=usual * 6 / 5).contains(pause), "{pause} after attempt {attempt} of {backoff} s");
        let made_at = made_at.unwrap_or_else(|| panic!("no attempt after job {job}"));
        let late = made_at - *failed_at - *pause;
        let excused = month.away.iter().any(|(from, to)| *from <= made_at && failed_at <= to);
        let in_time = (TimeDelta::zero()..=TimeDelta::seconds(61)).contains(&late);
        assert!(in_time || excused, "the attempt after {job} at {failed_at} was {late} late");
    }
}
