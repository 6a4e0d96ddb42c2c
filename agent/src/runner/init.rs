//! `init`: makes the repository unless it is there.

use super::job::Job;
use crate::outcome::Outcome;
use crate::restic::Finished;
use crate::restic::command;
use crate::restic::failure::Failure;
use crate::restic::listen::Listen;
use fleet_wire::LogStream;

/// Looks first, for `restic init` on a repository that is there fails, even with the wrong password.
pub(super) async fn run(job: &Job<'_>) -> Outcome {
    match try_run(job).await {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

async fn try_run(job: &Job<'_>) -> Result<Outcome, Outcome> {
    let probe = probe(job).await?;
    if probe.is_success() {
        return Ok(already(job).await);
    }
    if probe.failure() != Failure::NoRepository {
        return Err(job.failed(&probe));
    }
    let init = job.restic(command::init(), Listen::Log).await?;
    if init.is_success() {
        let stats = init.heard.summary.and_then(|summary| fleet_wire::RawJson::new(summary).ok());
        return Ok(Outcome::succeeded(stats));
    }
    if init.failure() != Failure::AlreadyInitialised {
        return Err(job.failed(&init));
    }
    // Somebody else was faster: it is ours only if our password opens it.
    let probe = self::probe(job).await?;
    if probe.is_success() { Ok(already(job).await) } else { Err(job.failed(&probe)) }
}

async fn probe(job: &Job<'_>) -> Result<Finished, Outcome> {
    job.restic(command::probe(), Listen::Keep).await
}

async fn already(job: &Job<'_>) -> Outcome {
    job.context.reporter.log(LogStream::Stdout, format!("already initialised: {}", job.repository())).await;
    Outcome::succeeded(None)
}
