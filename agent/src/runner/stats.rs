//! News of the repository. It never fails a job: what can't be found out is left out.

use super::job::Job;
use crate::report::Report;
use crate::restic::command::{self, StatsMode};
use crate::restic::output::{Stats, read_ids};
use chrono::Utc;
use fleet_wire::{LogStream, RepoStats};
use std::ffi::OsString;

/// Measures the whole repository, adds whether it is locked, and reports that on top of `news`.
pub(super) async fn report_all(job: &Job<'_>, news: RepoStats) {
    let mut stats = RepoStats { as_of: Some(Utc::now()), ..news };
    if let Some(size) = measure(job, StatsMode::RestoreSize).await {
        stats.total_size_bytes = Some(size.total_size);
        stats.snapshot_count = size.snapshots_count;
    }
    if let Some(size) = measure(job, StatsMode::RawData).await {
        stats.raw_size_bytes = Some(size.total_size);
    }
    if let Some(size) = measure(job, StatsMode::FilesByContents).await {
        stats.unique_files = Some(size.total_file_count);
    }
    report_lock(job, stats).await;
}

/// Adds only whether the repository is locked, and reports.
pub(super) async fn report_lock(job: &Job<'_>, news: RepoStats) {
    let as_of = news.as_of.or_else(|| Some(Utc::now()));
    // No restic of this job runs now, so that any lock is somebody else's.
    let lock_present = locks(job).await.map(|locks| !locks.is_empty());
    let stats = RepoStats { as_of, lock_present, ..news };
    // After a stop nothing was asked, and there may be nothing to say.
    if stats != (RepoStats { as_of, ..RepoStats::default() }) {
        job.context.reporter.send(Report::Stats(stats)).await;
    }
}

/// The ids of all locks.
pub(super) async fn locks(job: &Job<'_>) -> Option<Vec<String>> {
    query(job, command::list_locks()).await.map(|printed| read_ids(&printed))
}

async fn measure(job: &Job<'_>, mode: StatsMode) -> Option<Stats> {
    let printed = query(job, command::stats(mode)).await?;
    serde_json::from_slice(&printed).ok()
}

async fn query(job: &Job<'_>, args: Vec<OsString>) -> Option<Vec<u8>> {
    if job.stop().now().is_some() {
        return None;
    }
    match job.query(args, job.stop().clone()).await {
        Ok(printed) => Some(printed),
        Err(_) if job.stop().now().is_some() => None,
        Err(reason) => {
            let redacted = job.redact(&reason);
            job.context.reporter.log(LogStream::Stderr, format!("no figures of the repository: {redacted}")).await;
            None
        }
    }
}
