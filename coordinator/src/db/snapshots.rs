//! The snapshots of each host, as its agent last reported them.

use super::json::Json;
use super::schema::{hosts, snapshots};
use super::storable;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Snapshot, SnapshotsReport, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

/// restic's ids have 64 digits. Longer ones are no ids, and an index can't hold any length.
const LONGEST_ID: usize = 128;

/// A snapshot as it stands in its row.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
#[diesel(table_name = snapshots)]
#[allow(missing_docs, reason = "the columns; the names are the wire's")]
pub struct SnapshotRow {
    pub id: String,
    pub short_id: String,
    pub time: Option<Timestamp>,
    pub hostname: String,
    pub paths: Json<Vec<String>>,
    pub tags: Json<Vec<String>>,
    pub size_bytes: i64,
    pub file_count: i64,
}

/// The place of a snapshot in the list: its time, and its id.
pub type Position = (Option<Timestamp>, String);

/// At most `limit` snapshots of a host, newest first, from behind `after`. Those without a time come last.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    host_id: Uuid,
    after: Option<&Position>,
    limit: i64,
) -> QueryResult<Vec<SnapshotRow>> {
    let (time, id) = match after {
        Some((time, id)) => (*time, Some(id.as_str())),
        None => (None, None),
    };
    diesel::sql_query(
        "SELECT id, short_id, time, hostname, paths, tags, size_bytes, file_count FROM snapshots
         WHERE host_id = $1
           AND ($3 IS NULL OR (coalesce(time, '-infinity'), id) < (coalesce($2, '-infinity'), $3))
         ORDER BY coalesce(time, '-infinity') DESC, id DESC LIMIT $4",
    )
    .bind::<SqlUuid, _>(host_id)
    .bind::<Nullable<Timestamptz>, _>(time)
    .bind::<Nullable<Text>, _>(id)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await
}

/// Replaces the snapshots of a host by those of a report. One that was made before what is there changes nothing.
/// `received_at` stands for a report that does not say when it was made, or says a time to come.
///
/// # Errors
/// The database's.
pub async fn replace(
    connection: &mut AsyncPgConnection,
    host_id: Uuid,
    report: &SnapshotsReport,
    received_at: Timestamp,
) -> QueryResult<()> {
    let as_of = report.as_of.map_or(received_at, |as_of| as_of.min(received_at));
    let not_newer = hosts::snapshots_as_of.is_null().or(hosts::snapshots_as_of.le(as_of));
    let current = diesel::update(hosts::table.find(host_id).filter(not_newer)).set(hosts::snapshots_as_of.eq(as_of));
    if current.execute(connection).await? == 0 {
        return Ok(());
    }
    let rows = rows(report);
    let ids: Vec<&str> = rows.keys().map(String::as_str).collect();
    let gone = snapshots::host_id.eq(host_id).and(snapshots::id.ne_all(&ids));
    diesel::delete(snapshots::table.filter(gone)).execute(connection).await?;
    upsert(connection, host_id, &rows).await
}

/// The snapshots of a report by id; the last of an id counts.
fn rows(report: &SnapshotsReport) -> BTreeMap<String, &Snapshot> {
    let (good, bad): (Vec<_>, Vec<_>) =
        report.snapshots.iter().partition(|snapshot| (1..=LONGEST_ID).contains(&snapshot.id.len()));
    if !bad.is_empty() {
        log::warn!(snapshots = bad.len(); "a report holds snapshots whose ids are none; they are left out");
    }
    good.into_iter().map(|snapshot| (storable(&snapshot.id), snapshot)).collect()
}

/// Writes the rows that are new or differ.
async fn upsert(
    connection: &mut AsyncPgConnection,
    host_id: Uuid,
    rows: &BTreeMap<String, &Snapshot>,
) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(rows: &BTreeMap<String, &'a Snapshot>, field: impl Fn(&'a Snapshot) -> T) -> Vec<T> {
        rows.values().map(|snapshot| field(snapshot)).collect()
    }
    let ids: Vec<&str> = rows.keys().map(String::as_str).collect();
    diesel::sql_query(
        "INSERT INTO snapshots (host_id, id, short_id, time, hostname, paths, tags, size_bytes, file_count)
         SELECT $1, news.* FROM unnest($2, $3, $4, $5, $6, $7, $8, $9) AS news
         ON CONFLICT (host_id, id) DO UPDATE SET short_id = excluded.short_id, time = excluded.time,
             hostname = excluded.hostname, paths = excluded.paths, tags = excluded.tags,
             size_bytes = excluded.size_bytes, file_count = excluded.file_count
         WHERE snapshots IS DISTINCT FROM excluded",
    )
    .bind::<SqlUuid, _>(host_id)
    .bind::<Array<Text>, _>(ids)
    .bind::<Array<Text>, _>(column(rows, |snapshot| storable(&snapshot.short_id)))
    .bind::<Array<Nullable<Timestamptz>>, _>(column(rows, |snapshot| snapshot.time))
    .bind::<Array<Text>, _>(column(rows, |snapshot| storable(&snapshot.hostname)))
    .bind::<Array<Jsonb>, _>(column(rows, |snapshot| Json(snapshot.paths.clone())))
    .bind::<Array<Jsonb>, _>(column(rows, |snapshot| Json(snapshot.tags.clone())))
    .bind::<Array<BigInt>, _>(column(rows, |snapshot| snapshot.size_bytes.unwrap_or(0).max(0)))
    .bind::<Array<BigInt>, _>(column(rows, |snapshot| snapshot.file_count.unwrap_or(0).max(0)))
    .execute(connection)
    .await?;
    Ok(())
}
