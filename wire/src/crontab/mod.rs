//! When a schedule fires: crontab(5) as Debian's cron reads and keeps it, in any time zone, with the clock as an input.
//!
//! # The expression
//! Five fields (minute, hour, day of month, month, day of week) of lists, ranges, steps and names, or one of `@hourly`,
//! `@daily` and so on; `parse` has the grammar. If neither kind of day begins with `*`, one of the two is enough;
//! otherwise both must fit, also where one is `*/2`.
//!
//! # When clocks change
//! As in cron(8), an expression whose minute or hour begins with `*` (`@hourly` too) **keeps its rhythm**: it fires
//! whenever a clock shows a time that it names, so not at all in an hour that is skipped, and twice in one that comes
//! twice. Any other names **fixed times**, each of which fires once: at its first occurrence where there are two, and
//! right after the change where there is none; times that come to fall on one instant fire once (Debian's cron starts
//! the job once for each of them). Debian's cron does this for changes of less than three hours, here it holds for all:
//! no clock has changed by more since Samoa skipped a day in 2011.
//!
//! # Why not the crate `cron`
//! What it would be left with is finding the next number in a set (`calendar`). Place and reason of an error, the fields
//! that begin with `*`, the choice between OR and AND and the changes of clocks are not in it, and it ends in 2100;
//! `docs/decisions.md` has what was measured.

mod calendar;
mod error;
mod parse;
mod zone;

pub use error::{Field, ParseError, Reason};
pub use parse::nicknames;
pub use zone::{UnknownZone, Zone};

use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDateTime, TimeDelta, Timelike, Utc};
use std::fmt;
use std::str::FromStr;

/// How far ahead a firing is looked for. The rarest date, 29 February on a certain weekday, comes within 40 years.
const HORIZON_YEARS: i32 = 50;

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// A crontab(5) expression: when something shall happen, by the clocks of a time zone.
///
/// It is shown as it was written, and equal to one that was written alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: String,
    calendar: calendar::Calendar,
    keeps_rhythm: bool,
}

impl Expression {
    /// Reads five fields, or a name such as `@daily`.
    ///
    /// # Errors
    /// The text is no such expression, or one that never fires; the error says where and why.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let parse::Parsed { calendar, keeps_rhythm } = parse::parse(text)?;
        Ok(Self { text: text.to_owned(), calendar, keeps_rhythm })
    }

    /// The first firing after this instant (never at it), on a whole minute of the zone's clock.
    ///
    /// `None` if there is none within 50 years: near the end of chrono's calendar, or for an expression that keeps its
    /// rhythm and names only times that are skipped year after year.
    pub fn next_after(&self, zone: &Zone, instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut now = whole_minute(instant)?;
        let mut local = zone.local(now)?;
        if self.keeps_rhythm {
            // Clocks will go back, or just went: what they then show again comes before what they have not shown yet.
            // After that they only run forward, up to a time that they could have shown twice: its first is the next.
            while let MappedLocalTime::Ambiguous(..) = zone.instants(local) {
                now = now.checked_add_signed(MINUTE)?;
                local = zone.local(now)?;
                if self.calendar.names(local) {
                    return Some(now);
                }
            }
        }
        let last_year = local.year().checked_add(HORIZON_YEARS)?;
        loop {
            local = self.calendar.first_from(minute_after(local)?, last_year)?;
            let firing = match zone.instants(local) {
                MappedLocalTime::Single(only) => Some(only),
                MappedLocalTime::Ambiguous(first, _) => Some(first),
                MappedLocalTime::None if self.keeps_rhythm => None,
                MappedLocalTime::None => zone.after_gap(local),
            };
            // Not after it: the fixed times of an hour that comes twice, seen from its second time.
            if let Some(firing) = firing.filter(|firing| *firing > instant) {
                return Some(firing);
            }
        }
    }

    /// The firings after this instant, in their order, each once.
    pub fn firings_after(&self, zone: &Zone, instant: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(self.next_after(zone, instant), move |last| self.next_after(zone, *last))
    }

    /// What was due after the first instant and up to the second, in its order. There may be one for every minute.
    pub fn firings_between(
        &self,
        zone: &Zone,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> impl Iterator<Item = DateTime<Utc>> {
        self.firings_after(zone, after).take_while(move |firing| *firing <= until)
    }
}

impl FromStr for Expression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The minute in which the instant lies.
fn whole_minute(instant: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let second = instant.timestamp();
    DateTime::from_timestamp(second - second.rem_euclid(60), 0)
}

/// The minute that follows on the clock. (Before 1972 there were zones that differ from UTC by seconds.)
fn minute_after(local: NaiveDateTime) -> Option<NaiveDateTime> {
    local.with_second(0)?.checked_add_signed(MINUTE)
}

#[cfg(test)]
mod tests;
