//! One operation that is not over: from the commit that made it and all of its jobs until the last of them is over.
//!
//! It hears from its jobs and from the dispatcher what becomes of each ([`MemberChanged`]), lets [`members`] decide, and
//! has the dispatcher release, withdraw or cancel jobs. It decides by what is in the ledger: after a restart it is made
//! anew of how its jobs stand there, and does again whatever it had not finished. When it is over it writes down how its
//! jobs have ended, and stops.

pub mod members;
pub mod select;

use crate::board::Board;
use crate::db::operations::{Change, Operation as OperationRecord, SaveChange, Saved, Tally};
use crate::dispatcher::{Dispatcher, OverruleMany, Release};
use crate::job::Decide;
use crate::persistence::{Patience, Persistence, Requested, Save, Write, WriteError};
use crate::request::Request;
use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult,
    ResponseActFuture, WrapFuture,
};
use chrono::{SubsecRound, Utc};
use members::{Actions, Event, Members};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

/// Jobs in one message to the dispatcher: it serves others between two.
const JOBS_AT_ONCE: usize = 256;

/// The operations that are not over. Its lock is held for a look-up, never across an await.
#[derive(Default)]
pub struct OpenOperations(RwLock<HashMap<Uuid, Addr<Operation>>>);

impl OpenOperations {
    // A panic elsewhere does not make a plain map wrong.
    fn all(&self) -> RwLockReadGuard<'_, HashMap<Uuid, Addr<Operation>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Uuid, Addr<Operation>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation's actor, if it is not over.
    pub fn get(&self, id: Uuid) -> Option<Addr<Operation>> {
        self.all().get(&id).cloned()
    }

    /// Tells an operation what has happened to one of its jobs.
    pub fn tell(&self, id: Uuid, job_id: Uuid, event: Event) {
        if let Some(operation) = self.all().get(&id) {
            operation.do_send(MemberChanged { job_id, event });
        }
    }
}

/// What operations need of the coordinator.
#[derive(Clone)]
pub struct OperationServices {
    /// Lets jobs go.
    pub dispatcher: Addr<Dispatcher>,
    /// The one writer.
    pub persistence: Addr<Persistence>,
    /// Who waits for its end.
    pub board: Arc<Board>,
    /// Where others find it.
    pub open: Arc<OpenOperations>,
}

/// See the module's text.
pub struct Operation {
    record: OperationRecord,
    members: Members,
    services: OperationServices,
    /// Its end is being written.
    ending: bool,
}

impl Operation {
    /// Starts the actor of `record`, which is in the ledger.
    pub fn begin(record: OperationRecord, members: Members, services: OperationServices) {
        let (id, open) = (record.id, Arc::clone(&services.open));
        let operation = Self { record, members, services, ending: false }.start();
        open.write().insert(id, operation);
    }

    /// Does what is to be done now.
    fn act(&mut self, context: &mut Context<Self>) {
        let Actions { release, halt, end } = self.members.decide();
        if let Some(reason) = halt {
            log::warn!(operation:% = self.record.id; "the operation is halted: {reason}");
            self.members.halt();
            self.save(Change::Halt { reason }, context);
            self.stop_members();
        }
        self.members.released(&release);
        for jobs in release.chunks(JOBS_AT_ONCE) {
            self.services.dispatcher.do_send(Release { operation_id: self.record.id, jobs: jobs.to_vec() });
        }
        if end && !self.ending {
            self.ending = true;
            self.save(Change::End(self.members.tally()), context);
        }
    }

    /// Takes back what was not let go; of a cancelled one also what is out.
    fn stop_members(&self) {
        let (jobs, decision) = match self.record.cancel_requested_at {
            Some(_) => (self.members.open(), Decide::Cancel),
            None => (self.members.not_begun(), Decide::Withdraw { reason: "its operation was halted".to_owned() }),
        };
        for jobs in jobs.chunks(JOBS_AT_ONCE) {
            self.services.dispatcher.do_send(OverruleMany { jobs: jobs.to_vec(), decision: decision.clone() });
        }
    }

    fn write(
        &self,
        change: Change,
        request: Option<Arc<Request>>,
        patience: Patience,
    ) -> impl Future<Output = Result<Saved, WriteError>> + use<> {
        let at = Utc::now().trunc_subsecs(6);
        let write = Requested::of(request, SaveChange { id: self.record.id, change, at });
        let written = self.services.persistence.send(Save { write, patience });
        async move { written.await.unwrap_or(Err(WriteError::Unknown)) }
    }

    /// Writes a change that nobody waits for.
    fn save(&self, change: Change, context: &mut Context<Self>) {
        let written = self.write(change, None, Patience::Endless);
        context.spawn(written.into_actor(self).map(|outcome, actor, context| actor.written(outcome, context)));
    }

    fn written(&mut self, outcome: Result<Saved, WriteError>, context: &mut Context<Self>) {
        match outcome {
            Ok(Some((record, _))) => self.record = record,
            Ok(None) => {}
            Err(error) => log::error!(operation:% = self.record.id; "a change can't be written: {error}"),
        }
        if self.record.ended_at.is_some() {
            self.services.open.write().remove(&self.record.id);
            context.stop();
        }
        self.services.board.job_changed(self.record.id);
    }
}

impl Actor for Operation {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // What the life before this one had begun and perhaps not finished.
        if self.record.cancel_requested_at.is_some() {
            self.members.cancel();
            self.stop_members();
        } else if self.record.halted_at.is_some() {
            self.members.halt();
            self.stop_members();
        }
        self.act(context);
    }
}

/// Something has happened to one of its jobs.
#[derive(Message)]
#[rtype(result = "()")]
pub struct MemberChanged {
    /// The job.
    pub job_id: Uuid,
    /// What has happened.
    pub event: Event,
}

impl Handler<MemberChanged> for Operation {
    type Result = ();

    fn handle(&mut self, MemberChanged { job_id, event }: MemberChanged, context: &mut Self::Context) {
        self.members.note(job_id, event);
        self.act(context);
    }
}

/// Somebody wants its end. Answered when that is in the ledger, with whether it was not over and nobody did before.
#[derive(Message)]
#[rtype(result = "Result<bool, WriteError>")]
pub struct Cancel {
    /// The request that asks for it.
    pub request: Option<Arc<Request>>,
}

impl Handler<Cancel> for Operation {
    type Result = ResponseActFuture<Self, Result<bool, WriteError>>;

    fn handle(&mut self, Cancel { request }: Cancel, _: &mut Self::Context) -> Self::Result {
        let written = self.write(Change::Cancel, request, Patience::REST);
        Box::pin(written.into_actor(self).map(move |outcome, actor, context| {
            let saved = outcome?;
            let first = SaveChange::is_change(&saved);
            actor.members.cancel();
            actor.written(Ok(saved), context);
            actor.stop_members();
            actor.act(context);
            Ok(first)
        }))
    }
}

/// How it stands.
#[derive(Message)]
#[rtype(result = "Look")]
pub struct Ask;

/// An operation and its jobs.
#[derive(Clone, Debug)]
pub struct Look {
    /// As it stands in the ledger.
    pub record: OperationRecord,
    /// How many jobs have yet to begin.
    pub queued: i64,
    /// How many are being worked on.
    pub running: i64,
    /// How many have ended how.
    pub tally: Tally,
}

impl Handler<Ask> for Operation {
    type Result = MessageResult<Ask>;

    fn handle(&mut self, _: Ask, _: &mut Self::Context) -> Self::Result {
        let (queued, running) = self.members.queued_and_running();
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let (record, tally) = (self.record.clone(), self.members.tally());
        MessageResult(Look { record, queued: count(queued), running: count(running), tally })
    }
}
