//! Whether a job has waited or run too long, and what follows. Pure.
//!
//! What an agent leaves unanswered counts from when it could answer: from its connection, if that came later. Durations
//! are measured by a clock that nobody sets; only what was before the start of the coordinator is taken from the ledger.

use super::Decide;
use crate::config::Deadlines;
use crate::db::jobs::JobState;
use fleet_wire::{Kind, OFFLINE_AFTER, Timestamp};
use std::time::{Duration, Instant};

/// Bounds of the time between two looks at a job.
const SHORTEST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// For how long an agent is at work: what the ledger says at the start, and what has passed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtWork {
    before: Duration,
    since: Instant,
}

/// From when on an agent is at work.
fn at_work_since(state: &JobState) -> Option<Timestamp> {
    state.began_at.or(state.accepted_at)
}

impl AtWork {
    /// What is known of a job that stands like this when it is taken up at a time, unless that is not certain.
    pub(super) fn taken_up(state: &JobState, now: Option<Timestamp>) -> Option<Self> {
        let since = at_work_since(state)?;
        let before = now.and_then(|now| (now - since).to_std().ok()).unwrap_or_default();
        Some(Self { before, since: Instant::now() })
    }

    /// What is `known` once the job has come from one state to another: it counts from its acceptance, and anew when it begins.
    pub(super) fn follow(known: Option<Self>, from: &JobState, to: &JobState) -> Option<Self> {
        if at_work_since(from) == at_work_since(to) {
            return known;
        }
        at_work_since(to).map(|_| Self { before: Duration::ZERO, since: Instant::now() })
    }

    /// For how long.
    pub(super) fn lasted(self) -> Duration {
        self.before + self.since.elapsed()
    }
}

/// How long everything about a job has lasted so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// What it does.
    pub(super) kind: Kind,
    /// Since nothing was heard of its agent.
    pub(super) silent: Duration,
    /// Since its host can take jobs; absent while it is not connected.
    pub(super) ready: Option<Duration>,
    /// Since it is out; absent while that is not in the ledger.
    pub(super) out: Option<Duration>,
    /// Since somebody asked for its end.
    pub(super) cancelled: Option<Duration>,
    /// Since it was accepted or began.
    pub(super) accepted: Option<Duration>,
}

/// How often a job looks whether it is overdue: so that this comes late by an eighth of the shortest limit at most, and by half a
/// minute at most.
pub(super) fn look_every(limits: &Deadlines) -> Duration {
    let Deadlines { queued: _, accept, agent_lost, cancel, backup, maintenance } = limits;
    let shortest = [accept, agent_lost, cancel, backup, maintenance].into_iter().min().copied().unwrap_or_default();
    (shortest / 8).clamp(SHORTEST_LOOK, LONGEST_LOOK)
}

/// The decision about a job that waits since `waited`.
pub(crate) fn waiting(waited: Duration, limits: &Deadlines) -> Option<Decide> {
    let reason = format!("expired: it waited for more than {}", span(limits.queued));
    (waited > limits.queued).then_some(Decide::Expire { reason })
}

/// What follows for a job that is out and not over, if anything does. While its dispatch can't be written it is not sent,
/// and nobody is late.
pub(super) fn overdue(job: &Situation, limits: &Deadlines) -> Option<Decide> {
    let out = job.out?;
    let lose = |reason: String| Some(Decide::Lose { reason });
    if job.silent > limits.agent_lost {
        return lose(format!("agent lost: nothing was heard of it for {}", span(limits.agent_lost)));
    }
    // What follows is the agent's fault only while it is there to answer.
    let ready = job.ready.filter(|_| job.silent <= OFFLINE_AFTER)?;
    if let Some(cancelled) = job.cancelled {
        let unanswered = cancelled.min(ready) > limits.cancel;
        return if unanswered {
            lose(format!("the cancel was not answered for {}", span(limits.cancel)))
        } else {
            None
        };
    }
    let Some(accepted) = job.accepted else {
        let unanswered = out.min(ready) > limits.accept;
        return if unanswered {
            lose(format!("the agent did not accept it for {}", span(limits.accept)))
        } else {
            None
        };
    };
    (accepted > limits.run(job.kind)).then_some(Decide::Cancel)
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

    const LIMITS: Deadlines = Deadlines {
        queued: Duration::from_secs(1000),
        accept: Duration::from_secs(100),
        agent_lost: Duration::from_secs(500),
        cancel: Duration::from_secs(200),
        backup: Duration::from_secs(3000),
        maintenance: Duration::from_secs(2000),
    };

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A job that has just been sent to an agent that is there for long.
    fn sent() -> Situation {
        Situation {
            kind: Kind::Backup,
            silent: seconds(1),
            ready: Some(seconds(9999)),
            out: Some(seconds(1)),
            cancelled: None,
            accepted: None,
        }
    }

    fn is_lost(job: Situation) -> bool {
        matches!(overdue(&job, &LIMITS), Some(Decide::Lose { .. }))
    }

    #[test]
    fn a_job_that_never_went_out_expires() {
        assert_eq!(waiting(seconds(1000), &LIMITS), None);
        assert!(matches!(waiting(seconds(1001), &LIMITS), Some(Decide::Expire { .. })));
    }

    #[test]
    fn silence_loses_a_job_and_a_sign_of_life_saves_it() {
        let accepted = Situation { accepted: Some(seconds(800)), out: Some(seconds(801)), ..sent() };
        assert!(!is_lost(Situation { silent: seconds(500), ..accepted }));
        assert!(is_lost(Situation { silent: seconds(501), ready: None, ..accepted }));
    }

    #[test]
    fn what_an_agent_that_is_there_leaves_unanswered_is_lost() {
        assert!(!is_lost(Situation { out: Some(seconds(100)), ..sent() }));
        assert!(is_lost(Situation { out: Some(seconds(101)), ..sent() }));
        let cancelled = Situation { accepted: Some(seconds(9)), cancelled: Some(seconds(201)), ..sent() };
        assert!(is_lost(cancelled));
        assert!(!is_lost(Situation { cancelled: Some(seconds(200)), ..cancelled }));
    }

    #[test]
    fn a_job_whose_dispatch_can_not_be_written_waits_for_the_database_alone() {
        let unwritten = Situation { out: None, silent: seconds(9000), cancelled: Some(seconds(9000)), ..sent() };
        assert_eq!(overdue(&unwritten, &LIMITS), None);
    }

    #[test]
    fn an_agent_that_was_away_gets_its_time_anew() {
        let old =
            Situation { out: Some(seconds(9000)), cancelled: Some(seconds(9000)), ready: Some(seconds(3)), ..sent() };
        assert!(!is_lost(old) && !is_lost(Situation { cancelled: None, ..old }));
        // Only its silence counts while it is not connected, or does not speak.
        assert!(!is_lost(Situation { ready: None, ..old }) && !is_lost(Situation { silent: seconds(400), ..old }));
    }

    #[test]
    fn work_counts_by_a_clock_that_nobody_sets_but_for_what_was_before_the_start() {
        let now = chrono::Utc::now();
        let at = |hours| Some(now - chrono::TimeDelta::hours(hours));
        let sent = JobState::new();
        let accepted = JobState { accepted_at: at(-9000), ..sent.clone() };
        let begun = JobState { began_at: at(9000), ..accepted.clone() };
        assert!(AtWork::taken_up(&sent, Some(now)).is_none() && AtWork::follow(None, &sent, &sent).is_none());
        // Whatever the clock shows when it begins.
        for (from, to) in [(&sent, &accepted), (&accepted, &begun), (&sent, &begun)] {
            let known = AtWork::follow(AtWork::taken_up(from, Some(now)), from, to);
            assert!(known.expect("at work").lasted() < seconds(60));
        }
        assert!(AtWork::taken_up(&begun, None).expect("at work").lasted() < seconds(60), "who knows");
        let known = AtWork::taken_up(&begun, Some(now));
        assert!(known.expect("at work").lasted() >= seconds(9000 * 3600));
        let ended = JobState { ended_at: at(0), ..begun.clone() };
        assert!(AtWork::follow(known, &begun, &ended).expect("at work").lasted() >= seconds(9000 * 3600));
        assert!(
            AtWork::taken_up(&accepted, Some(now)).expect("at work").lasted() < seconds(60),
            "accepted in the future"
        );
    }

    #[test]
    fn a_job_that_runs_too_long_for_its_kind_is_cancelled_begun_or_not() {
        let runs = |kind, accepted| overdue(&Situation { kind, accepted: Some(seconds(accepted)), ..sent() }, &LIMITS);
        assert_eq!((runs(Kind::Backup, 3000), runs(Kind::Backup, 3001)), (None, Some(Decide::Cancel)));
        assert_eq!((runs(Kind::Prune, 2000), runs(Kind::Prune, 2001)), (None, Some(Decide::Cancel)));
    }

    #[test]
    fn spans_are_said_in_the_unit_that_fits() {
        assert_eq!([45, 120, 7200, 90].map(|length| span(seconds(length))), ["45 s", "2 min", "2 h", "90 s"]);
    }
}
