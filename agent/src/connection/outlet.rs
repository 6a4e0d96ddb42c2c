//! What goes to the coordinator past the journal: it may be lost, and is dropped while there is no connection.

use fleet_wire::{JobId, JobProgress, ToCoordinator, encode};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Direct messages that wait for the socket; further ones are dropped.
const DIRECT_WAITING: usize = 64;

/// The senders' end, to be shared by cloning.
#[derive(Clone, Debug)]
pub struct Outlet {
    direct: mpsc::Sender<String>,
    progress: Arc<Progress>,
}

/// The latest progress of each job.
#[derive(Debug, Default)]
pub(super) struct Progress {
    latest: Mutex<BTreeMap<JobId, JobProgress>>,
    changed: Notify,
}

/// The connection's end.
#[derive(Debug)]
pub struct Inlet {
    pub(super) direct: mpsc::Receiver<String>,
    pub(super) progress: Arc<Progress>,
}

/// An outlet and the end that empties it.
pub fn channel() -> (Outlet, Inlet) {
    let (sender, direct) = mpsc::channel(DIRECT_WAITING);
    let progress = Arc::new(Progress::default());
    (Outlet { direct: sender, progress: progress.clone() }, Inlet { direct, progress })
}

impl Outlet {
    /// Sends a message at once or not at all.
    pub fn send(&self, message: impl Into<ToCoordinator>) {
        let _ = self.direct.try_send(encode(None, &message.into()));
    }

    /// Shows how far a job is; only the latest news of each job is sent.
    pub fn progress(&self, progress: JobProgress) {
        self.progress.with(|latest| latest.insert(progress.job_id.clone(), progress));
        self.progress.changed.notify_one();
    }

    /// Forgets what was not sent of a job that is over.
    pub fn over(&self, job_id: &JobId) {
        self.progress.with(|latest| latest.remove(job_id));
    }
}

impl Progress {
    /// Takes the news that were not taken yet.
    pub(super) fn take(&self) -> BTreeMap<JobId, JobProgress> {
        self.with(std::mem::take)
    }

    /// Returns when there are news.
    pub(super) async fn changed(&self) {
        while self.with(|latest| latest.is_empty()) {
            self.changed.notified().await;
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<JobId, JobProgress>) -> T) -> T {
        change(&mut self.latest.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inlet {
    /// Forgets what was meant for an earlier connection.
    pub(super) fn clear(&mut self) {
        while self.direct.try_recv().is_ok() {}
        self.progress.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_latest_progress_of_each_job_is_sent() {
        let (outlet, mut inlet) = channel();
        for (job, percent_done) in [("a", 0.1), ("b", 0.2), ("a", 0.3), ("over", 0.9)] {
            outlet.progress(JobProgress { percent_done, ..progress(job) });
        }
        outlet.over(&"over".into());
        inlet.progress.changed().await;
        let percents: Vec<_> = inlet.progress.take().into_values().map(|progress| progress.percent_done).collect();
        assert_eq!(percents, [0.3, 0.2]);
        outlet.progress(progress("a"));
        inlet.clear();
        assert!(inlet.progress.take().is_empty());
    }

    fn progress(job: &str) -> JobProgress {
        serde_json::from_str(&format!("{{\"job_id\":{job:?}}}")).unwrap()
    }
}
