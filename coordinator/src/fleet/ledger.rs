//! What there is, as far as documents are about it.

use super::wanted::Wanted;
use crate::db::hosts::Host;
use crate::db::maintenance::Entry;
use crate::db::repositories::{Repository, SecretColumn};
use crate::db::schedules::Schedule;
use crate::db::source_groups::SourceGroup;
use fleet_wire::Secret;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// All repositories, by name.
    pub repositories: Vec<KnownRepository>,
    /// All hosts in service, the oldest first.
    pub hosts: Vec<KnownHost>,
}

/// A repository.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownRepository {
    /// Its row.
    pub row: Repository,
    /// Its secrets, of those that open.
    pub secrets: BTreeMap<SecretColumn, Secret>,
    /// When it is maintained.
    pub entries: Vec<Entry>,
    /// Jobs that are not over work on it.
    pub busy: bool,
    /// Jobs have worked on it. Looked up for [`Ledger::deletable`] ones only.
    pub has_history: bool,
}

impl KnownRepository {
    /// Whether it has a secret in this column.
    pub(super) fn has(&self, column: SecretColumn) -> bool {
        match column {
            SecretColumn::Password => !self.row.password.is_empty(),
            SecretColumn::Credential => self.row.credential.is_some(),
            SecretColumn::AdminPassword => self.row.admin_password.is_some(),
            SecretColumn::AdminCredential => self.row.admin_credential.is_some(),
        }
    }
}

/// A host.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownHost {
    /// Its row.
    pub row: Host,
    /// Its source groups.
    pub groups: Vec<SourceGroup>,
    /// Its schedules, without deleted ones.
    pub schedules: Vec<Schedule>,
}

impl Ledger {
    /// The names of repositories, by their ids.
    pub(super) fn names(&self) -> HashMap<Uuid, &str> {
        self.repositories.iter().map(|known| (known.row.id, known.row.name.as_str())).collect()
    }

    /// The repositories that `wanted` does not name and no host uses: they can go, unless they have a history.
    pub fn deletable(&self, wanted: &Wanted) -> Vec<Uuid> {
        let Some(repositories) = &wanted.repositories else { return Vec::new() };
        let named: HashSet<&str> = repositories.iter().map(|repository| repository.name.as_str()).collect();
        let used: HashSet<Uuid> = self.hosts.iter().filter_map(|host| host.row.repository_id).collect();
        let can_go = |row: &Repository| !named.contains(row.name.as_str()) && !used.contains(&row.id);
        self.repositories.iter().map(|known| &known.row).filter(|row| can_go(row)).map(|row| row.id).collect()
    }
}
