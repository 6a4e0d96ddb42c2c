use super::*;
use chrono::{DateTime, TimeDelta};
use fleet_wire::Schedule;
use fleet_wire::crontab::Zone;
use proptest::prelude::*;

fn entry(cron: &str, more: &str) -> Entry {
    let schedule: Schedule =
        serde_json::from_str(&format!(r#"{{"id":"s","enabled":true,"cron_expr":"{cron}"{more}}}"#)).unwrap();
    Entry::read(&schedule, &Zone::UTC).unwrap()
}

fn at(text: &str) -> Timestamp {
    let text = if text.len() > 16 { text.to_owned() } else { format!("{text}:00") };
    DateTime::parse_from_rfc3339(&format!("{}Z", text.replace(' ', "T"))).unwrap().to_utc()
}

/// A schedule in a life of its own: what it fires as the clock shows this and that.
struct Life {
    entry: Entry,
    handled: Option<Handled>,
}

impl Life {
    fn new(cron: &str, more: &str, applied: &str) -> Self {
        let mut life = Self { entry: entry(cron, more), handled: None };
        assert_eq!(life.whys(at(applied)), [Why::New]);
        life
    }

    /// All that it does at `now`: what fires, and why it counts from elsewhere.
    fn all(&mut self, now: Timestamp) -> (Vec<Timestamp>, Vec<Why>) {
        let (mut fired, mut whys) = (Vec::new(), Vec::new());
        while let Some(step) = decide(&self.entry, self.handled.as_ref(), now) {
            assert!(fired.len() + whys.len() < 3, "it does not come to rest: {fired:?} {whys:?}");
            self.handled = Some(match step {
                Step::Fire { at, handled } => {
                    fired.push(at);
                    handled
                }
                Step::Count { handled, why } => {
                    whys.push(why);
                    handled
                }
            });
        }
        (fired, whys)
    }

    #[track_caller]
    fn fires(&mut self, now: &str, expected: &[&str]) {
        let (fired, whys) = self.all(at(now));
        let expected: Vec<_> = expected.iter().map(|text| at(text)).collect();
        assert_eq!(fired, expected, "at {now}: {whys:?}");
    }

    fn whys(&mut self, now: Timestamp) -> Vec<Why> {
        self.all(now).1
    }

    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        next(&self.entry, self.handled.as_ref().unwrap(), now)
    }
}

#[test]
fn it_fires_at_its_time_once() {
    let mut life = Life::new("0 2 * * *", "", "2026-03-01 12:00");
    life.fires("2026-03-02 01:59:59.9", &[]);
    assert_eq!(life.next(at("2026-03-02 01:59:59.9")), Some(at("2026-03-02 02:00")));
    life.fires("2026-03-02 02:00", &["2026-03-02 02:00"]);
    life.fires("2026-03-02 02:00", &[]);
    life.fires("2026-03-02 23:00", &[]);
    assert_eq!(life.next(at("2026-03-02 23:00")), Some(at("2026-03-03 02:00")));
    life.fires("2026-03-03 02:00:07", &["2026-03-03 02:00"]);
}

#[test]
fn a_new_schedule_counts_from_when_it_was_applied() {
    let mut life = Life::new("0 2 * * *", "", "2026-03-01 02:00:30");
    life.fires("2026-03-01 02:00:31", &[]);
    life.fires("2026-03-02 02:00:01", &["2026-03-02 02:00"]);
}

#[test]
fn a_changed_one_counts_from_when_it_was_changed_and_one_with_other_contents_goes_on() {
    let mut life = Life::new("0 2 * * *", "", "2026-03-01 12:00");
    life.entry = entry("0 2 * * *", r#","source_groups":[{"name":"etc"}],"catch_up_seconds":7200"#);
    life.fires("2026-03-02 02:30", &["2026-03-02 02:00"]);
    life.entry = entry("0 3 * * *", "");
    assert_eq!(life.whys(at("2026-03-02 04:00")), [Why::Changed]);
    life.fires("2026-03-02 04:00", &[]);
    life.entry = entry("0 3 * * *", r#","timezone":"Europe/Berlin""#);
    assert_eq!(life.whys(at("2026-03-03 02:59")), [Why::Changed]);
    life.fires("2026-03-03 03:30", &[]);
    life.fires("2026-03-04 02:00", &["2026-03-04 02:00"]);
}

#[test]
fn an_instant_that_has_fired_does_not_fire_again_under_another_expression() {
    let mut life = Life::new("0 2 * * *", "", "2026-03-01 12:00");
    life.fires("2026-03-02 02:00", &["2026-03-02 02:00"]);
    life.entry = entry("0 2,3 * * *", "");
    // Applied while the clock has gone back.
    assert_eq!(life.whys(at("2026-03-02 01:59")), [Why::Changed]);
    life.fires("2026-03-02 02:00", &[]);
    life.fires("2026-03-02 03:00", &["2026-03-02 03:00"]);
}

#[test]
fn what_was_missed_is_caught_up_once_with_the_latest_of_it() {
    let mut life = Life::new("0 * * * *", "", "2026-03-01 12:00");
    life.fires("2026-03-03 15:20", &["2026-03-03 15:00"]);
    life.fires("2026-03-03 15:21", &[]);
    life.fires("2026-03-03 16:00", &["2026-03-03 16:00"]);
}

#[test]
fn what_is_too_old_is_passed_over() {
    let mut life = Life::new("0 2 * * *", r#","catch_up_seconds":3600"#, "2026-03-01 12:00");
    assert_eq!(life.all(at("2026-03-03 03:00:01")), (vec![], vec![Why::Missed(at("2026-03-02 02:00"))]));
    life.fires("2026-03-04 02:59", &["2026-03-04 02:00"]);
    // The default is a day.
    let mut life = Life::new("0 2 1 * *", "", "2026-03-02 12:00");
    assert_eq!(life.all(at("2026-04-02 02:00:01")), (vec![], vec![Why::Missed(at("2026-04-01 02:00"))]));
    life.fires("2026-05-02 01:59", &["2026-05-01 02:00"]);
}

#[test]
fn without_catching_up_only_what_is_met_at_its_time_fires() {
    let mut life = Life::new("0 2 * * *", r#","catch_up_seconds":0"#, "2026-03-01 12:00");
    assert_eq!(life.all(at("2026-03-02 02:01:01")), (vec![], vec![Why::Missed(at("2026-03-02 02:00"))]));
    life.fires("2026-03-03 02:00:59", &["2026-03-03 02:00"]);
}

#[test]
fn a_clock_that_goes_back_a_little_repeats_nothing() {
    let mut life = Life::new("0 * * * *", "", "2026-03-01 12:10");
    life.fires("2026-03-01 13:00:00.2", &["2026-03-01 13:00"]);
    assert_eq!(life.all(at("2026-03-01 12:59:59.8")), (vec![], vec![Why::ClockWentBack]));
    life.fires("2026-03-01 13:00", &[]);
    assert_eq!(life.next(at("2026-03-01 13:00")), Some(at("2026-03-01 14:00")));
    life.fires("2026-03-01 14:00", &["2026-03-01 14:00"]);
    life.fires("2026-03-01 12:30", &[]);
    life.fires("2026-03-01 13:30", &[]);
    life.fires("2026-03-01 15:00", &["2026-03-01 15:00"]);
}

#[test]
fn a_clock_that_was_years_ahead_for_a_moment_stops_nothing() {
    let mut life = Life::new("0 2 * * *", "", "2026-03-01 12:00");
    life.fires("2040-07-01 12:00", &["2040-07-01 02:00"]);
    assert_eq!(life.whys(at("2026-03-01 12:01")), [Why::ClockWentBack]);
    life.fires("2026-03-02 02:00", &["2026-03-02 02:00"]);
    life.fires("2026-03-03 02:00", &["2026-03-03 02:00"]);
    // It was applied by such a clock.
    let mut life = Life::new("0 2 * * *", "", "2040-07-01 12:00");
    life.fires("2026-03-02 01:00", &[]);
    life.fires("2026-03-02 02:00", &["2026-03-02 02:00"]);
}

#[test]
fn what_was_passed_over_once_is_passed_over_for_good() {
    let mut life = Life::new("0 * * * *", "", "2026-03-01 12:00");
    life.fires("2026-03-01 16:30", &["2026-03-01 16:00"]);
    // A host without a clock of its own begins in 1970, until it is told the time.
    assert_eq!(life.whys(at("1970-01-01 00:00")), [Why::ClockWentBack]);
    assert_eq!(life.next(at("1970-01-01 00:00")), Some(at("1970-01-01 01:00")));
    life.fires("2026-03-01 16:59", &[]);
    assert_eq!(life.next(at("2026-03-01 16:59")), Some(at("2026-03-01 17:00")));
    life.fires("2026-03-01 17:00", &["2026-03-01 17:00"]);
}

#[test]
fn it_goes_by_the_clocks_of_its_zone() {
    let mut life = Life::new("30 2 * * *", r#","timezone":"Europe/Berlin""#, "2025-03-29 12:00");
    // No clock shows 2:30 on that day: right after the change.
    life.fires("2025-03-30 00:59", &[]);
    life.fires("2025-03-30 01:00", &["2025-03-30 01:00"]);
    let mut life = Life::new("30 2 * * *", r#","timezone":"Europe/Berlin""#, "2025-10-25 12:00");
    life.fires("2025-10-26 00:30", &["2025-10-26 00:30"]);
    life.fires("2025-10-26 01:30", &[]);
}

#[test]
fn one_that_never_fires_again_rests() {
    let mut life = Life::new("0 0 29 2 *", "", "2026-03-01 12:00");
    life.fires("2027-03-01 12:00", &[]);
    assert_eq!(life.next(at("2027-03-01 12:00")), Some(at("2028-02-29 00:00")));
}

#[test]
fn little_is_remembered() {
    let mut life = Life::new("* * * * *", "", "2026-03-01 12:00");
    for minute in 1..=150 {
        assert_eq!(life.all(at("2026-03-01 12:00") + TimeDelta::minutes(minute)).0.len(), 1);
    }
    let handled = life.handled.clone().unwrap();
    assert_eq!(handled.fired.len(), REMEMBERED);
    assert!(handled.has_fired(at("2026-03-01 14:30")) && !handled.has_fired(at("2026-03-01 12:01")));
    let text = serde_json::to_string(&handled).unwrap();
    assert_eq!(serde_json::from_str::<Handled>(&text).unwrap(), handled);
}

proptest! {
    /// However the clock runs, jumps and is set back: nothing fires twice, nothing ahead of the clock, and when the clock then
    /// runs on, the next firings come at their time.
    #[test]
    fn nothing_fires_twice_however_the_clock_jumps(
        cron in prop::sample::select(vec!["0 * * * *", "*/20 * * * *", "30 2 * * *", "15 3,15 * * 1-5"]),
        catch_up in prop::option::of(0..200_000_i64),
        jumps in prop::collection::vec(-90_000..200_000_i64, 1..30),
    ) {
        let more = catch_up.map_or_else(String::new, |seconds| format!(r#","catch_up_seconds":{seconds}"#));
        let mut life = Life::new(cron, &more, "2026-03-01 12:00");
        let mut now = at("2026-03-01 12:00");
        let mut all: Vec<Timestamp> = Vec::new();
        for jump in jumps {
            now += TimeDelta::seconds(jump);
            let (fired, _) = life.all(now);
            prop_assert!(fired.len() <= 1, "once for all that was missed: {fired:?}");
            for instant in fired {
                prop_assert!(instant <= now, "{instant} fired at {now}");
                prop_assert!(now - instant <= life.entry.window(), "{instant} fired at {now}");
                prop_assert!(!all.contains(&instant), "{instant} fired twice");
                all.push(instant);
            }
        }
        for _ in 0..3 {
            now = life.next(now).unwrap();
            prop_assert_eq!(life.all(now).0, [now]);
            prop_assert!(!all.contains(&now), "{now} fired twice");
        }
    }
}
