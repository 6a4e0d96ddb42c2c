//! The ledger of expected runs: what was due when, and what became of it.
//!
//! A row is made when a run is due, or when its agent fires it, whichever is known first; its id is made from what is
//! due when, so both make the same. It follows the job of its latest attempt, and is written in the transactions that
//! make that job and end it.

mod claims;
mod due;
mod endings;
mod read;
mod rows;
mod success;

pub use claims::{Claim, claim_many};
pub use due::{Expect, MarkMissed, Moved, SetRight};
pub(super) use endings::column;
#[cfg(test)]
pub(crate) use endings::spread;
pub use endings::{Ending, GiveUpRetries, settle_many};
pub use read::{Stranded, Whose, adoptable, count_since, list, open_maintenance, stranded, to_retry};
pub use rows::NoteRuns;
pub(super) use rows::expect_all;

use super::schema::runs;
use super::storable;
use chrono::SubsecRound;
use diesel::prelude::*;
use fleet_wire::{Kind, Timestamp};
use sha2::{Digest, Sha256};
use std::fmt;
use uuid::{Builder, Uuid};

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is due, and nothing was heard of it yet.
    Expected,
    /// Its job is not over.
    Running,
    /// An attempt has failed, and there will be another.
    Retrying,
    /// Done.
    Succeeded,
    /// Done, but not everything could be read.
    Partial,
    /// The last attempt has failed.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// Nobody did it.
    Missed,
    /// It was not to be done.
    Skipped,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Expected,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Partial,
        Self::Failed,
        Self::Cancelled,
        Self::Missed,
        Self::Skipped,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Missed => "missed",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `attempt` of a run that was skipped without a word of its agent: if that tells of a firing later, the firing is
/// judged, and what it has run by itself is adopted.
pub const UNHEARD_OF: i64 = 0;

/// A run as it stands in its row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = runs)]
#[allow(missing_docs, reason = "the columns; the migration says what they mean")]
pub struct Run {
    pub id: Uuid,
    pub kind: String,
    pub host_id: Option<Uuid>,
    pub source_group: Option<String>,
    pub schedule_id: Option<Uuid>,
    pub repository_id: Option<Uuid>,
    pub due_at: Timestamp,
    pub outcome: String,
    pub reason: Option<String>,
    pub job_id: Option<Uuid>,
    pub attempt: i64,
    pub changed_at: Timestamp,
}

impl Run {
    /// The backup of a group that a schedule wants at `due_at`.
    pub fn of_schedule(schedule_id: Uuid, host_id: Uuid, group: &str, due_at: Timestamp, now: Timestamp) -> Self {
        let due_at = due_at.trunc_subsecs(6);
        Self {
            id: id_of(&[schedule_id.as_bytes(), group.as_bytes()], due_at),
            kind: Kind::Backup.as_str().to_owned(),
            host_id: Some(host_id),
            source_group: Some(group.to_owned()),
            schedule_id: Some(schedule_id),
            repository_id: None,
            due_at,
            outcome: Outcome::Expected.as_str().to_owned(),
            reason: None,
            job_id: None,
            attempt: 1,
            changed_at: now.trunc_subsecs(6),
        }
    }

    /// A repository's maintenance of a kind that is due at `due_at`; one host's part of it if each does its own.
    pub fn of_maintenance(
        repository_id: Uuid,
        kind: &str,
        host_id: Option<Uuid>,
        due_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        let due_at = due_at.trunc_subsecs(6);
        let host = host_id.map(Uuid::into_bytes).unwrap_or_default();
        Self {
            id: id_of(&[repository_id.as_bytes(), kind.as_bytes(), &host], due_at),
            kind: kind.to_owned(),
            host_id,
            source_group: None,
            schedule_id: None,
            repository_id: Some(repository_id),
            due_at,
            outcome: Outcome::Expected.as_str().to_owned(),
            reason: None,
            job_id: None,
            attempt: 1,
            changed_at: now.trunc_subsecs(6),
        }
    }

    /// Whether its `job_id` is that of a job.
    pub fn has_job(&self) -> bool {
        let none = [Outcome::Expected, Outcome::Missed, Outcome::Skipped];
        self.job_id.is_some() && none.iter().all(|outcome| outcome.as_str() != self.outcome)
    }

    /// The same with an outcome and why.
    #[must_use]
    pub fn with(self, outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome: outcome.as_str().to_owned(), reason: Some(storable(&reason.into())), ..self }
    }
}

/// The id of what is due: the same whoever finds it due.
fn id_of(what: &[&[u8]], due_at: Timestamp) -> Uuid {
    let mut digest = Sha256::new();
    for part in what {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(due_at.timestamp_micros().to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn what_is_due_has_one_id_and_nothing_else_has_it() {
        let at = |seconds: i64| DateTime::from_timestamp(1_790_000_000 + seconds, 0).expect("a time");
        let run = |schedule, group, seconds| {
            Run::of_schedule(Uuid::from_u128(schedule), Uuid::from_u128(9), group, at(seconds), at(99)).id
        };
        assert_eq!(run(1, "docs", 0), run(1, "docs", 0));
        let others = [run(1, "docs", 60), run(1, "doc", 0), run(2, "docs", 0)];
        assert!(others.iter().all(|other| *other != run(1, "docs", 0)));
    }
}
