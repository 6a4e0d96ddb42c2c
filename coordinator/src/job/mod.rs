//! One job that is out at an agent: from the moment `command.run` may go until its end is in the ledger.
//!
//! It gets what its session hears about it ([`Report`]) and what REST clients want of it ([`Cancel`]), lets
//! [`transitions`] decide what that means, and answers when the persistence actor has committed it (`writer`). When its job is over it tells the dispatcher, lingers for lines that
//! come late, and stops.

pub(crate) mod deadlines;
mod decide;
mod delivery;
pub(crate) mod ending;
pub mod lines;
pub mod plan;
mod renew;
mod seqs;
pub mod transitions;
mod writer;

pub use decide::Decide;
pub use writer::NotWritten;

use crate::board::Board;
use crate::clock;
use crate::config::Deadlines;
use crate::db::Database;
use crate::db::jobs::{Job as JobRecord, JobState};
use crate::db::logs::{self, LogChunk};
use crate::db::lookup::Lookup;
use crate::db::planning::OfHost;
use crate::dispatcher::{Dispatcher, JobEnded, JobStopped};
use crate::live::LiveJobs;
use crate::metrics::Metrics;
use crate::operation::{OpenOperations, members};
use crate::persistence::{Patience, Persistence, SaveJob};
use crate::registry::{Deliver, Registry, Undelivered};
use crate::request::Request;
use actix::{
    Actor, ActorContext, ActorFuture, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture,
    ResponseFuture, WrapFuture,
};
use deadlines::AtWork;
use delivery::Delivery;
use fleet_wire::{CommandCancel, CommandRun, JobProgress, JournalId, Status, ToAgent};
use futures_util::FutureExt;
use futures_util::future::OptionFuture;
use lines::{Pack, Taken};
use renew::Renewal;
use seqs::Seqs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use transitions::{Event, Reconnect};
use uuid::Uuid;
use writer::{Draft, Writer};

/// How long an ended job waits for lines that come late. Later ones wake it from the ledger.
const LINGER: Duration = Duration::from_secs(10);
/// The pause between tries to read the ledger.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// What jobs need of the coordinator.
pub struct JobServices {
    /// For reading what is stored of its log.
    pub database: Database,
    /// For looking up what it goes out with.
    pub planning: Arc<Lookup<OfHost>>,
    /// The one writer.
    pub persistence: Addr<Persistence>,
    /// The way to its agent.
    pub registry: Addr<Registry>,
    /// Its progress, and who waits for it.
    pub board: Arc<Board>,
    /// Where others find it.
    pub live: Arc<LiveJobs>,
    /// The operations that want to hear of their jobs.
    pub operations: Arc<OpenOperations>,
    /// How long it may wait and run.
    pub limits: Deadlines,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
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
    services: Arc<JobServices>,
    /// Who gets its lease back.
    dispatcher: Addr<Dispatcher>,
    delivery: Delivery,
    writer: Writer,
    /// The status that its operation knows, and that is counted.
    told: Status,
    /// Which lines are stored or on their way there. Read when the first one comes, for most jobs that a restart finds
    /// out need nothing else of the ledger.
    known: Option<Seqs>,
    /// Reports that wait for that.
    loading: usize,
    last_news: Instant,
    /// Since when it is out, as far as this process knows.
    out_since: Instant,
    /// For how long its agent is at work on it.
    at_work: Option<AtWork>,
    /// When its end was asked for, as far as this process knows.
    cancelled_since: Option<Instant>,
}

impl Job {
    /// The actor of `record`.
    pub fn new(record: JobRecord, entry: Entry, services: Arc<JobServices>, dispatcher: Addr<Dispatcher>) -> Self {
        Self {
            delivery: Delivery::new(entry, record.new.is_of_agent()),
            cancelled_since: record.state.cancel_requested_at.map(|_| Instant::now()),
            out_since: Instant::now(),
            at_work: AtWork::taken_up(&record.state, clock::certain()),
            told: record.state.status,
            record,
            entry,
            services,
            dispatcher,
            writer: Writer::default(),
            known: (entry != Entry::Resume).then(Seqs::default),
            loading: 0,
            last_news: Instant::now(),
        }
    }

    fn id(&self) -> Uuid {
        self.record.new.id
    }

    /// Applies `event` in memory; true if it changed the state.
    fn apply(&mut self, event: &Event) -> bool {
        let next = transitions::apply(&self.record.state, event, clock::now());
        let changed = next.is_some();
        if let Some(next) = next {
            self.at_work = AtWork::follow(self.at_work, &self.record.state, &next);
            self.record.state = Arc::new(next.as_stored());
        }
        if self.record.state.cancel_requested_at.is_some() {
            self.cancelled_since.get_or_insert_with(Instant::now);
        }
        changed
    }

    /// Has the state written, if it `changed`, and new lines; answers when this and all before it is in the ledger.
    fn save(&mut self, changed: bool, chunks: Vec<LogChunk>, context: &mut Context<Self>) -> Answer {
        self.last_news = Instant::now();
        let answer = self.writer.add(changed, chunks);
        self.write(context);
        answer.map(|outcome| outcome.unwrap_or(Err(NotWritten::Stopping))).boxed_local()
    }

    fn write(&mut self, context: &mut Context<Self>) {
        let Some(Draft { state: changed, chunks, requests, .. }) = self.writer.begin() else { return };
        if changed && let Some(progress) = self.services.board.progress(self.id()) {
            Arc::make_mut(&mut self.record.state).progress = Some(progress);
        }
        let state = changed.then(|| Arc::clone(&self.record.state));
        let save = SaveJob {
            job_id: self.id(),
            new: None,
            claim: None,
            ending: state.as_ref().and_then(|state| ending::of(&self.record.new, state)).map(Box::new),
            state: state.clone(),
            chunks,
            requests,
            patience: Patience::Endless,
        };
        let write = self.services.persistence.send(save);
        context.spawn(write.into_actor(self).map(move |outcome, actor, context| {
            let outcome = outcome.map_err(|_| NotWritten::Stopping).and_then(|outcome| outcome.map_err(Into::into));
            if let (Ok(()), Some(state)) = (&outcome, state) {
                actor.committed(state, context);
            }
            actor.writer.end(&outcome);
            actor.write(context);
        }));
    }

    fn committed(&mut self, state: Arc<JobState>, context: &mut Context<Self>) {
        let (over, free) = (state.status.is_terminal(), state.is_over_for_good());
        let before = std::mem::replace(&mut self.told, state.status);
        if before != state.status {
            self.count(before, &state);
            self.tell_operation(&state);
        }
        self.services.live.committed(self.id(), state);
        if over {
            self.services.board.clear_progress(self.id());
        }
        if free {
            self.dispatcher.do_send(JobEnded { job_id: self.id() });
            Self::stop_later(context);
        }
        self.services.board.job_changed(self.id());
    }

    /// Counts that it has begun, or is over.
    fn count(&self, before: Status, state: &JobState) {
        let (new, jobs) = (&self.record.new, &self.services.metrics.jobs);
        // It may be over by the time that it is written that it has begun.
        if let Some(began_at) = state.began_at.filter(|_| before == Status::Queued) {
            jobs.began(&new.kind, new.created_at, began_at);
        }
        if state.status.is_terminal() {
            jobs.ended(&new.kind, state);
        }
    }

    fn tell_operation(&self, state: &JobState) {
        let Some(operation_id) = self.record.new.operation_id else { return };
        let event = match state.status {
            Status::Queued => return,
            Status::Running => members::Event::Began,
            status => members::Event::Over { status, partial: state.partial },
        };
        self.services.operations.tell(operation_id, self.id(), event);
    }

    fn stop_later(context: &mut Context<Self>) {
        context.run_later(LINGER, |actor, context| {
            if actor.loading == 0 && actor.writer.is_idle() && actor.last_news.elapsed() >= LINGER {
                context.stop();
            } else {
                Self::stop_later(context);
            }
        });
    }

    /// Looks what it goes out with by now, for it may have waited for long; then lets it go.
    fn renew(&mut self, context: &mut Context<Self>) {
        let JobServices { database, planning, persistence, .. } = &*self.services;
        let renewal =
            Renewal { database: database.clone(), planning: Arc::clone(planning), persistence: persistence.clone() };
        let renewed = renewal.of(Arc::clone(&self.record.new));
        context.spawn(renewed.into_actor(self).map(|renewed, actor, context| match renewed {
            // Its agent has begun it by itself: what it has is what counts.
            _ if actor.record.state.dispatched_at.is_some() => actor.dispatch(context),
            Ok(new) => {
                actor.services.live.renewed(Arc::clone(&new));
                actor.record.new = new;
                actor.dispatch(context);
            }
            Err(reason) => actor.note(&Event::GivenUp { reason }, context),
        }));
    }

    /// Notes that it goes out, and to which journal; then sends it, unless it has been ended meanwhile.
    fn dispatch(&mut self, context: &mut Context<Self>) {
        self.apply(&Event::Dispatched);
        let journal = self.record.state.journal.clone();
        let written = self.save(true, Vec::new(), context);
        context.spawn(written.into_actor(self).map(move |outcome, actor, context| match outcome {
            Ok(()) if actor.record.state.status.is_terminal() => {}
            Ok(()) if actor.record.state.journal != journal => actor.dispatch(context),
            Ok(()) => actor.send_run(context),
            Err(NotWritten::Stopping) => {}
            Err(error @ NotWritten::Refused(_)) => {
                log::error!(job:% = actor.id(); "the job can't be dispatched: {error}");
                actor.note(&Event::GivenUp { reason: format!("it could not be dispatched: {error}") }, context);
            }
        }));
    }

    /// Sends `command.run`, and `command.cancel` behind it if the end is wanted already.
    fn send_run(&mut self, context: &mut Context<Self>) {
        let run = &self.record.new.command.0;
        let needs_guard =
            run.dry_run || run.forget_limit.is_some() || run.forget_groups.iter().any(|group| group.host.is_some());
        match self.services.board.guards(self.record.new.host_id) {
            Some(false) if needs_guard => {
                // It would delete what it is not to: the host had another agent when this was planned.
                let reason = "the agent of this host is too old to guard a forget".to_owned();
                return self.note(&Event::GivenUp { reason }, context);
            }
            None if needs_guard => return self.delivery.put_off(), // whoever connects next is looked at
            _ => {}
        }
        self.out_since = Instant::now();
        let run = CommandRun { job_id: self.wire_id(), ..self.record.new.command.0.clone() };
        self.delivery.begin();
        let delivery = self.deliver(run.into());
        context.spawn(delivery.into_actor(self).map(|outcome, actor, context| {
            if let Some(returned) = actor.delivery.end(outcome) {
                actor.host_returned(returned, context);
            }
        }));
        if self.record.state.cancel_requested_at.is_some() {
            self.send_cancel(context);
        }
    }

    /// A host that is not connected gets it when it says hello again.
    fn send_cancel(&mut self, context: &mut Context<Self>) {
        let delivery = self.deliver(CommandCancel { job_id: self.wire_id() }.into());
        context.spawn(delivery.map(|_| ()).into_actor(self));
    }

    fn wire_id(&self) -> fleet_wire::JobId {
        self.id().to_string().into()
    }

    fn deliver(&self, message: ToAgent) -> impl Future<Output = Result<(), Undelivered>> + use<> {
        let delivery = self.services.registry.send(Deliver { host_id: self.record.new.host_id, message });
        delivery.map(|outcome| outcome.unwrap_or(Err(Undelivered::NotConnected)))
    }

    fn host_returned(&mut self, returned: HostReturned, context: &mut Context<Self>) {
        let state = &self.record.state;
        let same_journal = state.journal.is_none() || state.journal == returned.journal_text();
        let HostReturned { ack, listed, cloned, .. } = returned;
        let sent_before = self.delivery.may_have_arrived();
        let reconnect = Reconnect { ack, listed, same_journal, sent_before, cloned };
        let next = transitions::after_reconnect(state, reconnect);
        if next.lost && cloned {
            // The other one may be at work on it.
            let reason = "another agent with this host's identity had this job: the machine was cloned".to_owned();
            self.note(&Event::Lost { reason }, context);
        } else if next.lost {
            let reason = "the agent was reinstalled and has no memory of this job".to_owned();
            self.note(&Event::GivenUp { reason }, context);
        } else if next.release {
            self.note(&Event::Released, context);
        } else if next.send_run {
            Arc::make_mut(&mut self.record.state).journal = returned.journal_text();
            let written = self.save(true, Vec::new(), context);
            context.spawn(written.map(|_| ()).into_actor(self));
            self.send_run(context);
        } else if next.send_cancel {
            self.send_cancel(context);
        }
    }

    /// Applies an event that nobody waits for.
    fn note(&mut self, event: &Event, context: &mut Context<Self>) {
        let changed = self.apply(event);
        let written = self.save(changed, Vec::new(), context);
        context.spawn(written.map(|_| ()).into_actor(self));
    }

    /// Reads which lines are stored, if that is not known.
    fn load_known(&self) -> impl ActorFuture<Self, Output = ()> + use<> {
        let load = self.known.is_none().then(|| read_known(self.services.database.clone(), self.id()));
        OptionFuture::from(load).into_actor(self).map(|ranges, actor, _| {
            if let Some(ranges) = ranges {
                actor.known.get_or_insert_with(|| Seqs::from_ranges(ranges));
            }
        })
    }
}

/// Reads the ranges of lines that are stored of a job, however often that takes.
async fn read_known(database: Database, id: Uuid) -> Vec<(i64, i64)> {
    loop {
        match database.read(async |reader| logs::stored_ranges(reader, id).await).await {
            Ok(ranges) => return ranges,
            Err(error) => log::warn!(job:% = id; "can't read the job's log yet: {error}"),
        }
        actix::clock::sleep(READ_PAUSE).await;
    }
}

/// Comes when what was said is in the ledger.
type Answer = ResponseFuture<Result<(), NotWritten>>;

impl Actor for Job {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if self.entry != Entry::Resume {
            let new = &self.record.new;
            self.services.metrics.jobs.let_go(&new.kind, new.created_at, clock::now());
        }
        match self.entry {
            Entry::Send => self.send_run(context),
            Entry::Dispatch if renew::is_renewed(&self.record.new) => self.renew(context),
            Entry::Dispatch => self.dispatch(context),
            Entry::Resume => {}
        }
        if self.record.state.is_over_for_good() {
            Self::stop_later(context);
        }
        context.run_interval(deadlines::look_every(&self.services.limits), |actor, context| actor.look(context));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.dispatcher.do_send(JobStopped { job_id: self.id() });
    }
}

/// What an agent says about one job.
#[derive(Debug, Default)]
pub struct News {
    /// What it says of the job's state, in its order.
    pub events: Vec<Event>,
    /// The latest progress.
    pub progress: Option<JobProgress>,
    /// Lines of its log.
    pub lines: Vec<Pack>,
}

/// News on their way to a job's actor. One that stops before it takes them leaves them to the sender.
#[derive(Clone, Debug)]
pub struct Handover(Arc<Mutex<Option<News>>>);

impl Handover {
    /// Hands `news` over.
    pub fn of(news: News) -> Self {
        Self(Arc::new(Mutex::new(Some(news))))
    }

    fn has_lines(&self) -> bool {
        self.lock().as_ref().is_some_and(|news| !news.lines.is_empty())
    }

    /// Takes them, and with them the duty to have them written.
    fn take(&self) -> News {
        self.lock().take().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<News>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody speaks for the job's agent. Answered when what it says is in the ledger.
#[derive(Message)]
#[rtype(result = "Result<(), NotWritten>")]
pub struct Report(pub Handover);

impl Handler<Report> for Job {
    type Result = ResponseActFuture<Self, Result<(), NotWritten>>;

    fn handle(&mut self, Report(handover): Report, context: &mut Self::Context) -> Self::Result {
        self.last_news = Instant::now();
        if self.known.is_some() || !handover.has_lines() {
            return Box::pin(self.report(&handover, context).into_actor(self));
        }
        self.loading += 1;
        // Taken only then: an actor that stops meanwhile leaves them to the next.
        Box::pin(self.load_known().then(move |(), actor, context| {
            actor.loading -= 1;
            actor.report(&handover, context).into_actor(actor)
        }))
    }
}

impl Job {
    fn report(&mut self, handover: &Handover, context: &mut Context<Self>) -> Answer {
        let News { events, progress, lines } = handover.take();
        if let Some(progress) = progress.filter(|_| !self.record.state.status.is_terminal()) {
            self.services.board.set_progress(self.id(), progress);
        }
        let mut changed = false;
        for event in events {
            changed |= self.apply(&event);
            if transitions::is_taken_up_in_vain(&self.record.state, &event) {
                self.send_cancel(context);
            }
        }
        let chunks = match &mut self.known {
            Some(known) => lines::take_new(lines, known),
            None => Ok(Taken::default()), // there are no lines
        };
        match chunks {
            Ok(Taken { chunks, dropped }) => {
                self.services.metrics.jobs.dropped_lines(dropped);
                self.save(changed, chunks, context)
            }
            Err(error) => {
                log::error!(job:% = self.id(); "log lines can't be packed: {error}");
                Box::pin(async { Err(NotWritten::Stopping) })
            }
        }
    }
}

/// Somebody wants the job to end. Answered when that is in the ledger; the agent is told at once.
#[derive(Message)]
#[rtype(result = "Result<(), NotWritten>")]
pub struct Cancel {
    /// The request that asks for it, if one does.
    pub request: Option<Arc<Request>>,
}

impl Handler<Cancel> for Job {
    type Result = Answer;

    fn handle(&mut self, Cancel { request }: Cancel, context: &mut Self::Context) -> Self::Result {
        let changed = self.apply(&Event::CancelRequested);
        self.writer.record(request, changed);
        if self.delivery.may_have_arrived() && !self.record.state.status.is_terminal() {
            self.send_cancel(context);
        }
        // It is not taken back when the database is away: whoever asked for the end still wants it.
        self.save(changed, Vec::new(), context)
    }
}

/// A person knows that nobody is at work on a lost job. Answered when that is in the ledger.
#[derive(Message)]
#[rtype(result = "Result<(), NotWritten>")]
pub struct Release {
    /// The request that asks for it.
    pub request: Option<Arc<Request>>,
}

impl Handler<Release> for Job {
    type Result = Answer;

    fn handle(&mut self, Release { request }: Release, context: &mut Self::Context) -> Self::Result {
        let changed = self.apply(&Event::Released);
        self.writer.record(request, changed);
        self.save(changed, Vec::new(), context)
    }
}

/// The job's host has connected and can take messages.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct HostReturned {
    /// The agent understands `ack`.
    pub ack: bool,
    /// It has the job among those that are not over.
    pub listed: bool,
    /// The agent's journal, if it has one.
    pub journal: Option<JournalId>,
    /// Two agents use the host's token in turn.
    pub cloned: bool,
}

impl HostReturned {
    fn journal_text(&self) -> Option<String> {
        self.journal.as_ref().map(ToString::to_string)
    }
}

impl Handler<HostReturned> for Job {
    type Result = ();

    fn handle(&mut self, returned: HostReturned, context: &mut Self::Context) {
        if !self.delivery.is_noted() {
            Arc::make_mut(&mut self.record.state).journal = returned.journal_text();
        }
        if let Some(returned) = self.delivery.host_returned(returned) {
            self.host_returned(returned, context);
        }
    }
}
