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

/// Lines with consecutive numbers, packed for the ledger; and as they came, should some of them be known already.
#[derive(Debug)]
pub struct Pack {
    chunk: LogChunk,
    lines: Vec<StoredLine>,
}

/// Packs lines that came in any order. A line without a time gets `now`. Packing takes most of the time that a line takes
/// here: it is done where lines come in, and not by the job, which shares its thread with all jobs.
///
/// # Errors
/// The compressor's.
pub fn pack(job_id: Uuid, lines: impl IntoIterator<Item = LogLine>, now: Timestamp) -> io::Result<Vec<Pack>> {
    let mut lines: Vec<StoredLine> = lines.into_iter().map(|line| stored(line, now)).collect();
    // Stable: of lines with one number the first counts.
    lines.sort_by_key(|line| line.seq);
    lines.dedup_by_key(|line| line.seq);
    pack_sorted(job_id, lines)
}

fn stored(line: LogLine, now: Timestamp) -> StoredLine {
    let LogLine { seq, ts, stream, payload, .. } = line;
    StoredLine { seq, ts: ts.unwrap_or(now), stream, payload }
}

fn pack_sorted(job_id: Uuid, mut lines: Vec<StoredLine>) -> io::Result<Vec<Pack>> {
    let mut packs = Vec::new();
    while !lines.is_empty() {
        let later = lines.split_off(chunk_length(&lines));
        if let Some(chunk) = LogChunk::pack(job_id, &lines)? {
            packs.push(Pack { chunk, lines });
        }
        lines = later;
    }
    Ok(packs)
}

/// What is new of some lines.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Its chunks.
    pub(super) chunks: Vec<LogChunk>,
    /// Lines that are not known and were not taken: there are too many gaps.
    pub(super) dropped: usize,
}

/// The chunks of what is not in `known`, which has it then.
///
/// # Errors
/// The compressor's.
pub(super) fn take_new(packs: Vec<Pack>, known: &mut Seqs) -> io::Result<Taken> {
    let (mut chunks, mut dropped) = (Vec::new(), 0);
    for Pack { chunk, lines } in packs {
        if known.insert_new_range(chunk.first_seq, chunk.last_seq) {
            chunks.push(chunk);
            continue;
        }
        let mut is_new = |seq| {
            let new = known.insert(seq);
            dropped += usize::from(!new && !known.contains(seq));
            new
        };
        let new = lines.into_iter().filter(|line| is_new(line.seq)).collect();
        chunks.extend(pack_sorted(chunk.job_id, new)?.into_iter().map(|pack| pack.chunk));
    }
    Ok(Taken { chunks, dropped })
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

    /// The first and last numbers of the chunks that are new.
    fn ranges(known: &mut Seqs, lines: impl IntoIterator<Item = LogLine>) -> Vec<(i64, i64)> {
        let packs = pack(Uuid::nil(), lines, Utc::now()).expect("packs");
        let chunks = take_new(packs, known).expect("packs").chunks;
        chunks.iter().map(|chunk| (chunk.first_seq, chunk.last_seq)).collect()
    }

    #[test]
    fn gaps_split_chunks_and_duplicates_are_dropped() {
        let mut known = Seqs::default();
        assert_eq!(ranges(&mut known, [3, 1, 2, 2, 7, 6].map(|seq| line(seq, "x"))), [(1, 3), (6, 7)]);
        assert_eq!(ranges(&mut known, [1, 4, 7].map(|seq| line(seq, "x"))), [(4, 4)]);
        // Some of a pack are known.
        assert_eq!(ranges(&mut known, (0..10).map(|seq| line(seq, "x"))), [(0, 0), (5, 5), (8, 9)]);
    }

    #[test]
    fn chunks_are_bounded_in_lines_and_bytes() {
        let many = (0..2_500).map(|seq| line(seq, ""));
        assert_eq!(ranges(&mut Seqs::default(), many), [(0, 999), (1000, 1999), (2000, 2499)]);
        let long = "y".repeat(BYTES_A_CHUNK);
        let large = (0..3).map(|seq| line(seq, &long));
        assert_eq!(ranges(&mut Seqs::default(), large), [(0, 0), (1, 1), (2, 2)]);
    }
}
