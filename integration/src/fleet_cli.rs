//! The command line `fleet` as a process.

use crate::process::command;
use crate::{Context, Failure, program};
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};

/// `fleet` with a coordinator and a token.
#[derive(Clone, Debug)]
pub struct FleetCli {
    url: String,
    token: String,
}

/// What a run of it came to.
#[derive(Debug)]
pub struct Ended {
    /// The exit status; `None` if a signal has ended it.
    pub status: Option<i32>,
    /// What it has written to stdout.
    pub stdout: String,
    /// What it has written to stderr.
    pub stderr: String,
}

impl FleetCli {
    /// For the coordinator at `url`.
    pub fn new(url: &str, token: &str) -> Self {
        Self { url: url.to_owned(), token: token.to_owned() }
    }

    /// The same coordinator with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The same token at another address.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    fn with_environment(&self, mut command: Command) -> Command {
        command.env("FLEET_URL", &self.url).env("FLEET_TOKEN", &self.token);
        command
    }

    /// The command with these arguments, to be started.
    ///
    /// # Errors
    /// It was not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let mut fleet = command(&program("fleet")?, None);
        fleet.args(arguments);
        Ok(self.with_environment(fleet))
    }

    /// Starts it, with its output in pipes.
    ///
    /// # Errors
    /// It can't be started. So for the others below.
    pub fn start(&self, arguments: &[&str]) -> Result<Child, Failure> {
        let mut fleet = self.command(arguments)?;
        fleet.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting fleet")
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn run(&self, arguments: &[&str]) -> Result<Ended, Failure> {
        Ended::of(self.start(arguments)?)
    }

    /// Starts it on a pseudo-terminal of 120 columns; all it writes comes as stdout.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on_terminal(&self, arguments: &str) -> Result<Child, Failure> {
        let fleet = program("fleet")?;
        let line = format!("stty cols 120 rows 40; exec {} {arguments}", fleet.display());
        let mut script = command("script".as_ref(), None);
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
        let script = self.with_environment(script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        script.context("script, of Debian's package bsdutils")
    }
}

impl Ended {
    /// Waits for the end of what [`FleetCli::start`] has started.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn of(fleet: Child) -> Result<Self, Failure> {
        let Output { status, stdout, stderr } = fleet.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Self { status: status.code(), stdout: text(stdout), stderr: text(stderr) })
    }

    /// What it has written to stdout, if it has succeeded.
    ///
    /// # Errors
    /// It has not; the failure is all that it said.
    pub fn ok(self) -> Result<String, Failure> {
        if self.status == Some(0) { Ok(self.stdout) } else { Err(Failure::new(format!("{self:?}"))) }
    }

    /// The JSON of each line of stdout.
    ///
    /// # Errors
    /// One of them is none.
    pub fn json(&self) -> Result<Vec<Value>, Failure> {
        let lines = self.stdout.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().context(format!("{self:?}"))
    }
}
