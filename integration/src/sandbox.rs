//! What most tests start with.

use crate::{
    Agent, AgentSettings, Api, Coordinator, CoordinatorSettings, Database, Failure, FakeAgent, Restic, leak_free_dir,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A coordinator, its database and a folder, private to one test. Fields go in this order: the coordinator first.
#[derive(Debug)]
pub struct Sandbox {
    /// The coordinator.
    pub coordinator: Coordinator,
    /// Its database.
    pub database: Database,
    dir: TempDir,
}

impl Sandbox {
    /// Starts a coordinator with an empty database.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start() -> Result<Self, Failure> {
        Self::start_with(&[])
    }

    /// The same, with further variables in the coordinator's environment.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start_with(variables: &[(&str, &str)]) -> Result<Self, Failure> {
        Self::start_on(Database::create()?, variables)
    }

    /// The same, with a database of the test's choice.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start_on(database: Database, variables: &[(&str, &str)]) -> Result<Self, Failure> {
        let dir = leak_free_dir("fleet-sandbox.")?;
        let coordinator = Coordinator::start(&dir.path().join("coordinator"), &settings(&database, variables))?;
        Ok(Self { coordinator, database, dir })
    }

    /// Kills the coordinator as a power cut would, and starts another over the same database and data.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart_with(&mut self, variables: &[(&str, &str)]) -> Result<(), Failure> {
        self.coordinator.process().kill();
        let settings = settings(&self.database, variables);
        self.coordinator = Coordinator::start(&self.path("coordinator"), &settings)?;
        Ok(())
    }

    /// Kills the coordinator; agents try its address in vain.
    pub fn take_down(&mut self) {
        self.coordinator.process().kill();
    }

    /// Starts another over the same database and data, at the address that agents know.
    ///
    /// # Errors
    /// It does not start.
    pub fn bring_back(&mut self) -> Result<(), Failure> {
        let listen = Some(self.coordinator.address().to_owned());
        let settings = CoordinatorSettings { listen, ..settings(&self.database, &[]) };
        self.coordinator = Coordinator::start(&self.path("coordinator"), &settings)?;
        Ok(())
    }

    /// A client that may do everything.
    pub fn api(&self) -> Api {
        self.coordinator.api()
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A repository in the test's folder: its id, and restic to look into it.
    ///
    /// # Errors
    /// The coordinator refuses it.
    pub fn repository(&self, name: &str, restic: &Path) -> Result<(String, Restic), Failure> {
        let repository = self.path(name).display().to_string();
        let password = format!("password of {name}");
        let id = self.api().create_repository(name, &repository, &password)?;
        Ok((id, Restic { program: restic.to_owned(), repository, password, account: None }))
    }

    /// An agent that is enrolled in a repository, runs and is online, and its host's id.
    ///
    /// # Errors
    /// It does not come that far.
    pub fn agent(&self, hostname: &str, repository_id: &str, restic: &Path) -> Result<(Agent, String), Failure> {
        let settings = AgentSettings::new(self.path(&format!("agent-{hostname}")), hostname, restic);
        settings.enroll(&self.coordinator.url(), &self.api().enrollment_token(Some(repository_id))?)?;
        let mut agent = Agent::start(settings)?;
        let host = agent.online(&self.api())?;
        Ok((agent, crate::api::text_of(&host, "id")?))
    }

    /// Enrols a host without an agent: its id and its agent's token.
    ///
    /// # Errors
    /// The coordinator refuses it.
    pub fn enroll(&self, hostname: &str, repository_id: Option<&str>) -> Result<(String, String), Failure> {
        let token = self.api().enrollment_token(repository_id)?;
        let body = json!({"token": token, "hostname": hostname, "os": "linux", "arch": "amd64"});
        let reply: Value = self.api().post("/v1/agent/enroll", &body)?;
        Ok((crate::api::text_of(&reply, "host_id")?, crate::api::text_of(&reply, "agent_token")?))
    }

    /// A fake agent that has said hello and seen the burst of settings, and its host's id.
    ///
    /// # Errors
    /// It does not come that far.
    pub fn fake_agent(&self, hostname: &str, repository_id: &str) -> Result<(FakeAgent, String), Failure> {
        let (host_id, token) = self.enroll(hostname, Some(repository_id))?;
        let mut agent = FakeAgent::connect(self.coordinator.address(), &token)?;
        agent.hello(hostname, &json!({}))?;
        agent.expect("schedule.set")?;
        Ok((agent, host_id))
    }
}

fn settings(database: &Database, variables: &[(&str, &str)]) -> CoordinatorSettings {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    CoordinatorSettings { database_url: Some(database.url()), variables, ..CoordinatorSettings::default() }
}
