//! What a session writes and reads about its host.

use crate::db::hosts::Host;
use crate::db::repositories::Repository;
use crate::db::{Database, DatabaseError, hosts, repositories, snapshots, stats};
use crate::persistence::Write;
use chrono::Utc;
use diesel::{OptionalExtension, QueryResult};
use diesel_async::AsyncPgConnection;
use fleet_wire::{Hello, RepoStats, ScheduleAck, SnapshotsReport, Timestamp};
use uuid::Uuid;

/// Writes down a hello and reads what the agent must be told.
pub(super) struct Greet {
    pub(super) host_id: Uuid,
    pub(super) hello: Hello,
}

/// A host as its session needs it.
pub(super) struct Greeting {
    pub(super) host: Host,
    pub(super) repository: Option<Repository>,
}

impl Greeting {
    /// The repository that the host has yet to initialise.
    pub(super) fn init(&self) -> Option<Uuid> {
        self.host.repository_id.filter(|id| self.host.initialized_repository_id != Some(*id))
    }
}

impl Write for Greet {
    /// `None` if the host is gone or decommissioned.
    type Output = Option<Greeting>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let host = hosts::greet(connection, self.host_id, &self.hello, Utc::now()).await.optional()?;
        greeting(connection, host).await
    }
}

/// Reads a host again, after its settings have changed; `None` if it is gone or decommissioned.
pub(super) async fn read(database: &Database, host_id: Uuid) -> Result<Option<Greeting>, DatabaseError> {
    let read = database.read(async |reader| {
        let host = hosts::find(reader, host_id).await?;
        greeting(reader, host).await
    });
    read.await
}

async fn greeting(connection: &mut AsyncPgConnection, host: Option<Host>) -> QueryResult<Option<Greeting>> {
    let Some(host) = host.filter(|host| host.decommissioned_at.is_none()) else { return Ok(None) };
    let repository = match host.repository_id {
        Some(id) => repositories::find(connection, id).await?,
        None => None,
    };
    Ok(Some(Greeting { host, repository }))
}

/// Replaces the host's snapshots.
pub(super) struct SaveSnapshots {
    pub(super) host_id: Uuid,
    pub(super) report: SnapshotsReport,
    pub(super) received_at: Timestamp,
}

impl Write for SaveSnapshots {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        snapshots::replace(connection, self.host_id, &self.report, self.received_at).await
    }
}

/// Merges news of the host's repository.
pub(super) struct SaveStats {
    pub(super) host_id: Uuid,
    pub(super) stats: RepoStats,
    pub(super) received_at: Timestamp,
}

impl Write for SaveStats {
    /// False if the host has no repository.
    type Output = bool;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<bool> {
        let repository_id = hosts::find(connection, self.host_id).await?.and_then(|host| host.repository_id);
        let Some(repository_id) = repository_id else { return Ok(false) };
        stats::merge(connection, repository_id, self.host_id, &self.stats, self.received_at).await?;
        Ok(true)
    }
}

/// Notes which schedules the agent has.
pub(super) struct SaveScheduleAck {
    pub(super) host_id: Uuid,
    pub(super) ack: ScheduleAck,
}

impl Write for SaveScheduleAck {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        hosts::schedule_applied(connection, self.host_id, self.ack.version).await
    }
}
