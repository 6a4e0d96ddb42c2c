//! What stands in the journal, and what is written into it.

use crate::cron::{Early, Firing, Handled, Which};
use crate::outcome::Outcome;
use crate::process::Mark;
use fleet_wire::{CommandRun, JobId, Kind, LogStream, MaybeKnown, ScheduleId, Timestamp, ToCoordinator};
use serde::{Deserialize, Serialize};

/// Where a job stands in the journal. It only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobState {
    /// On disk, promised to the coordinator.
    Accepted,
    /// Its execution has begun.
    Started,
    /// Its outcome is in the outbox.
    Finished,
    /// The coordinator has the outcome; the record is kept so that the job is never run again.
    Settled,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    /// Counts the jobs of this journal, in the order of their acceptance.
    pub(super) number: u64,
    pub(super) kind: MaybeKnown<Kind>,
    /// The source group, of a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<String>,
    pub(super) state: JobState,
    /// The `seq` of its next log line.
    pub(super) next_seq: i64,
    /// Log lines that had to go because the journal was full.
    #[serde(default)]
    pub(super) dropped: u64,
    /// The id of the envelope with its outcome.
    #[serde(default)]
    pub(super) outcome_id: Option<u64>,
    /// How far the output of its children is in its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mark: Option<Mark>,
}

/// What the journal says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Of the layout on disk.
    pub(super) version: u32,
    pub(super) journal: String,
    /// The id of the next envelope.
    pub(super) next_id: u64,
    /// The number of the next job.
    pub(super) next_number: u64,
    /// What the outbox holds, in bytes, by [`super::tables::cost`].
    pub(super) outbox_bytes: u64,
    /// Whether an envelope was ever acknowledged.
    #[serde(default)]
    pub(super) acknowledged: bool,
    /// Counts the transactions: after one whose end is unknown it tells whether it was made.
    #[serde(default)]
    pub(super) commits: u64,
}

/// One change; many make a transaction.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// A job that the coordinator sent; refused if there is a reason, and answered either way.
    Accept { run: Box<CommandRun>, refusal: Option<String> },
    /// A schedule has fired, and with that so much of it is dealt with.
    Fire { firing: Box<Firing>, handled: Handled },
    /// So much of a schedule is dealt with; nothing, if it is no more.
    Handled { schedule: ScheduleId, handled: Option<Handled> },
    /// A firing came before its time, and is to fire again.
    TakeBack { which: Which, early: Early },
    /// A job of the firing with this envelope is started without the coordinator, or refused if there is a reason.
    StartLocally { firing: u64, job_id: JobId, refusal: Option<String> },
    /// A job's execution begins.
    Started { job_id: JobId, at: Timestamp },
    /// A line for a job's log.
    Log { job_id: JobId, ts: Timestamp, stream: LogStream, line: String, mark: Option<Mark> },
    /// A job is over.
    Finish { job_id: JobId, outcome: Outcome, at: Timestamp },
    /// Any other message that must arrive.
    Send(Box<ToCoordinator>),
    /// The coordinator has all envelopes up to this id.
    Ack { up_to: u64 },
    /// The same, as far as can be told of a coordinator that never acknowledged anything; nothing if one ever did.
    Assume { up_to: u64 },
}

impl Write {
    /// The bytes of its log line, if it is one; anything else is small or rare.
    pub(super) fn line_bytes(&self) -> usize {
        match self {
            Self::Log { line, .. } => line.len(),
            _ => 0,
        }
    }
}

/// What came of a write that somebody waits for: [`Write::Accept`], [`Write::Fire`], [`Write::Handled`], [`Write::TakeBack`]
/// and [`Write::StartLocally`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    New,
    /// It was done before.
    Known,
    /// The refusal is given.
    Refused,
    /// The job is not this agent's to start.
    Left,
}

/// What the journal made of a `command.run`, or of a job that the agent would start by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is on disk, and its `command.result` with it: run it.
    New,
    /// It was there before; its `command.result` is in the outbox again.
    Known,
    /// The given refusal is in the outbox.
    Refused,
    /// Of a job that the agent would start by itself: the coordinator knows of the firing by now, or an earlier backup
    /// of the group is not over. The agent does not start it any more.
    Left,
    /// The disk does not take it. Nothing is in the outbox: the answer has to be sent past it.
    NotStored {
        /// Whether the job was there before.
        known: bool,
        /// What is wrong, for people.
        reason: String,
    },
}

/// A job that was not over when the agent ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Leftover {
    /// The job.
    pub job_id: JobId,
    /// Whether its execution had begun.
    pub started: bool,
    /// What to run; `None` if the journal does not hold it in a form that this agent reads.
    pub run: Option<CommandRun>,
    /// How far the output of its children is in its log.
    pub mark: Option<Mark>,
}
