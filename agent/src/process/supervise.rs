//! Starts a child and brings its end about: it is interrupted with all of its process group, given a grace, and killed.

use super::Program;
use super::frames::{Event, Started, Why};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout_at};

/// How often it is looked whether a process group is gone.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How a child is ended early.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// The first signal to its process group.
    pub signal: Signal,
    /// How long after that the group is killed.
    pub grace: Duration,
    /// How long it may run at most.
    pub limit: Option<Duration>,
}

/// Starts it in a process group and an environment of its own.
pub(super) fn spawn(program: &Program) -> io::Result<Child> {
    Command::new(&program.path)
        .args(&program.args)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the child's end, or brings it about when `stop` returns.
pub(super) async fn supervise(child: &mut Child, stop: impl Future<Output = ()>, ending: Ending) -> io::Result<Event> {
    let group = child.id();
    let over_time = async {
        match ending.limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        biased;
        status = child.wait() => return status.map(|status| ended(status, Why::ByItself)),
        () = stop => Why::Stopped,
        () = over_time => Why::OverTime,
    };
    signal_group(group, ending.signal);
    let until = Instant::now() + ending.grace;
    let status = match timeout_at(until, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            signal_group(group, Signal::SIGKILL);
            child.wait().await?
        }
    };
    // Its own children have the rest of the grace. Some may have ignored the first signal: a shell starts background jobs
    // that way.
    gone(group, until.saturating_duration_since(Instant::now())).await;
    signal_group(group, Signal::SIGKILL);
    Ok(ended(status, why))
}

fn ended(status: ExitStatus, why: Why) -> Event {
    Event::Ended { code: status.code(), signal: status.signal(), why }
}

/// What tells a child from every other process.
pub(super) fn identity(child: &Child) -> Started {
    let group = child.id().unwrap_or_default();
    Started { group, ticks: ticks(group) }
}

/// When a process began, in clock ticks after the system's start.
pub(crate) fn ticks(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, any text in brackets, is the second field of proc(5); this is the twenty-second.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Returns when no process of the group is left, or the time is over.
pub(super) async fn gone(group: Option<u32>, within: Duration) {
    let Some(group) = group.and_then(|id| i32::try_from(id).ok()) else { return };
    let until = Instant::now() + within;
    while killpg(Pid::from_raw(group), None) != Err(Errno::ESRCH) && Instant::now() < until {
        sleep(LOOK_EVERY).await;
    }
}

/// Signals the process group whose leader was started as `leader`. A group that is gone is no error.
pub(super) fn signal_group(leader: Option<u32>, signal: Signal) {
    if let Some(leader) = leader.and_then(|id| i32::try_from(id).ok())
        && let Err(error) = killpg(Pid::from_raw(leader), signal)
    {
        log::debug!(group = leader, signal = signal.as_str(); "no signal was delivered: {error}");
    }
}
