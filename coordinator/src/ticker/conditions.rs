//! One look at what is wrong for a while: what is overdue, whose agent is lost, which repository is not healthy. What is
//! different from the last look is noted, with what is to be told of it, in one transaction.

use super::look::{NoLook, write};
use crate::db::conditions::{self, Note};
use crate::db::repositories;
use crate::http::repository_health::{judge, known};
use crate::notify::condition::{Found, compare};
use crate::services::Services;
use chrono::{SubsecRound, TimeDelta};
use fleet_wire::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// See the module's text; `now` is the time that it is.
pub(super) async fn look(services: &Services, lost_after: Duration, now: Timestamp) {
    if let Err(error) = try_look(services, lost_after, now.trunc_subsecs(6)).await {
        log::warn!("what is wrong in the fleet could not be looked at, it is tried again: {error}");
    }
}

async fn try_look(services: &Services, lost_after: Duration, now: Timestamp) -> Result<(), NoLook> {
    let silent_since = now - TimeDelta::from_std(lost_after).unwrap_or(TimeDelta::days(36_500));
    let (mut found, before) = services
        .database
        .read(async |reader| {
            let found = conditions::found(reader, now, silent_since).await?;
            Ok((found, conditions::known(reader).await?))
        })
        .await?;
    found.extend(unhealthy(services, now).await?);
    let changes = compare(found, before, now);
    if changes.is_empty() {
        return Ok(());
    }
    let outbox = Arc::clone(&services.outbox);
    let tells = changes.notices.iter().any(|notice| outbox.wants(notice.event));
    write(services, Note { changes, outbox }).await?;
    if tells {
        services.outbox.ring();
    }
    Ok(())
}

/// The repositories that are not healthy.
async fn unhealthy(services: &Services, now: Timestamp) -> Result<Vec<Found>, NoLook> {
    let read = async |reader: &mut diesel_async::AsyncPgConnection| {
        let doubtful = conditions::doubtful_repositories(reader, now).await?;
        let rows = repositories::find_many(reader, &doubtful).await?;
        Ok((known(reader, &rows).await?, rows))
    };
    let (known, rows) = services.database.read(read).await?;
    let found = rows.iter().zip(&known).filter_map(|(row, known)| {
        let health = judge(known, &services.maintenance, now, |_| true);
        let marks = Some(health.marks()).filter(|marks| !marks.is_empty())?;
        Some(conditions::of_repository(row.id, marks, health.problems(), now))
    });
    Ok(found.collect())
}
