//! One look at the ledger of runs: at what schedules want, and at maintenance. All of it is recomputed from the rows each
//! time, so a restart neither forgets nor repeats.

use super::{maintenance, runs, stranded};
use crate::db::DatabaseError;
use crate::persistence::{Patience, Save, Write, WriteError};
use crate::services::Services;
use fleet_wire::Timestamp;
use std::time::Duration;
use thiserror::Error;

/// How long a write may wait. What is not done is still due in the next look.
const PATIENCE: Patience = Patience::Within(Duration::from_secs(30));

/// Why a look was not finished.
#[derive(Debug, Error)]
pub(super) enum NoLook {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Looks; `now` is the time that it is.
pub async fn look(services: Services, now: Timestamp) {
    let outcomes =
        [runs::look(&services, now).await, stranded::look(&services).await, maintenance::look(&services, now).await];
    for error in outcomes.into_iter().filter_map(Result::err) {
        log::warn!("the ledger of runs could not be looked at, it is tried again: {error}");
    }
}

/// Notes what has come due until `now`. Before a pause ends: what was due is skipped as long as it is known.
pub async fn note_due(services: &Services, now: Timestamp) {
    let all = async {
        while runs::expect(services, now).await? {}
        while maintenance::expect(services, now).await? {}
        Ok::<_, NoLook>(())
    };
    if let Err(error) = all.await {
        log::warn!("what has come due could not be noted, it is tried again: {error}");
    }
}

/// Writes what was found.
pub(super) async fn write<W: Write>(services: &Services, write: W) -> Result<W::Output, WriteError> {
    services.persistence.send(Save { write, patience: PATIENCE }).await.unwrap_or(Err(WriteError::Unknown))
}
