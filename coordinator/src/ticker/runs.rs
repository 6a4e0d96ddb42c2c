//! One look at what schedules want: what has come due is noted, what nobody has done is missed, and what has failed is
//! tried again.

use super::look::{NoLook, write};
use crate::db::runs::{self, Expect, GiveUpRetries, MarkMissed, Moved, Run};
use crate::db::schedules::Schedule;
use crate::db::{hosts, schedules};
use crate::dispatcher::{NoRetry, Retry};
use crate::expected;
use crate::persistence::WriteError;
use crate::services::Services;
use chrono::TimeDelta;
use fleet_wire::Timestamp;
use futures_util::future::join_all;
use std::collections::HashMap;
use uuid::Uuid;

/// How long an agent may be in firing before a run counts as missed. What it tells later is still believed.
const GRACE: TimeDelta = TimeDelta::minutes(10);
/// Schedules that are looked at together.
const SCHEDULES: i64 = 256;
/// Rows that one schedule makes at once, about.
const ROWS_OF_ONE: usize = 64;
/// Rows that are changed at once.
const ROWS: i64 = 1_024;
/// Attempts that are made at once.
const ATTEMPTS: i64 = 256;

/// See the module's text; `now` is the time that it is.
pub(super) async fn look(services: &Services, now: Timestamp) -> Result<(), NoLook> {
    while expect(services, now).await? {}
    while write(services, MarkMissed { due_before: now - GRACE, at: now, most: ROWS }).await? > 0 {}
    while retry(services, now).await? {}
    Ok(())
}

/// Notes what has come due, as skipped where that was paused; false if there is no more.
pub(super) async fn expect(services: &Services, now: Timestamp) -> Result<bool, NoLook> {
    let due = services.database.read(async |reader| schedules::due(reader, now, SCHEDULES).await).await?;
    if due.is_empty() {
        return Ok(false);
    }
    let repositories = repositories(services, &due).await?;
    let (mut rows, mut moved) = (Vec::new(), Vec::new());
    for schedule in &due {
        let (of_one, next) = expected::of(schedule, now, ROWS_OF_ONE);
        let (host, repository) = (schedule.host_id, repositories.get(&schedule.host_id).copied());
        rows.extend(expected::skipping(of_one, |run| services.pauses.why_at(Some(host), repository, run.due_at)));
        moved.extend(schedule.next_due_at.map(|last| Moved { id: schedule.id, kind: None, last, next }));
    }
    write(services, Expect { rows, moved }).await?;
    Ok(true)
}

/// The repositories of the schedules' hosts, if it matters.
async fn repositories(services: &Services, due: &[Schedule]) -> Result<HashMap<Uuid, Uuid>, NoLook> {
    if !services.pauses.has_repositories() {
        return Ok(HashMap::new());
    }
    let hosts: Vec<Uuid> = due.iter().map(|schedule| schedule.host_id).collect();
    Ok(services.database.read(async |reader| hosts::repositories_of(reader, &hosts).await).await?)
}

/// Makes the attempts that are due; false if there are no more.
async fn retry(services: &Services, now: Timestamp) -> Result<bool, NoLook> {
    let due = services.database.read(async |reader| runs::to_retry(reader, now, ATTEMPTS).await).await?;
    if due.is_empty() {
        return Ok(false);
    }
    let mut given_up = Vec::new();
    for outcome in join_all(due.into_iter().map(|run| attempt(services, run))).await {
        given_up.extend(outcome?);
    }
    if !given_up.is_empty() {
        write(services, GiveUpRetries(given_up)).await?;
    }
    Ok(true)
}

type GivenUp = (Uuid, Option<Uuid>, String);

/// Makes the next attempt at a run, or says why there will be none.
async fn attempt(services: &Services, run: Run) -> Result<Option<GivenUp>, NoLook> {
    let (id, last) = (run.id, run.job_id);
    let (schedule, planning) = futures_util::future::try_join(
        async {
            match run.schedule_id {
                Some(id) => services.schedules.get(id).await,
                None => Ok(None),
            }
        },
        async {
            match run.host_id {
                Some(id) => services.planning.get(id).await,
                None => Ok(None),
            }
        },
    )
    .await?;
    let retry = Retry { run, schedule, planning };
    match services.dispatcher.send(retry).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(error @ NoRetry::GivenUp(_))) => Ok(Some((id, last, error.to_string()))),
        Ok(Err(NoRetry::NotWritten(error))) => Err(error.into()),
        Err(_) => Err(WriteError::Unknown.into()),
    }
}
