//! How long to wait before the next connection. Pure: the caller brings the clock and the dice.

use fleet_wire::{REPLACED_PAUSE, close};
use std::time::Duration;

/// The first wait is at most this long.
const FIRST: Duration = Duration::from_millis(500);
/// No wait for a coordinator that is away is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// A connection that lived this long was sound: the next wait is short again.
const STABLE: Duration = Duration::from_secs(60);
/// The shortest wait after a refusal that only a person can mend.
const REFUSED: Duration = Duration::from_secs(60);

/// How a connection, or the try to make one, has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The coordinator is away, or the network, or it was closed in good order.
    Lost,
    /// A newer connection of this host has taken over: another machine has this one's identity, most likely.
    Replaced,
    /// The coordinator does not want this agent: its token, or its protocol version.
    Refused,
}

impl Ending {
    /// What a close with `code` means.
    pub fn of_close(code: Option<u16>) -> Self {
        match code {
            Some(close::REPLACED) => Self::Replaced,
            Some(close::NOT_ALLOWED | close::VERSION_NOT_SPOKEN) => Self::Refused,
            _ => Self::Lost,
        }
    }

    /// What an answer with `status` to the request for a connection means.
    pub fn of_status(status: u16) -> Self {
        if matches!(status, 401 | 403) { Self::Refused } else { Self::Lost }
    }
}

/// Counts the tries since the last sound connection.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The wait after a connection that ended so and had lasted so long. `dice` is from 0 to 1.
    ///
    /// The whole wait is drawn ("full jitter"), so that a fleet that lost its coordinator at one instant does not
    /// come back at one instant.
    pub fn wait(&mut self, ending: Ending, lasted: Duration, dice: f64) -> Duration {
        if lasted >= STABLE {
            self.tries = 0;
        }
        match ending {
            Ending::Lost => {
                let ceiling = FIRST.saturating_mul(2_u32.saturating_pow(self.tries)).min(LONGEST);
                self.tries = self.tries.saturating_add(1);
                ceiling.mul_f64(dice)
            }
            Ending::Replaced => REPLACED_PAUSE.mul_f64(1.0 + dice / 10.0),
            Ending::Refused => REFUSED.mul_f64(1.0 + dice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_start_again_after_a_sound_connection() {
        let mut backoff = Backoff::default();
        let mut wait = |lasted| backoff.wait(Ending::Lost, Duration::from_secs(lasted), 1.0).as_millis();
        assert_eq!([wait(0), wait(0), wait(1), wait(5)], [500, 1000, 2000, 4000]);
        for _ in 0..100 {
            assert!(wait(0) <= 60_000);
        }
        assert_eq!(wait(0), 60_000);
        assert_eq!(wait(61), 500);
    }

    #[test]
    fn the_whole_wait_is_drawn() {
        let mut backoff = Backoff { tries: 3 };
        assert_eq!(backoff.wait(Ending::Lost, Duration::ZERO, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(Ending::Lost, Duration::ZERO, 0.5), Duration::from_secs(4));
    }

    #[test]
    fn a_replaced_agent_waits_five_minutes_and_a_refused_one_at_least_one() {
        let mut backoff = Backoff::default();
        assert_eq!(Ending::of_close(Some(4001)), Ending::Replaced);
        assert_eq!(backoff.wait(Ending::Replaced, Duration::from_secs(3600), 0.0), Duration::from_secs(300));
        for refused in [Ending::of_close(Some(1008)), Ending::of_close(Some(4000)), Ending::of_status(401)] {
            assert_eq!(refused, Ending::Refused);
            assert!(backoff.wait(refused, Duration::ZERO, 0.0) >= Duration::from_secs(60));
        }
        for lost in [Ending::of_close(None), Ending::of_close(Some(1001)), Ending::of_status(503)] {
            assert_eq!(lost, Ending::Lost);
        }
    }
}
