//! What counts for leases has changed: a pause, or a limit.

use super::Dispatcher;
use crate::db::pauses::Target;
use actix::{Handler, Message};
use std::time::Instant;
use uuid::Uuid;

/// A pause has begun or ended, as [`Pauses`](crate::pauses::Pauses) has it already.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct PauseChanged(pub Target);

impl Handler<PauseChanged> for Dispatcher {
    type Result = ();

    fn handle(&mut self, PauseChanged(target): PauseChanged, context: &mut Self::Context) {
        let repositories = match target {
            // The one event that concerns all.
            Target::Fleet => self.lanes.repositories(),
            Target::Repository(id) => vec![id],
            Target::Host(id) => {
                let held = self.lanes.move_waiting(id, Instant::now());
                self.tell_of_held(held);
                self.lanes.repositories_of(id).into_iter().collect()
            }
        };
        for repository_id in repositories {
            // How long a pause takes is not held against what waits.
            self.lanes.count_anew(repository_id, Instant::now());
            let held = self.lanes.move_members(repository_id, Instant::now());
            self.tell_of_held(held);
            self.dispatch(repository_id, context);
        }
    }
}

/// Another number of backups may be out at once in a repository; without one what is usual.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct LimitBackups {
    /// The repository.
    pub repository_id: Uuid,
    /// At most so many.
    pub most: Option<u32>,
}

impl Handler<LimitBackups> for Dispatcher {
    type Result = ();

    fn handle(&mut self, LimitBackups { repository_id, most }: LimitBackups, context: &mut Self::Context) {
        self.lanes.limit_backups(repository_id, most);
        self.dispatch(repository_id, context);
    }
}
