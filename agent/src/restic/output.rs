//! What restic prints, as types. Every field has a default: versions differ, and zeros are left out.

use chrono::{DateTime, Utc};
use fleet_wire::Snapshot;
use serde::Deserialize;
use serde_json::value::RawValue;

/// One `--json` object of restic on a line of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// How far a backup is.
    Status(Progress),
    /// The end of a backup or a check.
    Summary,
    /// A file could not be read, or a check found something.
    Error(ErrorEvent),
    /// restic's last words (0.18 and later).
    ExitError(String),
    /// Any other object.
    Other,
}

/// The figures of a `status` message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// A fraction from 0 to 1.
    pub percent_done: f64,
    /// Files known so far.
    pub total_files: i64,
    /// Files done.
    pub files_done: i64,
    /// Bytes known so far.
    pub total_bytes: i64,
    /// Bytes done.
    pub bytes_done: i64,
    /// Seconds to go; 0 if unknown.
    pub seconds_remaining: i64,
}

/// An `error` message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorEvent {
    /// The file, for a backup.
    pub item: Option<String>,
    /// It was met while counting; the same item is met again when it is read.
    pub counting: bool,
    /// What is wrong. restic before 0.17.1 doesn't say (its `error` is `{}`).
    pub message: Option<String>,
}

/// The summary of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackupSummary {
    /// The new snapshot: 8 digits in 0.14, all 64 since 0.15.
    pub snapshot_id: String,
    /// Files in it.
    pub total_files_processed: i64,
    /// Their bytes.
    pub total_bytes_processed: i64,
}

/// What `restic stats` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Bytes; of what, depends on the mode.
    pub total_size: i64,
    /// Files; of what, depends on the mode.
    pub total_file_count: i64,
    /// Snapshots that were counted.
    pub snapshots_count: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope<'a> {
    message_type: String,
    item: Option<String>,
    message: Option<String>,
    during: Option<String>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorText {
    message: Option<String>,
}

/// Reads a line as an event; `None` if it is plain text.
pub fn read_event(line: &str) -> Option<Event> {
    let line = line.trim();
    if !line.starts_with('{') {
        return None;
    }
    let envelope: Envelope<'_> = serde_json::from_str(line).ok()?;
    Some(match envelope.message_type.as_str() {
        "" => return None,
        "status" => Event::Status(serde_json::from_str(line).unwrap_or_default()),
        "summary" => Event::Summary,
        "error" => {
            let text = envelope.error.and_then(|error| serde_json::from_str::<ErrorText>(error.get()).ok());
            Event::Error(ErrorEvent {
                item: envelope.item.filter(|item| !item.is_empty()),
                counting: envelope.during.as_deref() == Some("scan"),
                message: text.unwrap_or_default().message.or(envelope.message),
            })
        }
        "exit_error" => Event::ExitError(envelope.message.unwrap_or_default()),
        _ => Event::Other,
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListedSnapshot {
    id: String,
    time: Option<DateTime<Utc>>,
    hostname: String,
    paths: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    summary: Option<BackupSummary>,
}

impl From<ListedSnapshot> for Snapshot {
    fn from(listed: ListedSnapshot) -> Self {
        // Both the restic that wrote a snapshot and the one that reads it must be 0.17 or later to know its size.
        let summary = listed.summary.unwrap_or_default();
        Self {
            short_id: listed.id.chars().take(8).collect(),
            id: listed.id,
            time: listed.time,
            hostname: listed.hostname,
            paths: listed.paths.unwrap_or_default(),
            tags: listed.tags.unwrap_or_default(),
            size_bytes: Some(summary.total_bytes_processed),
            file_count: Some(summary.total_files_processed),
        }
    }
}

/// Reads `restic snapshots --json`.
///
/// # Errors
/// What the JSON parser found wrong.
pub fn read_snapshots(printed: &[u8]) -> serde_json::Result<Vec<Snapshot>> {
    let listed: Vec<ListedSnapshot> = serde_json::from_slice(printed)?;
    Ok(listed.into_iter().map(Snapshot::from).collect())
}

/// What `restic forget` says about one group of snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Forgotten {
    /// What it keeps.
    pub keep: Option<Vec<SnapshotId>>,
    /// What it says that it removed; `null` for nothing.
    pub remove: Option<Vec<SnapshotId>>,
}

impl Forgotten {
    /// Whether the newest of these snapshots stays; true if nothing goes.
    pub fn spares_the_newest(&self) -> bool {
        let newest = |list: &Option<Vec<SnapshotId>>| list.iter().flatten().map(|snapshot| snapshot.time).max();
        let goes = newest(&self.remove);
        goes.is_none() || newest(&self.keep) >= goes
    }
}

/// The id out of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SnapshotId {
    /// All 64 digits.
    pub id: String,
    /// When it was made.
    pub time: Option<DateTime<Utc>>,
}

/// Reads `restic forget --json`, which prints nothing at all when no snapshot matches.
///
/// # Errors
/// What the JSON parser found wrong.
pub fn read_forgotten(printed: &[u8]) -> serde_json::Result<Vec<Forgotten>> {
    if printed.trim_ascii().is_empty() { Ok(Vec::new()) } else { serde_json::from_slice(printed) }
}

/// What a prune says that it takes away: `total prune:  20 blobs / 2.865 MiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs.
    pub blobs: i64,
    /// Bytes, as exact as three decimals of restic's unit are.
    pub bytes: i64,
}

/// Reads that line; units are to the base of 1024 (restic 0.14 to 0.19).
pub fn read_pruned(line: &str) -> Option<Pruned> {
    read_blobs(line.trim().strip_prefix("total prune:")?)
}

/// The same for what stays: `remaining:  12 blobs / 148.530 KiB`.
pub fn read_remaining(line: &str) -> Option<Pruned> {
    read_blobs(line.trim().strip_prefix("remaining:")?)
}

/// Whether this line of standard error tells that a file stays which was to go (restic 0.14 and 0.18; 0.14 puts the name
/// in `<>`). restic's exit code does not tell.
pub fn is_not_removed(line: &str) -> bool {
    line.starts_with("unable to remove ") && line.trim_end().ends_with(" from the repository")
}

fn read_blobs(rest: &str) -> Option<Pruned> {
    let (blobs, size) = rest.split_once(" blobs / ")?;
    let (number, unit) = size.trim().split_once(' ')?;
    let factor: f64 = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)? * factor;
    #[allow(clippy::cast_possible_truncation, reason = "a float beyond the range becomes its end, which is harmless")]
    Some(Pruned { blobs: blobs.trim().parse().ok()?, bytes: bytes.round() as i64 })
}

/// Reads a text line of progress: `[0:01] 46.15%  24 / 52 packs` is 0.4615.
pub fn read_text_progress(line: &str) -> Option<f64> {
    let (time, rest) = line.trim().strip_prefix('[')?.split_once("] ")?;
    if !time.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') {
        return None;
    }
    let percent: f64 = rest.trim_start().split_once('%')?.0.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

/// The ids that `restic list locks` prints, one a line.
pub fn read_ids(printed: &[u8]) -> Vec<String> {
    let lines = String::from_utf8_lossy(printed);
    let is_id = |line: &&str| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    lines.lines().map(str::trim).filter(is_id).map(str::to_owned).collect()
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
