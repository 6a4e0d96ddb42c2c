//! A private PostgreSQL, for when `FLEET_TEST_DATABASE_URL` names none.

use crate::process::{Process, command, leak_free_dir};
use crate::{Account, Context, Failure, eventually, postgres_programs};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How long a server may take to start or stop.
const LIMIT: Duration = Duration::from_secs(60);

/// The server; it and its files go with the handle.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    dir: TempDir,
}

impl Server {
    /// Makes a cluster and starts its server, reached only through a Unix socket.
    pub(crate) fn start() -> Result<Self, Failure> {
        let programs = postgres_programs()?;
        let account = Account::instead_of_root(&["postgres", "nobody"])?;
        let dir = leak_free_dir("fleet-pg.")?;
        if let Some(account) = &account {
            account.own(dir.path())?;
        }
        init(&programs, account.as_ref(), dir.path())?;
        let mut postgres = command(&programs.join("postgres"), account.as_ref());
        postgres.arg("-D").arg(dir.path().join("data")).args(["-c", "listen_addresses="]);
        postgres.args(["-c", &format!("unix_socket_directories={}", dir.path().display())]);
        let mut process = Process::start("postgres", postgres, dir.path().join("log"))?;
        eventually("the private PostgreSQL", LIMIT, || {
            process.must_run()?;
            let ready = process.output().contains("ready to accept connections");
            if ready { Ok(()) } else { Err(Failure::new(process.tail(1))) }
        })?;
        Ok(Self { process, dir })
    }

    /// The URL of its maintenance database.
    pub(crate) fn url(&self) -> String {
        format!("postgresql:///postgres?host={}&user=postgres", self.dir.path().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM would wait for every connection to end.
        self.process.signal(Signal::SIGINT);
        let _ = self.process.wait(LIMIT);
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
