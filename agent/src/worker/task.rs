//! One job's way through the runner: journalled at its start, its reports passed on, journalled at its end.

use crate::connection::Outlet;
use crate::credentials::Credentials;
use crate::journal::Journal;
use crate::outcome::Outcome;
use crate::process::Spool;
use crate::report::{Report, Reporter, Reports};
use crate::runner::{self, JobContext, Limits};
use crate::settings::Settings;
use crate::stop::Stop;
use chrono::Utc;
use fleet_wire::{CommandRun, JobId, LogStream, Status};
use std::path::PathBuf;
use tokio::sync::watch;

/// What every job of this agent works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where jobs and reports are kept.
    pub journal: Journal,
    /// Where progress goes.
    pub outlet: Outlet,
    /// The agent's data folder.
    pub data_dir: PathBuf,
    /// The host's name.
    pub hostname: String,
    /// The restic to run.
    pub restic: PathBuf,
    /// How long things may take.
    pub limits: Limits,
    /// The agent's own program, which records what children write.
    pub program: PathBuf,
}

impl Surroundings {
    /// Runs a job to its end. Its outcome is on disk when this returns.
    pub(super) async fn run(self, run: CommandRun, settings: Settings, stop: watch::Receiver<Stop>) {
        let job_id = run.job_id.clone();
        self.journal.started(&job_id).await;
        log::info!(job = job_id.as_str(), kind = run.kind.to_string().as_str(); "job started");
        let (reporter, reports) = Reporter::channel();
        let context = self.context(run, &settings, reporter, stop);
        // A task of its own, so that not even a defect in the runner leaves a job without an end.
        let running = tokio::spawn(runner::run(context, self.limits));
        self.forward(&job_id, reports).await;
        let outcome = running.await.unwrap_or_else(|_| failed("the agent failed while the job ran; see its log"));
        log::info!(
            job = job_id.as_str(), status = outcome.status.as_str(), exit_code = outcome.exit_code;
            "job over{}", outcome.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
        );
        self.outlet.over(&job_id);
        self.journal.finish(&job_id, outcome).await;
        self.spool(&job_id).clear();
    }

    /// The records of a job's children.
    pub(super) fn spool(&self, job_id: &JobId) -> Spool {
        Spool::new(&self.program, &self.data_dir, job_id)
    }

    fn context(
        &self,
        run: CommandRun,
        settings: &Settings,
        reporter: Reporter,
        stop: watch::Receiver<Stop>,
    ) -> JobContext {
        let credentials: Credentials = settings.credentials_for(&run).clone();
        JobContext {
            credentials,
            upload_kib: run.bandwidth_up_kbps.over(settings.upload_kib),
            download_kib: run.bandwidth_down_kbps.over(settings.download_kib),
            hook_shell: settings.hook_shell.clone(),
            hostname: self.hostname.clone(),
            restic: self.restic.clone(),
            data_dir: self.data_dir.clone(),
            spool: self.spool(&run.job_id),
            run,
            reporter,
            stop,
        }
    }

    /// Adds a line of the agent's own to a job's log.
    pub(super) async fn note(&self, job_id: &JobId, line: &str) {
        self.journal.log(job_id, Utc::now(), LogStream::Stderr, format!("fleet-agent: {line}"), None).await;
    }

    /// Passes reports on until the runner has let go of its reporter.
    pub(super) async fn forward(&self, job_id: &JobId, mut reports: Reports) {
        while let Some(report) = reports.recv().await {
            match report {
                Report::Log { ts, stream, line, mark } => self.journal.log(job_id, ts, stream, line, mark).await,
                Report::Settle(settled) => {
                    self.journal.flush().await;
                    drop(settled);
                }
                Report::Progress(progress) => self.outlet.progress(progress),
                Report::Snapshots(snapshots) => self.journal.send(snapshots).await,
                Report::Stats(stats) => self.journal.send(stats).await,
            }
        }
    }
}

/// The outcome of a job that could not be run to an end of its own.
pub(super) fn failed(error: &str) -> Outcome {
    Outcome { status: Status::Failed, exit_code: -1, stats: None, error: Some(error.to_owned()) }
}

/// The outcome of a job that was cancelled while it waited.
pub(super) fn cancelled_before_start() -> Outcome {
    Outcome { status: Status::Cancelled, ..failed("cancelled before it started") }
}
