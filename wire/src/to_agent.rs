//! What the coordinator says.

use crate::codec::messages;
use crate::lenient::{empty_is_none, is_false, null_is_default};
use crate::{EnvelopeId, ErrorMessage, JobId, Kind, MaybeKnown, RawJson, RetentionPolicy, ScheduleId, Secret, Slot};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

messages!(
    /// Every message from the coordinator to an agent.
    ToAgent {
        /// Run this job.
        CommandRun(CommandRun) = "command.run",
        /// Stop that job.
        CommandCancel(CommandCancel) = "command.cancel",
        /// Settings of the host, as far as they change.
        ConfigUpdate(ConfigUpdate) = "config.update",
        /// The schedules of the host, all of them.
        ScheduleSet(ScheduleSet) = "schedule.set",
        /// There is a newer agent.
        AgentUpdateAvailable(AgentUpdateAvailable) = "agent.update.available",
        /// Envelopes are settled (ours).
        Ack(Ack) = "ack",
        /// Something is wrong with what the agent sent (ours).
        Error(ErrorMessage) = "error",
    }
);

/// A bandwidth limit in a message that may leave it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cap {
    /// Absent: what stands goes on (the agent's own cap; for a job, its host's).
    #[default]
    Unchanged,
    /// Present and zero or negative: no limit.
    Unlimited,
    /// Present: KiB a second, restic's unit; at least 1.
    KibPerSecond(i64),
}

impl Cap {
    /// The cap that a present `value` stands for.
    pub fn present(value: i64) -> Self {
        if value > 0 { Self::KibPerSecond(value) } else { Self::Unlimited }
    }

    /// True when the message says nothing about the cap.
    pub fn is_unchanged(&self) -> bool {
        matches!(self, Self::Unchanged)
    }

    /// What is in force, in KiB a second, where `current` was before.
    pub fn over(self, current: Option<i64>) -> Option<i64> {
        match self {
            Self::Unchanged => current,
            Self::Unlimited => None,
            Self::KibPerSecond(limit) => Some(limit),
        }
    }
}

impl Serialize for Cap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unchanged => serializer.serialize_none(),
            Self::Unlimited => serializer.serialize_i64(0),
            Self::KibPerSecond(limit) => serializer.serialize_i64(*limit),
        }
    }
}

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<i64>::deserialize(deserializer)?.map_or(Self::Unchanged, Self::present))
    }
}

/// `command.run`: everything that a job needs; hooks and groups are resolved already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandRun {
    /// The job.
    pub job_id: JobId,
    /// What to do.
    pub kind: MaybeKnown<Kind>,
    /// Arguments of the kind (for `check` the subset to read).
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Paths to back up, literally.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<String>,
    /// restic's exclude patterns.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// The source group's name, which becomes the snapshot's tag.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// For `forget`: one entry a source group.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub forget_groups: Vec<ForgetGroup>,
    /// For `forget`: report what would go, and delete nothing (ours).
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// For `forget`: how much it may delete (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forget_limit: Option<ForgetLimit>,
    /// Use the admin slot, and only then.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub requires_admin_creds: bool,
    /// Upload limit of this job.
    #[serde(default, skip_serializing_if = "Cap::is_unchanged")]
    pub bandwidth_up_kbps: Cap,
    /// Download limit of this job.
    #[serde(default, skip_serializing_if = "Cap::is_unchanged")]
    pub bandwidth_down_kbps: Cap,
    /// Shell text to run before a backup.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub pre_hook: Option<String>,
    /// Shell text to run after a backup, whatever came of it.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub post_hook: Option<String>,
}

impl CommandRun {
    /// A job of `kind` with nothing set.
    pub fn new(job_id: JobId, kind: Kind) -> Self {
        Self {
            job_id,
            kind: kind.into(),
            args: Vec::new(),
            includes: Vec::new(),
            excludes: Vec::new(),
            tag: None,
            forget_groups: Vec::new(),
            dry_run: false,
            forget_limit: None,
            requires_admin_creds: false,
            bandwidth_up_kbps: Cap::Unchanged,
            bandwidth_down_kbps: Cap::Unchanged,
            pre_hook: None,
            post_hook: None,
        }
    }
}

/// The policy of one source group in a `forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetGroup {
    /// The source group's name.
    pub tag: String,
    /// What to keep of it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub policy: RetentionPolicy,
    /// Whose snapshots are judged: the name under which that host makes them (ours); absent is the agent's own.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// How much one `forget` may delete, of all its groups together. Over any of these it deletes nothing and fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ForgetLimit {
    /// So many snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<i64>,
    /// Such a part of the snapshots that the groups have, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

impl ForgetLimit {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn check(&self) -> Result<(), String> {
        match (self.snapshots, self.share) {
            (Some(snapshots), _) if snapshots < 0 => {
                Err(format!("a limit of {snapshots} snapshots: it can't be negative"))
            }
            (_, Some(share)) if !(0.0..=1.0).contains(&share) => {
                Err(format!("a limit of {share} of the snapshots: give a share from 0 to 1"))
            }
            _ => Ok(()),
        }
    }
}

/// `command.cancel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandCancel {
    /// The job.
    pub job_id: JobId,
}

/// `config.update`: an absent or empty string leaves the agent's value as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigUpdate {
    /// Where the repository is, in restic's notation, without credentials.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub repo_url: Option<String>,
    /// The repository's password.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub repo_password: Option<Secret>,
    /// The REST server's user.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub repo_username: Option<String>,
    /// The REST server's password.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub repo_credential: Option<Secret>,
    /// The program that runs hooks.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub hook_shell: Option<String>,
    /// Which slot the credentials are for; absent is `repo`.
    #[serde(default, deserialize_with = "slot", skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// The host's upload limit.
    #[serde(default, skip_serializing_if = "Cap::is_unchanged")]
    pub bandwidth_up_kbps: Cap,
    /// The host's download limit.
    #[serde(default, skip_serializing_if = "Cap::is_unchanged")]
    pub bandwidth_down_kbps: Cap,
    /// Fields to forget before the others are applied, of this slot where they belong to one (ours).
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub clear: Vec<MaybeKnown<ConfigField>>,
}

impl ConfigUpdate {
    /// The slot that the credentials are for.
    pub fn target(&self) -> Slot {
        self.slot.unwrap_or(Slot::Repo)
    }
}

/// A field that `config.update.clear` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields of ConfigUpdate")]
pub enum ConfigField {
    RepoUrl,
    RepoPassword,
    RepoUsername,
    RepoCredential,
    HookShell,
}

fn slot<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Slot>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// `schedule.set`: the whole list, always.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduleSet {
    /// Rises with every change.
    pub version: i64,
    /// Every cron entry of the host.
    #[serde(default, deserialize_with = "null_is_default")]
    pub schedules: Vec<Schedule>,
}

/// One cron entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its id.
    pub id: ScheduleId,
    /// Five fields, as in crontab(5): an [`Expression`](crate::crontab::Expression).
    #[serde(default, deserialize_with = "null_is_default")]
    pub cron_expr: String,
    /// Whether it fires.
    #[serde(default, deserialize_with = "null_is_default")]
    pub enabled: bool,
    /// What it backs up.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub source_groups: Vec<ScheduledGroup>,
    /// The IANA time zone of the expression (ours); absent is the host's.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// How late a missed firing is still caught up, in seconds (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up_seconds: Option<i64>,
    /// Upload limit of its jobs (ours).
    #[serde(default, skip_serializing_if = "Cap::is_unchanged")]
    pub bandwidth_up_kbps: Cap,
    /// Download limit of its jobs (ours).
    #[serde(default, skip_serializing_if = "Cap::is_unchanged")]
    pub bandwidth_down_kbps: Cap,
}

/// A source group as a schedule carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduledGroup {
    /// Its name.
    pub name: String,
    /// Paths to back up.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<String>,
    /// restic's exclude patterns.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// Its retention policy, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<RawJson>,
    /// How often a failed backup is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_max: Option<i64>,
    /// Seconds before the first of these tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_backoff_seconds: Option<i64>,
    /// Shell text to run before (ours).
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub pre_hook: Option<String>,
    /// Shell text to run after (ours).
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub post_hook: Option<String>,
}

/// `agent.update.available`: for information; an agent never updates itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentUpdateAvailable {
    /// The version.
    #[serde(default, deserialize_with = "null_is_default")]
    pub latest_version: String,
    /// Where it is.
    #[serde(default, deserialize_with = "null_is_default")]
    pub package_url: String,
    /// What is new in it.
    #[serde(default, deserialize_with = "empty_is_none", skip_serializing_if = "Option::is_none")]
    pub changelog: Option<String>,
}

/// `ack`: every envelope with a lower or equal id that was received on this connection is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The highest settled id.
    pub up_to: EnvelopeId,
}
