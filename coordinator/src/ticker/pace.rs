//! Work that nobody waits for, in pieces: the machine and the database belong to others for most of the time.

use chrono::TimeDelta;
use fleet_wire::Timestamp;
use std::time::{Duration, Instant};

/// The pause after a piece, in times of what it took. A busy writer lets a piece wait for its turn, so it lengthens the
/// pause too.
const PAUSE_FACTOR: u32 = 4;
/// The pause after a piece at least.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Does one piece; pauses if there is another to come.
pub(super) async fn piece<T, E>(work: impl Future<Output = Result<Option<T>, E>>) -> Result<Option<T>, E> {
    let began = Instant::now();
    let next = work.await?;
    if next.is_some() {
        actix::clock::sleep(SHORTEST_PAUSE.max(began.elapsed() * PAUSE_FACTOR)).await;
    }
    Ok(next)
}

/// So long before `now`; nothing is older than the epoch.
pub(super) fn time_before(now: Timestamp, age: Duration) -> Timestamp {
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    now.checked_sub_signed(age).unwrap_or_default().max(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;

    #[test]
    fn a_time_is_one_that_the_database_can_hold() {
        let (now, day) = (Utc::now(), Duration::from_secs(86_400));
        assert_eq!(time_before(now, day), now - TimeDelta::days(1));
        for days in [100_000, u32::MAX] {
            assert_eq!(time_before(now, day * days), Timestamp::UNIX_EPOCH);
        }
    }
}
