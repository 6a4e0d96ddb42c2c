//! From log lines in any order to chunks for the ledger.

use super::seqs::Seqs;
use crate::db::logs::{LogChunk, StoredLine};
use fleet_wire::{LogLine, Timestamp};
use std::io;
use uuid::Uuid;

/// A chunk is closed after this many lines, so that reading a page of a log unpacks little more than the page.
const LINES_A_CHUNK: usize = 1_000;
/// A chunk is closed after this many bytes of payload.
const BYTES_A_CHUNK: usize = 1024 * 1024;

/// Packs those of `lines` that are not in `known`, and adds them to it. A line without a time gets `now`.
///
/// # Errors
/// The compressor's.
pub(super) fn pack_new(
    job_id: Uuid,
    known: &mut Seqs,
    lines: impl IntoIterator<Item = LogLine>,
    now: Timestamp,
) -> io::Result<Vec<LogChunk>> {
    let mut new: Vec<StoredLine> = lines
        .into_iter()
        .filter(|line| known.insert(line.seq))
        .map(|line| StoredLine {
            seq: line.seq,
            ts: line.ts.unwrap_or(now),
            stream: line.stream,
            payload: line.payload,
        })
        .collect();
    new.sort_by_key(|line| line.seq);

    let mut chunks = Vec::new();
    let mut rest = new.as_slice();
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(chunk_length(rest));
        chunks.extend(LogChunk::pack(job_id, chunk)?);
        rest = later;
    }
    Ok(chunks)
}

/// How many of the sorted `lines` make the next chunk: they are consecutive and not too much; at least one.
fn chunk_length(lines: &[StoredLine]) -> usize {
    let mut bytes = 0;
    for (index, line) in lines.iter().enumerate() {
        let follows = index == 0 || lines[index - 1].seq.checked_add(1) == Some(line.seq);
        if index > 0 && (!follows || index >= LINES_A_CHUNK || bytes >= BYTES_A_CHUNK) {
            return index;
        }
        bytes += line.payload.len();
    }
    lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;
    use fleet_wire::LogStream;

    fn line(seq: i64, payload: &str) -> LogLine {
        LogLine { job_id: "j".into(), seq, ts: None, stream: LogStream::Stdout, payload: payload.to_owned() }
    }

    fn ranges(chunks: &[LogChunk]) -> Vec<(i64, i64)> {
        chunks.iter().map(|chunk| (chunk.first_seq, chunk.last_seq)).collect()
    }

    #[test]
    fn gaps_split_chunks_and_duplicates_are_dropped() {
        let mut known = Seqs::default();
        let lines = [3, 1, 2, 2, 7, 6].map(|seq| line(seq, "x"));
        let chunks = pack_new(Uuid::nil(), &mut known, lines, Utc::now()).expect("packs");
        assert_eq!(ranges(&chunks), [(1, 3), (6, 7)]);
        let again = [1, 4, 7].map(|seq| line(seq, "x"));
        let chunks = pack_new(Uuid::nil(), &mut known, again, Utc::now()).expect("packs");
        assert_eq!(ranges(&chunks), [(4, 4)]);
    }

    #[test]
    fn chunks_are_bounded_in_lines_and_bytes() {
        let many = (0..2_500).map(|seq| line(seq, ""));
        let chunks = pack_new(Uuid::nil(), &mut Seqs::default(), many, Utc::now()).expect("packs");
        assert_eq!(ranges(&chunks), [(0, 999), (1000, 1999), (2000, 2499)]);
        let long = "y".repeat(BYTES_A_CHUNK);
        let large = (0..3).map(|seq| line(seq, &long));
        let chunks = pack_new(Uuid::nil(), &mut Seqs::default(), large, Utc::now()).expect("packs");
        assert_eq!(ranges(&chunks), [(0, 0), (1, 1), (2, 2)]);
    }
}
