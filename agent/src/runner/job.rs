//! A job that is ready to run: restic is found, the repository's server answers.

use super::context::JobContext;
use super::limits::Limits;
use super::lock_wait::LockWait;
use crate::outcome::Outcome;
use crate::restic::command::Bandwidth;
use crate::restic::failure::Failure;
use crate::restic::listen::Listen;
use crate::restic::lock::{Lock, LockReport, Standing};
use crate::restic::{Call, Finished, Found, Restic, Setup, find, probe};
use crate::stop::StopWatch;
use fleet_wire::{Kind, LogStream, RawJson};
use serde::Serialize;
use std::ffi::OsString;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// What each kind of job works with.
pub(super) struct Job<'a> {
    pub(super) context: &'a JobContext,
    pub(super) limits: Limits,
    restic: Restic,
    stop: StopWatch,
    /// Seconds that it has waited for a lock in the repository.
    waited: AtomicU64,
}

/// A line of the job's log, in the form of restic's own events.
#[derive(Serialize)]
struct WaitsForLock {
    message_type: &'static str,
    lock: LockReport,
    waited_seconds: f64,
    retry_in_seconds: f64,
}

/// `stats` of a job that a lock has kept from its work.
#[derive(Serialize)]
struct LockedOut {
    lock: LockReport,
    waited_seconds: u64,
}

impl<'a> Job<'a> {
    /// Finds restic and calls the repository's server.
    ///
    /// # Errors
    /// The outcome of the job, which ends here.
    pub(super) async fn prepare(context: &'a JobContext, limits: Limits) -> Result<Self, Outcome> {
        let stop = StopWatch::new(context.stop.clone());
        let version = match unless_stopped(&stop, find(&context.restic)).await? {
            Found::Usable(version) => version,
            found => return Err(Outcome::failed(-1, found.problem().unwrap_or_default())),
        };
        let setup = Setup {
            job: &context.run.job_id,
            path: &context.restic,
            version,
            credentials: &context.credentials,
            data_dir: &context.data_dir,
            reporter: &context.reporter,
            spool: &context.spool,
            grace: limits.stop_grace,
        };
        let restic = Restic::new(&setup)
            .map_err(|error| Outcome::failed(-1, format!("the agent's data folder can't be used: {error}")))?;
        let url = context.credentials.url.as_deref().unwrap_or_default();
        let reached = unless_stopped(&stop, probe::reach(url, limits.probe)).await?;
        reached.map_err(|unreachable| Outcome::failed(-1, unreachable))?;
        Ok(Self { context, limits, restic, stop, waited: AtomicU64::new(0) })
    }

    /// The limits in force for this job.
    pub(super) fn bandwidth(&self) -> Bandwidth {
        Bandwidth { upload: self.context.upload_kib, download: self.context.download_kib }
    }

    /// The stops that the job heeds.
    pub(super) fn stop(&self) -> &StopWatch {
        &self.stop
    }

    /// The repository's address without credentials.
    pub(super) fn repository(&self) -> &str {
        self.restic.repository()
    }

    /// `text` without the repository's secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        self.restic.redact(text)
    }

    /// Runs a command of the job itself, whatever its exit code. A lock that another restic holds is waited for.
    ///
    /// # Errors
    /// The outcome of the job: it was stopped, or restic can't be started.
    pub(super) async fn restic(&self, args: Vec<OsString>, listen: Listen) -> Result<Finished, Outcome> {
        let mut wait = LockWait::new(self.lock_limit(), self.limits.lock_pause);
        loop {
            let finished = self.restic_once(args.clone(), listen).await?;
            if finished.is_success() {
                return Ok(finished);
            }
            let Failure::Locked(lock) = finished.failure() else { return Ok(finished) };
            let (waited, standing) = (wait.waited(), lock.standing());
            let Some(pause) = wait.pause(standing, rand::random()) else { return Ok(finished) };
            self.say_that_it_waits(&lock, standing, waited, pause).await;
            unless_stopped(&self.stop, sleep(pause)).await?;
            // Rounded up: it did wait.
            self.waited.fetch_add(pause.as_secs() + 1, Ordering::Relaxed);
        }
    }

    /// Backups wait for others; who has the repository for himself while he waits keeps others from it.
    fn lock_limit(&self) -> Duration {
        let Limits { lock_wait, lock_wait_alone, .. } = self.limits;
        let is_backup = self.context.run.kind.known() == Some(Kind::Backup);
        if is_backup { lock_wait } else { lock_wait.min(lock_wait_alone) }
    }

    async fn say_that_it_waits(&self, lock: &Lock, standing: Standing, waited: Duration, pause: Duration) {
        let line = WaitsForLock {
            message_type: "fleet_waits_for_lock",
            lock: lock.report(standing),
            waited_seconds: waited.as_secs_f64(),
            retry_in_seconds: pause.as_secs_f64(),
        };
        let text = serde_json::to_string(&line).unwrap_or_default();
        log::info!(job = self.context.run.job_id.as_str(); "waits for a lock in the repository {}", lock.words);
        self.context.reporter.log(LogStream::Event, self.redact(&text)).await;
    }

    async fn restic_once(&self, args: Vec<OsString>, listen: Listen) -> Result<Finished, Outcome> {
        if let Some(stop) = self.stop.now() {
            return Err(Outcome::stopped(stop, -1));
        }
        let call = Call { args, listen, stop: self.stop.clone(), limit: None };
        let finished = self
            .restic
            .call(call)
            .await
            .map_err(|error| Outcome::failed(-1, format!("restic could not be started: {error}")))?;
        match finished.stopped() {
            Some(stop) => Err(Outcome::stopped(stop, finished.exit_code())),
            None => Ok(finished),
        }
    }

    /// Asks something beside the job's own command; `stop` says which stops count.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn query(&self, args: Vec<OsString>, stop: StopWatch) -> Result<Vec<u8>, String> {
        let call = Call { args, listen: Listen::Keep, stop, limit: Some(self.query_limit()) };
        let finished = self.restic.call(call).await.map_err(|error| format!("restic could not be started: {error}"))?;
        if finished.heard.stdout_cut {
            return Err("restic's answer is too long to be read".into());
        }
        if finished.ended.over_time {
            return Err(format!("restic did not answer within {} s", self.query_limit().as_secs()));
        }
        if finished.is_success() { Ok(finished.heard.stdout) } else { Err(self.sentence(&finished)) }
    }

    /// Once a stop is known the rest must not take long.
    fn query_limit(&self) -> Duration {
        const WHEN_STOPPING: Duration = Duration::from_secs(20);
        if self.stop.now().is_some() { self.limits.query.min(WHEN_STOPPING) } else { self.limits.query }
    }

    /// What went wrong, for people.
    pub(super) fn sentence(&self, finished: &Finished) -> String {
        let failure = finished.failure();
        let mut sentence = failure.sentence(self.repository());
        let waited = self.waited.load(Ordering::Relaxed);
        if waited > 0 && matches!(failure, Failure::Locked(_)) {
            sentence.push_str(&format!("; this job has waited {waited} s for it"));
        }
        sentence
    }

    /// The job's failure by what restic said.
    pub(super) fn failed(&self, finished: &Finished) -> Outcome {
        let mut outcome = Outcome::failed(finished.exit_code(), self.sentence(finished));
        if let Failure::Locked(lock) = finished.failure() {
            let waited_seconds = self.waited.load(Ordering::Relaxed);
            outcome.stats = RawJson::of(&LockedOut { lock: lock.report(lock.standing()), waited_seconds }).ok();
        }
        outcome
    }
}

/// Waits for `work`, unless the job is stopped before.
async fn unless_stopped<T>(stop: &StopWatch, work: impl Future<Output = T>) -> Result<T, Outcome> {
    let mut stop = stop.clone();
    tokio::select! {
        biased;
        stop = stop.wait() => Err(Outcome::stopped(stop, -1)),
        done = work => Ok(done),
    }
}
