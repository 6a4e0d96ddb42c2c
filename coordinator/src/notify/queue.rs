//! Which deliveries go now. Pure.
//!
//! Receivers that hang hold a thread each for as long as they are waited for. So that they hold up nobody, a channel has a
//! few at once; one whose last attempt has failed has one, and all of those together have half of the threads.

use crate::db::deliveries::Due;
use chrono::TimeDelta;
use fleet_wire::Timestamp;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Shipments to one channel at once.
pub(super) const OF_ONE: usize = 4;
/// Shipments at once.
pub(super) const AT_ONCE: usize = 64;
/// Shipments at once to channels whose last attempt has failed.
const OF_FAILING: usize = AT_ONCE / 2;

/// How long e-mail waits for what may come with it.
const GATHER: TimeDelta = TimeDelta::seconds(5);

/// What goes together.
pub(super) type Shipment = Vec<Due>;

/// What goes now, of what is `due`, the longest waiting first: each by itself, but all e-mail of a channel together, and that only if
/// nothing is on its way there and the first of it has waited for a while. `under_way`: shipments of each channel. A channel that is `resting` gets nothing.
pub(super) fn choose(
    due: Vec<Due>,
    under_way: &HashMap<Uuid, usize>,
    failing: &HashSet<Uuid>,
    resting: &HashSet<Uuid>,
    now: Timestamp,
) -> Vec<Shipment> {
    let mut of_channel = under_way.clone();
    let mut all: usize = under_way.values().sum();
    let is_failing = |channel: &Uuid| failing.contains(channel);
    let mut of_failing: usize = under_way.iter().filter(|(channel, _)| is_failing(channel)).map(|(_, own)| own).sum();
    let mut chosen: Vec<Shipment> = Vec::new();
    let mut mails: HashMap<Uuid, usize> = HashMap::new();
    for delivery in due {
        let channel = delivery.channel_id;
        if let Some(mail) = mails.get(&channel) {
            chosen[*mail].push(delivery);
            continue;
        }
        let (fails, is_mail) = (is_failing(&channel), delivery.is_mail());
        let own = of_channel.entry(channel).or_default();
        let most = if fails || is_mail { 1 } else { OF_ONE };
        if all >= AT_ONCE || *own >= most || (fails && of_failing >= OF_FAILING) || resting.contains(&channel) {
            continue;
        }
        // A clock that was set back makes nothing wait for it.
        if is_mail && (TimeDelta::zero()..GATHER).contains(&(now - delivery.tried_from)) {
            continue;
        }
        *own += 1;
        all += 1;
        of_failing += usize::from(fails);
        if is_mail {
            mails.insert(channel, chosen.len());
        }
        chosen.push(vec![delivery]);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::MAX_UTC;

    fn due(id: u128, channel: u128) -> Due {
        Due::sample(Uuid::from_u128(id), Uuid::from_u128(channel), "webhook")
    }

    fn mail(id: u128, channel: u128) -> Due {
        Due::sample(Uuid::from_u128(id), Uuid::from_u128(channel), "email")
    }

    fn channels<T>(of: impl IntoIterator<Item = (u128, T)>) -> impl Iterator<Item = (Uuid, T)> {
        of.into_iter().map(|(channel, with)| (Uuid::from_u128(channel), with))
    }

    fn ids(chosen: &[Shipment]) -> Vec<Vec<u128>> {
        chosen.iter().map(|shipment| shipment.iter().map(|due| due.id.as_u128()).collect()).collect()
    }

    #[test]
    fn a_channel_has_a_few_at_once_and_one_that_fails_has_one() {
        let all: Vec<Due> = (0..6).map(|id| due(id, 1)).chain((6..9).map(|id| due(id, 2))).collect();
        let (failing, none) = (HashSet::from([Uuid::from_u128(2)]), HashSet::new());
        assert_eq!(ids(&choose(all.clone(), &HashMap::new(), &failing, &none, NOW)), [[0], [1], [2], [3], [6]]);
        let under_way = channels([(1, 2), (2, 1)]).collect();
        assert_eq!(ids(&choose(all, &under_way, &failing, &none, NOW)), [[0], [1]]);
    }

    #[test]
    fn channels_that_fail_leave_room_for_the_others() {
        let failing: HashSet<Uuid> = (0..90).map(Uuid::from_u128).collect();
        let all: Vec<Due> = (0..90).map(|channel| due(channel, channel)).chain([due(500, 99)]).collect();
        let chosen = choose(all, &HashMap::new(), &failing, &HashSet::new(), NOW);
        assert_eq!(chosen.len(), OF_FAILING + 1);
        assert_eq!(ids(&chosen).last(), Some(&vec![500]));
    }

    #[test]
    fn there_is_a_bound_for_all() {
        let all: Vec<Due> = (0..100).map(|id| due(id, id)).collect();
        assert_eq!(choose(all, &HashMap::new(), &HashSet::new(), &HashSet::new(), NOW).len(), AT_ONCE);
    }

    #[test]
    fn mail_of_a_channel_goes_together_and_not_while_it_rests() {
        let all = vec![mail(0, 1), due(1, 2), mail(2, 1), mail(3, 3), mail(4, 1), mail(5, 4)];
        let resting = HashSet::from([Uuid::from_u128(3)]);
        let under_way = channels([(4, 1)]).collect();
        assert_eq!(ids(&choose(all, &under_way, &HashSet::new(), &resting, NOW)), [vec![0, 2, 4], vec![1]]);
    }

    #[test]
    fn mail_waits_for_what_may_come_with_it() {
        let at = |seconds| Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let sent = |now| choose(vec![mail(0, 1)], &HashMap::new(), &HashSet::new(), &HashSet::new(), now).len();
        assert_eq!([sent(at(0)), sent(at(4)), sent(at(5)), sent(at(-9))], [0, 0, 1, 1]);
    }
}
