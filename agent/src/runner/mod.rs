//! One job from its start to its outcome.
//!
//! [`refusal`] says which jobs are not even begun. [`run`] finds restic, calls the repository's server, and hands the
//! job to the module of its kind; each of them asks restic, doubts the answer where some version misleads, and
//! reports what is true. `stats` and `snapshots` hold what several kinds report.

mod backup;
mod check;
mod forget;
mod hooks;
mod init;
mod job;
mod limits;
mod prune;
mod refusal;
mod snapshots;
mod stats;
mod unlock;

pub use limits::Limits;
pub use refusal::refusal;

use self::job::Job;
use crate::report::Reporter;
use crate::restic::redact::Redactor;
use fleet_wire::{CommandRun, Kind, RawJson, Secret, Status};
use std::path::PathBuf;
use tokio::sync::watch;

/// One credential slot of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    /// The repository, in restic's notation, without credentials.
    pub url: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The REST server's user.
    pub username: Option<String>,
    /// The REST server's password.
    pub credential: Option<Secret>,
}

/// Why a job is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nobody asked.
    No,
    /// `command.cancel`: the outcome is `cancelled`, unless restic was done already.
    Cancel,
    /// The agent is told to stop: the outcome is `failed: agent stopped`.
    AgentStops,
}

/// All that a job needs to know, fixed when it starts.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// The job, checked by [`refusal`].
    pub run: CommandRun,
    /// The credentials that this job may use: the admin slot if and only if the job requires it.
    pub credentials: Credentials,
    /// Upload limit in force, KiB a second.
    pub upload_kib: Option<i64>,
    /// Download limit in force, KiB a second.
    pub download_kib: Option<i64>,
    /// The program that runs hooks; `/bin/sh` if the host has none set.
    pub hook_shell: Option<String>,
    /// The name under which this host's snapshots stand in the repository (`--host`).
    pub hostname: String,
    /// The restic to run.
    pub restic: PathBuf,
    /// A private folder that holds restic's cache and temporary files (`cache/`, `tmp/`).
    pub data_dir: PathBuf,
    /// Where reports go.
    pub reporter: Reporter,
    /// Turns from [`Stop::No`] when the job is to end.
    pub stop: watch::Receiver<Stop>,
}

/// What came of a job: the core of `job.finished`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// A terminal status.
    pub status: Status,
    /// restic's exit code, 3 for every partial backup, -1 where there is none.
    pub exit_code: i64,
    /// restic's summary, or our own where restic has none.
    pub stats: Option<RawJson>,
    /// What went wrong, for people.
    pub error: Option<String>,
}

impl Outcome {
    fn succeeded(stats: Option<RawJson>) -> Self {
        Self { status: Status::Succeeded, exit_code: 0, stats, error: None }
    }

    fn failed(exit_code: i64, error: impl Into<String>) -> Self {
        Self { status: Status::Failed, exit_code, stats: None, error: Some(error.into()) }
    }

    /// The end of a job that was told to stop.
    fn stopped(stop: Stop, exit_code: i64) -> Self {
        match stop {
            Stop::AgentStops => Self::failed(exit_code, "agent stopped"),
            Stop::Cancel | Stop::No => {
                Self { status: Status::Cancelled, exit_code, stats: None, error: Some("cancelled".into()) }
            }
        }
    }

    /// Adds to what is said to people; the status stays.
    fn note(&mut self, note: &str) {
        match &mut self.error {
            Some(error) => {
                error.push_str("; ");
                error.push_str(note);
            }
            None => self.error = Some(note.to_owned()),
        }
    }
}

/// Runs a job to its end. It always returns.
pub async fn run(context: JobContext) -> Outcome {
    run_with(context, Limits::default()).await
}

/// The same with other time limits.
pub async fn run_with(context: JobContext, limits: Limits) -> Outcome {
    let outcome = match context.run.kind.known() {
        None => Outcome::failed(-1, format!("unknown kind of job {:?}", context.run.kind.to_string())),
        Some(Kind::Backup) => backup::run(&context, limits).await,
        Some(kind) => match Job::prepare(&context, limits).await {
            Ok(job) => run_kind(kind, &job).await,
            Err(outcome) => outcome,
        },
    };
    without_secrets(outcome, &Redactor::new(&context.credentials))
}

async fn run_kind(kind: Kind, job: &Job<'_>) -> Outcome {
    match kind {
        Kind::Backup => Outcome::failed(-1, "a backup has its own way"),
        Kind::Init => init::run(job).await,
        Kind::Forget => forget::run(job).await,
        Kind::Prune => prune::run(job).await,
        Kind::Check => check::run(job).await,
        Kind::Unlock => unlock::run(job).await,
    }
}

fn without_secrets(outcome: Outcome, redactor: &Redactor) -> Outcome {
    Outcome {
        stats: outcome.stats.and_then(|stats| {
            let redacted = redactor.redact(stats.as_str());
            if redacted == stats.as_str() { Some(stats) } else { RawJson::new(redacted).ok() }
        }),
        error: outcome.error.map(|error| redactor.redact(&error)),
        ..outcome
    }
}
