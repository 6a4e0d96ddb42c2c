//! How long things may take. Tests shorten them.

use crate::restic::probe::ProbeLimits;
use std::time::Duration;

/// The time limits of one job.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Between SIGINT and SIGKILL. With an upload limit restic 0.14 to 0.19 needs up to 33 s for the packs that it
    /// has in hand.
    pub stop_grace: Duration,
    /// For each hook.
    pub hook: Duration,
    /// Between a hook's SIGTERM and SIGKILL.
    pub hook_grace: Duration,
    /// For the post-hook of a cancelled backup: the coordinator waits ten minutes for the end of a cancelled job.
    pub hook_when_cancelled: Duration,
    /// For the post-hook when the agent stops.
    pub hook_when_stopping: Duration,
    /// For each query beside the job's own command: snapshots, statistics, locks.
    pub query: Duration,
    /// For a lock that another restic holds, of a backup; other kinds of jobs wait for [`Self::lock_wait_alone`] at most:
    /// they have the repository for themselves, and everybody else would wait with them.
    pub lock_wait: Duration,
    /// For those.
    pub lock_wait_alone: Duration,
    /// The first pause between two tries to get a lock; each is twice as long as the one before.
    pub lock_pause: Duration,
    /// For the call of the repository's server.
    pub probe: ProbeLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stop_grace: Duration::from_secs(60),
            hook: Duration::from_secs(600),
            hook_grace: Duration::from_secs(5),
            hook_when_cancelled: Duration::from_secs(120),
            hook_when_stopping: Duration::from_secs(20),
            query: Duration::from_secs(300),
            lock_wait: Duration::from_secs(3600),
            lock_wait_alone: Duration::from_secs(600),
            lock_pause: Duration::from_secs(5),
            probe: ProbeLimits::default(),
        }
    }
}
