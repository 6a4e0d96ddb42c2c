//! Many writes as one transaction: all of them on disk, or none.

use super::record::{JobRecord, Meta, Write};
use super::tables::{META, META_KEY};
use super::transaction::{Changes, Result, Tables};
use super::trim::trim;
use fleet_wire::JobId;
use redb::Database;
use std::collections::BTreeMap;

/// Makes `writes` and commits them; on an error nothing of them is on disk.
pub(super) fn commit<'a>(
    database: &Database,
    meta: Meta,
    live: &BTreeMap<JobId, JobRecord>,
    limit_bytes: u64,
    writes: impl IntoIterator<Item = &'a Write>,
) -> Result<Changes> {
    let transaction = database.begin_write()?;
    let changes = {
        let mut tables = Tables::open(&transaction, meta, live)?;
        for write in writes {
            tables.apply(write)?;
        }
        if tables.changes.meta.outbox_bytes > limit_bytes {
            trim(&mut tables, limit_bytes)?;
        }
        let changes = tables.store_touched()?;
        let row = serde_json::to_vec(&changes.meta).unwrap_or_default();
        transaction.open_table(META)?.insert(META_KEY, row.as_slice())?;
        changes
    };
    transaction.commit()?;
    Ok(changes)
}
