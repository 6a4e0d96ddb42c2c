//! Taking old history out of the ledger, a few rows at a time.
//!
//! What must stay is not taken: a job that is not over or holds a lease, and the newest success of each source group,
//! for it says what a restore would find. The age of a job counts from its end. Rows are found by an index from their
//! oldest on, and a batch begins behind the one before it, so that neither what stays nor what has just gone is looked
//! at again.

use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::{Builder, Uuid};

/// Rows in a batch: few, for a batch is part of a transaction in which others wait for theirs.
const ROWS: i64 = 200;

/// Whether a row of `jobs` ended before `$1`. No job ends before it was made: the index knows that time only.
macro_rules! is_over_since {
    () => {
        "(jobs.created_at < $1 AND jobs.ended_at < $1 AND jobs.outcome <> 'open'
             AND (jobs.lost_at IS NULL OR jobs.released_at IS NOT NULL))"
    };
}

pub(super) use is_over_since;

/// Whether a row of `jobs` is the newest success of a source group that there is. Its group is a value, for an `EXISTS` may be
/// answered by reading the groups of all hosts.
macro_rules! is_newest_success {
    () => {
        "(jobs.kind = 'backup' AND jobs.outcome = 'succeeded'
             AND coalesce((
                 SELECT true FROM source_groups AS its WHERE its.host_id = jobs.host_id AND its.name = jobs.source_group
             ), false)
             AND NOT EXISTS (
                 SELECT FROM jobs AS newer
                 WHERE newer.host_id = jobs.host_id AND newer.kind = 'backup' AND newer.outcome = 'succeeded'
                     AND newer.source_group = jobs.source_group
                     AND (newer.created_at, newer.id) > (jobs.created_at, jobs.id)
             ))"
    };
}

/// Deletes the next log chunks of jobs that ended before a time. Asked again it deletes the next ones.
#[derive(Clone, Debug)]
pub struct ForgetLogs {
    /// The time.
    pub ended_before: Timestamp,
    /// The logs of the newest successes stay, as their jobs do.
    pub spare_newest: bool,
    /// What the batch before gave.
    pub from: Option<Uuid>,
}

#[derive(QueryableByName)]
struct LookedAt {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    job_id: Option<Uuid>,
}

impl Write for ForgetLogs {
    /// The job with whose log to go on; `None` if there is none left.
    type Output = Option<Uuid>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        // From log to log and not from chunk to chunk, for one that stays may have a great many. Conditions are a value
        // of each row's own, where EXISTS could become a join that reads the jobs from their beginning.
        let next: LookedAt = diesel::sql_query(concat!(
            "WITH RECURSIVE logs (job_id, place) AS (
                 (SELECT job_id, 1::bigint FROM log_chunks WHERE job_id >= $2 AND job_id < $3 ORDER BY job_id LIMIT 1)
                 UNION ALL
                 SELECT next.job_id, place + 1 FROM logs, LATERAL (
                     SELECT job_id FROM log_chunks WHERE job_id > logs.job_id AND job_id < $3 ORDER BY job_id LIMIT 1
                 ) AS next WHERE place < $4
             ), old AS (
                 SELECT chunk.job_id, chunk.first_seq FROM logs, LATERAL (
                     SELECT job_id, first_seq FROM log_chunks
                     WHERE job_id = logs.job_id AND (
                         SELECT ",
            is_over_since!(),
            " AND NOT ($5 AND ",
            is_newest_success!(),
            ") FROM jobs WHERE jobs.id = logs.job_id
                     )
                     ORDER BY first_seq LIMIT $4
                 ) AS chunk LIMIT $4
             ), gone AS (
                 DELETE FROM log_chunks USING old
                 WHERE log_chunks.job_id = old.job_id AND log_chunks.first_seq = old.first_seq
             )
             SELECT CASE
                 WHEN (SELECT count(*) FROM old) = $4 THEN (SELECT job_id FROM old ORDER BY job_id DESC LIMIT 1)
                 WHEN (SELECT count(*) FROM logs) = $4 THEN (SELECT job_id FROM logs ORDER BY job_id DESC LIMIT 1)
             END AS job_id"
        ))
        .bind::<Timestamptz, _>(self.ended_before)
        .bind::<SqlUuid, _>(self.from.unwrap_or_default())
        .bind::<SqlUuid, _>(first_id_of(self.ended_before))
        .bind::<BigInt, _>(ROWS)
        .bind::<Bool, _>(self.spare_newest)
        .get_result(connection)
        .await?;
        Ok(next.job_id)
    }
}

/// Deletes the next jobs that ended before a time, with what is left of their logs. Asked again it deletes the next
/// ones.
#[derive(Clone, Debug)]
pub struct ForgetJobs {
    /// The time.
    pub ended_before: Timestamp,
    /// The last one of the batch before, as (creation time, id).
    pub after: Option<(Timestamp, Uuid)>,
}

#[derive(QueryableByName)]
struct OldJob {
    #[diesel(sql_type = Timestamptz)]
    created_at: Timestamp,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

impl Write for ForgetJobs {
    /// The last one that was deleted; `None` if there is none left.
    type Output = Option<(Timestamp, Uuid)>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let (created_at, id) = self.after.unzip();
        let last: Option<OldJob> = diesel::sql_query(concat!(
            "WITH old AS (
                 SELECT id, created_at FROM jobs
                 WHERE created_at < $1 AND (created_at, id) > (coalesce($2, '-infinity'), $3)
                     AND ",
            is_over_since!(),
            " AND NOT ",
            is_newest_success!(),
            " AND NOT EXISTS (
                     SELECT FROM operations WHERE operations.id = jobs.operation_id AND operations.ended_at IS NULL
                 )
                 ORDER BY created_at, id LIMIT $4
             ), gone AS (
                 DELETE FROM jobs USING old WHERE jobs.id = old.id
             )
             SELECT created_at, id FROM old ORDER BY created_at DESC, id DESC LIMIT 1"
        ))
        .bind::<Timestamptz, _>(self.ended_before)
        .bind::<Nullable<Timestamptz>, _>(created_at)
        .bind::<SqlUuid, _>(id.unwrap_or_default())
        .bind::<BigInt, _>(ROWS)
        .get_result(connection)
        .await
        .optional()?;
        Ok(last.map(|job| (job.created_at, job.id)))
    }
}

#[derive(QueryableByName)]
struct Latest {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    at: Option<Timestamp>,
}

/// About when something was written down last: a host was heard of, or a job made; nothing if there is nothing yet.
///
/// # Errors
/// The database's.
pub async fn latest(connection: &mut AsyncPgConnection) -> QueryResult<Option<Timestamp>> {
    let query = diesel::sql_query(
        "SELECT greatest((SELECT max(last_seen_at) FROM hosts),
             (SELECT created_at FROM jobs ORDER BY id DESC LIMIT 1)) AS at",
    );
    Ok(query.get_result::<Latest>(connection).await?.at)
}

/// The ids of jobs begin with the time at which they were made (UUID version 7): the first that one made then can have.
pub fn first_id_of(time: Timestamp) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeDelta, Utc};

    #[test]
    fn ids_are_told_apart_by_the_time_at_which_they_were_made() {
        let before = Utc::now();
        let id = Uuid::now_v7();
        assert!(first_id_of(before) <= id && id < first_id_of(before + TimeDelta::seconds(60)));
        assert!(first_id_of(Timestamp::MIN_UTC) < id);
    }
}
