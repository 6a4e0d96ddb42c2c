//! The journal's tables on disk.

use redb::TableDefinition;

/// One row: the [`Meta`](super::record::Meta) as JSON.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// The key of that row.
pub(super) const META_KEY: &str = "journal";
/// Job id to [`JobRecord`](super::record::JobRecord) as JSON.
pub(super) const JOBS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("jobs");
/// Job id to its `command.run` as JSON, until the job is over.
pub(super) const RUNS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("runs");
/// Job number to job id, of the settled jobs: the oldest are forgotten first.
pub(super) const SETTLED: TableDefinition<'static, u64, &str> = TableDefinition::new("settled");
/// Envelope id to (what it is, its job if it is a log line, the message's text).
pub(super) const OUTBOX: TableDefinition<'static, u64, (u8, &str, &str)> = TableDefinition::new("outbox");
/// Schedule id to [`Handled`](crate::cron::Handled) as JSON. A journal of an older agent has no such table.
pub(super) const HANDLED: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("handled");
/// Id of its `schedule.fire` to [`Firing`](crate::cron::Firing) as JSON, as long as the agent may start jobs of it.
pub(super) const FIRINGS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("firings");

/// Schedule id and nominal instant, in microseconds, of a firing that came before its time to [`Early`](crate::cron::Early) as
/// JSON, until it has fired again.
pub(super) const EARLY: TableDefinition<'static, (&str, i64), &[u8]> = TableDefinition::new("early");

/// An envelope that never goes before the coordinator has it.
pub(super) const DURABLE: u8 = 0;
/// A log line.
pub(super) const LINE: u8 = 1;
/// A log line that stands for lines that had to go.
pub(super) const NOTICE: u8 = 2;

/// What one row of the outbox counts towards the journal's limit, in bytes: its texts and the key beside them.
pub(super) fn cost(job: &str, text: &str) -> u64 {
    (job.len() + text.len() + 32) as u64
}
