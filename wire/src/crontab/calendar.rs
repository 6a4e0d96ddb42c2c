//! Which local times an expression names, with no thought of time zones.
//!
//! Each field is a set of numbers, one bit each, so that "the next one" is a shift and a count of zeros, and the days of
//! a whole month are found in one step.

use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};

/// The local times that an expression names, to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    minutes: u64,
    hours: u64,
    /// Bits 1 to 31.
    days: u64,
    /// Bits 1 to 12.
    months: u64,
    /// Bits 0 (Sunday) to 6.
    weekdays: u64,
    /// Neither kind of day begins with `*`: one of the two is enough.
    either_day: bool,
}

impl Calendar {
    /// From the sets of the five fields, each with at least one bit; a weekday of 7 is a Sunday.
    pub(super) fn new(minutes: u64, hours: u64, days: u64, months: u64, weekdays: u64, either_day: bool) -> Self {
        Self { minutes, hours, days, months, weekdays: (weekdays | weekdays >> 7) & 0x7f, either_day }
    }

    /// Whether any day is named. Every date falls on every weekday at some time, 29 February too, so that only the
    /// lengths of the months matter.
    pub(super) fn ever(&self) -> bool {
        const LONGEST: [u32; 13] = [0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let first_day = self.days.trailing_zeros();
        self.either_day || (1..=12).any(|month| has(self.months, month) && first_day <= LONGEST[month as usize])
    }

    /// Whether this minute is named.
    pub(super) fn names(&self, local: NaiveDateTime) -> bool {
        has(self.minutes, local.minute()) && has(self.hours, local.hour()) && self.names_day(local.date())
    }

    fn names_day(&self, date: NaiveDate) -> bool {
        has(self.months, date.month()) && has(self.days_of_month(date), date.day())
    }

    /// The first minute that is named, `from` (a whole minute) or later, not after `last_year`.
    pub(super) fn first_from(&self, from: NaiveDateTime, last_year: i32) -> Option<NaiveDateTime> {
        let today = from.date();
        let on = |date: NaiveDate, (hour, minute)| date.and_hms_opt(hour, minute, 0);
        if self.names_day(today)
            && let Some(time) = self.time_from(from.hour(), from.minute())
        {
            return on(today, time);
        }
        on(self.day_after(today, last_year)?, self.time_from(0, 0)?)
    }

    /// The first hour and minute of a day that are named, these or later.
    fn time_from(&self, hour: u32, minute: u32) -> Option<(u32, u32)> {
        let in_this_hour = lowest_from(self.minutes, minute).filter(|_| has(self.hours, hour));
        match in_this_hour {
            Some(minute) => Some((hour, minute)),
            None => Some((lowest_from(self.hours, hour + 1)?, lowest_from(self.minutes, 0)?)),
        }
    }

    fn day_after(&self, date: NaiveDate, last_year: i32) -> Option<NaiveDate> {
        let (mut month, mut from) = (date.with_day(1)?, date.day() + 1);
        while month.year() <= last_year {
            if has(self.months, month.month())
                && let Some(day) = lowest_from(self.days_of_month(month), from)
            {
                return month.with_day(day);
            }
            (month, from) = (month.checked_add_months(chrono::Months::new(1))?, 1);
        }
        None
    }

    /// The days that are named in the month of `date`, whether or not the month is.
    fn days_of_month(&self, date: NaiveDate) -> u64 {
        let first = (date.weekday().num_days_from_sunday() + 36 - date.day()) % 7;
        // A week that begins with the weekday of the 1st; then five of these, moved up so that bit 1 is the 1st.
        let week = (self.weekdays >> first | self.weekdays << (7 - first)) & 0x7f;
        let by_weekday = (week | week << 7 | week << 14 | week << 21 | week << 28) << 1;
        let days = if self.either_day { self.days | by_weekday } else { self.days & by_weekday };
        days & ((2 << date.num_days_in_month()) - 1)
    }

    /// Whether the sets are the same, however they were written.
    #[cfg(test)]
    pub(super) fn has_same_times(&self, other: &Self) -> bool {
        *self == Self { either_day: self.either_day, ..*other }
    }
}

fn has(set: u64, number: u32) -> bool {
    set >> number & 1 == 1
}

/// The lowest number in the set that is not below `from` (at most 63).
fn lowest_from(set: u64, from: u32) -> Option<u32> {
    let rest = set & (u64::MAX << from);
    (rest != 0).then(|| rest.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use chrono::NaiveDateTime;

    fn first_from(expression: &str, from: &str) -> Option<String> {
        let from = NaiveDateTime::parse_from_str(from, "%F %R").expect("a time");
        let calendar = parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).calendar;
        calendar.first_from(from, 2500).map(|found| found.format("%F %R").to_string())
    }

    #[test]
    fn the_first_time_from_a_minute_on() {
        for (expression, from, first) in [
            ("* * * * *", "2024-02-29 12:34", "2024-02-29 12:34"),
            ("*/15 * * * *", "2024-02-29 23:46", "2024-03-01 00:00"),
            ("30 2 * * *", "2024-12-31 02:30", "2024-12-31 02:30"),
            ("30 2 * * *", "2024-12-31 02:31", "2025-01-01 02:30"),
            ("0 0 31 * *", "2024-02-01 00:00", "2024-03-31 00:00"),
            ("0 0 29 2 *", "2096-03-01 00:00", "2104-02-29 00:00"),
            // 29 February on a Sunday: forty years apart over the turn of a century.
            ("0 0 29 2 */7", "2088-02-29 00:01", "2128-02-29 00:00"),
            ("0 0 1 1 *", "2024-01-01 00:01", "2025-01-01 00:00"),
            // Either kind of day, or, with a `*` in front, both.
            ("0 0 13 * 5", "2024-09-01 00:00", "2024-09-06 00:00"),
            ("0 0 13 * 5", "2024-09-07 00:00", "2024-09-13 00:00"),
            ("0 0 */12 * 5", "2024-09-01 00:00", "2024-09-13 00:00"),
            ("0 0 13 * */5", "2024-09-01 00:00", "2024-09-13 00:00"),
            ("0 0 13 2 1", "2024-02-14 00:00", "2024-02-19 00:00"),
        ] {
            assert_eq!(first_from(expression, from).as_deref(), Some(first), "{expression} from {from}");
        }
    }

    #[test]
    fn no_time_is_looked_for_past_the_last_year() {
        assert_eq!(first_from("0 0 29 2 *", "2497-01-01 00:00"), None);
        assert_eq!(first_from("* * * * *", "2500-12-31 23:59").as_deref(), Some("2500-12-31 23:59"));
        assert_eq!(first_from("0 0 * * *", "2500-12-31 00:01"), None);
    }
}
