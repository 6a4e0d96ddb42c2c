//! What a job is given when it starts.

use crate::credentials::Credentials;
use crate::process::Spool;
use crate::report::Reporter;
use crate::stop::Stop;
use fleet_wire::CommandRun;
use std::path::PathBuf;
use tokio::sync::watch;

/// All that a job needs to know, fixed when it starts.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// The job, checked by [`refusal`](super::refusal()).
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
    /// Where the output of its children is recorded.
    pub spool: Spool,
    /// Turns from [`Stop::No`] when the job is to end.
    pub stop: watch::Receiver<Stop>,
}
