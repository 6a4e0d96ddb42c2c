//! The coordinator's clock: what the machine's clock shows, as long as that goes with the time that passes.
//!
//! A clock that was set, or read wrongly once, must not spoil what can't be mended: jobs that run would be cancelled,
//! firings refused, history deleted. So the machine's clock is compared with one that nobody sets. While they go together it
//! is the machine's that counts. When it jumps, the coordinator's goes on without the jump; what the machine shows then
//! is believed once it has stood for an hour (`BELIEVED_AFTER`). Until then the clock is in doubt, and nothing is deleted for its age.
//!
//! After a start there is only the ledger to compare with. A clock behind what it has noted last, or far ahead of that, may be
//! wrong, and so may the ledger: the clock is followed, jumps too, but nothing is deleted until it has stood for as long.

use chrono::{TimeDelta, Utc};
use fleet_wire::Timestamp;
use nix::time::{ClockId, clock_gettime};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How far a clock may jump at once without being doubted: they are adjusted, and machines are busy.
const SLIGHT: TimeDelta = TimeDelta::minutes(1);
/// How long another time must have stood until it is believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(3_600);
/// A coordinator that was away for longer than this is not sure of its clock.
const LONGEST_AWAY: TimeDelta = TimeDelta::days(1);

/// What time it is.
pub fn now() -> Timestamp {
    look().now
}

/// What time it is, if there is no doubt about it: for what can't be undone.
pub fn certain() -> Option<Timestamp> {
    let Reading { now, is_certain, .. } = look();
    is_certain.then_some(now)
}

/// What time it is for who knows of another clock that shows `other`: where there is doubt, the nearer of the two times that
/// it may be.
pub fn nearest(other: Timestamp) -> Timestamp {
    look().nearest(other)
}

/// Compares the clock with the latest time in the ledger, if there is one; to be called at the start.
pub fn begin(latest: Option<Timestamp>) {
    let Some(latest) = latest else { return };
    let (shown, passed) = machine();
    let clock = Steady::after(latest, shown, passed);
    if clock.unsure_until.is_some() {
        let minutes = BELIEVED_AFTER.as_secs() / 60;
        log::warn!(
            "the last thing in the ledger is of {latest}, and the clock shows {shown}: no history is deleted for {minutes} minutes"
        );
    }
    *clock_of_all() = clock;
}

fn clock_of_all() -> MutexGuard<'static, Steady> {
    static CLOCK: OnceLock<Mutex<Steady>> = OnceLock::new();
    let clock = CLOCK.get_or_init(|| {
        let (shown, passed) = machine();
        Mutex::new(Steady::new(shown, passed))
    });
    // A panic elsewhere does not make a plain value wrong.
    clock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the machine's clock shows, and how much time has passed since the machine was started, asleep or awake.
fn machine() -> (Timestamp, Duration) {
    let passed = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    (Utc::now(), passed)
}

fn look() -> Reading {
    let mut clock = clock_of_all();
    let (shown, passed) = machine();
    let reading = clock.read(shown, passed);
    drop(clock);
    match reading.news {
        Some(News::Doubted) => say_doubt(shown, reading.now),
        Some(News::Right) => log::info!("the clock shows {shown} again: there is no doubt about it any more"),
        Some(News::Believed) => log::warn!("the clock has shown {shown} for long enough: it is believed"),
        None => {}
    }
    reading
}

fn say_doubt(shown: Timestamp, now: Timestamp) {
    let minutes = BELIEVED_AFTER.as_secs() / 60;
    log::error!(
        "the clock shows {shown}, and it should be {now}: that counts, and no history is deleted, until the clock is right or \
         has gone on for {minutes} minutes without another jump"
    );
}

/// A clock that goes with the machine's but for jumps of that. Pure: what the machine shows is an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    /// What time it was when so much time had passed.
    at: Timestamp,
    passed: Duration,
    /// Since when the machine's clock shows another time, and how far ahead of this one it is.
    doubt: Option<(Duration, TimeDelta)>,
    /// It is not known before then whether it was right at the start.
    unsure_until: Option<Duration>,
}

/// What a look at the clock gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) now: Timestamp,
    shown: Timestamp,
    pub(crate) is_certain: bool,
    news: Option<News>,
}

impl Reading {
    /// See [`nearest`].
    pub(crate) fn nearest(&self, other: Timestamp) -> Timestamp {
        if (self.shown - other).abs() < (self.now - other).abs() { self.shown } else { self.now }
    }
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// It has jumped.
    Doubted,
    /// It has jumped back to what it should show.
    Right,
    /// It goes on with another time, which counts from now on.
    Believed,
}

impl Steady {
    pub(crate) fn new(shown: Timestamp, passed: Duration) -> Self {
        Self { at: shown, passed, doubt: None, unsure_until: None }
    }

    /// The clock of a coordinator that has noted something at `latest` before it was started.
    pub(crate) fn after(latest: Timestamp, shown: Timestamp, passed: Duration) -> Self {
        let is_likely = (-SLIGHT..=LONGEST_AWAY).contains(&(shown - latest));
        let unsure_until = (!is_likely).then_some(passed + BELIEVED_AFTER);
        Self { unsure_until, ..Self::new(shown, passed) }
    }

    pub(crate) fn read(&mut self, shown: Timestamp, passed: Duration) -> Reading {
        let since = TimeDelta::from_std(passed.saturating_sub(self.passed)).unwrap_or(TimeDelta::MAX);
        let now = self.at.checked_add_signed(since).unwrap_or(self.at);
        let ahead = shown - now;
        if ahead.abs() <= SLIGHT {
            let news = self.doubt.map(|_| News::Right);
            return self.follow(shown, passed, news);
        }
        if self.unsure_until.is_some_and(|until| passed < until) {
            // It is not known to have been right before.
            self.unsure_until = Some(passed + BELIEVED_AFTER);
            return self.follow(shown, passed, None);
        }
        match self.doubt {
            Some((since, by)) if (ahead - by).abs() <= SLIGHT => {
                if passed.saturating_sub(since) >= BELIEVED_AFTER {
                    return self.follow(shown, passed, Some(News::Believed));
                }
                Reading { now, shown, is_certain: false, news: None }
            }
            // It has jumped, or once more.
            _ => {
                self.doubt = Some((passed, ahead));
                Reading { now, shown, is_certain: false, news: Some(News::Doubted) }
            }
        }
    }

    /// The machine's clock is right.
    fn follow(&mut self, shown: Timestamp, passed: Duration, news: Option<News>) -> Reading {
        let unsure_until = self.unsure_until.filter(|until| passed < *until);
        *self = Self { unsure_until, ..Self::new(shown, passed) };
        Reading { now: shown, shown, is_certain: unsure_until.is_none(), news }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    /// A machine: the time that has passed in truth, and by how much its clock is wrong.
    struct Machine {
        passed: u64,
        ahead: TimeDelta,
        clock: Steady,
    }

    fn at(seconds: u64) -> Timestamp {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a time") + Duration::from_secs(seconds)
    }

    impl Machine {
        fn new() -> Self {
            Self { passed: 0, ahead: TimeDelta::zero(), clock: Steady::new(at(0), Duration::ZERO) }
        }

        fn read_after(&mut self, seconds: u64) -> Reading {
            self.passed += seconds;
            self.clock.read(at(self.passed) + self.ahead, Duration::from_secs(self.passed))
        }

        /// What it says, as how far it is ahead of the truth, and whether it is certain.
        fn says_after(&mut self, seconds: u64) -> (TimeDelta, bool) {
            let Reading { now, is_certain, .. } = self.read_after(seconds);
            (now - at(self.passed), is_certain)
        }
    }

    #[test]
    fn one_look_at_a_wrong_clock_changes_nothing() {
        for wrong in [TimeDelta::days(365), TimeDelta::minutes(2), -TimeDelta::days(365)] {
            let mut machine = Machine::new();
            assert_eq!(machine.says_after(2), (TimeDelta::zero(), true));
            machine.ahead = wrong;
            assert_eq!(machine.says_after(2), (TimeDelta::zero(), false), "{wrong}");
            machine.ahead = TimeDelta::zero();
            let right = machine.read_after(2);
            assert_eq!((right.now, right.is_certain, right.news), (at(6), true, Some(News::Right)));
            assert_eq!(machine.read_after(2).news, None);
        }
    }

    #[test]
    fn another_time_is_believed_once_it_has_stood_for_long() {
        for jump in [TimeDelta::days(365), -TimeDelta::days(365)] {
            let mut machine = Machine::new();
            machine.ahead = jump;
            assert_eq!(machine.read_after(2).news, Some(News::Doubted));
            for _ in 0..59 {
                assert_eq!(machine.says_after(60), (TimeDelta::zero(), false));
            }
            assert_eq!(machine.read_after(60).news, Some(News::Believed));
            assert_eq!(machine.says_after(2), (jump, true));
        }
    }

    #[test]
    fn a_clock_that_jumps_again_and_again_is_never_believed() {
        let mut machine = Machine::new();
        for jumps in 1..50 {
            machine.ahead = TimeDelta::days(365) * jumps;
            assert_eq!(machine.says_after(1_800), (TimeDelta::zero(), false));
        }
    }

    #[test]
    fn small_steps_are_followed_at_once() {
        let mut machine = Machine::new();
        for (step, sum) in [(30, 30), (-45, -15), (60, 45), (-60, -15)] {
            machine.ahead += TimeDelta::seconds(step);
            assert_eq!(machine.says_after(2), (TimeDelta::seconds(sum), true));
        }
    }

    #[test]
    fn a_start_is_compared_with_the_ledger() {
        let begins = |seconds: i64| {
            let (latest, passed) = (at(0), Duration::from_secs(9));
            let mut clock = Steady::after(latest, latest + TimeDelta::seconds(seconds), passed);
            let mut says = |later: u64| {
                let shown = latest + TimeDelta::seconds(seconds) + Duration::from_secs(later);
                let reading = clock.read(shown, passed + Duration::from_secs(later));
                (reading.now - shown, reading.is_certain)
            };
            let (first, hour) = (says(0), says(3_600));
            assert_eq!(hour, (TimeDelta::zero(), true), "it is believed in the end");
            first
        };
        assert_eq!((begins(-30), begins(20 * 3_600)), ((TimeDelta::zero(), true), (TimeDelta::zero(), true)));
        assert_eq!(begins(25 * 3_600), (TimeDelta::zero(), false), "it may have been away");
        assert_eq!(begins(-3_600), (TimeDelta::zero(), false), "the clock is wrong, or was before");
    }

    #[test]
    fn a_clock_that_is_set_after_the_start_of_a_machine_without_one_is_followed() {
        // It begins in 1970, and is told the time after a minute.
        let mut clock = Steady::after(at(0), Timestamp::UNIX_EPOCH, Duration::ZERO);
        let mut reads = |shown: Timestamp, minutes: u64| {
            let reading = clock.read(shown, Duration::from_secs(60 * minutes));
            (reading.now == shown, reading.is_certain)
        };
        assert_eq!(reads(Timestamp::UNIX_EPOCH, 0), (true, false));
        assert_eq!(reads(at(900), 1), (true, false));
        assert_eq!(reads(at(900 + 59 * 60), 60), (true, false));
        assert_eq!(reads(at(900 + 60 * 60), 61), (true, true));
        assert_eq!(reads(Timestamp::UNIX_EPOCH, 62), (false, false), "now it is known to have been right");
    }

    #[test]
    fn the_machines_clocks_go() {
        let (first, second) = (machine(), machine());
        assert!(!first.1.is_zero() && first.1 <= second.1);
        assert!((now() - Utc::now()).abs() < SLIGHT && certain().is_some());
        let other = Utc::now() - TimeDelta::days(9);
        assert!((nearest(other) - Utc::now()).abs() < SLIGHT, "there is no doubt");
    }
}
