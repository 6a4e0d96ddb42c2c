//! When something is due: a crontab expression by the clocks of a zone, as schedules and maintenance have it. Pure.

use chrono::TimeDelta;
use fleet_wire::Timestamp;
use fleet_wire::crontab::{Expression, ParseError, UnknownZone, Zone};
use thiserror::Error;

/// How many firings ahead an interval is looked for: more than a month of days, and more than a year of weeks.
const FIRINGS_AHEAD: usize = 64;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timetable {
    expression: Expression,
    zone: Zone,
}

/// Why there is no such timetable.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoTimetable {
    /// The expression is none; says where and why.
    #[error("{0}")]
    Expression(#[from] ParseError),
    /// The zone is unknown.
    #[error("{0}")]
    Zone(#[from] UnknownZone),
}

impl Timetable {
    /// Reads a crontab(5) expression and the IANA name of a zone.
    ///
    /// # Errors
    /// One of the two is none.
    pub fn parse(cron: &str, timezone: &str) -> Result<Self, NoTimetable> {
        Ok(Self { expression: Expression::parse(cron)?, zone: timezone.parse()? })
    }

    /// What is due next after an instant, never at it; nothing if that is never.
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        self.expression.next_after(&self.zone, instant)
    }

    /// What is due after an instant, in its order.
    pub fn after(&self, instant: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.expression.firings_after(&self.zone, instant)
    }

    /// What was due in the minute up to an instant: agents may say when they fired, and not what for.
    pub fn due_in_minute_to(&self, instant: Timestamp) -> Option<Timestamp> {
        self.next_after(instant - TimeDelta::minutes(1)).filter(|due| *due <= instant)
    }

    /// The longest time between two of the next firings, in seconds; 0 if there are no two.
    pub fn interval_seconds(&self, from: Timestamp) -> i64 {
        let firings: Vec<Timestamp> = self.after(from).take(FIRINGS_AHEAD).collect();
        let between = firings.windows(2).map(|pair| (pair[1] - pair[0]).num_seconds());
        between.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn at(text: &str) -> Timestamp {
        text.parse::<DateTime<chrono::Utc>>().expect("a time")
    }

    fn interval(cron: &str, zone: &str) -> i64 {
        Timetable::parse(cron, zone).expect("a timetable").interval_seconds(at("2026-03-01T00:00:00Z"))
    }

    #[test]
    fn the_interval_is_the_longest_that_is_to_be_waited_for() {
        assert_eq!(interval("*/15 * * * *", "UTC"), 15 * 60);
        assert_eq!(interval("0 2 * * *", "UTC"), 24 * 3600);
        // From Friday to Monday.
        assert_eq!(interval("0 2 * * 1-5", "UTC"), 72 * 3600);
        assert_eq!(interval("0 0 1 * *", "UTC"), 31 * 24 * 3600);
        // The day on which clocks go back has an hour more.
        assert_eq!(interval("0 12 * * 0", "Europe/Berlin"), 7 * 24 * 3600 + 3600);
    }

    #[test]
    fn an_agent_that_fires_a_little_late_means_what_was_due() {
        let every_minute = Timetable::parse("* * * * *", "UTC").expect("a timetable");
        let daily = Timetable::parse("0 2 * * *", "UTC").expect("a timetable");
        for late in ["2026-03-01T02:00:00Z", "2026-03-01T02:00:00.123Z", "2026-03-01T02:00:59.9Z"] {
            assert_eq!(every_minute.due_in_minute_to(at(late)), Some(at("2026-03-01T02:00:00Z")), "{late}");
            assert_eq!(daily.due_in_minute_to(at(late)), Some(at("2026-03-01T02:00:00Z")), "{late}");
        }
        assert_eq!(daily.due_in_minute_to(at("2026-03-01T02:01:00Z")), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |cron, zone| Timetable::parse(cron, zone).expect_err("none").to_string();
        assert!(error("61 * * * *", "UTC").contains("position 0"), "{}", error("61 * * * *", "UTC"));
        assert!(error("* * * * *", "Berlin").contains("Europe/Berlin"), "{}", error("* * * * *", "Berlin"));
    }
}
