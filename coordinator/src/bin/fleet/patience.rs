//! When to ask again after there was no answer, and for how long.

use std::time::{Duration, Instant};

/// The first pause; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses between the tries of one request.
#[derive(Debug)]
pub(crate) struct Patience {
    began: Instant,
    limit: Duration,
    pause: Duration,
}

impl Patience {
    /// Tries for `limit` from now on; zero tries once.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { began: Instant::now(), limit, pause: FIRST }
    }

    /// How long to wait before the next try; `None` if it is over. `wanted` is what the other side asks for, and `chance`
    /// (0 to 255) spreads those that lost their answers together.
    pub(crate) fn next(&mut self, wanted: Option<Duration>, chance: u8) -> Option<Duration> {
        let left = self.limit.checked_sub(self.began.elapsed()).filter(|left| !left.is_zero())?;
        let spread = self.pause.mul_f64(0.5 + f64::from(chance) / 512.0);
        self.pause = (self.pause * 2).min(LONGEST);
        // The last try comes when the time is over, not before.
        Some(wanted.unwrap_or(spread).max(FIRST / 2).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_spread() {
        let mut patience = Patience::new(Duration::from_secs(3_600));
        let pauses: Vec<_> = (0..8).map(|_| patience.next(None, 255).expect("there is time")).collect();
        assert!(pauses.is_sorted() && pauses[7] <= LONGEST && pauses[0] <= FIRST, "{pauses:?}");
        assert!(patience.next(None, 0) < patience.next(None, 255));
        assert_eq!(patience.next(Some(Duration::from_secs(7)), 9), Some(Duration::from_secs(7)));
    }

    #[test]
    fn it_ends() {
        assert_eq!(Patience::new(Duration::ZERO).next(None, 0), None);
        let short = Patience::new(Duration::from_secs(2)).next(Some(Duration::from_secs(60)), 0);
        assert!(short.is_some_and(|pause| pause <= Duration::from_secs(2)));
    }
}
