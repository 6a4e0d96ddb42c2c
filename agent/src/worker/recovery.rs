//! After a crash: ends what the killed agent left running, frees the repositories, and says so in the jobs' logs.

use super::task::Surroundings;
use crate::credentials::Credentials;
use crate::journal::Leftover;
use crate::report::Reporter;
use crate::settings::Settings;
use crate::{orphans, restic};
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
        restic::unlock_stale(&run.job_id, restic, credentials, data_dir, &reporter).await
    };
    let (unlocked, ()) = tokio::join!(unlocking, surroundings.forward(&run.job_id, reports));
    if let Err(reason) = unlocked {
        log::warn!(job = run.job_id.as_str(); "no unlock after the agent was killed: {reason}");
        let line = format!("the lock that this job may have left could not be removed: {reason}");
        surroundings.note(&run.job_id, &line).await;
    }
}
