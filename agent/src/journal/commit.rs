//! Many writes as one transaction: all of them on disk, or none.

use super::record::{JobRecord, Meta, Write};
use super::scheduled::Scheduled;
use super::tables::{META, META_KEY};
use super::transaction::{Changes, Result, Tables};
use super::trim::trim;
use fleet_wire::JobId;
use redb::Database;
use std::collections::BTreeMap;

/// Makes `writes` and commits them. On an error before the end nothing of them is on disk; at the end it is unknown, and
/// what they have changed is given back beside the error.
pub(super) fn commit<'a>(
    database: &Database,
    meta: Meta,
    (live, scheduled): (&BTreeMap<JobId, JobRecord>, &Scheduled),
    limit_bytes: u64,
    writes: impl IntoIterator<Item = &'a Write>,
) -> Result<(Changes, Result<()>)> {
    let transaction = database.begin_write()?;
    let changes = {
        let mut tables = Tables::open(&transaction, meta, live, scheduled)?;
        for write in writes {
            tables.apply(write)?;
        }
        if tables.changes.meta.outbox_bytes > limit_bytes {
            trim(&mut tables, limit_bytes)?;
        }
        let mut changes = tables.store_touched()?;
        changes.scheduled.store(&transaction)?;
        changes.meta.commits += 1;
        let row = serde_json::to_vec(&changes.meta).unwrap_or_default();
        transaction.open_table(META)?.insert(META_KEY, row.as_slice())?;
        changes
    };
    let committed = transaction.commit().map_err(Into::into);
    Ok((changes, committed))
}
