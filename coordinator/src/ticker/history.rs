//! One pass over history: what is older than it is to be kept goes, in small batches with pauses between them.

use crate::config::History;
use crate::db::history::{ForgetJobs, ForgetLogs};
use crate::db::operations;
use crate::persistence::{Patience, Persistence, Save, Write, WriteError};
use actix::Addr;
use chrono::{TimeDelta, Utc};
use fleet_wire::Timestamp;
use std::time::{Duration, Instant};

/// How long a batch may wait for its turn. What is not done is still due in the next pass.
const PATIENCE: Patience = Patience::Within(Duration::from_secs(30));
/// The pause after a batch, in times of what it took: the database belongs to others for most of the time.
const PAUSE_FACTOR: u32 = 4;
/// The pause after a batch at least.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Deletes what is due now.
pub(super) async fn pass(persistence: Addr<Persistence>, keep: History) {
    if let Err(error) = forget(&persistence, &keep).await {
        log::warn!("old history could not be deleted, it is tried again: {error}");
    }
}

async fn forget(persistence: &Addr<Persistence>, keep: &History) -> Result<(), WriteError> {
    let jobs = keep.jobs.map(time_before);
    // The log of a job goes before the job does: a long one is not to go in one batch.
    let logs = keep.logs.map(time_before).max(jobs);
    if let Some(made_before) = logs {
        let mut after = None;
        while let Some(last) = batch(persistence, ForgetLogs { made_before, after }).await? {
            after = Some(last);
        }
    }
    if let Some(made_before) = jobs {
        let mut after = None;
        while let Some(last) = batch(persistence, ForgetJobs { made_before, after }).await? {
            after = Some(last);
        }
        while batch(persistence, operations::Forget { made_before }).await?.is_some() {}
    }
    Ok(())
}

/// So long ago; no job is older than the epoch.
fn time_before(age: Duration) -> Timestamp {
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    Utc::now().checked_sub_signed(age).unwrap_or_default().max(Timestamp::UNIX_EPOCH)
}

/// Deletes one batch, and lets others have the database for a while.
async fn batch<T: Send + Sync + 'static, W: Write<Output = Option<T>>>(
    persistence: &Addr<Persistence>,
    write: W,
) -> Result<Option<T>, WriteError> {
    let began = Instant::now();
    let save = Save { write, patience: PATIENCE };
    let last = persistence.send(save).await.unwrap_or(Err(WriteError::Unknown))?;
    if last.is_some() {
        actix::clock::sleep(SHORTEST_PAUSE.max(began.elapsed() * PAUSE_FACTOR)).await;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_that_the_database_can_hold() {
        let day = Duration::from_secs(86_400);
        assert!(time_before(day) < Utc::now() && time_before(day) > Utc::now() - TimeDelta::hours(25));
        for days in [100_000, u32::MAX] {
            assert_eq!(time_before(day * days), Timestamp::UNIX_EPOCH);
        }
    }
}
