//! The time that schedules go by.

use chrono::{TimeDelta, Utc};
use fleet_wire::Timestamp;

/// The host's clock, put forward or back by a fixed time: tests meet a firing without waiting for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    ahead: TimeDelta,
}

impl Clock {
    /// A clock that is so many seconds ahead of the host's (behind it, below zero). What no clock can show is 0.
    pub fn ahead_by(seconds: i64) -> Self {
        Self { ahead: TimeDelta::try_seconds(seconds).unwrap_or_default() }
    }

    /// What it shows.
    pub fn now(self) -> Timestamp {
        let now = Utc::now();
        now.checked_add_signed(self.ahead).unwrap_or(now)
    }
}
