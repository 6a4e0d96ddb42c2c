//! A private PostgreSQL: for when `FLEET_TEST_DATABASE_URL` names none, and for tests that take the database away.

use crate::process::{Process, command, leak_free_dir};
use crate::{Account, Context, Failure, eventually, postgres_programs, postmaster};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How long a server may take to start or stop.
const LIMIT: Duration = Duration::from_secs(60);

/// The server; it and its files go with the handle.
#[derive(Debug)]
pub struct Server {
    process: Process,
    account: Option<Account>,
    dir: TempDir,
    settings: &'static [&'static str],
}

impl Server {
    /// Makes a cluster and starts its server, reached only through a Unix socket.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start() -> Result<Self, Failure> {
        Self::start_with(&[])
    }

    /// The same, with settings (`name=value`) other than the cluster's own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(settings: &'static [&'static str]) -> Result<Self, Failure> {
        let dir = leak_free_dir("fleet-pg.")?;
        let account = make(dir.path())?;
        let process = launch(account.as_ref(), dir.path(), settings)?;
        Ok(Self { process, account, dir, settings })
    }

    /// The URL of its maintenance database.
    pub fn url(&self) -> String {
        url(self.dir.path())
    }

    /// What it has logged since it was started.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Ends it: connections are cut, and nobody can make one.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<(), Failure> {
        // A process that hangs would not notice.
        self.resume();
        // SIGTERM would wait for every connection to end.
        self.process.signal(Signal::SIGINT);
        self.process.wait(LIMIT).map(drop)
    }

    /// Starts it again, with its data.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<(), Failure> {
        self.process = launch(self.account.as_ref(), self.dir.path(), self.settings)?;
        Ok(())
    }

    /// Lets it hang: connections stay and can be made, and nothing is ever answered.
    pub fn pause(&mut self) {
        postmaster::signal_all(&mut self.process, Signal::SIGSTOP);
    }

    /// Lets it go on where it was.
    pub fn resume(&mut self) {
        postmaster::signal_all(&mut self.process, Signal::SIGCONT);
    }
}

/// Makes a cluster in `dir`, which then belongs to the account that its server is to run as.
pub(crate) fn make(dir: &Path) -> Result<Option<Account>, Failure> {
    let account = Account::instead_of_root(&["postgres", "nobody"])?;
    if let Some(account) = &account {
        account.own(dir)?;
    }
    init(&postgres_programs()?, account.as_ref(), dir)?;
    Ok(account)
}

/// Starts a server over the cluster in `dir`, and waits for nothing.
pub(crate) fn serve(account: Option<&Account>, dir: &Path, settings: &[&str]) -> Result<Process, Failure> {
    let mut postgres = command(&postgres_programs()?.join("postgres"), account);
    postgres.arg("-D").arg(dir.join("data")).args(["-c", "listen_addresses="]);
    postgres.args(["-c", &format!("unix_socket_directories={}", dir.display())]);
    postgres.args(settings.iter().flat_map(|setting| ["-c", setting]));
    // A log of its own for each start, for what it says once it is ready is looked for in it.
    let log = dir.join(format!("log.{}", uuid::Uuid::new_v4().simple()));
    Process::start("postgres", postgres, log)
}

/// The URL of the maintenance database of the server in `dir`.
pub(crate) fn url(dir: &Path) -> String {
    format!("postgresql:///postgres?host={}&user=postgres", dir.display())
}

fn launch(account: Option<&Account>, dir: &Path, settings: &[&str]) -> Result<Process, Failure> {
    let mut process = serve(account, dir, settings)?;
    eventually("the private PostgreSQL", LIMIT, || {
        process.must_run()?;
        let ready = process.output().contains("ready to accept connections");
        if ready { Ok(()) } else { Err(Failure::new(process.tail(1))) }
    })?;
    Ok(process)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn init(programs: &Path, account: Option<&Account>, dir: &Path) -> Result<(), Failure> {
    let mut initdb = command(&programs.join("initdb"), account);
    initdb.arg("-D").arg(dir.join("data")).args(["-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8"]);
    let output = initdb.output().context("initdb")?;
    if output.status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr))))
    }
}
