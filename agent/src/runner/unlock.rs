//! `unlock`: removes stale locks, never live ones.

use super::job::Job;
use super::stats;
use crate::outcome::Outcome;
use crate::report::Report;
use crate::restic::command;
use crate::restic::listen::Listen;
use chrono::Utc;
use fleet_wire::{LogStream, RepoStats};

/// restic 0.14 says "successfully removed locks" even if there were none, and every version exits 0 when live locks
/// stay: only the list tells.
pub(super) async fn run(job: &Job<'_>) -> Outcome {
    let unlock = match job.restic(command::unlock(), Listen::Log).await {
        Ok(unlock) => unlock,
        Err(outcome) => return outcome,
    };
    if !unlock.is_success() {
        return job.failed(&unlock);
    }
    let as_of = Some(Utc::now());
    let locks = stats::locks(job).await;
    let news = RepoStats { as_of, lock_present: locks.as_ref().map(|locks| !locks.is_empty()), ..RepoStats::default() };
    job.context.reporter.send(Report::Stats(news)).await;
    if let Some(left) = locks.map(|locks| locks.len()).filter(|left| *left > 0) {
        let line =
            format!("{left} lock(s) stay: their restic is running, or ran on another host less than 30 minutes ago");
        job.context.reporter.log(LogStream::Stdout, line).await;
    }
    Outcome::succeeded(None)
}
