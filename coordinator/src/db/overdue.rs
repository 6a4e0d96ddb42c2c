//! What has not succeeded within its time: backups of source groups, and maintenance of repositories.

use super::reach::Reach;
use super::schema::{maintenance, source_groups};
use super::statement::statement;
use diesel::QueryResult;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// One thing that is overdue.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
pub struct Overdue {
    /// What was to be done.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// Of a backup.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub host_id: Option<Uuid>,
    /// Of a backup.
    #[diesel(sql_type = Nullable<Text>)]
    pub source_group: Option<String>,
    /// Of maintenance.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub repository_id: Option<Uuid>,
    /// Within how long of the last time it must succeed.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub within_seconds: Option<i64>,
    /// When it did.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_success_at: Option<Timestamp>,
    /// Since when it is overdue.
    #[diesel(sql_type = Timestamptz)]
    pub overdue_at: Timestamp,
}

/// Where something stands in the list: since when it is overdue, of what, its name.
pub type Place = (Timestamp, Uuid, String);

impl Overdue {
    /// Its place in the list.
    pub fn place(&self) -> Place {
        let name = self.source_group.as_ref().unwrap_or(&self.kind).clone();
        (self.overdue_at, self.host_id.or(self.repository_id).unwrap_or_default(), name)
    }
}

/// How many backups, and how many times maintenance, are overdue at `now`.
///
/// # Errors
/// The database's.
pub async fn count(connection: &mut AsyncPgConnection, now: Timestamp) -> QueryResult<(i64, i64)> {
    let groups = source_groups::table.filter(source_groups::overdue_at.le(now)).count().get_result(connection).await?;
    let of_repositories = maintenance::table.filter(maintenance::overdue_at.le(now)).count();
    Ok((groups, of_repositories.get_result(connection).await?))
}

/// At most `limit` of what is overdue at `now`, the longest first, from behind `after`; with `seen`, of what is seen.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
    seen: Option<&Reach>,
    after: Option<&Place>,
    limit: i64,
) -> QueryResult<Vec<Overdue>> {
    let first = (Timestamp::UNIX_EPOCH, Uuid::nil(), String::new());
    let (overdue_at, id, name) = after.unwrap_or(&first);
    // Each part comes from its index, and is as long as the page at most.
    let query = statement(
        "WITH page AS (SELECT $1 AS now, $2 AS overdue_at, $3 AS id, $4 AS name, $5 AS rows, $6 AS hosts, $7 AS repositories)
         SELECT found.* FROM page CROSS JOIN LATERAL (
             (SELECT 'backup' AS kind, host_id, name AS source_group, NULL::uuid AS repository_id,
                 success_within_seconds AS within_seconds, last_success_at, groups.overdue_at, host_id AS id, groups.name
             FROM source_groups groups WHERE groups.overdue_at IS NOT NULL AND groups.overdue_at <= page.now
                 AND (groups.overdue_at, host_id, groups.name) > (page.overdue_at, page.id, page.name)
                 AND (page.hosts IS NULL OR host_id = ANY (page.hosts))
             ORDER BY groups.overdue_at, host_id, groups.name LIMIT page.rows)
             UNION ALL
             (SELECT kind, NULL, NULL, repository_id, 2 * interval_seconds, last_success_at, due.overdue_at,
                 repository_id, kind
             FROM maintenance due WHERE due.overdue_at IS NOT NULL AND due.overdue_at <= page.now
                 AND (due.overdue_at, repository_id, kind) > (page.overdue_at, page.id, page.name)
                 AND (page.repositories IS NULL OR repository_id = ANY (page.repositories))
             ORDER BY due.overdue_at, repository_id, kind LIMIT page.rows)
             ORDER BY overdue_at, id, name LIMIT page.rows
         ) AS found ORDER BY overdue_at, id, name",
    );
    query
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(*overdue_at)
        .bind::<SqlUuid, _>(*id)
        .bind::<Text, _>(name.clone())
        .bind::<BigInt, _>(limit)
        .bind::<Nullable<Array<SqlUuid>>, _>(seen.map(|seen| seen.hosts.clone()))
        .bind::<Nullable<Array<SqlUuid>>, _>(seen.map(|seen| seen.repositories.clone()))
        .load(connection)
        .await
}
