//! What is to become of a firing that an agent tells of. Pure.

use crate::db::schedules::Schedule;
use chrono::TimeDelta;
use fleet_wire::Timestamp;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// A firing that is not later than this is run whatever the schedule says of catching up: messages take time.
const ALWAYS_IN_TIME: TimeDelta = TimeDelta::minutes(15);

/// An agent may tell of a firing so much before its time. More is a clock that is wrong.
const MOST_EARLY: TimeDelta = TimeDelta::minutes(5);

/// By how much an agent tells of a firing before its time, if that is too much: then its clock is ahead.
pub fn early_by(scheduled_at: Timestamp, now: Timestamp) -> Option<TimeDelta> {
    Some(scheduled_at - now).filter(|early| *early > MOST_EARLY)
}

/// A source group's part of a firing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The group.
    pub group: String,
    /// The id that the agent made for its job.
    pub job_id: Option<Uuid>,
    /// Whether the schedule still has the group.
    pub scheduled: bool,
}

/// Whose the ids of a firing are: those of the groups that it names, for the schedule may have changed since. `groups`
/// are the schedule's now; `named` are in the order of `job_ids`, or empty. Without names an id counts by its position,
/// but only if there is one for each group: else it could be taken for the backup of another.
pub fn parts(groups: &[String], named: &[String], job_ids: &[Uuid]) -> Vec<Part> {
    let fired_as = if named.is_empty() && groups.len() == job_ids.len() { groups } else { named };
    let ids: HashMap<&String, Uuid> = fired_as.iter().zip(job_ids.iter().copied()).collect();
    let has: HashSet<&String> = groups.iter().collect();
    let part = |group: &String, scheduled| Part { group: group.clone(), job_id: ids.get(group).copied(), scheduled };
    let gone = named.iter().filter(|group| !has.contains(group));
    groups.iter().map(|group| part(group, true)).chain(gone.map(|group| part(group, false))).collect()
}

/// See [`judge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It becomes a job.
    Run,
    /// It does not, and is no failure.
    Skip(String),
    /// It comes too late.
    Miss(String),
}

/// Decides about the backup of one group. The agent may have done it by itself all the same; then it is adopted.
///
/// `open` is a job of the group that is not over, `paused` why nothing of the host is to be started.
pub fn judge(
    schedule: &Schedule,
    scheduled_at: Timestamp,
    open: Option<Uuid>,
    paused: Option<&str>,
    now: Timestamp,
) -> Verdict {
    if let Some(early) = early_by(scheduled_at, now) {
        let minutes = early.num_minutes();
        return Verdict::Miss(format!(
            "the clock of its agent is ahead: it told of it {minutes} minutes before its time"
        ));
    }
    if schedule.deleted_at.is_some() {
        return Verdict::Skip("the schedule was deleted".to_owned());
    }
    if !schedule.enabled {
        return Verdict::Skip("the schedule is disabled".to_owned());
    }
    if let Some(why) = paused {
        return Verdict::Skip(format!("paused: {why}"));
    }
    let late = now - scheduled_at;
    if late > ALWAYS_IN_TIME.max(TimeDelta::seconds(schedule.catch_up_seconds)) {
        return Verdict::Miss(format!("its agent told of it {} minutes late", late.num_minutes()));
    }
    match open {
        Some(job) => Verdict::Skip(format!("still running: job {job}")),
        None => Verdict::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::json::Json;
    use chrono::DateTime;

    fn now() -> Timestamp {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
    }

    fn schedule() -> Schedule {
        Schedule {
            id: Uuid::from_u128(1),
            host_id: Uuid::from_u128(2),
            cron: "@daily".to_owned(),
            timezone: "UTC".to_owned(),
            enabled: true,
            source_groups: Json(vec!["docs".to_owned()]),
            catch_up_seconds: 3600,
            bandwidth_up_kbps: None,
            bandwidth_down_kbps: None,
            interval_seconds: 86400,
            version: 1,
            next_due_at: None,
            created_at: now(),
            updated_at: now(),
            deleted_at: None,
            name: None,
        }
    }

    fn skipped(schedule: &Schedule, open: Option<Uuid>, paused: Option<&str>) -> String {
        match judge(schedule, now(), open, paused, now()) {
            Verdict::Skip(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_are_those_of_the_groups_that_are_named() {
        let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let id = |number| Uuid::from_u128(number);
        let of = |groups: &[&str], named: &[&str], ids: &[Uuid]| -> Vec<_> {
            let parts = parts(&strings(groups), &strings(named), ids).into_iter();
            parts.map(|part| (part.group, part.job_id.map(|id| id.as_u128()), part.scheduled)).collect()
        };
        let part = |group: &str, id: Option<u128>, scheduled| (group.to_owned(), id, scheduled);
        // One has come to the front, one has gone.
        assert_eq!(
            of(&["db", "docs"], &["docs", "etc"], &[id(1), id(2)]),
            [part("db", None, true), part("docs", Some(1), true), part("etc", Some(2), false)]
        );
        let reordered = of(&["docs", "db"], &["db", "docs"], &[id(1), id(2)]);
        assert_eq!(reordered, [part("docs", Some(2), true), part("db", Some(1), true)]);
        // Nobody names them.
        let by_place = of(&["db", "docs"], &[], &[id(1), id(2)]);
        assert_eq!(by_place, [part("db", Some(1), true), part("docs", Some(2), true)]);
        for ids in [&[id(1)][..], &[id(1), id(2), id(3)], &[]] {
            assert_eq!(of(&["db", "docs"], &[], ids), [part("db", None, true), part("docs", None, true)]);
        }
    }

    #[test]
    fn what_is_due_now_runs() {
        assert_eq!(judge(&schedule(), now(), None, None, now()), Verdict::Run);
        // An agent whose clock is ahead is not refused for it.
        assert_eq!(judge(&schedule(), now() + TimeDelta::minutes(3), None, None, now()), Verdict::Run);
    }

    #[test]
    fn nothing_runs_before_its_time_because_a_clock_is_ahead() {
        let early = |minutes| judge(&schedule(), now() + TimeDelta::minutes(minutes), None, None, now());
        assert_eq!(early(5), Verdict::Run);
        assert!(matches!(early(6), Verdict::Miss(why) if why.contains("6 minutes before its time")));
        assert!(matches!(early(60 * 24 * 365), Verdict::Miss(_)));
    }

    #[test]
    fn nothing_is_caught_up_after_its_window() {
        let late = |seconds| judge(&schedule(), now() - TimeDelta::seconds(seconds), None, None, now());
        assert_eq!(late(3600), Verdict::Run);
        assert!(matches!(late(3601), Verdict::Miss(_)));
        let never = Schedule { catch_up_seconds: 0, ..schedule() };
        assert_eq!(judge(&never, now() - TimeDelta::minutes(15), None, None, now()), Verdict::Run);
        assert!(matches!(judge(&never, now() - TimeDelta::minutes(16), None, None, now()), Verdict::Miss(_)));
    }

    #[test]
    fn a_group_whose_last_job_is_not_over_is_skipped() {
        assert!(skipped(&schedule(), Some(Uuid::from_u128(7)), None).starts_with("still running"));
    }

    #[test]
    fn what_is_not_wanted_is_skipped_with_the_reason() {
        assert_eq!(skipped(&schedule(), None, Some("migration, by anna")), "paused: migration, by anna");
        assert!(skipped(&Schedule { enabled: false, ..schedule() }, None, None).contains("disabled"));
        assert!(skipped(&Schedule { deleted_at: Some(now()), ..schedule() }, None, None).contains("deleted"));
    }
}
