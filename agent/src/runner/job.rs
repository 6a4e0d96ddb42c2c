//! A job that is ready to run: restic is found, the repository's server answers.

use super::context::JobContext;
use super::limits::Limits;
use crate::outcome::Outcome;
use crate::restic::command::Bandwidth;
use crate::restic::listen::Listen;
use crate::restic::{Call, Finished, Found, Restic, Setup, find, probe};
use crate::stop::StopWatch;
use std::ffi::OsString;
use std::future::Future;
use std::time::Duration;

/// What each kind of job works with.
pub(super) struct Job<'a> {
    pub(super) context: &'a JobContext,
    pub(super) limits: Limits,
    restic: Restic,
    stop: StopWatch,
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
        Ok(Self { context, limits, restic, stop })
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

    /// Runs a command of the job itself, whatever its exit code.
    ///
    /// # Errors
    /// The outcome of the job: it was stopped, or restic can't be started.
    pub(super) async fn restic(&self, args: Vec<OsString>, listen: Listen) -> Result<Finished, Outcome> {
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
        finished.failure().sentence(self.repository())
    }

    /// The job's failure by what restic said.
    pub(super) fn failed(&self, finished: &Finished) -> Outcome {
        Outcome::failed(finished.exit_code(), self.sentence(finished))
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
