//! Decides which job goes out when.
//!
//! Every job that is not over is known here: it waits in its repository's lane, or it is out and has an actor
//! ([`Job`]). What may go out is decided by [`admission`]; a job gets its lease before it is written, so that a new job
//! whose way is free costs one commit before it is sent. Leases are exactly the jobs that are out and not over, and
//! they are loaded from the ledger before the first one is granted.

pub mod admission;
mod lanes;

use crate::board::Board;
use crate::db::jobs::{Job as JobRecord, JobState, NewJob, Origin};
use crate::db::json::Json;
use crate::db::{Database, DatabaseError, jobs};
use crate::job::{Cancel, Entry, HostReturned, Job, JobServices};
use crate::persistence::{Patience, Persistence, SaveJob, WriteError};
use crate::registry::{ConnectionId, Registry};
use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseActFuture,
    ResponseFuture, WrapFuture,
};
use chrono::Utc;
use fleet_wire::{CommandRun, JobId, Kind};
use lanes::{Granted, Lanes};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use thiserror::Error;
use uuid::Uuid;

/// Who asks for an init that nobody asked for.
const REQUESTED_BY_ITSELF: &str = "coordinator";

/// A host that can take jobs.
struct Connected {
    connection: ConnectionId,
}

/// See the module's text.
pub struct Dispatcher {
    database: Database,
    persistence: Addr<Persistence>,
    registry: Addr<Registry>,
    board: Arc<Board>,
    lanes: Lanes,
    actors: HashMap<Uuid, Addr<Job>>,
    hosts: HashMap<Uuid, Connected>,
    /// Found in the ledger at the start, with actors to be started.
    resumed: Vec<JobRecord>,
}

impl Dispatcher {
    /// A dispatcher that knows every job of the ledger that is not over.
    ///
    /// # Errors
    /// The ledger can't be read.
    pub async fn load(
        database: Database,
        persistence: Addr<Persistence>,
        registry: Addr<Registry>,
        board: Arc<Board>,
    ) -> Result<Self, DatabaseError> {
        let open = jobs::open(&mut *database.reader().await?).await?;
        let (out, waiting): (Vec<_>, Vec<_>) = open.into_iter().partition(|job| job.state.dispatched_at.is_some());
        log::info!(out = out.len(), waiting = waiting.len(); "jobs that are not over are loaded");
        let mut lanes = Lanes::default();
        for job in &out {
            lanes.add_out(&job.new);
        }
        for job in waiting {
            lanes.add_waiting(job.new, job.state);
        }
        Ok(Self {
            database,
            persistence,
            registry,
            board,
            lanes,
            actors: HashMap::new(),
            hosts: HashMap::new(),
            resumed: out,
        })
    }

    fn start_job(&mut self, record: JobRecord, entry: Entry, context: &mut Context<Self>) -> Addr<Job> {
        let services = JobServices {
            database: self.database.clone(),
            persistence: self.persistence.clone(),
            registry: self.registry.clone(),
            dispatcher: context.address(),
            board: Arc::clone(&self.board),
        };
        let id = record.new.id;
        let actor = Job::new(record, entry, services).start();
        self.actors.insert(id, actor.clone());
        actor
    }

    /// Lets go what may go in a repository.
    fn dispatch(&mut self, repository_id: Uuid, context: &mut Context<Self>) {
        let hosts = &self.hosts;
        let granted = self.lanes.grant(repository_id, |host| hosts.contains_key(&host));
        for Granted { new, state } in granted {
            self.start_job(JobRecord { new, state }, Entry::Dispatch, context);
        }
    }

    fn is_connected(&self, host_id: Uuid) -> bool {
        self.hosts.contains_key(&host_id)
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        for record in std::mem::take(&mut self.resumed) {
            self.start_job(record, Entry::Resume, context);
        }
    }
}

/// Makes jobs. Answered when all of them are in the ledger; those whose way is free are sent right after.
#[derive(Message)]
#[rtype(result = "Result<(), WriteError>")]
pub struct Submit {
    /// The job.
    pub new: NewJob,
}

impl Handler<Submit> for Dispatcher {
    type Result = ResponseActFuture<Self, Result<(), WriteError>>;

    fn handle(&mut self, Submit { new }: Submit, _: &mut Self::Context) -> Self::Result {
        let hosts = &self.hosts;
        let goes_out = self.lanes.add_new(&new, |host| hosts.contains_key(&host));
        let now = Utc::now();
        let state = JobState { dispatched_at: goes_out.then_some(now), ..JobState::new() };
        let save = SaveJob {
            job_id: new.id,
            new: Some(Box::new(new.clone())),
            state: goes_out.then(|| Box::new(state.clone())),
            chunks: Vec::new(),
            patience: Patience::REST,
        };
        let write = self.persistence.send(save);
        let write = async move { write.await.unwrap_or(Err(WriteError::Unknown)) };
        Box::pin(write.into_actor(self).map(move |outcome, actor, context| {
            let repository_id = new.repository_id;
            match outcome {
                Ok(()) if goes_out => {
                    actor.start_job(JobRecord { new, state }, Entry::Send, context);
                }
                Ok(()) => {
                    actor.lanes.committed(new, state);
                    actor.dispatch(repository_id, context);
                }
                Err(_) => {
                    actor.lanes.remove(new.id);
                    actor.dispatch(repository_id, context);
                }
            }
            outcome
        }))
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
    /// Its agent's journal is the one that it had when it was last here.
    pub same_journal: bool,
    /// The jobs that the agent has and that are not over.
    pub jobs: Vec<JobId>,
    /// The repository that the host has yet to initialise.
    pub init: Option<Uuid>,
}

impl Handler<HostReady> for Dispatcher {
    type Result = ();

    fn handle(&mut self, ready: HostReady, context: &mut Self::Context) {
        let host_id = ready.host_id;
        self.hosts.insert(host_id, Connected { connection: ready.connection });
        let listed: HashSet<Uuid> = ready.jobs.iter().filter_map(|id| id.as_str().parse().ok()).collect();
        for job_id in self.lanes.out_of(host_id) {
            if let Some(actor) = self.actors.get(&job_id) {
                let listed = listed.contains(&job_id);
                actor.do_send(HostReturned { ack: ready.ack, listed, same_journal: ready.same_journal });
            }
        }
        if let Some(repository_id) = ready.init {
            self.handle(EnsureInit { host_id, repository_id }, context);
        }
        for repository_id in self.lanes.repositories_of(host_id) {
            self.dispatch(repository_id, context);
        }
    }
}

/// A host's connection has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HostGone {
    /// The host.
    pub host_id: Uuid,
    /// The connection, which may have been replaced by a newer one.
    pub connection: ConnectionId,
}

impl Handler<HostGone> for Dispatcher {
    type Result = ();

    fn handle(&mut self, HostGone { host_id, connection }: HostGone, context: &mut Self::Context) {
        if self.hosts.get(&host_id).is_some_and(|host| host.connection == connection) {
            self.hosts.remove(&host_id);
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
            requested_by: Some(REQUESTED_BY_ITSELF.to_owned()),
            command: Json(CommandRun::new(id.to_string().as_str().into(), Kind::Init)),
            created_at: Utc::now(),
        };
        let submit = self.handle(Submit { new }, context);
        context.spawn(submit.map(move |outcome, _, _| {
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
        if self.actors.get(&job_id).is_some_and(|actor| !actor.connected()) {
            self.actors.remove(&job_id);
        }
    }
}

/// Why a job has no actor for who asks.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum NoJob {
    #[error("there is no job with this id")]
    Unknown,
    #[error("this job was not sent yet")]
    NotSent,
    #[error("this job belongs to another host")]
    OtherHost,
    #[error("the job can't be looked up: {0}")]
    Database(#[from] DatabaseError),
}

/// Finds the actor of a job for a session of `host_id`; one that is over is woken from the ledger.
#[derive(Message)]
#[rtype(result = "Result<Addr<Job>, NoJob>")]
pub struct FindJob {
    /// The job.
    pub job_id: JobId,
    /// Who asks.
    pub host_id: Uuid,
}

impl Handler<FindJob> for Dispatcher {
    type Result = ResponseActFuture<Self, Result<Addr<Job>, NoJob>>;

    fn handle(&mut self, FindJob { job_id, host_id }: FindJob, _: &mut Self::Context) -> Self::Result {
        let database = self.database.clone();
        let look_up = async move {
            // Ids that agents can rightly know were made here, as UUIDs.
            let id: Uuid = job_id.as_str().parse().map_err(|_| NoJob::Unknown)?;
            let record = jobs::find(&mut *database.reader().await?, id).await.map_err(DatabaseError::from)?;
            let record = record.ok_or(NoJob::Unknown)?;
            if record.new.host_id == host_id { Ok(record) } else { Err(NoJob::OtherHost) }
        };
        Box::pin(look_up.into_actor(self).map(|found, actor, context| {
            let record = found?;
            if actor.lanes.is_waiting(record.new.id) {
                return Err(NoJob::NotSent);
            }
            // Only an actor of this process knows the latest; the row just read may be older.
            match actor.actors.get(&record.new.id).filter(|running| running.connected()) {
                Some(running) => Ok(running.clone()),
                None => Ok(actor.start_job(record, Entry::Resume, context)),
            }
        }))
    }
}

/// What became of a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is in the ledger; if the job was out, its agent is told.
    Noted,
    /// There is no such job that is not over.
    NotOpen,
}

/// Somebody wants a job to end. Answered when that is in the ledger.
#[derive(Message)]
#[rtype(result = "Result<Cancelled, WriteError>")]
pub struct CancelJob {
    /// The job.
    pub job_id: Uuid,
}

impl Handler<CancelJob> for Dispatcher {
    type Result = ResponseFuture<Result<Cancelled, WriteError>>;

    fn handle(&mut self, CancelJob { job_id }: CancelJob, context: &mut Self::Context) -> Self::Result {
        let actor = match self.lanes.take_waiting(job_id) {
            // Its actor cancels it at once: it was never let go.
            Some(Granted { new, state }) => Some(self.start_job(JobRecord { new, state }, Entry::Resume, context)),
            None => self.actors.get(&job_id).filter(|_| self.lanes.contains(job_id)).cloned(),
        };
        Box::pin(async move {
            let Some(actor) = actor else { return Ok(Cancelled::NotOpen) };
            let outcome = actor.send(Cancel).await.unwrap_or(Err(WriteError::Unknown));
            outcome.map(|()| Cancelled::Noted)
        })
    }
}

/// What these jobs wait for, for those that wait.
#[derive(Message)]
#[rtype(result = "HashMap<Uuid, String>")]
pub struct Explain {
    /// The jobs.
    pub jobs: Vec<Uuid>,
}

impl Handler<Explain> for Dispatcher {
    type Result = MessageResult<Explain>;

    fn handle(&mut self, Explain { jobs }: Explain, _: &mut Self::Context) -> Self::Result {
        let explain = |job: Uuid| {
            let obstacle = self.lanes.obstacle(job, |host| self.is_connected(host))?;
            Some((job, obstacle.describe()))
        };
        MessageResult(jobs.into_iter().filter_map(explain).collect())
    }
}
