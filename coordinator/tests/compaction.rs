//! Compaction replaces exactly what was read, or nothing; what is applied again after it, as after a commit without an
//! answer, changes nothing.

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use fleet_coordinator::db::Database;
use fleet_coordinator::db::compaction::{Compact, Extent};
use fleet_coordinator::db::logs::{LogChunk, StoredLine, chunks_after, insert_chunks, stored_ranges};
use fleet_coordinator::persistence::Write;
use fleet_wire::{LogStream, Secret, Timestamp};
use std::ops::RangeInclusive;
use uuid::Uuid;

/// A job that is in no table: who asks for a chunk's job is not what is tested.
const JOB: Uuid = Uuid::from_u128(7);

fn chunk(seqs: RangeInclusive<i64>) -> LogChunk {
    let line = |seq: i64| StoredLine {
        seq,
        ts: Timestamp::UNIX_EPOCH,
        stream: LogStream::Stdout,
        payload: format!("line {seq}"),
    };
    LogChunk::pack(JOB, &seqs.map(line).collect::<Vec<_>>()).unwrap().unwrap()
}

fn compact(old: &[LogChunk], new: RangeInclusive<i64>) -> Compact {
    Compact { old: old.iter().map(Extent::from).collect(), new: LogChunk { compacted: true, ..chunk(new) } }
}

/// Applies it as the persistence actor does, in a savepoint of its own.
async fn apply(connection: &mut AsyncPgConnection, write: &Compact) -> bool {
    connection.transaction(async |savepoint| write.apply(savepoint).await).await.is_ok()
}

async fn ranges(connection: &mut AsyncPgConnection) -> Vec<(i64, i64, bool)> {
    let chunks = chunks_after(connection, JOB, None, 100, i64::MAX).await.unwrap();
    chunks.iter().map(|chunk| (chunk.first_seq, chunk.last_seq, chunk.compacted)).collect()
}

#[test]
fn what_was_read_is_replaced_or_nothing() {
    let server = fleet_integration::Database::create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = Database::new(&Secret::new(server.url())).unwrap();
        database.migrate().await.unwrap();
        let mut connection = database.connect().await.unwrap();
        connection.batch_execute("SET session_replication_role = replica").await.unwrap();
        let came = [chunk(0..=1), chunk(2..=2), chunk(3..=9), chunk(20..=20)];
        insert_chunks(&connection, &came.iter().collect::<Vec<_>>()).await.unwrap();
        let before = ranges(&mut connection).await;
        assert_eq!(before, [(0, 1, false), (2, 2, false), (3, 9, false), (20, 20, false)]);

        let first = compact(&came[..2], 0..=2);
        let moved = [chunk(0..=1), chunk(2..=3)];
        let gone = [chunk(0..=1), chunk(2..=2), chunk(10..=11)];
        for wrong in [compact(&moved, 0..=3), compact(&gone, 0..=11)] {
            assert!(!apply(&mut connection, &wrong).await, "{wrong:?}");
            assert_eq!(ranges(&mut connection).await, before);
        }
        assert!(apply(&mut connection, &first).await);
        let after = [(0, 2, true), (3, 9, false), (20, 20, false)];
        assert_eq!(ranges(&mut connection).await, after);
        // Once more, and what it was made of once more.
        assert!(!apply(&mut connection, &first).await);
        insert_chunks(&connection, &came.iter().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(ranges(&mut connection).await, after);
        let whole = LogChunk { compacted: true, ..chunk(0..=2) };
        assert!(apply(&mut connection, &compact(&[whole, chunk(3..=9)], 0..=9)).await);
        insert_chunks(&connection, &[&came[2], &chunk(10..=10)]).await.unwrap();
        assert_eq!(ranges(&mut connection).await, [(0, 9, true), (10, 10, false), (20, 20, false)]);
        assert_eq!(stored_ranges(&mut connection, JOB).await.unwrap(), [(0, 10), (20, 20)]);
        // A reader gets no more than it asks for, and one chunk at least.
        for (rows, bytes, expected) in [(100, 1, vec![(0, 9)]), (2, i64::MAX, vec![(0, 9), (10, 10)])] {
            let read = chunks_after(&mut connection, JOB, Some(4), rows, bytes).await.unwrap();
            assert_eq!(read.iter().map(|chunk| (chunk.first_seq, chunk.last_seq)).collect::<Vec<_>>(), expected);
        }
        assert_eq!(chunks_after(&mut connection, JOB, Some(i64::MAX), 9, 9).await.unwrap(), []);
    });
}
