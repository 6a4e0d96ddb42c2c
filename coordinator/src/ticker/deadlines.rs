//! Which jobs have waited or run too long, and what follows. Pure; all times are the coordinator's clock.

use crate::config::Deadlines;
use crate::db::deadlines::OpenJob;
use crate::job::Decide;
use chrono::TimeDelta;
use fleet_wire::{OFFLINE_AFTER, Status, Timestamp};
use std::time::Duration;

/// What follows for `job` at `now`, if anything does. `seen` is when its host was last heard of.
pub(super) fn overdue(job: &OpenJob, seen: Option<Timestamp>, limits: &Deadlines, now: Timestamp) -> Option<Decide> {
    let past = |since: Timestamp, limit: Duration| now - since > TimeDelta::from_std(limit).unwrap_or(TimeDelta::MAX);
    let Some(dispatched_at) = job.dispatched_at else {
        let reason = format!("expired: it waited for more than {}", span(limits.queued));
        return past(job.created_at, limits.queued).then_some(Decide::GiveUp { reason });
    };
    // A host that was never heard of since the start is silent since the job went out.
    let silent_since = seen.map_or(dispatched_at, |seen| seen.max(dispatched_at));
    if past(silent_since, limits.agent_lost) {
        let reason = format!("agent lost: nothing was heard of it for {}", span(limits.agent_lost));
        return Some(Decide::Lose { reason });
    }
    // What follows is the agent's fault only while it is there to answer.
    if past(silent_since, OFFLINE_AFTER) {
        return None;
    }
    if let Some(asked_at) = job.cancel_requested_at {
        let reason = format!("the cancel was not answered for {}", span(limits.cancel));
        return past(asked_at, limits.cancel).then_some(Decide::Lose { reason });
    }
    if job.accepted_at.is_none() && past(dispatched_at, limits.accept) {
        let reason = format!("the agent did not accept it for {}", span(limits.accept));
        return Some(Decide::Lose { reason });
    }
    let running = job.status == Status::Running;
    job.began_at.filter(|began| running && past(*began, limits.run(job.kind))).map(|_| Decide::Cancel)
}

/// A duration for people.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60, seconds) {
        (hours, ..) if hours > 0 && seconds.is_multiple_of(3600) => format!("{hours} h"),
        (_, minutes, _) if minutes > 0 && seconds.is_multiple_of(60) => format!("{minutes} min"),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use fleet_wire::Kind;
    use uuid::Uuid;

    const LIMITS: Deadlines = Deadlines {
        queued: Duration::from_secs(1000),
        accept: Duration::from_secs(100),
        agent_lost: Duration::from_secs(500),
        cancel: Duration::from_secs(200),
        backup: Duration::from_secs(3000),
        maintenance: Duration::from_secs(2000),
    };

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(1_790_000_000 + seconds, 0).expect("a time")
    }

    fn waiting() -> OpenJob {
        OpenJob {
            id: Uuid::nil(),
            host_id: Uuid::nil(),
            kind: Kind::Backup,
            status: Status::Queued,
            created_at: at(0),
            dispatched_at: None,
            accepted_at: None,
            began_at: None,
            cancel_requested_at: None,
        }
    }

    fn running() -> OpenJob {
        let times = |seconds| Some(at(seconds));
        OpenJob {
            status: Status::Running,
            dispatched_at: times(0),
            accepted_at: times(1),
            began_at: times(2),
            ..waiting()
        }
    }

    /// The decision when the host was heard of just now.
    fn with_host(job: &OpenJob, now: i64) -> Option<Decide> {
        overdue(job, Some(at(now)), &LIMITS, at(now))
    }

    #[test]
    fn a_job_that_never_went_out_expires() {
        assert_eq!(overdue(&waiting(), None, &LIMITS, at(1000)), None);
        assert!(matches!(overdue(&waiting(), None, &LIMITS, at(1001)), Some(Decide::GiveUp { .. })));
    }

    #[test]
    fn silence_loses_a_job_and_a_sign_of_life_saves_it() {
        assert_eq!(overdue(&running(), Some(at(300)), &LIMITS, at(800)), None);
        assert!(matches!(overdue(&running(), Some(at(300)), &LIMITS, at(801)), Some(Decide::Lose { .. })));
        assert!(matches!(overdue(&running(), None, &LIMITS, at(501)), Some(Decide::Lose { .. })));
    }

    #[test]
    fn what_an_agent_that_is_there_leaves_unanswered_is_lost() {
        let sent = OpenJob { dispatched_at: Some(at(0)), ..waiting() };
        assert_eq!(with_host(&sent, 100), None);
        assert!(matches!(with_host(&sent, 101), Some(Decide::Lose { .. })));
        let cancelled = OpenJob { cancel_requested_at: Some(at(10)), ..running() };
        assert_eq!(with_host(&cancelled, 210), None);
        assert!(matches!(with_host(&cancelled, 211), Some(Decide::Lose { .. })));
        // An agent that is away can't answer: only its silence counts.
        assert_eq!(overdue(&cancelled, Some(at(50)), &LIMITS, at(400)), None);
    }

    #[test]
    fn a_job_that_runs_too_long_for_its_kind_is_cancelled() {
        assert_eq!(with_host(&running(), 3002), None);
        assert_eq!(with_host(&running(), 3003), Some(Decide::Cancel));
        let prune = OpenJob { kind: Kind::Prune, ..running() };
        assert_eq!(with_host(&prune, 2003), Some(Decide::Cancel));
    }

    #[test]
    fn spans_are_said_in_the_unit_that_fits() {
        let said = [45, 120, 7200, 90].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(said, ["45 s", "2 min", "2 h", "90 s"]);
    }
}
