//! What a session writes and reads about its host.

use crate::db::greetings::{self, Greeting};
use crate::db::{Database, DatabaseError, hosts, snapshots, stats};
use crate::persistence::Write;
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use fleet_wire::{RepoStats, ScheduleAck, SnapshotsReport, Timestamp};
use std::sync::Arc;
use uuid::Uuid;

/// Reads a host again, after its settings have changed; `None` if it is gone or decommissioned.
pub(super) async fn read(database: &Database, host_id: Uuid) -> Result<Option<Arc<Greeting>>, DatabaseError> {
    let mut found = database.read(async |reader| greetings::read_many(reader, &[host_id]).await).await?;
    Ok(found.remove(&host_id))
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
