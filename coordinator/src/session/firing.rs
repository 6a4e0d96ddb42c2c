//! An agent's cron has fired: what that needs is looked up, and the dispatcher makes the jobs.

use super::round::{LOOK_UP_PAUSE, Stopping};
use crate::db::DatabaseError;
use crate::db::planning::Planning;
use crate::db::schedules::Schedule;
use crate::dispatcher::Fire;
use crate::services::Services;
use fleet_wire::{ErrorMessage, ScheduleFire};
use std::sync::Arc;
use uuid::Uuid;

/// Hands a firing on; gives the refusal of one that can't be.
pub(super) async fn tell(
    fire: ScheduleFire,
    host_id: Uuid,
    services: &Services,
) -> Result<Option<ErrorMessage>, Stopping> {
    let unknown = || ErrorMessage::new("unknown_schedule", format!("there is no schedule {}", fire.schedule_id));
    let Ok(id) = fire.schedule_id.as_str().parse() else { return Ok(Some(unknown())) };
    let mut job_ids = Vec::new();
    for job_id in &fire.job_ids {
        match job_id.as_str().parse::<Uuid>() {
            Ok(id) => job_ids.push(id),
            Err(_) => {
                let message = format!("{job_id} is no job id: it must be a UUID");
                return Ok(Some(ErrorMessage::new("bad_job_id", message)));
            }
        }
    }
    let (schedule, planning) = loop {
        match look_up(id, host_id, services).await {
            Ok(found) => break found,
            Err(error) => {
                log::warn!(host:% = host_id; "a firing can't be looked up yet: {error}");
                actix::clock::sleep(LOOK_UP_PAUSE).await;
            }
        }
    };
    let Some(schedule) = schedule.filter(|schedule| schedule.host_id == host_id) else {
        log::warn!(host:% = host_id; "the agent fires schedule {}, which is none of its host's", fire.schedule_id);
        return Ok(Some(unknown()));
    };
    let fire = Fire { schedule, planning, scheduled_at: fire.scheduled_at, job_ids };
    match services.dispatcher.send(fire).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(_)) | Err(_) => Err(Stopping),
    }
}

async fn look_up(
    id: Uuid,
    host_id: Uuid,
    services: &Services,
) -> Result<(Option<Arc<Schedule>>, Option<Arc<Planning>>), DatabaseError> {
    futures_util::future::try_join(services.schedules.get(id), services.planning.get(host_id)).await
}
