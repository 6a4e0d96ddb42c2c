//! The rules one by one, at changes of clocks that anyone can look up.

use super::{Expression, Zone};
use chrono::{DateTime, Utc};

fn instant(text: &str) -> DateTime<Utc> {
    let text = if text.len() == 16 { format!("{text}:00Z") } else { format!("{text}Z") };
    text.parse().expect("an RFC 3339 time without its offset")
}

fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The firings in (after, until], as UTC.
fn firings(text: &str, zone: &str, after: &str, until: &str) -> Vec<String> {
    let zone: Zone = zone.parse().expect("a zone");
    let expression = expression(text);
    let between = expression.firings_between(&zone, instant(after), instant(until));
    between.map(|firing| firing.format("%dT%R").to_string()).collect()
}

// Berlin: 2025-03-30 from 02:00 to 03:00 (01:00 UTC), 2025-10-26 from 03:00 back to 02:00 (01:00 UTC).
const SPRING: (&str, &str) = ("2025-03-29T12:00", "2025-03-31T06:00");
const AUTUMN: (&str, &str) = ("2025-10-25T12:00", "2025-10-26T12:00");

fn in_spring(text: &str) -> Vec<String> {
    firings(text, "Europe/Berlin", SPRING.0, SPRING.1)
}

fn in_autumn(text: &str) -> Vec<String> {
    firings(text, "Europe/Berlin", AUTUMN.0, AUTUMN.1)
}

#[test]
fn a_fixed_time_that_is_skipped_fires_once_right_after() {
    assert_eq!(in_spring("30 2 * * *"), ["30T01:00", "31T00:30"]);
    assert_eq!(in_spring("0,20,40 2 * * *"), ["30T01:00", "31T00:00", "31T00:20", "31T00:40"]);
    assert_eq!(in_spring("0 1-3 * * *"), ["30T00:00", "30T01:00", "30T23:00", "31T00:00", "31T01:00"]);
    assert_eq!(in_spring("59 1 30 3 *"), ["30T00:59"]);
    assert_eq!(in_spring("0 3 30 3 *"), ["30T01:00"]);
}

#[test]
fn a_fixed_time_that_comes_twice_fires_at_its_first() {
    assert_eq!(in_autumn("30 2 * * *"), ["26T00:30"]);
    assert_eq!(in_autumn("0,30 1-3 * * *"), ["25T23:00", "25T23:30", "26T00:00", "26T00:30", "26T02:00", "26T02:30"]);
}

#[test]
fn what_begins_with_a_star_keeps_its_rhythm() {
    let hourly = ["29T23:30", "30T00:30", "30T01:30", "30T02:30"];
    assert_eq!(firings("30 * * * *", "Europe/Berlin", "2025-03-29T23:00", "2025-03-30T03:00"), hourly);
    let hourly = ["25T23:30", "26T00:30", "26T01:30", "26T02:30"];
    assert_eq!(firings("30 * * * *", "Europe/Berlin", "2025-10-25T23:00", "2025-10-26T03:00"), hourly);
    // Named times within the hour: none of them, or each twice.
    assert_eq!(in_spring("*/30 2 30 3 *"), [""; 0]);
    assert_eq!(in_autumn("*/30 2 26 10 *"), ["26T00:00", "26T00:30", "26T01:00", "26T01:30"]);
    assert_eq!(in_autumn("*/30 */2 26 10 *")[..8], in_autumn("0,30 */2 26 10 *")[..8]);
}

#[test]
fn the_hour_that_comes_twice_can_be_entered_anywhere() {
    for (after, next) in [
        ("2025-10-26T00:10", "2025-10-26T00:20"),
        ("2025-10-26T00:20", "2025-10-26T01:20"),
        ("2025-10-26T00:59:59", "2025-10-26T01:20"),
        ("2025-10-26T01:19:59.999", "2025-10-26T01:20"),
        ("2025-10-26T01:20", "2025-10-26T02:20"),
    ] {
        let berlin: Zone = "Europe/Berlin".parse().expect("a zone");
        assert_eq!(expression("20 * * * *").next_after(&berlin, instant(after)), Some(instant(next)), "{after}");
    }
}

#[test]
fn clocks_that_change_at_midnight_or_by_half_an_hour() {
    // Santiago: 2025-09-07 from 00:00 to 01:00 (04:00 UTC), 2025-04-06 from 00:00 back to 23:00 (03:00 UTC).
    let santiago = |text, after, until| firings(text, "America/Santiago", after, until);
    assert_eq!(santiago("@daily", "2025-09-06T12:00", "2025-09-08T12:00"), ["07T04:00", "08T03:00"]);
    assert_eq!(santiago("30 23 * * *", "2025-04-05T12:00", "2025-04-07T12:00"), ["06T02:30", "07T03:30"]);
    assert_eq!(santiago("@daily", "2025-04-05T12:00", "2025-04-07T12:00"), ["06T04:00", "07T04:00"]);
    // Lord Howe: 2025-10-05 from 02:00 to 02:30 (15:30 UTC), 2025-04-06 from 02:00 back to 01:30 (15:00 UTC).
    let lord_howe = |text, after, until| firings(text, "Australia/Lord_Howe", after, until);
    assert_eq!(lord_howe("15 2 * * *", "2025-10-04T12:00", "2025-10-05T16:00"), ["04T15:30", "05T15:15"]);
    assert_eq!(lord_howe("45 1 * * *", "2025-04-05T12:00", "2025-04-06T16:00"), ["05T14:45", "06T15:15"]);
    assert_eq!(lord_howe("45 * * * *", "2025-04-05T14:00", "2025-04-05T16:00"), ["05T14:45", "05T15:15"]);
}

#[test]
fn a_day_that_is_skipped_is_a_gap_like_any_other() {
    // Samoa had no 2011-12-30: from midnight (10:00 UTC) straight to the 31st.
    let apia = |text| firings(text, "Pacific/Apia", "2011-12-29T20:00", "2012-01-01T00:00");
    assert_eq!(apia("0 12 * * *"), ["29T22:00", "30T10:00", "30T22:00", "31T22:00"]);
    assert_eq!(apia("0 */12 * * *"), ["29T22:00", "30T10:00", "30T22:00", "31T10:00", "31T22:00"]);
}

#[test]
fn an_instant_is_never_its_own_successor() {
    let minutely = expression("* * * * *");
    for (after, next) in [
        ("2025-01-01T00:00", "2025-01-01T00:01"),
        ("2025-01-01T00:00:59.999999999", "2025-01-01T00:01"),
        ("1969-12-31T23:58:30", "1969-12-31T23:59"),
        // A leap second.
        ("2016-12-31T23:59:60.5", "2017-01-01T00:00"),
    ] {
        assert_eq!(minutely.next_after(&Zone::UTC, instant(after)), Some(instant(next)), "{after}");
    }
}

#[test]
fn the_ends_of_the_calendar_are_no_trouble() {
    for zone in ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati"] {
        let zone: Zone = zone.parse().expect("a zone");
        for text in ["* * * * *", "0 2 * * *", "0 0 29 2 *", "*/5 2 29 2 */7"] {
            assert_eq!(expression(text).next_after(&zone, DateTime::<Utc>::MAX_UTC), None, "{text} in {zone}");
            let first = expression(text).next_after(&zone, DateTime::<Utc>::MIN_UTC);
            assert!(first.is_none_or(|first| first > DateTime::<Utc>::MIN_UTC), "{text} in {zone}: {first:?}");
        }
    }
}

#[test]
fn times_that_are_always_skipped_end_the_search() {
    // In Berlin, the last Sunday of March has no hour from 2 to 3.
    let skipped = expression("*/5 2 25-31 3 */7");
    let berlin: Zone = "Europe/Berlin".parse().expect("a zone");
    assert_eq!(skipped.next_after(&berlin, instant("2025-01-01T00:00")), None);
    assert_eq!(skipped.next_after(&Zone::UTC, instant("2025-01-01T00:00")), Some(instant("2025-03-30T02:00")));
}

#[test]
fn it_is_shown_as_it_was_written() {
    for text in ["*/15 2 * jan SUN", "@daily", "0  2\t* * 7"] {
        let read = expression(text);
        assert_eq!(read.to_string(), text);
        assert_eq!(read.to_string().parse(), Ok(read));
    }
}
