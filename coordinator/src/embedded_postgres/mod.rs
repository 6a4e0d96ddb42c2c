//! The coordinator's own private PostgreSQL, for when no `DATABASE_URL` is set.
//!
//! A start goes through these steps, one file each:
//! 1. `places`: the data folder, its lock, and where cluster, socket and log are.
//! 2. `account`: who the server runs as (PostgreSQL refuses to be root), and whether that account can get there.
//! 3. `binaries`: which installed PostgreSQL to use; an existing cluster needs its own major version.
//! 4. `cluster`: `initdb` at the first start, under another name until it is complete.
//! 5. `server`: a postmaster that a crashed coordinator left is adopted (`postmaster` finds it), else one is launched.
//! 6. `supervisor`: starts it again when it ends by itself, and stops it in the end.
//!
//! The server listens on a Unix socket in a folder that only its account may enter, and on nothing else.

mod account;
mod binaries;
mod cluster;
mod error;
mod places;
mod postmaster;
mod server;
mod supervisor;

pub use error::EmbeddedError;

use account::Account;
use binaries::Binaries;
use places::Places;
use std::path::Path;
use std::time::Duration;
use supervisor::Supervisor;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The database in the cluster, and the role that owns it.
const DATABASE: &str = "fleet";

/// Everything that a launch of the server needs to know.
struct Setup {
    binaries: Binaries,
    account: Account,
    places: Places,
}

/// A running PostgreSQL that belongs to this coordinator. Dropped without [`stop`](Self::stop) it is shut down too,
/// but nobody waits for it.
pub struct EmbeddedPostgres {
    url: String,
    stop: oneshot::Sender<Duration>,
    supervisor: JoinHandle<()>,
}

impl EmbeddedPostgres {
    /// Starts the server of `data_dir`, making folder and cluster if they are not there, and returns when the
    /// database answers. From then on it is started again whenever it ends by itself.
    ///
    /// # Errors
    /// What is in the way, and what to do about it: see [`EmbeddedError`].
    pub async fn start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let places = Places::prepare(data_dir)?;
        cluster::check_owner(&places.cluster)?;
        let lock = places.lock()?;
        let existing = cluster::existing(&places.cluster)?;
        let account = Account::for_cluster(existing)?;
        account.open_way_to(&places.data_dir)?;
        let binaries = binaries::find(existing.map(|cluster| (places.cluster.as_path(), cluster.major))).await?;
        places.make_socket_dir(&account)?;
        let setup = Setup { binaries, account, places };
        if existing.is_none() {
            cluster::make(&setup).await?;
        }
        let server = server::bring_up(&setup).await?;
        let url = setup.places.url();
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(Supervisor { setup, lock, stopped }.run(server));
        Ok(Self { url, stop, supervisor })
    }

    /// How to connect: a URL that tokio-postgres, `psql` and `pg_dump` read alike. It holds no secret: the socket's
    /// folder is what keeps others out.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends the server: a fast shutdown, and after some seconds an immediate one. Returns when it is gone.
    pub async fn stop(self) {
        self.stop_within(server::FAST_STOP_LIMIT).await;
    }

    /// The same, with another time for the fast shutdown. The immediate one takes two seconds at most.
    pub async fn stop_within(self, patience: Duration) {
        // A supervisor that is gone already has stopped the server.
        let _ = self.stop.send(patience.min(server::FAST_STOP_LIMIT));
        if let Err(error) = self.supervisor.await {
            log::error!("the supervisor of the embedded PostgreSQL failed: {error}");
        }
    }
}
