//! One turn of writing: a batch goes in, and what is still to be written comes out.
//!
//! A batch that can't be committed is kept whole when the database is away, and taken apart when the database is there
//! but refuses it. A write that fails for a reason that may lie in the database (a full disk) or in itself is put
//! behind the others, so that it holds up nobody, and is tried again: nothing that an agent reported is given up.

use super::batch::Batch;
use super::error::Failure;
use super::lock::{CoordinatorLock, LockError};
use crate::db::Database;
use crate::metrics::Writes;
use crate::notify::Outbox;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_postgres::NoTls;

/// A transaction that takes longer than this is given up, and tried again.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(30);
/// How long the database may take to show that it is there.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// The pause before the first try after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Writes in one transaction, unless it turns out to be too slow for that.
const MOST_WRITES: usize = 4_096;

/// What one turn hands to the next.
pub(super) struct Hand {
    database: Database,
    connection: Option<AsyncPgConnection>,
    lost: mpsc::UnboundedSender<LockError>,
    /// Turns since one succeeded.
    failures: u32,
    most_writes: usize,
    pub(super) limit: Duration,
    pub(super) writes: Writes,
    /// What is to be told of what is written.
    pub(super) outbox: Arc<Outbox>,
}

impl Hand {
    pub(super) fn new(database: Database, lock: CoordinatorLock, lost: mpsc::UnboundedSender<LockError>) -> Self {
        Self {
            database,
            connection: Some(lock.into_connection()),
            lost,
            failures: 0,
            most_writes: MOST_WRITES,
            limit: TRANSACTION_LIMIT,
            writes: Writes::default(),
            outbox: Arc::default(),
        }
    }

    /// How many writes the next turn may take.
    pub(super) fn most_writes(&self) -> usize {
        self.most_writes
    }

    /// Ends the connection, and with it the lock.
    pub(super) fn let_go(&mut self) {
        self.connection = None;
    }

    /// Whether there is a connection to write over.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Tries once to get a connection in the place of the one that was lost. `writes` wait for it.
    pub(super) async fn reconnect(mut self, writes: usize) -> Self {
        match CoordinatorLock::retake(&self.database).await {
            Ok(lock) => self.connection = Some(lock.into_connection()),
            Err(error) => {
                let pause = self.failed(&error.to_string(), writes);
                if matches!(error, LockError::TakenOver) {
                    let _ = self.lost.send(error);
                }
                tokio::time::sleep(pause).await;
            }
        }
        self
    }

    /// Whether the connection works: if it does, a failure lies elsewhere. One that does not is dropped.
    async fn is_alive(&mut self) -> bool {
        let Some(connection) = self.connection.as_mut() else { return false };
        let probe = diesel::sql_query("SELECT 1").execute(connection);
        let alive = matches!(tokio::time::timeout(PROBE_LIMIT, probe).await, Ok(Ok(_)));
        if !alive {
            self.connection = None;
        }
        alive
    }

    /// Gives the connection up, and has the server end what it is at: as long as that goes on, it holds the lock. What
    /// became of an unanswered commit is found out on a new connection, by applying everything again.
    fn disconnect(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let cancel = connection.cancel_token();
        tokio::spawn(async move {
            let cancelled = tokio::time::timeout(PROBE_LIMIT, cancel.cancel_query(NoTls)).await;
            log::debug!("the statement that took too long: {cancelled:?}");
        });
    }

    fn succeeded(&mut self) {
        if self.failures > 0 {
            log::info!("writing to the database works again");
        }
        self.failures = 0;
        self.most_writes = MOST_WRITES.min(self.most_writes * 2);
    }

    /// Notes a failure and says how long to pause.
    fn failed(&mut self, why: &str, writes: usize) -> Duration {
        if self.failures.is_multiple_of(30) {
            log::error!(writes; "can't write to the database, trying until it works: {why}");
        }
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// See the module's text.
pub(super) struct Turn {
    pub(super) hand: Hand,
    pub(super) batch: Batch,
    /// What is left of the batch failed although the database is there: others go first.
    pub(super) behind: bool,
}

impl Turn {
    pub(super) fn new(hand: Hand, batch: Batch) -> Self {
        Self { hand, batch, behind: false }
    }

    pub(super) async fn run(mut self) -> Self {
        match self.write().await {
            Ok(()) => self.hand.succeeded(),
            Err(why) => {
                let pause = self.hand.failed(&why, self.batch.len());
                // A smaller batch may pass where a large one is too slow.
                self.hand.most_writes = (self.hand.most_writes / 2).max(1);
                tokio::time::sleep(pause).await;
                self.batch.expire(Instant::now(), &format!("the database can't be written: {why}"));
            }
        }
        self
    }

    async fn write(&mut self) -> Result<(), String> {
        match self.commit().await {
            Ok(()) => Ok(()),
            Err(Failure::Unknown(why)) => {
                self.batch.mark_doubtful();
                self.hand.disconnect();
                Err(why)
            }
            Err(Failure::Broken(why)) => {
                self.hand.disconnect();
                Err(why)
            }
            Err(Failure::Constraint(error)) if self.batch.len() == 1 => {
                log::error!("a write was refused: {error}");
                std::mem::take(&mut self.batch).reject(error);
                Ok(())
            }
            Err(Failure::NotDone(why)) if !self.hand.is_alive().await => Err(why),
            Err(Failure::NotDone(why)) if self.batch.len() == 1 => {
                self.behind = true;
                Err(why)
            }
            Err(Failure::NotDone(why)) => self.write_one_by_one(&why).await,
            Err(Failure::Constraint(error)) => self.write_one_by_one(&error.to_string()).await,
        }
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let connection = self.hand.connection.as_mut();
        let connection = connection.ok_or_else(|| Failure::NotDone("no connection".to_owned()))?;
        let (writes, began) = (self.batch.len(), Instant::now());
        let outcome = self.batch.commit(connection, self.hand.limit, &self.hand.outbox).await;
        match &outcome {
            Ok(()) => self.hand.writes.committed(writes, began.elapsed()),
            Err(_) => self.hand.writes.failed(),
        }
        outcome
    }

    /// Finds the writes that are at fault. Those that still can't be written are kept for a later turn.
    async fn write_one_by_one(&mut self, why: &str) -> Result<(), String> {
        log::warn!(writes = self.batch.len(); "a batch could not be written, writing one by one: {why}");
        let mut rest = std::mem::take(&mut self.batch).into_singles();
        let mut kept = Batch::default();
        let mut written = false;
        let mut outcome = Ok(());
        for single in rest.by_ref() {
            self.batch = single;
            match Box::pin(self.write()).await {
                Ok(()) => written = true,
                Err(why) => {
                    kept.append(std::mem::take(&mut self.batch));
                    outcome = Err(why);
                    if self.hand.connection.is_none() {
                        break;
                    }
                }
            }
        }
        rest.for_each(|later| kept.append(later));
        self.batch = kept;
        // Pausing would slow the others down for the sake of one.
        if written && self.hand.connection.is_some() { Ok(()) } else { outcome }
    }
}
