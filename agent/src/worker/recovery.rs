//! After a crash: ends what the killed agent left running, brings what it said into the jobs' logs, and frees the
//! repositories.

use super::task::Surroundings;
use crate::credentials::Credentials;
use crate::journal::Leftover;
use crate::process::Spool;
use crate::report::Reporter;
use crate::settings::Settings;
use crate::{orphans, restic, runner};
use fleet_wire::{CommandRun, JobId};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a job is told that ran when the agent was killed.
pub(super) const KILLED: &str = "agent was killed while the job ran";

/// How long a restic gets to end by itself: up to 33 s for the packs that it has in hand.
const GRACE: Duration = Duration::from_secs(60);

/// Must be over before the first job runs: a restic that is left over would be in its way, or it in that one's.
pub(super) async fn recover(surroundings: &Surroundings, settings: &Settings, leftovers: &[Leftover]) {
    let interrupted: Vec<&Leftover> = leftovers.iter().filter(|leftover| leftover.started).collect();
    let jobs: Vec<JobId> = interrupted.iter().map(|leftover| leftover.job_id.clone()).collect();
    let ended = orphans::end(&surroundings.data_dir, &jobs, GRACE).await;
    restic::clear_temporary(&surroundings.data_dir);
    Spool::clear_others(&surroundings.data_dir, &jobs);
    for leftover in &interrupted {
        read_out(surroundings, settings, leftover).await;
    }
    let mut unlocked: Vec<&Credentials> = Vec::new();
    for run in interrupted.iter().filter_map(|leftover| leftover.run.as_ref()) {
        say_what_was_ended(surroundings, &run.job_id, &ended).await;
        let credentials = settings.credentials_for(run);
        if !unlocked.contains(&credentials) {
            unlocked.push(credentials);
            unlock(surroundings, run, credentials).await;
        }
    }
}

/// Brings into the job's log what its children have said and the journal does not have yet.
async fn read_out(surroundings: &Surroundings, settings: &Settings, leftover: &Leftover) {
    let Leftover { job_id, run, mark, .. } = leftover;
    let credentials = run.as_ref().map_or(&settings.repo, |run| settings.credentials_for(run));
    let (reporter, reports) = Reporter::channel();
    let reading = async move {
        runner::read_out(job_id, credentials, &surroundings.spool(job_id), *mark, &reporter).await;
    };
    tokio::join!(reading, surroundings.forward(job_id, reports));
}

async fn say_what_was_ended(surroundings: &Surroundings, job_id: &JobId, ended: &BTreeSet<JobId>) {
    if ended.contains(job_id) {
        surroundings.note(job_id, "the agent was killed; what it left running of this job was ended").await;
    }
}

/// Removes the lock that the job's restic may have left. A repository that can't be reached stays as it is: the next
/// job that needs it says that it is locked, and by whom.
async fn unlock(surroundings: &Surroundings, run: &CommandRun, credentials: &Credentials) {
    let (reporter, reports) = Reporter::channel();
    let unlocking = async move {
        let Surroundings { restic, data_dir, .. } = surroundings;
        let spool = surroundings.spool(&run.job_id);
        restic::unlock_stale((&run.job_id, &spool), restic, credentials, data_dir, &reporter).await
    };
    let (unlocked, ()) = tokio::join!(unlocking, surroundings.forward(&run.job_id, reports));
    if let Err(reason) = unlocked {
        log::warn!(job = run.job_id.as_str(); "no unlock after the agent was killed: {reason}");
        let line = format!("the lock that this job may have left could not be removed: {reason}");
        surroundings.note(&run.job_id, &line).await;
    }
}
