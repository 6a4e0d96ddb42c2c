//! One pass over logs whose jobs are over: the small chunks in which they came in become few large ones, which take a
//! fraction of the room.
//!
//! One log at a time is taken, and of it a window of neighbouring chunks: read, put together on a thread for such work,
//! and replaced in one transaction, if nothing has changed meanwhile. A crash leaves the one or the other. Lines that come
//! after that are loose chunks as before; a later pass takes them up, with the chunk before them if there is room in it.

use super::pace::{piece, time_before};
use crate::config::History;
use crate::db::compaction::{Compact, Extent, LooseLog, first_loose, loose_logs};
use crate::db::history::first_id_of;
use crate::db::logs::{LogChunk, chunks_after};
use crate::db::{Database, DatabaseError};
use crate::persistence::{Patience, Persistence, Save, WriteError};
use actix::Addr;
use fleet_wire::Timestamp;
use std::io;
use std::ops::Range;
use std::time::Duration;
use thiserror::Error;
use uuid::Uuid;

/// How long a job must have been over: its last lines may be on their way.
const LINGER: Duration = Duration::from_secs(15);
/// Logs that are looked at together.
const LOGS: i64 = 200;
/// Chunks in a window: deleting them is part of a transaction in which others wait for theirs.
const ROWS: i64 = 500;
/// Packed data in a window, and the rest of its last chunk.
const WINDOW_BYTES: i64 = 128 * 1024;
/// Text in a chunk, unless one line has more. Twice as much would save 1 %, and make reading a page dearer.
const CHUNK_BYTES: usize = 512 * 1024;
/// A chunk with more text than this is left as it is: compressing it would take a thread for long.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// zstd's level: 37 MB of text a second here, so a chunk takes 14 ms. For log lines of restic it takes 2 % off level 9 at
/// half the speed; 19 takes another 10 % off at a tenth.
const LEVEL: i32 = 12;
/// How long a write may wait for its turn. What is not done is still due in the next pass.
const PATIENCE: Patience = Patience::Within(Duration::from_secs(30));

#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Read(#[from] DatabaseError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("a chunk of the log of job {0} can't be read: {1}")]
    Chunk(Uuid, io::Error),
}

/// What a pass needs of the coordinator.
#[derive(Clone)]
pub(super) struct Compaction {
    pub(super) database: Database,
    pub(super) persistence: Addr<Persistence>,
    pub(super) history: History,
    /// When it began.
    pub(super) now: Timestamp,
}

impl Compaction {
    /// Compacts what is due now.
    pub(super) async fn pass(self) {
        if let Err(error) = self.all().await {
            log::warn!("logs could not be compacted, it is tried again: {error}");
        }
    }

    async fn all(&self) -> Result<(), Failed> {
        // What is about to be deleted is not worth the work.
        let kept_since = [self.history.logs, self.history.jobs].into_iter().flatten().min();
        let mut after = kept_since.map(|age| first_id_of(time_before(self.now, age))).unwrap_or_default();
        while let Some(last) = piece(self.next_logs(after)).await? {
            after = last;
        }
        Ok(())
    }

    /// Compacts the next logs behind that of `after`; gives the last one that was looked at.
    async fn next_logs(&self, after: Uuid) -> Result<Option<Uuid>, Failed> {
        let ended_before = time_before(self.now, LINGER);
        let logs = self.database.read(async |reader| loose_logs(reader, after, ended_before, LOGS).await).await?;
        for log in logs.iter().filter(|log| log.over) {
            match self.log(log.job_id).await {
                // A damaged row must not keep the others from their turn.
                Err(error @ Failed::Chunk(..)) => log::error!("{error}"),
                done => done?,
            }
        }
        Ok(logs.last().map(|log: &LooseLog| log.job_id))
    }

    async fn log(&self, job_id: Uuid) -> Result<(), Failed> {
        let mut from = i64::MIN;
        while let Some(next) = piece(self.window(job_id, from)).await? {
            from = next;
        }
        Ok(())
    }

    /// Compacts the first loose chunks of a log from `from` on; gives where to go on.
    async fn window(&self, job_id: Uuid, from: i64) -> Result<Option<i64>, Failed> {
        let read = self.database.read(async |reader| {
            let Some(first) = first_loose(reader, job_id, from).await? else { return Ok(Vec::new()) };
            chunks_after(reader, job_id, first.checked_sub(1), ROWS, WINDOW_BYTES).await
        });
        let window = read.await?;
        let made = tokio::task::spawn_blocking(move || compact(window)).await.map_err(io::Error::other);
        let Some(made) = made.flatten().map_err(|error| Failed::Chunk(job_id, error))? else { return Ok(None) };
        let last_seq = made.new.last_seq;
        let save = Save { write: made, patience: PATIENCE };
        self.persistence.send(save).await.unwrap_or(Err(WriteError::Unknown))?;
        Ok(Some(last_seq))
    }
}

/// Makes one chunk of some of the `window`; `None` if nothing in it is loose.
fn compact(window: Vec<LogChunk>) -> io::Result<Option<Compact>> {
    let sizes: Vec<(Extent, usize)> = window.iter().map(|chunk| (chunk.into(), chunk.unpacked_size())).collect();
    let Some(chosen) = choose(&sizes) else { return Ok(None) };
    let chunks: Vec<LogChunk> = window.into_iter().take(chosen.end).skip(chosen.start).collect();
    let old: Vec<Extent> = chunks.iter().map(Extent::from).collect();
    let size: usize = chunks.iter().map(LogChunk::unpacked_size).sum();
    let last_seq = chunks.last().map_or(i64::MAX, |chunk| chunk.last_seq);
    let mut chunks = chunks.into_iter();
    let Some(mut new) = chunks.next() else { return Ok(None) };
    if size <= MOST_BYTES {
        let mut text = new.unpack()?;
        for chunk in chunks {
            text.extend_from_slice(&chunk.unpack()?);
        }
        let data = zstd::bulk::compress(&text, LEVEL)?;
        if old.len() > 1 || data.len() < new.data.len() {
            new.data = data;
        }
    }
    (new.last_seq, new.compacted) = (last_seq, true);
    Ok(Some(Compact { old, new }))
}

/// Which chunks become one: the first that is loose, what follows it without a gap as far as there is room, and the one
/// before it if that fits too.
fn choose(chunks: &[(Extent, usize)]) -> Option<Range<usize>> {
    let fits = |(before, _): &(Extent, usize), (next, size): &(Extent, usize), text: usize| {
        before.last_seq.checked_add(1) == Some(next.first_seq) && text + size <= CHUNK_BYTES
    };
    let loose = chunks.iter().position(|(extent, _)| !extent.compacted)?;
    let (mut start, mut text) = (loose, chunks[loose].1);
    if let Some(before) = loose.checked_sub(1)
        && fits(&chunks[before], &chunks[loose], chunks[before].1 + text - chunks[loose].1)
    {
        start = before;
        text += chunks[before].1;
    }
    let mut end = loose + 1;
    while end < chunks.len() && fits(&chunks[end - 1], &chunks[end], text) {
        text += chunks[end].1;
        end += 1;
    }
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::logs::StoredLine;
    use fleet_wire::LogStream;
    use proptest::prelude::*;

    fn loose(first_seq: i64, last_seq: i64) -> (Extent, usize) {
        (Extent { first_seq, last_seq, compacted: false }, CHUNK_BYTES / 4)
    }

    fn done((extent, _): (Extent, usize), size: usize) -> (Extent, usize) {
        (Extent { compacted: true, ..extent }, size)
    }

    #[test]
    fn neighbours_become_one_chunk_up_to_its_size() {
        let chunks: Vec<_> = (0..6).map(|at| loose(at * 10, at * 10 + 9)).collect();
        assert_eq!(choose(&chunks), Some(0..4));
        assert_eq!(choose(&chunks[..2]), Some(0..2));
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[loose(0, 9), loose(11, 19)]), Some(0..1), "there is a gap");
        let large = (loose(10, 19).0, 10 * CHUNK_BYTES);
        assert_eq!(choose(&[large, loose(20, 29)]), Some(0..1));
        assert_eq!(choose(&[loose(i64::MAX, i64::MAX), loose(i64::MIN, 0)]), Some(0..1));
    }

    #[test]
    fn late_lines_join_the_chunk_before_them_if_it_has_room() {
        let (before, after) = (loose(0, 9), loose(20, 29));
        let late = loose(10, 19);
        assert_eq!(choose(&[done(before, CHUNK_BYTES / 2), late, done(after, CHUNK_BYTES / 4)]), Some(0..3));
        assert_eq!(choose(&[done(before, CHUNK_BYTES), late, done(after, CHUNK_BYTES)]), Some(1..2));
        assert_eq!(choose(&[done(loose(0, 8), 1), late]), Some(1..2), "there is a gap");
        assert_eq!(choose(&[done(before, 1), done(late, 1)]), None, "nothing is loose");
    }

    fn chunk(first: i64, count: i64, payload: &str) -> LogChunk {
        let line = |seq| StoredLine {
            seq,
            ts: Timestamp::UNIX_EPOCH,
            stream: LogStream::Stdout,
            payload: format!("{payload}{}", seq * 7919 % 1013),
        };
        let lines: Vec<StoredLine> = (first..first + count).map(line).collect();
        LogChunk::pack(Uuid::nil(), &lines).expect("packs").expect("not empty")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn compacted_until_nothing_is_loose_a_log_has_the_same_text_in_few_chunks(
            pieces in prop::collection::vec((0_i64..3, 1_i64..200, 0_usize..3_000), 1..30)
        ) {
            let mut log: Vec<LogChunk> = Vec::new();
            let mut next = 0;
            for (gap, count, long) in pieces {
                next += i64::from(gap == 2);
                log.push(chunk(next, count, &"x".repeat(long)));
                next += count;
            }
            let text = |log: &[LogChunk]| -> Vec<u8> {
                log.iter().flat_map(|chunk| chunk.unpack().expect("unpacks")).collect()
            };
            let before = text(&log);
            let gaps = log.windows(2).filter(|pair| pair[0].last_seq + 1 != pair[1].first_seq).count();
            let mut from = 0;
            while let Some(made) = compact(log[from..].to_vec()).expect("compacts") {
                let at = log.iter().position(|chunk| chunk.first_seq == made.new.first_seq).expect("is there");
                let gone: Vec<LogChunk> = log.splice(at..at + made.old.len(), [made.new.clone()]).collect();
                prop_assert_eq!(gone.iter().map(Extent::from).collect::<Vec<_>>(), made.old);
                prop_assert_eq!(gone.last().map(|chunk| chunk.last_seq), Some(made.new.last_seq));
                from = at;
            }
            prop_assert!(log.iter().all(|chunk| chunk.compacted));
            prop_assert!(text(&log) == before, "the text has changed");
            prop_assert!(log.len() <= 2 * (before.len() / CHUNK_BYTES + gaps + 1), "{} chunks", log.len());
        }
    }
}
