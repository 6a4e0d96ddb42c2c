//! What a document asks for, read and checked: everything in it makes sense by itself. Rows in it belong to no host yet.

use super::sources::Source;
use crate::access::{Labels, covers};
use crate::db::hosts::Changes;
use crate::db::json::Json;
use crate::db::maintenance::Entry;
use crate::db::repositories::{Repository, SecretColumn};
use crate::db::schedules::Schedule;
use crate::db::source_groups::SourceGroup;
use fleet_wire::{ForgetLimit, Secret, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// All repositories that there are to be; absent if the document is not about them.
    pub repositories: Option<Vec<WantedRepository>>,
    /// What hosts have in common, in the order in which it counts.
    pub templates: Vec<Template>,
    /// Hosts, each named once.
    pub hosts: Vec<WantedHost>,
}

/// A repository.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the columns")]
pub struct WantedRepository {
    /// Where it stands in the document, as a JSON pointer.
    pub pointer: String,
    pub name: String,
    pub url: String,
    pub username: Option<String>,
    pub admin: Option<WantedAdmin>,
    pub append_only: bool,
    pub max_backups: Option<i64>,
    pub secrets: BTreeMap<SecretColumn, WantedSecret>,
    /// When it is maintained; absent if the document does not say.
    pub maintenance: Option<WantedMaintenance>,
}

/// The credential that may delete, without its secrets.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the columns")]
pub struct WantedAdmin {
    pub url: Option<String>,
    pub username: Option<String>,
}

/// A secret.
#[derive(Clone, Debug)]
pub enum WantedSecret {
    /// The one that is there.
    Kept,
    /// What was found at this place.
    From(Source, Secret),
}

/// When a repository is maintained, and by whom.
#[derive(Clone, Debug)]
pub struct WantedMaintenance {
    /// The hostname of the runner.
    pub runner: Option<String>,
    /// One a kind.
    pub entries: Vec<Entry>,
    /// How much a forget may delete.
    pub limit: ForgetLimit,
}

/// What is said about the hosts that a selector means.
#[derive(Clone, Debug)]
pub struct Template {
    /// Which.
    pub selector: Selector,
    /// What.
    pub layer: Layer,
}

/// Hosts for which all that is given holds; all hosts if nothing is.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// They have all of these labels.
    pub labels: Labels,
    /// They use the repository of this name.
    pub repository: Option<String>,
}

impl Selector {
    /// Whether it means a host with these labels and this repository.
    pub fn means(&self, labels: &Labels, repository: Option<&str>) -> bool {
        covers(&self.labels, labels) && self.repository.as_deref().is_none_or(|name| Some(name) == repository)
    }
}

/// What one part of the document says about a host.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// Where it stands in the document, as a JSON pointer.
    pub pointer: String,
    /// Its settings, as far as they are named. Labels are those of a host's own entry; the repository is not among them.
    pub settings: Changes,
    /// Its source groups by name; absent if nothing is said about them.
    pub groups: Option<BTreeMap<String, SourceGroup>>,
    /// Its schedules by name; absent if nothing is said about them.
    pub schedules: Option<BTreeMap<String, Schedule>>,
}

/// A host's own entry.
#[derive(Clone, Debug)]
pub struct WantedHost {
    /// Its name.
    pub hostname: String,
    /// The name of its repository.
    pub repository: Option<String>,
    /// What is said about it.
    pub layer: Layer,
}

impl WantedHost {
    /// Its labels, if the document says them.
    pub fn labels(&self) -> Option<&Labels> {
        self.layer.settings.labels.as_ref().map(|Json(labels)| labels)
    }
}

impl WantedRepository {
    /// Its row, without secrets.
    pub(super) fn row(&self, id: Uuid, at: Timestamp) -> Repository {
        let admin = self.admin.as_ref();
        Repository {
            id,
            name: self.name.clone(),
            url: self.url.clone(),
            username: self.username.clone(),
            password: Vec::new(),
            credential: None,
            admin_url: admin.and_then(|admin| admin.url.clone()),
            admin_username: admin.and_then(|admin| admin.username.clone()),
            admin_password: None,
            admin_credential: None,
            has_admin: admin.is_some(),
            append_only: self.append_only,
            runner_host_id: None,
            forget_max_snapshots: None,
            forget_max_share: None,
            created_at: at,
            updated_at: at,
            max_backups: self.max_backups,
            secret_sources: Json::default(),
        }
    }
}
