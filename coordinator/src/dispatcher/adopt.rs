//! An agent tells of a job that was not made here: while it could not reach the coordinator it has run by itself what its
//! schedule wanted. The ledger knows the run by the id that the agent gave the job.

use super::NoJob;
use crate::clock;
use crate::db::jobs::{Job, JobState, NewJob, Origin, REQUESTED_BY_AGENT};
use crate::db::json::Json;
use crate::db::lookup::Source;
use crate::db::planning::{OfHost, Planning};
use crate::db::runs::{self, Claim, Run};
use crate::db::{Database, DatabaseError};
use crate::persistence::{Patience, Persistence, SaveJob, WriteError};
use actix::Addr;
use fleet_wire::{CommandRun, Kind};
use std::sync::Arc;
use uuid::Uuid;

/// Makes the job of a run that was skipped or missed, as one that is out; nothing if there is no such run of the host.
///
/// # Errors
/// The ledger can't be read or written.
pub(super) async fn adopt(
    database: Database,
    persistence: Addr<Persistence>,
    job_id: Uuid,
    host_id: Uuid,
) -> Result<Option<Job>, NoJob> {
    let Some((run, planning)) = database.read(async |reader| find(reader, job_id, host_id).await).await? else {
        return Ok(None);
    };
    let Some(new) = made(&run, &planning, job_id) else { return Ok(None) };
    // The agent has it, so there is nothing to send.
    let state =
        JobState { dispatched_at: Some(clock::now()), journal: planning.host.journal.clone(), ..JobState::new() };
    let job = Job::of(new.as_stored(), state.as_stored());
    let save = SaveJob {
        job_id,
        new: Some(Arc::clone(&job.new)),
        claim: Some(Arc::new(Claim { run, previous: None })),
        ending: None,
        state: Some(Arc::clone(&job.state)),
        chunks: Vec::new(),
        requests: Vec::new(),
        patience: Patience::Endless,
    };
    match persistence.send(save).await.unwrap_or(Err(WriteError::Unknown)) {
        Ok(()) => {
            log::info!(job:% = job_id, host:% = host_id; "a job is adopted that its agent has started by itself");
            Ok(Some(job))
        }
        Err(WriteError::Rejected(_)) => Ok(None),
        Err(error) => Err(NoJob::Database(DatabaseError::Unreachable(error.to_string()))),
    }
}

async fn find(
    reader: &mut diesel_async::AsyncPgConnection,
    job_id: Uuid,
    host_id: Uuid,
) -> diesel::QueryResult<Option<(Run, Arc<Planning>)>> {
    let Some(run) = runs::adoptable(reader, job_id, host_id).await? else { return Ok(None) };
    let mut planning = OfHost::find(reader, &[host_id]).await?;
    Ok(planning.remove(&host_id).map(|planning| (run, planning)))
}

/// The job, with the command that the agent would have been sent, as far as it is known.
fn made(run: &Run, planning: &Planning, job_id: Uuid) -> Option<NewJob> {
    let repository_id = planning.repository.as_ref()?.id;
    let mut command = CommandRun::new(job_id.to_string().into(), Kind::Backup);
    command.tag.clone_from(&run.source_group);
    if let Some(group) = planning.groups.iter().find(|group| Some(&group.name) == run.source_group.as_ref()) {
        command.includes.clone_from(&group.includes.0);
        command.excludes.clone_from(&group.excludes.0);
    }
    Some(NewJob {
        id: job_id,
        host_id: planning.host.id,
        repository_id,
        kind: run.kind.clone(),
        origin: Origin::Schedule.as_str().to_owned(),
        source_group: run.source_group.clone(),
        schedule_id: run.schedule_id,
        scheduled_at: Some(run.due_at),
        attempt: 1,
        retry_of: None,
        run_id: Some(run.id),
        operation_id: None,
        requested_by: Some(REQUESTED_BY_AGENT.to_owned()),
        command: Json(command),
        created_at: clock::now(),
    })
}
