//! Log lines, many in one row: each chunk holds lines with consecutive `seq` as compressed JSON lines, in the form in
//! which REST hands them out.

use super::schema::log_chunks;
use super::statement::statement;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{LogStream, Timestamp};
use serde::{Deserialize, Serialize};
use std::io;
use uuid::Uuid;

/// zstd's fastest regular level: a log line takes well under a microsecond.
const COMPRESSION_LEVEL: i32 = 1;
/// No chunk is larger than this when decompressed, whatever stands in the row.
const LARGEST_CHUNK_BYTES: usize = 64 * 1024 * 1024;

/// One line of a job's log, as stored and as handed out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredLine {
    /// Its place in the log.
    pub seq: i64,
    /// The agent's clock, or the coordinator's where the agent gave none.
    pub ts: Timestamp,
    /// Which stream.
    pub stream: LogStream,
    /// The line, without its end.
    pub payload: String,
}

/// Lines with consecutive `seq`.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
#[diesel(table_name = log_chunks)]
pub struct LogChunk {
    /// Whose lines.
    pub job_id: Uuid,
    /// The first line's `seq`.
    pub first_seq: i64,
    /// The last line's.
    pub last_seq: i64,
    /// Whether it was made of the chunks that came in, once the job was over.
    pub compacted: bool,
    /// The lines, packed.
    pub data: Vec<u8>,
}

impl LogChunk {
    /// Packs `lines`, which must have consecutive `seq`; `None` if there are none.
    ///
    /// # Errors
    /// The compressor's.
    pub fn pack(job_id: Uuid, lines: &[StoredLine]) -> io::Result<Option<Self>> {
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(None) };
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        let data = zstd::bulk::compress(&text, COMPRESSION_LEVEL)?;
        Ok(Some(Self { job_id, first_seq: first.seq, last_seq: last.seq, compacted: false, data }))
    }

    /// How many bytes [`unpack`](Self::unpack) gives, as the row says; no more than it may give.
    pub fn unpacked_size(&self) -> usize {
        let size = zstd::zstd_safe::get_frame_content_size(&self.data).ok().flatten().unwrap_or(0);
        usize::try_from(size).unwrap_or(usize::MAX).min(LARGEST_CHUNK_BYTES)
    }

    /// The lines as JSON lines, each with its `\n`.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn unpack(&self) -> io::Result<Vec<u8>> {
        zstd::bulk::decompress(&self.data, self.unpacked_size())
    }
}

/// Stores chunks. One whose lines are there already, from an attempt whose commit was not answered, is left as it is: as
/// it came, or as a part of what it was compacted to since.
///
/// # Errors
/// The database's.
pub async fn insert_chunks(mut connection: &AsyncPgConnection, chunks: &[&LogChunk]) -> QueryResult<()> {
    if chunks.is_empty() {
        return Ok(());
    }
    let jobs: Vec<Uuid> = chunks.iter().map(|chunk| chunk.job_id).collect();
    let first: Vec<i64> = chunks.iter().map(|chunk| chunk.first_seq).collect();
    let last: Vec<i64> = chunks.iter().map(|chunk| chunk.last_seq).collect();
    let data: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.data.as_slice()).collect();
    statement(
        "INSERT INTO log_chunks (job_id, first_seq, last_seq, data)
         SELECT * FROM unnest($1, $2, $3, $4) AS new (job_id, first_seq, last_seq, data)
         WHERE coalesce((
             SELECT before.last_seq < new.first_seq FROM log_chunks AS before
             WHERE before.job_id = new.job_id AND before.first_seq <= new.first_seq
             ORDER BY before.first_seq DESC LIMIT 1
         ), true)
         ON CONFLICT (job_id, first_seq) DO NOTHING",
    )
    .bind::<Array<SqlUuid>, _>(jobs)
    .bind::<Array<BigInt>, _>(first)
    .bind::<Array<BigInt>, _>(last)
    .bind::<Array<Binary>, _>(data)
    .execute(&mut connection)
    .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct Range {
    #[diesel(sql_type = BigInt)]
    first: i64,
    #[diesel(sql_type = BigInt)]
    last: i64,
}

/// The ranges of `seq`, both ends included, that are stored of a job: a range for each gap, not for each chunk, of which
/// a slow log has a great many.
///
/// # Errors
/// The database's.
pub async fn stored_ranges(connection: &mut AsyncPgConnection, job_id: Uuid) -> QueryResult<Vec<(i64, i64)>> {
    let query = statement(
        "SELECT min(first_seq) AS first, max(last_seq) AS last FROM (
             SELECT first_seq, last_seq, count(*) FILTER (WHERE begins) OVER (ORDER BY first_seq) AS range FROM (
                 SELECT first_seq, last_seq,
                        first_seq::numeric - 1 IS DISTINCT FROM lag(last_seq) OVER (ORDER BY first_seq) AS begins
                 FROM log_chunks WHERE job_id = $1
             ) AS chunks
         ) AS ranges GROUP BY range",
    );
    let ranges: Vec<Range> = query.bind::<SqlUuid, _>(job_id).load(connection).await?;
    Ok(ranges.into_iter().map(|range| (range.first, range.last)).collect())
}

/// The next chunks of a job that hold lines after `after_seq`, in order: at most `rows`, and only as many as it takes to
/// have `bytes` of packed data.
///
/// # Errors
/// The database's.
pub async fn chunks_after(
    connection: &mut AsyncPgConnection,
    job_id: Uuid,
    after_seq: Option<i64>,
    rows: i64,
    bytes: i64,
) -> QueryResult<Vec<LogChunk>> {
    // A line is in one chunk only: none that begins before the one that has this line, or is the last before it, has a
    // later line. They are not read. Nor is the data of those that are too much: their size stands in the row.
    let query = statement(
        "SELECT job_id, first_seq, last_seq, compacted, data FROM (
             SELECT *, sum(octet_length(data)) OVER (ORDER BY first_seq ROWS UNBOUNDED PRECEDING) - octet_length(data)
                 AS before
             FROM (
                 SELECT * FROM log_chunks WHERE job_id = $1
                     AND first_seq >= coalesce(
                         (SELECT first_seq FROM log_chunks WHERE job_id = $2 AND first_seq <= $3
                          ORDER BY first_seq DESC LIMIT 1), $4)
                     AND last_seq >= $5
                 ORDER BY first_seq LIMIT $6
             ) AS next
         ) AS sized WHERE before < $7 ORDER BY first_seq",
    );
    let after = after_seq.unwrap_or(i64::MIN);
    // There is no place before the first number.
    let first_wanted = after_seq.map_or(Some(i64::MIN), |after| after.checked_add(1));
    let Some(first_wanted) = first_wanted else { return Ok(Vec::new()) };
    query
        .bind::<SqlUuid, _>(job_id)
        .bind::<SqlUuid, _>(job_id)
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(first_wanted)
        .bind::<BigInt, _>(rows)
        .bind::<BigInt, _>(bytes)
        .load(connection)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn lines_come_back_as_json_lines_even_with_odd_characters() {
        let ts = DateTime::from_timestamp(1_790_000_000, 123_456_789).expect("a time");
        let odd = ["", "a\0b", "zeile\u{2028}zwei\n", "\u{1f980}"];
        let lines: Vec<StoredLine> = (5..)
            .zip(odd)
            .map(|(seq, payload)| StoredLine { seq, ts, stream: LogStream::Stderr, payload: payload.to_owned() })
            .collect();
        let chunk = LogChunk::pack(Uuid::nil(), &lines).expect("packs").expect("not empty");
        assert_eq!((chunk.first_seq, chunk.last_seq), (5, 8));
        let text = String::from_utf8(chunk.unpack().expect("unpacks")).expect("text");
        let back: Vec<StoredLine> =
            text.split_terminator('\n').map(|line| serde_json::from_str(line).expect("a line")).collect();
        assert_eq!(back, lines);
    }

    #[test]
    fn no_lines_make_no_chunk_and_damage_is_an_error() {
        assert_eq!(LogChunk::pack(Uuid::nil(), &[]).expect("packs"), None);
        let damaged =
            LogChunk { job_id: Uuid::nil(), first_seq: 0, last_seq: 0, compacted: false, data: vec![1, 2, 3] };
        assert!(damaged.unpack().is_err());
    }
}
