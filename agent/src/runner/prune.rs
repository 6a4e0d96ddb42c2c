//! `prune`: removes the data that no snapshot needs. restic has no JSON for it up to 0.19.1.

use super::job::Job;
use super::stats;
use crate::outcome::Outcome;
use crate::restic::command;
use crate::restic::heard::Heard;
use crate::restic::listen::Listen;
use chrono::Utc;
use fleet_wire::{RawJson, RepoStats};
use serde::Serialize;

/// What restic's words say about a prune, as an object of our own.
#[derive(Debug, Serialize)]
struct PruneStats {
    freed_blobs: Option<i64>,
    freed_bytes: Option<i64>,
    remaining_blobs: Option<i64>,
    remaining_bytes: Option<i64>,
}

impl From<&Heard> for PruneStats {
    fn from(heard: &Heard) -> Self {
        Self {
            freed_blobs: heard.pruned.map(|pruned| pruned.blobs),
            freed_bytes: heard.pruned.map(|pruned| pruned.bytes),
            remaining_blobs: heard.remaining.map(|remaining| remaining.blobs),
            remaining_bytes: heard.remaining.map(|remaining| remaining.bytes),
        }
    }
}

pub(super) async fn run(job: &Job<'_>) -> Outcome {
    let prune = match job.restic(command::prune(job.bandwidth()), Listen::Log).await {
        Ok(prune) => prune,
        Err(outcome) => return outcome,
    };
    if !prune.is_success() {
        return job.failed(&prune);
    }
    let not_removed = prune.heard.not_removed;
    if not_removed > 0 {
        let error = format!(
            "{not_removed} file(s) could not be removed from the repository, though restic exited with 0: is the \
             credential one that may delete? The log names them"
        );
        return Outcome::failed(prune.exit_code(), error);
    }
    let pruned = PruneStats::from(&prune.heard);
    let news = RepoStats {
        last_prune_at: Some(Utc::now()),
        last_prune_freed_bytes: pruned.freed_bytes,
        ..RepoStats::default()
    };
    stats::report_all(job, news).await;
    Outcome::succeeded(RawJson::of(&pruned).ok())
}
