//! Counting the jobs in the lanes. It looks at each of them, so it is for those who ask seldom.

use super::Lanes;
use crate::db::pauses::Target;
use crate::dispatcher::census::{Census, Reason};
use crate::dispatcher::lane::Waiting;
use fleet_wire::Kind;
use std::time::Instant;

impl Lanes {
    /// How many are out, and what the others wait for: the first of what `obstacle` would say.
    pub(in crate::dispatcher) fn census(&self, now: Instant) -> Census {
        let mut census = Census::default();
        for (repository_id, lane) in &self.lanes {
            census.out += lane.count_out();
            let paused = self.pauses.stop_repository(*repository_id);
            for (waiting, ready) in lane.all_waiting() {
                census.add(self.reason(waiting, ready, paused), waiting.since.map(|since| self.waited(since, now)));
            }
        }
        census
    }

    fn reason(&self, waiting: &Waiting, ready: bool, repository_paused: bool) -> Reason {
        let claim = &waiting.claim;
        let host_paused = || !ready && self.pauses.get(Target::Host(claim.host_id)).is_some();
        if claim.kind != Kind::Unlock && (repository_paused || host_paused()) {
            return Reason::Paused;
        }
        if self.held.contains(&claim.job_id) && self.connected.contains(&claim.host_id) {
            return Reason::Operation;
        }
        if ready { Reason::Repository } else { Reason::HostOffline }
    }
}
