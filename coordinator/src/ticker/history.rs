//! One pass over history: what is older than it is to be kept goes, in small batches with pauses between them.

use super::pace::{piece, time_before};
use crate::config::History;
use crate::db::aged::{Aged, ForgetAged};
use crate::db::history::{ForgetJobs, ForgetLogs};
use crate::db::operations;
use crate::persistence::{Patience, Persistence, Save, Write, WriteError};
use actix::Addr;
use fleet_wire::Timestamp;
use std::time::Duration;

/// How long a batch may wait for its turn. What is not done is still due in the next pass.
const PATIENCE: Patience = Patience::Within(Duration::from_secs(30));

/// Deletes what is due at `now`.
pub(super) async fn pass(persistence: Addr<Persistence>, keep: History, now: Timestamp) {
    if let Err(error) = forget(&persistence, &keep, now).await {
        log::warn!("old history could not be deleted, it is tried again: {error}");
    }
}

async fn forget(persistence: &Addr<Persistence>, keep: &History, now: Timestamp) -> Result<(), WriteError> {
    let before = |age: Option<Duration>| age.map(|age| time_before(now, age));
    let (logs, jobs) = (before(keep.logs), before(keep.jobs));
    // The log of a job goes before the job does: a long one is not to go in one batch. It stays if the job does, unless
    // logs have a limit of their own.
    for (ended_before, spare_newest) in logs.map(|at| (at, false)).into_iter().chain(jobs.map(|at| (at, true))) {
        let mut from = None;
        while let Some(next) = batch(persistence, ForgetLogs { ended_before, spare_newest, from }).await? {
            from = Some(next);
        }
    }
    if let Some(ended_before) = jobs {
        let mut after = None;
        while let Some(last) = batch(persistence, ForgetJobs { ended_before, after }).await? {
            after = Some(last);
        }
        aged(persistence, Aged::Runs, ended_before).await?;
        while batch(persistence, operations::Forget { made_before: ended_before }).await?.is_some() {}
    }
    if let Some(before) = before(keep.audit) {
        aged(persistence, Aged::Audit, before).await?;
    }
    Ok(())
}

/// Deletes all that is older.
pub(super) async fn aged(persistence: &Addr<Persistence>, what: Aged, before: Timestamp) -> Result<(), WriteError> {
    while batch(persistence, ForgetAged { what, before }).await?.is_some() {}
    Ok(())
}

/// Deletes one batch.
async fn batch<T: Send + Sync + 'static, W: Write<Output = Option<T>>>(
    persistence: &Addr<Persistence>,
    write: W,
) -> Result<Option<T>, WriteError> {
    let save = persistence.send(Save { write, patience: PATIENCE });
    piece(async { save.await.unwrap_or(Err(WriteError::Unknown)) }).await
}
