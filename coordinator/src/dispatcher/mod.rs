//! Decides which job goes out when.
//!
//! Every job that is not over is known here: it waits in its repository's lane, or it is out and has an actor
//! ([`Job`]). What may go out is decided by [`admission`]; a job gets its lease before it is written, so that a new job
//! whose way is free costs one commit before it is sent. While something is paused nothing new gets one there but an
//! unlock, which only a person asks for. Leases are exactly the jobs that are out and not over, and
//! they are loaded from the ledger before the first one is granted.

pub mod admission;
mod adopt;
mod census;
#[cfg(test)]
mod fairness;
mod fire;
mod lane;
mod lanes;
#[cfg(test)]
mod month;
mod operations;
mod requests;
mod retry;
mod terms;

pub use census::{Census, REASONS, Reason, TakeCensus};
pub use fire::Fire;
pub use operations::{OverruleMany, Release, ResumeOperations, SubmitOperation};
pub use requests::{Explain, FindJob, HostRemoved, LookAtDeadlines, NoJob, Overrule, Tell};
pub use retry::{NoRetry, Retry};
pub use terms::{LimitBackups, PauseChanged};

use crate::clock;
use crate::config::Leases;
use crate::db::jobs;
use crate::db::jobs::{Job as JobRecord, JobState, NewJob, Origin};
use crate::db::json::Json;
use crate::db::runs::Claim;
use crate::job::{Entry, HostReturned, Job, JobServices};
use crate::pauses::Pauses;
use crate::persistence::{Patience, SaveJob, WriteError};
use crate::registry::{ConnectionId, Deliver, HostGone, Subscribe};
use crate::request::Request;
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use admission::Obstacle;
use fleet_wire::{CommandCancel, CommandRun, JobId, JournalId, Kind};
use futures_util::FutureExt;
use lanes::Lanes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Who asks for an init that nobody asked for.
const REQUESTED_BY_ITSELF: &str = "coordinator";

/// After a start a job may wait for this long at least: what was in its way until then is not known, such as a pause.
const LEAST_AFTER_START: Duration = Duration::from_secs(3_600);

/// Jobs that were out before the start, or go out together, get their actors in pieces of this many, and others are
/// served in between.
const RESUMED_AT_ONCE: usize = 256;

/// A host that can take jobs.
struct Connected {
    connection: ConnectionId,
    journal: Option<JournalId>,
}

/// See the module's text.
pub struct Dispatcher {
    services: Arc<JobServices>,
    pauses: Arc<Pauses>,
    lanes: Lanes,
    hosts: HashMap<Uuid, Connected>,
    /// Jobs that are out and have no actor yet, and where that will come in.
    without_actor: HashMap<Uuid, (JobRecord, Entry)>,
}

impl Dispatcher {
    /// A dispatcher that knows every job of the ledger that is not over, `open`, and how many backups may be out in the
    /// repositories that have a limit of their own.
    pub fn new(
        open: Vec<JobRecord>,
        most_backups: HashMap<Uuid, u32>,
        leases: Leases,
        pauses: Arc<Pauses>,
        services: JobServices,
    ) -> Self {
        let (out, waiting): (Vec<_>, Vec<_>) = open.into_iter().partition(|job| job.state.dispatched_at.is_some());
        log::info!(out = out.len(), waiting = waiting.len(); "jobs that are not over are loaded");
        let mut lanes = Lanes::new(leases, most_backups, Arc::clone(&pauses));
        for job in &out {
            lanes.add_out(&job.new);
        }
        let (now, certain) = (Instant::now(), clock::certain());
        let most = services.limits.queued.saturating_sub(LEAST_AFTER_START);
        for job in waiting {
            let job_id = job.new.id;
            let waited = certain.and_then(|now| (now - job.new.created_at).to_std().ok()).unwrap_or_default();
            lanes.add_waiting(job, waited, now);
            lanes.count_waiting(job_id, waited.min(most), now);
        }
        let without_actor = out.into_iter().map(|job| (job.new.id, (job, Entry::Resume))).collect();
        Self { services: Arc::new(services), pauses, lanes, hosts: HashMap::new(), without_actor }
    }

    fn start_job(&mut self, record: JobRecord, entry: Entry, context: &mut Context<Self>) -> Addr<Job> {
        let actor = Job::new(record.clone(), entry, Arc::clone(&self.services), context.address()).start();
        self.services.live.enter(actor.clone(), record);
        actor
    }

    /// The actor of a job that is out.
    fn actor_of(&mut self, job_id: Uuid, context: &mut Context<Self>) -> Option<Addr<Job>> {
        match self.without_actor.remove(&job_id) {
            Some((mut record, entry)) => {
                let entry = if entry == Entry::Send { self.send_to(&mut record) } else { entry };
                Some(self.start_job(record, entry, context))
            }
            None => self.services.live.actor(job_id).map(|(actor, _)| actor),
        }
    }

    /// Lets go what may go in a repository.
    fn dispatch(&mut self, repository_id: Uuid, context: &mut Context<Self>) {
        for mut job in self.lanes.grant(repository_id, Instant::now()) {
            Arc::make_mut(&mut job.state).journal = self.journal_of(job.new.host_id);
            self.start_job(job, Entry::Dispatch, context);
        }
    }

    /// Sends a job that was let go and noted in one.
    fn send_out(&mut self, mut job: JobRecord, context: &mut Context<Self>) {
        if self.services.live.actor(job.new.id).is_none() {
            let entry = self.send_to(&mut job);
            self.start_job(job, entry, context);
        } // else its agent spoke of it before: it has it
    }

    /// Where a job comes in that is noted as sent: if its host has connected anew since, with another journal, that is to be
    /// noted first.
    fn send_to(&self, job: &mut JobRecord) -> Entry {
        let journal = self.journal_of(job.new.host_id);
        if journal.is_none() || journal == job.state.journal {
            return Entry::Send;
        }
        Arc::make_mut(&mut job.state).journal = journal;
        Entry::Dispatch
    }

    /// Whether this very job has an actor and is not over. Its id may be that of another, which an agent has named.
    fn is_at_work(&self, new: &NewJob) -> bool {
        let same = |job: &JobRecord| job.new.host_id == new.host_id && job.new.run_id == new.run_id;
        self.services.live.read(new.id).is_some_and(|job| same(&job) && !job.state.is_over_for_good())
    }

    /// The journal that a command to the host goes to.
    fn journal_of(&self, host_id: Uuid) -> Option<String> {
        self.hosts.get(&host_id)?.journal.as_ref().map(ToString::to_string)
    }

    /// Tells an agent to leave those of `listed` that are over here: nobody else knows that it may be at work on them. It
    /// lists jobs also whose end it has reported a moment ago; to those a cancel does nothing.
    fn call_off(&self, host_id: Uuid, listed: HashSet<Uuid>, context: &mut Context<Self>) {
        if listed.is_empty() {
            return;
        }
        let (database, registry) = (self.services.database.clone(), self.services.registry.clone());
        let call_off = async move {
            let listed: Vec<Uuid> = listed.into_iter().collect();
            let over = match database.read(async |reader| jobs::over_among(reader, host_id, &listed).await).await {
                Ok(over) => over,
                Err(error) => return log::warn!(host:% = host_id; "the jobs that it lists can't be looked up: {error}"),
            };
            for job_id in over {
                let message = CommandCancel { job_id: job_id.to_string().into() }.into();
                let _ = registry.send(Deliver { host_id, message }).await; // it lists them again
            }
        };
        context.spawn(call_off.into_actor(self));
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.services.registry.do_send(Subscribe(context.address().recipient()));
        context.notify(Resume);
    }
}

/// Starts actors for some more of the jobs that are out and have none.
#[derive(Message)]
#[rtype(result = "()")]
struct Resume;

impl Handler<Resume> for Dispatcher {
    type Result = ();

    fn handle(&mut self, _: Resume, context: &mut Self::Context) {
        let some: Vec<Uuid> = self.without_actor.keys().copied().take(RESUMED_AT_ONCE).collect();
        for job_id in &some {
            self.actor_of(*job_id, context);
        }
        if !some.is_empty() {
            // An actor takes messages for as long as there are any, and its thread has others to serve.
            let dispatcher = context.address();
            actix::spawn(async move {
                tokio::task::yield_now().await;
                dispatcher.do_send(Resume);
            });
        }
    }
}

/// Makes a job. Answered when it is in the ledger; if its way is free it is sent right after.
#[derive(Message)]
#[rtype(result = "Result<Submitted, WriteError>")]
pub struct Submit {
    /// The job.
    pub new: NewJob,
    /// The run that it is to be an attempt at: without that it is not made.
    pub claim: Option<Claim>,
    /// The request that asks for it, if one does.
    pub request: Option<Arc<Request>>,
    /// How long that may wait for the database.
    pub patience: Patience,
}

impl Submit {
    /// What a person or the coordinator itself wants.
    pub fn wish(new: NewJob) -> Self {
        Self { new, claim: None, request: None, patience: Patience::REST }
    }
}

/// A job that was made.
#[derive(Debug)]
pub struct Submitted {
    /// As it stands in the ledger.
    pub job: JobRecord,
    /// What keeps it from starting, if it has to wait.
    pub waiting_for: Option<Obstacle>,
}

impl Handler<Submit> for Dispatcher {
    type Result = ResponseFuture<Result<Submitted, WriteError>>;

    fn handle(&mut self, submit: Submit, context: &mut Self::Context) -> Self::Result {
        let Submit { new, claim, request, patience } = submit;
        let claim = claim.map(Arc::new);
        let now = Instant::now();
        let goes_out = self.lanes.add_new(&new, now);
        let waiting_for = self.lanes.obstacle(new.id, now);
        let journal = self.journal_of(new.host_id).filter(|_| goes_out);
        let dispatched_at = goes_out.then(clock::now);
        let state = JobState { dispatched_at, journal, ..JobState::new() };
        let job = JobRecord::of(new.as_stored(), state.as_stored());
        let save = SaveJob {
            job_id: job.new.id,
            new: Some(Arc::clone(&job.new)),
            claim,
            ending: None,
            state: goes_out.then(|| Arc::clone(&job.state)),
            chunks: Vec::new(),
            requests: request.into_iter().collect(),
            patience,
        };
        let write = self.services.persistence.send(save);
        let dispatcher = context.address();
        // A task of its own, and not one of the dispatcher's: an actor looks at all of its own whenever one moves.
        Box::pin(async move {
            let outcome = write.await.unwrap_or(Err(WriteError::Unknown));
            dispatcher.do_send(Stored { job: job.clone(), goes_out, stored: outcome.is_ok() });
            outcome.map(|()| Submitted { job, waiting_for })
        })
    }
}

/// A job that was submitted is in the ledger, or will not be.
#[derive(Message)]
#[rtype(result = "()")]
struct Stored {
    job: JobRecord,
    goes_out: bool,
    stored: bool,
}

impl Handler<Stored> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Stored { job, goes_out, stored }: Stored, context: &mut Self::Context) {
        let repository_id = job.new.repository_id;
        if stored && goes_out {
            self.send_out(job, context);
            return;
        }
        if stored {
            self.lanes.committed(job, Instant::now());
        } else if !self.is_at_work(&job.new) {
            self.lanes.remove(job.new.id);
        } // else it is there after all: its agent has spoken of it
        self.dispatch(repository_id, context);
    }
}

/// A host has said hello, has its settings, and can take jobs.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HostReady {
    /// The host.
    pub host_id: Uuid,
    /// Its connection.
    pub connection: ConnectionId,
    /// Its agent understands `ack`.
    pub ack: bool,
    /// Its agent's journal, if it has one.
    pub journal: Option<JournalId>,
    /// The jobs that the agent has and that are not over.
    pub jobs: Vec<JobId>,
    /// The repository that the host has yet to initialise.
    pub init: Option<Uuid>,
    /// Two agents use the host's token in turn.
    pub cloned: bool,
    /// Its agent heeds what guards a forget.
    pub guards: bool,
}

impl Handler<HostReady> for Dispatcher {
    type Result = ();

    fn handle(&mut self, ready: HostReady, context: &mut Self::Context) {
        let HostReady { host_id, connection, ack, journal, jobs, init, cloned, guards } = ready;
        if self.hosts.get(&host_id).is_some_and(|there| there.connection > connection) {
            return; // a late hello of an older connection
        }
        self.hosts.insert(host_id, Connected { connection, journal: journal.clone() });
        self.services.board.host_ready(host_id, guards);
        let held = self.lanes.host_ready(host_id, Instant::now());
        self.tell_of_held(held);
        let mut listed: HashSet<Uuid> = jobs.iter().filter_map(|id| id.as_str().parse().ok()).collect();
        for job_id in self.lanes.out_of(host_id) {
            if let Some(actor) = self.actor_of(job_id, context) {
                let listed = listed.remove(&job_id);
                actor.do_send(HostReturned { ack, listed, journal: journal.clone(), cloned });
            }
        }
        listed.retain(|job_id| !self.lanes.contains(*job_id));
        self.call_off(host_id, listed, context);
        if let Some(repository_id) = init {
            self.handle(EnsureInit { host_id, repository_id }, context);
        }
        for repository_id in self.lanes.repositories_of(host_id) {
            self.dispatch(repository_id, context);
        }
    }
}

impl Handler<HostGone> for Dispatcher {
    type Result = ();

    fn handle(&mut self, HostGone { host_id, connection }: HostGone, context: &mut Self::Context) {
        if self.hosts.get(&host_id).is_some_and(|host| host.connection == connection) {
            self.hosts.remove(&host_id);
            self.services.board.host_gone(host_id);
            let held = self.lanes.host_gone(host_id, Instant::now());
            self.tell_of_held(held);
            // Its waiting jobs no longer hold up others.
            for repository_id in self.lanes.repositories_of(host_id) {
                self.dispatch(repository_id, context);
            }
        }
    }
}

/// Makes an init for a host that has none under way. A failure is tried again when the host connects next.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EnsureInit {
    /// The host.
    pub host_id: Uuid,
    /// Its repository.
    pub repository_id: Uuid,
}

impl Handler<EnsureInit> for Dispatcher {
    type Result = ();

    fn handle(&mut self, EnsureInit { host_id, repository_id }: EnsureInit, context: &mut Self::Context) {
        if self.lanes.has_init(host_id, repository_id) {
            return;
        }
        let id = Uuid::now_v7();
        let new = NewJob {
            id,
            host_id,
            repository_id,
            kind: Kind::Init.as_str().to_owned(),
            origin: Origin::FirstConnect.as_str().to_owned(),
            source_group: None,
            schedule_id: None,
            scheduled_at: None,
            attempt: 1,
            retry_of: None,
            run_id: None,
            requested_by: Some(REQUESTED_BY_ITSELF.to_owned()),
            command: Json(CommandRun::new(id.to_string().as_str().into(), Kind::Init)),
            created_at: clock::now(),
            operation_id: None,
        };
        let submit = self.handle(Submit::wish(new), context);
        actix::spawn(submit.map(move |outcome| {
            if let Err(error) = outcome {
                log::warn!(host:% = host_id; "the host's init could not be stored, it is tried at its next hello: {error}");
            }
        }));
    }
}

/// A job's end is in the ledger: its lease is free.
#[derive(Message)]
#[rtype(result = "()")]
pub struct JobEnded {
    /// The job.
    pub job_id: Uuid,
}

impl Handler<JobEnded> for Dispatcher {
    type Result = ();

    fn handle(&mut self, JobEnded { job_id }: JobEnded, context: &mut Self::Context) {
        if let Some(repository_id) = self.lanes.remove(job_id) {
            self.dispatch(repository_id, context);
        }
    }
}

/// A job's actor has stopped.
#[derive(Message)]
#[rtype(result = "()")]
pub struct JobStopped {
    /// The job.
    pub job_id: Uuid,
}

impl Handler<JobStopped> for Dispatcher {
    type Result = ();

    fn handle(&mut self, JobStopped { job_id }: JobStopped, _: &mut Self::Context) {
        self.services.live.leave(job_id);
    }
}
