//! The ledger of the month: a map, with the rules that `db/runs` has in SQL.

use crate::db::runs::{Ending, Outcome, Run, UNHEARD_OF, spread};
use chrono::TimeDelta;
use fleet_wire::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// How often what has failed is tried again, and the first pause before that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retries {
    pub(super) most: i64,
    pub(super) backoff: i64,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) rows: BTreeMap<Uuid, Run>,
    /// Rows that are not settled; some may have come further.
    open: BTreeSet<Uuid>,
    retry_at: BTreeMap<Uuid, Timestamp>,
}

fn is_one(run: &Run, outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| outcome.as_str() == run.outcome)
}

pub(super) const OPEN: [Outcome; 3] = [Outcome::Expected, Outcome::Running, Outcome::Retrying];
const UNCLAIMED: [Outcome; 2] = [Outcome::Expected, Outcome::Missed];

impl Ledger {
    /// Rows that are due: as in `Expect`.
    pub(super) fn expect(&mut self, rows: Vec<Run>) {
        for run in rows {
            self.open.insert(run.id);
            self.rows.entry(run.id).or_insert(run);
        }
    }

    /// As in `NoteRuns`.
    pub(super) fn note(&mut self, run: Run) {
        let there = self.rows.get(&run.id);
        let unheard_of = |run: &Run| is_one(run, &[Outcome::Skipped]) && run.attempt == UNHEARD_OF;
        if there.is_none_or(|run| is_one(run, &UNCLAIMED) || unheard_of(run)) {
            self.rows.insert(run.id, run);
        }
    }

    /// As in `claim_many`.
    pub(super) fn claim(&mut self, run: &Run, job: Uuid, attempt: i64, previous: Option<Uuid>) -> bool {
        let row = self.rows.entry(run.id).or_insert_with(|| run.clone());
        let skipped = is_one(row, &[Outcome::Skipped]) && (row.job_id == Some(job) || row.attempt == UNHEARD_OF);
        let retried = is_one(row, &[Outcome::Retrying]) && row.job_id == previous;
        let free = is_one(row, &UNCLAIMED) || skipped || retried;
        if free {
            row.outcome = Outcome::Running.as_str().to_owned();
            (row.reason, row.job_id, row.attempt) = (None, Some(job), attempt);
            self.open.insert(run.id);
        }
        free
    }

    /// As in `settle_many`; gives when the next attempt is to be made, if there is one.
    pub(super) fn settle(&mut self, ending: &Ending, retries: Retries) -> Option<Timestamp> {
        let row = self.rows.get_mut(&ending.run_id.expect("a run")).expect("a row");
        assert_eq!((row.outcome.as_str(), row.job_id), ("running", Some(ending.job_id)));
        row.reason.clone_from(&ending.reason);
        row.changed_at = ending.at;
        let again = ending.may_retry && ending.source_group.is_some() && row.attempt <= retries.most;
        row.outcome = if again { Outcome::Retrying } else { ending.outcome }.as_str().to_owned();
        let pause = retries.backoff << (row.attempt - 1).min(20);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a few minutes")]
        let pause = TimeDelta::milliseconds((spread(ending.job_id) * 1000.0 * pause as f64) as i64);
        again.then(|| *self.retry_at.entry(row.id).insert_entry(ending.at + pause).get())
    }

    /// As in `to_retry`.
    pub(super) fn attempts_due(&mut self, now: Timestamp) -> Vec<Run> {
        let rows = &self.rows;
        self.retry_at.retain(|id, _| is_one(&rows[id], &[Outcome::Retrying]));
        self.retry_at.iter().filter(|(_, at)| **at <= now).map(|(id, _)| rows[id].clone()).collect()
    }

    /// As in `GiveUpRetries`.
    pub(super) fn give_up(&mut self, run: &Run, why: &str) {
        let row = self.rows.get_mut(&run.id).expect("a row");
        let reason = [run.reason.as_deref().unwrap_or_default(), why].join("; ");
        *row = run.clone().with(Outcome::Failed, reason);
    }

    /// As in `MarkMissed`.
    pub(super) fn mark_missed(&mut self, due_before: Timestamp, now: Timestamp) {
        for id in self.open.clone() {
            let row = self.rows.get_mut(&id).expect("a row");
            if row.schedule_id.is_some() && is_one(row, &[Outcome::Expected]) && row.due_at < due_before {
                (row.outcome, row.changed_at) = (Outcome::Missed.as_str().to_owned(), now);
            }
            if !is_one(row, &OPEN) {
                self.open.remove(&id);
            }
        }
    }

    /// As in `open_maintenance`, by repository.
    pub(super) fn open_maintenance(&self) -> BTreeMap<Uuid, Vec<Run>> {
        let mut open: BTreeMap<Uuid, Vec<Run>> = BTreeMap::new();
        for run in self.open.iter().map(|id| &self.rows[id]).filter(|run| run.schedule_id.is_none()) {
            if is_one(run, &[Outcome::Expected, Outcome::Running]) {
                open.entry(run.repository_id.expect("a repository")).or_default().push(run.clone());
            }
        }
        open.values_mut().for_each(|runs| runs.sort_by_key(|run| run.due_at));
        open
    }

    /// As in `SetRight`, of the rows.
    pub(super) fn set_right(&mut self, now: Timestamp) {
        let unclaimed = |run: &Run| run.job_id.is_none();
        let gone = [Outcome::Expected, Outcome::Missed, Outcome::Skipped];
        self.rows.retain(|_, run| !(run.due_at > now && unclaimed(run) && is_one(run, &gone)));
        let rows = &self.rows;
        self.open.retain(|id| rows.contains_key(id));
        for row in self.rows.values_mut() {
            let late = row.due_at > now - TimeDelta::days(1) && row.changed_at > now && unclaimed(row);
            if late && is_one(row, &[Outcome::Missed]) {
                (row.outcome, row.changed_at) = (Outcome::Expected.as_str().to_owned(), now);
                self.open.insert(row.id);
            }
            if is_one(row, &[Outcome::Retrying]) && row.changed_at > now {
                let at = self.retry_at.get_mut(&row.id).expect("a time");
                (*at, row.changed_at) = (now + (*at - row.changed_at), now);
            }
        }
    }
}
