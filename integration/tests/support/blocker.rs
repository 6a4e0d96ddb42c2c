//! Somebody else's transaction, in the way of the coordinator's.

use super::LIMIT;
use fleet_integration::{Database, Failure, eventually};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// A transaction that holds locks until it is let go.
pub struct Blocker {
    runtime: Runtime,
    client: Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Blocker {
    /// Begins a transaction with this statement.
    pub fn hold(database: &Database, sql: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (client, connection) = runtime.block_on(tokio_postgres::connect(&database.url(), NoTls)).unwrap();
        let connection = runtime.spawn(connection);
        runtime.block_on(client.batch_execute(&format!("BEGIN; {sql}"))).unwrap();
        Self { runtime, client, connection }
    }

    /// Waits until a statement with these words waits for a lock.
    pub fn until_waited_for(database: &Database, words: &str) {
        let sql = format!(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{words}%'
                 AND datname = current_database()"
        );
        let waits = || match database.query(&sql)?.len() {
            0 => Err(Failure::new("nobody waits for the lock")),
            _ => Ok(()),
        };
        eventually(&format!("{words} to wait for a lock"), LIMIT, waits).unwrap();
    }

    /// Ends the transaction, which changes nothing.
    pub fn let_go(self) {
        let Self { runtime, client, connection } = self;
        runtime.block_on(client.batch_execute("ROLLBACK")).unwrap();
        drop(client);
        runtime.block_on(connection).unwrap().unwrap();
    }
}
