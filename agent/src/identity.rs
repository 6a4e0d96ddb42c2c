//! Who this agent is: what enrolment gave it.

use crate::files::{self, FileError};
use fleet_wire::Secret;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const REMEDY: &str = "enrol this host again with `fleet-agent enroll --force`";

/// The contents of `identity.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The coordinator's address.
    pub server: String,
    /// The host's id there.
    pub host_id: String,
    /// What this agent authenticates with.
    pub agent_token: Secret,
    /// The name that the coordinator knows this host by: its snapshots are made, listed and judged under it, whatever the
    /// machine is called later. Absent if an agent has enrolled it that did not keep the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

impl Identity {
    /// The file in the data folder.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("identity.json")
    }

    /// Reads it; `None` if this host is not enrolled.
    ///
    /// # Errors
    /// The file is unreadable or damaged.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, FileError> {
        files::read_json(&Self::path(data_dir), REMEDY)
    }

    /// Writes it, readable by its owner only.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn store(&self, data_dir: &Path) -> Result<(), FileError> {
        files::write_json(&Self::path(data_dir), self)
    }
}
