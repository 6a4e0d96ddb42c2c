//! What compaction asks of the ledger: which logs have chunks as they came in, and a few large chunks in the place of
//! many small ones.

use super::history::is_over_since;
use super::logs::LogChunk;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// A log with chunks as they came in.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub struct LooseLog {
    /// Whose log.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// The job is over, and was at the time that was asked for.
    #[diesel(sql_type = Bool)]
    pub over: bool,
}

/// The next `limit` logs with chunks as they came in, of jobs whose id is larger than `after`; and whether these ended
/// before a time.
///
/// # Errors
/// The database's.
pub async fn loose_logs(
    connection: &mut AsyncPgConnection,
    after: Uuid,
    ended_before: Timestamp,
    limit: i64,
) -> QueryResult<Vec<LooseLog>> {
    // From log to log, however many chunks each has.
    diesel::sql_query(concat!(
        "WITH RECURSIVE logs (job_id, place) AS (
             (SELECT job_id, 1::bigint FROM log_chunks WHERE NOT compacted AND job_id > $2
                 ORDER BY job_id NULLS FIRST LIMIT 1)
             UNION ALL
             SELECT next.job_id, place + 1 FROM logs, LATERAL (
                 SELECT job_id FROM log_chunks WHERE NOT compacted AND job_id > logs.job_id
                     ORDER BY job_id NULLS FIRST LIMIT 1
             ) AS next WHERE place < $3
         )
         SELECT job_id, coalesce((SELECT ",
        is_over_since!(),
        " FROM jobs WHERE jobs.id = logs.job_id), false) AS over FROM logs"
    ))
    .bind::<Timestamptz, _>(ended_before)
    .bind::<SqlUuid, _>(after)
    .bind::<BigInt, _>(limit)
    .load(connection)
    .await
}

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = Nullable<BigInt>)]
    first_seq: Option<i64>,
}

/// Where to begin in a log: at the chunk before the first one from `from` on that is as it came in, for the two may fit
/// together. `None` if there is none.
///
/// # Errors
/// The database's.
pub async fn first_loose(connection: &mut AsyncPgConnection, job_id: Uuid, from: i64) -> QueryResult<Option<i64>> {
    let query = diesel::sql_query(
        "WITH loose AS (
             SELECT first_seq FROM log_chunks WHERE NOT compacted AND job_id = $1 AND first_seq >= $2
             ORDER BY first_seq LIMIT 1
         )
         SELECT coalesce((
             SELECT first_seq FROM log_chunks WHERE job_id = $1 AND first_seq < (SELECT first_seq FROM loose)
             ORDER BY first_seq DESC LIMIT 1
         ), (SELECT first_seq FROM loose)) AS first_seq",
    );
    let place: Place = query.bind::<SqlUuid, _>(job_id).bind::<BigInt, _>(from).get_result(connection).await?;
    Ok(place.first_seq)
}

/// A chunk in the log, as it was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first line's `seq`.
    pub first_seq: i64,
    /// The last line's.
    pub last_seq: i64,
    /// See [`LogChunk::compacted`].
    pub compacted: bool,
}

impl From<&LogChunk> for Extent {
    fn from(chunk: &LogChunk) -> Self {
        let LogChunk { first_seq, last_seq, compacted, .. } = *chunk;
        Self { first_seq, last_seq, compacted }
    }
}

/// Puts one chunk in the place of those of which it was made. Refused, and nothing changes, if they are not there any more
/// just as they were read; so too if this has been done already.
#[derive(Clone, Debug)]
pub struct Compact {
    /// Those that go: neighbours without a gap.
    pub old: Vec<Extent>,
    /// What takes their place, with the same lines.
    pub new: LogChunk,
}

impl Write for Compact {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        use diesel::sql_types::Array;
        let LogChunk { job_id, first_seq, last_seq, compacted, data } = &self.new;
        let gone = diesel::sql_query(
            "DELETE FROM log_chunks USING unnest($1, $2, $3, $4) AS old (job_id, first_seq, last_seq, compacted)
             WHERE log_chunks.job_id = old.job_id AND log_chunks.first_seq = old.first_seq
                 AND log_chunks.last_seq = old.last_seq AND log_chunks.compacted = old.compacted",
        )
        // The job is in each row: with it as a constant the planner takes most logs for short, and reads a long one whole.
        .bind::<Array<SqlUuid>, _>(vec![*job_id; self.old.len()])
        .bind::<Array<BigInt>, _>(self.old.iter().map(|old| old.first_seq).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(self.old.iter().map(|old| old.last_seq).collect::<Vec<_>>())
        .bind::<Array<Bool>, _>(self.old.iter().map(|old| old.compacted).collect::<Vec<_>>())
        .execute(connection)
        .await?;
        if gone != self.old.len() {
            // Takes back what has gone, and nothing else.
            return Err(diesel::result::Error::NotFound);
        }
        diesel::sql_query(
            "INSERT INTO log_chunks (job_id, first_seq, last_seq, compacted, data) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind::<SqlUuid, _>(job_id)
        .bind::<BigInt, _>(first_seq)
        .bind::<BigInt, _>(last_seq)
        .bind::<Bool, _>(compacted)
        .bind::<diesel::sql_types::Binary, _>(data)
        .execute(connection)
        .await?;
        Ok(())
    }
}
