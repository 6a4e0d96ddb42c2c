//! Turns restic's progress into `job.progress`, not too often and with a throughput, which restic does not give.

use super::output::{BackupSummary, Progress};
use fleet_wire::{JobId, JobProgress};
use std::time::{Duration, Instant};

/// Reports closer together are dropped. restic is asked for one a second.
const AT_MOST_EVERY: Duration = Duration::from_millis(900);

/// Measures one restic command.
#[derive(Debug)]
pub struct Meter {
    job: JobId,
    last: Option<(Instant, i64)>,
}

impl Meter {
    /// Starts to measure for `job`.
    pub fn new(job: JobId) -> Self {
        Self { job, last: None }
    }

    /// A `status` message that came at `now`.
    pub fn status(&mut self, now: Instant, progress: Progress) -> Option<JobProgress> {
        let throughput_bps = match self.last {
            Some((before, _)) if now.duration_since(before) < AT_MOST_EVERY => return None,
            Some((before, bytes)) => rate(progress.bytes_done - bytes, now.duration_since(before)),
            None => 0,
        };
        self.last = Some((now, progress.bytes_done));
        Some(JobProgress {
            job_id: self.job.clone(),
            percent_done: progress.percent_done.clamp(0.0, 1.0),
            files_done: progress.files_done,
            total_files: progress.total_files,
            bytes_done: progress.bytes_done,
            total_bytes: progress.total_bytes,
            eta_seconds: progress.seconds_remaining,
            throughput_bps,
        })
    }

    /// A fraction that a command without figures prints.
    pub fn fraction(&mut self, now: Instant, percent_done: f64) -> Option<JobProgress> {
        self.status(now, Progress { percent_done, ..Progress::default() })
    }

    /// The end of a backup. A short one says nothing before it.
    pub fn done(&mut self, now: Instant, summary: &BackupSummary) -> JobProgress {
        let (files, bytes) = (summary.total_files_processed, summary.total_bytes_processed);
        let throughput_bps = self.last.map_or(0, |(before, done)| rate(bytes - done, now.duration_since(before)));
        JobProgress {
            job_id: self.job.clone(),
            percent_done: 1.0,
            files_done: files,
            total_files: files,
            bytes_done: bytes,
            total_bytes: bytes,
            eta_seconds: 0,
            throughput_bps,
        }
    }
}

fn rate(bytes: i64, time: Duration) -> i64 {
    let milliseconds = i64::try_from(time.as_millis()).unwrap_or(i64::MAX).max(1);
    bytes.max(0).saturating_mul(1000) / milliseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_what_came_since_the_last_report() {
        let mut meter = Meter::new("7".into());
        let start = Instant::now();
        let at = |bytes_done| Progress { percent_done: 0.5, bytes_done, ..Progress::default() };
        assert_eq!(meter.status(start, at(1000)).unwrap().throughput_bps, 0);
        assert_eq!(meter.status(start + Duration::from_millis(100), at(2000)), None);
        let second = meter.status(start + Duration::from_secs(2), at(5000)).unwrap();
        assert_eq!((second.throughput_bps, second.bytes_done, second.percent_done), (2000, 5000, 0.5));
        // bytes_done may fall back while restic scans on.
        assert_eq!(meter.status(start + Duration::from_secs(3), at(0)).unwrap().throughput_bps, 0);
    }

    #[test]
    fn odd_numbers_do_no_harm() {
        let mut meter = Meter::new("7".into());
        let odd = Progress { percent_done: 7.5, bytes_done: i64::MAX, ..Progress::default() };
        assert_eq!(meter.status(Instant::now(), odd).unwrap().percent_done, 1.0);
        assert_eq!(rate(i64::MAX, Duration::ZERO), i64::MAX);
    }

    #[test]
    fn a_backup_ends_at_one() {
        let summary = BackupSummary { total_files_processed: 3, total_bytes_processed: 30, ..BackupSummary::default() };
        let done = Meter::new("7".into()).done(Instant::now(), &summary);
        assert_eq!((done.percent_done, done.files_done, done.total_bytes), (1.0, 3, 30));
    }
}
