//! What an agent is told about its host: one `config.update` a credential slot, then the schedules.

use super::schedule_set::schedule_set;
use crate::db::greetings::Greeting;
use crate::db::repositories::{Repository, SecretColumn};
use crate::vault::{UnsealError, Vault};
use fleet_wire::{Cap, ConfigField, ConfigUpdate, MaybeKnown, Secret, Slot, ToAgent};

/// The credentials of one slot, opened.
#[derive(Clone, Debug, Default, PartialEq)]
struct Credentials {
    url: Option<String>,
    password: Option<Secret>,
    username: Option<String>,
    credential: Option<Secret>,
}

impl Credentials {
    fn everyday(repository: &Repository, vault: &Vault) -> Result<Self, UnsealError> {
        Ok(Self {
            url: Some(repository.url.clone()),
            password: repository.secret(vault, SecretColumn::Password)?,
            username: repository.username.clone(),
            credential: repository.secret(vault, SecretColumn::Credential)?,
        })
    }

    /// The credential that may delete: the repository's own, filled up from the everyday one. Without one, an
    /// append-only repository has none, and any other takes the everyday one.
    fn admin(repository: &Repository, everyday: Self, vault: &Vault) -> Result<Option<Self>, UnsealError> {
        if !repository.has_admin {
            return Ok((!repository.append_only).then_some(everyday));
        }
        let username = repository.admin_username.clone();
        let credential = repository.secret(vault, SecretColumn::AdminCredential)?;
        // A user of its own does not go with the everyday user's password.
        let own_login = username.is_some() || credential.is_some();
        Ok(Some(Self {
            url: repository.admin_url.clone().or(everyday.url),
            password: repository.secret(vault, SecretColumn::AdminPassword)?.or(everyday.password),
            username: username.or(everyday.username),
            credential: if own_login { credential } else { everyday.credential },
        }))
    }

    /// The update that leaves an agent with exactly these credentials in `slot`.
    fn update(self, slot: Slot) -> ConfigUpdate {
        let absent = [
            (ConfigField::RepoUrl, self.url.is_none()),
            (ConfigField::RepoPassword, self.password.is_none()),
            (ConfigField::RepoUsername, self.username.is_none()),
            (ConfigField::RepoCredential, self.credential.is_none()),
        ];
        ConfigUpdate {
            repo_url: self.url,
            repo_password: self.password,
            repo_username: self.username,
            repo_credential: self.credential,
            slot: Some(slot),
            clear: absent
                .into_iter()
                .filter(|(_, absent)| *absent)
                .map(|(field, _)| MaybeKnown::Known(field))
                .collect(),
            ..ConfigUpdate::default()
        }
    }
}

/// The messages that follow a hello, in their order. An agent that understands `clear` (`ack`) is also told which
/// credentials it has no longer; of a host that is `paused` no schedule is on.
///
/// # Errors
/// A secret does not open with this coordinator's key.
pub(super) fn burst(greeting: &Greeting, vault: &Vault, ack: bool, paused: bool) -> Result<Vec<ToAgent>, UnsealError> {
    let Greeting { host, repository, schedules, groups } = greeting;
    let repository = repository.as_deref();
    let everyday = repository.map(|repository| Credentials::everyday(repository, vault)).transpose()?;
    let admin = match repository.zip(everyday.clone()) {
        Some((repository, everyday)) if repository.runner_host_id.is_none_or(|runner| runner == host.id) => {
            Credentials::admin(repository, everyday, vault)?
        }
        // The one that may delete goes to the runner only. An agent that can't be told to forget it gets another in its place.
        Some((_, everyday)) if !ack => Some(everyday),
        _ => None,
    };
    let mut messages = Vec::new();
    if admin.is_some() || ack {
        messages.push(admin.unwrap_or_default().update(Slot::Admin).into());
    }
    let mut update = everyday.unwrap_or_default().update(Slot::Repo);
    if host.hook_shell.is_none() {
        update.clear.push(MaybeKnown::Known(ConfigField::HookShell));
    }
    update.hook_shell.clone_from(&host.hook_shell);
    update.bandwidth_up_kbps = cap(host.bandwidth_up_kbps);
    update.bandwidth_down_kbps = cap(host.bandwidth_down_kbps);
    messages.push(update.into());
    messages.push(schedule_set(host, schedules, groups, paused).into());
    Ok(messages)
}

/// The host's cap as it must be set: none is said too, for the agent may have an older one.
fn cap(limit: Option<i64>) -> Cap {
    limit.map_or(Cap::Unlimited, Cap::present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;
    use uuid::Uuid;

    fn vault() -> Vault {
        Vault::with_key([9; 32])
    }

    fn repository(append_only: bool, admin: bool) -> Repository {
        let id = Uuid::from_u128(1);
        let seal =
            |column: SecretColumn, text: &str| vault().seal(column.place(id), text.as_bytes()).expect("random numbers");
        Repository {
            id,
            name: "r".to_owned(),
            url: "rest:http://backup:8000/r".to_owned(),
            username: Some("host".to_owned()),
            password: seal(SecretColumn::Password, "pw"),
            credential: Some(seal(SecretColumn::Credential, "login")),
            admin_url: admin.then(|| "rest:http://backup:8001/r".to_owned()),
            admin_username: admin.then(|| "boss".to_owned()),
            admin_password: None,
            admin_credential: admin.then(|| seal(SecretColumn::AdminCredential, "boss-login")),
            has_admin: admin,
            append_only,
            runner_host_id: None,
            forget_max_snapshots: None,
            forget_max_share: None,
            created_at: Utc::now(),
            updated_at: Utc::now(),
            max_backups: None,
            secret_sources: crate::db::json::Json::default(),
        }
    }

    #[test]
    fn the_admin_slot_is_the_repositorys_own_or_the_everyday_one_or_empty() {
        let admin = |repository: Repository| {
            let everyday = Credentials::everyday(&repository, &vault()).expect("opens");
            Credentials::admin(&repository, everyday, &vault()).expect("opens")
        };
        let own = admin(repository(true, true)).expect("there");
        assert_eq!(own.url.as_deref(), Some("rest:http://backup:8001/r"));
        assert_eq!(own.password, Some(Secret::new("pw")));
        assert_eq!((own.username.as_deref(), own.credential), (Some("boss"), Some(Secret::new("boss-login"))));
        let shared = admin(repository(false, false)).expect("there");
        assert_eq!(shared, Credentials::everyday(&repository(false, false), &vault()).expect("opens"));
        assert_eq!(admin(repository(true, false)), None);
    }

    #[test]
    fn another_key_opens_nothing() {
        let other = Vault::with_key([1; 32]);
        assert_eq!(Credentials::everyday(&repository(false, false), &other), Err(UnsealError));
    }

    #[test]
    fn what_a_slot_lacks_is_cleared_by_name() {
        let update = Credentials { url: Some("/srv/r".to_owned()), ..Credentials::default() }.update(Slot::Repo);
        let cleared = [ConfigField::RepoPassword, ConfigField::RepoUsername, ConfigField::RepoCredential];
        assert_eq!(update.clear, cleared.map(MaybeKnown::Known));
    }
}
