//! What schedules have due. Pure.

use crate::db::runs::{Outcome, Run, UNHEARD_OF};
use crate::db::schedules::Schedule;
use crate::timetable::Timetable;
use fleet_wire::Timestamp;

/// The rows of what `schedule` has due up to `until`, at least one firing's and hardly more than `most`, and when it is
/// due next after those.
pub fn of(schedule: &Schedule, until: Timestamp, most: usize) -> (Vec<Run>, Option<Timestamp>) {
    // What is stored was parsed before; a later version that reads less has nothing due.
    let Ok(timetable) = Timetable::parse(&schedule.cron, &schedule.timezone) else { return (Vec::new(), None) };
    let mut rows = Vec::new();
    let mut next = schedule.next_due_at;
    while let Some(due_at) = next.filter(|due_at| *due_at <= until && rows.len() < most) {
        let groups = schedule.source_groups.0.iter();
        rows.extend(groups.map(|group| Run::of_schedule(schedule.id, schedule.host_id, group, due_at, until)));
        next = timetable.next_after(due_at);
    }
    (rows, next)
}

/// The same rows, but skipped where `paused` says why nothing was to be started when they were due.
pub fn skipping(rows: Vec<Run>, paused: impl Fn(&Run) -> Option<String>) -> Vec<Run> {
    let skip = |row: Run| match paused(&row) {
        Some(why) => Run { attempt: UNHEARD_OF, ..row.with(Outcome::Skipped, format!("paused: {why}")) },
        None => row,
    };
    rows.into_iter().map(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::json::Json;
    use uuid::Uuid;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn schedule() -> Schedule {
        Schedule {
            id: Uuid::from_u128(1),
            host_id: Uuid::from_u128(2),
            cron: "0 2 * * *".to_owned(),
            timezone: "Europe/Berlin".to_owned(),
            enabled: true,
            source_groups: Json(vec!["docs".to_owned(), "etc".to_owned()]),
            catch_up_seconds: 3600,
            bandwidth_up_kbps: None,
            bandwidth_down_kbps: None,
            interval_seconds: 86400,
            version: 1,
            next_due_at: Some(at("2026-03-28T01:00:00Z")),
            created_at: at("2026-03-01T00:00:00Z"),
            updated_at: at("2026-03-01T00:00:00Z"),
            deleted_at: None,
            name: None,
        }
    }

    #[test]
    fn every_firing_has_a_row_for_each_group_also_where_clocks_change() {
        let (rows, next) = of(&schedule(), at("2026-03-30T00:00:00Z"), 100);
        let due: Vec<_> = rows.iter().map(|run| (run.due_at, run.source_group.as_deref().expect("a group"))).collect();
        // On the 29th there is no 2:00: it runs right after.
        let times = [at("2026-03-28T01:00:00Z"), at("2026-03-29T01:00:00Z"), at("2026-03-30T00:00:00Z")];
        let expected: Vec<_> = times.into_iter().flat_map(|time| [(time, "docs"), (time, "etc")]).collect();
        assert_eq!(due, expected);
        assert_eq!(next, Some(at("2026-03-31T00:00:00Z")));
    }

    #[test]
    fn what_is_not_due_has_none_and_much_is_taken_in_pieces() {
        let (rows, next) = of(&schedule(), at("2026-03-28T00:59:59Z"), 100);
        assert_eq!((rows.len(), next), (0, schedule().next_due_at));
        let (rows, next) = of(&schedule(), at("2026-12-31T00:00:00Z"), 1);
        assert_eq!((rows.len(), next), (2, Some(at("2026-03-29T01:00:00Z"))));
        let disabled = Schedule { next_due_at: None, ..schedule() };
        assert_eq!(of(&disabled, at("2026-12-31T00:00:00Z"), 100), (Vec::new(), None));
    }
}
