//! The outbox: what is to be told, and on its way to whom.

use super::json::Json;
use super::statement::statement;
use crate::notify::Notice;
use diesel::QueryResult;
use diesel::sql_types::{Array, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// A time as REST shows it.
macro_rules! utc {
    ($time:literal) => {
        concat!("to_char(", $time, " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    };
}

/// Writes notices for the channels that want them; one that is there already is left as it is. It goes by what the same
/// transaction has written before: of a job that has not ended as the notice says, nothing is told.
///
/// # Errors
/// The database's.
pub async fn write(mut connection: &AsyncPgConnection, notices: &[Notice]) -> QueryResult<()> {
    if notices.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(notices: &'a [Notice], field: impl Fn(&'a Notice) -> T) -> Vec<T> {
        notices.iter().map(field).collect()
    }
    let query = statement(concat!(
        "WITH told AS (
             SELECT news.id, news.event, news.at, channels.id AS channel_id, jsonb_strip_nulls(news.data
                 || jsonb_build_object(
                     'job', CASE WHEN jobs.id IS NOT NULL THEN jsonb_build_object(
                         'id', jobs.id, 'kind', jobs.kind, 'status', jobs.status, 'partial', jobs.partial,
                         'origin', jobs.origin, 'source_group', jobs.source_group, 'attempt', jobs.attempt,
                         'schedule_id', jobs.schedule_id, 'operation_id', jobs.operation_id,
                         'exit_code', jobs.exit_code, 'error', left(jobs.error, 4096),
                         'started_at', ",
        utc!("jobs.started_at"),
        ", 'ended_at', ",
        utc!("jobs.ended_at"),
        ", 'retry_at', ",
        utc!("runs.retry_at"),
        ") END,
                     'host', CASE WHEN hosts.id IS NOT NULL THEN jsonb_build_object(
                         'id', hosts.id, 'hostname', hosts.hostname, 'labels', hosts.labels) END,
                     'repository', CASE WHEN repositories.id IS NOT NULL THEN jsonb_build_object(
                         'id', repositories.id, 'name', repositories.name) END)) AS data
             FROM unnest($1, $2, $3, $4, $5, $6, $7) AS news (id, event, at, host_id, repository_id, job_id, data)
             LEFT JOIN jobs ON jobs.id = news.job_id
             LEFT JOIN runs ON runs.id = jobs.run_id AND runs.job_id = jobs.id AND runs.outcome = 'retrying'
             LEFT JOIN hosts ON hosts.id = news.host_id
             LEFT JOIN repositories ON repositories.id = coalesce(news.repository_id, hosts.repository_id)
             JOIN channels ON channels.enabled AND (channels.events IS NULL OR channels.events ? news.event)
                 AND (channels.repository_id IS NULL OR channels.repository_id = repositories.id)
                 AND (channels.host_labels IS NULL OR hosts.labels @> channels.host_labels
                     OR (hosts.id IS NULL AND (SELECT its.id FROM hosts its WHERE its.repository_id = repositories.id
                         AND its.decommissioned_at IS NULL AND its.labels @> channels.host_labels LIMIT 1) IS NOT NULL))
             WHERE news.job_id IS NULL OR CASE news.event
                 WHEN 'job.partial' THEN jobs.outcome = 'succeeded' AND jobs.partial ELSE jobs.outcome = 'failed' END
         ), made AS (
             INSERT INTO notices (id, event, at, data)
             SELECT DISTINCT ON (id) id, event, at, data FROM told ON CONFLICT (id) DO NOTHING
         )
         INSERT INTO deliveries (id, channel_id, notice_id, status, created_at, tried_from, next_attempt_at)
         SELECT gen_random_uuid(), channel_id, id, 'pending', at, at, at FROM told
         ON CONFLICT (channel_id, notice_id) DO NOTHING"
    ));
    query
        .bind::<Array<SqlUuid>, _>(column(notices, |notice| notice.id))
        .bind::<Array<Text>, _>(column(notices, |notice| notice.event.as_str()))
        .bind::<Array<Timestamptz>, _>(column(notices, |notice| notice.at))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(notices, |notice| notice.host_id))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(notices, |notice| notice.repository_id))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(notices, |notice| notice.job_id))
        .bind::<Array<Jsonb>, _>(column(notices, |notice| Json(notice.data.clone())))
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// Writes a notice for one channel, whatever that wants, to see whether it arrives.
///
/// # Errors
/// The database's; a channel that is gone violates a foreign key.
pub async fn write_test(
    mut connection: &AsyncPgConnection,
    channel_id: Uuid,
    delivery_id: Uuid,
    at: Timestamp,
) -> QueryResult<()> {
    let query = statement(
        "WITH test AS (SELECT $1 AS delivery_id, $2 AS channel_id, $3 AS at), made AS (
             INSERT INTO notices (id, event, at, data)
             SELECT delivery_id, 'test', at, jsonb_build_object('channel', jsonb_build_object(
                 'id', channels.id, 'name', channels.name)) FROM test JOIN channels ON channels.id = test.channel_id
             ON CONFLICT (id) DO NOTHING
         )
         INSERT INTO deliveries (id, channel_id, notice_id, status, created_at, tried_from, next_attempt_at)
         SELECT delivery_id, channel_id, delivery_id, 'pending', at, at, at FROM test ON CONFLICT DO NOTHING",
    );
    query
        .bind::<SqlUuid, _>(delivery_id)
        .bind::<SqlUuid, _>(channel_id)
        .bind::<Timestamptz, _>(at)
        .execute(&mut connection)
        .await?;
    Ok(())
}
