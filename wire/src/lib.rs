//! The contract between coordinator and agent: every message as a type, and the envelope around them.
//!
//! Messages from agents are the variants of [`ToCoordinator`], those to agents of [`ToAgent`]; [`decode`] and
//! [`encode`] turn them from and into the text of one WebSocket message. `docs/protocol.md` describes the same for
//! people who write an agent of their own. Both sides also share what they must judge alike: [`crontab`], for one, says
//! when a schedule fires.
//!
//! Reading is lenient where peers differ (absent, `null`, empty and the zero time mean the same), writing is strict:
//! UTC times, and nothing where there is nothing to say.

mod check_subset;
mod codec;
pub mod crontab;
mod duration;
mod ids;
mod lenient;
mod literals;
mod raw_json;
mod retention;
mod secret;
mod time;
mod to_agent;
mod to_coordinator;

pub use check_subset::is_check_subset;
pub use codec::{DecodeError, Decoded, Message, decode, encode};
pub use duration::parse_duration;
pub use ids::{EnvelopeId, JobId, JournalId, ScheduleId};
pub use literals::{Arch, Kind, LogStream, MaybeKnown, Os, Slot, Status};
pub use raw_json::RawJson;
pub use retention::{GroupNameError, RetentionError, RetentionPolicy, check_group_name};
pub use secret::Secret;
pub use time::Timestamp;
pub use to_agent::{
    Ack, AgentUpdateAvailable, Cap, CommandCancel, CommandRun, ConfigField, ConfigUpdate, ForgetGroup, ForgetLimit,
    Schedule, ScheduleSet, ScheduledGroup, ToAgent,
};
pub use to_coordinator::{
    CommandResult, Heartbeat, Hello, JobFinished, JobProgress, JobStarted, LogLine, RepoStats, ScheduleAck,
    ScheduleFire, Snapshot, SnapshotsReport, ToCoordinator,
};

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The protocol version that this crate speaks.
pub const PROTOCOL_VERSION: i64 = 1;

/// The capability (in `hello.capabilities`) of an agent that keeps a journal and understands `ack`.
pub const CAPABILITY_ACK: &str = "ack";

/// The capability of an agent that heeds `forget_groups[].host`, `dry_run` and `forget_limit` of a `command.run`. One
/// without it must never be given any of them: it would delete.
pub const CAPABILITY_FORGET_GUARD: &str = "forget-guard";

/// The largest message that is accepted, in bytes; a larger one closes the connection with [`close::TOO_BIG`].
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How often an agent sends `heartbeat`.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// A host that was silent for this long is offline.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(90);

/// How long an agent that was closed with [`close::REPLACED`] waits before it connects again.
pub const REPLACED_PAUSE: Duration = Duration::from_secs(300);

/// The WebSocket close codes of the contract.
pub mod close {
    /// The peer ends in good order (RFC 6455).
    pub const GOING_AWAY: u16 = 1001;
    /// A malformed message, or one before `hello`.
    pub const MALFORMED: u16 = 1002;
    /// The peer is not allowed to do this.
    pub const NOT_ALLOWED: u16 = 1008;
    /// A message over [`MAX_MESSAGE_BYTES`](crate::MAX_MESSAGE_BYTES).
    pub const TOO_BIG: u16 = 1009;
    /// Something is wrong with the peer itself (RFC 6455); a new connection may find it mended.
    pub const INTERNAL: u16 = 1011;
    /// `hello.protocol_version` is not one that the coordinator speaks.
    pub const VERSION_NOT_SPOKEN: u16 = 4000;
    /// A newer connection of the same host has taken over.
    pub const REPLACED: u16 = 4001;
}

/// `error`, in either direction: sent before a close, or for one refused envelope (whose id is the envelope's id).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorMessage {
    /// A stable word for programs, such as `unknown_job`.
    #[serde(default, deserialize_with = "lenient::null_is_default")]
    pub code: String,
    /// A sentence for people.
    #[serde(default, deserialize_with = "lenient::null_is_default")]
    pub message: String,
    /// The firing that was refused because its time is still to come (ours): its agent's clock is ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_firing: Option<EarlyFiring>,
}

/// A firing that an agent has told of before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyFiring {
    /// The schedule.
    pub schedule_id: ScheduleId,
    /// The instant, as the agent has said it.
    #[serde(with = "time::required")]
    pub scheduled_at: Timestamp,
    /// In how many seconds its time comes, whatever the agent's clock shows.
    pub in_seconds: i64,
}

impl ErrorMessage {
    /// An error of `code` with a sentence that says what was wrong.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), early_firing: None }
    }
}
