//! The jobs that have an actor: who that is, and what the ledger holds of them. Sessions find their jobs here and REST
//! reads them here, both without asking an actor or the database. The dispatcher enters jobs and takes them out; each
//! job's actor puts up what was committed.

use crate::db::jobs::{Job as JobRecord, JobState, NewJob};
use crate::job::Job;
use actix::Addr;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

struct Live {
    actor: Addr<Job>,
    committed: JobRecord,
}

/// See the module's text. Its lock is held for a look-up, never across an await.
#[derive(Default)]
pub struct LiveJobs(RwLock<HashMap<Uuid, Live>>);

impl LiveJobs {
    // A panic elsewhere does not make a plain map wrong.
    fn read_all(&self) -> RwLockReadGuard<'_, HashMap<Uuid, Live>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Uuid, Live>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job whose actor has started, as it stands in the ledger.
    pub fn enter(&self, actor: Addr<Job>, committed: JobRecord) {
        self.write().insert(committed.new.id, Live { actor, committed });
    }

    /// A job's state is in the ledger.
    pub fn committed(&self, job_id: Uuid, state: Arc<JobState>) {
        if let Some(live) = self.write().get_mut(&job_id) {
            live.committed.state = state;
        }
    }

    /// A job goes out with other settings than it was made with, which is in the ledger.
    pub fn renewed(&self, new: Arc<NewJob>) {
        if let Some(live) = self.write().get_mut(&new.id) {
            live.committed.new = new;
        }
    }

    /// A job as it stands in the ledger, if it has an actor.
    pub fn read(&self, job_id: Uuid) -> Option<JobRecord> {
        self.read_all().get(&job_id).map(|live| live.committed.clone())
    }

    /// A job's actor, if it has one that takes messages, and its host.
    pub fn actor(&self, job_id: Uuid) -> Option<(Addr<Job>, Uuid)> {
        let jobs = self.read_all();
        let live = jobs.get(&job_id).filter(|live| live.actor.connected())?;
        Some((live.actor.clone(), live.committed.new.host_id))
    }

    /// An actor of this job has stopped; another may have taken its place.
    pub fn leave(&self, job_id: Uuid) {
        let mut jobs = self.write();
        if jobs.get(&job_id).is_some_and(|live| !live.actor.connected()) {
            jobs.remove(&job_id);
        }
    }
}
