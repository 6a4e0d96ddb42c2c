//! One coordinator per database, held by an advisory lock on the connection that writes.

use crate::db::{Database, DatabaseError, settings};
use diesel::sql_types::{BigInt, Bool};
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::sync::LazyLock;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;
use uuid::Uuid;

/// The number of the lock: "fleet" in ASCII.
const LOCK: i64 = 0x66_6c_65_65_74;
/// After a crash the old connection may outlive its process for a moment.
const GRACE: Duration = Duration::from_secs(3);
/// How long all of it may take.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(15);
/// The setting that says which process had the lock last.
const HOLDER: &str = "coordinator";
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Why there is no lock.
#[derive(Debug, Error)]
pub enum LockError {
    /// Two coordinators would dispatch the same jobs.
    #[error(
        "another coordinator serves this database: stop it first, or give this one a DATABASE_URL (or FLEET_DATA_DIR) \
         of its own"
    )]
    Held,
    /// What this process has in memory is no longer true.
    #[error("another coordinator served this database meanwhile: this one must start anew")]
    TakenOver,
    /// The database can't be asked.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The database does not answer as it should.
    #[error("the coordinator's lock can't be asked for: {0}")]
    Query(#[from] diesel::result::Error),
}

/// A connection that holds the lock for as long as it lives.
pub struct CoordinatorLock(AsyncPgConnection);

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    locked: bool,
}

impl CoordinatorLock {
    /// Takes the lock on a new connection to `database`, and notes that it is this process that has it.
    ///
    /// # Errors
    /// Another process has it, or the database can't be asked.
    pub async fn take(database: &Database) -> Result<Self, LockError> {
        let mut lock = Self::acquire(database).await?;
        settings::put(&mut lock.0, HOLDER, process_id().as_bytes()).await?;
        Ok(lock)
    }

    /// Takes the lock again, after the connection that had it was lost.
    ///
    /// # Errors
    /// Another process has it or had it meanwhile, or the database can't be asked.
    pub(super) async fn retake(database: &Database) -> Result<Self, LockError> {
        let mut lock = Self::acquire(database).await?;
        match settings::get(&mut lock.0, HOLDER).await? {
            Some(holder) if holder == process_id().as_bytes() => Ok(lock),
            _ => Err(LockError::TakenOver),
        }
    }

    async fn acquire(database: &Database) -> Result<Self, LockError> {
        let acquiring = async {
            let mut connection = database.connect().await?;
            let give_up = Instant::now() + GRACE;
            loop {
                let query = diesel::sql_query("SELECT pg_try_advisory_lock($1) AS locked").bind::<BigInt, _>(LOCK);
                let Answer { locked } = query.get_result(&mut connection).await?;
                if locked {
                    return Ok(Self(connection));
                }
                if Instant::now() >= give_up {
                    return Err(LockError::Held);
                }
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
        };
        let no_answer = |_| LockError::Database(DatabaseError::Unreachable("no answer to the lock".to_owned()));
        tokio::time::timeout(ACQUIRE_LIMIT, acquiring).await.map_err(no_answer)?
    }

    pub(super) fn into_connection(self) -> AsyncPgConnection {
        self.0
    }
}

/// Whether this process is the one that has the lock. If so, no other can become it before the transaction is over.
pub(super) async fn is_ours(connection: &mut AsyncPgConnection) -> QueryResult<bool> {
    let holder = settings::get_and_hold(connection, HOLDER).await?;
    Ok(holder.is_some_and(|holder| holder == process_id().as_bytes()))
}

/// A name for this process that no other has.
fn process_id() -> Uuid {
    static ID: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);
    *ID
}
