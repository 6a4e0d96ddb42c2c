//! Coordinators that know no `ack`: when an envelope counts as arrived there.
//!
//! `ack` is an addition of ours. To a coordinator without it, the agent would send its whole history again at each
//! reconnect. So what such a one has had for a while, on a connection on which it goes on answering, counts as settled.
//! The journal ignores this as soon as any envelope was ever acknowledged: a coordinator that can acknowledge
//! and does not has its reasons.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How long an envelope has to be out.
const LONG_ENOUGH: Duration = Duration::from_secs(600);

/// What one connection knows of this.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    /// The last envelope that was out at each sign of life, oldest first.
    marks: VecDeque<(Instant, u64)>,
    /// The id of the newest mark ever made.
    marked: u64,
    acknowledges: bool,
}

impl Unacknowledged {
    /// The coordinator knows `ack`.
    pub(super) fn acknowledged(&mut self) {
        self.acknowledges = true;
        self.marks.clear();
    }

    /// The coordinator has answered a ping while the envelopes up to `sent` were out: up to where they now count as
    /// arrived, if that is news.
    pub(super) fn alive(&mut self, now: Instant, sent: u64) -> Option<u64> {
        if self.acknowledges {
            return None;
        }
        if sent > self.marked {
            self.marked = sent;
            self.marks.push_back((now, sent));
        }
        let old = |time: Instant| now.saturating_duration_since(time) >= LONG_ENOUGH;
        let mut arrived = None;
        while let Some(&(_, id)) = self.marks.front().filter(|(time, _)| old(*time)) {
            arrived = Some(id);
            self.marks.pop_front();
        }
        arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_out_for_long_enough_counts_as_arrived_once() {
        let mut peer = Unacknowledged::default();
        assert_eq!(peer.alive(at(0), 5), None);
        assert_eq!(peer.alive(at(30), 5), None);
        assert_eq!(peer.alive(at(60), 9), None);
        assert_eq!(peer.alive(at(600), 12), Some(5));
        assert_eq!(peer.alive(at(630), 12), None);
        assert_eq!(peer.alive(at(1300), 12), Some(12));
        assert_eq!(peer.alive(at(9000), 12), None);
    }

    #[test]
    fn nothing_counts_as_arrived_where_acks_come() {
        let mut peer = Unacknowledged::default();
        peer.alive(at(0), 5);
        peer.acknowledged();
        assert_eq!(peer.alive(at(9000), 6), None);
    }
}
