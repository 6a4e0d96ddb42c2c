//! Which hosts' presence is to be written down. Pure.

use crate::db::presence::Presence;
use fleet_wire::{OFFLINE_AFTER, Timestamp};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// What has changed between what was `seen`, and how long ago, and what is `written`.
pub(super) fn due(seen: &[(Uuid, Timestamp, Duration)], written: &HashMap<Uuid, Timestamp>) -> Vec<Presence> {
    seen.iter()
        .map(|&(host_id, last_seen_at, silence)| Presence { host_id, last_seen_at, online: silence <= OFFLINE_AFTER })
        .filter(|host| !host.online || written.get(&host.host_id) != Some(&host.last_seen_at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};

    #[test]
    fn news_is_written_and_silence_is_news() {
        let now = DateTime::from_timestamp(1_790_000_000, 0).expect("a time");
        let host = Uuid::from_u128;
        let (fresh, same, gone) =
            (now - TimeDelta::seconds(5), now - TimeDelta::seconds(40), now - TimeDelta::seconds(91));
        let seconds = Duration::from_secs;
        let seen = [(host(1), fresh, seconds(5)), (host(2), same, seconds(40)), (host(3), gone, seconds(91))];
        let written = HashMap::from([(host(1), same), (host(2), same), (host(3), gone)]);
        let expected = [
            Presence { host_id: host(1), last_seen_at: fresh, online: true },
            Presence { host_id: host(3), last_seen_at: gone, online: false },
        ];
        assert_eq!(due(&seen, &written), expected);
    }

    #[test]
    fn a_clock_that_is_set_takes_nobody_offline() {
        let now = DateTime::from_timestamp(1_790_000_000, 0).expect("a time");
        for hours in [-2, 2] {
            let seen = [(Uuid::nil(), now + TimeDelta::hours(hours), Duration::from_secs(3))];
            assert!(due(&seen, &HashMap::new())[0].online);
        }
    }
}
