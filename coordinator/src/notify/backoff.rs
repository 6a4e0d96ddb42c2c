//! When a delivery that has failed is tried again. Pure.

use chrono::TimeDelta;
use fleet_wire::Timestamp;
use sha2::{Digest, Sha256};
use std::time::Duration;
use uuid::Uuid;

/// The pause after the first failure, and the longest.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(5);
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(6);

/// When it is tried again after a failure at `now`; `None` if that would be later than it is tried for (`give_up`, counted from
/// `tried_from`). Pauses are twice as long as it was tried for so far: 5 s, 10 s, 30 s, 90 s and so on. A receiver may ask
/// for a longer one.
pub(super) fn next(
    id: Uuid,
    tried_from: Timestamp,
    now: Timestamp,
    give_up: Duration,
    asked: Option<Duration>,
) -> Option<Timestamp> {
    // A clock that was set back counts from what it shows.
    let tried = (now - tried_from).max(TimeDelta::zero());
    let pause = (tried * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    let asked = asked.map(|asked| TimeDelta::from_std(asked).unwrap_or(TimeDelta::MAX)).unwrap_or_default();
    let asked = asked.min(LONGEST_PAUSE);
    let next = now + spread(id, now, pause).max(asked);
    let last = TimeDelta::from_std(give_up).ok().and_then(|give_up| tried_from.checked_add_signed(give_up));
    last.is_none_or(|last| next <= last).then_some(next)
}

/// Stretched by up to a fifth, so that what failed together does not come back together.
fn spread(id: Uuid, now: Timestamp, pause: TimeDelta) -> TimeDelta {
    let digest = Sha256::new_with_prefix(id.as_bytes()).chain_update(now.timestamp_micros().to_be_bytes()).finalize();
    pause + pause * i32::from(digest[0]) / (5 * 256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    const DAYS: Duration = Duration::from_secs(72 * 3600);

    fn start() -> Timestamp {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
    }

    #[test]
    fn pauses_grow_to_a_bound_and_it_is_given_up_after_the_time() {
        let id = Uuid::from_u128(7);
        let (mut now, mut pauses) = (start(), Vec::new());
        while let Some(at) = next(id, start(), now, DAYS, None) {
            pauses.push((at - now).num_seconds());
            now = at;
        }
        assert!((5..=6).contains(&pauses[0]) && pauses[1] <= 15, "{pauses:?}");
        assert!(pauses.iter().all(|pause| (5..=(6 * 3600 * 6 / 5)).contains(pause)), "{pauses:?}");
        assert!((15..=25).contains(&pauses.len()), "{pauses:?}");
        assert!(now <= start() + TimeDelta::hours(72) && now > start() + TimeDelta::hours(64), "{now}");
    }

    #[test]
    fn a_receiver_may_ask_for_patience_within_reason() {
        let asked = |seconds| next(Uuid::nil(), start(), start(), DAYS, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(600), Some(start() + TimeDelta::seconds(600)));
        assert_eq!(asked(u64::MAX / 1_000), Some(start() + LONGEST_PAUSE));
    }

    #[test]
    fn what_failed_together_comes_back_apart() {
        let later = start() + TimeDelta::hours(1);
        let times: std::collections::HashSet<_> =
            (0..100).map(|id| next(Uuid::from_u128(id), start(), later, DAYS, None)).collect();
        assert!(times.len() > 50, "{}", times.len());
    }
}
