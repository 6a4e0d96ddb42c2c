//! Debian's REST server for restic.

use crate::process::{Process, command};
use crate::programs::in_path;
use crate::{Context, Failure, eventually};
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How a REST server is to be started.
#[derive(Clone, Debug, Default)]
pub struct RestServerSettings {
    /// Nothing may be deleted but locks.
    pub append_only: bool,
    /// A user reaches only what is below `/USER/`.
    pub private_repos: bool,
    /// Users and their passwords; with none, anyone may do anything.
    pub users: Vec<(String, String)>,
}

/// A running REST server.
#[derive(Debug)]
pub struct RestServer {
    process: Process,
    address: String,
}

impl RestServer {
    /// Serves the repositories below `data`; several servers may serve the same. Its own files lie in `dir`.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(dir: &Path, data: &Path, settings: &RestServerSettings) -> Result<Self, Failure> {
        fs::create_dir_all(dir)?;
        fs::create_dir_all(data)?;
        let mut serve = command(&program()?, None);
        serve.args(["--listen", "127.0.0.1:0", "--path"]).arg(data);
        if settings.append_only {
            serve.arg("--append-only");
        }
        if settings.private_repos {
            serve.arg("--private-repos");
        }
        if settings.users.is_empty() {
            serve.arg("--no-auth");
        } else {
            serve.arg("--htpasswd-file").arg(password_file(dir, &settings.users)?);
        }
        let mut process = Process::start("restic-rest-server", serve, dir.join("rest-server.log"))?;
        let address = eventually("the REST server's address", Duration::from_secs(20), || {
            process.must_run()?;
            let output = process.output();
            let address = output.lines().find_map(|line| line.rsplit_once("start server on ")).map(|(_, last)| last);
            address.map(|address| address.trim().to_owned()).ok_or_else(|| Failure::new(output))
        })?;
        Ok(Self { process, address })
    }

    /// The repository at `path` as restic names it, without credentials.
    pub fn url(&self, path: &str) -> String {
        format!("rest:http://{}/{}/", self.address, path.trim_matches('/'))
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn program() -> Result<PathBuf, Failure> {
    let given = env::var_os("FLEET_TEST_REST_SERVER").map(PathBuf::from);
    given
        .or_else(|| in_path("restic-rest-server"))
        .ok_or_else(|| Failure::new("no restic-rest-server: run ./dev test, or set FLEET_TEST_REST_SERVER to one"))
}

fn password_file(dir: &Path, users: &[(String, String)]) -> Result<PathBuf, Failure> {
    let path = dir.join("users");
    fs::write(&path, "")?;
    for (user, password) in users {
        let mut htpasswd = Command::new("htpasswd");
        htpasswd.args(["-B", "-i"]).arg(&path).arg(user).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = htpasswd.spawn().context("htpasswd (of Debian's package apache2-utils)")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(password.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(Failure::new(format!("htpasswd: {}", String::from_utf8_lossy(&output.stderr))));
        }
    }
    Ok(path)
}
