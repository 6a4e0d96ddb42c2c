//! What can be asked of the persistence actor.

use super::WriteError;
use crate::db::audit::Record;
use crate::db::greetings::{Greeting, NewHello};
use crate::db::jobs::{JobState, NewJob};
use crate::db::logs::LogChunk;
use crate::db::presence::Presence;
use crate::db::runs::{self, Ending};
use crate::request::{Claim, Request};
use actix::Message;
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A write with a result of its own, done inside the batch's transaction. It may be applied more than once when the
/// outcome of a commit was unknown, so applying it twice must be the same as once.
pub trait Write: Send + Sync + 'static {
    /// What its asker learns after the commit.
    type Output: Send + 'static;

    /// Does it.
    fn apply(&self, connection: &mut AsyncPgConnection) -> impl Future<Output = QueryResult<Self::Output>> + Send;

    /// Whether it has changed what it was to change, by its output: then the request that asked for it is recorded with it.
    fn is_change(_: &Self::Output) -> bool {
        true
    }

    /// The request to record in the same transaction, by the write's output.
    fn to_record(&self, _: &Self::Output) -> Option<&Request> {
        None
    }
}

/// How long a write may wait for a database that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until it is back: what agents report.
    Endless,
    /// At most this long, then [`WriteError::NotDone`]: what REST clients ask.
    Within(Duration),
}

impl Patience {
    /// What a REST client gets.
    pub const REST: Self = Self::Within(Duration::from_secs(5));
}

/// Applies one write.
#[derive(Debug)]
pub struct Save<W> {
    /// The write.
    pub write: W,
    /// How long it may wait.
    pub patience: Patience,
}

impl<W: Write> Message for Save<W> {
    type Result = Result<W::Output, WriteError>;
}

/// Applies one write that is large: in a transaction of its own, so that the others need not wait for it. What it reads
/// may change until it commits.
#[derive(Debug)]
pub struct Apart<W> {
    /// The write.
    pub write: W,
    /// How long it may wait.
    pub patience: Patience,
}

impl<W: Write> Message for Apart<W> {
    type Result = Result<W::Output, WriteError>;
}

/// All that one step of one job changes, written together: many of these become one statement a kind.
#[derive(Debug)]
pub struct SaveJob {
    /// The job.
    pub job_id: Uuid,
    /// The row to make, if the job is new.
    pub new: Option<Arc<NewJob>>,
    /// The run that the new job claims: it is made only if it gets that.
    pub claim: Option<Arc<runs::Claim>>,
    /// How it has ended, if it has.
    pub ending: Option<Box<Ending>>,
    /// The state it is in now, if that changed; of a new job only its dispatch is taken.
    pub state: Option<Arc<JobState>>,
    /// New log lines.
    pub chunks: Vec<LogChunk>,
    /// The requests that asked for it, to be recorded with it.
    pub requests: Vec<Arc<Request>>,
    /// How long it may wait.
    pub patience: Patience,
}

impl Message for SaveJob {
    type Result = Result<(), WriteError>;
}

/// Writes down a hello; many of these become one statement. Answered with what the session needs, or nothing for a host
/// that is gone or decommissioned.
#[derive(Debug)]
pub struct SaveHello(pub NewHello);

impl Message for SaveHello {
    type Result = Result<Option<Arc<Greeting>>, WriteError>;
}

/// The latest sign of life of many hosts, in one statement.
#[derive(Debug)]
pub struct SavePresence(pub Vec<Presence>);

impl Message for SavePresence {
    type Result = Result<(), WriteError>;
}

/// Keeps the answer to what was asked under an `Idempotency-Key`; many of these become one statement.
#[derive(Debug)]
pub struct SaveAnswer {
    /// What was asked.
    pub claim: Claim,
    /// The answer, sealed.
    pub answer: Vec<u8>,
}

impl Message for SaveAnswer {
    type Result = Result<(), WriteError>;
}

/// Adds rows to the audit log that go with no change: of what was refused, most of all.
#[derive(Debug)]
pub struct SaveRecords(pub Vec<Record>);

impl Message for SaveRecords {
    type Result = Result<(), WriteError>;
}

/// Answers when everything that was asked before is settled.
#[derive(Debug)]
pub struct Drain;

impl Message for Drain {
    type Result = ();
}
