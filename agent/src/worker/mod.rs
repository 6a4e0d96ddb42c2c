//! The owner of settings and jobs.
//!
//! One loop takes orders, the news that a job is over, and the word to stop. A job is checked, journalled and answered
//! (`command.result`), then runs in a task of its own (`task`) as soon as its repository is free (`lanes`). Told to
//! stop, the loop ends the running jobs and returns when they are over; jobs that wait stay in the journal for the
//! agent's next start.
//!
//! The loop also does what the host's schedules want done (`scheduled`); a backup that starts without the coordinator
//! then goes the way of any other job.
//!
//! Only the answer to a `command.run` waits for the disk, and what a schedule does. Other reports are written beside the loop: while the disk is
//! full, cancels and the word to stop must get through.

mod lanes;
mod recovery;
mod scheduled;
mod task;

pub use task::Surroundings;

use crate::connection::Order;
use crate::cron::Cron;
use crate::journal::{Accepted, Leftover};
use crate::outcome::Outcome;
use crate::restic::Found;
use crate::runner;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::{files::FileError, restic};
use chrono::Utc;
use fleet_wire::{CommandResult, CommandRun, ConfigUpdate, JobId, Kind, ScheduleAck, ScheduleSet};
use lanes::{Admission, Lanes};
use recovery::{KILLED, clear_up, free};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};
use task::{cancelled_before_start, failed};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The runner gives restic 60 s once the agent stops; what comes after that must not take longer than this more.
const STOP_TIME: Duration = Duration::from_secs(90);

/// How long restic may take to say its version while orders wait.
const RESTIC_TIME: Duration = Duration::from_secs(2);

/// How long one that took longer is not asked again.
const RESTIC_PAUSE: Duration = Duration::from_secs(60);

/// The worker's state.
pub struct Worker {
    surroundings: Surroundings,
    settings: Settings,
    cron: Cron,
    orders: mpsc::Receiver<Order>,
    /// Turns true when the agent stops.
    stop: watch::Receiver<bool>,
    lanes: Lanes,
    /// How to end each running job.
    running: HashMap<JobId, watch::Sender<Stop>>,
    over: mpsc::UnboundedReceiver<JobId>,
    tell_over: mpsc::UnboundedSender<JobId>,
    /// Reports that are being written.
    writes: JoinSet<()>,
    /// Jobs of an earlier life of this agent, until it is known where their repository is.
    leftovers: Vec<Leftover>,
    /// Of which something was still running.
    ended: BTreeSet<JobId>,
    /// Until then restic is not asked for its version: it has not answered in time.
    restic_is_slow: Option<Instant>,
    stopping: bool,
}

impl Worker {
    /// A worker with nothing to do.
    pub fn new(
        surroundings: Surroundings,
        settings: Settings,
        cron: Cron,
        (orders, stop): (mpsc::Receiver<Order>, watch::Receiver<bool>),
    ) -> Self {
        // Holds one id for each running job at most.
        let (tell_over, over) = mpsc::unbounded_channel();
        let (lanes, running) = (Lanes::default(), HashMap::new());
        Self {
            surroundings,
            settings,
            cron,
            orders,
            stop,
            lanes,
            running,
            over,
            tell_over,
            writes: JoinSet::new(),
            leftovers: Vec::new(),
            ended: BTreeSet::new(),
            restic_is_slow: None,
            stopping: false,
        }
    }

    /// Runs until it is told to stop and the end of the jobs that ran then. Gives back the orders' end, which must live as
    /// long as the connection does; false beside it if a job would not end.
    pub async fn run(mut self) -> (mpsc::Receiver<Order>, bool) {
        while !self.stopping {
            self.turn().await;
        }
        for stop in self.running.values() {
            stop.send_replace(Stop::AgentStops);
        }
        let ended = timeout(STOP_TIME, async {
            while !self.running.is_empty() {
                self.turn().await;
            }
            while self.writes.join_next().await.is_some() {}
        });
        let ended = ended.await.is_ok();
        (self.orders, ended)
    }

    /// Clears up after an earlier life of this agent and goes on with its jobs; to be called before the agent says hello.
    /// Told to stop meanwhile it leaves the rest to the next start.
    pub async fn begin(&mut self, leftovers: Vec<Leftover>) {
        let clearing = clear_up(&self.surroundings, &self.settings, &leftovers);
        tokio::select! {
            ended = clearing => self.ended = ended,
            () = told_to_stop(&mut self.stop) => {
                self.stopping = true;
                return;
            }
        }
        self.leftovers = leftovers;
        self.go_on().await;
        let journal = &self.surroundings.journal;
        self.cron.resume(&self.settings.schedules, journal.handled().await, journal.early().await);
    }

    /// Goes on with the jobs of an earlier life, once the repository is known: the coordinator tells it again if the
    /// settings are gone.
    async fn go_on(&mut self) {
        if self.settings.repository().is_none() || (self.leftovers.is_empty() && self.ended.is_empty()) {
            return;
        }
        let (leftovers, ended) = (std::mem::take(&mut self.leftovers), std::mem::take(&mut self.ended));
        tokio::select! {
            () = free(&self.surroundings, &self.settings, &leftovers, &ended) => {}
            () = told_to_stop(&mut self.stop) => {
                self.stopping = true;
                return;
            }
        }
        for leftover in leftovers {
            self.resume(leftover).await;
        }
    }

    async fn turn(&mut self) {
        tokio::select! {
            Some(job_id) = self.over.recv() => self.over(&job_id),
            Some(order) = self.orders.recv() => self.order(order).await,
            () = told_to_stop(&mut self.stop), if !self.stopping => self.stopping = true,
            Some(_) = self.writes.join_next() => {}
            () = self.cron.wait(), if !self.stopping => self.keep_schedules().await,
        }
    }

    /// A job of an earlier life of this agent.
    async fn resume(&mut self, Leftover { job_id, started, run, .. }: Leftover) {
        match run {
            Some(run) if !started => {
                log::info!(job = job_id.as_str(); "a job that was accepted before the agent ended runs now");
                self.admit(run);
            }
            Some(_) => {
                log::warn!(job = job_id.as_str(); "{KILLED}");
                self.finish(job_id, failed(KILLED));
            }
            None => {
                log::error!(job = job_id.as_str(); "the journal holds a job that this agent can't read");
                self.finish(job_id, failed("the agent could not read this job back from its journal"));
            }
        }
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Run(run) if self.stopping => {
                // Without an answer the coordinator sends it again once the agent is back.
                log::info!(job = run.job_id.as_str(); "left a job unanswered: the agent is stopping");
            }
            Order::Run(run) => self.accept(*run).await,
            Order::Cancel(job_id) => self.cancel(&job_id),
            Order::Configure(update) => self.configure(*update).await,
            Order::Schedule(set) => self.schedule(set).await,
            Order::FireAgain(firing) => self.cron.take_back(firing),
        }
    }

    /// Answers a `command.run`, and runs the job if it is new.
    async fn accept(&mut self, run: CommandRun) {
        let refusal = self.refusal(&run).await;
        let job_id = run.job_id.clone();
        match self.surroundings.journal.accept(run.clone(), refusal.clone()).await {
            Accepted::New => self.admit(run),
            Accepted::Known => log::info!(job = job_id.as_str(); "a job came again that is known; it is not run twice"),
            Accepted::Refused | Accepted::Left => {
                log::warn!(job = job_id.as_str(); "refused a job: {}", refusal.unwrap_or_default());
            }
            Accepted::NotStored { known, reason } => {
                log::error!(job = job_id.as_str(); "can't store a job: {reason}");
                let error = (!known).then(|| format!("the agent can't store the job: {reason}"));
                self.surroundings.outlet.send(CommandResult { job_id, accepted: known, error });
            }
        }
    }

    async fn refusal(&mut self, run: &CommandRun) -> Option<String> {
        let found = self.restic().await;
        runner::refusal(run, &self.settings.admin, &self.settings.repo, found.as_ref())
    }

    /// What restic says of itself. One that takes its time must not keep orders waiting: the job asks it again.
    async fn restic(&mut self) -> Option<Found> {
        if self.restic_is_slow.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let found = timeout(RESTIC_TIME, restic::find(&self.surroundings.restic)).await.ok();
        self.restic_is_slow = found.is_none().then(|| Instant::now() + RESTIC_PAUSE);
        found
    }

    /// Has the end of a job written that does not run.
    fn finish(&mut self, job_id: JobId, outcome: Outcome) {
        let surroundings = self.surroundings.clone();
        self.writes.spawn(async move {
            surroundings.journal.finish(&job_id, outcome).await;
            surroundings.spool(&job_id).clear();
        });
    }

    /// Runs an accepted job now or when its repository is free.
    fn admit(&mut self, run: CommandRun) {
        // Unlock is for when another job hangs: waiting for that one would defeat it.
        if run.kind.known() == Some(Kind::Unlock) {
            return self.start(run);
        }
        let job_id = run.job_id.clone();
        let repository = self.settings.repository().unwrap_or_default().to_owned();
        match self.lanes.enter(&repository, run) {
            Admission::Start(run) => self.start(*run),
            Admission::Wait { behind } => {
                log::info!(job = job_id.as_str(), behind = behind.as_str(); "a job waits for its repository");
                let line = format!("this job waits for job {behind}, which runs in the same repository");
                let surroundings = self.surroundings.clone();
                self.writes.spawn(async move { surroundings.note(&job_id, &line).await });
            }
        }
    }

    fn start(&mut self, run: CommandRun) {
        let mut next = Some(run);
        while let Some(run) = next.take() {
            // Again, for a job that waited: the settings may be others by now.
            let refusal = runner::refusal(&run, &self.settings.admin, &self.settings.repo, None);
            let Some(reason) = refusal else { return self.spawn(run) };
            next = self.lanes.leave(&run.job_id);
            self.finish(run.job_id, failed(&reason));
        }
    }

    fn spawn(&mut self, run: CommandRun) {
        let (stop, stopped) = watch::channel(Stop::No);
        let job_id = run.job_id.clone();
        self.running.insert(job_id.clone(), stop);
        let job = self.surroundings.clone().run(run, self.settings.clone(), stopped);
        let tell_over = self.tell_over.clone();
        tokio::spawn(async move {
            // In a task of its own, so that not even a defect keeps the repository busy.
            let _ = tokio::spawn(job).await;
            let _ = tell_over.send(job_id);
        });
    }

    fn over(&mut self, job_id: &JobId) {
        self.running.remove(job_id);
        if self.stopping {
            // Its successors run at the agent's next start.
            return;
        }
        if let Some(next) = self.lanes.leave(job_id) {
            self.start(next);
        }
    }

    fn cancel(&mut self, job_id: &JobId) {
        if self.lanes.withdraw(job_id) {
            log::info!(job = job_id.as_str(); "cancelled a job that waited");
            self.finish(job_id.clone(), cancelled_before_start());
        } else if self.withdraw_leftover(job_id) {
            log::info!(job = job_id.as_str(); "cancelled a job that waited for its repository to be known");
            self.finish(job_id.clone(), cancelled_before_start());
        } else if let Some(stop) = self.running.get(job_id) {
            log::info!(job = job_id.as_str(); "cancelling a job");
            // A stop of the agent goes on: it ends the job as well.
            stop.send_if_modified(|stop| {
                *stop == Stop::No && {
                    *stop = Stop::Cancel;
                    true
                }
            });
        } else {
            log::info!(job = job_id.as_str(); "nothing to cancel: the job is over or was never here");
        }
    }

    /// Takes out a job of an earlier life that was not begun; false if there is none of that id.
    fn withdraw_leftover(&mut self, job_id: &JobId) -> bool {
        let before = self.leftovers.len();
        self.leftovers.retain(|leftover| leftover.started || leftover.job_id != *job_id);
        self.leftovers.len() < before
    }

    async fn configure(&mut self, update: ConfigUpdate) {
        let settings = self.settings.clone().updated(update);
        if let Err(error) = self.replace_settings(settings.clone()).await {
            // The coordinator says all of it again at the next connect; until then it counts from memory.
            log::error!("settings count until the agent ends only: {error}");
            self.settings = settings;
        }
        self.go_on().await;
    }

    async fn schedule(&mut self, set: ScheduleSet) {
        let version = set.version;
        match self.replace_settings(self.settings.clone().scheduled(set)).await {
            Ok(()) => {
                log::info!(version; "schedules applied");
                self.apply_schedules().await;
                let (journal, applied_at) = (self.surroundings.journal.clone(), Some(Utc::now()));
                self.writes.spawn(async move { journal.send(ScheduleAck { version, applied_at }).await });
            }
            Err(error) => log::error!(version; "schedules are not applied: {error}"),
        }
    }

    /// Stores other settings, then lets them count.
    async fn replace_settings(&mut self, settings: Settings) -> Result<(), FileError> {
        if settings != self.settings {
            let (data_dir, copy) = (self.surroundings.data_dir.clone(), settings.clone());
            let stored = tokio::task::spawn_blocking(move || copy.store(&data_dir)).await;
            stored.unwrap_or_else(|error| {
                let path = Settings::path(&self.surroundings.data_dir);
                Err(FileError::Write { path, source: std::io::Error::other(error) })
            })?;
            self.settings = settings;
        }
        Ok(())
    }
}

async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
