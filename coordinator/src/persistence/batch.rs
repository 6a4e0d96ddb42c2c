//! The writes of one transaction, and how they are committed together.
//!
//! Writes with a result of their own go first, each in a savepoint so that one that is refused takes no other with
//! it. Then come the others, grouped: a few statements for all hellos, one for all new jobs, one for all states, one for
//! all log chunks. The number of round trips does not depend on how much there is to write. What requests leave comes last,
//! for all of them in one statement each: who adds to the audit log waits for others that do, and must hold up nobody then.

use super::WriteError;
use super::error::{Failure, is_constraint, is_from_server};
use super::messages::{Patience, Save, SaveAnswer, SaveHello, SaveJob, SavePresence, SaveRecords, Write};
use crate::db::greetings::{self, Greeting, NewHello};
use crate::db::jobs::Beginning;
use crate::db::statement::statement;
use crate::db::{idempotency, jobs, logs, notices, presence, requests, runs};
use crate::notify::{Notice, Outbox};
use crate::request::Request;
use diesel::QueryResult;
use diesel_async::{AnsiTransactionManager, AsyncConnection, AsyncPgConnection, RunQueryDsl, TransactionManager};
use futures_util::future::{BoxFuture, join3, try_join, try_join3, try_join4};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uuid::Uuid;

/// Log data and answers in one transaction, packed, in bytes: some milliseconds' worth, for so long everything else waits.
const MOST_BYTES: usize = 512 * 1024;

type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// A write that waits for its transaction, whatever its result type.
pub(super) trait Waiting: Send {
    /// Applies it and keeps its result.
    fn apply<'a>(&'a mut self, connection: &'a mut AsyncPgConnection) -> BoxFuture<'a, QueryResult<()>>;
    /// The request to record with it, once it is applied.
    fn to_record(&self) -> Option<&Request>;
    /// Tells its asker what came of it.
    fn settle(self: Box<Self>, outcome: Result<(), WriteError>);
}

struct Single<W: Write> {
    write: W,
    output: Option<W::Output>,
    reply: Reply<W::Output>,
}

impl<W: Write> Waiting for Single<W> {
    fn apply<'a>(&'a mut self, connection: &'a mut AsyncPgConnection) -> BoxFuture<'a, QueryResult<()>> {
        Box::pin(async move {
            self.output = None; // of a transaction that was not committed
            self.output = Some(self.write.apply(connection).await?);
            Ok(())
        })
    }

    fn to_record(&self) -> Option<&Request> {
        self.write.to_record(self.output.as_ref()?)
    }

    fn settle(self: Box<Self>, outcome: Result<(), WriteError>) {
        let Self { output, reply, .. } = *self;
        let _ = reply.send(outcome.and_then(|()| output.ok_or(WriteError::Unknown))); // the asker may have gone
    }
}

struct JobWrite {
    save: SaveJob,
    reply: Reply<()>,
}

struct HelloWrite {
    save: SaveHello,
    greeting: Option<Arc<Greeting>>,
    reply: Reply<Option<Arc<Greeting>>>,
}

struct PresenceWrite {
    save: SavePresence,
    reply: Reply<()>,
}

struct AnswerWrite {
    save: SaveAnswer,
    reply: Reply<()>,
}

struct RecordsWrite {
    save: SaveRecords,
    reply: Reply<()>,
}

enum Entry {
    Single(Box<dyn Waiting>),
    Job(JobWrite),
    Hello(HelloWrite),
    Presence(PresenceWrite),
    Answer(AnswerWrite),
    Records(RecordsWrite),
}

impl Entry {
    /// How much data it carries that may be large.
    fn bytes(&self) -> usize {
        match self {
            Self::Job(JobWrite { save, .. }) => save.chunks.iter().map(|chunk| chunk.data.len()).sum(),
            Self::Answer(AnswerWrite { save, .. }) => save.answer.len(),
            Self::Single(_) | Self::Hello(_) | Self::Presence(_) | Self::Records(_) => 0,
        }
    }

    /// Whether one statement does all of its kind, and none needs an answer of another.
    fn is_grouped(&self) -> bool {
        matches!(self, Self::Job(_) | Self::Presence(_) | Self::Answer(_) | Self::Records(_))
    }

    fn settle(self, outcome: Result<(), WriteError>) {
        match self {
            Self::Single(write) => write.settle(outcome),
            Self::Hello(HelloWrite { greeting, reply, .. }) => {
                let _ = reply.send(outcome.map(|()| greeting));
            }
            Self::Job(JobWrite { reply, .. })
            | Self::Presence(PresenceWrite { reply, .. })
            | Self::Answer(AnswerWrite { reply, .. })
            | Self::Records(RecordsWrite { reply, .. }) => {
                let _ = reply.send(outcome);
            }
        }
    }
}

struct Queued {
    entry: Entry,
    /// When its asker stops waiting.
    deadline: Option<Instant>,
    /// A commit that held it was not answered: it may be done.
    doubtful: bool,
}

impl Queued {
    /// Whether its asker waits no longer, and it is certain that it is not done.
    fn is_expired(&self, now: Instant) -> bool {
        !self.doubtful && self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// The writes of one transaction, in the order in which they were asked.
#[derive(Default)]
pub(super) struct Batch(Vec<Queued>);

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push_single<W: Write>(&mut self, save: Save<W>, reply: Reply<W::Output>) {
        let Save { write, patience } = save;
        self.push(Entry::Single(Box::new(Single { write, output: None, reply })), patience);
    }

    pub(super) fn push_job(&mut self, save: SaveJob, reply: Reply<()>) {
        let patience = save.patience;
        self.push(Entry::Job(JobWrite { save, reply }), patience);
    }

    pub(super) fn push_hello(&mut self, save: SaveHello, reply: Reply<Option<Arc<Greeting>>>) {
        self.push(Entry::Hello(HelloWrite { save, greeting: None, reply }), Patience::Endless);
    }

    pub(super) fn push_presence(&mut self, save: SavePresence, reply: Reply<()>) {
        self.push(Entry::Presence(PresenceWrite { save, reply }), Patience::Endless);
    }

    pub(super) fn push_answer(&mut self, save: SaveAnswer, reply: Reply<()>) {
        self.push(Entry::Answer(AnswerWrite { save, reply }), Patience::REST);
    }

    pub(super) fn push_records(&mut self, save: SaveRecords, reply: Reply<()>) {
        self.push(Entry::Records(RecordsWrite { save, reply }), Patience::REST);
    }

    fn push(&mut self, entry: Entry, patience: Patience) {
        let deadline = match patience {
            Patience::Endless => None,
            Patience::Within(limit) => Some(Instant::now() + limit),
        };
        self.0.push(Queued { entry, deadline, doubtful: false });
    }

    /// Takes the first writes out: at most `most`, and no more data than one transaction should carry. Those without
    /// such do not wait for what is too much: who asks for two writes that depend on each other waits for the first.
    pub(super) fn take(&mut self, most: usize) -> Self {
        let mut room = MOST_BYTES;
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for queued in std::mem::take(&mut self.0) {
            let bytes = queued.entry.bytes();
            let fits = bytes <= room || room == MOST_BYTES; // one that is too large by itself goes all the same
            if taken.len() < most && fits {
                room = room.saturating_sub(bytes);
                taken.push(queued);
            } else {
                left.push(queued);
            }
        }
        self.0 = left;
        Self(taken)
    }

    /// Puts `later` behind these.
    pub(super) fn append(&mut self, mut later: Self) {
        self.0.append(&mut later.0);
    }

    /// Splits it into batches of one write.
    pub(super) fn into_singles(self) -> impl Iterator<Item = Self> {
        self.0.into_iter().map(|queued| Self(vec![queued]))
    }

    /// After a commit without an answer: every write may be done.
    pub(super) fn mark_doubtful(&mut self) {
        self.0.iter_mut().for_each(|queued| queued.doubtful = true);
    }

    /// Gives up the writes whose askers have stopped waiting. One that may be done is kept: what became of it must be
    /// found out, and applying it again does no harm.
    pub(super) fn expire(&mut self, now: Instant, why: &str) {
        if !self.0.iter().any(|queued| queued.is_expired(now)) {
            return;
        }
        let (expired, kept) =
            std::mem::take(&mut self.0).into_iter().partition::<Vec<_>, _>(|queued| queued.is_expired(now));
        self.0 = kept;
        for queued in expired {
            queued.entry.settle(Err(WriteError::NotDone(why.to_owned())));
        }
    }

    /// Tells the asker of a batch of one write that the database refuses it.
    pub(super) fn reject(self, error: diesel::result::Error) {
        let mut error = Some(error);
        for queued in self.0 {
            queued.entry.settle(Err(error.take().map_or(WriteError::Unknown, WriteError::Rejected)));
        }
    }

    /// What the ends of jobs in it are to be told, if anybody wants to know.
    fn notices(&self, outbox: &Outbox) -> Vec<Notice> {
        if !outbox.is_wanted() {
            return Vec::new();
        }
        let ending = |queued: &'_ Queued| match &queued.entry {
            Entry::Job(JobWrite { save, .. }) => save.ending.as_deref().and_then(Notice::of_ending),
            _ => None,
        };
        self.0.iter().filter_map(ending).filter(|notice| outbox.wants(notice.event)).collect()
    }

    /// Commits everything in one transaction of at most `limit`. On success every asker is told; on failure nobody is,
    /// and the batch is as before. What goes into the `outbox` goes with it.
    pub(super) async fn commit(
        &mut self,
        connection: &mut AsyncPgConnection,
        limit: Duration,
        outbox: &Outbox,
    ) -> Result<(), Failure> {
        let mut committing = false;
        let notices = self.notices(outbox);
        let attempt = self.transaction(connection, &notices, &mut committing);
        let rejected = match tokio::time::timeout(limit, attempt).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                let why = format!("no answer from the database for {} s", limit.as_secs());
                return Err(if committing { Failure::Unknown(why) } else { Failure::Broken(why) });
            }
        };
        let mut rejected: HashMap<usize, diesel::result::Error> = rejected.into_iter().collect();
        for (index, queued) in std::mem::take(&mut self.0).into_iter().enumerate() {
            queued.entry.settle(rejected.remove(&index).map_or(Ok(()), |error| Err(WriteError::Rejected(error))));
        }
        if !notices.is_empty() {
            outbox.ring();
        }
        Ok(())
    }

    async fn transaction(
        &mut self,
        connection: &mut AsyncPgConnection,
        notices: &[Notice],
        committing: &mut bool,
    ) -> Result<Vec<(usize, diesel::result::Error)>, Failure> {
        if self.0.iter().all(|queued| queued.entry.is_grouped()) {
            *committing = true;
            return self.at_once(connection, notices).await;
        }
        AnsiTransactionManager::begin_transaction(connection).await.map_err(Failure::before_commit)?;
        let rejected = match self.apply(connection, notices).await {
            Ok(rejected) => rejected,
            Err(error) => {
                // A rollback that fails leaves a broken connection; the database rolls back by itself then.
                let _ = AnsiTransactionManager::rollback_transaction(connection).await;
                return Err(Failure::before_commit(error));
            }
        };
        *committing = true;
        match AnsiTransactionManager::commit_transaction(connection).await {
            Ok(()) => Ok(rejected),
            Err(error) => Err(Failure::Unknown(error.to_string())),
        }
    }

    /// The whole transaction in one round trip: the commit is sent before anything is answered. After a statement that
    /// fails the server takes it for a rollback. One that could not even be sent may leave the others committed: they are
    /// in doubt then, and applied again.
    async fn at_once(
        &mut self,
        mut connection: &AsyncPgConnection,
        notices: &[Notice],
    ) -> Result<Vec<(usize, diesel::result::Error)>, Failure> {
        let mut rejected = Vec::new();
        let mut last = connection;
        let (begun, applied, committed) = join3(
            statement("BEGIN").execute(&mut connection),
            self.apply_grouped(last, notices, &mut rejected),
            statement("COMMIT").execute(&mut last),
        )
        .await;
        // Without these answers nothing is certain: without the first, each statement was a transaction of its own.
        committed.and(begun).map_err(|error| Failure::Unknown(error.to_string()))?;
        if let Err(error) = applied {
            if !is_from_server(&error) {
                self.mark_doubtful();
            }
            return Err(Failure::before_commit(error));
        }
        Ok(rejected)
    }

    /// Applies everything, and tells which writes are refused.
    async fn apply(
        &mut self,
        connection: &mut AsyncPgConnection,
        notices: &[Notice],
    ) -> QueryResult<Vec<(usize, diesel::result::Error)>> {
        let mut rejected = Vec::new();
        for (index, queued) in self.0.iter_mut().enumerate() {
            if let Entry::Single(write) = &mut queued.entry {
                match connection.transaction(async |savepoint| write.apply(savepoint).await).await {
                    Ok(()) => {}
                    Err(error) if is_constraint(&error) => rejected.push((index, error)),
                    Err(error) => return Err(error),
                }
            }
        }
        self.apply_hellos(connection).await?;
        self.apply_grouped(connection, notices, &mut rejected).await?;
        Ok(rejected)
    }

    async fn apply_hellos(&mut self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let mut hellos: Vec<&mut HelloWrite> = Vec::new();
        for queued in &mut self.0 {
            if let Entry::Hello(write) = &mut queued.entry {
                hellos.push(write);
            }
        }
        if hellos.is_empty() {
            return Ok(());
        }
        let new: Vec<&NewHello> = hellos.iter().map(|write| &write.save.0).collect();
        let greetings = greetings::greet_many(connection, &new).await?;
        for write in hellos {
            write.greeting = greetings.get(&write.save.0.host_id).cloned();
        }
        Ok(())
    }

    /// Sends all statements at once: each is executed after the one before it, but none waits for an answer.
    async fn apply_grouped(
        &self,
        connection: &AsyncPgConnection,
        told: &[Notice],
        rejected: &mut Vec<(usize, diesel::result::Error)>,
    ) -> QueryResult<()> {
        let mut new = Vec::new();
        let mut claims = Vec::new();
        let mut endings = Vec::new();
        let mut states = HashMap::new();
        let mut chunks = Vec::new();
        let mut hosts = HashMap::new();
        let mut asked = Vec::new();
        let mut answers = Vec::new();
        let mut records = Vec::new();
        for queued in &self.0 {
            match &queued.entry {
                Entry::Hello(_) => {}
                Entry::Single(write) => asked.extend(write.to_record().map(|request| (request, None))),
                Entry::Answer(AnswerWrite { save, .. }) => answers.push((&save.claim, &save.answer[..])),
                Entry::Records(RecordsWrite { save, .. }) => records.extend(&save.0),
                Entry::Job(JobWrite { save, .. }) => {
                    match &save.new {
                        Some(job) => {
                            let claim = save.claim.as_deref();
                            claims.extend(claim.map(|claim| (&**job, claim)));
                            new.push(Beginning { new: job, state: save.state.as_deref() });
                        }
                        // A later state of the same job stands for the earlier one too.
                        None => states.extend(save.state.as_deref().map(|state| (save.job_id, state))),
                    }
                    chunks.extend(&save.chunks);
                    endings.extend(save.ending.as_deref());
                    let job = save.new.as_ref().map(|job| job.id);
                    asked.extend(save.requests.iter().map(|request| (&**request, job)));
                }
                Entry::Presence(PresenceWrite { save, .. }) => {
                    hosts.extend(save.0.iter().map(|presence| (presence.host_id, presence)));
                }
            }
        }
        let ids: Vec<Uuid> = new.iter().map(|job| job.new.id).collect();
        // Polled, and so sent, in this order.
        let (((), (), present), _, (), _) = try_join4(
            try_join3(
                runs::claim_many(connection, &claims),
                jobs::insert_many(connection, &new),
                jobs::present(connection, &ids),
            ),
            try_join4(
                jobs::update_states(connection, &states),
                runs::settle_many(connection, &endings),
                logs::insert_chunks(connection, &chunks),
                presence::update_many(connection, hosts.into_values()),
            ),
            notices::write(connection, told),
            // Last: the audit log is closed to others from here to the commit.
            try_join(idempotency::put_answers(connection, &answers), requests::record(connection, &asked, &records)),
        )
        .await?;
        for (index, queued) in self.0.iter().enumerate() {
            if let Entry::Job(JobWrite { save, .. }) = &queued.entry
                && save.new.is_some()
                && !present.contains(&save.job_id)
            {
                rejected.push((index, diesel::result::Error::NotFound));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::logs::LogChunk;

    /// A batch of jobs' writes with so much log data each, numbered.
    fn batch(bytes: &[usize]) -> Batch {
        let mut batch = Batch::default();
        for (number, bytes) in (0_u128..).zip(bytes) {
            let job_id = Uuid::from_u128(number);
            let chunk = LogChunk { job_id, first_seq: 0, last_seq: 0, compacted: false, data: vec![0; *bytes] };
            let chunks = if *bytes > 0 { vec![chunk] } else { Vec::new() };
            let (reply, _) = oneshot::channel();
            let (new, claim, ending, state) = (None, None, None, None);
            let patience = Patience::Endless;
            let save = SaveJob { job_id, new, claim, ending, state, chunks, requests: Vec::new(), patience };
            batch.push_job(save, reply);
        }
        batch
    }

    fn numbers(batch: &Batch) -> Vec<u128> {
        let number = |queued: &Queued| match &queued.entry {
            Entry::Job(write) => write.save.job_id.as_u128(),
            _ => u128::MAX,
        };
        batch.0.iter().map(number).collect()
    }

    #[test]
    fn what_has_no_log_data_does_not_wait_for_what_has_much() {
        let half = MOST_BYTES / 2;
        let mut waiting = batch(&[half, half, 1, 0, half, 0]);
        assert_eq!(numbers(&waiting.take(usize::MAX)), [0, 1, 3, 5]);
        assert_eq!(numbers(&waiting.take(usize::MAX)), [2, 4]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn what_is_too_large_by_itself_goes_nevertheless_and_many_go_in_turns() {
        let mut waiting = batch(&[2 * MOST_BYTES, 0, 0, 3 * MOST_BYTES]);
        assert_eq!(numbers(&waiting.take(2)), [0, 1]);
        assert_eq!(numbers(&waiting.take(2)), [2, 3]);
    }
}
