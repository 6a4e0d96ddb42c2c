//! What a forget would delete: restic's dry run, and whether that is more than it may.
//!
//! A dry run only reads, so it is done without a lock. Each restic from 0.14 on answers it as it answers the forget.

use super::job::Job;
use crate::outcome::Outcome;
use crate::restic::command::{self, Forgetting};
use crate::restic::listen::Listen;
use crate::restic::output::{Forgotten, read_forgotten};
use fleet_wire::{ForgetGroup, ForgetLimit, RawJson, Status};
use serde::Serialize;
use serde_json::value::RawValue;

/// restic's own answers are handed on up to this size in all; beyond, only the ids of what would go. A message must not
/// exceed 16 MiB.
const MAX_STATS: usize = 4 * 1024 * 1024;

/// What would become of a source group.
#[derive(Debug, Serialize)]
struct GroupPreview {
    tag: String,
    host: String,
    kept: usize,
    removed: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    results: Vec<Box<RawValue>>,
    /// In their place, where they are too long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remove: Vec<String>,
    #[serde(skip)]
    said: Vec<Forgotten>,
}

/// What would become of all groups.
#[derive(Debug, Default, Serialize)]
pub(super) struct Preview {
    dry_run: bool,
    kept: usize,
    removed: usize,
    groups: Vec<GroupPreview>,
}

/// Asks restic for all groups.
///
/// # Errors
/// The outcome of the job: there is no answer.
pub(super) async fn preview(job: &Job<'_>) -> Result<Preview, Outcome> {
    let mut preview = Preview { dry_run: true, ..Preview::default() };
    for group in &job.context.run.forget_groups {
        let host = &job.context.hostname;
        // Its answer is the job's outcome, and long: once is enough.
        let finished = job.restic(command::forget(group, host, Forgetting::InADryRun), Listen::LogAndKeep).await?;
        if !finished.is_success() {
            let mut outcome = job.failed(&finished);
            outcome.error = outcome.error.map(|error| format!("source group {:?}: {error}", group.tag));
            return Err(outcome);
        }
        let said = read_forgotten(&finished.heard.stdout).ok().filter(|_| !finished.heard.stdout_cut);
        let unread = || Outcome::failed(-1, format!("source group {:?}: restic's answer could not be read", group.tag));
        preview.add(group, host, said.ok_or_else(unread)?, &finished.heard.stdout);
    }
    Ok(preview)
}

impl Preview {
    fn add(&mut self, group: &ForgetGroup, own_host: &str, said: Vec<Forgotten>, printed: &[u8]) {
        let count =
            |of: fn(&Forgotten) -> &Option<Vec<_>>| said.iter().filter_map(|one| of(one).as_ref()).map(Vec::len).sum();
        let (kept, removed) = (count(|one| &one.keep), count(|one| &one.remove));
        self.kept += kept;
        self.removed += removed;
        self.groups.push(GroupPreview {
            tag: group.tag.clone(),
            host: group.host.clone().unwrap_or_else(|| own_host.to_owned()),
            kept,
            removed,
            results: serde_json::from_slice(printed).unwrap_or_default(),
            remove: Vec::new(),
            said,
        });
    }

    /// Why the forget must not be done, for people; none if it may.
    pub(super) fn objection(&self, limit: &ForgetLimit) -> Option<String> {
        if let Some(group) = self.groups.iter().find(|group| !group.said.iter().all(Forgotten::spares_the_newest)) {
            return Some(format!("source group {:?} of {}: its newest snapshot would go", group.tag, group.host));
        }
        let (removed, all) = (self.removed, self.removed + self.kept);
        if limit.snapshots.is_some_and(|most| i64::try_from(removed).unwrap_or(i64::MAX) > most) {
            let most = limit.snapshots.unwrap_or_default();
            return Some(format!("{removed} of {all} snapshots would go, at most {most} may"));
        }
        #[allow(clippy::cast_precision_loss, reason = "counts of snapshots are far below 2^52")]
        let share = if all == 0 { 0.0 } else { removed as f64 / all as f64 };
        let most = limit.share.filter(|most| share > *most)?;
        Some(format!(
            "{removed} of {all} snapshots would go ({:.1} %), at most {:.1} % may",
            share * 100.0,
            most * 100.0
        ))
    }

    /// The outcome of a job that deletes nothing because of `objection`.
    pub(super) fn refused(self, objection: &str) -> Outcome {
        let error = format!(
            "nothing was deleted: {objection}; look at the list, then raise the limit of the repository or confirm this \
             forget"
        );
        Outcome { status: Status::Failed, exit_code: -1, stats: self.stats(), error: Some(error) }
    }

    /// The outcome of a dry run.
    pub(super) fn outcome(self) -> Outcome {
        Outcome::succeeded(self.stats())
    }

    fn stats(mut self) -> Option<RawJson> {
        let length: usize = self.groups.iter().flat_map(|group| &group.results).map(|result| result.get().len()).sum();
        if length > MAX_STATS {
            for group in &mut self.groups {
                group.results.clear();
                let gone = group.said.iter().filter_map(|said| said.remove.as_ref()).flatten();
                group.remove = gone.map(|snapshot| snapshot.id.clone()).collect();
            }
        }
        let stats = RawJson::of(&self).ok()?;
        if stats.as_str().len() <= MAX_STATS {
            return Some(stats);
        }
        self.groups.iter_mut().for_each(|group| group.remove.clear());
        RawJson::of(&self).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::RetentionPolicy;

    fn preview(printed: &[&str]) -> Preview {
        let mut preview = Preview { dry_run: true, ..Preview::default() };
        for (number, printed) in printed.iter().enumerate() {
            let host = (number > 0).then(|| format!("h{number}"));
            let group = ForgetGroup { tag: format!("g{number}"), policy: RetentionPolicy::default(), host };
            preview.add(&group, "own", read_forgotten(printed.as_bytes()).unwrap(), printed.as_bytes());
        }
        preview
    }

    fn answer(keep: &[&str], remove: &[&str]) -> String {
        let list = |times: &[&str]| {
            let one = |time: &&str| format!(r#"{{"id":"id-{time}","time":"2026-01-{time}T00:00:00+01:00"}}"#);
            times.iter().map(one).collect::<Vec<_>>().join(",")
        };
        let remove = if remove.is_empty() { "null".to_owned() } else { format!("[{}]", list(remove)) };
        format!(r#"[{{"tags":null,"host":"h","keep":[{}],"remove":{remove}}}]"#, list(keep))
    }

    fn objection(preview: &Preview, snapshots: Option<i64>, share: Option<f64>) -> Option<String> {
        preview.objection(&ForgetLimit { snapshots, share })
    }

    #[test]
    fn limits_count_all_groups_together() {
        let preview = preview(&[&answer(&["09"], &["01", "02"]), &answer(&["09", "08", "07"], &["03"]), ""]);
        assert_eq!((preview.kept, preview.removed), (4, 3));
        assert_eq!(objection(&preview, None, None), None);
        assert_eq!(objection(&preview, Some(3), Some(0.43)), None);
        assert_eq!(objection(&preview, Some(2), None).unwrap(), "3 of 7 snapshots would go, at most 2 may");
        let share = objection(&preview, Some(3), Some(0.4)).unwrap();
        assert_eq!(share, "3 of 7 snapshots would go (42.9 %), at most 40.0 % may");
        let refused = preview.refused(&share);
        assert_eq!((refused.status, refused.exit_code), (Status::Failed, -1));
        assert!(refused.error.unwrap().starts_with("nothing was deleted: 3 of 7"));
        let none = self::preview(&[""]);
        assert_eq!(objection(&none, Some(0), Some(0.0)), None, "nothing would go");
        let all_stay = self::preview(&[&answer(&["01"], &[])]);
        assert_eq!(objection(&all_stay, Some(0), Some(0.0)), None);
    }

    #[test]
    fn the_newest_snapshot_of_a_group_never_goes() {
        for bad in [answer(&[], &["01"]), answer(&["01"], &["02"]), answer(&["01", "03"], &["02", "04"])] {
            let preview = preview(&[&answer(&["02"], &["01"]), &bad]);
            let said = objection(&preview, None, None).unwrap();
            assert_eq!(said, "source group \"g1\" of h1: its newest snapshot would go");
        }
    }

    #[test]
    fn what_would_go_stands_in_the_stats_group_by_group() {
        let stats = preview(&[&answer(&["02"], &["01"]), ""]).outcome().stats.unwrap();
        let stats: serde_json::Value = serde_json::from_str(stats.as_str()).unwrap();
        assert_eq!((&stats["dry_run"], &stats["kept"], &stats["removed"]), (&true.into(), &1.into(), &1.into()));
        assert_eq!((&stats["groups"][0]["tag"], &stats["groups"][0]["host"]), (&"g0".into(), &"own".into()));
        assert_eq!(stats["groups"][0]["results"][0]["remove"][0]["id"], "id-01");
        assert_eq!((&stats["groups"][1]["host"], &stats["groups"][1]["removed"]), (&"h1".into(), &0.into()));
    }

    #[test]
    fn answers_that_are_too_long_are_cut_down_to_ids_and_then_to_counts() {
        let long = "x".repeat(MAX_STATS);
        let told = |id: &str, text: &str| {
            let printed = format!(r#"[{{"keep":[{{"id":"k","text":"{text}"}}],"remove":[{{"id":"{id}"}}]}}]"#);
            preview(&[&printed]).outcome().stats.unwrap().as_str().to_owned()
        };
        let group = r#"{"dry_run":true,"kept":1,"removed":1,"groups":[{"tag":"g0","host":"own","kept":1,"removed":1"#;
        assert_eq!(told("r", &long), format!(r#"{group},"remove":["r"]}}]}}"#));
        assert_eq!(told(&long, ""), format!("{group}}}]}}"));
    }
}
