//! Whether the coordinator can be reached.

use tokio::time::Instant;

/// Whether the coordinator can be reached, and since when not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// There is a connection on which it has said what it wants: it knows this agent, and is at work.
    Connected,
    /// There is none.
    Lost {
        /// Since then.
        since: Instant,
    },
}

impl Reach {
    /// Out of reach from now on.
    pub fn lost() -> Self {
        Self::Lost { since: Instant::now() }
    }
}
