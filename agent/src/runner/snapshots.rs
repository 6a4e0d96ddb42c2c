//! The list of this host's snapshots.

use super::job::Job;
use crate::report::Report;
use crate::restic::{command, output};
use chrono::Utc;
use fleet_wire::{Snapshot, SnapshotsReport};

/// Lists the snapshots of this host. It is asked even after a stop that met a good end: without the list nobody
/// knows whether the end was good.
///
/// # Errors
/// Why there is no list.
pub(super) async fn list(job: &Job<'_>) -> Result<SnapshotsReport, String> {
    list_of(job, Some(&job.context.hostname)).await
}

/// The same for another host, or for all.
pub(super) async fn list_of(job: &Job<'_>, host: Option<&str>) -> Result<SnapshotsReport, String> {
    let as_of = Some(Utc::now());
    let printed = job.query(command::snapshots(host), job.stop().from_now()).await?;
    let snapshots = output::read_snapshots(&printed)
        .map_err(|error| format!("restic's list of snapshots can't be read: {error}"))?;
    Ok(SnapshotsReport { snapshots, as_of })
}

/// Hands the list on.
pub(super) async fn report(job: &Job<'_>, list: SnapshotsReport) {
    job.context.reporter.send(Report::Snapshots(list)).await;
}

/// Whether `id`, of which 0.14 gives only the first eight digits, is in `list`.
pub(super) fn contains(list: &[Snapshot], id: &str) -> bool {
    !id.is_empty() && list.iter().any(|snapshot| snapshot.id.starts_with(id))
}
