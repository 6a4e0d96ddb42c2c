//! One job from its start to its outcome.

use crate::report::Reporter;
use fleet_wire::{CommandRun, RawJson, Secret, Status};
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
