//! restic by hand: how tests and demo find out what is really in a repository.

use crate::process::command;
use crate::{Account, Context, Failure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A restic and a repository.
#[derive(Clone, Debug)]
pub struct Restic {
    /// The program.
    pub program: PathBuf,
    /// The repository as restic names it; credentials in it are percent-encoded.
    pub repository: String,
    /// Its password.
    pub password: String,
    /// The account to run as; `None`: as ourselves.
    pub account: Option<Account>,
}

impl Restic {
    /// A command of restic's, without a cache.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut restic = command(&self.program, self.account.as_ref());
        restic.env("RESTIC_REPOSITORY", &self.repository).env("RESTIC_PASSWORD", &self.password);
        restic.arg("--no-cache").args(args);
        restic
    }

    /// Runs it; gives what it wrote to stdout.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, args: &[&str]) -> Result<String, Failure> {
        let output = self.command(args).output().context("starting restic")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(format!("restic {}: {}: {}", args.join(" "), output.status, said.trim())))
    }

    /// Every snapshot, as restic describes it.
    ///
    /// # Errors
    /// restic fails.
    pub fn snapshots(&self) -> Result<Vec<Value>, Failure> {
        Ok(serde_json::from_str(&self.run(&["snapshots", "--json"])?)?)
    }

    /// The ids of the locks that stand in it.
    ///
    /// # Errors
    /// restic fails.
    pub fn locks(&self) -> Result<Vec<String>, Failure> {
        Ok(self.run(&["list", "locks"])?.lines().map(str::to_owned).collect())
    }

    /// Restores a snapshot below `target`.
    ///
    /// # Errors
    /// restic fails.
    pub fn restore(&self, snapshot: &str, target: &Path) -> Result<(), Failure> {
        self.run(&["restore", snapshot, "--target", &target.display().to_string()]).map(drop)
    }
}
