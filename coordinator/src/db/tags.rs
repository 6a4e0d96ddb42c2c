//! The tags by which REST clients know a state of what can be changed: an `ETag` is a hash of what its settings are. What
//! changes by itself (when a host was last seen) is not in it, or nobody could ever say what they have seen.

use super::agent_release;
use super::hosts::{self, Host};
use super::maintenance::{self, Entry};
use super::pauses::{self, Target};
use super::repositories::{self, Repository};
use super::schedules::{self, Schedule};
use super::source_groups::{self, SourceGroup};
use super::tokens::{self, ApiToken};
use crate::pauses::Pause;
use crate::release::Release;
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt;
use uuid::Uuid;

/// How many bytes of a hash a tag has.
const LENGTH: usize = 16;

/// See the module's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; LENGTH]);

impl Tag {
    fn of(settings: &Value) -> Self {
        let hash = Sha256::digest(settings.to_string());
        let mut tag = [0; LENGTH];
        tag.copy_from_slice(&hash[..LENGTH]);
        Self(tag)
    }
}

/// Hexadecimal, as it stands between the quotes of an `ETag`.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What has a tag.
pub trait Tagged {
    /// The tag of this state.
    fn tag(&self) -> Tag;
}

impl Tagged for Host {
    fn tag(&self) -> Tag {
        Tag::of(&json!([
            self.id,
            self.labels.0,
            self.repository_id,
            self.hook_shell,
            self.pre_hook,
            self.post_hook,
            self.bandwidth_up_kbps,
            self.bandwidth_down_kbps,
            self.decommissioned_at,
        ]))
    }
}

impl Tagged for Repository {
    fn tag(&self) -> Tag {
        // Sealed anew with each change, so that a secret that was set again is another.
        let secrets = [Some(&self.password), self.credential.as_ref(), self.admin_password.as_ref()];
        Tag::of(&json!([
            self.id,
            self.name,
            self.url,
            self.username,
            secrets,
            self.admin_credential,
            self.admin_url,
            self.admin_username,
            self.has_admin,
            self.append_only,
            self.max_backups,
        ]))
    }
}

impl Tagged for SourceGroup {
    fn tag(&self) -> Tag {
        Tag::of(&json!([
            self.host_id,
            self.name,
            self.includes.0,
            self.excludes.0,
            self.retention.as_ref().map(|retention| &retention.0),
            self.retry_max,
            self.retry_backoff_seconds,
            self.pre_hook,
            self.post_hook,
            self.rpo_seconds,
            self.created_at,
        ]))
    }
}

impl Tagged for Schedule {
    fn tag(&self) -> Tag {
        Tag::of(&json!([
            self.id,
            self.name,
            self.cron,
            self.timezone,
            self.enabled,
            self.source_groups.0,
            self.catch_up_seconds,
            self.bandwidth_up_kbps,
            self.bandwidth_down_kbps,
        ]))
    }
}

/// Maintenance: what is due when, and what its repository says of it.
impl Tagged for (&Repository, &[Entry]) {
    fn tag(&self) -> Tag {
        let (repository, entries) = self;
        let entry = |entry: &Entry| json!([entry.kind, entry.cron, entry.timezone, entry.enabled, entry.subset]);
        let rules = json!([repository.runner_host_id, repository.forget_max_snapshots, repository.forget_max_share]);
        Tag::of(&json!([repository.id, rules, entries.iter().map(entry).collect::<Vec<_>>()]))
    }
}

impl Tagged for Pause {
    fn tag(&self) -> Tag {
        Tag::of(&json!([self.reason, self.by, self.since]))
    }
}

impl Tagged for ApiToken {
    fn tag(&self) -> Tag {
        Tag::of(&json!([self.id, self.expires_at, self.revoked_at]))
    }
}

impl Tagged for Release {
    fn tag(&self) -> Tag {
        Tag::of(&json!([self.latest_version, self.package_url, self.changelog]))
    }
}

/// What a request wants to change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Thing {
    Host(Uuid),
    Repository(Uuid),
    SourceGroup(Uuid, String),
    Schedule(Uuid, Uuid),
    Maintenance(Uuid),
    Pause(Target),
    Token(Uuid),
    AgentRelease,
}

impl Thing {
    /// Its tag as it is now; nothing if it is not there.
    ///
    /// # Errors
    /// The database's.
    pub async fn tag(&self, connection: &mut AsyncPgConnection) -> QueryResult<Option<Tag>> {
        Ok(match self {
            Self::Host(id) => {
                let host = hosts::find(connection, *id).await?;
                host.filter(|host| host.decommissioned_at.is_none()).map(|host| host.tag())
            }
            Self::Repository(id) => repositories::find(connection, *id).await?.map(|row| row.tag()),
            Self::SourceGroup(host_id, name) => {
                source_groups::find(connection, *host_id, name).await?.map(|row| row.tag())
            }
            Self::Schedule(host_id, id) => schedules::find(connection, *host_id, *id).await?.map(|row| row.tag()),
            Self::Maintenance(id) => match repositories::find(connection, *id).await? {
                Some(repository) => {
                    let entries = maintenance::of_repositories(connection, &[*id]).await?;
                    Some((&repository, &entries[..]).tag())
                }
                None => None,
            },
            Self::Pause(target) => pauses::of(connection, *target).await?.map(|pause| pause.tag()),
            Self::AgentRelease => agent_release::find(connection).await?.map(|release| release.tag()),
            Self::Token(id) => tokens::find(connection, *id).await?.map(|row| row.tag()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::Timestamp;

    #[test]
    fn a_tag_is_of_the_settings_alone() {
        let host = Host::sample(Uuid::from_u128(1));
        let seen = Host { online: !host.online, last_seen_at: Some(Timestamp::MAX_UTC), ..host.clone() };
        assert_eq!(host.tag(), seen.tag());
        assert_ne!(host.tag(), Host { pre_hook: Some("x".to_owned()), ..host.clone() }.tag());
        let repository = Repository::sample(Uuid::from_u128(1));
        assert_ne!(repository.tag(), Repository { password: vec![1], ..repository.clone() }.tag());
        assert_eq!(repository.tag().to_string().len(), 2 * LENGTH);
    }
}
