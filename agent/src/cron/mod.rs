//! The agent's cron: fires the host's schedules by itself, whether or not the coordinator is there.
//!
//! `entry` reads a schedule and says what a firing of it runs, `due` says what a schedule is to do at an instant. [`Cron`]
//! keeps both for all schedules and says when there is something to do; the worker carries it out, through the journal.
//! What is not in the journal is decided again.

mod clock;
mod due;
mod early;
mod entry;
mod zone;

pub use clock::Clock;
pub use due::{Handled, Step, Why, again, decide, next};
pub use early::{Early, MOST_EARLY, Which};
pub use entry::{Entry, Firing};

use crate::connection::Reach;
use chrono::{TimeDelta, Utc};
use fleet_wire::crontab::Zone;
use fleet_wire::{EarlyFiring, Schedule, ScheduleId, Timestamp};
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
    /// Firings that came before their time, and when that comes. Until they have fired again they are in the journal.
    early: BTreeMap<Which, Instant>,
    /// Schedules in the journal that are no more.
    gone: Vec<ScheduleId>,
    /// Not before then, for the disk refused.
    retry_at: Option<Instant>,
    /// The agent is on its own, and knows it.
    alone: bool,
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
            early: BTreeMap::new(),
            gone: Vec::new(),
            retry_at: None,
            alone: false,
        }
    }

    /// Goes on with schedules that were applied before: what the journal says is dealt with of them, and what of that came
    /// before its time.
    pub fn resume(
        &mut self,
        schedules: &[Schedule],
        handled: BTreeMap<ScheduleId, Handled>,
        early: BTreeMap<Which, Early>,
    ) {
        self.handled = handled;
        let now = Utc::now();
        for (which, early) in early {
            self.fire_again(which.clone(), early.comes_in(which.1, now));
        }
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
        let (mut entries, mut problems) = (Vec::<Entry>::new(), Vec::new());
        for schedule in enabled {
            match Entry::read(schedule, &self.host) {
                // What is dealt with is known by the id.
                Ok(entry) if entries.iter().any(|other| other.id() == entry.id()) => {
                    problems.push(format!("schedule {}: there is another one with this id", schedule.id));
                }
                Ok(entry) => entries.push(entry),
                Err(problem) => problems.push(problem),
            }
        }
        self.entries = entries;
        problems.iter().for_each(|problem| log::error!("this schedule does not fire: {problem}"));
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
            let handled = self.handled.get(entry.id());
            let step = decide(entry, handled, now).or_else(|| self.due_again(entry, handled?));
            Some(match step? {
                Step::Count { handled, why } => Task::Count(entry.id().clone(), handled, why),
                Step::Fire { at, handled } => Task::Fire(Box::new(entry.fire(at, now, patience)), handled),
            })
        });
        gone.chain(due).collect()
    }

    /// A firing came before its time, for the clock is ahead, as is in the journal: it fires again when that comes.
    pub fn take_back(&mut self, EarlyFiring { schedule_id, scheduled_at, in_seconds }: EarlyFiring) {
        if self.handled.contains_key(&schedule_id) {
            let comes_in = Duration::from_secs(in_seconds.max(0).unsigned_abs());
            self.fire_again((schedule_id, scheduled_at), comes_in);
        } // else it is of a schedule that is no more
    }

    fn fire_again(&mut self, which: Which, comes_in: Duration) {
        let Some(comes_at) = Instant::now().checked_add(comes_in) else { return };
        self.early.insert(which, comes_at);
        if self.early.len() > MOST_EARLY {
            let last = self.early.iter().max_by_key(|(_, comes_at)| **comes_at).map(|(which, _)| which.clone());
            last.map(|last| self.early.remove(&last));
        }
    }

    /// The first of them whose time has come.
    fn due_again(&self, entry: &Entry, handled: &Handled) -> Option<Step> {
        let now = Instant::now();
        let has_come = |((id, _), comes_at): &(&Which, &Instant)| id == entry.id() && **comes_at <= now;
        self.early.iter().find(has_come).map(|((_, at), _)| again(handled, *at))
    }

    /// The task is in the journal.
    pub fn done(&mut self, task: Task) {
        match task {
            Task::Count(id, handled, _) => drop(self.handled.insert(id, handled)),
            Task::Fire(firing, handled) => {
                self.early.remove(&(firing.schedule_id.clone(), firing.scheduled_at));
                self.handled.insert(firing.schedule_id, handled);
            }
            Task::Forget(id) => {
                self.handled.remove(&id);
                self.early.retain(|(schedule, _), _| *schedule != id);
                self.gone.retain(|gone| *gone != id);
            }
        }
    }

    /// The journal does not take what is to be done: it is tried again after a pause.
    pub fn hold_off(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY);
    }

    /// Whether the coordinator has been out of reach for so long that the agent starts by itself what has fired.
    pub fn is_on_its_own(&mut self) -> bool {
        self.alone = matches!(*self.reach.borrow(), Reach::Lost { since } if since.elapsed() >= self.patience);
        self.alone
    }

    /// What the clock shows.
    pub fn now(&self) -> Timestamp {
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
                (None, Some(handled)) => {
                    next(entry, handled, clock).map(|next| (next - clock).to_std().unwrap_or_default())
                }
                _ => Some(Duration::ZERO),
            }
        };
        let firing = self.entries.iter().filter_map(until).min();
        let alone = match *self.reach.borrow() {
            Reach::Lost { since } if !self.alone => {
                since.checked_add(self.patience).map(|alone| alone.saturating_duration_since(now))
            }
            Reach::Lost { .. } | Reach::Connected => None,
        };
        let is_there = |(id, _): &Which| self.entries.iter().any(|entry| entry.id() == id);
        let early = self.early.iter().filter(|(which, _)| is_there(which)).map(|(_, comes_at)| comes_at).min();
        let early = early.map(|comes_at| comes_at.saturating_duration_since(now));
        [firing, early, alone].into_iter().flatten().fold(LOOK_EVERY, Duration::min)
    }
}

async fn changed(reach: &mut watch::Receiver<Reach>) {
    if reach.changed().await.is_err() {
        // The connection is over, as the agent soon will be.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(id: &str, cron: &str, enabled: bool) -> Schedule {
        serde_json::from_str(&format!(r#"{{"id":"{id}","cron_expr":"{cron}","enabled":{enabled}}}"#)).unwrap()
    }

    fn cron(patience: Duration) -> (Cron, watch::Sender<Reach>) {
        let (reach, receiver) = watch::channel(Reach::lost());
        (Cron::new(Clock::default(), patience, receiver), reach)
    }

    /// Does all that there is to do; a cron that does not come to rest would write without end.
    fn settle(cron: &mut Cron) -> Vec<Task> {
        let mut all = Vec::new();
        loop {
            let tasks = cron.tasks();
            if tasks.is_empty() {
                return all;
            }
            all.extend(tasks.iter().cloned());
            assert!(all.len() < 20, "{all:?}");
            tasks.into_iter().for_each(|task| cron.done(task));
        }
    }

    #[tokio::test]
    async fn schedules_count_once_they_are_applied_and_are_forgotten_when_they_are_no_more() {
        let (mut cron, _reach) = cron(Duration::from_secs(3600));
        let problems = cron.apply(&[
            schedule("a", "0 2 1 1 *", true),
            schedule("b", "0 2 1 1 *", false),
            schedule("c", "never", true),
            schedule("a", "0 3 1 1 *", true),
        ]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("schedule c: ") && problems[1].contains("another one with this id"));
        let counted = settle(&mut cron);
        assert!(matches!(&counted[..], [Task::Count(id, _, Why::New)] if id.as_str() == "a"), "{counted:?}");
        assert!(!cron.pause().is_zero() && cron.pause() <= LOOK_EVERY, "it rests, and looks again");
        assert_eq!((cron.apply(&[schedule("a", "0 2 1 1 *", true)]), settle(&mut cron)), (vec![], vec![]));
        assert_eq!((cron.apply(&[]), settle(&mut cron)), (vec![], vec![Task::Forget("a".into())]));
        assert!(matches!(
            &(cron.apply(&[schedule("a", "0 2 1 1 *", true)]), settle(&mut cron)).1[..],
            [Task::Count(_, _, Why::New)]
        ));
    }

    #[tokio::test]
    async fn what_was_known_before_is_not_forgotten_before_the_schedules_are_told_again() {
        let (mut before, _reach) = cron(Duration::ZERO);
        before.apply(&[schedule("a", "0 2 1 1 *", true)]);
        settle(&mut before);
        let (mut after, _reach) = cron(Duration::ZERO);
        after.resume(&[], before.handled.clone(), BTreeMap::new());
        assert_eq!(settle(&mut after), [], "the settings were lost");
        after.apply(&[schedule("a", "0 2 1 1 *", true)]);
        assert_eq!(settle(&mut after), []);
    }

    #[tokio::test]
    async fn what_came_before_its_time_fires_again_when_that_comes_whatever_the_clock_shows() {
        let (mut cron, _reach) = cron(Duration::from_secs(3600));
        cron.apply(&[schedule("a", "* * * * *", true)]);
        settle(&mut cron);
        cron.clock = Clock::ahead_by(7_200);
        let tasks = settle(&mut cron);
        let [Task::Fire(first, _)] = &tasks[..] else { panic!("{tasks:?}") };
        let at = first.scheduled_at;
        let early = |in_seconds| EarlyFiring { schedule_id: "a".into(), scheduled_at: at, in_seconds };
        let fires = |tasks: Vec<Task>| matches!(&tasks[..], [Task::Fire(again, _)] if again.scheduled_at == at);
        cron.take_back(EarlyFiring { schedule_id: "b".into(), ..early(9) });
        assert!(cron.early.is_empty(), "there is no such schedule");
        cron.take_back(early(7_200));
        assert!(settle(&mut cron).is_empty() && !cron.pause().is_zero());
        cron.early.values_mut().for_each(|comes_at| *comes_at = Instant::now());
        assert!(cron.pause().is_zero() && fires(settle(&mut cron)));
        assert!(settle(&mut cron).is_empty() && cron.early.is_empty());
        // The clock comes right before that time: it fires then, and once.
        cron.take_back(early(7_200));
        cron.clock = Clock::default();
        assert!(matches!(&settle(&mut cron)[..], [Task::Count(_, _, Why::ClockWentBack)]));
        cron.clock = Clock::ahead_by((at - Utc::now()).num_seconds() + 1);
        let met = settle(&mut cron);
        assert!(!fires(met), "its time counts on another clock");
        cron.early.values_mut().for_each(|comes_at| *comes_at = Instant::now());
        assert!(fires(settle(&mut cron)) && cron.early.is_empty());
    }

    #[tokio::test]
    async fn what_came_before_its_time_fires_again_also_in_the_next_life() {
        let (mut before, _reach) = cron(Duration::from_secs(3600));
        let schedules = [schedule("a", "* * * * *", true)];
        before.apply(&schedules);
        settle(&mut before);
        before.clock = Clock::ahead_by(7_200);
        let tasks = settle(&mut before);
        let [Task::Fire(first, _)] = &tasks[..] else { panic!("{tasks:?}") };
        let at = first.scheduled_at;
        let told = |seconds_ago: i64| {
            let told_at = Utc::now() - TimeDelta::seconds(seconds_ago);
            BTreeMap::from([(("a".into(), at), Early::told(7_200, told_at))])
        };
        let resumed = |seconds_ago| {
            let (mut after, _reach) = cron(Duration::from_secs(3600));
            after.clock = Clock::ahead_by(7_200);
            after.resume(&schedules, before.handled.clone(), told(seconds_ago));
            let fired: Vec<_> = settle(&mut after).into_iter().filter(|task| matches!(task, Task::Fire(..))).collect();
            (fired, after.early.len())
        };
        let (fired, left) = resumed(3_600);
        assert!(
            left == 1 && !fired.iter().any(|task| matches!(task, Task::Fire(again, _) if again.scheduled_at == at))
        );
        let (fired, left) = resumed(7_201);
        assert!(left == 0 && fired.iter().any(|task| matches!(task, Task::Fire(again, _) if again.scheduled_at == at)));
    }

    #[tokio::test]
    async fn of_many_that_came_before_their_time_those_that_come_first_are_kept() {
        let (mut cron, _reach) = cron(Duration::from_secs(3600));
        for minutes in 0..=MOST_EARLY as u64 {
            let at = Timestamp::UNIX_EPOCH + Duration::from_secs(60 * minutes);
            cron.fire_again(("a".into(), at), Duration::from_secs(60 * (5_000 - minutes)));
        }
        assert_eq!(cron.early.len(), MOST_EARLY);
        assert!(!cron.early.contains_key(&("a".into(), Timestamp::UNIX_EPOCH)), "this one comes last");
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_tried_again_after_a_pause() {
        let (mut cron, _reach) = cron(Duration::from_secs(3600));
        cron.apply(&[schedule("a", "0 2 1 1 *", true)]);
        assert_eq!((cron.tasks().len(), cron.pause()), (1, Duration::ZERO));
        cron.hold_off();
        assert!(cron.tasks().is_empty() && cron.pause() > Duration::ZERO && cron.pause() <= RETRY);
        cron.retry_at = Some(Instant::now());
        assert_eq!(cron.tasks().len(), 1);
    }

    #[tokio::test]
    async fn the_agent_is_on_its_own_once_the_coordinator_was_away_for_long_enough() {
        let (mut cron, reach) = cron(Duration::from_secs(20));
        assert!(!cron.is_on_its_own());
        assert!(cron.pause() <= Duration::from_secs(20), "it looks again in time");
        let since = Instant::now().checked_sub(Duration::from_secs(21)).unwrap();
        reach.send_replace(Reach::Lost { since });
        assert_eq!(cron.pause(), Duration::ZERO);
        assert!(cron.is_on_its_own());
        assert_eq!(cron.pause(), LOOK_EVERY, "known");
        reach.send_replace(Reach::Connected);
        assert!(!cron.is_on_its_own());
        assert_eq!(cron.pause(), LOOK_EVERY);
    }
}
