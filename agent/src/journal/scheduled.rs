//! What the journal keeps of schedules: how far each is dealt with, and firings that the coordinator does not have yet.
//!
//! All of it is in memory as well, for it is little: a firing goes as soon as it is acknowledged, its jobs are started,
//! or the next one of its schedule is there.

use super::record::{JobState, Verdict};
use super::tables::{DURABLE, EARLY, FIRINGS, HANDLED};
use super::transaction::{Result, Tables};
use crate::cron::{Early, Firing, Handled, MOST_EARLY, Which};
use chrono::DateTime;
use fleet_wire::{JobId, Kind, ScheduleId};
use redb::{Database, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable};
use redb::{TableDefinition, TableError, WriteTransaction};
use std::collections::BTreeMap;

/// As it stands on disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Scheduled {
    pub(super) handled: BTreeMap<ScheduleId, Handled>,
    /// By the ids of their envelopes, the oldest first.
    pub(super) firings: BTreeMap<u64, Firing>,
    /// What came before its time and has yet to fire again.
    pub(super) early: BTreeMap<Which, Early>,
}

/// What a transaction changes of it; `None` is for what goes.
#[derive(Debug, Default)]
pub(super) struct ScheduledChanges {
    handled: BTreeMap<ScheduleId, Option<Handled>>,
    firings: BTreeMap<u64, Option<Firing>>,
    early: BTreeMap<Which, Option<Early>>,
}

impl Scheduled {
    /// Reads it. A row that this agent can't read is left out: the schedule then counts from now on, and the firing is
    /// left to the coordinator.
    pub(super) fn load(database: &Database) -> Result<Self> {
        let transaction = database.begin_read()?;
        let mut scheduled = Self::default();
        if let Some(table) = table(&transaction, HANDLED)? {
            for row in table.iter()? {
                let (id, handled) = row?;
                let handled = serde_json::from_slice(handled.value()).ok();
                scheduled.handled.extend(handled.map(|handled| (id.value().into(), handled)));
            }
        }
        if let Some(table) = table(&transaction, FIRINGS)? {
            for row in table.iter()? {
                let (id, firing) = row?;
                let firing = serde_json::from_slice(firing.value()).ok();
                scheduled.firings.extend(firing.map(|firing| (id.value(), firing)));
            }
        }
        if let Some(table) = table(&transaction, EARLY)? {
            for row in table.iter()? {
                let (key, early) = row?;
                let (schedule, at) = key.value();
                let which = DateTime::from_timestamp_micros(at).map(|at| (schedule.into(), at));
                scheduled.early.extend(which.zip(serde_json::from_slice(early.value()).ok()));
            }
        }
        Ok(scheduled)
    }

    /// Takes over what a transaction has changed.
    pub(super) fn take_over(&mut self, changes: ScheduledChanges) {
        take_over(&mut self.handled, changes.handled);
        take_over(&mut self.firings, changes.firings);
        take_over(&mut self.early, changes.early);
    }
}

/// A table; `None` in the journal of an agent that did not have it.
fn table<K: Key + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<'static, K, &'static [u8]>,
) -> Result<Option<ReadOnlyTable<K, &'static [u8]>>> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn take_over<K: Ord, V>(all: &mut BTreeMap<K, V>, changes: BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(all.insert(key, value)),
            None => drop(all.remove(&key)),
        }
    }
}

impl ScheduledChanges {
    /// Writes them. Tables without a change are not opened.
    pub(super) fn store(&self, transaction: &WriteTransaction) -> Result<()> {
        if !self.handled.is_empty() {
            let mut table = transaction.open_table(HANDLED)?;
            for (id, handled) in &self.handled {
                match handled.as_ref().map(serde_json::to_vec) {
                    Some(row) => drop(table.insert(id.as_str(), row.unwrap_or_default().as_slice())?),
                    None => drop(table.remove(id.as_str())?),
                }
            }
        }
        if !self.firings.is_empty() {
            let mut table = transaction.open_table(FIRINGS)?;
            for (id, firing) in &self.firings {
                match firing.as_ref().map(serde_json::to_vec) {
                    Some(row) => drop(table.insert(id, row.unwrap_or_default().as_slice())?),
                    None => drop(table.remove(id)?),
                }
            }
        }
        if !self.early.is_empty() {
            let mut table = transaction.open_table(EARLY)?;
            for ((schedule, at), early) in &self.early {
                let key = (schedule.as_str(), at.timestamp_micros());
                match early.as_ref().map(serde_json::to_vec) {
                    Some(row) => drop(table.insert(key, row.unwrap_or_default().as_slice())?),
                    None => drop(table.remove(key)?),
                }
            }
        }
        Ok(())
    }
}

impl Tables<'_> {
    /// Puts a firing into the outbox, unless it was there before and in time, and keeps what is needed to start its jobs without the
    /// coordinator. A job whose group has one that is not over is left to the coordinator.
    pub(super) fn fire(&mut self, firing: &Firing, handled: &Handled) -> Result<Verdict> {
        let which = (firing.schedule_id.clone(), firing.scheduled_at);
        let has_fired = self.handled(&firing.schedule_id).is_some_and(|known| known.has_fired(firing.scheduled_at));
        if self.early().contains_key(&which) {
            self.changes.scheduled.early.insert(which, None);
        } else if has_fired {
            return Ok(Verdict::Known);
        }
        let id = self.push(DURABLE, "", &firing.message().into())?;
        // The latest firing of a schedule is enough: older ones are left to the coordinator, too.
        for (older, other) in self.firings() {
            if other.schedule_id == firing.schedule_id {
                self.changes.scheduled.firings.insert(older, None);
            }
        }
        let mut firing = firing.clone();
        firing.runs.retain(|run| self.unfinished_backup(run.tag.as_deref()).is_none());
        let schedule = firing.schedule_id.clone();
        self.keep_firing(id, firing);
        self.changes.scheduled.handled.insert(schedule, Some(handled.clone()));
        Ok(Verdict::New)
    }

    /// Notes that a firing came before its time; one of a schedule that is no more is left.
    pub(super) fn take_back(&mut self, which: &Which, early: &Early) -> Verdict {
        if self.handled(&which.0).is_none() {
            return Verdict::Left;
        }
        self.changes.scheduled.early.insert(which.clone(), Some(early.clone()));
        let all = self.early();
        if all.len() > MOST_EARLY {
            let last = all.into_iter().max_by_key(|(_, early)| early.comes_at());
            self.changes.scheduled.early.extend(last.map(|(which, _)| (which, None)));
        }
        Verdict::New
    }

    /// Notes how far a schedule is dealt with, or forgets it.
    pub(super) fn set_handled(&mut self, schedule: &ScheduleId, handled: Option<&Handled>) {
        if handled.is_none() {
            let gone = self.early().into_keys().filter(|(id, _)| id == schedule);
            self.changes.scheduled.early.extend(gone.map(|which| (which, None)));
        }
        self.changes.scheduled.handled.insert(schedule.clone(), handled.cloned());
    }

    /// Accepts a job of a firing as if the coordinator had sent it, or refuses it for that reason.
    pub(super) fn start_locally(&mut self, firing: u64, job_id: &JobId, refusal: Option<&str>) -> Result<Verdict> {
        let known = self.firings().into_iter().find(|(id, _)| *id == firing);
        let Some((_, mut rest)) = known else { return Ok(Verdict::Left) };
        let Some(place) = rest.runs.iter().position(|run| run.job_id == *job_id) else { return Ok(Verdict::Left) };
        let run = rest.runs.remove(place);
        self.keep_firing(firing, rest);
        if self.knows(job_id)? || self.unfinished_backup(run.tag.as_deref()).is_some() {
            return Ok(Verdict::Left);
        }
        self.accept(&run, refusal)
    }

    /// The coordinator has these firings: what is to become of them is its decision.
    pub(super) fn acknowledge_firings(&mut self, up_to: u64) {
        for (id, _) in self.firings() {
            if id <= up_to {
                self.changes.scheduled.firings.insert(id, None);
            }
        }
    }

    /// A backup of the source group that is accepted and not over.
    fn unfinished_backup(&self, group: Option<&str>) -> Option<JobId> {
        let is_it = |job_id: &JobId| {
            self.record(job_id)
                .is_some_and(|record| record.kind.known() == Some(Kind::Backup) && record.tag.as_deref() == group)
        };
        self.jobs_in(|state| state < JobState::Finished).into_iter().find(is_it)
    }

    fn handled(&self, schedule: &ScheduleId) -> Option<&Handled> {
        match self.changes.scheduled.handled.get(schedule) {
            Some(changed) => changed.as_ref(),
            None => self.scheduled.handled.get(schedule),
        }
    }

    /// The firings as they stand in this transaction; there are few.
    fn firings(&self) -> Vec<(u64, Firing)> {
        let mut firings = self.scheduled.firings.clone();
        take_over(&mut firings, self.changes.scheduled.firings.clone());
        firings.into_iter().collect()
    }

    /// What came before its time, as it stands in this transaction; there is little.
    fn early(&self) -> BTreeMap<Which, Early> {
        let mut early = self.scheduled.early.clone();
        take_over(&mut early, self.changes.scheduled.early.clone());
        early
    }

    /// Keeps a firing as long as there is something to start of it.
    fn keep_firing(&mut self, id: u64, firing: Firing) {
        let kept = Some(firing).filter(|firing| !firing.runs.is_empty());
        self.changes.scheduled.firings.insert(id, kept);
    }
}
