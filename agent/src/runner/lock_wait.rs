//! How a job waits for a lock that another restic holds in the repository. Pure: the caller brings the dice.
//!
//! Leases of the coordinator keep jobs apart; this is for what they can't know of: another tool, a crash, and backups that
//! agents start by themselves while the coordinator is away. restic's own `--retry-lock` exists since 0.16 only, says
//! nothing while it waits, and waits for the dead.

use crate::restic::lock::Standing;
use std::time::Duration;

/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(300);

/// So many tries in a row must find a lock stale: a process that is just ending takes its lock along.
const STALE_TRIES: u32 = 2;

/// The wait of one command.
#[derive(Debug)]
pub(super) struct LockWait {
    limit: Duration,
    next: Duration,
    waited: Duration,
    stale: u32,
}

impl LockWait {
    /// Waits no longer than `limit` in all; the first pause is at most `first`.
    pub(super) fn new(limit: Duration, first: Duration) -> Self {
        Self { limit, next: first.max(Duration::from_millis(1)), waited: Duration::ZERO, stale: 0 }
    }

    /// How long to wait before the next try; none when there is to be none. `dice` is from 0 to 1.
    ///
    /// Pauses double, and half of each is drawn: those who wait for one lock do not try again at once.
    pub(super) fn pause(&mut self, standing: Standing, dice: f64) -> Option<Duration> {
        self.stale = if standing == Standing::Held { 0 } else { self.stale + 1 };
        let left = self.limit.saturating_sub(self.waited);
        if self.stale >= STALE_TRIES || left.is_zero() {
            return None;
        }
        let pause = self.next.mul_f64(0.5 + dice / 2.0).min(left);
        self.next = (self.next * 2).min(LONGEST);
        self.waited += pause;
        Some(pause)
    }

    /// How long it has waited.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(wait: &mut LockWait, standing: Standing, dice: f64) -> Option<f64> {
        wait.pause(standing, dice).map(|pause| pause.as_secs_f64())
    }

    #[test]
    fn pauses_double_are_jittered_and_end_at_the_limit() {
        let mut wait = LockWait::new(Duration::from_secs(40), Duration::from_secs(5));
        let mut next = |dice| seconds(&mut wait, Standing::Held, dice);
        assert_eq!([next(1.0), next(0.0), next(0.5)], [Some(5.0), Some(5.0), Some(15.0)]);
        assert_eq!([next(1.0), next(1.0)], [Some(15.0), None], "the last pause is what is left");
        assert_eq!(wait.waited(), Duration::from_secs(40));
        let mut long = LockWait::new(Duration::from_secs(100_000), Duration::from_secs(5));
        for _ in 0..20 {
            assert!(long.pause(Standing::Held, 1.0).is_some_and(|pause| pause <= LONGEST));
        }
    }

    #[test]
    fn a_stale_lock_is_not_waited_for_once_it_is_sure() {
        let mut wait = LockWait::new(Duration::from_secs(3600), Duration::from_secs(5));
        assert_eq!(seconds(&mut wait, Standing::Dead, 1.0), Some(5.0));
        assert_eq!(seconds(&mut wait, Standing::Held, 1.0), Some(10.0));
        assert_eq!(seconds(&mut wait, Standing::Abandoned, 1.0), Some(20.0));
        assert_eq!(seconds(&mut wait, Standing::Dead, 1.0), None);
    }

    #[test]
    fn without_a_limit_there_is_no_wait() {
        assert_eq!(LockWait::new(Duration::ZERO, Duration::ZERO).pause(Standing::Held, 0.5), None);
    }
}
