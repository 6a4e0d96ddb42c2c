//! A scheduled backup has failed, and is tried again.

use super::fire::planned;
use super::{Dispatcher, Submit};
use crate::clock;
use crate::db::jobs::{NewJob, Origin};
use crate::db::planning::Planning;
use crate::db::runs::{Claim, Run};
use crate::db::schedules::Schedule;
use crate::persistence::{Patience, WriteError};
use actix::{Handler, Message, ResponseFuture};
use std::sync::Arc;
use thiserror::Error;

/// Why there is no further attempt.
#[derive(Debug, Error)]
pub enum NoRetry {
    /// None is wanted.
    #[error("not tried again: {0}")]
    GivenUp(String),
    /// It could not be written, and is still to be made.
    #[error(transparent)]
    NotWritten(#[from] WriteError),
}

/// Makes the next attempt at a run; where something is paused it waits for the end of that. Answered when it is in the ledger.
#[derive(Message)]
#[rtype(result = "Result<(), NoRetry>")]
pub struct Retry {
    /// The run.
    pub run: Run,
    /// The schedule that wanted it.
    pub schedule: Option<Arc<Schedule>>,
    /// What its job is planned with; absent if the host is gone.
    pub planning: Option<Arc<Planning>>,
}

impl Handler<Retry> for Dispatcher {
    type Result = ResponseFuture<Result<(), NoRetry>>;

    fn handle(&mut self, Retry { run, schedule, planning }: Retry, context: &mut Self::Context) -> Self::Result {
        let new = match self.next_attempt(&run, schedule.as_deref(), planning.as_deref()) {
            Ok(new) => new,
            Err(why) => return Box::pin(async { Err(NoRetry::GivenUp(why)) }),
        };
        let claim = Claim { previous: run.job_id, run: Run { changed_at: new.created_at, ..run } };
        let submit = Submit { new, claim: Some(claim), request: None, patience: Patience::Endless };
        let submitted = self.handle(submit, context);
        Box::pin(async move {
            match submitted.await {
                // Rejected: another attempt was made.
                Ok(_) | Err(WriteError::Rejected(_)) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }
}

impl Dispatcher {
    fn next_attempt(
        &self,
        run: &Run,
        schedule: Option<&Schedule>,
        planning: Option<&Planning>,
    ) -> Result<NewJob, String> {
        let schedule = schedule.filter(|schedule| schedule.deleted_at.is_none() && schedule.enabled);
        let schedule = schedule.ok_or_else(|| "the schedule was deleted or disabled".to_owned())?;
        let group = run.source_group.as_deref().unwrap_or_default();
        if let Some(job) = self.open_backup(schedule.host_id, group) {
            return Err(format!("job {job} is at the same source group"));
        }
        let fresh = Run { job_id: None, ..run.clone() };
        let new = planned(schedule, planning, &fresh, Origin::Retry, clock::now())?;
        Ok(NewJob { attempt: run.attempt + 1, retry_of: run.job_id, ..new })
    }
}
