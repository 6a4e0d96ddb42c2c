//! What agents say.

use crate::codec::messages;
use crate::lenient::{empty_is_none, null_is_default};
use crate::{
    Arch, ErrorMessage, JobId, JournalId, Kind, LogStream, MaybeKnown, Os, RawJson, ScheduleId, Status, Timestamp, time,
};
use serde::{Deserialize, Serialize};

messages!(
    /// Every message from an agent to the coordinator.
    ToCoordinator {
        /// The first message of a connection.
        Hello(Hello) = "hello",
        /// The agent is there.
        Heartbeat(Heartbeat) = "heartbeat",
        /// Answers a `command.run`.
        CommandResult(CommandResult) = "command.result",
        /// Execution has begun.
        JobStarted(JobStarted) = "job.started",
        /// How far a job is.
        JobProgress(JobProgress) = "job.progress",
        /// The terminal report of a job.
        JobFinished(JobFinished) = "job.finished",
        /// One line of a job's log.
        LogLine(LogLine) = "log.stream",
        /// The host's snapshots, all of them.
        SnapshotsReport(SnapshotsReport) = "snapshots.report",
        /// What is new about the repository.
        RepoStats(RepoStats) = "repo.stats",
        /// A version of the schedules is applied.
        ScheduleAck(ScheduleAck) = "schedule.ack",
        /// A cron entry has fired.
        ScheduleFire(ScheduleFire) = "schedule.fire",
        /// Something is wrong with what the coordinator sent.
        Error(ErrorMessage) = "error",
    }
);

/// `hello`: the first message after authentication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol version that the agent speaks.
    pub protocol_version: i64,
    /// The agent's own version.
    #[serde(default, deserialize_with = "null_is_default")]
    pub agent_version: String,
    /// The version of the host's restic; empty if there is none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub restic_version: String,
    /// The host's name. The token says which host this is, never this.
    #[serde(default, deserialize_with = "null_is_default")]
    pub hostname: String,
    /// The host's operating system.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: MaybeKnown<Os>,
    /// The host's processor architecture.
    #[serde(default, deserialize_with = "null_is_default")]
    pub arch: MaybeKnown<Arch>,
    /// When the host was booted.
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    pub boot_time: Option<Timestamp>,
    /// What the agent understands beyond the contract's core (ours).
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// The id of the agent's journal (ours).
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalId>,
    /// The jobs in that journal that are not over (ours).
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobId>,
}

impl Hello {
    /// Whether the agent understands `capability`.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }
}

/// `heartbeat`, every [`HEARTBEAT_INTERVAL`](crate::HEARTBEAT_INTERVAL). Its presence is the signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The agent's clock.
    #[serde(default, with = "time::optional")]
    pub sent_at: Option<Timestamp>,
}

/// `command.result`: the agent has a job on its own disk, or refuses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The job.
    pub job_id: JobId,
    /// False if it was refused.
    #[serde(default, deserialize_with = "null_is_default")]
    pub accepted: bool,
    /// Why it was refused, for people.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `job.started`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobStarted {
    /// The job.
    pub job_id: JobId,
    /// Its kind.
    pub kind: MaybeKnown<Kind>,
    /// When, by the agent's clock.
    #[serde(default, with = "time::optional")]
    pub started_at: Option<Timestamp>,
}

/// `job.progress`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobProgress {
    /// The job.
    pub job_id: JobId,
    /// A fraction from 0 to 1, as restic gives it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub percent_done: f64,
    /// Files done so far.
    #[serde(default, deserialize_with = "null_is_default")]
    pub files_done: i64,
    /// Files known so far; it grows while restic scans.
    #[serde(default, deserialize_with = "null_is_default")]
    pub total_files: i64,
    /// Bytes of the source done so far.
    #[serde(default, deserialize_with = "null_is_default")]
    pub bytes_done: i64,
    /// Bytes of the source known so far.
    #[serde(default, deserialize_with = "null_is_default")]
    pub total_bytes: i64,
    /// Seconds to go; 0 if unknown.
    #[serde(default, deserialize_with = "null_is_default")]
    pub eta_seconds: i64,
    /// Bytes a second.
    #[serde(default, deserialize_with = "null_is_default")]
    pub throughput_bps: i64,
}

/// `job.finished`: the terminal report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobFinished {
    /// The job.
    pub job_id: JobId,
    /// A terminal status.
    #[serde(deserialize_with = "terminal")]
    pub status: Status,
    /// restic's exit code; 3 beside `succeeded` is a partial backup.
    #[serde(default, deserialize_with = "null_is_default")]
    pub exit_code: i64,
    /// When, by the agent's clock.
    #[serde(default, with = "time::optional")]
    pub finished_at: Option<Timestamp>,
    /// restic's summary, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<RawJson>,
    /// What went wrong, for people.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn terminal<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Status, D::Error> {
    let status = Status::deserialize(deserializer)?;
    if status.is_terminal() {
        Ok(status)
    } else {
        Err(serde::de::Error::custom(format!("{status} is not a terminal status")))
    }
}

/// `log.stream`: one line of a job's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// The job.
    pub job_id: JobId,
    /// Orders the lines of a job.
    pub seq: i64,
    /// When it was written, by the agent's clock.
    #[serde(default, with = "time::optional")]
    pub ts: Option<Timestamp>,
    /// Which stream.
    pub stream: LogStream,
    /// The line, without its end; any Unicode.
    #[serde(default, deserialize_with = "null_is_default")]
    pub payload: String,
}

/// `snapshots.report`: replaces what the coordinator had for the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotsReport {
    /// Every snapshot of the host.
    #[serde(default, deserialize_with = "null_is_default")]
    pub snapshots: Vec<Snapshot>,
    /// When the list was made (ours).
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
}

/// One snapshot of a `snapshots.report`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// restic's id, 64 hexadecimal digits.
    pub id: String,
    /// Its first eight.
    #[serde(default, deserialize_with = "null_is_default")]
    pub short_id: String,
    /// When it was made.
    #[serde(default, with = "time::optional")]
    pub time: Option<Timestamp>,
    /// The host that is written in it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub hostname: String,
    /// The sources.
    #[serde(default, deserialize_with = "null_is_default")]
    pub paths: Vec<String>,
    /// Its tags, the source group's name among them.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Bytes of the source; 0 where restic is too old to know (before 0.17).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Files of the source; 0 where restic is too old to know (before 0.17).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_count: Option<i64>,
}

/// `repo.stats`: a partial update; what is absent is no news.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RepoStats {
    /// Bytes of all snapshots, as if restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size_bytes: Option<i64>,
    /// Bytes of the data that snapshots refer to, as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_size_bytes: Option<i64>,
    /// Files with distinct contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_files: Option<i64>,
    /// Snapshots in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_count: Option<i64>,
    /// When it was last checked.
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    pub last_check_at: Option<Timestamp>,
    /// What came of that.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub last_check_status: Option<String>,
    /// Whether a lock stands in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_present: Option<bool>,
    /// When it was last pruned.
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    pub last_prune_at: Option<Timestamp>,
    /// Bytes that this prune freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_prune_freed_bytes: Option<i64>,
    /// When this was measured (ours).
    #[serde(default, with = "time::optional", skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
}

/// `schedule.ack`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleAck {
    /// The version of the `schedule.set`.
    pub version: i64,
    /// When it was applied, by the agent's clock.
    #[serde(default, with = "time::optional")]
    pub applied_at: Option<Timestamp>,
}

/// `schedule.fire`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleFire {
    /// The entry.
    pub schedule_id: ScheduleId,
    /// The nominal instant of the firing.
    #[serde(with = "time::required")]
    pub scheduled_at: Timestamp,
    /// One job id for each source group, made by the agent (ours).
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub job_ids: Vec<JobId>,
    /// The names of these groups, in the order of `job_ids` (ours): the schedule may have changed since.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub source_groups: Vec<String>,
}
