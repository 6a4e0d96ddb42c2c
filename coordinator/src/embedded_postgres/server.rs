//! The server's process: launching or adopting it, waiting until it answers, ending it.

use super::places::PORT;
use super::postmaster::{self, is_postmaster_of};
use super::{DATABASE, EmbeddedError, Setup};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// How long a start may take. After a crash PostgreSQL first replays its log, which may take minutes.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long one try to connect may take.
const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// How often a server that starts is asked whether it answers.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// How often a process that is not our child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long PostgreSQL's fast shutdown may take when nobody says otherwise.
pub(super) const FAST_STOP_LIMIT: Duration = Duration::from_secs(6);
/// What follows it: its immediate one (nothing committed is lost by that, the next start replays the log), then no
/// choice.
const HARDER_STEPS: [(Signal, Duration); 2] =
    [(Signal::SIGQUIT, Duration::from_secs(1)), (Signal::SIGKILL, Duration::from_secs(1))];
/// How many lines of each log an error shows.
const LOG_LINES: usize = 8;

/// A postmaster.
pub(super) struct Server {
    process: Process,
    cluster: PathBuf,
}

enum Process {
    Child(Child),
    Adopted(Pid),
    Gone,
}

/// Adopts the postmaster of the cluster or launches one, and returns when the database is there.
pub(super) async fn bring_up(setup: &Setup) -> Result<Server, EmbeddedError> {
    loop {
        let left = postmaster::running(&setup.places)?;
        let adopted = left.is_some();
        let mut server = match left {
            Some(left) => {
                let server = Server::adopt(left.pid, setup);
                if !left.serves(&setup.places) {
                    log::warn!(pid = left.pid.as_raw(); "ending a PostgreSQL that serves our cluster at another socket");
                    server.stop(FAST_STOP_LIMIT).await;
                    continue;
                }
                log::info!(pid = left.pid.as_raw(); "adopting the embedded PostgreSQL that was left running");
                server
            }
            None => Server::launch(setup)?,
        };
        match server.answers(setup).await {
            Ok(()) => return Ok(server),
            // The one that was left was on its way out.
            Err(EmbeddedError::Ended { .. }) if adopted => {}
            Err(error) => {
                server.stop(FAST_STOP_LIMIT).await;
                return Err(error);
            }
        }
    }
}

/// Ends the postmaster of the cluster, if one is running; its fast shutdown gets `patience`.
pub(super) async fn end_running(setup: &Setup, patience: Duration) {
    if let Ok(Some(left)) = postmaster::running(&setup.places) {
        Server::adopt(left.pid, setup).stop(patience).await;
    }
}

impl Server {
    fn adopt(pid: Pid, setup: &Setup) -> Self {
        Self { process: Process::Adopted(pid), cluster: setup.places.cluster.clone() }
    }

    fn launch(setup: &Setup) -> Result<Self, EmbeddedError> {
        postmaster::clear_stale(&setup.places, &setup.account)?;
        let log_path = &setup.places.start_log;
        let start_log = File::create(log_path).map_err(EmbeddedError::files("write", log_path))?;
        let program = setup.binaries.program("postgres");
        let mut command = setup.account.command(&program);
        command.arg("-D").arg(&setup.places.cluster).args(launch_settings(&setup.places.socket_dir));
        command.stdout(Stdio::null()).stderr(start_log);
        // A group of its own: Ctrl-C in a terminal must not end it before the coordinator has drained.
        let child = command.process_group(0).spawn();
        let child =
            child.map_err(|source| EmbeddedError::Spawn { program, account: setup.account.name.clone(), source })?;
        log::info!(pid = child.id(), version = setup.binaries.major, account = setup.account.name; "starting the embedded PostgreSQL");
        Ok(Self { process: Process::Child(child), cluster: setup.places.cluster.clone() })
    }

    /// The postmaster's pid, while it is known to be ours.
    fn pid(&self) -> Option<Pid> {
        match &self.process {
            Process::Child(child) => child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw),
            Process::Adopted(pid) => is_postmaster_of(*pid, &self.cluster).then_some(*pid),
            Process::Gone => None,
        }
    }

    /// Waits for the end of the process and says how it ended. Cancelling this loses nothing.
    pub(super) async fn ended(&mut self) -> String {
        let how = match &mut self.process {
            Process::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("its status can't be read: {error}"),
            },
            Process::Adopted(pid) => {
                while is_postmaster_of(*pid, &self.cluster) {
                    sleep(LOOK_EVERY).await;
                }
                String::from("status unknown, it was adopted")
            }
            Process::Gone => String::from("ended before"),
        };
        self.process = Process::Gone;
        how
    }

    /// Ends it, by ever stronger means; the mildest gets `patience`.
    pub(super) async fn stop(mut self, patience: Duration) {
        for (signal, patience) in [(Signal::SIGINT, patience)].into_iter().chain(HARDER_STEPS) {
            let Some(pid) = self.pid() else { return };
            let children = if signal == Signal::SIGKILL { postmaster::children(pid) } else { Vec::new() };
            // Fails only if it ended this moment.
            let _ = kill(pid, signal);
            if timeout(patience, self.ended()).await.is_ok() {
                postmaster::end_orphans(&children);
                log::info!(pid = pid.as_raw(); "the embedded PostgreSQL is stopped");
                return;
            }
            log::warn!(pid = pid.as_raw(), signal = signal.as_str(); "the embedded PostgreSQL did not end in {} s", patience.as_secs());
        }
    }

    /// Waits until the database answers and is the right one.
    async fn answers(&mut self, setup: &Setup) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let probe = timeout(PROBE_LIMIT, probe(setup));
            let last = tokio::select! {
                status = self.ended() => return Err(EmbeddedError::Ended { status, log: logs(setup) }),
                answer = probe => match answer {
                    Ok(Ok(found)) => return is_ours(&found, setup),
                    Ok(Err(error)) => in_full(&error),
                    Err(_) => format!("no answer in {} s", PROBE_LIMIT.as_secs()),
                },
            };
            if Instant::now() >= deadline {
                return Err(EmbeddedError::Silent { seconds: START_LIMIT.as_secs(), last, log: logs(setup) });
            }
            sleep(PROBE_EVERY).await;
        }
    }
}

impl Drop for Server {
    /// For what is abandoned (a start that was cancelled, a runtime that ends): nobody waits, but it does end.
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGINT);
        }
    }
}

/// What must hold whatever `postgresql.conf` says.
fn launch_settings(socket_dir: &Path) -> Vec<OsString> {
    let mut sockets = OsString::from("unix_socket_directories=");
    sockets.push(socket_dir);
    let fixed = ["listen_addresses=", &format!("port={PORT}"), "unix_socket_permissions=0700", "logging_collector=on"];
    let log = ["log_destination=stderr", "log_directory=log"];
    let settings = fixed.into_iter().chain(log).map(OsString::from).chain([sockets]);
    settings.flat_map(|setting| [OsString::from("-c"), setting]).collect()
}

/// Connects, makes the database if it is not there, and returns the server's data folder.
async fn probe(setup: &Setup) -> Result<String, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(&setup.places.socket_dir).port(PORT).user(DATABASE).dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    // Its errors reach the client's calls too; it ends when the client is dropped.
    tokio::spawn(connection);
    let there = client.simple_query(&format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'")).await?;
    if first_value(&there).is_none() {
        client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
    }
    let data_dir = client.simple_query("SHOW data_directory").await?;
    Ok(first_value(&data_dir).unwrap_or_default())
}

fn first_value(answer: &[SimpleQueryMessage]) -> Option<String> {
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

fn is_ours(found: &str, setup: &Setup) -> Result<(), EmbeddedError> {
    if found == setup.places.cluster.to_string_lossy()
        || fs::canonicalize(found).is_ok_and(|path| path == setup.places.cluster)
    {
        return Ok(());
    }
    Err(EmbeddedError::SocketDir {
        path: setup.places.socket_dir.clone(),
        why: format!("a PostgreSQL answers there that serves {found:?}"),
    })
}

/// The error with what caused it: tokio-postgres keeps the server's words one level down.
fn in_full(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// The ends of the start log and of the newest log of the server.
fn logs(setup: &Setup) -> String {
    let newest = fs::read_dir(setup.places.cluster.join("log")).ok().and_then(|entries| {
        entries.filter_map(Result::ok).max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok())
    });
    let paths = [Some(setup.places.start_log.clone()), newest.map(|entry| entry.path())];
    let tails: Vec<String> =
        paths.iter().flatten().filter_map(|path| fs::read(path).ok()).map(|log| tail(&log)).collect();
    let said = tails.join("\n").trim().to_owned();
    if said.is_empty() { String::from("nothing") } else { said }
}

fn tail(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let log: String = (1..=20).map(|line| format!("line {line}\n")).collect();
        assert_eq!(tail(log.as_bytes()).lines().next(), Some("line 13"));
        assert_eq!(tail(b""), "");
    }
}
