//! What a repository's maintenance comes to: which run starts now, on which host, and which waits or will not be. Pure.
//!
//! forget goes before prune, which has nothing to do before it. Of several runs of a kind that are due only the latest is
//! done: one makes up for all. Each starts somewhat after it is due, always by the same time, so that a hundred
//! repositories with one timetable do not start together.

use crate::db::hosts::Host;
use crate::db::maintenance::Entry;
use crate::db::repositories::Repository;
use crate::db::runs::{Outcome, Run};
use crate::db::source_groups::SourceGroup;
use crate::pauses::Pauses;
use crate::timetable::Timetable;
use chrono::TimeDelta;
use fleet_wire::{CAPABILITY_FORGET_GUARD, ForgetGroup, ForgetLimit, Kind, Timestamp};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The kinds, in the order in which they go.
pub const KINDS: [Kind; 3] = [Kind::Forget, Kind::Prune, Kind::Check];

/// A host of the repository, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The host.
    pub host_id: Uuid,
    /// It can take jobs, and has the repository at hand.
    pub ready: bool,
    /// It was heard of a moment ago, and is not connected now: it may come back with jobs that it has started by itself.
    pub expected_back: bool,
    /// Its agent can forget for other hosts, and keeps limits.
    pub guards: bool,
}

impl Candidate {
    /// What is known of a host: whether its agent is there, and whether nothing of it is to be started.
    pub fn of(host: &Host, connected: bool, paused: bool) -> Self {
        Self {
            host_id: host.id,
            ready: connected && !paused && host.initialized_repository_id == host.repository_id,
            expected_back: host.online && !connected,
            guards: guards(host),
        }
    }
}

/// Whether a host's agent can forget for other hosts, and keeps limits.
pub fn guards(host: &Host) -> bool {
    host.capabilities.0.iter().any(|capability| capability == CAPABILITY_FORGET_GUARD)
}

/// What is to be done about one run.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It becomes a job of this host.
    Start(Run, Uuid),
    /// It becomes a run of each host: none of them can forget for the others.
    Split(Run),
    /// It will not be.
    Leave(Run),
}

/// A repository, as far as it matters to its maintenance.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// When what is due in it.
    pub entries: &'a [Entry],
    /// Its hosts.
    pub candidates: &'a [Candidate],
    /// What is paused: what was due before it waits for its end, and what comes due in it will not be.
    pub pauses: &'a Pauses,
    /// By how much starts are put off at most.
    pub longest_jitter: TimeDelta,
    /// What time it is.
    pub now: Timestamp,
}

/// What is to be done about the runs of one repository: all that are not over, the earliest due first.
pub fn decide(open: &[Run], situation: Situation<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut forget_goes_first = false;
    // One that comes back may be at work on what it has started by itself.
    let all_are_there = !situation.candidates.iter().any(|candidate| candidate.expected_back);
    let may_start = all_are_there && !situation.pauses.stop_repository(situation.repository.id);
    for kind in KINDS {
        let of_kind: Vec<&Run> = open.iter().filter(|run| run.kind == kind.as_str()).collect();
        let due = of_kind.iter().copied().filter(|run| situation.is_due(run));
        // What came due in a pause makes up for nothing.
        let (paused, due): (Vec<&Run>, Vec<&Run>) = due.partition(|run| situation.pause_of(run).is_some());
        actions
            .extend(paused.into_iter().filter_map(|run| Some(Action::Leave(skipped(run, situation.pause_of(run)?)))));
        let running: Vec<&Run> = of_kind.into_iter().filter(|run| run.outcome != Outcome::Expected.as_str()).collect();
        for run in &due {
            if let Some(left) = situation.leave(run, &due, &running) {
                actions.push(Action::Leave(left));
            } else if !situation.is_its_time(run) {
                forget_goes_first |= kind == Kind::Forget;
            } else if may_start && !(kind == Kind::Prune && forget_goes_first) {
                let action = start(run, kind, situation.repository, situation.candidates);
                // One that can't start now holds up nobody: its host may never come back.
                let begins = matches!(action, Some(Action::Start(..) | Action::Split(_)));
                forget_goes_first |= kind == Kind::Forget && begins;
                actions.extend(action);
            }
        }
        forget_goes_first |= kind == Kind::Forget && !running.is_empty();
    }
    actions
}

impl Situation<'_> {
    /// A clock that was ahead may have made rows of what is due in the future.
    fn is_due(&self, run: &Run) -> bool {
        run.outcome == Outcome::Expected.as_str() && run.due_at <= self.now
    }

    /// Why nothing was to be started of a run when it was due. What only a runner may do stands still with that.
    fn pause_of(&self, run: &Run) -> Option<String> {
        let host = run.host_id.or(self.repository.runner_host_id);
        self.pauses.why_at(host, Some(self.repository.id), run.due_at)
    }

    /// The entry of a run's kind, if it is still wanted.
    fn entry(&self, run: &Run) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.kind == run.kind && entry.enabled)
    }

    /// Whether a run has been put off for as long as it is to be.
    fn is_its_time(&self, run: &Run) -> bool {
        self.entry(run).is_none_or(|entry| self.now >= run.due_at + jitter(entry, self.longest_jitter))
    }

    /// What becomes of a run that will not be: `due` and `running` are those of its kind.
    fn leave(&self, run: &Run, due: &[&Run], running: &[&Run]) -> Option<Run> {
        let same = |other: &&&Run| other.host_id == run.host_id;
        let left = |outcome, why: String| Some(run.clone().with(outcome, why));
        if self.entry(run).is_none() {
            return left(Outcome::Skipped, "this maintenance is disabled".to_owned());
        }
        if run.host_id.is_some_and(|host| !self.candidates.iter().any(|candidate| candidate.host_id == host)) {
            return left(Outcome::Skipped, "the host no longer uses the repository".to_owned());
        }
        if let Some(newer) = due.iter().filter(same).find(|other| other.due_at > run.due_at) {
            let why = format!("nobody did it in time; the one that was due at {} makes up for it", newer.due_at);
            return left(Outcome::Missed, why);
        }
        let other = running.iter().find(same)?;
        let job = other.job_id.map(|job| job.to_string()).unwrap_or_default();
        left(Outcome::Skipped, format!("still running: job {job}"))
    }
}

/// A run that was paused when it was due, and why.
fn skipped(run: &Run, why: String) -> Run {
    run.clone().with(Outcome::Skipped, format!("paused: {why}"))
}

/// The same rows, but skipped where they are of a pause of their repository.
pub fn skipping(rows: Vec<Run>, pauses: &Pauses) -> Vec<Run> {
    let skip = |row: Run| match pauses.why_at(None, row.repository_id, row.due_at) {
        Some(why) => skipped(&row, why),
        None => row,
    };
    rows.into_iter().map(skip).collect()
}

/// Whether there is a host that a run can start on now.
pub fn can_start(run: &Run, repository: &Repository, candidates: &[Candidate]) -> bool {
    let action = run.kind.parse().ok().and_then(|kind| start(run, kind, repository, candidates));
    matches!(action, Some(Action::Start(..)))
}

/// On which host a run starts; nothing if none can do it now.
fn start(run: &Run, kind: Kind, repository: &Repository, candidates: &[Candidate]) -> Option<Action> {
    let may = |candidate: &&Candidate| {
        let its_own = run.host_id.is_none_or(|host| host == candidate.host_id);
        its_own && repository.runner_host_id.is_none_or(|runner| runner == candidate.host_id)
    };
    let alone = kind != Kind::Forget || run.host_id.is_some();
    let may: Vec<&Candidate> = candidates.iter().filter(may).collect();
    let ready = may.iter().filter(|candidate| candidate.ready && (alone || candidate.guards));
    // Another host each time, and the same one whenever it is asked.
    let chosen = ready.min_by_key(|candidate| weight(&[run.id.as_bytes(), candidate.host_id.as_bytes()]));
    match chosen {
        Some(chosen) => Some(Action::Start(run.clone(), chosen.host_id)),
        // None of them will ever be able to forget for the others.
        None if !alone && !may.is_empty() && may.iter().all(|candidate| !candidate.guards) => {
            let why = "the agent of the repository's runner is too old to forget for other hosts";
            Some(match repository.runner_host_id {
                Some(_) if candidates.len() > 1 => Action::Leave(run.clone().with(Outcome::Skipped, why)),
                _ => Action::Split(run.clone()),
            })
        }
        None => None,
    }
}

/// How long after it is due a run starts: `longest` at most, and a tenth of the interval at most.
fn jitter(entry: &Entry, longest: TimeDelta) -> TimeDelta {
    let most = longest.min(TimeDelta::seconds(entry.interval_seconds / 10)).num_seconds().max(1);
    let place = weight(&[entry.repository_id.as_bytes(), entry.kind.as_bytes()]) % most.unsigned_abs();
    TimeDelta::seconds(i64::try_from(place).unwrap_or(0))
}

fn weight(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    let mut first = [0; 8];
    first.copy_from_slice(&digest.finalize()[..8]);
    u64::from_be_bytes(first)
}

/// The rows of what an entry has due up to `until`, hardly more than `most`, and when it is due next after those.
pub fn expected(entry: &Entry, until: Timestamp, most: usize) -> (Vec<Run>, Option<Timestamp>) {
    let Ok(timetable) = Timetable::parse(&entry.cron, &entry.timezone) else { return (Vec::new(), None) };
    let mut rows = Vec::new();
    let mut next = entry.next_due_at;
    while let Some(due_at) = next.filter(|due_at| *due_at <= until && rows.len() < most) {
        rows.push(Run::of_maintenance(entry.repository_id, &entry.kind, None, due_at, until));
        next = timetable.next_after(due_at);
    }
    (rows, next)
}

/// What a check reads this time. `1/n` stands for the part after the one that the last success has read, so that n checks
/// read everything; anything else is read each time.
pub fn part_of_check(subset: Option<&str>, last: Option<&str>) -> Option<String> {
    let subset = subset?;
    let part = |text: &str| {
        let (part, of) = text.split_once('/')?;
        Some((part.parse::<u64>().ok()?, of.parse::<u64>().ok().filter(|of| *of > 0)?))
    };
    let Some((first, of)) = part(subset) else { return Some(subset.to_owned()) };
    let next = match last.and_then(part) {
        Some((last, last_of)) if last_of == of => last % of + 1,
        _ => first,
    };
    Some(format!("{next}/{of}"))
}

/// The groups of a forget that covers every host of a repository, each with its own policy and its own snapshots.
pub fn forget_groups<'a>(hosts: impl IntoIterator<Item = (&'a Host, &'a [SourceGroup])>) -> Vec<ForgetGroup> {
    let mut all = Vec::new();
    for (host, groups) in hosts {
        for group in groups {
            let policy = group.retention.as_ref().map(|policy| policy.0).filter(|policy| policy.check().is_ok());
            let of_host = |policy| ForgetGroup { tag: group.name.clone(), policy, host: Some(host.hostname.clone()) };
            all.extend(policy.map(of_host));
        }
    }
    all
}

/// How much one forget in this repository may delete, if that is limited.
pub fn forget_limit(repository: &Repository) -> Option<ForgetLimit> {
    let limit = ForgetLimit { snapshots: repository.forget_max_snapshots, share: repository.forget_max_share };
    (limit != ForgetLimit::default()).then_some(limit)
}

#[cfg(test)]
mod tests;
