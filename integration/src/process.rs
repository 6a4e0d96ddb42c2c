//! A process that can't outlive its handle, with its output in a file.

use crate::{Account, Context, Failure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};
use tempfile::TempDir;

/// How long a process may take to end in good order once it is dropped.
const GRACE: Duration = Duration::from_secs(20);
/// How many lines of its output are shown when a test fails.
const TAIL: usize = 60;
/// What processes get to see of our environment. Everything else, secrets and `PGPORT` among it, stays here.
const ENVIRONMENT: &[&str] = &["PATH", "RUST_LOG", "RUST_BACKTRACE", "TMPDIR"];

/// A command that runs `program` as `account` (`None`: as ourselves) with a clean environment, and is told to end
/// when the thread that starts it does, however that comes to pass.
pub fn command(program: &Path, account: Option<&Account>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(account) = account {
        command.args([format!("--reuid={}", account.uid), format!("--regid={}", account.gid)]).arg("--clear-groups");
    }
    command.arg("--").arg(program);
    command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// A new folder for temporary files that every account may enter, removed with its handle.
///
/// # Errors
/// The system refuses.
pub fn leak_free_dir(prefix: &str) -> Result<TempDir, Failure> {
    // Not TMPDIR: sockets lie in it, whose paths must stay short, and other accounts must get there.
    let builder = tempfile::Builder::new().prefix(prefix).permissions(Permissions::from_mode(0o755)).tempdir_in("/tmp");
    builder.context("making a folder under /tmp")
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with all its output going to the file `log`.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(name: &str, mut command: Command, log: PathBuf) -> Result<Self, Failure> {
        let output = File::options().create(true).append(true).open(&log).context(log.display())?;
        command.stdout(output.try_clone()?).stderr(output);
        // A group of its own: Ctrl-C is for us, and we stop the others in order.
        let child = command.process_group(0).spawn().context(format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log, ended: None })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever had (VmHWM), in KiB.
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_kib(&self) -> Result<u64, Failure> {
        let path = format!("/proc/{}/status", self.id());
        let status = fs::read_to_string(&path).context(&path)?;
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().trim_end_matches(" kB").parse().ok());
        peak.ok_or_else(|| Failure::new(format!("no VmHWM in {path}: {status}")))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// An error with its last words if it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> Result<(), Failure> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(Failure::new(format!("{} has ended ({status}):\n{}", self.name, self.tail(15)))),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs when `limit` is over.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if began.elapsed() > limit {
                return Err(Failure::new(format!("{} still runs after {limit:?}", self.name)));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // A process that we have not waited for keeps its id, so this hits no other.
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        }
    }

    /// Asks it to end (SIGTERM), and kills it if it does not within its grace.
    ///
    /// # Errors
    /// It had to be killed.
    pub fn stop(&mut self) -> Result<ExitStatus, Failure> {
        self.signal(Signal::SIGTERM);
        let stopped = self.wait(GRACE);
        if stopped.is_err() {
            self.kill();
        }
        stopped
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// All it has said so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its last `lines` lines.
    pub fn tail(&self, lines: usize) -> String {
        let output = self.output();
        let all: Vec<_> = output.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stop();
        if thread::panicking() {
            #[allow(clippy::print_stderr, reason = "what a failed test shows")]
            {
                eprintln!("--- {}, last lines ---\n{}\n---", self.name, self.tail(TAIL));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &TempDir) -> Process {
        let mut command = command(Path::new("/bin/sh"), None);
        command.args(["-c", script]);
        Process::start("shell", command, dir.path().join("log")).unwrap()
    }

    #[test]
    fn a_process_ends_with_its_handle() {
        let dir = leak_free_dir("fleet-process.").unwrap();
        let process = shell("exec sleep 600", &dir);
        let pid = Pid::from_raw(process.id().cast_signed());
        drop(process);
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn the_last_words_of_a_dead_process_are_told() {
        let dir = leak_free_dir("fleet-process.").unwrap();
        let mut process = shell("echo one; echo no such luck >&2; exit 3", &dir);
        process.wait(Duration::from_secs(10)).unwrap();
        let failure = process.must_run().unwrap_err().to_string();
        assert!(failure.contains("exit status: 3") && failure.ends_with("one\nno such luck"), "{failure}");
    }

    #[test]
    fn nothing_of_our_environment_gets_through() {
        let dir = leak_free_dir("fleet-process.").unwrap();
        let mut process = shell("env | grep -c CARGO_", &dir);
        process.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(process.output().trim(), "0");
    }
}
