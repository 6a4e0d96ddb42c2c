//! What compaction asks of the ledger: which logs have chunks as they came in, and a few large chunks in the place of
//! many small ones.

use super::history::is_over_since;
use super::logs::LogChunk;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Timestamptz, Uuid as SqlUuid};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub struct Extent {
    /// The first line's `seq`.
    #[diesel(sql_type = BigInt)]
    pub first_seq: i64,
    /// The last line's.
    #[diesel(sql_type = BigInt)]
    pub last_seq: i64,
    /// See [`LogChunk::compacted`].
    #[diesel(sql_type = Bool)]
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
    /// Those that go: neighbours without a gap, in order.
    pub old: Vec<Extent>,
    /// What takes their place, with the same lines.
    pub new: LogChunk,
}

impl Write for Compact {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let LogChunk { job_id, first_seq, last_seq, compacted, data } = &self.new;
        // Neighbours without a gap are all that begin in this range, and the index has them side by side.
        let mut gone: Vec<Extent> = diesel::sql_query(
            "DELETE FROM log_chunks WHERE job_id = $1 AND first_seq BETWEEN $2 AND $3
             RETURNING first_seq, last_seq, compacted",
        )
        .bind::<SqlUuid, _>(job_id)
        .bind::<BigInt, _>(first_seq)
        .bind::<BigInt, _>(last_seq)
        .load(connection)
        .await?;
        gone.sort_unstable_by_key(|chunk| chunk.first_seq);
        if gone != self.old {
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
        .bind::<Binary, _>(data)
        .execute(connection)
        .await?;
        Ok(())
    }
}
