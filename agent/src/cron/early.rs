//! Firings that came before their time, as the host's clock is ahead: each is to fire again when its time comes.
//!
//! An agent counts that on a clock that nobody sets. What it knows after a restart is what the host's clock showed when
//! it was told, and shows now.

use chrono::TimeDelta;
use fleet_wire::{ScheduleId, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many are kept at most, those that come first: a clock that is a year ahead fires each minute.
pub const MOST_EARLY: usize = 1_000;

/// A firing: the schedule, and the nominal instant.
pub type Which = (ScheduleId, Timestamp);

/// What the coordinator has said of one. It stands in the journal until it has fired again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Early {
    /// What the host's clock showed then.
    told_at: Timestamp,
    /// In how many seconds its time was to come.
    in_seconds: i64,
}

impl Early {
    /// Its time comes in so many seconds, as is told when the host's clock shows `told_at`.
    pub fn told(in_seconds: i64, told_at: Timestamp) -> Self {
        Self { told_at, in_seconds }
    }

    /// What the host's clock shows when its time comes, if nobody sets it.
    pub fn comes_at(&self) -> Timestamp {
        let pause = TimeDelta::try_seconds(self.in_seconds.max(0)).unwrap_or(TimeDelta::MAX);
        self.told_at.checked_add_signed(pause).unwrap_or(Timestamp::MAX_UTC)
    }

    /// In how long the time of the firing of `instant` comes, where the host's clock shows `now` after a restart. A clock
    /// that was set back since is taken for right: if it is not, the coordinator says so again.
    pub fn comes_in(&self, instant: Timestamp, now: Timestamp) -> Duration {
        let left = if now < self.told_at { instant - now } else { self.comes_at() - now };
        let longest = Duration::from_secs(self.in_seconds.max(0).unsigned_abs());
        left.to_std().unwrap_or_default().min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_time_comes_also_after_a_restart() {
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + TimeDelta::minutes(minutes);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        // The clock is two hours ahead and shows 100 when it is 100 - 120; what has fired for 90 comes in 110 minutes.
        let (early, instant) = (Early::told(110 * 60, at(100)), at(90));
        assert_eq!(early.comes_in(instant, at(100)), minutes(110));
        assert_eq!(early.comes_in(instant, at(150)), minutes(60));
        assert_eq!(early.comes_in(instant, at(210)), minutes(0));
        assert_eq!(early.comes_in(instant, at(9_999)), minutes(0), "it was down for long");
        // It was set right meanwhile: before its time, and after it.
        assert_eq!(early.comes_in(instant, at(-10)), minutes(100));
        assert_eq!(early.comes_in(instant, at(-500)), minutes(110), "or is wrong in another way");
        assert_eq!(early.comes_in(instant, at(95)), minutes(0));
        let never = Early::told(i64::MAX, at(0));
        assert!(
            never.comes_in(instant, at(0)) > minutes(1) && Early::told(-5, at(0)).comes_in(instant, at(0)).is_zero()
        );
    }
}
