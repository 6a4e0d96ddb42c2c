//! Starts and stops the coordinator: database, key, actors, HTTP server.

use crate::board::Board;
use crate::config::{Config, Deadlines};
use crate::db::{Database, DatabaseError, hosts, settings};
use crate::dispatcher::{Dispatcher, HostRemoved};
use crate::embedded_postgres::{EmbeddedError, EmbeddedPostgres};
use crate::http;
use crate::persistence::{CoordinatorLock, Drain, LockError, Persistence};
use crate::registry::{CloseAll, Registry};
use crate::services::Services;
use crate::ticker::{Ticker, TickerServices};
use crate::vault::{self, KeyError, Vault};
use actix::{Actor, Arbiter};
use actix_web::dev::Server;
use fleet_wire::Secret;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// How long a stop waits for what is still being written.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long a stop waits for HTTP requests that are under way, in seconds.
const HTTP_DRAIN_SECONDS: u64 = 2;

/// Why the coordinator can't run. The text is what the operator sees.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum StartError {
    #[error("can't use the data folder {}: {source}. Make it writable, or set FLEET_DATA_DIR", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(
        "the key file {} is not the one that this database was sealed with: put the right one there from your backup",
        .0.display()
    )]
    WrongKey(PathBuf),
    #[error("can't listen on {address}: {source}. Choose another address with FLEET_LISTEN")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("no random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    #[error("the HTTP server failed: {0}")]
    Http(#[source] io::Error),
}

/// The database of `config`: the given one, or our own, which is started.
async fn open_database(config: &Config) -> Result<(Database, Option<EmbeddedPostgres>), StartError> {
    match &config.database_url {
        Some(url) => Ok((Database::new(url.clone())?, None)),
        None => {
            let embedded = EmbeddedPostgres::start(&config.data_dir).await?;
            Ok((Database::new(Secret::new(embedded.url()))?, Some(embedded)))
        }
    }
}

fn prepare_data_dir(path: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(path).map_err(|source| StartError::DataDir { path: path.to_owned(), source })
}

/// `fleet-coordinator migrate`.
///
/// # Errors
/// The database can't be reached or migrated.
pub async fn migrate(config: &Config) -> Result<(), StartError> {
    prepare_data_dir(&config.data_dir)?;
    let (database, embedded) = open_database(config).await?;
    let outcome = migrate_schema(&database).await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    outcome
}

async fn migrate_schema(database: &Database) -> Result<(), StartError> {
    let ran = database.migrate().await?;
    match ran.as_slice() {
        [] => log::info!("the database's schema is up to date"),
        ran => log::info!("the database's schema was brought up to date: {}", ran.join(", ")),
    }
    Ok(())
}

/// `fleet-coordinator serve`: runs until SIGTERM or SIGINT.
///
/// # Errors
/// It could not start, or can't go on.
pub async fn serve(config: Config) -> Result<(), StartError> {
    prepare_data_dir(&config.data_dir)?;
    let mut signals = Signals::new().map_err(StartError::Http)?;
    let vault = Vault::open(&config.key_path())?;
    let (database, embedded) = open_database(&config).await?;
    let outcome = serve_with(&config, vault, database, &mut signals).await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    outcome
}

async fn serve_with(
    config: &Config,
    vault: Vault,
    database: Database,
    signals: &mut Signals,
) -> Result<(), StartError> {
    let (lost, mut lock_lost) = mpsc::unbounded_channel();
    let starting = start(config, vault, database, lost);
    let (services, server) = tokio::select! {
        started = starting => started?,
        () = signals.next() => return Ok(()),
    };
    let handle = server.handle();
    let mut serving = actix::spawn(server);
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        Some(error) = lock_lost.recv() => Err(StartError::Lock(error)),
        ended = &mut serving => {
            let why = ended.map_err(io::Error::other).and_then(|ended| ended);
            Err(StartError::Http(why.err().unwrap_or_else(|| io::Error::other("it ended by itself"))))
        }
    };
    log::info!("stopping: closing connections and finishing what is being written");
    services.registry.do_send(CloseAll);
    handle.stop(true).await;
    let drained = tokio::time::timeout(DRAIN_LIMIT, services.persistence.send(Drain)).await;
    if !matches!(drained, Ok(Ok(()))) {
        log::warn!("not everything could be written; agents keep it and report it again");
    }
    let _ = std::fs::remove_file(config.data_dir.join("listen"));
    outcome
}

/// Everything up to the first request.
async fn start(
    config: &Config,
    vault: Vault,
    database: Database,
    lost: mpsc::UnboundedSender<LockError>,
) -> Result<(Services, Server), StartError> {
    migrate_schema(&database).await?;
    let lock = CoordinatorLock::take(&database).await?;
    if !settings::check_key(&database, &vault).await? {
        return Err(StartError::WrongKey(config.key_path()));
    }
    let admin_token = admin_token(config)?;
    // The address is taken before any job goes out, so that a second coordinator on it does no harm.
    let listener = std::net::TcpListener::bind(config.listen)
        .map_err(|source| StartError::Listen { address: config.listen, source })?;
    let address = listener.local_addr().map_err(StartError::Http)?;
    let services = start_actors(database, vault, (lock, lost), &admin_token, config.deadlines.clone()).await?;
    let server = http::server::bind(services.clone(), listener, HTTP_DRAIN_SECONDS).map_err(StartError::Http)?;
    announce(&config.data_dir, address)?;
    Ok((services, server))
}

async fn start_actors(
    database: Database,
    vault: Vault,
    (lock, lost): (CoordinatorLock, mpsc::UnboundedSender<LockError>),
    admin_token: &Secret,
    deadlines: Deadlines,
) -> Result<Services, StartError> {
    let board = Arc::new(Board::default());
    // The writer has a thread of its own: packing statements must not delay messages to agents.
    let writer = Persistence::new(database.clone(), lock, lost);
    let persistence = Persistence::start_in_arbiter(&Arbiter::new().handle(), move |_| writer);
    let registry = Registry::default().start();
    let dispatcher =
        Dispatcher::load(database.clone(), persistence.clone(), registry.clone(), Arc::clone(&board)).await?.start();
    let online = database.read(async |reader| hosts::online(reader).await).await?;
    for host_id in database.read(async |reader| hosts::removed_with_open_jobs(reader).await).await? {
        dispatcher.do_send(HostRemoved { host_id });
    }
    let ticker = TickerServices {
        database: database.clone(),
        persistence: persistence.clone(),
        dispatcher: dispatcher.clone(),
        board: Arc::clone(&board),
        deadlines,
    };
    Ticker::new(ticker, &online).start();
    Ok(Services {
        database,
        vault: Arc::new(vault),
        persistence,
        registry,
        dispatcher,
        board,
        admin_token_hash: vault::hash_token(admin_token.expose()).into(),
    })
}

fn admin_token(config: &Config) -> Result<Secret, StartError> {
    if let Some(token) = &config.admin_token {
        return Ok(token.clone());
    }
    let path = config.data_dir.join("admin-token");
    let failed = |source| StartError::DataDir { path: path.clone(), source };
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(Secret::new(token.trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = vault::new_token("fleet_admin")?;
            vault::create_private(&path, token.expose()).map_err(failed)?;
            log::info!("FLEET_ADMIN_TOKEN is not set: an admin token was made in {}", path.display());
            Ok(token)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Says where we listen, in the log and in the file `listen`, for port 0 can be anything.
fn announce(data_dir: &Path, address: SocketAddr) -> Result<(), StartError> {
    log::info!("listening on http://{address}");
    let path = data_dir.join("listen");
    let new = data_dir.join("listen.new");
    let write = std::fs::write(&new, format!("{address}\n")).and_then(|()| std::fs::rename(&new, &path));
    write.map_err(|source| StartError::DataDir { path, source })
}

/// The signals that end a coordinator in good order, from the first moment on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
