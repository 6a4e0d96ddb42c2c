//! restic with everything that one job needs around it: credentials, log, stop.

use super::command;
use super::environment::{self, Environment, Inherited};
use super::failure::Failure;
use super::find::{Found, find};
use super::heard::Heard;
use super::listen::{Listen, Listener};
use super::probe::{self, ProbeLimits};
use super::redact::Redactor;
use super::version::Version;
use crate::credentials::Credentials;
use crate::orphans::JOB_VARIABLE;
use crate::process::{self, Ended, Ending, Program, Spool};
use crate::report::Reporter;
use crate::stop::{Stop, StopWatch};
use fleet_wire::{JobId, LogStream};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// How long `restic unlock` may take after a restic that had to be ended.
const UNLOCK_LIMIT: Duration = Duration::from_secs(60);

/// Go's exit code for a crash.
const CRASHED: i32 = 2;
/// A shell's exit codes from here on tell of a signal.
const BY_SIGNAL: i32 = 128;

/// What restic is called with.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// The job that it is for.
    pub job: &'a JobId,
    /// The executable.
    pub path: &'a Path,
    /// Its version.
    pub version: Version,
    /// The repository and its secrets.
    pub credentials: &'a Credentials,
    /// The private folder with `cache/` and `tmp/`.
    pub data_dir: &'a Path,
    /// Where its output goes.
    pub reporter: &'a Reporter,
    /// Where it is recorded.
    pub spool: &'a Spool,
    /// How long it gets between SIGINT and SIGKILL.
    pub grace: Duration,
}

/// A restic that is ready to be called.
#[derive(Clone)]
pub struct Restic {
    job: JobId,
    path: PathBuf,
    environment: Environment,
    redactor: Redactor,
    reporter: Reporter,
    spool: Spool,
    repository: String,
    grace: Duration,
}

impl fmt::Debug for Restic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the environment, which holds the secrets.
        f.debug_struct("Restic").field("job", &self.job).field("path", &self.path).finish_non_exhaustive()
    }
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The command line.
    pub args: Vec<OsString>,
    /// What is done with its standard output.
    pub listen: Listen,
    /// The stops that it heeds.
    pub stop: StopWatch,
    /// How long it may take.
    pub limit: Option<Duration>,
}

/// A call that is over.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// What it said.
    pub heard: Heard,
}

impl Finished {
    /// Its exit code, -1 if a signal ended it.
    pub fn exit_code(&self) -> i64 {
        self.ended.code.map_or(-1, i64::from)
    }

    /// Whether restic says that all went well.
    pub fn is_success(&self) -> bool {
        self.ended.code == Some(0)
    }

    /// Whether it ended early because it was told to. restic 0.18 ends a cancelled backup with 1 like any other
    /// failure: only having sent the signal tells. A good end that met the signal stays one.
    pub fn stopped(&self) -> Option<Stop> {
        self.ended.stop.filter(|_| !self.is_success())
    }

    /// Whether its lock may still be there. A signal that arrives while restic takes its lock ends it with an exit code
    /// of its own and leaves the lock (seen with 0.14 and, where a server is slow to answer, with 0.18); 2 is a crash of
    /// its runtime, from 128 on a shell tells of a signal.
    fn may_have_left_its_lock(&self) -> bool {
        let Ended { code, signal, stop, over_time } = self.ended;
        let crashed = code.is_some_and(|code| code == CRASHED || code >= BY_SIGNAL);
        !self.is_success() && (signal.is_some() || stop.is_some() || over_time || crashed)
    }

    /// Why it failed, by its words.
    pub fn failure(&self) -> Failure {
        if let (None, Some(signal)) = (self.ended.code, self.ended.signal) {
            return Failure::Other(format!("it was ended by signal {signal}{}", hint(signal)));
        }
        self.heard.words().judge(self.ended.code)
    }
}

fn hint(signal: i32) -> &'static str {
    if signal == Signal::SIGKILL as i32 { " (perhaps the host ran out of memory)" } else { "" }
}

impl Restic {
    /// Gets restic ready: makes its folders and builds its environment.
    ///
    /// # Errors
    /// A folder can't be made.
    pub fn new(setup: &Setup<'_>) -> io::Result<Self> {
        make_folders(setup.data_dir)?;
        let inherited = Inherited::from_process();
        let mut environment = environment::for_restic(setup.credentials, setup.version, setup.data_dir, &inherited);
        // So that a restic that outlived its agent can be recognised.
        environment.push((JOB_VARIABLE.into(), setup.job.as_str().into()));
        Ok(Self {
            job: setup.job.clone(),
            path: setup.path.to_owned(),
            environment,
            redactor: Redactor::new(setup.credentials),
            reporter: setup.reporter.clone(),
            spool: setup.spool.clone(),
            repository: environment::public_url(setup.credentials.url.as_deref().unwrap_or_default()),
            grace: setup.grace,
        })
    }

    /// The repository's address without credentials.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `text` without the repository's secrets.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }

    /// Runs restic once. Plain `unlock` follows an end that may have left its lock behind.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn call(&self, call: Call) -> io::Result<Finished> {
        let finished = self.call_once(&call).await?;
        if finished.may_have_left_its_lock() {
            self.unlock_own(&call.stop).await;
        }
        Ok(finished)
    }

    async fn call_once(&self, call: &Call) -> io::Result<Finished> {
        let program = Program { path: self.path.clone(), args: call.args.clone(), env: self.environment.clone() };
        // SIGINT, for restic before 0.17 dies at once of SIGTERM and leaves its lock.
        let ending = Ending { signal: Signal::SIGINT, grace: self.grace, limit: call.limit };
        let mut listener = Listener::new(self.job.clone(), &self.reporter, &self.redactor, call.listen);
        let recorded = (&self.spool, call.listen.role());
        let ended = process::run(&program, recorded, call.stop.clone(), ending, &mut listener).await?;
        Ok(Finished { ended, heard: listener.heard() })
    }

    /// Removes the lock of a restic of this host that is over. Live locks stay.
    async fn unlock_own(&self, stop: &StopWatch) {
        let call =
            Call { args: command::unlock(), listen: Listen::Log, stop: stop.from_now(), limit: Some(UNLOCK_LIMIT) };
        let failed = match self.call_once(&call).await {
            Ok(finished) if finished.is_success() => return,
            Ok(finished) => finished.failure().sentence(&self.repository),
            Err(error) => error.to_string(),
        };
        let line =
            format!("fleet-agent: the lock that restic may have left could not be removed: {}", self.redact(&failed));
        log::warn!(job = self.job.as_str(); "{line}");
        self.reporter.log(LogStream::Stderr, line).await;
    }
}

/// Makes the folders of restic's cache and of temporary files, for this user alone.
fn make_folders(data_dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for folder in [environment::cache_folder(data_dir), environment::temporary_folder(data_dir)] {
        builder
            .create(&folder)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    }
    Ok(())
}

/// Removes what killed children left in the agent's private folder: temporary files, and the caches that `check`
/// makes for itself, which can be large. Only to be called while no job runs.
pub fn clear_temporary(data_dir: &Path) {
    let is_check_cache =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("restic-check-cache-"));
    let temporary = entries(&environment::temporary_folder(data_dir));
    let caches = entries(&environment::cache_folder(data_dir)).into_iter().filter(|path| is_check_cache(path));
    for path in temporary.into_iter().chain(caches) {
        let is_folder = path.symlink_metadata().is_ok_and(|about| about.is_dir());
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(error) = removed {
            log::warn!("{} can't be removed: {error}", path.display());
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
}

/// Removes the lock of a restic that the agent left behind when it crashed; to be called when that restic is gone.
/// It has the environment of a job, and removes stale locks only.
///
/// # Errors
/// A sentence that says why there was no unlock.
pub async fn unlock_stale(
    (job, spool): (&JobId, &Spool),
    path: &Path,
    credentials: &Credentials,
    data_dir: &Path,
    reporter: &Reporter,
) -> Result<(), String> {
    let version = match find(path).await {
        Found::Usable(version) => version,
        found => return Err(found.problem().unwrap_or_default()),
    };
    // Later restics would try for 15 minutes.
    probe::reach(credentials.url.as_deref().unwrap_or_default(), ProbeLimits::default()).await?;
    let grace = Duration::from_secs(10);
    let setup = Setup { job, path, version, credentials, data_dir, reporter, spool, grace };
    let restic = Restic::new(&setup).map_err(|error| error.to_string())?;
    let call = Call {
        args: command::unlock(),
        listen: Listen::Log,
        stop: StopWatch::new(watch::channel(Stop::No).1),
        limit: Some(UNLOCK_LIMIT),
    };
    let finished = restic.call_once(&call).await.map_err(|error| format!("restic could not be started: {error}"))?;
    if finished.is_success() {
        Ok(())
    } else {
        Err(restic.redactor.redact(&finished.failure().sentence(&restic.repository)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_debug_output() {
        let data = tempfile::tempdir().unwrap();
        let credentials = Credentials {
            url: Some("rest:http://u:in-the-url@h/r".into()),
            password: Some(fleet_wire::Secret::new("hush-hush")),
            username: Some("h1".into()),
            credential: Some(fleet_wire::Secret::new("of-the-server")),
        };
        let (reporter, _reports) = Reporter::channel();
        let setup = Setup {
            job: &"j".into(),
            path: Path::new("restic"),
            version: Version::new(0, 14, 0),
            credentials: &credentials,
            data_dir: data.path(),
            reporter: &reporter,
            spool: &Spool::new(Path::new("fleet-agent"), data.path(), &"j".into()),
            grace: Duration::ZERO,
        };
        let restic = Restic::new(&setup).unwrap();
        let program = Program { path: "restic".into(), args: Vec::new(), env: restic.environment.clone() };
        let shown = format!("{setup:?} {restic:?} {program:?}");
        for secret in ["in-the-url", "hush-hush", "of-the-server"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }

    #[test]
    fn what_killed_children_left_is_cleared_and_the_cache_stays() {
        let data = tempfile::tempdir().unwrap();
        clear_temporary(data.path());
        make_folders(data.path()).unwrap();
        for folder in ["cache/restic-check-cache-17/data", "cache/0a1b/data", "tmp/made-by-a-hook"] {
            std::fs::create_dir_all(data.path().join(folder)).unwrap();
        }
        std::fs::write(data.path().join("tmp/restic-temp-pack-1"), "x").unwrap();
        clear_temporary(data.path());
        assert_eq!(entries(&data.path().join("tmp")), Vec::<PathBuf>::new());
        assert_eq!(entries(&data.path().join("cache")), [data.path().join("cache/0a1b")]);
    }
}
