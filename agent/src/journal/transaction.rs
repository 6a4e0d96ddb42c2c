//! What each kind of write does to the tables of a transaction.

use super::fit;
use super::record::{JobRecord, JobState, Meta, Verdict, Write};
use super::scheduled::{Scheduled, ScheduledChanges};
use super::tables::{DURABLE, JOBS, LINE, OUTBOX, RUNS, SETTLED, cost};
use crate::outcome::Outcome;
use fleet_wire::{
    CommandResult, CommandRun, EnvelopeId, JobFinished, JobId, JobStarted, LogLine, Timestamp, ToCoordinator,
};
use redb::{ReadableTable, Table, WriteTransaction};
use std::collections::BTreeMap;

/// Settled jobs that are remembered, so that a repeated `command.run` is answered and not run again.
const REMEMBERED: u64 = 10_000;

/// Acknowledged envelopes that are looked up before they are removed: bounds the memory of a large acknowledgement.
const REMOVED_AT_ONCE: usize = 4096;

pub(super) type Result<T> = std::result::Result<T, redb::Error>;

/// What a transaction has changed, to be taken over into memory once it is on disk.
pub(super) struct Changes {
    pub(super) meta: Meta,
    pub(super) touched: BTreeMap<JobId, JobRecord>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) scheduled: ScheduledChanges,
}

/// The open tables of a transaction.
pub(super) struct Tables<'t> {
    jobs: Table<'t, &'static str, &'static [u8]>,
    runs: Table<'t, &'static str, &'static [u8]>,
    settled: Table<'t, u64, &'static str>,
    pub(super) outbox: Table<'t, u64, (u8, &'static str, &'static str)>,
    live: &'t BTreeMap<JobId, JobRecord>,
    pub(super) scheduled: &'t Scheduled,
    pub(super) changes: Changes,
}

impl<'t> Tables<'t> {
    /// Opens them. `live` are the jobs that were not settled before, `meta` is what the journal said of itself.
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        meta: Meta,
        live: &'t BTreeMap<JobId, JobRecord>,
        scheduled: &'t Scheduled,
    ) -> Result<Self> {
        let scheduled_changes = ScheduledChanges::default();
        Ok(Self {
            jobs: transaction.open_table(JOBS)?,
            runs: transaction.open_table(RUNS)?,
            settled: transaction.open_table(SETTLED)?,
            outbox: transaction.open_table(OUTBOX)?,
            live,
            scheduled,
            changes: Changes { meta, touched: BTreeMap::new(), verdicts: Vec::new(), scheduled: scheduled_changes },
        })
    }

    /// Makes one change.
    pub(super) fn apply(&mut self, write: &Write) -> Result<()> {
        match write {
            Write::Accept { run, refusal } => {
                let verdict = self.accept(run, refusal.as_deref())?;
                self.judged(verdict)
            }
            Write::Fire { firing, handled } => {
                let verdict = self.fire(firing, handled)?;
                self.judged(verdict)
            }
            Write::Handled { schedule, handled } => {
                self.set_handled(schedule, handled.as_ref());
                self.judged(Verdict::New)
            }
            Write::TakeBack { which, early } => {
                let verdict = self.take_back(which, early);
                self.judged(verdict)
            }
            Write::StartLocally { firing, job_id, refusal } => {
                let verdict = self.start_locally(*firing, job_id, refusal.as_deref())?;
                self.judged(verdict)
            }
            Write::Started { job_id, at } => self.started(job_id, *at),
            Write::Log { job_id, ts, stream, line, mark } => {
                let Some(record) = self.record_mut(job_id) else { return Ok(()) };
                record.mark = mark.or(record.mark);
                let seq = record.next_seq;
                record.next_seq += 1;
                let line =
                    LogLine { job_id: job_id.clone(), seq, ts: Some(*ts), stream: *stream, payload: line.clone() };
                self.push(LINE, job_id.as_str(), &line.into()).map(drop)
            }
            Write::Finish { job_id, outcome, at } => self.finish(job_id, outcome, *at),
            Write::Send(message) => self.push(DURABLE, "", message).map(drop),
            Write::Ack { up_to } => {
                self.changes.meta.acknowledged |= *up_to > 0;
                self.ack(*up_to)
            }
            Write::Assume { .. } if self.changes.meta.acknowledged => Ok(()),
            Write::Assume { up_to } => self.ack(*up_to),
        }
    }

    fn judged(&mut self, verdict: Verdict) -> Result<()> {
        self.changes.verdicts.push(verdict);
        Ok(())
    }

    /// Whether the journal holds or remembers the job.
    pub(super) fn knows(&self, job_id: &JobId) -> Result<bool> {
        Ok(self.record(job_id).is_some() || self.jobs.get(job_id.as_str())?.is_some())
    }

    /// Stores a job unless it is known, and answers it in any case.
    pub(super) fn accept(&mut self, run: &CommandRun, refusal: Option<&str>) -> Result<Verdict> {
        let job_id = &run.job_id;
        let verdict = if self.knows(job_id)? {
            Verdict::Known
        } else if refusal.is_some() {
            Verdict::Refused
        } else {
            Verdict::New
        };
        if verdict == Verdict::New {
            let number = self.changes.meta.next_number;
            self.changes.meta.next_number += 1;
            let record = JobRecord {
                number,
                kind: run.kind.clone(),
                tag: run.tag.clone(),
                state: JobState::Accepted,
                next_seq: 0,
                dropped: 0,
                outcome_id: None,
                mark: None,
            };
            self.changes.touched.insert(job_id.clone(), record);
            let row = serde_json::to_vec(run).unwrap_or_default();
            self.runs.insert(job_id.as_str(), row.as_slice())?;
        }
        let accepted = verdict != Verdict::Refused;
        let error = refusal.filter(|_| !accepted).map(str::to_owned);
        self.push(DURABLE, "", &CommandResult { job_id: job_id.clone(), accepted, error }.into())?;
        Ok(verdict)
    }

    fn started(&mut self, job_id: &JobId, at: Timestamp) -> Result<()> {
        let Some(record) = self.record_mut(job_id).filter(|record| record.state == JobState::Accepted) else {
            return Ok(());
        };
        record.state = JobState::Started;
        let started = JobStarted { job_id: job_id.clone(), kind: record.kind.clone(), started_at: Some(at) };
        self.push(DURABLE, "", &started.into()).map(drop)
    }

    fn finish(&mut self, job_id: &JobId, outcome: &Outcome, at: Timestamp) -> Result<()> {
        if self.record(job_id).is_none_or(|record| record.state >= JobState::Finished) {
            return Ok(());
        }
        let finished = JobFinished {
            job_id: job_id.clone(),
            status: outcome.status,
            exit_code: outcome.exit_code,
            finished_at: Some(at),
            stats: outcome.stats.clone(),
            error: outcome.error.clone(),
        };
        let id = self.push(DURABLE, "", &finished.into())?;
        if let Some(record) = self.record_mut(job_id) {
            record.state = JobState::Finished;
            record.outcome_id = Some(id);
        }
        self.runs.remove(job_id.as_str())?;
        Ok(())
    }

    fn ack(&mut self, up_to: u64) -> Result<()> {
        self.acknowledge_firings(up_to);
        loop {
            let mut rows = Vec::with_capacity(REMOVED_AT_ONCE);
            for row in self.outbox.range(..=up_to)?.take(REMOVED_AT_ONCE) {
                let (id, value) = row?;
                let (_, job, text) = value.value();
                rows.push((id.value(), cost(job, text)));
            }
            if rows.is_empty() {
                break;
            }
            self.remove(&rows)?;
        }
        let is_settled = |record: &JobRecord| record.outcome_id.is_some_and(|id| id <= up_to);
        let mut settled: Vec<JobId> =
            self.live.iter().filter(|(_, record)| is_settled(record)).map(|(job_id, _)| job_id.clone()).collect();
        settled.extend(
            self.changes.touched.iter().filter(|(_, record)| is_settled(record)).map(|(job_id, _)| job_id.clone()),
        );
        for job_id in settled {
            self.settle(&job_id)?;
        }
        Ok(())
    }

    /// Remembers the job as one that is over and known to be, and forgets the oldest such one.
    fn settle(&mut self, job_id: &JobId) -> Result<()> {
        let Some(record) = self.record_mut(job_id) else { return Ok(()) };
        record.state = JobState::Settled;
        let number = record.number;
        self.settled.insert(number, job_id.as_str())?;
        while redb::ReadableTableMetadata::len(&self.settled)? > REMEMBERED {
            let oldest = self.settled.pop_first()?.map(|(_, job_id)| job_id.value().to_owned());
            if let Some(oldest) = oldest {
                self.jobs.remove(oldest.as_str())?;
            }
        }
        Ok(())
    }

    /// Puts a message into the outbox, under an id that it returns.
    pub(super) fn push(&mut self, what: u8, job: &str, message: &ToCoordinator) -> Result<u64> {
        let id = self.changes.meta.next_id;
        self.changes.meta.next_id += 1;
        self.put(id, what, job, message)?;
        Ok(id)
    }

    /// Puts a message into the outbox in a place that is free.
    pub(super) fn put(&mut self, id: u64, what: u8, job: &str, message: &ToCoordinator) -> Result<()> {
        let text = fit::encoded(&EnvelopeId::from(id), message);
        self.changes.meta.outbox_bytes += cost(job, &text);
        self.outbox.insert(id, (what, job, text.as_str()))?;
        Ok(())
    }

    /// Takes envelopes out, each given with its cost. One by one: redb's own ways to remove a range copy the tree's
    /// pages anew for each row (measured with redb 4.1: twenty times slower).
    pub(super) fn remove(&mut self, rows: &[(u64, u64)]) -> Result<()> {
        let bytes = &mut self.changes.meta.outbox_bytes;
        for (id, cost) in rows {
            self.outbox.remove(id)?;
            *bytes = bytes.saturating_sub(*cost);
        }
        Ok(())
    }

    /// The job's record as it stands in this transaction; settled jobs have none.
    pub(super) fn record(&self, job_id: &JobId) -> Option<&JobRecord> {
        let record = self.changes.touched.get(job_id).or_else(|| self.live.get(job_id));
        record.filter(|record| record.state != JobState::Settled)
    }

    /// The same, to be changed.
    pub(super) fn record_mut(&mut self, job_id: &JobId) -> Option<&mut JobRecord> {
        if !self.changes.touched.contains_key(job_id) {
            self.changes.touched.insert(job_id.clone(), self.live.get(job_id)?.clone());
        }
        self.changes.touched.get_mut(job_id).filter(|record| record.state != JobState::Settled)
    }

    /// The jobs that are not settled and whose state is one of those, in the order of their ids.
    pub(super) fn jobs_in(&self, wanted: impl Fn(JobState) -> bool) -> Vec<JobId> {
        let untouched = self.live.iter().filter(|(job_id, _)| !self.changes.touched.contains_key(*job_id));
        let mut jobs: Vec<JobId> = untouched
            .chain(&self.changes.touched)
            .filter(|(_, record)| record.state != JobState::Settled && wanted(record.state))
            .map(|(job_id, _)| job_id.clone())
            .collect();
        jobs.sort_unstable();
        jobs
    }

    /// Writes the records that have changed, and gives all that has.
    pub(super) fn store_touched(mut self) -> Result<Changes> {
        for (job_id, record) in &self.changes.touched {
            let row = serde_json::to_vec(record).unwrap_or_default();
            self.jobs.insert(job_id.as_str(), row.as_slice())?;
        }
        Ok(self.changes)
    }
}
