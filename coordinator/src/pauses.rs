//! What is paused, by whom and why: as the table `pauses` has it, and loaded before the first lease is granted. Where
//! something is paused nothing new is started, and what is due is skipped.

use crate::db::pauses::Target;
use fleet_wire::Timestamp;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::{Mutex, MutexGuard};
use utoipa::ToSchema;
use uuid::Uuid;

/// Who has paused something, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pause {
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// See the module's text. Its lock is held for a look-up, never across an await.
#[derive(Debug, Default)]
pub struct Pauses {
    all: RwLock<HashMap<Target, Pause>>,
    /// Held by whoever changes a pause, or a limit that the dispatcher knows, until memory is as the ledger: so they change
    /// in the same order.
    changing: Mutex<()>,
}

impl Pauses {
    /// These, as they are in the ledger.
    pub fn new(found: impl IntoIterator<Item = (Target, Pause)>) -> Self {
        Self { all: RwLock::new(found.into_iter().collect()), changing: Mutex::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Target, Pause>> {
        // A panic elsewhere does not make a plain map wrong.
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else changes anything.
    pub async fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Notes that a pause has begun, or ended.
    pub fn set(&self, target: Target, pause: Option<Pause>) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        match pause {
            Some(pause) => all.insert(target, pause),
            None => all.remove(&target),
        };
    }

    /// Nothing was paused later than now: what says so was noted by a clock that was ahead.
    pub fn began_by(&self, now: Timestamp) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.values_mut().for_each(|pause| pause.since = pause.since.min(now));
    }

    /// The pause of just this.
    pub fn get(&self, target: Target) -> Option<Pause> {
        self.read().get(&target).cloned()
    }

    /// Whether any repository is paused.
    pub fn has_repositories(&self) -> bool {
        self.read().keys().any(|target| matches!(target, Target::Repository(_)))
    }

    /// Whether nothing is to be started in a repository: it is paused, or the fleet.
    pub fn stop_repository(&self, id: Uuid) -> bool {
        let all = self.read();
        !all.is_empty() && (all.contains_key(&Target::Fleet) || all.contains_key(&Target::Repository(id)))
    }

    /// Why nothing is to be started on a host and in a repository, if that is so: the fleet, the repository or the host is
    /// paused.
    pub fn why(&self, host: Option<Uuid>, repository: Option<Uuid>) -> Option<String> {
        self.why_at(host, repository, Timestamp::MAX_UTC)
    }

    /// The same for what was due at a time: a pause that began later does not count.
    pub fn why_at(&self, host: Option<Uuid>, repository: Option<Uuid>, due_at: Timestamp) -> Option<String> {
        let all = self.read();
        if all.is_empty() {
            return None;
        }
        let targets = [Some(Target::Fleet), repository.map(Target::Repository), host.map(Target::Host)];
        let pause = |target: Target| Some((target, all.get(&target).filter(|pause| pause.since <= due_at)?));
        let (target, Pause { reason, by, .. }) = targets.into_iter().flatten().find_map(pause)?;
        Some(format!("the {}, by {by}: {reason}", target.scope()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};

    fn since() -> Timestamp {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
    }

    fn pauses(targets: &[Target]) -> Pauses {
        let pause = |by: &str| Pause { reason: "new disks".to_owned(), by: by.to_owned(), since: since() };
        Pauses::new(targets.iter().map(|target| (*target, pause("anna"))))
    }

    #[test]
    fn a_pause_counts_for_what_it_names_and_says_so() {
        let (host, repository, other) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let of_host = pauses(&[Target::Host(host)]);
        assert_eq!(of_host.why(Some(host), Some(repository)).as_deref(), Some("the host, by anna: new disks"));
        assert_eq!(of_host.why(Some(other), Some(repository)), None);
        assert!(!of_host.stop_repository(repository) && !of_host.has_repositories());
        let of_repository = pauses(&[Target::Repository(repository)]);
        assert_eq!(of_repository.why(None, Some(repository)).as_deref(), Some("the repository, by anna: new disks"));
        assert_eq!((of_repository.why(None, Some(other)), of_repository.why(Some(host), None)), (None, None));
        assert!(of_repository.stop_repository(repository) && !of_repository.stop_repository(other));
        let of_fleet = pauses(&[Target::Fleet]);
        assert_eq!(of_fleet.why(None, None).as_deref(), Some("the fleet, by anna: new disks"));
        assert!(of_fleet.stop_repository(other));
        of_fleet.set(Target::Fleet, None);
        assert_eq!(of_fleet.why(Some(host), Some(repository)), None);
    }

    #[test]
    fn what_was_due_before_a_pause_is_none_of_its() {
        let pauses = pauses(&[Target::Fleet]);
        assert_eq!(pauses.why_at(None, None, since() - TimeDelta::seconds(1)), None);
        assert!(pauses.why_at(None, None, since()).is_some());
    }
}
