//! What others ask of the dispatcher about jobs that are there: their actors, their end, what they wait for.

use super::Dispatcher;
use super::lanes::Granted;
use crate::db::jobs::Job as JobRecord;
use crate::db::{DatabaseError, jobs};
use crate::job::{Cancel, Entry, Job};
use crate::persistence::WriteError;
use actix::{ActorFutureExt, Addr, Handler, Message, MessageResult, ResponseActFuture, ResponseFuture, WrapFuture};
use fleet_wire::JobId;
use std::collections::HashMap;
use thiserror::Error;
use uuid::Uuid;

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

    fn handle(&mut self, CancelJob { job_id }: CancelJob, context: &mut actix::Context<Self>) -> Self::Result {
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
