//! Packs log lines. Many at once are packed on a thread for such work: it takes milliseconds, in which a thread that serves
//! sessions and REST clients would serve nobody else.

use super::round::Stopping;
use crate::job::lines::{Pack, pack};
use chrono::Utc;
use fleet_wire::LogLine;
use std::io;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use uuid::Uuid;

/// Fewer lines than this are packed sooner than another thread wakes up.
const MANY: usize = 64;

/// Room for as many at work as there are cores: more would only take memory.
static ROOM: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, Into::into)));

/// Packs a job's lines, see [`pack`]; the inner error is the compressor's.
///
/// # Errors
/// The threads end, and the lines with them: they must not count as refused, for the agent would forget them.
pub(super) async fn pack_lines(job_id: Uuid, lines: Vec<LogLine>) -> Result<io::Result<Vec<Pack>>, Stopping> {
    let now = Utc::now();
    if lines.len() < MANY {
        return Ok(pack(job_id, lines, now));
    }
    let _room = ROOM.acquire().await.map_err(|_| Stopping)?;
    spawn_blocking(move || pack(job_id, lines, now)).await.map_err(|_| Stopping)
}
