//! Starts and stops the coordinator: address, key, database, actors, HTTP server.
//!
//! The address is taken first, so that agents and watchers always get an answer: a waiting room gives it until the
//! database is there and the real server takes its place on the same socket.

mod error;
mod listening;
mod opening;

pub use error::StartError;

use crate::config::{Config, Notifications};
use crate::db::Database;
use crate::dispatcher::{HostRemoved, ResumeOperations};
use crate::embedded_postgres::EmbeddedPostgres;
use crate::http;
use crate::http::waiting_room::WaitingRoom;
use crate::metrics::Metrics;
use crate::notify::{Mailer, Notifier};
use crate::persistence::{Drain, LockError, Persistence};
use crate::registry::CloseAll;
use crate::services::{Rules, Services};
use crate::ticker::Ticker;
use crate::ticker::requests::write_down;
use crate::vault::{self, Vault};
use actix::Actor;
use fleet_wire::Secret;
use listening::Listening;
use opening::Ledger;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// How long a stop waits for HTTP requests that are under way, in seconds.
const HTTP_DRAIN_SECONDS: u64 = 2;
/// How long it then waits for what is still being written. Agents keep and repeat what they get no `ack` for.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// When an embedded PostgreSQL that does not end is ended hard, counted from the stop. All of it stays under the ten
/// seconds that service managers like to give.
const HARD_END_AFTER: Duration = Duration::from_secs(7);

/// The database of `config`: the given one, or our own, which is started.
async fn open_database(config: &Config) -> Result<(Database, Option<EmbeddedPostgres>), StartError> {
    match &config.database_url {
        Some(url) => Ok((Database::new(url)?, None)),
        None => {
            let embedded = EmbeddedPostgres::start(&config.data_dir).await?;
            Ok((Database::new(&Secret::new(embedded.url()))?, Some(embedded)))
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
    let outcome = opening::migrate_schema(&database).await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    Ok(outcome?)
}

/// `fleet-coordinator serve`: runs until SIGTERM or SIGINT.
///
/// # Errors
/// It could not start, or can't go on.
pub async fn serve(mut config: Config) -> Result<(), StartError> {
    prepare_data_dir(&config.data_dir)?;
    let mut signals = Signals::new().map_err(StartError::Http)?;
    let vault = Vault::open(&config.key_path())?;
    let admin_token = admin_token(&config)?;
    config.notifications.mailer = mailer(&config.notifications)?;
    let listening = Listening::on(config.listen, &config.data_dir)?;
    let room = listening.waiting_room()?;
    let opening = open_database(&config);
    let (database, embedded) = tokio::select! {
        opened = opening => opened?,
        () = signals.next() => return Ok(()),
    };
    let outcome = serve_with(&config, vault, &admin_token, database, (listening, room), &mut signals).await;
    if let Some(embedded) = embedded {
        embedded.stop_within(HARD_END_AFTER.saturating_sub(signals.since_stop())).await;
    }
    outcome
}

async fn serve_with(
    config: &Config,
    vault: Vault,
    admin_token: &Secret,
    database: Database,
    (listening, room): (Listening, WaitingRoom),
    signals: &mut Signals,
) -> Result<(), StartError> {
    let ledger = tokio::select! {
        opened = opening::open(config, &database, &vault) => opened?,
        () = signals.next() => return Ok(()),
    };
    let (lost, mut lock_lost) = mpsc::unbounded_channel();
    let services = start_actors(ledger, database, vault, lost, admin_token, config);
    let server = http::server::bind(services.clone(), listening.socket()?, HTTP_DRAIN_SECONDS);
    let server = server.map_err(StartError::Http)?;
    let handle = server.handle();
    let mut serving = actix::spawn(server);
    room.close().await;
    log::info!("serving");
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
    let drained = tokio::time::timeout(DRAIN_LIMIT, async {
        let written = write_down(&services).await.is_ok();
        services.persistence.send(Drain).await.is_ok() && written
    });
    if !matches!(drained.await, Ok(true)) {
        log::warn!("not everything could be written; agents keep it and report it again");
    }
    outcome
}

fn start_actors(
    ledger: Ledger,
    database: Database,
    vault: Vault,
    lost: mpsc::UnboundedSender<LockError>,
    admin_token: &Secret,
    config: &Config,
) -> Services {
    let Ledger { lock, found, operations, online, removed } = ledger;
    let metrics = Arc::new(Metrics::new(config.metrics_groups));
    let persistence = Persistence::new(database.clone(), lock, lost).counted(&metrics.writes);
    let persistence = persistence.with_outbox(Arc::clone(&found.outbox)).start();
    let Config { deadlines, maintenance, leases, secrets, rates, .. } = config.clone();
    let lost_after = deadlines.agent_lost;
    let mailer = config.notifications.mailer.clone();
    let rules = Rules { deadlines, maintenance, leases, secrets, mailer, rates };
    let services = Services::start(found, database, vault, persistence, admin_token, rules, metrics);
    services.dispatcher.do_send(ResumeOperations(operations));
    for host_id in removed {
        services.dispatcher.do_send(HostRemoved { host_id });
    }
    Ticker::new(services.clone(), config.history.clone(), lost_after, &online).start();
    Notifier::new(&services, config.notifications.clone()).start();
    services
}

/// What sends e-mail, if there is a mail server.
fn mailer(settings: &Notifications) -> Result<Option<Arc<Mailer>>, StartError> {
    let Some(url) = &settings.smtp_url else { return Ok(None) };
    let from = settings.smtp_from.as_deref().unwrap_or_default();
    Ok(Some(Arc::new(Mailer::new(url, from).map_err(StartError::Mail)?)))
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

/// The signals that end a coordinator in good order, from the first moment on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Heard and not heeded: with SIGHUP restic finds out whether the holder of a lock lives, and a process id that was
    /// used again may be ours.
    _hangup: Signal,
    came: Option<Instant>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, _hangup: signal(SignalKind::hangup())?, came: None })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.came = Some(Instant::now());
    }

    /// The time since one came; none has passed if none came.
    fn since_stop(&self) -> Duration {
        self.came.map_or(Duration::ZERO, |came| came.elapsed())
    }
}
