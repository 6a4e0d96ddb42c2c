//! Signs of life, written for many hosts at once.

use super::statement::statement;
use diesel::QueryResult;
use diesel::sql_types::{Array, Bool, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// When a host was last heard of, and whether that counts as online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The host.
    pub host_id: Uuid,
    /// The coordinator's clock when it was last heard of.
    pub last_seen_at: Timestamp,
    /// What it is now.
    pub online: bool,
}

/// Writes the latest of each host.
///
/// # Errors
/// The database's.
pub async fn update_many<'a>(
    mut connection: &AsyncPgConnection,
    hosts: impl IntoIterator<Item = &'a Presence>,
) -> QueryResult<()> {
    let hosts: Vec<&Presence> = hosts.into_iter().collect();
    if hosts.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = hosts.iter().map(|host| host.host_id).collect();
    let seen: Vec<Timestamp> = hosts.iter().map(|host| host.last_seen_at).collect();
    let online: Vec<bool> = hosts.iter().map(|host| host.online).collect();
    statement(
        "UPDATE hosts SET last_seen_at = news.last_seen_at, online = news.online
         FROM unnest($1, $2, $3) AS news (id, last_seen_at, online) WHERE hosts.id = news.id",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<Timestamptz>, _>(seen)
    .bind::<Array<Bool>, _>(online)
    .execute(&mut connection)
    .await?;
    Ok(())
}
