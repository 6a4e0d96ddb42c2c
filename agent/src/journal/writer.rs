//! The journal's one writer.
//!
//! Each turn takes what has arrived (requests from `control`, reports up to a limit), commits it as one
//! transaction on a blocking thread, answers, and comes round again. If the disk refuses, the reports stay in memory
//! and are tried again with growing pauses; nobody reads further ones meanwhile, so whoever reports waits. Requests go
//! on: new jobs are refused at once, reads and acknowledgements (which free room) are tried.

use super::record::{Accepted, Verdict, Write};
use super::store::{JournalError, Store};
use crate::cron::{Early, Firing, Handled, Which};
use fleet_wire::{JobId, ScheduleId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, error::TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// Reports in one transaction, at most.
const BATCH_ENTRIES: usize = 1024;
/// Bytes of log lines in one transaction, at most, but for one line.
const BATCH_BYTES: usize = 1024 * 1024;
/// Requests in one turn, at most.
const BATCH_CONTROLS: usize = 64;
/// The first pause after the disk has refused; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A request that is answered whether or not the disk takes writes.
#[derive(Debug)]
pub(super) enum Control {
    /// A write that has a verdict.
    Judge {
        write: Write,
        reply: oneshot::Sender<Accepted>,
    },
    Ack(u64),
    Assume(u64),
    Read {
        after: u64,
        max_bytes: usize,
        reply: oneshot::Sender<Result<Vec<(u64, String)>, JournalError>>,
    },
    OpenJobs {
        reply: oneshot::Sender<Vec<JobId>>,
    },
    Handled {
        reply: oneshot::Sender<BTreeMap<ScheduleId, Handled>>,
    },
    Early {
        reply: oneshot::Sender<BTreeMap<Which, Early>>,
    },
    Startable {
        reply: oneshot::Sender<Vec<(u64, Firing)>>,
    },
}

/// A report that waits until the disk takes it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) write: Write,
    /// Told when it is on disk.
    pub(super) done: Option<oneshot::Sender<()>>,
    /// Its part of the memory for waiting reports, free again when it is dropped.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// The disk has refused.
struct Trouble {
    reason: String,
    retry_at: Instant,
    pause: Duration,
}

/// What one turn works on, and gives back.
struct Turn {
    store: Store,
    controls: Vec<Control>,
    entries: Vec<Entry>,
    /// False while the entries wait for their next try.
    write_entries: bool,
    /// Why no new job is taken: one that just fits would stand still with its first report.
    refusal: Option<String>,
    /// Who is to be told that its entry is on disk.
    committed: Vec<oneshot::Sender<()>>,
}

/// Runs until every handle is gone and all that they put in is on disk.
pub(super) async fn run(
    mut store: Store,
    mut controls: Receiver<Control>,
    mut reports: Receiver<Entry>,
    head: watch::Sender<u64>,
) {
    let mut entries = Vec::new();
    let mut trouble: Option<Trouble> = None;
    loop {
        let mut requests = Vec::new();
        match &trouble {
            None => tokio::select! {
                Some(request) = controls.recv() => requests.push(request),
                Some(entry) = reports.recv() => entries.push(entry),
                else => return,
            },
            Some(Trouble { retry_at, .. }) => tokio::select! {
                Some(request) = controls.recv() => requests.push(request),
                () = sleep_until(*retry_at) => {}
            },
        }
        let write_entries = trouble.as_ref().is_none_or(|trouble| Instant::now() >= trouble.retry_at);
        if trouble.is_none() {
            gather(&mut reports, &mut entries);
        }
        while requests.len() < BATCH_CONTROLS
            && let Ok(request) = controls.try_recv()
        {
            requests.push(request);
        }
        let refusal = trouble.as_ref().map(|trouble| trouble.reason.clone());
        let turn = Turn { store, controls: requests, entries, write_entries, refusal, committed: Vec::new() };
        let Ok((turn, result)) = tokio::task::spawn_blocking(move || turn.take()).await else {
            log::error!("the journal's writer has ended abnormally; restart the agent");
            return;
        };
        (store, entries) = (turn.store, turn.entries);
        trouble = after(trouble, result, entries.is_empty());
        // Before anyone is told: who waited for an entry may look at the head next.
        head.send_if_modified(|head| std::mem::replace(head, store.head()) != store.head());
        for done in turn.committed {
            let _ = done.send(());
        }
    }
}

fn gather(reports: &mut Receiver<Entry>, entries: &mut Vec<Entry>) {
    let mut bytes: usize = entries.iter().map(|entry| entry.write.line_bytes()).sum();
    while entries.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
        match reports.try_recv() {
            Ok(entry) => {
                bytes += entry.write.line_bytes();
                entries.push(entry);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
        }
    }
}

/// Whether there is trouble after a turn, and when the entries are tried again.
fn after(before: Option<Trouble>, result: Result<(), JournalError>, all_written: bool) -> Option<Trouble> {
    match (result, before) {
        (Ok(()), Some(_)) if all_written => {
            log::info!("the journal is used again");
            None
        }
        (Ok(()), before) => before,
        // A request failed while the entries wait: their time stands.
        (Err(_), Some(trouble)) if Instant::now() < trouble.retry_at => Some(trouble),
        (Err(error), before) => {
            let pause = before.map_or(RETRY_FIRST, |trouble| (trouble.pause * 2).min(RETRY_MAX));
            log::error!(retry_in_seconds = pause.as_secs(); "{error}; new jobs are refused until then");
            Some(Trouble { reason: error.to_string(), retry_at: Instant::now() + pause, pause })
        }
    }
}

impl Turn {
    fn take(mut self) -> (Self, Result<(), JournalError>) {
        let result = self.write();
        for request in std::mem::take(&mut self.controls) {
            match request {
                Control::Read { after, max_bytes, reply } => {
                    let _ = reply.send(self.store.outbox(after, max_bytes));
                }
                Control::OpenJobs { reply } => {
                    let _ = reply.send(self.store.open_jobs());
                }
                Control::Handled { reply } => {
                    let _ = reply.send(self.store.handled());
                }
                Control::Early { reply } => {
                    let _ = reply.send(self.store.early());
                }
                Control::Startable { reply } => {
                    let _ = reply.send(self.store.startable());
                }
                Control::Judge { .. } | Control::Ack(_) | Control::Assume(_) => {}
            }
        }
        (self, result)
    }

    /// Commits, and answers who waits for a verdict.
    fn write(&mut self) -> Result<(), JournalError> {
        let acks = self.controls.iter().filter_map(|request| match request {
            Control::Ack(up_to) => Some(Write::Ack { up_to: *up_to }),
            Control::Assume(up_to) => Some(Write::Assume { up_to: *up_to }),
            _ => None,
        });
        let acks: Vec<Write> = acks.collect();
        let judged = self.controls.iter().filter_map(|request| match request {
            Control::Judge { write, .. } if self.refusal.is_none() => Some(write),
            _ => None,
        });
        let entries = if self.write_entries { self.entries.as_slice() } else { &[] };
        let entries = entries.iter().map(|entry| &entry.write);
        let writes: Vec<&Write> = acks.iter().chain(judged).chain(entries).collect();
        let result = if writes.is_empty() { Ok(Vec::new()) } else { self.store.commit(writes) };
        let verdicts = match (&self.refusal, &result) {
            (Some(reason), _) => Err(reason.clone()),
            (None, Ok(verdicts)) => Ok(verdicts.as_slice()),
            (None, Err(error)) => Err(error.to_string()),
        };
        answer_judged(&mut self.controls, &mut self.store, verdicts);
        if result.is_ok() && self.write_entries {
            self.committed.extend(self.entries.drain(..).filter_map(|entry| entry.done));
        }
        result.map(drop)
    }
}

/// Answers those requests: by their verdicts, or with the reason why they are not stored.
fn answer_judged(controls: &mut Vec<Control>, store: &mut Store, verdicts: Result<&[Verdict], String>) {
    let mut verdicts = verdicts.map(|verdicts| verdicts.iter());
    for request in std::mem::take(controls) {
        let Control::Judge { write, reply } = request else {
            controls.push(request);
            continue;
        };
        let answer = match &mut verdicts {
            Ok(verdicts) => match verdicts.next() {
                Some(Verdict::New) => Accepted::New,
                Some(Verdict::Known) | None => Accepted::Known,
                Some(Verdict::Refused) => Accepted::Refused,
                Some(Verdict::Left) => Accepted::Left,
            },
            Err(reason) => Accepted::NotStored { known: store.knows_run(&write), reason: reason.clone() },
        };
        let _ = reply.send(answer);
    }
}
