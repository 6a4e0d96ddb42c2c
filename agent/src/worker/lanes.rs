//! Which job may run: one at a time for each repository. Pure.

use fleet_wire::{CommandRun, JobId};
use std::collections::{BTreeMap, VecDeque};

/// The repositories that are busy, and the jobs that wait for them.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Repository to the job that runs in it.
    busy: BTreeMap<String, JobId>,
    /// In the order of their acceptance.
    waiting: VecDeque<(String, CommandRun)>,
}

/// What becomes of a new job.
#[derive(Debug, PartialEq)]
pub(super) enum Admission {
    /// It runs now.
    Start(Box<CommandRun>),
    /// It waits for this job, the one that runs.
    Wait { behind: JobId },
}

impl Lanes {
    /// Lets a job into `repository`, or has it wait for its turn.
    pub(super) fn enter(&mut self, repository: &str, run: CommandRun) -> Admission {
        if let Some(behind) = self.busy.get(repository) {
            let behind = behind.clone();
            self.waiting.push_back((repository.to_owned(), run));
            return Admission::Wait { behind };
        }
        self.busy.insert(repository.to_owned(), run.job_id.clone());
        Admission::Start(Box::new(run))
    }

    /// A job is over: gives the next one of its repository, which runs now.
    pub(super) fn leave(&mut self, job_id: &JobId) -> Option<CommandRun> {
        let repository = self.busy.iter().find(|(_, running)| *running == job_id)?.0.clone();
        let next = self.waiting.iter().position(|(waiting, _)| *waiting == repository);
        let Some((_, run)) = next.and_then(|place| self.waiting.remove(place)) else {
            self.busy.remove(&repository);
            return None;
        };
        self.busy.insert(repository, run.job_id.clone());
        Some(run)
    }

    /// Takes a job out that waits; false if there is none of that id.
    pub(super) fn withdraw(&mut self, job_id: &JobId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(_, run)| run.job_id != *job_id);
        self.waiting.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::Kind;

    fn job(id: &str) -> CommandRun {
        CommandRun::new(id.into(), Kind::Check)
    }

    #[test]
    fn one_job_at_a_time_in_the_order_of_acceptance() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter("r", job("a")), Admission::Start(Box::new(job("a"))));
        assert_eq!(lanes.enter("r", job("b")), Admission::Wait { behind: "a".into() });
        assert_eq!(lanes.enter("r", job("c")), Admission::Wait { behind: "a".into() });
        assert_eq!(lanes.leave(&"b".into()), None, "it does not run");
        assert_eq!(lanes.leave(&"a".into()), Some(job("b")));
        assert_eq!(lanes.enter("r", job("d")), Admission::Wait { behind: "b".into() });
        assert_eq!(lanes.leave(&"b".into()), Some(job("c")));
        assert_eq!(lanes.leave(&"c".into()), Some(job("d")));
        assert_eq!(lanes.leave(&"d".into()), None);
        assert_eq!(lanes.enter("r", job("e")), Admission::Start(Box::new(job("e"))));
    }

    #[test]
    fn repositories_do_not_wait_for_each_other() {
        let mut lanes = Lanes::default();
        lanes.enter("r", job("a"));
        lanes.enter("r", job("b"));
        assert_eq!(lanes.enter("s", job("c")), Admission::Start(Box::new(job("c"))));
        assert_eq!(lanes.leave(&"c".into()), None);
        assert_eq!(lanes.leave(&"a".into()), Some(job("b")));
    }

    #[test]
    fn a_waiting_job_can_be_withdrawn_once() {
        let mut lanes = Lanes::default();
        lanes.enter("r", job("a"));
        lanes.enter("r", job("b"));
        assert!(lanes.withdraw(&"b".into()));
        assert!(!lanes.withdraw(&"b".into()));
        assert!(!lanes.withdraw(&"a".into()), "it runs");
        assert_eq!(lanes.leave(&"a".into()), None);
    }
}
