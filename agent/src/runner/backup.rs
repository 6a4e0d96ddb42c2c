//! `backup`: one snapshot of a source group.
//!
//! pre-hook → are the includes there? → `restic backup` → is the snapshot in the list? → post-hook → report.

use super::context::JobContext;
use super::hooks::{self, HookFailure};
use super::job::Job;
use super::limits::Limits;
use super::{snapshots, stats};
use crate::outcome::Outcome;
use crate::restic::Finished;
use crate::restic::command;
use crate::restic::listen::Listen;
use crate::restic::output::BackupSummary;
use fleet_wire::{LogStream, RawJson, RepoStats, SnapshotsReport, Status};
use std::io::ErrorKind;

/// The exit code of every partial backup, as restic has it for unreadable files.
const PARTIAL: i64 = 3;

/// How many missing includes are named in a job's error.
const NAMED_INCLUDES: usize = 5;

/// A backup up to its post-hook.
#[derive(Debug)]
struct Made {
    outcome: Outcome,
    snapshot_id: String,
    list: Option<SnapshotsReport>,
}

impl From<Outcome> for Made {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, snapshot_id: String::new(), list: None }
    }
}

pub(super) async fn run(context: &JobContext, limits: Limits) -> Outcome {
    let prepared = Job::prepare(context, limits).await;
    let made = match &prepared {
        Ok(job) => make(job).await,
        Err(outcome) => outcome.clone().into(),
    };
    let Made { mut outcome, snapshot_id, list } = made;
    match hooks::post(context, &limits, &outcome, &snapshot_id).await {
        Ok(()) => {}
        Err(HookFailure::Failed(how)) => outcome.note(&format!("the post-hook {how}")),
        Err(HookFailure::Stopped(_)) => outcome.note("the post-hook was stopped"),
    }
    if let Ok(job) = &prepared
        && outcome.status == Status::Succeeded
    {
        if let Some(list) = list {
            snapshots::report(job, list).await;
        }
        stats::report_all(job, RepoStats::default()).await;
    }
    outcome
}

async fn make(job: &Job<'_>) -> Made {
    match hooks::pre(job.context, &job.limits).await {
        Ok(()) => {}
        Err(HookFailure::Failed(how)) => {
            return Outcome::failed(-1, format!("the pre-hook {how}; restic was not run")).into();
        }
        Err(HookFailure::Stopped(stop)) => return Outcome::stopped(stop, -1).into(),
    }
    // After the pre-hook, which may make them.
    let missing = missing_includes(&job.context.run.includes).await;
    if missing.len() == job.context.run.includes.len() {
        return Outcome::failed(-1, format!("{}; there is nothing to back up", not_there(&missing))).into();
    }
    if !missing.is_empty() {
        job.context.reporter.log(LogStream::Stderr, not_there(&missing)).await;
    }
    let args = command::backup(&job.context.run, &job.context.hostname, job.bandwidth());
    let finished = match job.restic(args, Listen::Log).await {
        Ok(finished) => finished,
        Err(outcome) => return outcome.into(),
    };
    match read_summary(&finished) {
        Some(summary) => verified(job, &finished, &summary, &missing).await,
        None if finished.is_success() => {
            Outcome::failed(0, "restic says that all went well, but names no snapshot: see the log").into()
        }
        None => job.failed(&finished).into(),
    }
}

/// The includes that are not there. What can't be looked at is left to restic, which says why.
async fn missing_includes(includes: &[String]) -> Vec<String> {
    let mut missing = Vec::new();
    for include in includes {
        // restic up to 0.18 exits with 0 when one of several includes is missing.
        if let Err(error) = tokio::fs::symlink_metadata(include).await
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        {
            missing.push(include.clone());
        }
    }
    missing
}

fn not_there(missing: &[String]) -> String {
    format!("not there: {}", named(missing, missing.len(), NAMED_INCLUDES))
}

fn named(items: &[String], count: usize, most: usize) -> String {
    let shown: Vec<_> = items.iter().take(most).cloned().collect();
    let more = count.saturating_sub(shown.len());
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// The summary of a backup that made a snapshot.
fn read_summary(finished: &Finished) -> Option<BackupSummary> {
    let summary: BackupSummary = serde_json::from_str(finished.heard.summary.as_ref()?).ok()?;
    let is_made = matches!(finished.ended.code, Some(0 | 3)) && !summary.snapshot_id.is_empty();
    is_made.then_some(summary)
}

/// Looks whether the snapshot is there.
async fn verified(job: &Job<'_>, finished: &Finished, summary: &BackupSummary, missing: &[String]) -> Made {
    let mut outcome = judge(finished, summary, missing);
    let mut snapshot_id = summary.snapshot_id.clone();
    let list = match snapshots::list(job).await {
        Ok(list) => list,
        Err(reason) => {
            outcome.note(&format!("the list of snapshots could not be read: {reason}"));
            return Made { outcome, snapshot_id, list: None };
        }
    };
    let Some(found) = list.snapshots.iter().find(|snapshot| snapshot.id.starts_with(&snapshot_id)) else {
        let error = format!("restic reported the snapshot {snapshot_id}, but the repository does not list it");
        return Outcome::failed(finished.exit_code(), error).into();
    };
    snapshot_id.clone_from(&found.id);
    Made { outcome, snapshot_id, list: Some(list) }
}

/// A snapshot was made: of everything, or only of a part?
fn judge(finished: &Finished, summary: &BackupSummary, missing: &[String]) -> Outcome {
    let heard = &finished.heard;
    let mut lacks = Vec::new();
    if !missing.is_empty() {
        lacks.push(not_there(missing));
    }
    if heard.unreadable_count > 0 {
        let count = heard.unreadable_count;
        lacks.push(format!("{count} item(s) could not be read: {}", named(&heard.unreadable, count, usize::MAX)));
    }
    if lacks.is_empty() && finished.exit_code() == PARTIAL {
        lacks.push("restic could not read everything: see the log".into());
    }
    if summary.total_files_processed == 0 {
        // restic exits with 0 when an exclude covers the source itself.
        lacks.push("the snapshot has no files: the sources are empty, or the excludes cover them".into());
    }
    let stats = heard.summary.clone().and_then(|summary| RawJson::new(summary).ok());
    let mut outcome = Outcome::succeeded(stats);
    if !lacks.is_empty() {
        outcome.exit_code = PARTIAL;
        outcome.error = Some(lacks.join("; "));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Ended;
    use crate::restic::heard::heard_for_tests;

    fn finished(code: i32, stdout: &str, stderr: &str) -> Finished {
        Finished { ended: Ended { code: Some(code), ..Ended::default() }, heard: heard_for_tests(stdout, stderr) }
    }

    macro_rules! recorded {
        ($version:literal, $name:literal) => {
            finished(
                include_str!(concat!("../../tests/data/", $version, "/", $name, ".rc")).trim().parse().unwrap(),
                include_str!(concat!("../../tests/data/", $version, "/", $name, ".stdout")),
                include_str!(concat!("../../tests/data/", $version, "/", $name, ".stderr")),
            )
        };
    }

    fn judged(finished: &Finished, missing: &[&str]) -> Outcome {
        let missing: Vec<_> = missing.iter().map(|path| (*path).to_owned()).collect();
        judge(finished, &read_summary(finished).expect("a snapshot"), &missing)
    }

    #[test]
    fn a_whole_backup_succeeds_with_restics_summary() {
        for finished in [recorded!("0.14", "backup"), recorded!("0.18", "backup")] {
            let outcome = judged(&finished, &[]);
            assert_eq!((outcome.status, outcome.exit_code, outcome.error), (Status::Succeeded, 0, None));
            assert_eq!(outcome.stats.unwrap().as_str(), finished.heard.summary.as_deref().unwrap());
        }
    }

    #[test]
    fn a_missing_source_is_partial_where_restic_exits_with_0() {
        for finished in [recorded!("0.14", "backup-missing"), recorded!("0.18", "backup-missing")] {
            assert!(finished.is_success());
            let outcome = judged(&finished, &["/nothere"]);
            assert_eq!((outcome.status, outcome.exit_code), (Status::Succeeded, 3));
            assert_eq!(outcome.error.as_deref(), Some("not there: /nothere"));
        }
    }

    #[test]
    fn unreadable_items_are_partial_and_named() {
        for finished in [recorded!("0.14", "backup-unreadable"), recorded!("0.18", "backup-unreadable")] {
            let outcome = judged(&finished, &[]);
            let error = outcome.error.unwrap();
            assert_eq!((outcome.status, outcome.exit_code), (Status::Succeeded, 3));
            assert!(
                error.starts_with("2 item(s) could not be read: /") && error.contains("/src/unreadable"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_snapshot_without_files_is_partial() {
        for finished in [recorded!("0.14", "backup-excluded"), recorded!("0.18", "backup-excluded")] {
            assert!(finished.is_success());
            let outcome = judged(&finished, &[]);
            assert_eq!(outcome.exit_code, 3);
            assert!(outcome.error.unwrap().contains("the snapshot has no files"));
        }
    }

    #[test]
    fn without_a_snapshot_there_is_no_success() {
        let summary = r#"{"message_type":"summary","snapshot_id":"ab"}"#;
        assert!(read_summary(&finished(0, "", "")).is_none());
        assert!(read_summary(&finished(0, r#"{"message_type":"summary"}"#, "")).is_none());
        assert!(read_summary(&finished(1, summary, "")).is_none());
        assert!(read_summary(&finished(3, summary, "")).is_some());
        assert!(read_summary(&recorded!("0.14", "backup-allmissing")).is_none());
    }

    #[test]
    fn many_items_are_named_up_to_a_bound() {
        let many: Vec<_> = (0..9).map(|n| format!("/{n}")).collect();
        assert_eq!(named(&many, 9, 3), "/0, /1, /2 and 6 more");
        assert_eq!(named(&many[..2], 7, usize::MAX), "/0, /1 and 5 more");
    }
}
