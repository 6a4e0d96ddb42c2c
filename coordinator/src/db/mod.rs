//! The database: connections, migrations, and one module of queries for each table. Queries return
//! [`diesel::QueryResult`]; what an error means is decided by who asked.

pub mod aged;
pub mod agent_release;
pub mod audit;
pub mod channels;
pub mod compaction;
pub mod conditions;
pub mod counts;
pub mod deliveries;
pub mod enrollment;
mod error;
pub mod fleet;
pub mod greetings;
pub mod history;
pub mod hosts;
pub mod idempotency;
pub mod job_lists;
pub mod jobs;
pub mod json;
pub mod logs;
pub mod lookup;
pub mod maintenance;
pub mod newest;
pub mod notices;
pub mod operations;
pub mod overdue;
pub mod pauses;
pub mod planning;
pub mod presence;
pub mod reach;
pub mod replan;
pub mod repositories;
pub mod requests;
pub mod runs;
pub mod schedules;
#[allow(missing_docs, reason = "generated")]
pub mod schema;
pub mod settings;
pub mod snapshots;
pub mod source_groups;
pub mod stale_locks;
pub mod statement;
pub mod stats;
pub mod tags;
pub mod tokens;

pub use error::{DatabaseError, Outlook, outlook_of_query};

use diesel::QueryableByName;
use diesel::sql_types::Integer;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use fleet_wire::Secret;
use futures_util::FutureExt;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::Host;

/// The schema's history, part of the binary.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// The oldest server that is supported, as `server_version_num` counts.
const OLDEST_SERVER: i32 = 150_000;
/// The number of the lock that a migrating process holds: "fleetm" in ASCII.
const MIGRATION_LOCK: i64 = 0x66_6c_65_65_74_6d;
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What every connection tells the planner. All statements are made for an index and keep their plan; one that was made
/// while a table was small, or before it was analysed, must not go on reading the whole of it when it has grown. And they
/// read an index in its order up to a limit, where a bitmap would have all that matches read and sorted.
const PLANNING: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off";
/// What a connection that writes tells it too: a batch finds its rows one by one, by key.
const PLANNING_OF_WRITES: &str =
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan";
/// Connections for reading. Writes have their own.
const READERS: usize = 8;
/// How long a reader may wait for a connection.
const READER_WAIT: Duration = Duration::from_secs(5);
/// How long a read may take, its connection included.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// A server that vanished without a word is noticed after this long: by what is not acknowledged, or by a probe.
const VANISHED_AFTER: Duration = Duration::from_secs(15);

/// How the connections for reading stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections that somebody uses.
    pub in_use: usize,
    /// Reads that wait for one.
    pub waiting: usize,
}

/// Where the data is. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    config: Arc<tokio_postgres::Config>,
    readers: Pool<AsyncPgConnection>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database(…)")
    }
}

#[derive(QueryableByName)]
struct ServerVersion {
    #[diesel(sql_type = Integer)]
    number: i32,
}

impl Database {
    /// The database at `url`. Nothing is connected yet.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(url: &Secret) -> Result<Self, DatabaseError> {
        let config = Arc::new(configure(url.expose())?);
        let mut manager = ManagerConfig::default();
        let of_readers = Arc::clone(&config);
        // A connection that the server has closed is known as that without asking; asking costs each read a round trip.
        manager.recycling_method = RecyclingMethod::Fast;
        manager.custom_setup = Box::new(move |_| {
            let config = Arc::clone(&of_readers);
            let bad = |error: DatabaseError| diesel::ConnectionError::BadConnection(error.to_string());
            async move { establish(&config).await.map_err(bad) }.boxed()
        });
        // What stands for the URL is never read: the setup knows better.
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new_with_config("", manager);
        let readers = Pool::builder(manager)
            .max_size(READERS)
            .wait_timeout(Some(READER_WAIT))
            .create_timeout(Some(CONNECT_LIMIT))
            .recycle_timeout(Some(CONNECT_LIMIT))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| DatabaseError::Unreachable(error.to_string()))?;
        Ok(Self { config, readers })
    }

    /// Where it is, for people: hosts, ports and the database's name, but no user and no password.
    pub fn place(&self) -> String {
        let name = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<String> = self.config.get_hosts().iter().map(name).collect();
        let ports: Vec<String> = self.config.get_ports().iter().map(u16::to_string).collect();
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        let port = if ports.is_empty() { String::new() } else { format!(" port {}", ports.join(",")) };
        format!("database {database:?} at {}{port}", hosts.join(","))
    }

    /// A new connection of one's own.
    ///
    /// # Errors
    /// The server can't be reached in time, refuses, or is too old.
    pub async fn connect(&self) -> Result<AsyncPgConnection, DatabaseError> {
        let connecting = async {
            let mut connection = establish(&self.config).await?;
            let query = diesel::sql_query("SELECT current_setting('server_version_num')::int4 AS number");
            let ServerVersion { number } = query.get_result(&mut connection).await?;
            connection.batch_execute(PLANNING_OF_WRITES).await?;
            if number < OLDEST_SERVER { Err(DatabaseError::TooOld(number)) } else { Ok(connection) }
        };
        tokio::time::timeout(CONNECT_LIMIT, connecting).await.map_err(|_| DatabaseError::no_answer(CONNECT_LIMIT))?
    }

    /// Reads, within a limit of time.
    ///
    /// # Errors
    /// There is no connection or no answer in time, or the query fails.
    pub async fn read<T>(
        &self,
        query: impl AsyncFnOnce(&mut AsyncPgConnection) -> diesel::QueryResult<T>,
    ) -> Result<T, DatabaseError> {
        let give_up = tokio::time::Instant::now() + READ_LIMIT;
        let connecting = tokio::time::timeout_at(give_up, self.readers.get())
            .await
            .map_err(|_| DatabaseError::no_answer(READ_LIMIT))?;
        let mut reader: Object<AsyncPgConnection> =
            connecting.map_err(|error| DatabaseError::Unreachable(error.to_string()))?;
        match tokio::time::timeout_at(give_up, query(&mut reader)).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => {
                abandon(Object::take(reader));
                Err(DatabaseError::no_answer(READ_LIMIT))
            }
        }
    }

    /// How the connections for reading stand.
    pub fn pool_status(&self) -> PoolStatus {
        let status = self.readers.status();
        let idle = status.available;
        PoolStatus { idle, in_use: status.size.saturating_sub(idle), waiting: status.waiting }
    }

    /// Brings the schema up to date and returns the names of the migrations that ran. Two processes may do this at
    /// the same time: a lock makes the second wait and find nothing left to do.
    ///
    /// # Errors
    /// The server can't be reached or a migration fails; a failed one leaves the schema as it was.
    pub async fn migrate(&self) -> Result<Vec<String>, DatabaseError> {
        let connection = self.connect().await?;
        let run = move || {
            let mut connection = AsyncConnectionWrapper::<AsyncPgConnection>::from(connection);
            let lock = format!("SELECT pg_advisory_lock({MIGRATION_LOCK})");
            diesel::connection::SimpleConnection::batch_execute(&mut connection, &lock)
                .map_err(|error| DatabaseError::Migration(error.to_string()))?;
            let versions = connection
                .run_pending_migrations(MIGRATIONS)
                .map_err(|error| DatabaseError::Migration(error.to_string()))?;
            // The lock goes with the connection.
            Ok(versions.iter().map(ToString::to_string).collect())
        };
        tokio::task::spawn_blocking(run).await.map_err(|error| DatabaseError::Migration(error.to_string()))?
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        self.read(async |reader| diesel::sql_query("SELECT 1").execute(reader).await.map(|_| ())).await
    }
}

/// How to connect, so that a server that vanishes is noticed.
fn configure(url: &str) -> Result<tokio_postgres::Config, DatabaseError> {
    let bad = |error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        DatabaseError::Url(cause.unwrap_or_else(|| error.to_string()))
    };
    let mut config = tokio_postgres::Config::from_str(url).map_err(bad)?;
    config
        .application_name("fleet-coordinator")
        .tcp_user_timeout(VANISHED_AFTER)
        .keepalives_idle(VANISHED_AFTER / 3)
        .keepalives_interval(VANISHED_AFTER / 3)
        .keepalives_retries(2);
    Ok(config)
}

async fn establish(config: &tokio_postgres::Config) -> Result<AsyncPgConnection, DatabaseError> {
    let connecting = config.connect(tokio_postgres::NoTls).await;
    let (client, connection) = connecting.map_err(|error| DatabaseError::of_connecting(&error))?;
    let made = AsyncPgConnection::try_from_client_and_connection(client, connection).await;
    let mut made = made.map_err(|error| DatabaseError::Unreachable(error.to_string()))?;
    made.batch_execute(PLANNING).await?;
    Ok(made)
}

/// Gives up a connection whose query takes too long: the next reader would wait for it too. The server is told to end it.
fn abandon(connection: AsyncPgConnection) {
    let cancel = connection.cancel_token();
    tokio::spawn(async move {
        let cancelled = tokio::time::timeout(CONNECT_LIMIT, cancel.cancel_query(tokio_postgres::NoTls)).await;
        log::warn!("a read took longer than {} s and was given up: {cancelled:?}", READ_LIMIT.as_secs());
    });
}

/// Text as Postgres can store it: it refuses NUL, which becomes U+FFFD.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
