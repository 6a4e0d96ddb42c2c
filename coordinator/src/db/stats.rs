//! What is known of each repository, field by field: several hosts report on one, and none reports everything.

use super::json::Json;
use super::schema::repository_stats;
use super::storable;
use diesel::prelude::*;
use diesel::sql_types::{Array, Jsonb, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{RepoStats, Timestamp};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// The fields of `repo.stats`, in the order of the contract.
pub const FIELDS: [&str; 9] = [
    "total_size_bytes",
    "raw_size_bytes",
    "unique_files",
    "snapshot_count",
    "last_check_at",
    "last_check_status",
    "lock_present",
    "last_prune_at",
    "last_prune_freed_bytes",
];

/// The newest value of one field.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
#[diesel(table_name = repository_stats)]
pub struct Stat {
    /// One of [`FIELDS`].
    pub field: String,
    /// Its value, as on the wire.
    pub value: Json<Value>,
    /// When it was measured.
    pub as_of: Timestamp,
}

/// The newest value of each field of a repository that any host has reported.
///
/// # Errors
/// The database's.
pub async fn newest(connection: &mut AsyncPgConnection, repository_id: Uuid) -> QueryResult<Vec<Stat>> {
    diesel::sql_query(
        "SELECT DISTINCT ON (field) field, value, as_of FROM repository_stats WHERE repository_id = $1
         ORDER BY field, as_of DESC, host_id",
    )
    .bind::<SqlUuid, _>(repository_id)
    .load(connection)
    .await
}

/// The newest value of one field of each of these repositories.
///
/// # Errors
/// The database's.
pub async fn newest_of(
    connection: &mut AsyncPgConnection,
    repositories: &[Uuid],
    field: &str,
) -> QueryResult<HashMap<Uuid, Value>> {
    let rows: Vec<(Uuid, Json<Value>)> = repository_stats::table
        .filter(repository_stats::repository_id.eq_any(repositories).and(repository_stats::field.eq(field)))
        .distinct_on(repository_stats::repository_id)
        .order((repository_stats::repository_id, repository_stats::as_of.desc(), repository_stats::host_id))
        .select((repository_stats::repository_id, repository_stats::value))
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(|(id, Json(value))| (id, value)).collect())
}

/// The fields that a report has news of.
fn news(stats: &RepoStats) -> Vec<(&'static str, Value)> {
    let time = |time: Option<Timestamp>| time.map(|time| serde_json::json!(time));
    let values: [Option<Value>; 9] = [
        stats.total_size_bytes.map(Value::from),
        stats.raw_size_bytes.map(Value::from),
        stats.unique_files.map(Value::from),
        stats.snapshot_count.map(Value::from),
        time(stats.last_check_at),
        stats.last_check_status.as_deref().map(|status| Value::from(storable(status))),
        stats.lock_present.map(Value::from),
        time(stats.last_prune_at),
        stats.last_prune_freed_bytes.map(Value::from),
    ];
    FIELDS.into_iter().zip(values).filter_map(|(field, value)| Some((field, value?))).collect()
}

/// Takes over what a host reports of a repository. A field that was measured before what is there stays as it is.
/// `received_at` stands for a report that does not say when it was measured, or says a time to come.
///
/// # Errors
/// The database's; a repository or host that is gone violates a foreign key.
pub async fn merge(
    connection: &mut AsyncPgConnection,
    repository_id: Uuid,
    host_id: Uuid,
    stats: &RepoStats,
    received_at: Timestamp,
) -> QueryResult<()> {
    let (fields, values): (Vec<_>, Vec<_>) = news(stats).into_iter().map(|(field, value)| (field, Json(value))).unzip();
    if fields.is_empty() {
        return Ok(());
    }
    let as_of = stats.as_of.map_or(received_at, |as_of| as_of.min(received_at));
    diesel::sql_query(
        "INSERT INTO repository_stats (repository_id, host_id, field, value, as_of)
         SELECT $1, $2, news.field, news.value, $5 FROM unnest($3, $4) AS news (field, value)
         ON CONFLICT (repository_id, host_id, field) DO UPDATE SET value = excluded.value, as_of = excluded.as_of
         WHERE repository_stats.as_of <= excluded.as_of",
    )
    .bind::<SqlUuid, _>(repository_id)
    .bind::<SqlUuid, _>(host_id)
    .bind::<Array<Text>, _>(fields)
    .bind::<Array<Jsonb>, _>(values)
    .bind::<Timestamptz, _>(as_of)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_present_zero_is_news_and_an_absent_field_is_not() {
        let stats = RepoStats { snapshot_count: Some(0), lock_present: Some(false), ..RepoStats::default() };
        assert_eq!(news(&stats), [("snapshot_count", Value::from(0)), ("lock_present", Value::from(false))]);
        assert_eq!(news(&RepoStats::default()), []);
    }
}
