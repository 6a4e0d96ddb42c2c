//! One coordinator per database, held by an advisory lock on the connection that writes.

use crate::db::Database;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// The number of the lock: "fleet" in ASCII.
const LOCK: i64 = 0x66_6c_65_65_74;
/// After a crash the old connection may outlive its process for a moment.
const GRACE: Duration = Duration::from_secs(3);
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
    /// The database can't be asked.
    #[error(transparent)]
    Database(#[from] crate::db::DatabaseError),
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
    /// Takes the lock on a new connection to `database`.
    ///
    /// # Errors
    /// Another process has it, or the database can't be asked.
    pub async fn take(database: &Database) -> Result<Self, LockError> {
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
    }

    pub(super) fn into_connection(self) -> AsyncPgConnection {
        self.0
    }
}
