//! The real coordinator as a process.

use crate::process::{Process, command};
use crate::{Api, Context, Failure, eventually, program};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// How long a start may take; with a PostgreSQL of its own it makes a cluster first.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How a coordinator is to be started.
#[derive(Clone, Debug, Default)]
pub struct CoordinatorSettings {
    /// `DATABASE_URL`; without it the coordinator runs a PostgreSQL of its own.
    pub database_url: Option<String>,
    /// `FLEET_LISTEN`; a free port if it is not set.
    pub listen: Option<String>,
    /// Further variables.
    pub variables: Vec<(String, String)>,
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    process: Process,
    data_dir: PathBuf,
    admin_token: String,
    address: String,
}

impl Coordinator {
    /// Starts one with its data in `data_dir`, and waits until it serves.
    ///
    /// # Errors
    /// It ended, or does not serve in time.
    pub fn start(data_dir: &Path, settings: &CoordinatorSettings) -> Result<Self, Failure> {
        let mut coordinator = Self::launch(data_dir, settings)?;
        coordinator.wait_until_ready()?;
        Ok(coordinator)
    }

    /// Starts one and waits for nothing, for tests of a start that fails.
    ///
    /// # Errors
    /// It can't be started.
    pub fn launch(data_dir: &Path, settings: &CoordinatorSettings) -> Result<Self, Failure> {
        fs::create_dir_all(data_dir).context(data_dir.display())?;
        // What a killed one left there says nothing about this one.
        let _ = fs::remove_file(data_dir.join("listen"));
        let admin_token = format!("admin-{}", Uuid::new_v4().simple());
        let mut serve = command(&program("fleet-coordinator")?, None);
        serve.arg("serve").env("FLEET_DATA_DIR", data_dir).env("FLEET_ADMIN_TOKEN", &admin_token);
        serve.env("FLEET_LISTEN", settings.listen.as_deref().unwrap_or("127.0.0.1:0"));
        if let Some(url) = &settings.database_url {
            serve.env("DATABASE_URL", url);
        }
        serve.envs(settings.variables.iter().map(|(name, value)| (name, value)));
        let process = Process::start("coordinator", serve, data_dir.join("coordinator.log"))?;
        Ok(Self { process, data_dir: data_dir.to_owned(), admin_token, address: String::new() })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// It ended, or the time is over.
    pub fn wait_until_ready(&mut self) -> Result<(), Failure> {
        self.wait_until_there()?;
        let api = self.api();
        eventually("the coordinator to be ready", START_LIMIT, || {
            self.process.must_run()?;
            api.get("/readyz")
        })?;
        Ok(())
    }

    /// Waits until it answers, though it may not serve yet.
    ///
    /// # Errors
    /// It ended, or the time is over.
    pub fn wait_until_there(&mut self) -> Result<(), Failure> {
        let listen = self.data_dir.join("listen");
        self.address = eventually("the coordinator's address", START_LIMIT, || {
            self.process.must_run()?;
            let address = fs::read_to_string(&listen).context(listen.display())?;
            Ok::<_, Failure>(address.trim().to_owned())
        })?;
        Ok(())
    }

    /// Its address, such as `http://127.0.0.1:41001`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A client that may do everything.
    pub fn api(&self) -> Api {
        Api::new(&self.url(), &self.admin_token)
    }

    /// The token of [`Self::api`].
    pub fn admin_token(&self) -> &str {
        &self.admin_token
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
