//! The crontab engine against the words of its rules: a clock that is watched minute by minute, in the time zones of
//! another library.

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use fleet_wire::crontab::{Expression, Zone};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Changes of an hour, half an hour, two hours and a day; at midnight; for Ramadan; of standard time; and none.
const ZONES: &[Tz] = &[
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::Australia__Lord_Howe,
    Tz::America__Santiago,
    Tz::Africa__Casablanca,
    Tz::Antarctica__Troll,
    Tz::Africa__Cairo,
    Tz::America__Caracas,
    Tz::Asia__Pyongyang,
    Tz::Pacific__Apia,
    Tz::Asia__Kolkata,
];

#[derive(Clone, Debug)]
enum Item {
    Star { step: u32 },
    Range { first: u32, last: u32, step: u32 },
    Single(u32),
}

/// A field as it is written, to be judged number by number.
#[derive(Clone, Debug)]
struct Written {
    low: u32,
    items: Vec<Item>,
}

impl Written {
    fn holds(&self, number: u32) -> bool {
        self.items.iter().any(|item| match *item {
            Item::Star { step } => (number - self.low).is_multiple_of(step),
            Item::Range { first, last, step } => {
                (first..=last).contains(&number) && (number - first).is_multiple_of(step)
            }
            Item::Single(only) => number == only,
        })
    }

    fn begins_with_star(&self) -> bool {
        matches!(self.items[0], Item::Star { .. })
    }

    fn text(&self) -> String {
        let item = |item: &Item| match *item {
            Item::Star { step: 1 } => "*".to_owned(),
            Item::Star { step } => format!("*/{step}"),
            Item::Range { first, last, step: 1 } => format!("{first}-{last}"),
            Item::Range { first, last, step } => format!("{first}-{last}/{step}"),
            Item::Single(only) => only.to_string(),
        };
        self.items.iter().map(item).collect::<Vec<_>>().join(",")
    }
}

fn written(low: u32, high: u32) -> impl Strategy<Value = Written> {
    let range = (low..=high, low..=high, 1..=high).prop_map(|(one, other, step)| Item::Range {
        first: one.min(other),
        last: one.max(other),
        step,
    });
    let item = prop_oneof![
        2 => (1..=high).prop_map(|step| Item::Star { step }),
        3 => (low..=high).prop_map(Item::Single),
        2 => range,
    ];
    let items = prop_oneof![Just(vec![Item::Star { step: 1 }]), vec(item, 1..4)];
    items.prop_map(move |items| Written { low, items })
}

#[derive(Clone, Debug)]
struct WrittenExpression([Written; 5]);

impl WrittenExpression {
    fn text(&self) -> String {
        self.0.each_ref().map(Written::text).join(" ")
    }

    fn names(&self, local: NaiveDateTime) -> bool {
        let [minute, hour, day, month, weekday] = &self.0;
        let by_day = day.holds(local.day());
        let number = local.weekday().num_days_from_sunday();
        let by_weekday = weekday.holds(number) || number == 0 && weekday.holds(7);
        let both = day.begins_with_star() || weekday.begins_with_star();
        minute.holds(local.minute())
            && hour.holds(local.hour())
            && month.holds(local.month())
            && if both { by_day && by_weekday } else { by_day || by_weekday }
    }

    /// Watches the clock for `minutes` after `start`. It has been watched for two days before, so that the latest time
    /// that it has ever shown is known.
    fn watch(&self, zone: Tz, start: DateTime<Utc>, minutes: i64) -> Vec<DateTime<Utc>> {
        let [minute, hour, ..] = &self.0;
        let keeps_rhythm = minute.begins_with_star() || hour.begins_with_star();
        let mut latest =
            (0..2 * 24 * 60).map(|ago| clock(zone, start - TimeDelta::minutes(ago))).max().expect("two days");
        let mut firings = vec![];
        for now in (1..=minutes).map(|minute| start + TimeDelta::minutes(minute)) {
            let shown = clock(zone, now);
            let mut reached_for_the_first_time = vec![];
            while latest < shown {
                latest += TimeDelta::minutes(1);
                reached_for_the_first_time.push(latest);
            }
            let fires = match keeps_rhythm {
                true => self.names(shown),
                false => reached_for_the_first_time.into_iter().any(|local| self.names(local)),
            };
            firings.extend(fires.then_some(now));
        }
        firings
    }
}

fn clock(zone: Tz, instant: DateTime<Utc>) -> NaiveDateTime {
    instant.naive_utc() + zone.offset_from_utc_datetime(&instant.naive_utc()).fix()
}

fn expressions() -> impl Strategy<Value = WrittenExpression> {
    let hour = prop_oneof![written(0, 23), written(0, 4)];
    // Mostly every day, else little would ever fire in the days that are watched.
    let every = |low| Just(Written { low, items: vec![Item::Star { step: 1 }] });
    let day = prop_oneof![3 => every(1).boxed(), 2 => written(1, 31).boxed()];
    let month = prop_oneof![3 => every(1).boxed(), 1 => written(1, 12).boxed()];
    let weekday = prop_oneof![3 => every(0).boxed(), 2 => written(0, 7).boxed()];
    (written(0, 59), hour, day, month, weekday)
        .prop_map(|(minute, hour, day, month, weekday)| WrittenExpression([minute, hour, day, month, weekday]))
}

/// A zone, and an instant in it that is up to two days before a change of its clocks, if there is one within a year.
fn moments() -> impl Strategy<Value = (Tz, DateTime<Utc>)> {
    let seconds = |text: &str| text.parse::<DateTime<Utc>>().expect("an instant").timestamp();
    // Tables of different versions agree on the past only, and a gap is looked for up to a year later.
    let years = seconds("2005-01-01T00:00:00Z")..seconds("2024-12-01T00:00:00Z");
    (select(ZONES), years, 0..2 * 24 * 60_i64).prop_map(|(zone, from, before)| {
        let from = DateTime::from_timestamp(from - from.rem_euclid(3600), 0).expect("an instant");
        let offset = |hour: i64| zone.offset_from_utc_datetime(&(from + TimeDelta::hours(hour)).naive_utc()).fix();
        let change = (0..366 * 24).find(|hour| offset(*hour) != offset(*hour + 1)).unwrap_or(0);
        (zone, from + TimeDelta::hours(change + 1) - TimeDelta::minutes(before))
    })
}

fn zone(tz: Tz) -> Zone {
    tz.name().parse().expect("a zone that every version of the database has")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn firings_are_those_of_a_watched_clock(written in expressions(), (tz, start) in moments()) {
        let Ok(expression) = Expression::parse(&written.text()) else {
            // It may only be refused because it never fires.
            prop_assert_eq!(written.watch(tz, start, 3 * 24 * 60), Vec::<DateTime<Utc>>::new());
            return Ok(());
        };
        let end = start + TimeDelta::days(3);
        let firings: Vec<_> = expression.firings_between(&zone(tz), start, end).collect();
        prop_assert_eq!(firings, written.watch(tz, start, 3 * 24 * 60), "{} in {} after {}", expression, tz, start);
    }

    #[test]
    fn the_next_firing_is_the_same_from_any_instant_before_it(
        written in expressions(), (tz, start) in moments(), part in 0.0..1.0, nanos in 0..1_000_000_000_i64,
    ) {
        let Ok(expression) = Expression::parse(&written.text()) else { return Ok(()) };
        let Some(next) = expression.next_after(&zone(tz), start) else { return Ok(()) };
        prop_assert!(next > start && next.second() == 0 && next.nanosecond() == 0);
        let between = start + TimeDelta::seconds(((next - start).num_seconds() as f64 * part) as i64);
        let between = (between + TimeDelta::nanoseconds(nanos)).min(next - TimeDelta::nanoseconds(1));
        prop_assert_eq!(expression.next_after(&zone(tz), between), Some(next), "after {}", between);
        prop_assert!(expression.next_after(&zone(tz), next).is_none_or(|after| after > next));
    }

    #[test]
    fn an_expression_reads_back_as_it_is_shown(written in expressions()) {
        let Ok(expression) = Expression::parse(&written.text()) else { return Ok(()) };
        prop_assert_eq!(expression.to_string(), written.text());
        prop_assert_eq!(expression.to_string().parse(), Ok(expression));
    }

    #[test]
    fn nothing_that_is_written_is_a_panic(
        text in prop_oneof![vec(any::<char>(), 0..20).prop_map(String::from_iter), "[@0-9*/,a-z \t-]{0,30}"],
    ) {
        if let Err(error) = Expression::parse(&text) {
            prop_assert!(text.is_char_boundary(error.position), "{:?}: {}", text, error);
            prop_assert!(text[..error.position].is_ascii(), "{:?}: {}", text, error);
        }
    }

    #[test]
    fn any_instant_has_an_answer(
        written in expressions(), tz in select(ZONES), second in any::<i64>(), nanos in 0..2_000_000_000_u32,
    ) {
        let (Ok(expression), Some(instant)) =
            (Expression::parse(&written.text()), DateTime::<Utc>::from_timestamp(second >> 20, nanos)) else { return Ok(()) };
        prop_assert!(expression.next_after(&zone(tz), instant).is_none_or(|next| next > instant));
    }
}
