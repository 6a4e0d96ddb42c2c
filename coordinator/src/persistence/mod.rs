//! The one writer to Postgres.
//!
//! While a transaction is in flight, what arrives is gathered; the next transaction takes all of it (group commit).
//! Each asker is answered after the commit. When the database is away, nothing is lost: the batch is kept and tried
//! again, and what arrives meanwhile is gathered behind it; only writes with limited [`Patience`] are given back as
//! not done. A commit that was not answered is resolved by applying the batch again, which by [`Write`]'s rule does
//! nothing where it was done. A batch that the database refuses is taken apart to find the write at fault.

mod batch;
mod error;
mod lock;
mod messages;

pub use error::WriteError;
pub use lock::{CoordinatorLock, LockError};
pub use messages::{Drain, Patience, Save, SaveJob, SavePresence, Write};

use crate::db::Database;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use batch::Batch;
use diesel_async::AsyncPgConnection;
use error::Failure;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A transaction that takes longer than this has an unknown outcome.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(30);
/// The pause before the first try after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Senders wait when this many messages are in the mailbox.
const MAILBOX: usize = 4096;

/// The one writer. See the module's text.
pub struct Persistence {
    database: Database,
    /// Absent while a transaction has it, and while there is none.
    connection: Option<AsyncPgConnection>,
    gathered: Batch,
    in_flight: bool,
    failures: u32,
    drained: Vec<oneshot::Sender<()>>,
}

impl Persistence {
    /// A writer to `database`, over a connection that holds the coordinator's lock.
    pub fn new(database: Database, lock: CoordinatorLock) -> Self {
        Self {
            database,
            connection: Some(lock.into_connection()),
            gathered: Batch::default(),
            in_flight: false,
            failures: 0,
            drained: Vec::new(),
        }
    }

    fn write_soon(&mut self, context: &mut Context<Self>) {
        if self.in_flight {
            return;
        }
        if self.gathered.is_empty() {
            for asker in self.drained.drain(..) {
                let _ = asker.send(()); // it may have stopped waiting
            }
            return;
        }
        self.in_flight = true;
        let turn = Turn {
            database: self.database.clone(),
            connection: self.connection.take(),
            batch: std::mem::take(&mut self.gathered),
            failures: self.failures,
        };
        context.spawn(turn.run().into_actor(self).map(|done, actor, context| {
            actor.in_flight = false;
            actor.connection = done.connection;
            actor.failures = done.failures;
            let later = std::mem::replace(&mut actor.gathered, done.batch);
            actor.gathered.append(later);
            actor.write_soon(context);
        }));
    }
}

impl Actor for Persistence {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
    }
}

/// One try to write a batch: what goes in, and what comes back.
struct Turn {
    database: Database,
    connection: Option<AsyncPgConnection>,
    batch: Batch,
    failures: u32,
}

impl Turn {
    async fn run(mut self) -> Self {
        match self.write().await {
            Ok(()) => {
                if self.failures > 0 {
                    log::info!("the database is back");
                }
                self.failures = 0;
            }
            Err(failure) => {
                let why = match failure {
                    Failure::Constraint(error) => error.to_string(),
                    Failure::NotDone(why) => why,
                    Failure::Unknown(why) => {
                        self.batch.mark_doubtful();
                        why
                    }
                };
                self.connection = None;
                if self.failures == 0 {
                    log::error!(writes = self.batch.len(); "can't write to the database, trying until it works: {why}");
                }
                let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16)));
                self.failures += 1;
                tokio::time::sleep(pause).await;
                self.batch.expire(Instant::now(), &format!("the database can't be reached: {why}"));
            }
        }
        self
    }

    async fn write(&mut self) -> Result<(), Failure> {
        if self.connection.is_none() {
            let lock =
                CoordinatorLock::take(&self.database).await.map_err(|error| Failure::NotDone(error.to_string()))?;
            self.connection = Some(lock.into_connection());
        }
        let Some(connection) = self.connection.as_mut() else { return Ok(()) };
        match self.batch.commit(connection, TRANSACTION_LIMIT).await {
            Err(Failure::Constraint(error)) if self.batch.len() > 1 => {
                log::warn!(writes = self.batch.len(); "a batch was refused, writing one by one: {error}");
                self.write_one_by_one().await
            }
            Err(Failure::Constraint(error)) => {
                log::error!("a write was refused: {error}");
                std::mem::take(&mut self.batch).reject(error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn write_one_by_one(&mut self) -> Result<(), Failure> {
        let mut rest = std::mem::take(&mut self.batch).into_singles();
        while let Some(single) = rest.next() {
            self.batch = single;
            if let Err(failure) = Box::pin(self.write()).await {
                rest.for_each(|later| self.batch.append(later));
                return Err(failure);
            }
        }
        Ok(())
    }
}

type Answer<T> = ResponseFuture<Result<T, WriteError>>;

/// The answer to come, of an actor that may end before it comes.
fn answer<T: 'static>(receiver: oneshot::Receiver<Result<T, WriteError>>) -> Answer<T> {
    Box::pin(async move { receiver.await.unwrap_or(Err(WriteError::Unknown)) })
}

impl<W: Write> Handler<Save<W>> for Persistence {
    type Result = Answer<W::Output>;

    fn handle(&mut self, save: Save<W>, context: &mut Self::Context) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        self.gathered.push_single(save, reply);
        self.write_soon(context);
        answer(receiver)
    }
}

impl Handler<SaveJob> for Persistence {
    type Result = Answer<()>;

    fn handle(&mut self, save: SaveJob, context: &mut Self::Context) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        self.gathered.push_job(save, reply);
        self.write_soon(context);
        answer(receiver)
    }
}

impl Handler<SavePresence> for Persistence {
    type Result = Answer<()>;

    fn handle(&mut self, save: SavePresence, context: &mut Self::Context) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        self.gathered.push_presence(save, reply);
        self.write_soon(context);
        answer(receiver)
    }
}

impl Handler<Drain> for Persistence {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, context: &mut Self::Context) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        self.drained.push(reply);
        self.write_soon(context);
        Box::pin(async move { receiver.await.unwrap_or(()) })
    }
}
