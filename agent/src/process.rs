//! Runs one child process to its end.
//!
//! The child gets a process group and an environment of its own. Both its outputs are read at all times, whatever
//! happens: a full pipe would block it. When it is to stop, or is over its time, the whole group is interrupted,
//! given a grace, and killed.

mod output;

pub(crate) use output::char_boundary;
pub use output::{MAX_LINE_BYTES, Origin, Sink};

use self::output::drain;
use crate::stop::{Stop, StopWatch};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// What to run.
#[derive(Clone)]
pub struct Program {
    /// The executable; a name without a slash is looked for in `PATH`.
    pub path: PathBuf,
    /// Its arguments. Never a secret: every user can read them.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secret.
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Program").field("path", &self.path).field("args", &self.args).field("env", &names).finish()
    }
}

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

/// How a child ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it was signalled, if it was asked to stop.
    pub stop: Option<Stop>,
    /// It was signalled because it was over its time limit.
    pub over_time: bool,
}

/// Runs `program` to its end and hands what it writes to `sink`.
///
/// # Errors
/// It could not be started.
pub async fn run(program: &Program, stop: StopWatch, ending: Ending, sink: &mut impl Sink) -> io::Result<Ended> {
    let mut child = spawn(program)?;
    let outputs = (child.stdout.take(), child.stderr.take());
    let (exited, child_exited) = oneshot::channel::<()>();
    let supervised = async {
        let ended = supervise(&mut child, stop, ending).await;
        drop(exited);
        ended
    };
    let (ended, ()) = tokio::join!(supervised, drain(outputs, child_exited, sink));
    ended
}

fn spawn(program: &Program) -> io::Result<Child> {
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

/// Waits for the child's end, or brings it about.
async fn supervise(child: &mut Child, mut stop: StopWatch, ending: Ending) -> io::Result<Ended> {
    let group = child.id();
    let over_time = async {
        match ending.limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        biased;
        status = child.wait() => return status.map(|status| ended(status, None, false)),
        stop = stop.wait() => Some(stop),
        () = over_time => None,
    };
    signal_group(group, ending.signal);
    let status = match timeout(ending.grace, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            signal_group(group, Signal::SIGKILL);
            child.wait().await?
        }
    };
    // Its own children may have ignored the first signal (a shell starts background jobs that way).
    signal_group(group, Signal::SIGKILL);
    Ok(ended(status, why, why.is_none()))
}

fn ended(status: ExitStatus, stop: Option<Stop>, over_time: bool) -> Ended {
    Ended { code: status.code(), signal: status.signal(), stop, over_time }
}

/// Signals the process group whose leader was started as `leader`. A group that is gone is no error.
fn signal_group(leader: Option<u32>, signal: Signal) {
    if let Some(leader) = leader.and_then(|id| i32::try_from(id).ok())
        && let Err(error) = killpg(Pid::from_raw(leader), signal)
    {
        log::debug!(group = leader, signal = signal.as_str(); "no signal was delivered: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::sync::watch;

    #[derive(Default)]
    struct Heard(Vec<(Origin, Vec<u8>, bool)>);

    impl Sink for Heard {
        async fn line(&mut self, origin: Origin, piece: Vec<u8>, ends: bool) {
            self.0.push((origin, piece, ends));
        }
    }

    impl Heard {
        fn text(&self, origin: Origin) -> String {
            let lines = self.0.iter().filter(|line| line.0 == origin).map(|line| String::from_utf8_lossy(&line.1));
            lines.collect::<Vec<_>>().join("|")
        }
    }

    fn sh(script: &str) -> Program {
        let path = ("PATH".into(), "/usr/bin:/bin".into());
        Program { path: "/bin/sh".into(), args: vec!["-c".into(), script.into()], env: vec![path] }
    }

    fn ending(grace_ms: u64, limit: Option<Duration>) -> Ending {
        Ending { signal: Signal::SIGINT, grace: Duration::from_millis(grace_ms), limit }
    }

    fn no_stop() -> StopWatch {
        StopWatch::new(watch::channel(Stop::No).1)
    }

    #[tokio::test]
    async fn both_outputs_and_the_exit_code_are_reported() {
        let mut heard = Heard::default();
        let script = "echo one; echo two >&2; printf 'no end'; test -z \"$HOME\" || echo leaked; exit 7";
        let ended = run(&sh(script), no_stop(), ending(100, None), &mut heard).await.unwrap();
        assert_eq!(ended, Ended { code: Some(7), ..Ended::default() });
        assert_eq!(heard.text(Origin::Stdout), "one|no end");
        assert_eq!(heard.text(Origin::Stderr), "two");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let program = Program { path: "/no/such/program".into(), args: Vec::new(), env: Vec::new() };
        let error = run(&program, no_stop(), ending(100, None), &mut Heard::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    /// Asks for a stop as soon as the child says something: then its traps are set.
    struct StopAtFirstLine(watch::Sender<Stop>);

    impl Sink for StopAtFirstLine {
        async fn line(&mut self, _: Origin, _: Vec<u8>, _: bool) {
            self.0.send(Stop::Cancel).unwrap();
        }
    }

    async fn stopped(script: &str, grace_ms: u64) -> Ended {
        let (stop, receiver) = watch::channel(Stop::No);
        let mut sink = StopAtFirstLine(stop);
        run(&sh(script), StopWatch::new(receiver), ending(grace_ms, None), &mut sink).await.unwrap()
    }

    #[tokio::test]
    async fn a_stop_interrupts_and_then_kills_the_whole_group() {
        let started = Instant::now();
        // Neither the shell nor its children heed SIGINT: only the kill of the group closes the outputs.
        let ended = stopped("trap '' INT; echo ready; sleep 600 & sleep 600", 200).await;
        assert_eq!(ended, Ended { code: None, signal: Some(9), stop: Some(Stop::Cancel), over_time: false });
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_stop_that_meets_a_good_end_keeps_its_exit_code() {
        let ended = stopped("trap 'exit 0' INT; echo ready; while :; do sleep 0.05; done", 20_000).await;
        assert_eq!(ended, Ended { code: Some(0), signal: None, stop: Some(Stop::Cancel), over_time: false });
    }

    #[tokio::test]
    async fn a_time_limit_ends_it() {
        let limit = Some(Duration::from_millis(100));
        let ended = run(&sh("exec sleep 600"), no_stop(), ending(1000, limit), &mut Heard::default()).await.unwrap();
        assert_eq!(ended, Ended { code: None, signal: Some(2), stop: None, over_time: true });
    }

    #[tokio::test]
    async fn what_a_child_leaves_behind_does_not_hold_it_up() {
        // Silent, dripping, and as fast as it can.
        for left in ["sleep 30", "while sleep 0.2; do echo x; done", "yes"] {
            let mut heard = Heard::default();
            let started = Instant::now();
            let script = format!("echo done; {left} &");
            let ended = run(&sh(&script), no_stop(), ending(100, None), &mut heard).await.unwrap();
            assert_eq!((ended.code, heard.0[0].1.as_slice()), (Some(0), b"done".as_slice()), "{left}");
            assert!(started.elapsed() < Duration::from_secs(20), "{left}: {:?}", started.elapsed());
        }
    }
}
