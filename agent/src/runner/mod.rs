//! One job from its start to its outcome.
//!
//! [`refusal`] says which jobs are not even begun. [`run`] finds restic, calls the repository's server, and hands the
//! job to the module of its kind; each of them asks restic, doubts the answer where some version misleads, and
//! reports what is true. `stats` and `snapshots` hold what several kinds report, `lock_wait` how long a lock is waited for.

mod backup;
mod check;
mod context;
mod forget;
mod forget_preview;
mod hooks;
mod init;
mod job;
mod limits;
mod lock_wait;
mod prune;
mod recorded;
mod refusal;
mod snapshots;
mod stats;
mod unlock;

pub use context::JobContext;
pub use limits::Limits;
pub use recorded::read_out;
pub use refusal::refusal;

use self::job::Job;
use crate::outcome::Outcome;
use crate::restic::redact::Redactor;
use fleet_wire::{Kind, RawJson};

/// Runs a job to its end, within these limits. It always returns.
pub async fn run(context: JobContext, limits: Limits) -> Outcome {
    let outcome = match context.run.kind.known() {
        None => Outcome::failed(-1, format!("unknown kind of job {:?}", context.run.kind.to_string())),
        Some(Kind::Backup) => backup::run(&context, limits).await,
        Some(kind) => match Job::prepare(&context, limits).await {
            Ok(job) => run_kind(kind, &job).await,
            Err(outcome) => outcome,
        },
    };
    without_secrets(outcome, &Redactor::new(&context.credentials))
}

async fn run_kind(kind: Kind, job: &Job<'_>) -> Outcome {
    match kind {
        Kind::Backup => Outcome::failed(-1, "a backup has its own way"),
        Kind::Init => init::run(job).await,
        Kind::Forget => forget::run(job).await,
        Kind::Prune => prune::run(job).await,
        Kind::Check => check::run(job).await,
        Kind::Unlock => unlock::run(job).await,
    }
}

fn without_secrets(outcome: Outcome, redactor: &Redactor) -> Outcome {
    Outcome {
        stats: outcome.stats.and_then(|stats| {
            let redacted = redactor.redact(stats.as_str());
            if redacted == stats.as_str() { Some(stats) } else { RawJson::new(redacted).ok() }
        }),
        error: outcome.error.map(|error| redactor.redact(&error)),
        ..outcome
    }
}
