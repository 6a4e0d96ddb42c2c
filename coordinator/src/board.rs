//! What is true right now and not worth a transaction each time: the progress of running jobs, signs of life, and who
//! waits for a change. Actors write it, REST reads it; nothing here must survive a restart.

use crate::clock;
use fleet_wire::{JobProgress, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use uuid::Uuid;

/// The shared board. Its locks are held for a look-up, never across an await.
#[derive(Debug)]
pub struct Board {
    began: Instant,
    progress: Mutex<HashMap<Uuid, JobProgress>>,
    seen: Mutex<HashMap<Uuid, Seen>>,
    /// Hosts that can take jobs, and since when.
    ready: Mutex<HashMap<Uuid, (Instant, bool)>>,
    /// For each watched job, how many watch it.
    watched: Mutex<HashMap<Uuid, (usize, Arc<Notify>)>>,
}

/// When a host was last heard of: for people, and by a clock that nobody sets.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Timestamp,
    since: Instant,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            progress: Mutex::default(),
            seen: Mutex::default(),
            ready: Mutex::default(),
            watched: Mutex::default(),
        }
    }
}

/// A panic elsewhere does not make these plain maps wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// Puts up the latest progress of a job.
    pub fn set_progress(&self, job_id: Uuid, progress: JobProgress) {
        lock(&self.progress).insert(job_id, progress);
    }

    /// The latest progress of a job that runs.
    pub fn progress(&self, job_id: Uuid) -> Option<JobProgress> {
        lock(&self.progress).get(&job_id).cloned()
    }

    /// Takes a job's progress down, at its end.
    pub fn clear_progress(&self, job_id: Uuid) {
        lock(&self.progress).remove(&job_id);
    }

    /// Notes a sign of life.
    pub fn see(&self, host_id: Uuid) {
        lock(&self.seen).insert(host_id, Seen { at: clock::now(), since: Instant::now() });
    }

    /// When a host was last heard of, if that was after the start.
    pub fn last_seen(&self, host_id: Uuid) -> Option<Timestamp> {
        lock(&self.seen).get(&host_id).map(|seen| seen.at)
    }

    /// For how long nothing was heard of a host. After a start every host has its time to come back.
    pub fn silence(&self, host_id: Uuid) -> Duration {
        lock(&self.seen).get(&host_id).map_or(self.began, |seen| seen.since).elapsed()
    }

    /// All signs of life since the start, and how long ago they were.
    pub fn all_seen(&self) -> Vec<(Uuid, Timestamp, Duration)> {
        lock(&self.seen).iter().map(|(&host, seen)| (host, seen.at, seen.since.elapsed())).collect()
    }

    /// Forgets a host that is offline, unless it was heard of after `last`.
    pub fn forget_host_unless_seen_since(&self, host_id: Uuid, last: Timestamp) {
        let mut seen = lock(&self.seen);
        if seen.get(&host_id).is_some_and(|seen| seen.at <= last) {
            seen.remove(&host_id);
        }
    }

    /// A host can take jobs from now on; its agent heeds what `guards` a forget, or not.
    pub fn host_ready(&self, host_id: Uuid, guards: bool) {
        lock(&self.ready).insert(host_id, (Instant::now(), guards));
    }

    /// A host can take none.
    pub fn host_gone(&self, host_id: Uuid) {
        lock(&self.ready).remove(&host_id);
    }

    /// For how long a host can take jobs; `None` if it can't.
    pub fn ready_for(&self, host_id: Uuid) -> Option<Duration> {
        lock(&self.ready).get(&host_id).map(|(since, _)| since.elapsed())
    }

    /// Whether a host's agent heeds what guards a forget; `None` while it can't take jobs.
    pub fn guards(&self, host_id: Uuid) -> Option<bool> {
        lock(&self.ready).get(&host_id).map(|(_, guards)| *guards)
    }

    /// A handle that is notified after every committed change of a job. Take it before reading the job's row, so
    /// that no change falls between the two.
    pub fn watch(&self, job_id: Uuid) -> Watch<'_> {
        let mut watched = lock(&self.watched);
        let (watchers, notify) = watched.entry(job_id).or_default();
        *watchers += 1;
        Watch { board: self, job_id, notify: Arc::clone(notify) }
    }

    /// Wakes those who watch a job.
    pub fn job_changed(&self, job_id: Uuid) {
        if let Some((_, notify)) = lock(&self.watched).get(&job_id) {
            notify.notify_waiters();
        }
    }
}

/// See [`Board::watch`]. The last watcher of a job takes the entry with it.
#[derive(Debug)]
pub struct Watch<'a> {
    board: &'a Board,
    job_id: Uuid,
    notify: Arc<Notify>,
}

impl Watch<'_> {
    /// The next change. Made before the row is read, it misses none.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut watched = lock(&self.board.watched);
        if let Some((watchers, _)) = watched.get_mut(&self.job_id) {
            *watchers -= 1;
            if *watchers == 0 {
                watched.remove(&self.job_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_watcher_takes_the_entry_with_it() {
        let board = Board::default();
        let job = Uuid::from_u128(1);
        let (first, second) = (board.watch(job), board.watch(job));
        drop(first);
        assert_eq!(lock(&board.watched).len(), 1);
        drop(second);
        assert!(lock(&board.watched).is_empty());
    }
}
