//! What a running job says about itself, on its way to the journal.

use chrono::Utc;
use fleet_wire::{JobProgress, LogStream, RepoStats, SnapshotsReport, Timestamp};
use tokio::sync::mpsc;

/// Reports that may wait for the journal. A full channel slows restic down instead of filling memory.
pub const REPORTS_IN_FLIGHT: usize = 1024;

/// One report of a running job.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A line for the job's log; the journal gives it its `seq`.
    Log {
        /// When it was read.
        ts: Timestamp,
        /// Where it came from.
        stream: LogStream,
        /// The line, without its end and without any secret.
        line: String,
    },
    /// How far it is. The latest one counts; it is not journalled.
    Progress(JobProgress),
    /// The host's snapshots after a backup.
    Snapshots(SnapshotsReport),
    /// News of the repository.
    Stats(RepoStats),
}

/// The runner's end: where a job's reports go.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<Report>);

impl Reporter {
    /// A reporter and the end that reads it.
    pub fn channel() -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(REPORTS_IN_FLIGHT);
        (Self(sender), receiver)
    }

    /// Adds a line to the job's log. Waits while the journal is behind; without a reader the line is dropped.
    pub async fn log(&self, stream: LogStream, line: impl Into<String>) {
        self.send(Report::Log { ts: Utc::now(), stream, line: line.into() }).await;
    }

    /// Reports progress, unless the journal is behind: progress may be dropped.
    pub fn progress(&self, progress: JobProgress) {
        let _ = self.0.try_send(Report::Progress(progress));
    }

    /// Reports anything else.
    pub async fn send(&self, report: Report) {
        let _ = self.0.send(report).await;
    }
}
