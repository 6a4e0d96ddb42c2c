//! What the end of a job means for the run that it was an attempt at. Pure.

use super::transitions::{HANDED_ON, REFUSED};
use crate::clock;
use crate::db::jobs::{JobState, NewJob};
use crate::db::runs::{Ending, Outcome};
use crate::db::stale_locks::Lock;
use fleet_wire::{CommandRun, Kind, Status, Timestamp};

/// The ending of a job that is over; nothing for one that is not.
pub(crate) fn of(new: &NewJob, state: &JobState) -> Option<Ending> {
    let begins = |with: &str| state.error.as_deref().is_some_and(|error| error.starts_with(with));
    let outcome = match state.status {
        Status::Queued | Status::Running => return None,
        Status::Succeeded if state.partial => Outcome::Partial,
        Status::Succeeded => Outcome::Succeeded,
        Status::Failed => Outcome::Failed,
        // It is due as before; what an agent reports is no such end.
        Status::Cancelled if state.exit_code.is_none() && begins(HANDED_ON) => Outcome::Expected,
        Status::Cancelled => Outcome::Cancelled,
    };
    let at = state.ended_at.unwrap_or_else(clock::now);
    let lock = state.stats.as_deref().filter(|_| outcome == Outcome::Failed).and_then(Lock::in_stats);
    // With 1 restic's check has found errors, or has not come far; with others, or none, it has read nothing.
    let has_read = lock.is_none() && matches!(state.exit_code, Some(0 | 1));
    Some(Ending {
        job_id: new.id,
        run_id: new.run_id,
        host_id: new.host_id,
        repository_id: new.repository_id,
        kind: new.kind.clone(),
        subset: new.command.0.args.first().filter(|_| has_read && new.kind == Kind::Check.as_str()).cloned(),
        source_group: new.source_group.clone(),
        outcome,
        // What was refused would come to the same again.
        may_retry: outcome == Outcome::Failed && !begins(REFUSED),
        whole: covers_the_repository(&new.command.0),
        lock: lock.map(Box::new),
        reason: state.error.clone(),
        at,
        // The agent's clock may be wrong; nothing was done later than when it was heard of.
        done_at: state.finished_at.map_or(at, |finished| finished.min(at).max(Timestamp::UNIX_EPOCH)),
    })
}

/// Whether it has done what maintenance of its kind is to do: a forget may be tried dry, or be that of one host.
fn covers_the_repository(run: &CommandRun) -> bool {
    !run.dry_run && run.forget_groups.iter().all(|group| group.host.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};
    use uuid::Uuid;

    fn now() -> Timestamp {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
    }

    fn new() -> NewJob {
        let ids = [1, 2, 3, 4].map(Uuid::from_u128);
        let backup = NewJob::sample(ids[0], ids[1], ids[2], Kind::Backup);
        NewJob { source_group: Some("docs".to_owned()), run_id: Some(ids[3]), ..backup }
    }

    fn ended(status: Status) -> JobState {
        JobState { status, accepted_at: Some(now()), ended_at: Some(now()), ..JobState::new() }
    }

    #[test]
    fn only_what_was_taken_up_and_failed_is_tried_again() {
        let may_retry = |state: &JobState| of(&new(), state).expect("an ending").may_retry;
        assert!(may_retry(&ended(Status::Failed)));
        let refused = JobState { error: Some(format!("{REFUSED}no restic")), ..ended(Status::Failed) };
        assert!(!may_retry(&refused));
        assert!(may_retry(&JobState { accepted_at: None, ..ended(Status::Failed) }), "it never reached its agent");
        assert!(!may_retry(&ended(Status::Cancelled)));
        assert!(!may_retry(&JobState { partial: true, ..ended(Status::Succeeded) }));
        assert_eq!(of(&new(), &JobState::new()), None);
    }

    #[test]
    fn a_check_that_has_read_nothing_leaves_its_part_to_the_next() {
        let mut check = NewJob { kind: Kind::Check.as_str().to_owned(), ..new() };
        check.command.0.args = vec!["--read-data-subset=2/7".to_owned()];
        let passed_on = |exit_code, stats: Option<&str>| {
            let state = JobState { exit_code, stats: stats.map(str::to_owned), ..ended(Status::Failed) };
            of(&check, &state).expect("an ending").subset.is_some()
        };
        assert!(passed_on(Some(1), None) && !passed_on(Some(11), None) && !passed_on(None, None));
        assert!(!passed_on(Some(1), Some(r#"{"lock": {"standing": "held"}}"#)));
    }

    #[test]
    fn what_another_host_does_is_due_as_before() {
        let cancelled = |error: &str| JobState { error: Some(error.to_owned()), ..ended(Status::Cancelled) };
        let outcome = |error: &str| of(&new(), &cancelled(error)).expect("an ending").outcome;
        assert_eq!(outcome(&format!("{HANDED_ON}web-1 went offline")), Outcome::Expected);
        assert_eq!(outcome("its operation was halted"), Outcome::Cancelled);
        let reported = JobState { exit_code: Some(130), ..cancelled(HANDED_ON) };
        assert_eq!(of(&new(), &reported).expect("an ending").outcome, Outcome::Cancelled);
    }

    #[test]
    fn what_an_agent_tells_late_counts_from_when_it_was_done() {
        let done = |finished: Timestamp| {
            let state = JobState { finished_at: Some(finished), ..ended(Status::Succeeded) };
            of(&new(), &state).expect("an ending").done_at
        };
        let hours = TimeDelta::hours(40);
        assert_eq!((done(now() - hours), done(now() + hours)), (now() - hours, now()));
    }
}
