//! The one writer to Postgres.
//!
//! While a transaction is in flight, what arrives is gathered; the next transaction takes all of it (group commit).
//! Each asker is answered after the commit. When the database is away, nothing is lost: the batch is kept and tried
//! again, and what arrives meanwhile is gathered behind it; only writes with limited [`Patience`] are given back as
//! not done, at their time and not when a turn ends, for a database that hangs ends none. A commit that was not answered is resolved by applying the batch again, which by [`Write`]'s rule does
//! nothing where it was done. A batch that the database refuses is taken apart to find the write at fault. A write that
//! is large by itself goes beside the turns ([`Apart`]).

mod apart;
mod batch;
mod error;
mod lock;
mod matched;
mod messages;
mod requested;
mod turn;

pub use error::WriteError;
pub use lock::{CoordinatorLock, LockError};
pub use matched::{Condition, HasChanged, Matched};
pub use messages::{Apart, Drain, Patience, Save, SaveAnswer, SaveHello, SaveJob, SavePresence, SaveRecords, Write};
pub use requested::{Outcome, Requested};

use crate::db::Database;
use crate::db::greetings::Greeting;
use crate::metrics::Writes;
use crate::notify::Outbox;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use batch::Batch;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use turn::{Hand, Turn};

/// Messages in the mailbox before senders wait. It bounds no memory: each sender has one more place. That each has one
/// write under way at a time does.
const MAILBOX: usize = 4096;

/// How often writes whose askers wait no longer are given back.
const EXPIRE_EVERY: Duration = Duration::from_millis(250);

/// The one writer. See the module's text.
pub struct Persistence {
    database: Database,
    /// Absent while a turn has it.
    hand: Option<Hand>,
    gathered: Batch,
    drained: Vec<oneshot::Sender<()>>,
    writes: Writes,
}

impl Persistence {
    /// A writer to `database` that holds the coordinator's `lock`. If another coordinator takes the lock while the
    /// database is away, what this one has in memory is no longer true: that is said over `lost`.
    pub fn new(database: Database, lock: CoordinatorLock, lost: mpsc::UnboundedSender<LockError>) -> Self {
        let hand = Some(Hand::new(database.clone(), lock, lost));
        Self { database, hand, gathered: Batch::default(), drained: Vec::new(), writes: Writes::default() }
    }

    /// The same, and what it does is counted in `writes`.
    #[must_use]
    pub fn counted(mut self, writes: &Writes) -> Self {
        self.writes = writes.clone();
        if let Some(hand) = &mut self.hand {
            hand.writes = writes.clone();
        }
        self
    }

    /// The same with another limit for a transaction, which is 30 s otherwise.
    #[must_use]
    pub fn with_transaction_limit(mut self, limit: Duration) -> Self {
        if let Some(hand) = &mut self.hand {
            hand.limit = limit;
        }
        self
    }

    /// The same, which tells what is in `outbox` of the ends of jobs.
    #[must_use]
    pub fn with_outbox(mut self, outbox: Arc<Outbox>) -> Self {
        if let Some(hand) = &mut self.hand {
            hand.outbox = outbox;
        }
        self
    }

    /// Starts the next turn, unless one is under way.
    fn write_soon(&mut self, context: &mut Context<Self>) {
        self.begin_turn(context);
        self.writes.waiting(self.gathered.len());
    }

    fn begin_turn(&mut self, context: &mut Context<Self>) {
        if self.hand.is_none() {
            return;
        }
        if self.gathered.is_empty() {
            for asker in self.drained.drain(..) {
                let _ = asker.send(()); // it may have stopped waiting
            }
            return;
        }
        let Some(hand) = self.hand.take() else { return };
        if !hand.is_connected() {
            return self.reconnect(hand, context);
        }
        let batch = self.gathered.take(hand.most_writes());
        context.spawn(Turn::new(hand, batch).run().into_actor(self).map(|done, actor, context| {
            actor.hand = Some(done.hand);
            let left = done.batch;
            if done.behind {
                actor.gathered.append(left);
            } else {
                let later = std::mem::replace(&mut actor.gathered, left);
                actor.gathered.append(later);
            }
            actor.write_soon(context);
        }));
    }
}

impl Persistence {
    /// Tries to get a connection. What waits for it is in no transaction: it can be given back any time.
    fn reconnect(&self, hand: Hand, context: &mut Context<Self>) {
        context.spawn(hand.reconnect(self.gathered.len()).into_actor(self).map(|hand, actor, context| {
            actor.hand = Some(hand);
            actor.write_soon(context);
        }));
    }
}

impl Actor for Persistence {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
        // The connection that took the lock is driven by the thread that made it, and that has other things to do.
        if let Some(mut hand) = self.hand.take() {
            hand.let_go();
            self.reconnect(hand, context);
        }
        context.run_interval(EXPIRE_EVERY, |actor, _| {
            actor.gathered.expire(Instant::now(), "the database does not answer in time");
        });
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

impl Handler<SaveHello> for Persistence {
    type Result = Answer<Option<Arc<Greeting>>>;

    fn handle(&mut self, save: SaveHello, context: &mut Self::Context) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        self.gathered.push_hello(save, reply);
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

impl Handler<SaveAnswer> for Persistence {
    type Result = Answer<()>;

    fn handle(&mut self, save: SaveAnswer, context: &mut Self::Context) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        self.gathered.push_answer(save, reply);
        self.write_soon(context);
        answer(receiver)
    }
}

impl Handler<SaveRecords> for Persistence {
    type Result = Answer<()>;

    fn handle(&mut self, save: SaveRecords, context: &mut Self::Context) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        self.gathered.push_records(save, reply);
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
