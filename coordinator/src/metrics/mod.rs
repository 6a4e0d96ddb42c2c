//! What the coordinator tells of itself at `/metrics`.
//!
//! What happens is counted here as it happens: in memory, since the start, and for less than what is counted costs. An agent's
//! message is one addition without a lock. What the ledger and the dispatcher know is counted when somebody asks (`seldom`).
//!
//! The number of series has a bound that no client and no agent can move: labels are words of ours and numbers of the
//! routes, never names that somebody else chooses. Only what is told of source groups grows with the fleet, up to a limit.

mod jobs;
mod messages;
mod process;
mod requests;
mod scrape;
mod seldom;
mod sessions;
mod writes;

pub use jobs::Jobs;
pub use messages::{Dropped, Messages};
pub use requests::Requests;
pub use scrape::{CONTENT_TYPE, Memory, text, text_without_database};
pub use seldom::Seldom;
pub use sessions::Sessions;
pub use writes::Writes;

use crate::db::counts::Counts;
use crate::dispatcher::Census;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// What every name of ours begins with.
const PREFIX: &str = "fleet";

/// What has happened since the start.
#[derive(Debug)]
pub struct Metrics {
    /// To jobs.
    pub jobs: Jobs,
    /// Between agents and us.
    pub messages: Arc<Messages>,
    /// To requests of the REST API.
    pub requests: Requests,
    /// To connections of agents.
    pub sessions: Sessions,
    /// To what is written.
    pub writes: Writes,
    /// What the ledger knew when it was last asked.
    pub ledger: Seldom<Counts>,
    /// What the dispatcher knew.
    pub census: Seldom<Census>,
    /// How many source groups are told of one by one.
    pub groups: usize,
    registry: Registry,
}

impl Metrics {
    /// Nothing has happened yet. At most `groups` source groups are told of one by one.
    pub fn new(groups: usize) -> Self {
        process::begin();
        let mut registry = Registry::with_prefix(PREFIX);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the coordinator", version);
        Self {
            jobs: Jobs::new(&mut registry),
            messages: Arc::new(Messages::new(&mut registry)),
            requests: Requests::new(&mut registry),
            sessions: Sessions::new(&mut registry),
            writes: Writes::new(&mut registry),
            ledger: Seldom::default(),
            census: Seldom::default(),
            groups,
            registry,
        }
    }
}

#[cfg(test)]
mod tests {
    /// This line is in an answer.
    #[track_caller]
    pub(super) fn has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
