//! The agent's cron: fires the host's schedules by itself, whether or not the coordinator is there.
//!
//! `entry` reads a schedule and says what a firing of it runs, `due` says what a schedule is to do at an instant. [`Cron`]
//! keeps both for all schedules and says when there is something to do; the worker carries it out, through the journal.
//! What is not in the journal is decided again.

mod clock;
mod due;
mod entry;
mod zone;

pub use clock::Clock;
pub use due::{Handled, Step, Why, decide, next};
pub use entry::{Entry, Firing};

use crate::connection::Reach;
use chrono::TimeDelta;
use fleet_wire::crontab::Zone;
use fleet_wire::{Schedule, ScheduleId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// The clock is looked at this often at least: it may be set, and the host may have been suspended.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How soon what the disk did not take is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Something that is to be journalled, and then counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// A schedule counts from elsewhere.
    Count(ScheduleId, Handled, Why),
    /// A schedule is no more.
    Forget(ScheduleId),
    /// A schedule has fired.
    Fire(Box<Firing>, Handled),
}

/// The schedules of this host.
#[derive(Debug)]
pub struct Cron {
    clock: Clock,
    host: Zone,
    /// How long there must be no connection before the agent starts by itself what has fired.
    patience: Duration,
    reach: watch::Receiver<Reach>,
    entries: Vec<Entry>,
    /// As it stands in the journal.
    handled: BTreeMap<ScheduleId, Handled>,
    /// Schedules in the journal that are no more.
    gone: Vec<ScheduleId>,
    /// Not before then, for the disk refused.
    retry_at: Option<Instant>,
}

impl Cron {
    /// A cron without schedules.
    pub fn new(clock: Clock, patience: Duration, reach: watch::Receiver<Reach>) -> Self {
        let host = zone::of_host();
        log::info!(zone:% = host; "schedules that name no time zone go by {host}");
        Self {
            clock,
            host,
            patience,
            reach,
            entries: Vec::new(),
            handled: BTreeMap::new(),
            gone: Vec::new(),
            retry_at: None,
        }
    }

    /// Goes on with schedules that were applied before: what the journal says is dealt with of them.
    pub fn resume(&mut self, schedules: &[Schedule], handled: BTreeMap<ScheduleId, Handled>) {
        self.handled = handled;
        self.read(schedules);
    }

    /// Replaces all schedules. Gives what is wrong with those that can't fire, for people.
    pub fn apply(&mut self, schedules: &[Schedule]) -> Vec<String> {
        let problems = self.read(schedules);
        let is_there = |id: &ScheduleId| self.entries.iter().any(|entry| entry.id() == id);
        self.gone = self.handled.keys().filter(|id| !is_there(id)).cloned().collect();
        problems
    }

    fn read(&mut self, schedules: &[Schedule]) -> Vec<String> {
        let enabled = schedules.iter().filter(|schedule| schedule.enabled);
        let (mut entries, mut problems) = (Vec::new(), Vec::new());
        for schedule in enabled {
            match Entry::read(schedule, self.host) {
                Ok(entry) => entries.push(entry),
                Err(problem) => {
                    log::error!(schedule = schedule.id.as_str(); "this schedule does not fire: {problem}");
                    problems.push(problem);
                }
            }
        }
        self.entries = entries;
        problems
    }

    /// What is to be journalled now.
    pub fn tasks(&mut self) -> Vec<Task> {
        if self.retry_at.is_some_and(|retry_at| Instant::now() < retry_at) {
            return Vec::new();
        }
        self.retry_at = None;
        let now = self.clock.now();
        let patience = TimeDelta::from_std(self.patience).unwrap_or(TimeDelta::MAX);
        let gone = self.gone.iter().cloned().map(Task::Forget);
        let due = self.entries.iter().filter_map(|entry| {
            Some(match decide(entry, self.handled.get(entry.id()), now)? {
                Step::Count { handled, why } => Task::Count(entry.id().clone(), handled, why),
                Step::Fire { at, handled } => Task::Fire(Box::new(entry.fire(at, now, patience)), handled),
            })
        });
        gone.chain(due).collect()
    }

    /// The task is in the journal.
    pub fn done(&mut self, task: Task) {
        match task {
            Task::Count(id, handled, _) => drop(self.handled.insert(id, handled)),
            Task::Fire(firing, handled) => drop(self.handled.insert(firing.schedule_id, handled)),
            Task::Forget(id) => {
                self.handled.remove(&id);
                self.gone.retain(|gone| *gone != id);
            }
        }
    }

    /// The journal does not take what is to be done: it is tried again after a pause.
    pub fn hold_off(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY);
    }

    /// Whether the coordinator has been out of reach for so long that the agent starts by itself what has fired.
    pub fn is_on_its_own(&self) -> bool {
        matches!(*self.reach.borrow(), Reach::Lost { since } if since.elapsed() >= self.patience)
    }

    /// What the clock shows.
    pub fn now(&self) -> fleet_wire::Timestamp {
        self.clock.now()
    }

    /// Returns when there may be something to do.
    pub async fn wait(&mut self) {
        let pause = self.pause();
        tokio::select! {
            () = sleep(pause) => {}
            () = changed(&mut self.reach) => {}
        }
    }

    fn pause(&self) -> Duration {
        let now = Instant::now();
        if let Some(retry_at) = self.retry_at {
            return retry_at.saturating_duration_since(now);
        }
        if !self.gone.is_empty() {
            return Duration::ZERO;
        }
        let clock = self.clock.now();
        let until = |entry: &Entry| {
            let handled = self.handled.get(entry.id());
            match (decide(entry, handled, clock), handled) {
                (None, Some(handled)) => next(entry, handled).map(|next| (next - clock).to_std().unwrap_or_default()),
                _ => Some(Duration::ZERO),
            }
        };
        let firing = self.entries.iter().filter_map(until).min();
        let alone = match *self.reach.borrow() {
            Reach::Lost { since } => Some((since + self.patience).saturating_duration_since(now)),
            Reach::Connected => None,
        };
        // It was looked at when that time was over.
        let alone = alone.filter(|pause| !pause.is_zero());
        [firing, alone].into_iter().flatten().fold(LOOK_EVERY, Duration::min)
    }
}

async fn changed(reach: &mut watch::Receiver<Reach>) {
    if reach.changed().await.is_err() {
        // The connection is over, as the agent soon will be.
        std::future::pending::<()>().await;
    }
}
