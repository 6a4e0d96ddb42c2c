//! What a running job says about itself, on its way to the journal.

use crate::process::{Line, Mark};
use chrono::Utc;
use fleet_wire::{JobProgress, LogStream, RepoStats, SnapshotsReport, Timestamp};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Reports that may wait for the journal. A full channel slows restic down instead of filling memory.
pub const REPORTS_IN_FLIGHT: usize = 1024;

/// The same in bytes: few long lines fill memory as well as many short ones do.
pub const BYTES_IN_FLIGHT: usize = 4 * 1024 * 1024;

/// One report of a running job.
#[derive(Clone, Debug)]
pub enum Report {
    /// A line for the job's log; the journal gives it its `seq`.
    Log {
        /// When it was read.
        ts: Timestamp,
        /// Where it came from.
        stream: LogStream,
        /// The line, without its end and without any secret.
        line: String,
        /// Of the child that said it, and what is dealt with once this is on disk; none for a line of the agent's own.
        mark: Option<Mark>,
    },
    /// Whoever holds the other end is told that everything before this is on disk: by dropping this.
    Settle(#[allow(dead_code, reason = "it only has to be dropped")] mpsc::Sender<()>),
    /// How far it is. The latest one counts; it is not journalled.
    Progress(JobProgress),
    /// The host's snapshots after a backup.
    Snapshots(SnapshotsReport),
    /// News of the repository.
    Stats(RepoStats),
}

impl Report {
    /// What it takes in memory, roughly, in bytes.
    fn bytes(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(|text| text.len() + size_of::<String>()).sum::<usize>();
        let varying = match self {
            Self::Log { line, .. } => line.len(),
            Self::Snapshots(report) => report
                .snapshots
                .iter()
                .map(|snapshot| size_of_val(snapshot) + 100 + texts(&snapshot.paths) + texts(&snapshot.tags))
                .sum(),
            Self::Progress(_) | Self::Stats(_) | Self::Settle(_) => 0,
        };
        varying + size_of::<Self>()
    }
}

/// The runner's end: where a job's reports go.
#[derive(Clone, Debug)]
pub struct Reporter {
    sender: mpsc::Sender<InFlight>,
    room: Arc<Semaphore>,
}

/// The reading end of a job's reports.
#[derive(Debug)]
pub struct Reports(mpsc::Receiver<InFlight>);

/// A report with its part of the room, free again when it is dropped.
type InFlight = (Report, Option<OwnedSemaphorePermit>);

impl Reports {
    /// The next report; `None` when every reporter is gone.
    pub async fn recv(&mut self) -> Option<Report> {
        self.0.recv().await.map(|(report, _)| report)
    }
}

impl Reporter {
    /// A reporter and the end that reads it.
    pub fn channel() -> (Self, Reports) {
        let (sender, receiver) = mpsc::channel(REPORTS_IN_FLIGHT);
        (Self { sender, room: Arc::new(Semaphore::new(BYTES_IN_FLIGHT)) }, Reports(receiver))
    }

    /// Adds a line of the agent's own to the job's log. Waits while the journal is behind; without a reader the line is
    /// dropped.
    pub async fn log(&self, stream: LogStream, line: impl Into<String>) {
        self.send(Report::Log { ts: Utc::now(), stream, line: line.into(), mark: None }).await;
    }

    /// Adds a child's line, as it goes into the log, in place of `line`.
    pub async fn relay(&self, line: &Line, stream: LogStream, text: String) {
        self.send(Report::Log { ts: line.ts, stream, line: text, mark: Some(line.mark) }).await;
    }

    /// Returns when everything before is on disk, or nobody reads reports.
    pub async fn settle(&self) {
        let (settled, mut all) = mpsc::channel(1);
        self.send(Report::Settle(settled)).await;
        let _ = all.recv().await;
    }

    /// Reports progress, unless the journal is behind: progress may be dropped.
    pub fn progress(&self, progress: JobProgress) {
        let _ = self.sender.try_send((Report::Progress(progress), None));
    }

    /// Reports anything else.
    pub async fn send(&self, report: Report) {
        // One that is larger than all the room takes all of it.
        let bytes = u32::try_from(report.bytes().min(BYTES_IN_FLIGHT)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(bytes).await.ok();
        let _ = self.sender.send((report, room)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::Snapshot;
    use futures_util::FutureExt;
    use tokio::task::unconstrained;

    /// Puts in what fits and gives how many reports that were.
    fn fill(reporter: &Reporter, report: &Report) -> usize {
        (0..10_000).take_while(|_| unconstrained(reporter.send(report.clone())).now_or_never().is_some()).count()
    }

    fn line(bytes: usize) -> Report {
        Report::Log { ts: Utc::now(), stream: LogStream::Stdout, line: "x".repeat(bytes), mark: None }
    }

    #[tokio::test]
    async fn reports_in_flight_are_bounded_by_their_number_and_by_their_bytes() {
        let (reporter, mut reports) = Reporter::channel();
        assert_eq!(fill(&reporter, &line(10)), REPORTS_IN_FLIGHT);
        assert!(reports.recv().await.is_some());
        assert_eq!(fill(&reporter, &line(10)), 1);

        let (reporter, mut reports) = Reporter::channel();
        let mebibyte = 1024 * 1024;
        assert_eq!(fill(&reporter, &line(mebibyte)), BYTES_IN_FLIGHT / mebibyte - 1);
        assert!(reports.recv().await.is_some());
        assert_eq!(fill(&reporter, &line(mebibyte)), 1, "what was read makes room");

        let (reporter, _reports) = Reporter::channel();
        let snapshot = Snapshot { paths: vec!["/srv".into(); 10], ..Snapshot::default() };
        let list = SnapshotsReport { snapshots: vec![snapshot; 10_000], as_of: None };
        assert_eq!(fill(&reporter, &Report::Snapshots(list)), 1, "a long list takes all the room");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_that_is_gone() {
        let (reporter, reports) = Reporter::channel();
        fill(&reporter, &line(1024 * 1024));
        drop(reports);
        for _ in 0..10 {
            assert_eq!(reporter.send(line(1024 * 1024)).now_or_never(), Some(()));
        }
    }
}
