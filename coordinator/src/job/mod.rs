//! One job that is out at an agent: from the moment `command.run` may go until its end is in the ledger.
//!
//! It gets what its session hears about it ([`Report`]) and what REST clients want of it ([`Cancel`]), lets
//! [`transitions`] decide what that means, and answers when the persistence actor has committed it. A report that
//! brings nothing new is answered only after everything before it is committed too, for a repeated envelope must not
//! be acknowledged before the first one is safe. When its job is over it tells the dispatcher, lingers for lines that
//! come late, and stops.

mod lines;
pub mod plan;
mod seqs;
pub mod transitions;

use crate::board::Board;
use crate::db::Database;
use crate::db::jobs::{Job as JobRecord, JobState};
use crate::db::logs;
use crate::dispatcher::{Dispatcher, JobEnded, JobStopped};
use crate::persistence::{Patience, Persistence, SaveJob, WriteError};
use crate::registry::{Deliver, Registry};
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult,
    ResponseActFuture, WrapFuture,
};
use chrono::Utc;
use fleet_wire::{CommandCancel, CommandRun, JobFinished, JobProgress, JobStarted, LogLine, ToAgent};
use seqs::Seqs;
use std::sync::Arc;
use std::time::{Duration, Instant};
use transitions::{Event, Reconnect};
use uuid::Uuid;

/// How long an ended job waits for lines that come late. Later ones wake it from the ledger.
const LINGER: Duration = Duration::from_secs(10);
/// The pause between tries to read the ledger.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// What a job needs of the coordinator.
#[derive(Clone)]
pub struct JobServices {
    /// For reading what is stored of its log.
    pub database: Database,
    /// The one writer.
    pub persistence: Addr<Persistence>,
    /// The way to its agent.
    pub registry: Addr<Registry>,
    /// Who gets its lease back.
    pub dispatcher: Addr<Dispatcher>,
    /// Its progress, and who waits for it.
    pub board: Arc<Board>,
}

/// Where a job actor comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It has just been let go: note that, then send it.
    Dispatch,
    /// It has been let go and noted: send it.
    Send,
    /// It was out before the coordinator started, or is over: wait for news.
    Resume,
}

/// See the module's text.
pub struct Job {
    record: JobRecord,
    entry: Entry,
    /// `command.run` may have reached the agent.
    sent: bool,
    known: Seqs,
    services: JobServices,
    /// Writes that are not answered yet.
    writing: usize,
    last_news: Instant,
}

impl Job {
    /// The actor of `record`.
    pub fn new(record: JobRecord, entry: Entry, services: JobServices) -> Self {
        Self {
            sent: entry == Entry::Resume,
            record,
            entry,
            known: Seqs::default(),
            services,
            writing: 0,
            last_news: Instant::now(),
        }
    }

    fn id(&self) -> Uuid {
        self.record.new.id
    }

    /// Applies `event` in memory; true if it changed the state.
    fn apply(&mut self, event: &Event) -> bool {
        match transitions::apply(&self.record.state, event, Utc::now()) {
            Some(next) => {
                self.record.state = next;
                true
            }
            None => false,
        }
    }

    /// The state as it is to be written, with the progress that stands on the board.
    fn state_to_write(&self) -> Box<JobState> {
        let progress = self.services.board.progress(self.id()).or_else(|| self.record.state.progress.clone());
        Box::new(JobState { progress, ..self.record.state.clone() })
    }

    /// Writes, and does after the commit what follows from it.
    fn save(&mut self, changed: bool, chunks: Vec<logs::LogChunk>) -> Written {
        self.last_news = Instant::now();
        if !changed && chunks.is_empty() && self.writing == 0 {
            return Box::pin(async { Ok(()) }.into_actor(self));
        }
        let state = changed.then(|| self.state_to_write());
        let over = changed && self.record.state.status.is_terminal();
        self.writing += 1;
        let save = SaveJob { job_id: self.id(), new: None, state, chunks, patience: Patience::Endless };
        let write = self.services.persistence.send(save);
        Box::pin(async move { write.await.unwrap_or(Err(WriteError::Unknown)) }.into_actor(self).map(
            move |outcome, actor, context| {
                actor.writing -= 1;
                if outcome.is_ok() {
                    actor.committed(over, context);
                }
                outcome
            },
        ))
    }

    fn committed(&self, over: bool, context: &mut Context<Self>) {
        if over {
            self.services.board.clear_progress(self.id());
            self.services.dispatcher.do_send(JobEnded { job_id: self.id() });
            Self::stop_later(context);
        }
        self.services.board.job_changed(self.id());
    }

    fn stop_later(context: &mut Context<Self>) {
        context.run_later(LINGER, |actor, context| {
            if actor.writing > 0 || actor.last_news.elapsed() < LINGER {
                Self::stop_later(context);
            } else {
                context.stop();
            }
        });
    }

    /// Sends `command.run`, and `command.cancel` behind it if the end is wanted already.
    fn send_run(&mut self, context: &mut Context<Self>) {
        self.sent = true;
        let run = CommandRun { job_id: self.id().to_string().as_str().into(), ..self.record.new.command.0.clone() };
        self.deliver(run.into(), context);
        if self.record.state.cancel_requested_at.is_some() {
            self.send_cancel(context);
        }
    }

    fn send_cancel(&mut self, context: &mut Context<Self>) {
        let job_id = self.id().to_string().as_str().into();
        self.deliver(CommandCancel { job_id }.into(), context);
    }

    /// A host that is not connected gets the message when it says hello again.
    fn deliver(&mut self, message: ToAgent, context: &mut Context<Self>) {
        let is_run = matches!(message, ToAgent::CommandRun(_));
        let delivery = self.services.registry.send(Deliver { host_id: self.record.new.host_id, message });
        context.spawn(delivery.into_actor(self).map(move |outcome, actor, _| {
            if !matches!(outcome, Ok(Ok(()))) && is_run {
                actor.sent = false;
                log::debug!(job:% = actor.id(); "the host is not connected, the job is sent when it is");
            }
        }));
    }

    /// Reads which lines are stored, before anything else is handled.
    fn load_known(&self, context: &mut Context<Self>) {
        let (database, id) = (self.services.database.clone(), self.id());
        let load = async move {
            loop {
                match stored(&database, id).await {
                    Ok(ranges) => return ranges,
                    Err(error) => log::warn!(job:% = id; "can't read the job's log yet: {error}"),
                }
                actix::clock::sleep(READ_PAUSE).await;
            }
        };
        context.wait(load.into_actor(self).map(|ranges, actor, _| actor.known = Seqs::from_ranges(ranges)));
    }
}

async fn stored(database: &Database, id: Uuid) -> Result<Vec<(i64, i64)>, crate::db::DatabaseError> {
    let mut reader = database.reader().await?;
    Ok(logs::stored_ranges(&mut reader, id).await?)
}

type Written = ResponseActFuture<Job, Result<(), WriteError>>;

impl Actor for Job {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        match self.entry {
            Entry::Send => self.send_run(context),
            Entry::Dispatch => {
                let changed = self.apply(&Event::Dispatched);
                let written = self.save(changed, Vec::new());
                context.spawn(written.map(|outcome, actor, context| match outcome {
                    Ok(()) => actor.send_run(context),
                    Err(error) => log::error!(job:% = actor.id(); "the job can't be dispatched: {error}"),
                }));
            }
            Entry::Resume => self.load_known(context),
        }
        if self.record.state.status.is_terminal() {
            Self::stop_later(context);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.services.dispatcher.do_send(JobStopped { job_id: self.id() });
    }
}

/// What an agent says about one job.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the wire's messages")]
pub enum JobEvent {
    Answered(fleet_wire::CommandResult),
    Started(JobStarted),
    Progress(JobProgress),
    Finished(JobFinished),
    Line(LogLine),
}

/// What an agent said about the job, in its order. Answered when it is in the ledger.
#[derive(Message)]
#[rtype(result = "Result<(), WriteError>")]
pub struct Report {
    /// The news.
    pub events: Vec<JobEvent>,
}

impl Handler<Report> for Job {
    type Result = Written;

    fn handle(&mut self, Report { events }: Report, _: &mut Self::Context) -> Self::Result {
        let mut changed = false;
        let mut lines = Vec::new();
        for event in events {
            let event = match event {
                JobEvent::Line(line) => {
                    lines.push(line);
                    continue;
                }
                JobEvent::Progress(progress) => {
                    if !self.record.state.status.is_terminal() {
                        self.services.board.set_progress(self.id(), progress);
                    }
                    continue;
                }
                JobEvent::Answered(answer) => Event::Answered(answer),
                JobEvent::Started(start) => Event::Started(start),
                JobEvent::Finished(report) => Event::Finished(report),
            };
            changed |= self.apply(&event);
        }
        match lines::pack_new(self.id(), &mut self.known, lines, Utc::now()) {
            Ok(chunks) => self.save(changed, chunks),
            Err(error) => {
                log::error!(job:% = self.id(); "log lines can't be packed: {error}");
                Box::pin(async { Err(WriteError::Unknown) }.into_actor(self))
            }
        }
    }
}

/// Somebody wants the job to end. Answered when that is in the ledger; the agent is told at once.
#[derive(Message)]
#[rtype(result = "Result<(), WriteError>")]
pub struct Cancel;

impl Handler<Cancel> for Job {
    type Result = Written;

    fn handle(&mut self, _: Cancel, context: &mut Self::Context) -> Self::Result {
        let changed = self.apply(&Event::CancelRequested);
        if self.sent && !self.record.state.status.is_terminal() {
            self.send_cancel(context);
        }
        // It is not taken back when the database is away: whoever asked for the end still wants it.
        self.save(changed, Vec::new())
    }
}

/// The job's host has connected and can take messages.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct HostReturned {
    /// The agent understands `ack`.
    pub ack: bool,
    /// It has the job among those that are not over.
    pub listed: bool,
    /// Its journal is the one that the host had before.
    pub same_journal: bool,
}

impl Handler<HostReturned> for Job {
    type Result = ();

    fn handle(&mut self, HostReturned { ack, listed, same_journal }: HostReturned, context: &mut Self::Context) {
        if self.record.state.dispatched_at.is_none() {
            return; // it goes out when its dispatch is in the ledger
        }
        let reconnect = Reconnect { ack, listed, same_journal, sent_before: self.sent };
        let next = transitions::after_reconnect(&self.record.state, reconnect);
        if next.lost {
            let reason = "the agent was reinstalled and has no memory of this job".to_owned();
            let changed = self.apply(&Event::GivenUp { reason });
            let written = self.save(changed, Vec::new());
            context.spawn(written.map(|_, _, _| ()));
        } else if next.send_run {
            self.send_run(context);
        } else if next.send_cancel {
            self.send_cancel(context);
        }
    }
}

/// Asks for the job as it is in memory, which is never behind the ledger.
#[derive(Message)]
#[rtype(result = "JobRecord")]
pub struct Look;

impl Handler<Look> for Job {
    type Result = MessageResult<Look>;

    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.record.clone())
    }
}
