//! What must not be lost, on disk: accepted jobs, their outcomes and logs, and every message on its way.
//!
//! [`Journal`] is the handle that the agent's loops share. Behind it one task (`writer`) gathers what arrives
//! while a transaction is in flight and commits it in the next one, so a log line does not cost an fsync of its own.
//! `store` is the file, `commit` a transaction, `transaction` what each write does to it (`scheduled`: those about
//! schedules), `trim` what goes when it grows too large.
//!
//! Whatever returns after `.await` here is on disk, except where it says otherwise.

mod commit;
mod fit;
mod record;
mod scheduled;
#[cfg(test)]
mod scheduled_tests;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod transaction;
mod trim;
mod writer;

pub use record::{Accepted, Leftover};
pub use store::JournalError;

use crate::cron::{Early, Firing, Handled, Which};
use crate::outcome::Outcome;
use crate::process::Mark;
use chrono::Utc;
use fleet_wire::{CommandRun, EarlyFiring, JobId, JournalId, LogStream, ScheduleId, Timestamp, ToCoordinator};
use record::Write;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use store::Store;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use writer::{Control, Entry};

/// Reports that wait for the next transaction. When they are that many, whoever reports waits.
const REPORTS_WAITING: usize = 512;

/// Bytes of log lines among them. Few long lines fill memory as well as many short ones do.
const REPORT_BYTES_WAITING: u32 = 4 * 1024 * 1024;

/// Requests that wait for the writer.
const CONTROLS_WAITING: usize = 64;

/// The journal, to be shared by cloning.
#[derive(Clone, Debug)]
pub struct Journal {
    id: JournalId,
    control: mpsc::Sender<Control>,
    reports: mpsc::Sender<Entry>,
    room: Arc<Semaphore>,
    head: watch::Receiver<u64>,
}

impl Journal {
    /// Opens the journal at `path`, makes it if there is none, and starts its writer on the current runtime. Also
    /// gives the jobs that were not over when the agent ended. `limit_bytes` bounds what waits for the coordinator.
    ///
    /// # Errors
    /// It can't be opened: see [`JournalError`].
    pub fn open(path: &Path, limit_bytes: u64) -> Result<(Self, Vec<Leftover>), JournalError> {
        let mut store = Store::open(path, limit_bytes)?;
        let leftovers = store.leftovers()?;
        let (control, controls) = mpsc::channel(CONTROLS_WAITING);
        let (reports, entries) = mpsc::channel(REPORTS_WAITING);
        let (head_sender, head) = watch::channel(store.head());
        let id = store.id();
        tokio::spawn(writer::run(store, controls, entries, head_sender));
        let room = Arc::new(Semaphore::new(REPORT_BYTES_WAITING as usize));
        Ok((Self { id, control, reports, room, head }, leftovers))
    }

    /// The journal's id.
    pub fn id(&self) -> &JournalId {
        &self.id
    }

    /// The id of the newest envelope in the outbox, as it rises.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// Stores a job, unless it is known or there is a reason to refuse it, and the answer to it.
    pub async fn accept(&self, run: CommandRun, refusal: Option<String>) -> Accepted {
        self.judge(Write::Accept { run: Box::new(run), refusal }).await
    }

    /// Stores that a schedule has fired, what is needed to start its jobs without the coordinator, and how much of the
    /// schedule is dealt with by that; its `schedule.fire` is in the outbox then. A firing that is known is not stored
    /// again.
    ///
    /// # Errors
    /// Why the disk does not take it; nothing has changed then.
    pub async fn fire(&self, firing: Firing, handled: Handled) -> Result<(), String> {
        stored(self.judge(Write::Fire { firing: Box::new(firing), handled }).await)
    }

    /// Stores how far a schedule is dealt with, or that it is no more.
    ///
    /// # Errors
    /// Why the disk does not take it; nothing has changed then.
    pub async fn set_handled(&self, schedule: ScheduleId, handled: Option<Handled>) -> Result<(), String> {
        stored(self.judge(Write::Handled { schedule, handled }).await)
    }

    /// Stores that a firing came before its time, and is to fire again.
    ///
    /// # Errors
    /// Why the disk does not take it; nothing has changed then.
    pub async fn take_back(&self, firing: EarlyFiring) -> Result<(), String> {
        let EarlyFiring { schedule_id, scheduled_at, in_seconds } = firing;
        let early = Early::told(in_seconds, Utc::now());
        stored(self.judge(Write::TakeBack { which: (schedule_id, scheduled_at), early }).await)
    }

    /// The firings that came before their time and have yet to fire again.
    pub async fn early(&self) -> BTreeMap<Which, Early> {
        let (reply, answer) = oneshot::channel();
        let _ = self.control.send(Control::Early { reply }).await;
        answer.await.unwrap_or_default()
    }

    /// Stores a job of a firing that the coordinator does not have, as if it had sent it.
    pub async fn start_locally(&self, firing: u64, job_id: JobId, refusal: Option<String>) -> Accepted {
        self.judge(Write::StartLocally { firing, job_id, refusal }).await
    }

    /// How far each schedule is dealt with.
    pub async fn handled(&self) -> BTreeMap<ScheduleId, Handled> {
        let (reply, answer) = oneshot::channel();
        let _ = self.control.send(Control::Handled { reply }).await;
        answer.await.unwrap_or_default()
    }

    /// The firings of which this agent may start jobs by itself, as the coordinator does not have them; by the ids of
    /// their envelopes.
    pub async fn startable(&self) -> Vec<(u64, Firing)> {
        let (reply, answer) = oneshot::channel();
        let _ = self.control.send(Control::Startable { reply }).await;
        answer.await.unwrap_or_default()
    }

    async fn judge(&self, write: Write) -> Accepted {
        let (reply, answer) = oneshot::channel();
        let _ = self.control.send(Control::Judge { write, reply }).await;
        let gone = || Accepted::NotStored { known: false, reason: "the agent is stopping".to_owned() };
        answer.await.unwrap_or_else(|_| gone())
    }

    /// A job's execution begins. Does nothing for a job that is not waiting.
    pub async fn started(&self, job_id: &JobId) {
        self.put_and_wait(Write::Started { job_id: job_id.clone(), at: Utc::now() }).await;
    }

    /// A job is over. Does nothing if it was before.
    pub async fn finish(&self, job_id: &JobId, outcome: Outcome) {
        self.put_and_wait(Write::Finish { job_id: job_id.clone(), outcome, at: Utc::now() }).await;
    }

    /// Adds a line to a job's log; with a `mark`, if a child has said it. Returns before it is on disk, and waits while
    /// the disk is behind.
    pub async fn log(&self, job_id: &JobId, ts: Timestamp, stream: LogStream, line: String, mark: Option<Mark>) {
        self.put(Write::Log { job_id: job_id.clone(), ts, stream, line, mark }, None).await;
    }

    /// Puts any other message into the outbox. Returns before it is on disk, and waits while the disk is behind.
    pub async fn send(&self, message: impl Into<ToCoordinator>) {
        self.put(Write::Send(Box::new(message.into())), None).await;
    }

    /// Waits until all that was put before is on disk.
    pub async fn flush(&self) {
        self.put_and_wait(Write::Ack { up_to: 0 }).await;
    }

    /// The coordinator has every envelope up to `up_to`. Returns before it is on disk: an `ack` that is forgotten
    /// in a crash only means that these are sent again.
    pub async fn ack(&self, up_to: u64) {
        let _ = self.control.send(Control::Ack(up_to)).await;
    }

    /// The coordinator seems to have every envelope up to `up_to`, though it acknowledges nothing. Ignored if one ever
    /// was acknowledged. Returns before it is on disk.
    pub async fn assume_settled(&self, up_to: u64) {
        let _ = self.control.send(Control::Assume(up_to)).await;
    }

    /// The envelopes after the one with id `after`, as they go over the wire: about `max_bytes` of them.
    ///
    /// # Errors
    /// The disk does not give them; it may the next time.
    pub async fn outbox(&self, after: u64, max_bytes: usize) -> Result<Vec<(u64, String)>, JournalError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.control.send(Control::Read { after, max_bytes, reply }).await;
        answer.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// The jobs whose outcome the coordinator does not have yet: what `hello.jobs` lists. A job that is over stays
    /// among them until its `job.finished` is acknowledged, or the coordinator would take it for lost.
    pub async fn open_jobs(&self) -> Vec<JobId> {
        let (reply, answer) = oneshot::channel();
        let _ = self.control.send(Control::OpenJobs { reply }).await;
        answer.await.unwrap_or_default()
    }

    /// Returns when the journal has ended by a defect of its own: nothing can be promised any more.
    pub async fn ended(&self) {
        self.control.closed().await;
    }

    async fn put(&self, write: Write, done: Option<oneshot::Sender<()>>) {
        let bytes = u32::try_from(write.line_bytes()).unwrap_or(u32::MAX).clamp(1, REPORT_BYTES_WAITING);
        let room = self.room.clone().acquire_many_owned(bytes).await.ok();
        if self.reports.send(Entry { write, done, _room: room }).await.is_err() {
            log::error!("the journal has ended; a report is lost");
        }
    }

    async fn put_and_wait(&self, write: Write) {
        let (done, committed) = oneshot::channel();
        self.put(write, Some(done)).await;
        let _ = committed.await;
    }
}

fn stored(accepted: Accepted) -> Result<(), String> {
    match accepted {
        Accepted::NotStored { reason, .. } => Err(reason),
        _ => Ok(()),
    }
}
