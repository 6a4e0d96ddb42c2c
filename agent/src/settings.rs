//! What the coordinator has told this host: credentials, limits, schedules.
//!
//! One file, `settings.json`, replaced as a whole. The functions that change settings are pure; [`Settings::store`]
//! puts them on disk.

use crate::credentials::Credentials;
use crate::files::{self, FileError};
use fleet_wire::{CommandRun, ConfigField, ConfigUpdate, MaybeKnown, Schedule, ScheduleSet, Secret, Slot};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const REMEDY: &str = "delete it: the coordinator sends everything again at the next connect";

/// The contents of `settings.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The everyday credential.
    #[serde(default, with = "StoredCredentials")]
    pub repo: Credentials,
    /// The credential that may delete.
    #[serde(default, with = "StoredCredentials")]
    pub admin: Credentials,
    /// The program that runs hooks.
    #[serde(default)]
    pub hook_shell: Option<String>,
    /// The host's upload limit, KiB a second.
    #[serde(default)]
    pub upload_kib: Option<i64>,
    /// The host's download limit, KiB a second.
    #[serde(default)]
    pub download_kib: Option<i64>,
    /// The version of `schedules`.
    #[serde(default)]
    pub schedule_version: i64,
    /// The host's schedules, all of them.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
}

/// How [`Credentials`] stand in the file.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Credentials")]
struct StoredCredentials {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    credential: Option<Secret>,
}

impl Settings {
    /// The file in the data folder.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("settings.json")
    }

    /// Reads them; empty ones if the host was never told anything.
    ///
    /// # Errors
    /// The file is unreadable or damaged.
    pub fn load(data_dir: &Path) -> Result<Self, FileError> {
        Ok(files::read_json(&Self::path(data_dir), REMEDY)?.unwrap_or_default())
    }

    /// Puts them on disk, readable by their owner only.
    ///
    /// # Errors
    /// The file can't be written; the old one is then as it was.
    pub fn store(&self, data_dir: &Path) -> Result<(), FileError> {
        files::write_json(&Self::path(data_dir), self)
    }

    /// The settings after `update`: what it clears is forgotten first, then what it has replaces what was there.
    #[must_use]
    pub fn updated(mut self, update: ConfigUpdate) -> Self {
        let slot = update.target();
        for field in update.clear.iter().filter_map(MaybeKnown::known) {
            self.clear(slot, field);
        }
        let credentials = self.slot_mut(slot);
        replace(&mut credentials.url, update.repo_url);
        replace(&mut credentials.password, update.repo_password);
        replace(&mut credentials.username, update.repo_username);
        replace(&mut credentials.credential, update.repo_credential);
        replace(&mut self.hook_shell, update.hook_shell);
        self.upload_kib = update.bandwidth_up_kbps.over(self.upload_kib);
        self.download_kib = update.bandwidth_down_kbps.over(self.download_kib);
        self
    }

    /// The settings with the schedules of `set`, which is always the whole list.
    #[must_use]
    pub fn scheduled(mut self, set: ScheduleSet) -> Self {
        self.schedule_version = set.version;
        self.schedules = set.schedules;
        self
    }

    /// The credentials that `run` may use: the admin slot if and only if it requires it.
    pub fn credentials_for(&self, run: &CommandRun) -> &Credentials {
        if run.requires_admin_creds { &self.admin } else { &self.repo }
    }

    /// What names the host's repository. Both slots lead to the same one, perhaps through different addresses, so
    /// the everyday address names it whichever slot a job uses.
    pub fn repository(&self) -> Option<&str> {
        self.repo.url.as_deref().or(self.admin.url.as_deref())
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut Credentials {
        match slot {
            Slot::Repo => &mut self.repo,
            Slot::Admin => &mut self.admin,
        }
    }

    fn clear(&mut self, slot: Slot, field: ConfigField) {
        let credentials = self.slot_mut(slot);
        match field {
            ConfigField::RepoUrl => credentials.url = None,
            ConfigField::RepoPassword => credentials.password = None,
            ConfigField::RepoUsername => credentials.username = None,
            ConfigField::RepoCredential => credentials.credential = None,
            ConfigField::HookShell => self.hook_shell = None,
        }
    }
}

fn replace<T>(place: &mut Option<T>, news: Option<T>) {
    if news.is_some() {
        *place = news;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::Cap;

    fn full() -> Settings {
        let update = ConfigUpdate {
            repo_url: Some("rest:http://backup:8000/h1".into()),
            repo_password: Some(Secret::new("sesame")),
            repo_username: Some("h1".into()),
            repo_credential: Some(Secret::new("credential")),
            hook_shell: Some("/bin/bash".into()),
            bandwidth_up_kbps: Cap::KibPerSecond(100),
            bandwidth_down_kbps: Cap::KibPerSecond(200),
            ..ConfigUpdate::default()
        };
        Settings::default().updated(update)
    }

    #[test]
    fn an_empty_update_changes_nothing() {
        assert_eq!(full().updated(ConfigUpdate::default()), full());
    }

    #[test]
    fn a_slot_is_changed_without_the_other() {
        let update =
            ConfigUpdate { repo_username: Some("root".into()), slot: Some(Slot::Admin), ..ConfigUpdate::default() };
        let settings = full().updated(update);
        assert_eq!(settings.repo, full().repo);
        assert_eq!(settings.admin, Credentials { username: Some("root".into()), ..Credentials::default() });
    }

    #[test]
    fn a_cap_of_zero_removes_the_limit() {
        let settings = full().updated(ConfigUpdate { bandwidth_up_kbps: Cap::Unlimited, ..ConfigUpdate::default() });
        assert_eq!((settings.upload_kib, settings.download_kib), (None, Some(200)));
    }

    #[test]
    fn cleared_fields_are_forgotten_before_new_values_are_taken() {
        let clear = [ConfigField::RepoUsername, ConfigField::RepoPassword, ConfigField::HookShell];
        let update = ConfigUpdate {
            repo_password: Some(Secret::new("new")),
            clear: clear.map(MaybeKnown::Known).into(),
            ..ConfigUpdate::default()
        };
        let settings = full().updated(update);
        assert_eq!((settings.repo.username, settings.hook_shell), (None, None));
        assert_eq!(settings.repo.password, Some(Secret::new("new")));
        assert!(settings.repo.credential.is_some());
    }

    #[test]
    fn the_file_gives_back_what_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Settings::load(dir.path()).unwrap(), Settings::default());
        let set: ScheduleSet = serde_json::from_str(
            r#"{"version":7,"schedules":[{"id":"s","cron_expr":"0 2 * * *","enabled":true,
                "source_groups":[{"name":"etc","includes":["/etc"],"retention_policy":{"keep_last": 3}}]}]}"#,
        )
        .unwrap();
        let settings = full().scheduled(set);
        settings.store(dir.path()).unwrap();
        assert_eq!(Settings::load(dir.path()).unwrap(), settings);
        assert_eq!(settings.schedule_version, 7);
    }

    #[test]
    fn a_damaged_file_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(Settings::path(dir.path()), "{").unwrap();
        let message = Settings::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("settings.json") && message.contains("delete it"), "{message}");
    }
}
