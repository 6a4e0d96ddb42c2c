//! What a schedule is to do now. Pure: the clock is an input.
//!
//! Of each schedule it is known up to when all firings are dealt with, and which instants have fired lately. What lies
//! between that and now was missed, be it for a moment or for a week: the latest of it fires, if it is not too old, and
//! the rest is passed over.
//!
//! A clock that goes back has the schedule counted from what it shows then, without the instants that have fired: none
//! fires twice, and a clock that was years ahead for a moment stops nothing.

use super::entry::Entry;
use fleet_wire::Timestamp;
use serde::{Deserialize, Serialize};

/// How many instants are remembered: an hour and a half of a schedule that fires each minute, four days of an hourly one.
const REMEMBERED: usize = 100;

/// What is dealt with of one schedule. It stands in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handled {
    /// The expression whose firings are counted.
    pub(super) expression: String,
    /// The zone that it was given; none for the host's own.
    #[serde(default)]
    pub(super) zone: Option<String>,
    /// Everything up to here is dealt with.
    pub(super) until: Timestamp,
    /// Instants that have fired: the latest ones, in the order in which they did.
    #[serde(default)]
    pub(super) fired: Vec<Timestamp>,
}

impl Handled {
    /// The same with a firing more, or once more.
    fn with(&self, instant: Timestamp) -> Self {
        let mut fired: Vec<Timestamp> = self.fired.iter().copied().filter(|fired| *fired != instant).collect();
        fired.push(instant);
        fired.drain(..fired.len().saturating_sub(REMEMBERED));
        Self { fired, ..self.clone() }
    }

    /// Whether it is remembered that this instant has fired.
    pub fn has_fired(&self, instant: Timestamp) -> bool {
        self.fired.contains(&instant)
    }
}

/// A firing that came before its time, and whose time has come.
pub fn again(handled: &Handled, at: Timestamp) -> Step {
    Step::Fire { at, handled: handled.with(at) }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing fires; it counts from elsewhere now.
    Count {
        /// From where.
        handled: Handled,
        /// Why.
        why: Why,
    },
    /// It fires.
    Fire {
        /// The nominal instant.
        at: Timestamp,
        /// What is dealt with once it has.
        handled: Handled,
    },
}

/// Why a schedule counts from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is new.
    New,
    /// It is another expression, or zone, than before.
    Changed,
    /// The clock shows less than it did.
    ClockWentBack,
    /// Firings were missed, the first of them this one, and all are too old to be caught up.
    Missed(Timestamp),
}

/// What the schedule is to do at `now`, if anything.
pub fn decide(entry: &Entry, handled: Option<&Handled>, now: Timestamp) -> Option<Step> {
    let count = |why, fired: &[Timestamp]| Some(Step::Count { handled: entry.handled(now, fired.to_vec()), why });
    let Some(known) = handled else { return count(Why::New, &[]) };
    if !entry.is_counted_by(known) {
        return count(Why::Changed, &known.fired);
    }
    if known.until > now {
        return count(Why::ClockWentBack, &known.fired);
    }
    let missed = unfired(entry, known, known.until).next().filter(|first| *first <= now)?;
    let oldest = now.checked_sub_signed(entry.window()).unwrap_or(known.until).max(known.until);
    let Some(at) = entry.expression.firings_between(&entry.zone, oldest, now).last() else {
        return count(Why::Missed(missed), &known.fired);
    };
    if known.has_fired(at) {
        // The clock was ahead of this before. What it had jumped over then is older than this, and passed over for good.
        return None;
    }
    Some(Step::Fire { at, handled: entry.handled(at, known.with(at).fired) })
}

/// When it fires next, if there is nothing that it is to do at `now`.
pub fn next(entry: &Entry, handled: &Handled, now: Timestamp) -> Option<Timestamp> {
    unfired(entry, handled, now).next()
}

/// The instants after `after` that have not fired.
fn unfired<'a>(entry: &'a Entry, handled: &'a Handled, after: Timestamp) -> impl Iterator<Item = Timestamp> + 'a {
    entry.expression.firings_after(&entry.zone, after).filter(|instant| !handled.has_fired(*instant))
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
