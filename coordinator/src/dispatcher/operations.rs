//! What operations ask of the dispatcher: making all jobs of one, and letting them go, or not.

use super::lanes::{Held, Member, Released};
use super::{Dispatcher, Overrule, Resume};
use crate::clock;
use crate::db::jobs::{Job as JobRecord, JobState, NewJob};
use crate::db::operations::{Make, Operation as OperationRecord, Skipped, Standing};
use crate::job::{Decide, Entry};
use crate::operation::members::{Event, Limits, Members};
use crate::operation::{Operation, OperationServices};
use crate::persistence::{Apart, Patience, Requested, WriteError};
use crate::request::Request;
use actix::{AsyncContext, Context, Handler, Message, ResponseFuture};
use fleet_wire::Status;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Makes an operation with all of its jobs. Answered when all of it is in the ledger, with the operation as it is there.
#[derive(Message)]
#[rtype(result = "Result<OperationRecord, WriteError>")]
pub struct SubmitOperation {
    /// The operation.
    pub operation: OperationRecord,
    /// Its jobs.
    pub jobs: Vec<NewJob>,
    /// Those that get none.
    pub skipped: Vec<Skipped>,
    /// The request that asks for it.
    pub request: Option<Arc<Request>>,
}

/// A job that is being made, and whether it goes out at once.
type Submitted = (JobRecord, bool);

impl Handler<SubmitOperation> for Dispatcher {
    type Result = ResponseFuture<Result<OperationRecord, WriteError>>;

    fn handle(&mut self, submit: SubmitOperation, context: &mut Context<Self>) -> Self::Result {
        let SubmitOperation { operation, jobs, skipped, request } = submit;
        let hold = Limits::of(&operation).hold();
        let jobs: Vec<Submitted> = jobs.into_iter().map(|new| self.place(new, hold)).collect();
        let beginning = |(job, goes_out): &Submitted| (Arc::clone(&job.new), goes_out.then(|| Arc::clone(&job.state)));
        let write = Make { operation, jobs: jobs.iter().map(beginning).collect(), skipped };
        let write = Requested::of(request, write);
        let write = self.services.persistence.send(Apart { write, patience: Patience::REST });
        let dispatcher = context.address();
        // A task of its own, as with a single job.
        Box::pin(async move {
            let outcome = write.await.unwrap_or(Err(WriteError::Unknown));
            let made = outcome.as_ref().ok().cloned();
            dispatcher.do_send(OperationStored { jobs, made });
            outcome.map(|(operation, _)| operation)
        })
    }
}

impl Dispatcher {
    /// Gives a new job of an operation its place.
    fn place(&mut self, new: NewJob, hold: bool) -> Submitted {
        let goes_out = if hold {
            self.lanes.add_held(&new, Instant::now());
            false
        } else {
            self.lanes.add_new(&new, Instant::now())
        };
        let journal = self.journal_of(new.host_id).filter(|_| goes_out);
        let state = JobState { dispatched_at: goes_out.then(clock::now), journal, ..JobState::new() };
        (JobRecord::of(new.as_stored(), state.as_stored()), goes_out)
    }

    /// Tells operations which of the members that they hold can go, and which can't.
    pub(super) fn tell_of_held(&self, Held { back, away }: Held) {
        self.tell_operations(back, Event::Back);
        self.tell_operations(away, Event::Away);
    }

    /// Tells operations what has happened to these members.
    fn tell_operations(&self, members: Vec<Member>, event: Event) {
        for (operation_id, job_id) in members {
            self.services.operations.tell(operation_id, job_id, event);
        }
    }

    /// Starts the actor of an operation that is in the ledger.
    fn start_operation(&mut self, record: OperationRecord, jobs: &[Standing], context: &mut Context<Self>) {
        let members = Members::new(Limits::of(&record), jobs, |job_id| self.lanes.is_held(job_id));
        let services = OperationServices {
            dispatcher: context.address(),
            persistence: self.services.persistence.clone(),
            board: Arc::clone(&self.services.board),
            open: Arc::clone(&self.services.operations),
        };
        Operation::begin(record, members, services);
    }
}

/// An operation that was submitted is in the ledger, or will not be.
#[derive(Message)]
#[rtype(result = "()")]
struct OperationStored {
    jobs: Vec<Submitted>,
    /// The operation, and those of its jobs that were not made; absent if nothing was.
    made: Option<(OperationRecord, HashSet<Uuid>)>,
}

impl Handler<OperationStored> for Dispatcher {
    type Result = ();

    fn handle(&mut self, OperationStored { jobs, made }: OperationStored, context: &mut Context<Self>) {
        let now = Instant::now();
        let is_made = |job_id| made.as_ref().is_some_and(|(_, missing)| !missing.contains(&job_id));
        let mut repositories = HashSet::new();
        let mut standings = Vec::with_capacity(jobs.len());
        for (job, goes_out) in jobs {
            let (job_id, repository_id) = (job.new.id, job.new.repository_id);
            if !is_made(job_id) {
                self.lanes.remove(job_id);
                repositories.insert(repository_id);
                continue;
            }
            standings.push(Standing { job_id, status: Status::Queued, partial: false, dispatched: goes_out });
            if goes_out {
                // Its actor comes in a piece, as after a start: others are served in between.
                self.without_actor.insert(job_id, (job, Entry::Send));
            } else {
                self.lanes.committed(job, now);
                repositories.insert(repository_id);
            }
        }
        if let Some((record, _)) = made {
            self.start_operation(record, &standings, context);
        }
        context.notify(Resume);
        for repository_id in repositories {
            self.dispatch(repository_id, context);
        }
    }
}

/// Operations that were not over when the coordinator stopped.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ResumeOperations(pub Vec<(OperationRecord, Vec<Standing>)>);

impl Handler<ResumeOperations> for Dispatcher {
    type Result = ();

    fn handle(&mut self, ResumeOperations(open): ResumeOperations, context: &mut Context<Self>) {
        for (record, jobs) in open {
            log::info!(operation:% = record.id, jobs = jobs.len(); "an operation goes on");
            self.start_operation(record, &jobs, context);
        }
    }
}

/// An operation lets jobs go. Those whose host is not connected stay, and it hears so.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Release {
    /// The operation.
    pub operation_id: Uuid,
    /// The jobs.
    pub jobs: Vec<Uuid>,
}

impl Handler<Release> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Release { operation_id, jobs }: Release, context: &mut Context<Self>) {
        let (now, mut repositories) = (Instant::now(), HashSet::new());
        for job_id in jobs {
            match self.lanes.release(job_id, now) {
                Released::Ready(repository_id) => {
                    repositories.insert(repository_id);
                }
                Released::Away => self.tell_operations(vec![(operation_id, job_id)], Event::Away),
                Released::Gone => {}
            }
        }
        for repository_id in repositories {
            self.dispatch(repository_id, context);
        }
    }
}

/// The same decision about many jobs.
#[derive(Message)]
#[rtype(result = "()")]
pub struct OverruleMany {
    /// The jobs.
    pub jobs: Vec<Uuid>,
    /// What is decided.
    pub decision: Decide,
}

impl Handler<OverruleMany> for Dispatcher {
    type Result = ();

    fn handle(&mut self, OverruleMany { jobs, decision }: OverruleMany, context: &mut Context<Self>) {
        for job_id in jobs {
            self.handle(Overrule { job_id, decision: decision.clone() }, context);
        }
    }
}
