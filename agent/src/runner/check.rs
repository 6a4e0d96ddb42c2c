//! `check`: verifies the repository.

use super::job::Job;
use super::stats;
use crate::outcome::Outcome;
use crate::restic::command;
use crate::restic::failure::Failure;
use crate::restic::listen::Listen;
use chrono::Utc;
use fleet_wire::{RawJson, RepoStats};

/// `last_check_status` of a sound repository.
const OK: &str = "ok";

/// `last_check_status` of a damaged one.
const ERRORS: &str = "errors";

/// The summary of restic 0.18 counts an error when the repository is locked or the check is cancelled: the exit code
/// and the words judge, never `num_errors`.
pub(super) async fn run(job: &Job<'_>) -> Outcome {
    let subset = job.context.run.args.first().filter(|subset| !subset.is_empty());
    let args = command::check(subset.map(String::as_str), job.bandwidth());
    let check = match job.restic(args, Listen::Log).await {
        Ok(check) => check,
        Err(outcome) => return outcome,
    };
    let mut outcome = if check.is_success() { Outcome::succeeded(None) } else { job.failed(&check) };
    let status = match (check.is_success(), check.failure()) {
        (true, _) => Some(OK),
        (false, Failure::Damaged(_)) => Some(ERRORS),
        // It did not come to a verdict.
        (false, _) => None,
    };
    if let Some(status) = status {
        outcome.stats = check.heard.summary.and_then(|summary| RawJson::new(summary).ok());
        let news = RepoStats {
            last_check_at: Some(Utc::now()),
            last_check_status: Some(status.to_owned()),
            ..RepoStats::default()
        };
        stats::report_lock(job, news).await;
    }
    outcome
}
