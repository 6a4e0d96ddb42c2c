//! The real agent as a process.

use serde_json::json;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Everything here happens within this time or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The token in the identity that tests write.
pub const TOKEN: &str = "token-of-the-agent";

/// An enrolled agent's home, and its process.
pub struct Agent {
    pub home: TempDir,
    process: Option<Child>,
}

impl Agent {
    /// An agent that is enrolled at `url` and not started.
    pub fn enrolled(url: &str) -> Self {
        let agent = Self { home: tempfile::tempdir().unwrap(), process: None };
        std::fs::create_dir(agent.data_dir()).unwrap();
        let identity = json!({"server": url, "host_id": "h1", "agent_token": TOKEN});
        std::fs::write(agent.data_dir().join("identity.json"), identity.to_string()).unwrap();
        agent
    }

    /// An agent that is enrolled and runs.
    pub fn running(url: &str) -> Self {
        let mut agent = Self::enrolled(url);
        agent.start();
        agent
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The contents of its identity file.
    pub fn identity(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.data_dir().join("identity.json")).unwrap()).unwrap()
    }

    pub fn log_path(&self) -> PathBuf {
        self.home.path().join("agent.log")
    }

    /// All that its processes wrote to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// `fleet-agent run`, for the test to change and start.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-agent"));
        self.prepare(&mut command);
        command.arg("run");
        command
    }

    /// Environment and output of an agent.
    pub fn prepare(&self, command: &mut Command) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("FLEET_AGENT_DATA_DIR", self.data_dir())
            .env("FLEET_HOSTNAME", "testhost")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
    }

    pub fn start(&mut self) {
        let mut command = self.command();
        self.start_as(&mut command);
    }

    pub fn start_as(&mut self, command: &mut Command) {
        assert!(self.process.is_none());
        self.process = Some(command.spawn().unwrap());
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.process.as_ref().unwrap().id()).unwrap())
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    /// Kills it as hard as can be.
    pub async fn kill(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGKILL);
        self.ended().await;
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                let _ = process.kill();
                panic!("the agent does not end; its log:\n{}", self.log());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until its log has `text`.
    pub async fn logs(&self, text: &str) {
        self.until(&format!("{text:?} in its log"), || self.log().contains(text)).await;
    }

    /// Waits until `is` holds.
    pub async fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is() {
            assert!(Instant::now() < deadline, "waiting for {what}; the agent's log:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
