//! `forget`: removes the snapshots that no retention policy keeps, one source group after the other.
//!
//! A group never loses its newest snapshot: policies with a negative rule, or without one above zero, are refused
//! ([`RetentionPolicy::check`](fleet_wire::RetentionPolicy::check)), and each other rule keeps the newest (seen with restic
//! 0.14 and 0.18). How much may go in all can be limited: `forget_preview`.

use super::forget_preview::preview;
use super::job::Job;
use super::snapshots;
use crate::outcome::Outcome;
use crate::restic::Finished;
use crate::restic::command::{self, Forgetting};
use crate::restic::failure::Failure;
use crate::restic::listen::Listen;
use crate::restic::output::{Forgotten, read_forgotten};
use fleet_wire::{ForgetGroup, RawJson, Snapshot, Status};
use serde_json::value::RawValue;

/// restic's own answer is handed on up to this size; beyond, only its counts. A message must not exceed 16 MiB.
const MAX_STATS: usize = 4 * 1024 * 1024;

/// How many snapshots are named that stay though restic said that they are gone.
const NAMED_SNAPSHOTS: usize = 5;

/// What came of the groups so far.
#[derive(Debug, Default)]
struct Tally {
    /// restic's results of all groups, as they came.
    results: Vec<Box<RawValue>>,
    kept: usize,
    /// What restic says that it removed.
    removed: Vec<String>,
    /// One sentence for each group that failed.
    errors: Vec<String>,
    exit_code: i64,
}

/// Shows first what would go if that is asked for, or limited.
pub(super) async fn run(job: &Job<'_>) -> Outcome {
    let run = &job.context.run;
    if run.dry_run || run.forget_limit.is_some() {
        let preview = match preview(job).await {
            Ok(preview) => preview,
            Err(outcome) => return outcome,
        };
        if run.dry_run {
            return preview.outcome();
        }
        if let Some(objection) = preview.objection(&run.forget_limit.unwrap_or_default()) {
            return preview.refused(&objection);
        }
    }
    forget(job).await
}

/// restic 0.17 to 0.18.1 exit with 0 and list as removed what an append-only server kept: the snapshots that are
/// there afterwards tell the truth.
async fn forget(job: &Job<'_>) -> Outcome {
    let mut tally = Tally::default();
    for group in &job.context.run.forget_groups {
        let args = command::forget(group, &job.context.hostname, Forgetting::Really);
        match job.restic(args, Listen::LogAndKeep).await {
            Ok(finished)
                if !finished.is_success() && tally.is_empty() && matches!(finished.failure(), Failure::Locked(_)) =>
            {
                return job.failed(&finished);
            }
            Ok(finished) => {
                let goes_on = tally.add(job, group, &finished);
                if !goes_on {
                    break;
                }
            }
            Err(outcome) => return outcome,
        }
    }
    let own = job.context.hostname.as_str();
    let is_own = |group: &ForgetGroup| group.host.as_deref().is_none_or(|host| host == own);
    let only_own = job.context.run.forget_groups.iter().all(is_own);
    match snapshots::list_of(job, Some(own).filter(|_| only_own)).await {
        Ok(mut list) => {
            tally.verify(&list.snapshots);
            list.snapshots.retain(|snapshot| only_own || snapshot.hostname == own);
            snapshots::report(job, list).await;
        }
        Err(reason) if tally.removed.is_empty() => log::debug!("no snapshot list after a forget: {reason}"),
        Err(reason) => tally.errors.push(format!("it is unknown whether the snapshots are gone: {reason}")),
    }
    tally.outcome()
}

impl Tally {
    /// Whether nothing was done yet.
    fn is_empty(&self) -> bool {
        self.results.is_empty() && self.errors.is_empty()
    }

    /// Adds the result of `group`; false if the next one would fail for the same reason.
    fn add(&mut self, job: &Job<'_>, group: &ForgetGroup, finished: &Finished) -> bool {
        // What can't be read can't be verified, and restic's exit code alone is not to be trusted.
        let said = match read_forgotten(&finished.heard.stdout) {
            Ok(said) if !finished.heard.stdout_cut => said,
            _ if finished.is_success() => {
                self.exit_code = -1;
                self.errors.push(format!("source group {:?}: restic's answer could not be read", group.tag));
                return true;
            }
            unreadable => unreadable.unwrap_or_default(),
        };
        self.note(&said, &finished.heard.stdout);
        if finished.is_success() {
            return true;
        }
        self.exit_code = finished.exit_code();
        self.errors.push(format!("source group {:?}: {}", group.tag, job.sentence(finished)));
        // A refusal to remove the last snapshot, say, is this group's own affair.
        matches!(finished.failure(), Failure::Other(_))
    }

    fn note(&mut self, said: &[Forgotten], printed: &[u8]) {
        self.kept += said.iter().flat_map(|group| &group.keep).map(Vec::len).sum::<usize>();
        let removed = said.iter().filter_map(|group| group.remove.as_ref()).flatten();
        self.removed.extend(removed.map(|snapshot| snapshot.id.clone()).filter(|id| !id.is_empty()));
        self.results.extend(serde_json::from_slice::<Vec<Box<RawValue>>>(printed).unwrap_or_default());
    }

    /// Compares what was said with what is there.
    fn verify(&mut self, there: &[Snapshot]) {
        let still = |id: &&String| snapshots::contains(there, id);
        let left: Vec<_> = self.removed.iter().filter(still).map(|id| id.chars().take(8).collect::<String>()).collect();
        if left.is_empty() {
            return;
        }
        let mut named = left.iter().take(NAMED_SNAPSHOTS).cloned().collect::<Vec<_>>().join(", ");
        if left.len() > NAMED_SNAPSHOTS {
            named.push_str(&format!(" and {} more", left.len() - NAMED_SNAPSHOTS));
        }
        self.errors.push(format!(
            "{} snapshot(s) are still there after the forget: {named}; an append-only repository needs the admin \
             credential for a forget",
            left.len()
        ));
    }

    fn outcome(self) -> Outcome {
        let stats = self.stats();
        let (status, error) = if self.errors.is_empty() {
            (Status::Succeeded, None)
        } else {
            (Status::Failed, Some(self.errors.join("; ")))
        };
        Outcome { status, exit_code: self.exit_code, stats, error }
    }

    fn stats(&self) -> Option<RawJson> {
        let results = RawJson::of(&self.results).ok()?;
        if results.as_str().len() <= MAX_STATS {
            return Some(results);
        }
        RawJson::new(format!("[{{\"kept\":{},\"removed\":{}}}]", self.kept, self.removed.len())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: &str) -> Snapshot {
        Snapshot { id: id.into(), ..Snapshot::default() }
    }

    fn tally(printed: &[u8]) -> Tally {
        let mut tally = Tally::default();
        tally.note(&read_forgotten(printed).unwrap(), printed);
        tally
    }

    #[test]
    fn what_an_append_only_server_kept_is_a_failure() {
        // restic 0.18 ended with 0.
        assert_eq!(include_str!("../../tests/data/0.18/forget-append-only.rc").trim(), "0");
        let mut tally = tally(include_bytes!("../../tests/data/0.18/forget-append-only.stdout"));
        assert_eq!((tally.kept, tally.removed.len()), (1, 1));
        let kept = tally.removed[0].clone();
        tally.verify(&[snapshot(&kept)]);
        let outcome = tally.outcome();
        assert_eq!(outcome.status, Status::Failed);
        let error = outcome.error.unwrap();
        assert!(error.contains(&kept[..8]) && error.contains("admin credential"), "{error}");
    }

    #[test]
    fn what_is_gone_is_a_success_with_restics_own_results() {
        let printed = include_bytes!("../../tests/data/0.14/forget.stdout");
        let mut tally = tally(printed);
        tally.verify(&[snapshot("somebody else's")]);
        let outcome = tally.outcome();
        assert_eq!((outcome.status, outcome.error), (Status::Succeeded, None));
        assert_eq!(outcome.stats.unwrap().as_str(), std::str::from_utf8(printed).unwrap().trim());
    }

    #[test]
    fn nothing_to_forget_is_a_success() {
        let outcome = tally(b"").outcome();
        assert_eq!((outcome.status, outcome.stats.unwrap().as_str()), (Status::Succeeded, "[]"));
    }

    #[test]
    fn many_snapshots_are_counted_not_listed() {
        let long = "x".repeat(MAX_STATS);
        let printed = format!(r#"[{{"keep":[{{"id":"{long}"}}],"remove":[{{"id":"a"}},{{"id":"b"}}]}}]"#);
        let mut tally = tally(printed.as_bytes());
        assert_eq!(tally.stats().unwrap().as_str(), r#"[{"kept":1,"removed":2}]"#);
        tally.removed = (0..9).map(|n| n.to_string()).collect();
        tally.verify(&(0..9).map(|n| snapshot(&n.to_string())).collect::<Vec<_>>());
        assert!(tally.errors[0].contains("and 4 more"), "{:?}", tally.errors);
    }
}
