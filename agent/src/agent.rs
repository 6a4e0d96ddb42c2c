//! `fleet-agent run`: puts journal, worker and connection together, and takes them apart again on SIGTERM.

use crate::address::{AddressError, Server};
use crate::config::RunArgs;
use crate::connection::{self, Connection, Reach};
use crate::cron::{Clock, Cron};
use crate::files::{self, FileError};
use crate::identity::Identity;
use crate::journal::{Journal, JournalError};
use crate::runner::Limits;
use crate::settings::Settings;
use crate::worker::{Surroundings, Worker};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// This program, even if its file was replaced meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Orders that wait for the worker.
const ORDERS_WAITING: usize = 256;
/// Time to send what is in the outbox before the agent ends.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Time to bring the last reports to disk before the agent ends.
const FLUSH_TIME: Duration = Duration::from_secs(10);

/// Why the agent did not run, or did not end well; the message says what to do.
#[derive(Debug, Error)]
pub enum RunError {
    /// Host name, data folder or the system can't be used.
    #[error("{0}")]
    Setup(String),
    /// There is no identity.
    #[error("this host is not enrolled ({} is not there); run `fleet-agent enroll` first", .0.display())]
    NotEnrolled(PathBuf),
    /// The address is not one to use.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// One of the agent's files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal's writer is gone. Started again, the agent goes on from what is on disk.
    #[error("the journal has ended abnormally; the agent must be started again, see its log for the reason")]
    JournalEnded,
    /// A job would not end, or its outcome could not be stored.
    #[error("a job did not end in time, or its outcome could not be stored: it is reported at the next start")]
    Unfinished,
}

/// What the agent is, read from command line and files.
struct Setup {
    data_dir: PathBuf,
    hostname: String,
    server: Server,
    identity: Identity,
    settings: Settings,
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// It could not start, or not end well.
pub fn run(args: &RunArgs) -> Result<(), RunError> {
    let setup = prepare(args)?;
    let system = |error: std::io::Error| RunError::Setup(format!("the system does not let the agent run: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    runtime.block_on(async {
        let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        let [terminate, interrupt, hangup] = signals;
        // With SIGHUP restic finds out whether the holder of a lock lives: a process id that was used again may be ours.
        let _deaf_to = hangup.map_err(system)?;
        serve(args, setup, (terminate.map_err(system)?, interrupt.map_err(system)?)).await
    })
}

fn prepare(args: &RunArgs) -> Result<Setup, RunError> {
    let data_dir = args.common.data_dir().map_err(RunError::Setup)?;
    // One spelling: children are known by it after a crash.
    let data_dir = data_dir.canonicalize().unwrap_or(data_dir);
    let mut identity = Identity::load(&data_dir)?.ok_or_else(|| RunError::NotEnrolled(Identity::path(&data_dir)))?;
    let server = Server::parse(&identity.server, args.common.allow_plain_http)?;
    files::make_private_dir(&data_dir)?;
    let settings = Settings::load(&data_dir)?;
    let hostname = kept_name(&mut identity, args.common.hostname(), &data_dir)?;
    Ok(Setup { data_dir, hostname, server, identity, settings })
}

/// The name that the host was enrolled with, whatever it is called now: with another its older snapshots would never be
/// forgotten, and the newer ones by another host's policy. An identity without it gets what the host is called now.
fn kept_name(identity: &mut Identity, now: Result<String, String>, data_dir: &Path) -> Result<String, RunError> {
    if let Some(kept) = &identity.hostname {
        match now {
            Ok(now) if now == *kept => {}
            Ok(now) => log::warn!(
                "this host is called {now} now; its snapshots go on under {kept}, the name that it was enrolled with. To \
                 change that, enrol it again"
            ),
            Err(_) => log::warn!("this host has no name now; its snapshots go on under {kept}"),
        }
        return Ok(kept.clone());
    }
    let name = now.map_err(RunError::Setup)?;
    log::info!("the name {name} is kept for this host's snapshots");
    identity.hostname = Some(name.clone());
    identity.store(data_dir)?;
    Ok(name)
}

async fn serve(args: &RunArgs, setup: Setup, signals: (Signal, Signal)) -> Result<(), RunError> {
    let Setup { data_dir, hostname, server, identity, settings } = setup;
    let (journal, leftovers) = Journal::open(&journal_path(&data_dir), args.journal_limit_mib * 1024 * 1024)?;
    log::info!(host = identity.host_id.as_str(), journal = journal.id().as_str(); "agent starts");
    let (outlet, inlet) = connection::channel();
    let (orders_in, orders_out) = mpsc::channel(ORDERS_WAITING);
    let (stop, stopped) = watch::channel(false);
    let (drain, drained) = watch::channel(false);
    let (reach, reached) = watch::channel(Reach::lost());
    tokio::spawn(watch_signals(signals, stop));

    let connection = Connection {
        server,
        token: identity.agent_token,
        hostname: hostname.clone(),
        restic: args.restic.clone(),
        journal: journal.clone(),
        inlet,
        orders: orders_in,
        reach,
        drain: drained,
    };
    let surroundings = Surroundings {
        journal: journal.clone(),
        outlet,
        data_dir,
        hostname,
        restic: args.restic.clone(),
        limits: Limits { hook: args.hook_limit, lock_wait: args.lock_wait, ..Limits::default() },
        program: OWN_PROGRAM.into(),
    };
    let cron = Cron::new(Clock::ahead_by(args.clock_ahead), args.local_run_after, reached);
    let mut worker = Worker::new(surroundings, settings, cron, (orders_out, stopped));
    let (ready, begun) = oneshot::channel::<()>();

    let work = async {
        worker.begin(leftovers).await;
        drop(ready);
        let (orders, ended) = worker.run().await;
        let flushed = timeout(FLUSH_TIME, journal.flush()).await.is_ok();
        (orders, ended && flushed)
    };
    tokio::pin! {
        let connection = async {
            // What an earlier life has left is over when this one says hello.
            let _ = begun.await;
            connection.run().await;
        };
    }
    // The connection goes on until it is told to drain, so the worker ends first.
    let (_orders, well) = tokio::select! {
        result = work => result,
        () = &mut connection => return Err(RunError::Unfinished),
        () = journal.ended() => return Err(RunError::JournalEnded),
    };
    drain.send_replace(true);
    if timeout(DRAIN_TIME, connection).await.is_err() {
        log::warn!("not everything could be sent in time; the rest goes out at the next start");
    }
    log::info!("agent ends");
    if well { Ok(()) } else { Err(RunError::Unfinished) }
}

fn journal_path(data_dir: &Path) -> PathBuf {
    data_dir.join("journal.redb")
}

async fn watch_signals((mut terminate, mut interrupt): (Signal, Signal), stop: watch::Sender<bool>) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    log::info!("told to stop; running jobs are ended first");
    stop.send_replace(true);
}
