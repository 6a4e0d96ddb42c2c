//! After a crash: ends what the killed agent left running, brings what it said into the jobs' logs, and frees the
//! repositories.

use super::task::Surroundings;
use crate::credentials::Credentials;
use crate::journal::Leftover;
use crate::orphans::{self, Left};
use crate::process::{self, Spool};
use crate::report::Reporter;
use crate::settings::Settings;
use crate::{restic, runner};
use fleet_wire::JobId;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a job is told that ran when the agent was killed.
pub(super) const KILLED: &str = "agent was killed while the job ran";

/// How long a restic gets to end by itself: up to 33 s for the packs that it has in hand.
const GRACE: Duration = Duration::from_secs(60);

/// Ends what was left running, and brings what it said into the jobs' logs. Must be over before the first job runs, for a
/// restic that is left over would be in its way, or it in that one's; and before the agent says hello, for a job that its
/// journal does not know counts as over. Gives the jobs of which something was still running.
pub(super) async fn clear_up(surroundings: &Surroundings, settings: &Settings, left: &[Leftover]) -> BTreeSet<JobId> {
    let interrupted: Vec<&Leftover> = left.iter().filter(|leftover| leftover.started).collect();
    let jobs: Vec<JobId> = interrupted.iter().map(|leftover| leftover.job_id.clone()).collect();
    let data_dir = surroundings.data_dir.as_path();
    let unfinished = |job: &JobId| {
        let records = surroundings.spool(job).records().into_iter();
        records.filter_map(|record| Some((job.clone(), process::unfinished(&record)?))).collect::<Vec<_>>()
    };
    let recorded: Vec<_> = jobs.iter().flat_map(unfinished).collect();
    let ended = orphans::end(&Left { data_dir, jobs: &jobs, recorded: &recorded }, GRACE).await;
    restic::clear_temporary(data_dir);
    Spool::clear_others(data_dir, &jobs);
    for leftover in interrupted {
        read_out(surroundings, settings, leftover).await;
        if ended.contains(&leftover.job_id) {
            let line = "the agent was killed; what it left running of this job was ended";
            surroundings.note(&leftover.job_id, line).await;
        }
    }
    ended
}

/// Frees the repositories: removes the locks that the interrupted jobs, and others that were `ended`, may have left.
pub(super) async fn free(surroundings: &Surroundings, settings: &Settings, left: &[Leftover], ended: &BTreeSet<JobId>) {
    let mut unlocked: Vec<&Credentials> = Vec::new();
    for leftover in left.iter().filter(|leftover| leftover.started) {
        let credentials = leftover.run.as_ref().map_or(&settings.repo, |run| settings.credentials_for(run));
        if !unlocked.contains(&credentials) {
            unlocked.push(credentials);
            unlock(surroundings, &leftover.job_id, credentials).await;
        }
    }
    // Of a job that this journal does not know.
    let known = |job: &&JobId| left.iter().any(|leftover| leftover.job_id == **job);
    if let Some(job) = ended.iter().find(|job| !known(job)).filter(|_| !unlocked.contains(&&settings.repo)) {
        unlock(surroundings, job, &settings.repo).await;
        surroundings.spool(job).clear();
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

/// Removes the lock that the job's restic may have left. A repository that can't be reached stays as it is: the next
/// job that needs it says that it is locked, and by whom.
async fn unlock(surroundings: &Surroundings, job: &JobId, credentials: &Credentials) {
    let (reporter, reports) = Reporter::channel();
    let unlocking = async move {
        let Surroundings { restic, data_dir, .. } = surroundings;
        let spool = surroundings.spool(job);
        restic::unlock_stale((job, &spool), restic, credentials, data_dir, &reporter).await
    };
    let (unlocked, ()) = tokio::join!(unlocking, surroundings.forward(job, reports));
    if let Err(reason) = unlocked {
        log::warn!(job = job.as_str(); "no unlock after the agent was killed: {reason}");
        let line = format!("the lock that this job may have left could not be removed: {reason}");
        surroundings.note(job, &line).await;
    }
}
