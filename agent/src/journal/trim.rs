//! The journal's limit: which log lines go when the coordinator was away for too long.
//!
//! The oldest lines of finished jobs go first, then the oldest lines of any job; outcomes and all other messages
//! stay, whatever the limit. In the place of the last line that went, the job's log says how many are missing.

use super::record::JobState;
use super::tables::{DURABLE, LINE, NOTICE, cost};
use super::transaction::{Result, Tables};
use fleet_wire::{Decoded, JobId, LogLine, LogStream, ToCoordinator, decode};
use redb::ReadableTable;
use std::collections::BTreeMap;

/// What went of one job.
struct Gone {
    lines: u64,
    /// Place and text of the last one.
    last: (u64, String),
}

/// Takes out log lines until the outbox is a tenth under `limit_bytes`, so that the next line does not trim again.
pub(super) fn trim(tables: &mut Tables<'_>, limit_bytes: u64) -> Result<()> {
    let target = limit_bytes - limit_bytes / 10;
    let mut gone = BTreeMap::new();
    take(tables, target, true, &mut gone)?;
    take(tables, target, false, &mut gone)?;
    for (job_id, Gone { lines, last: (id, text) }) in gone {
        let Some(record) = tables.record_mut(&job_id) else { continue };
        record.dropped += lines;
        let notice = notice(&job_id, record.dropped, &text);
        if let Some(notice) = notice {
            tables.put(id, NOTICE, job_id.as_str(), &notice.into())?;
        }
    }
    Ok(())
}

fn take(tables: &mut Tables<'_>, target: u64, finished: bool, gone: &mut BTreeMap<JobId, Gone>) -> Result<()> {
    let mut bytes = tables.changes.meta.outbox_bytes;
    if bytes <= target {
        return Ok(());
    }
    let over: Vec<JobId> = tables.jobs_in(|state| !finished || state == JobState::Finished);
    let of_those = |job: &str| over.binary_search_by(|job_id| job_id.as_str().cmp(job)).is_ok();
    let mut rows = Vec::new();
    for row in tables.outbox.range::<u64>(..)? {
        let (id, value) = row?;
        let (what, job, text) = value.value();
        if what == DURABLE || !of_those(job) {
            continue;
        }
        let cost = cost(job, text);
        bytes = bytes.saturating_sub(cost);
        rows.push((id.value(), cost));
        let entry = gone.entry(job.into()).or_insert_with(|| Gone { lines: 0, last: (0, String::new()) });
        entry.lines += u64::from(what == LINE);
        if id.value() > entry.last.0 {
            entry.last = (id.value(), text.to_owned());
        }
        if bytes <= target {
            break;
        }
    }
    tables.remove(&rows)
}

/// The line that takes the place of the log line in `text`.
fn notice(job_id: &JobId, dropped: u64, text: &str) -> Option<LogLine> {
    let Ok(Decoded::Known { message: ToCoordinator::LogLine(line), .. }) = decode(text) else { return None };
    let payload = format!(
        "fleet-agent: {dropped} lines of this log, up to here, were dropped: the agent's journal was full while the \
         coordinator was away"
    );
    Some(LogLine { job_id: job_id.clone(), stream: LogStream::Stderr, payload, ..line })
}
