//! Carries out what the cron decides: journals firings, and starts their jobs where the coordinator is out of reach.

use super::Worker;
use crate::cron::{Firing, Task, Why};
use crate::journal::Accepted;
use fleet_wire::{CommandRun, ErrorMessage};

/// What the log of a job says that the agent has started by itself.
const ALONE: &str = "the coordinator was out of reach: the agent has started this scheduled backup by itself";

impl Worker {
    /// Lets the schedules count that the settings hold now, and tells the coordinator of those that can't fire.
    pub(super) async fn apply_schedules(&mut self) {
        for problem in self.cron.apply(&self.settings.schedules) {
            self.surroundings.outlet.send(ErrorMessage::new("bad_schedule", problem));
        }
        self.keep_schedules().await;
    }

    /// Does what the schedules want done now. What the disk does not take is decided again after a pause.
    pub(super) async fn keep_schedules(&mut self) {
        for task in self.cron.tasks() {
            if let Err(reason) = self.store(&task).await {
                log::error!("can't store what the schedules do: {reason}");
                self.cron.hold_off();
                break;
            }
            say(&task);
            self.cron.done(task);
        }
        if self.cron.is_on_its_own() {
            self.run_locally().await;
        }
    }

    async fn store(&self, task: &Task) -> Result<(), String> {
        let journal = &self.surroundings.journal;
        match task.clone() {
            Task::Count(schedule, handled, _) => journal.set_handled(schedule, Some(handled)).await,
            Task::Forget(schedule) => journal.set_handled(schedule, None).await,
            Task::Fire(firing, handled) => journal.fire(*firing, handled).await,
        }
    }

    /// Starts what has fired and the coordinator does not know of, under the ids that it will be told.
    async fn run_locally(&mut self) {
        for (envelope, firing) in self.surroundings.journal.startable().await {
            if self.cron.now() > firing.local_until {
                continue;
            }
            for run in firing.runs.clone() {
                if !self.start_locally(envelope, &firing, run).await {
                    return;
                }
            }
        }
    }

    /// False if the disk does not take it: the next look tries again.
    async fn start_locally(&mut self, envelope: u64, firing: &Firing, run: CommandRun) -> bool {
        let refusal = self.refusal(&run).await;
        let (job_id, group) = (run.job_id.clone(), run.tag.clone().unwrap_or_default());
        let (job, schedule, group) = (job_id.as_str(), firing.schedule_id.as_str(), group.as_str());
        match self.surroundings.journal.start_locally(envelope, job_id.clone(), refusal.clone()).await {
            Accepted::New => {
                log::warn!(job, schedule, group; "the coordinator is out of reach: a scheduled backup starts without it");
                let surroundings = self.surroundings.clone();
                let noted = job_id.clone();
                self.writes.spawn(async move { surroundings.note(&noted, ALONE).await });
                self.admit(run);
            }
            Accepted::Refused => {
                log::error!(job, schedule, group; "a scheduled backup can't run: {}", refusal.unwrap_or_default());
            }
            Accepted::Left | Accepted::Known => {
                log::info!(job, schedule, group; "a scheduled backup is left to the coordinator");
            }
            Accepted::NotStored { reason, .. } => {
                log::error!(job, schedule, group; "can't store a scheduled backup: {reason}");
                return false;
            }
        }
        true
    }
}

fn say(task: &Task) {
    match task {
        Task::Fire(firing, _) => {
            let (schedule, jobs) = (firing.schedule_id.as_str(), firing.job_ids.len());
            log::info!(schedule, jobs; "the schedule has fired for {}", firing.scheduled_at);
        }
        Task::Count(schedule, _, Why::Missed(first)) => {
            log::warn!(
                schedule = schedule.as_str();
                "what was due from {first} on was missed, and all of it is too old to be caught up"
            );
        }
        Task::Count(schedule, _, Why::ClockWentBack) => {
            log::warn!(schedule = schedule.as_str(); "the clock has gone back; nothing that has fired fires again");
        }
        Task::Count(schedule, _, Why::New | Why::Changed) => {
            log::debug!(schedule = schedule.as_str(); "the schedule counts from now on");
        }
        Task::Forget(schedule) => log::debug!(schedule = schedule.as_str(); "the schedule is no more"),
    }
}
