//! Hosts: who they are, what their agents last said, and their settings.

use super::json::Json;
use super::schema::hosts;
use super::storable;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Hello, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A host, whole but for its token's hash.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = hosts)]
#[allow(missing_docs, reason = "the columns; the migration says what needs saying")]
pub struct Host {
    pub id: Uuid,
    pub hostname: String,
    pub os: String,
    pub arch: String,
    pub labels: Json<BTreeMap<String, String>>,
    pub repository_id: Option<Uuid>,
    pub agent_version: Option<String>,
    pub restic_version: Option<String>,
    pub protocol_version: Option<i64>,
    pub capabilities: Json<Vec<String>>,
    pub journal: Option<String>,
    pub boot_time: Option<Timestamp>,
    pub online: bool,
    pub last_seen_at: Option<Timestamp>,
    pub hook_shell: Option<String>,
    pub pre_hook: Option<String>,
    pub post_hook: Option<String>,
    pub bandwidth_up_kbps: Option<i64>,
    pub bandwidth_down_kbps: Option<i64>,
    pub schedule_version: i64,
    pub applied_schedule_version: Option<i64>,
    pub initialized_repository_id: Option<Uuid>,
    pub snapshots_as_of: Option<Timestamp>,
    pub created_at: Timestamp,
    pub decommissioned_at: Option<Timestamp>,
}

/// One host, decommissioned or not.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Host>> {
    hosts::table.find(id).select(Host::as_select()).first(connection).await.optional()
}

/// The host whose agent has the token with this hash.
///
/// # Errors
/// The database's.
pub async fn by_token(connection: &mut AsyncPgConnection, token_hash: &[u8]) -> QueryResult<Option<Uuid>> {
    hosts::table
        .filter(hosts::token_hash.eq(token_hash).and(hosts::decommissioned_at.is_null()))
        .select(hosts::id)
        .first(connection)
        .await
        .optional()
}

/// The hosts that were online when the coordinator last wrote it down, with when they were last heard of.
///
/// # Errors
/// The database's.
pub async fn online(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Uuid>> {
    hosts::table.filter(hosts::online).select(hosts::id).load(connection).await
}

/// Writes down what an agent said in its `hello` and that its host is online. The name it was enrolled with stays.
///
/// # Errors
/// The database's; [`diesel::result::Error::NotFound`] if the host is gone or decommissioned.
pub async fn greet(connection: &mut AsyncPgConnection, id: Uuid, hello: &Hello, now: Timestamp) -> QueryResult<Host> {
    diesel::update(hosts::table.find(id).filter(hosts::decommissioned_at.is_null()))
        .set((
            hosts::os.eq(storable(&hello.os.to_string())),
            hosts::arch.eq(storable(&hello.arch.to_string())),
            hosts::agent_version.eq(storable(&hello.agent_version)),
            hosts::restic_version.eq(storable(&hello.restic_version)),
            hosts::protocol_version.eq(hello.protocol_version),
            hosts::capabilities.eq(Json(hello.capabilities.clone())),
            hosts::journal.eq(hello.journal.as_ref().map(|journal| storable(journal.as_str()))),
            hosts::boot_time.eq(hello.boot_time),
            hosts::online.eq(true),
            hosts::last_seen_at.eq(now),
        ))
        .returning(Host::as_returning())
        .get_result(connection)
        .await
}
