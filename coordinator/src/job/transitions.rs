//! What an event makes of a job. Pure: the actor carries it out.
//!
//! `queued → running → succeeded | failed | cancelled`; queued may go straight to a terminal status; nothing leaves
//! one. Agents' times are kept as reported, everything that is decided goes by the coordinator's clock.

use crate::db::jobs::JobState;
use fleet_wire::{CommandResult, JobFinished, JobStarted, Status, Timestamp};

/// restic's exit code for a snapshot that lacks some of the files.
const EXIT_PARTIAL: i64 = 3;

/// How the error of a job begins that its agent has refused.
pub const REFUSED: &str = "refused by the agent: ";

/// How the error of a job begins whose run another host does.
pub const HANDED_ON: &str = "another host does it: ";

/// An agent's words about an outcome are kept up to this many bytes; it may say 16 MiB, and lists show hundreds of jobs.
const LONGEST_ERROR: usize = 64 * 1024;

/// Something that may change a job's state.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `command.run` is let go.
    Dispatched,
    /// The agent has it, or refuses it.
    Answered(CommandResult),
    /// Execution has begun.
    Started(JobStarted),
    /// The terminal report.
    Finished(JobFinished),
    /// Somebody wants it to end.
    CancelRequested,
    /// The coordinator knows that no report will come, and that nobody is at work.
    GivenUp {
        /// Why, for people.
        reason: String,
    },
    /// Nobody wants it any more, and it was not let go.
    Withdrawn {
        /// Why, for people.
        reason: String,
    },
    /// The coordinator stops waiting for a report; the agent may still be at work.
    Lost {
        /// Why, for people.
        reason: String,
    },
    /// A lost job is certainly not worked on any more.
    Released,
}

/// The state after `event`; `None` if it changes nothing.
pub fn apply(state: &JobState, event: &Event, now: Timestamp) -> Option<JobState> {
    if state.status.is_terminal() {
        return fill_in(state, event, now);
    }
    let mut next = state.clone();
    if matches!(event, Event::Answered(_) | Event::Started(_) | Event::Finished(_)) {
        next.dispatched_at.get_or_insert(now); // an agent that speaks of it has it
    }
    match event {
        Event::Dispatched => {
            next.dispatched_at.get_or_insert(now);
        }
        Event::Answered(CommandResult { accepted: true, .. }) => {
            next.accepted_at.get_or_insert(now);
        }
        // A refusal of what was accepted before makes no sense: the report decides.
        Event::Answered(_) if state.accepted_at.is_some() => {}
        Event::Answered(CommandResult { error, .. }) => {
            let reason = error.as_deref().map_or("the agent gave no reason", shortened);
            end(&mut next, Status::Failed, now);
            next.error = Some(format!("{REFUSED}{reason}"));
        }
        Event::Started(JobStarted { started_at, .. }) => {
            next.status = Status::Running;
            next.began_at.get_or_insert(now);
            next.accepted_at.get_or_insert(now);
            next.started_at = Some(started_at.unwrap_or(now));
        }
        Event::Finished(report) => finish(&mut next, report, now),
        Event::CancelRequested if state.dispatched_at.is_none() => {
            next.cancel_requested_at = Some(now);
            end(&mut next, Status::Cancelled, now);
        }
        Event::CancelRequested => {
            next.cancel_requested_at.get_or_insert(now);
        }
        Event::GivenUp { reason } => {
            end(&mut next, Status::Failed, now);
            next.error = Some(reason.clone());
        }
        Event::Withdrawn { reason } if state.dispatched_at.is_none() => {
            end(&mut next, Status::Cancelled, now);
            next.error = Some(reason.clone());
        }
        Event::Withdrawn { .. } => {}
        Event::Lost { reason } => {
            end(&mut next, Status::Failed, now);
            next.lost_at = Some(now);
            next.error = Some(reason.clone());
        }
        Event::Released => {}
    }
    (next != *state).then_some(next)
}

/// What a job that is over can still learn: when it began, and, if it was lost, what the agent says about its end. Then
/// the record says both.
fn fill_in(state: &JobState, event: &Event, now: Timestamp) -> Option<JobState> {
    let mut next = state.clone();
    let lost = state.lost_at.is_some() && state.released_at.is_none();
    match event {
        Event::Started(JobStarted { started_at, .. }) if state.started_at.is_none() => next.started_at = *started_at,
        Event::Finished(report) if lost => {
            let reason = state.error.as_deref().unwrap_or_default();
            let detail = report.error.as_deref().map(|error| format!(": {}", shortened(error))).unwrap_or_default();
            let (status, exit_code) = (report.status, report.exit_code);
            next.error = Some(format!("{reason}; the agent reported later: {status} (exit code {exit_code}){detail}"));
            next.finished_at = report.finished_at;
            next.exit_code = Some(exit_code);
            next.stats = report.stats.as_ref().map(|stats| stats.as_str().to_owned());
            next.released_at = Some(now);
        }
        // Nobody is at work on it, as is known by now.
        Event::Released | Event::GivenUp { .. } if lost => next.released_at = Some(now),
        _ => {}
    }
    (next != *state).then_some(next)
}

fn shortened(error: &str) -> &str {
    &error[..error.floor_char_boundary(LONGEST_ERROR)]
}

fn end(state: &mut JobState, status: Status, now: Timestamp) {
    state.status = status;
    state.ended_at = Some(now);
}

fn finish(state: &mut JobState, report: &JobFinished, now: Timestamp) {
    end(state, report.status, now);
    state.accepted_at.get_or_insert(now);
    state.finished_at = Some(report.finished_at.unwrap_or(now));
    state.exit_code = Some(report.exit_code);
    state.partial = report.status == Status::Succeeded && report.exit_code == EXIT_PARTIAL;
    state.error = report.error.as_deref().map(|error| shortened(error).to_owned());
    if state.partial && state.error.is_none() {
        state.error = Some("restic could not read some of the files (exit code 3); the log names them".to_owned());
    }
    state.stats = report.stats.as_ref().map(|stats| stats.as_str().to_owned());
}

/// Whether `event` shows that an agent takes up a job which ended here without its report (it had refused it before, or
/// it was given up): it has no lease any more, so the agent must leave it.
pub fn is_taken_up_in_vain(state: &JobState, event: &Event) -> bool {
    let taken_up = matches!(event, Event::Started(_) | Event::Answered(CommandResult { accepted: true, .. }));
    taken_up && state.status.is_terminal() && state.exit_code.is_none() && !state.holds_lease()
}

/// What the coordinator knows of a job's host when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The agent understands `ack`: a repeated `command.run` is answered, not run again.
    pub ack: bool,
    /// The agent's journal has the job among those that are not over.
    pub listed: bool,
    /// The journal is the one that the job was sent to, as far as that is known.
    pub same_journal: bool,
    /// `command.run` may have reached the agent before.
    pub sent_before: bool,
    /// Two agents use the host's token in turn: what this one does not list the other may have.
    pub cloned: bool,
}

/// What follows from a reconnect for a job that is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AfterReconnect {
    /// Send `command.run` (again).
    pub send_run: bool,
    /// Send `command.cancel` (again).
    pub send_cancel: bool,
    /// It is lost: the agent has no memory of what it accepted.
    pub lost: bool,
    /// It was lost, and the agent is not at work on it: its lease is free.
    pub release: bool,
}

/// Decides what to do about a job that is out when its host connects.
pub fn after_reconnect(state: &JobState, reconnect: Reconnect) -> AfterReconnect {
    if state.status.is_terminal() {
        let memory = reconnect.ack && (reconnect.same_journal || !reconnect.cloned);
        let release = state.holds_lease() && memory && !reconnect.listed;
        let send_cancel = reconnect.listed && state.cancel_requested_at.is_some();
        return AfterReconnect { release, send_cancel, ..AfterReconnect::default() };
    }
    let accepted = state.accepted_at.is_some();
    let elsewhere = reconnect.cloned && !reconnect.same_journal && reconnect.sent_before;
    // In the same journal an accepted job that is not listed has ended, and its report is on the way.
    let lost = reconnect.ack && (accepted || elsewhere) && !reconnect.listed && !reconnect.same_journal;
    let send_run = !accepted && !lost && !reconnect.listed && (reconnect.ack || !reconnect.sent_before);
    AfterReconnect { send_run, send_cancel: !lost && state.cancel_requested_at.is_some(), lost, release: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(1_790_000_000 + seconds, 0).expect("a time")
    }

    fn finished(status: Status, exit_code: i64) -> Event {
        Event::Finished(JobFinished {
            job_id: "j".into(),
            status,
            exit_code,
            finished_at: Some(at(50)),
            stats: None,
            error: None,
        })
    }

    fn started() -> Event {
        Event::Started(JobStarted { job_id: "j".into(), kind: fleet_wire::Kind::Backup.into(), started_at: None })
    }

    fn answered(accepted: bool) -> Event {
        Event::Answered(CommandResult { job_id: "j".into(), accepted, error: None })
    }

    fn run(events: &[Event]) -> JobState {
        events
            .iter()
            .zip(1..)
            .fold(JobState::new(), |state, (event, second)| apply(&state, event, at(second)).unwrap_or(state))
    }

    #[test]
    fn a_partial_backup_is_succeeded_and_never_silent() {
        let state = run(&[Event::Dispatched, answered(true), started(), finished(Status::Succeeded, 3)]);
        assert_eq!((state.status, state.partial), (Status::Succeeded, true));
        assert!(state.error.is_some());
    }

    #[test]
    fn a_refusal_ends_a_job_that_did_not_start_and_says_why() {
        let state = run(&[Event::Dispatched, answered(false)]);
        assert_eq!(state.status, Status::Failed);
        assert!(state.error.is_some_and(|error| error.contains("refused")));
        let running = run(&[Event::Dispatched, started(), answered(false)]);
        assert_eq!(running.status, Status::Running);
    }

    #[test]
    fn a_cancel_ends_a_queued_job_at_once_and_leaves_a_sent_one_to_its_agent() {
        assert_eq!(run(&[Event::CancelRequested]).status, Status::Cancelled);
        let sent = run(&[Event::Dispatched, Event::CancelRequested]);
        assert_eq!((sent.status, sent.cancel_requested_at), (Status::Queued, Some(at(2))));
        let crossed = run(&[Event::Dispatched, started(), Event::CancelRequested, finished(Status::Succeeded, 0)]);
        assert_eq!(crossed.status, Status::Succeeded);
    }

    #[test]
    fn a_job_that_ended_without_its_agent_must_not_be_taken_up() {
        let refused = run(&[Event::Dispatched, answered(false)]);
        assert!(is_taken_up_in_vain(&refused, &answered(true)) && is_taken_up_in_vain(&refused, &started()));
        let lost = run(&[Event::Dispatched, Event::Lost { reason: "lost".to_owned() }]);
        assert!(!is_taken_up_in_vain(&lost, &started()), "it still has its lease");
        let reported = run(&[Event::Dispatched, started(), finished(Status::Succeeded, 0)]);
        assert!(!is_taken_up_in_vain(&reported, &started()), "an old message that came late");
    }

    #[test]
    fn a_start_that_comes_after_the_end_is_kept_as_a_time_only() {
        let late = Event::Started(JobStarted {
            job_id: "j".into(),
            kind: fleet_wire::Kind::Backup.into(),
            started_at: Some(at(-7)),
        });
        let state = run(&[Event::Dispatched, finished(Status::Failed, 1), late]);
        assert_eq!((state.status, state.started_at), (Status::Failed, Some(at(-7))));
    }

    #[test]
    fn a_sent_run_is_repeated_only_to_agents_that_know_what_they_have() {
        let sent = run(&[Event::Dispatched]);
        let reconnect = Reconnect { ack: true, listed: false, same_journal: true, sent_before: true, cloned: false };
        assert!(after_reconnect(&sent, reconnect).send_run);
        assert!(!after_reconnect(&sent, Reconnect { ack: false, ..reconnect }).send_run);
        assert!(after_reconnect(&sent, Reconnect { ack: false, sent_before: false, ..reconnect }).send_run);
        assert!(!after_reconnect(&sent, Reconnect { listed: true, ..reconnect }).send_run);
    }

    #[test]
    fn an_accepted_job_is_lost_only_with_its_journal() {
        let accepted = run(&[Event::Dispatched, answered(true), Event::CancelRequested]);
        let reconnect = Reconnect { ack: true, listed: false, same_journal: true, sent_before: true, cloned: false };
        assert_eq!(
            after_reconnect(&accepted, reconnect),
            AfterReconnect { send_cancel: true, ..AfterReconnect::default() }
        );
        let twin = Reconnect { same_journal: false, cloned: true, ..reconnect };
        let sent = run(&[Event::Dispatched]);
        assert!(after_reconnect(&sent, twin).lost && !after_reconnect(&sent, twin).send_run, "the other may have it");
        let other = Reconnect { same_journal: false, ..reconnect };
        assert_eq!(after_reconnect(&accepted, other), AfterReconnect { lost: true, ..AfterReconnect::default() });
    }

    #[test]
    fn a_lost_job_keeps_its_lease_and_then_says_both() {
        let lost = run(&[Event::Dispatched, started(), Event::Lost { reason: "agent lost".to_owned() }]);
        assert!(lost.status == Status::Failed && lost.holds_lease());
        let late = apply(&lost, &finished(Status::Succeeded, 0), at(9)).expect("a change");
        assert!(late.status == Status::Failed && !late.holds_lease());
        let error = late.error.expect("an error");
        assert!(error.contains("agent lost") && error.contains("succeeded (exit code 0)"), "{error}");
        let returned = Reconnect { ack: true, listed: false, same_journal: true, sent_before: true, cloned: false };
        assert!(after_reconnect(&lost, returned).release);
        assert!(!after_reconnect(&lost, Reconnect { listed: true, ..returned }).release);
        assert!(!after_reconnect(&lost, Reconnect { ack: false, ..returned }).release);
        assert!(!after_reconnect(&lost, Reconnect { cloned: true, same_journal: false, ..returned }).release);
        let removed = apply(&lost, &Event::GivenUp { reason: "removed".to_owned() }, at(9)).expect("a change");
        assert!(!removed.holds_lease() && removed.error.is_some_and(|error| error == "agent lost"));
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Dispatched),
            any::<bool>().prop_map(answered),
            Just(started()),
            Just(finished(Status::Succeeded, 0)),
            Just(finished(Status::Failed, 1)),
            Just(finished(Status::Cancelled, 130)),
            Just(Event::CancelRequested),
            Just(Event::GivenUp { reason: "removed".to_owned() }),
            Just(Event::Lost { reason: "lost".to_owned() }),
            Just(Event::Released),
        ]
    }

    proptest! {
        #[test]
        fn a_terminal_status_stays_and_every_end_has_its_time(events in prop::collection::vec(any_event(), 0..12)) {
            let mut state = JobState::new();
            for (event, second) in events.iter().zip(1..) {
                let next = apply(&state, event, at(second)).unwrap_or_else(|| state.clone());
                if state.status.is_terminal() {
                    prop_assert_eq!((next.status, next.ended_at), (state.status, state.ended_at));
                    prop_assert!(next.error == state.error || state.lost_at.is_some());
                    prop_assert!(!next.holds_lease() || state.holds_lease(), "a lease is not taken back");
                }
                prop_assert!(!(state.status == Status::Running && next.status == Status::Queued));
                prop_assert_eq!(next.status.is_terminal(), next.ended_at.is_some());
                state = next;
            }
            let over = apply(&state, &finished(Status::Succeeded, 0), at(99)).unwrap_or(state);
            prop_assert!(over.status.is_terminal());
        }
    }
}
