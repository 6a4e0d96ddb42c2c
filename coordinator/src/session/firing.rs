//! An agent's cron has fired: what that needs is looked up, and the dispatcher makes the jobs.

use super::round::{LOOK_UP_PAUSE, Stopping};
use crate::clock;
use crate::db::DatabaseError;
use crate::db::planning::Planning;
use crate::db::schedules::Schedule;
use crate::dispatcher::Fire;
use crate::firing::early_by;
use crate::http::check::NAME;
use crate::services::Services;
use fleet_wire::{EarlyFiring, ErrorMessage, ScheduleFire, ScheduleId, Timestamp, check_group_name};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Rows of the ledger that one firing may make for groups that its schedule does not have.
const MOST_NAMES: usize = 4096;

/// Hands a firing on; gives the refusal of one that can't be.
pub(super) async fn tell(
    fire: ScheduleFire,
    host_id: Uuid,
    services: &Services,
) -> Result<Option<ErrorMessage>, Stopping> {
    let unknown = || ErrorMessage::new("unknown_schedule", format!("there is no schedule {}", fire.schedule_id));
    let Ok(id) = fire.schedule_id.as_str().parse() else { return Ok(Some(unknown())) };
    let (job_ids, source_groups) = match read(&fire) {
        Ok(read) => read,
        Err(refusal) => return Ok(Some(refusal)),
    };
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
    let scheduled_at = fire.scheduled_at;
    // Looked at first: what is told to fire again and has become a job a moment later is known by then.
    let refusal = refusal_of_early(fire.schedule_id, scheduled_at);
    let fire = Fire { schedule, planning, scheduled_at, job_ids, source_groups };
    match services.dispatcher.send(fire).await {
        Ok(Ok(())) => Ok(refusal),
        Ok(Err(_)) | Err(_) => Err(Stopping),
    }
}

/// What tells an agent whose clock is ahead that nothing came of its firing, so that it fires again when the time comes.
fn refusal_of_early(schedule_id: ScheduleId, scheduled_at: Timestamp) -> Option<ErrorMessage> {
    let now = clock::nearest(scheduled_at);
    let in_seconds = early_by(scheduled_at, now)?.num_seconds();
    let message =
        format!("schedule {schedule_id} has fired for {scheduled_at}, and it is {now}: the host's clock is ahead");
    let early_firing = Some(EarlyFiring { schedule_id, scheduled_at, in_seconds });
    Some(ErrorMessage { early_firing, ..ErrorMessage::new("clock_ahead", message) })
}

/// The ids of a firing, and the groups whose they are, if it makes sense.
fn read(fire: &ScheduleFire) -> Result<(Vec<Uuid>, Vec<String>), ErrorMessage> {
    let (mut job_ids, mut known) = (Vec::new(), HashSet::new());
    for job_id in &fire.job_ids {
        let bad = |why: &str| ErrorMessage::new("bad_job_id", format!("{job_id} {why}"));
        let id = job_id.as_str().parse::<Uuid>().map_err(|_| bad("is no job id: it must be a UUID"))?;
        if !known.insert(id) {
            return Err(bad("stands there twice: each source group has a job of its own"));
        }
        job_ids.push(id);
    }
    let bad = |why: String| ErrorMessage::new("bad_source_groups", why);
    let names = &fire.source_groups;
    if !names.is_empty() && names.len() != job_ids.len() {
        return Err(bad(format!("{} names of source groups for {} job ids", names.len(), job_ids.len())));
    }
    if names.len() > MOST_NAMES {
        return Err(bad(format!("{} source groups, more than {MOST_NAMES}", names.len())));
    }
    let mut known = HashSet::new();
    for name in names {
        if check_group_name(name).is_err() || name.len() > NAME {
            return Err(bad("there can be no source group of such a name".to_owned()));
        }
        if !known.insert(name) {
            return Err(bad(format!("the source group {name:?} stands there twice")));
        }
    }
    Ok((job_ids, names.clone()))
}

async fn look_up(
    id: Uuid,
    host_id: Uuid,
    services: &Services,
) -> Result<(Option<Arc<Schedule>>, Option<Arc<Planning>>), DatabaseError> {
    futures_util::future::try_join(services.schedules.get(id), services.planning.get(host_id)).await
}
