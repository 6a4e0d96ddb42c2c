//! What others ask of the dispatcher about jobs that are there: their actors, their end, what they wait for.

use super::Dispatcher;
use super::admission::Obstacle;
use super::adopt::adopt;
use crate::db::{DatabaseError, jobs};
use crate::job::{Cancel, Decide, Entry, Job, NotWritten, deadlines};
use actix::{
    ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseActFuture, ResponseFuture,
    WrapFuture,
};
use fleet_wire::JobId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use uuid::Uuid;

/// When the jobs of a removed host are looked at again that were just being stored.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why a job has no actor for who asks.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum NoJob {
    #[error("there is no job with this id")]
    Unknown,
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

    fn handle(&mut self, FindJob { job_id, host_id }: FindJob, context: &mut Self::Context) -> Self::Result {
        // Ids that agents can rightly know were made here, as UUIDs.
        let id: Uuid = match job_id.as_str().parse() {
            Ok(id) => id,
            Err(_) => return Box::pin(async { Err(NoJob::Unknown) }.into_actor(self)),
        };
        if let Some(found) = self.find_open(id, host_id, context) {
            return Box::pin(async { found }.into_actor(self));
        }
        let (database, persistence) = (self.services.database.clone(), self.services.persistence.clone());
        let look_up = async move {
            let found = database.read(async |reader| jobs::find(reader, id).await).await?;
            if found.is_some() {
                return Ok::<_, NoJob>(found);
            }
            match adopt(database.clone(), persistence, id, host_id).await? {
                Some(adopted) => Ok(Some(adopted)),
                // Another connection of the host may just have had it adopted.
                None => Ok(database.read(async |reader| jobs::find(reader, id).await).await?),
            }
        };
        Box::pin(look_up.into_actor(self).map(move |found, actor, context| {
            let record = found?.ok_or(NoJob::Unknown)?;
            if record.new.host_id != host_id {
                return Err(NoJob::OtherHost);
            }
            if !record.state.status.is_terminal() {
                actor.lanes.add_found(&record.new);
            }
            // It may have been stored a moment ago, and `Stored` still be on its way here.
            actor.lanes.committed(record.clone(), Instant::now());
            // Only an actor of this process knows the latest; the row just read may be older.
            match actor.actor_of_open(id, context).or_else(|| actor.actor_of(id, context)) {
                Some(running) => Ok(running),
                None => Ok(actor.start_job(record, Entry::Resume, context)),
            }
        }))
    }
}

impl Dispatcher {
    /// The actor of a job that is not over, without asking the ledger: it may be away. `None` if there is none here.
    fn find_open(&mut self, id: Uuid, host_id: Uuid, context: &mut Context<Self>) -> Option<Result<Addr<Job>, NoJob>> {
        // An agent may just have named the id of another host's job as its own, which the ledger is about to refuse.
        let of_other = self.services.live.actor(id).is_some_and(|(_, host)| host != host_id);
        if of_other || self.lanes.host_of(id)? != host_id {
            return Some(Err(NoJob::OtherHost));
        }
        // A coordinator that was restored from a backup may not know that it has sent this one.
        self.actor_of_open(id, context).filter(Addr::connected).map(Ok)
    }
}

/// Somebody wants something of a job that holds its place or its lease. Answered when that is in the ledger; false if there is
/// no such job.
#[derive(Message)]
#[rtype(result = "Result<bool, NotWritten>")]
pub struct Tell<M: Send + 'static> {
    /// The job.
    pub job_id: Uuid,
    /// What is wanted.
    pub message: M,
}

impl<M> Handler<Tell<M>> for Dispatcher
where
    M: Message<Result = Result<(), NotWritten>> + Send + 'static,
    Job: Handler<M>,
{
    type Result = ResponseFuture<Result<bool, NotWritten>>;

    fn handle(&mut self, Tell { job_id, message }: Tell<M>, context: &mut Context<Self>) -> Self::Result {
        let actor = self.actor_of_open(job_id, context);
        Box::pin(async move {
            let Some(actor) = actor else { return Ok(false) };
            actor.send(message).await.unwrap_or(Err(NotWritten::Stopping)).map(|()| true)
        })
    }
}

impl Dispatcher {
    /// The actor of a job that is not over; one that waits gets one that ends it without sending it.
    fn actor_of_open(&mut self, job_id: Uuid, context: &mut Context<Self>) -> Option<Addr<Job>> {
        match self.lanes.force_out(job_id) {
            Some(record) => Some(self.start_job(record, Entry::Resume, context)),
            None => self.actor_of(job_id, context).filter(|_| self.lanes.contains(job_id)),
        }
    }
}

/// A host was taken out of service: what waits is cancelled, and no report will come of what is out.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HostRemoved {
    /// The host.
    pub host_id: Uuid,
}

impl Handler<HostRemoved> for Dispatcher {
    type Result = ();

    fn handle(&mut self, HostRemoved { host_id }: HostRemoved, context: &mut Context<Self>) {
        let mut comes_later = false;
        for job_id in self.lanes.of_host(host_id) {
            if let Some(record) = self.lanes.force_out(job_id) {
                self.start_job(record, Entry::Resume, context).do_send(Cancel { request: None });
            } else if let Some(actor) = self.actor_of(job_id, context) {
                actor.do_send(Decide::GiveUp { reason: "the host was taken out of service".to_owned() });
            } else {
                // It is just being stored, and has an actor once it is.
                comes_later = true;
            }
        }
        if comes_later {
            context.notify_later(HostRemoved { host_id }, LOOK_AGAIN);
        }
    }
}

/// The time has come to look which jobs have waited too long. Those that are out look by themselves.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LookAtDeadlines;

impl Handler<LookAtDeadlines> for Dispatcher {
    type Result = ();

    fn handle(&mut self, _: LookAtDeadlines, context: &mut Context<Self>) {
        let (now, services) = (Instant::now(), Arc::clone(&self.services));
        let expired = |(job, waited)| Some((job, deadlines::waiting(waited, &services.limits)?));
        // The oldest first: who comes behind one that is not overdue is not either.
        for (job_id, decision) in self.lanes.waiting(now).map_while(expired).collect::<Vec<_>>() {
            if self.lanes.is_paused(job_id) {
                // Nobody has it wait but who has paused it.
                self.lanes.count_waiting(job_id, Duration::ZERO, now);
                continue;
            }
            log::warn!(job:% = job_id; "a job is overdue: {decision:?}");
            self.handle(Overrule { job_id, decision }, context);
        }
    }
}

/// The coordinator's decision about a job, found by its deadlines or made by a person.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Overrule {
    /// The job.
    pub job_id: Uuid,
    /// What is decided.
    pub decision: Decide,
}

impl Handler<Overrule> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Overrule { job_id, decision }: Overrule, context: &mut Context<Self>) {
        if let Some(actor) = self.actor_of_open(job_id, context) {
            actor.do_send(decision);
        }
    }
}

/// What these jobs wait for, for those that wait.
#[derive(Message)]
#[rtype(result = "HashMap<Uuid, Obstacle>")]
pub struct Explain {
    /// The jobs.
    pub jobs: Vec<Uuid>,
}

impl Handler<Explain> for Dispatcher {
    type Result = MessageResult<Explain>;

    fn handle(&mut self, Explain { jobs }: Explain, _: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        let explain = |job: Uuid| Some((job, self.lanes.obstacle(job, now)?));
        MessageResult(jobs.into_iter().filter_map(explain).collect())
    }
}
