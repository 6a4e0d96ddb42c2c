//! The real agent as a process.

use crate::process::{Process, command};
use crate::{Account, Api, Context, Failure, eventually, program};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an agent may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// How an agent is to be started.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Its folder; made if it is missing.
    pub data_dir: PathBuf,
    /// `FLEET_HOSTNAME`.
    pub hostname: String,
    /// The restic it runs.
    pub restic: PathBuf,
    /// The account it runs as; `None`: as ourselves.
    pub account: Option<Account>,
    /// The program, if it is not the one of this workspace.
    pub program: Option<PathBuf>,
    /// Further variables.
    pub variables: Vec<(String, String)>,
}

impl AgentSettings {
    /// An agent with its data in `data_dir`.
    pub fn new(data_dir: PathBuf, hostname: &str, restic: &Path) -> Self {
        let (hostname, restic) = (hostname.to_owned(), restic.to_owned());
        Self { data_dir, hostname, restic, account: None, program: None, variables: Vec::new() }
    }

    fn command(&self) -> Result<std::process::Command, Failure> {
        let program = self.program.clone().map_or_else(|| program("fleet-agent"), Ok)?;
        let mut command = command(&program, self.account.as_ref());
        command.env("FLEET_AGENT_DATA_DIR", &self.data_dir).env("FLEET_HOSTNAME", &self.hostname);
        command.env("FLEET_RESTIC", &self.restic);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn prepare(&self) -> Result<(), Failure> {
        fs::create_dir_all(&self.data_dir).context(self.data_dir.display())?;
        fs::set_permissions(&self.data_dir, Permissions::from_mode(0o700))?;
        self.account.as_ref().map_or(Ok(()), |account| account.own(&self.data_dir))
    }

    /// Runs `fleet-agent enroll`.
    ///
    /// # Errors
    /// It fails; the failure is what it said.
    pub fn enroll(&self, server: &str, token: &str) -> Result<(), Failure> {
        self.prepare()?;
        let mut enroll = self.command()?;
        // The token is in the variable: a command line is for everyone to see.
        let output = enroll.args(["enroll", "--server", server]).env("FLEET_ENROLL_TOKEN", token).output()?;
        if output.status.success() {
            Ok(())
        } else {
            Err(Failure::new(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    settings: AgentSettings,
}

impl Agent {
    /// Starts one that is enrolled.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(settings: AgentSettings) -> Result<Self, Failure> {
        settings.prepare()?;
        let mut run = settings.command()?;
        run.arg("run");
        // Beside its folder, which belongs to its account.
        let log = settings.data_dir.with_extension("log");
        let process = Process::start(&format!("agent {}", settings.hostname), run, log)?;
        Ok(Self { process, settings })
    }

    /// Waits until the coordinator knows it as online; gives the host as REST shows it.
    ///
    /// # Errors
    /// It ended, or the time is over.
    pub fn online(&mut self, api: &Api) -> Result<Value, Failure> {
        let what = format!("host {} to be online", self.settings.hostname);
        eventually(&what, CONNECT_LIMIT, || {
            self.process.must_run()?;
            let hosts = api.list("/v1/hosts")?;
            let own = hosts.into_iter().find(|host| host["hostname"] == self.settings.hostname);
            let own = own.ok_or_else(|| Failure::new("no such host"))?;
            if own["status"] == "online" { Ok(own) } else { Err(Failure::new(own.to_string())) }
        })
    }

    /// How it was started.
    pub fn settings(&self) -> &AgentSettings {
        &self.settings
    }

    /// Only its process, for who starts and stops it without waiting.
    pub(crate) fn into_process(self) -> Process {
        self.process
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
