//! Which hosts' presence is to be written down. Pure.

use crate::db::presence::Presence;
use fleet_wire::{OFFLINE_AFTER, Timestamp};
use std::collections::HashMap;
use uuid::Uuid;

/// What has changed between what was `seen` and what is `written`, at `now`.
pub(super) fn due(seen: &[(Uuid, Timestamp)], written: &HashMap<Uuid, Timestamp>, now: Timestamp) -> Vec<Presence> {
    let silent = |last: Timestamp| (now - last).to_std().is_ok_and(|silence| silence > OFFLINE_AFTER);
    seen.iter()
        .map(|&(host_id, last_seen_at)| Presence { host_id, last_seen_at, online: !silent(last_seen_at) })
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
        let seen = [(host(1), fresh), (host(2), same), (host(3), gone)];
        let written = HashMap::from([(host(1), same), (host(2), same), (host(3), gone)]);
        let expected = [
            Presence { host_id: host(1), last_seen_at: fresh, online: true },
            Presence { host_id: host(3), last_seen_at: gone, online: false },
        ];
        assert_eq!(due(&seen, &written, now), expected);
    }

    #[test]
    fn a_clock_that_jumps_back_takes_nobody_offline() {
        let now = DateTime::from_timestamp(1_790_000_000, 0).expect("a time");
        let seen = [(Uuid::nil(), now + TimeDelta::hours(2))];
        assert!(due(&seen, &HashMap::new(), now)[0].online);
    }
}
