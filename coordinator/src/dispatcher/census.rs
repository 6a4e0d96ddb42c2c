//! How many jobs are not over, and what those wait for that have to: for the metrics.

use super::Dispatcher;
use actix::{Context, Handler, Message, MessageResult};
use std::time::{Duration, Instant};

/// What jobs wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Their host is not connected.
    HostOffline,
    /// The fleet, their repository or their host is paused.
    Paused,
    /// Their operation lets others go first.
    Operation,
    /// Their lease: others are at work in the repository or wait there before them, or a limit of backups is reached.
    Repository,
}

/// All of them.
pub const REASONS: [Reason; 4] = [Reason::HostOffline, Reason::Paused, Reason::Operation, Reason::Repository];

impl Reason {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HostOffline => "host_offline",
            Self::Paused => "paused",
            Self::Operation => "operation",
            Self::Repository => "repository",
        }
    }
}

/// Jobs that wait for the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub jobs: usize,
    /// For how long the one of them has waited that has waited longest, as far as that counts.
    pub longest: Option<Duration>,
}

/// See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Jobs that have their lease.
    pub out: usize,
    waiting: [Waiting; REASONS.len()],
}

impl Census {
    /// Those that wait for this.
    pub fn of(&self, reason: Reason) -> Waiting {
        self.waiting[reason as usize]
    }

    /// Adds one that has waited for so long, as far as that counts.
    pub(super) fn add(&mut self, reason: Reason, waited: Option<Duration>) {
        let waiting = &mut self.waiting[reason as usize];
        waiting.jobs += 1;
        waiting.longest = waiting.longest.max(waited);
    }
}

/// Counts the jobs that are not over.
#[derive(Message)]
#[rtype(result = "Census")]
pub struct TakeCensus;

impl Handler<TakeCensus> for Dispatcher {
    type Result = MessageResult<TakeCensus>;

    fn handle(&mut self, _: TakeCensus, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.lanes.census(Instant::now()))
    }
}
