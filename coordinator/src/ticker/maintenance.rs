//! One look at the maintenance of all repositories: what has come due is noted, and what may start now becomes jobs.

use super::look::{NoLook, write};
use crate::db::hosts::Host;
use crate::db::jobs::{NewJob, Origin};
use crate::db::maintenance::{self, Entry};
use crate::db::pauses::Target;
use crate::db::planning::{OfRepositories, Planning};
use crate::db::runs::{self, Claim, Expect, Moved, NoteRuns, Outcome, Run};
use crate::dispatcher::Submit;
use crate::job::plan::{Cause, Wish, plan, said};
use crate::maintenance::{Action, Candidate, Situation, decide, expected, forget_groups, part_of_check, skipping};
use crate::persistence::{Patience, WriteError};
use crate::services::Services;
use chrono::TimeDelta;
use fleet_wire::{Kind, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Entries that are looked at together.
const ENTRIES: i64 = 256;
/// Rows that one entry makes at once.
const ROWS_OF_ONE: usize = 64;
/// Runs that are looked at together. Those of one repository come together.
const RUNS: i64 = 1_024;
/// Who asks for maintenance.
const REQUESTED_BY_MAINTENANCE: &str = "maintenance";

/// See the module's text; `now` is the time that it is.
pub(super) async fn look(services: &Services, now: Timestamp) -> Result<(), NoLook> {
    while expect(services, now).await? {}
    let mut after = Uuid::nil();
    loop {
        let open = services.database.read(async |reader| runs::open_maintenance(reader, after, RUNS).await).await?;
        let Some(last) = open.last().and_then(|run| run.repository_id) else { return Ok(()) };
        act(services, open, now).await?;
        after = last;
    }
}

/// Notes what has come due, as skipped where that was paused; false if there is no more.
pub(super) async fn expect(services: &Services, now: Timestamp) -> Result<bool, NoLook> {
    let due = services.database.read(async |reader| maintenance::due(reader, now, ENTRIES).await).await?;
    if due.is_empty() {
        return Ok(false);
    }
    let (mut rows, mut moved) = (Vec::new(), Vec::new());
    for entry in &due {
        let (of_one, next) = expected(entry, now, ROWS_OF_ONE);
        rows.extend(skipping(of_one, &services.pauses));
        let (id, kind) = (entry.repository_id, Some(entry.kind.clone()));
        moved.extend(entry.next_due_at.map(|last| Moved { id, kind, last, next }));
    }
    write(services, Expect { rows, moved }).await?;
    Ok(true)
}

/// Does what is to be done about runs that are not over.
async fn act(services: &Services, open: Vec<Run>, now: Timestamp) -> Result<(), NoLook> {
    let mut of_repository: HashMap<Uuid, Vec<Run>> = HashMap::new();
    for run in open {
        of_repository.entry(run.repository_id.unwrap_or_default()).or_default().push(run);
    }
    // Only those in which something is to start are worth more questions.
    of_repository.retain(|_, runs| runs.iter().any(|run| run.outcome == Outcome::Expected.as_str()));
    let ids: Vec<Uuid> = of_repository.keys().copied().collect();
    let entries = services.database.read(async |reader| maintenance::of_repositories(reader, &ids).await).await?;
    let hosts = services.database.read(async |reader| OfRepositories::find(reader, &ids).await).await?;
    let jitter = TimeDelta::from_std(services.maintenance.jitter).unwrap_or(TimeDelta::MAX);
    let mut left = Vec::new();
    for (id, runs) in of_repository {
        let entries: Vec<Entry> = entries.iter().filter(|entry| entry.repository_id == id).cloned().collect();
        let hosts = hosts.get(&id).map(Vec::as_slice).unwrap_or_default();
        let Some(repository) = hosts.first().and_then(|planning| planning.repository.as_deref()) else {
            let expected = runs.into_iter().filter(|run| run.outcome == Outcome::Expected.as_str());
            left.extend(expected.map(|run| run.with(Outcome::Missed, "no host uses the repository")));
            continue;
        };
        let candidates = candidates(services, hosts);
        let situation = Situation {
            repository,
            entries: &entries,
            candidates: &candidates,
            pauses: &services.pauses,
            longest_jitter: jitter,
            now,
        };
        for action in decide(&runs, situation) {
            match action {
                Action::Leave(run) => left.push(run),
                Action::Split(run) => left.extend(parts(run, hosts, now)),
                Action::Start(run, host_id) => {
                    if let Err(why) = begin(services, run.clone(), host_id, hosts, &entries, now).await? {
                        left.push(run.with(Outcome::Skipped, why));
                    }
                }
            }
        }
    }
    if !left.is_empty() {
        write(services, NoteRuns(left)).await?;
    }
    Ok(())
}

/// What matters of the hosts of a repository.
pub(super) fn candidates(services: &Services, hosts: &[Arc<Planning>]) -> Vec<Candidate> {
    let candidate = |host: &Host| {
        let connected = services.board.ready_for(host.id).is_some();
        Candidate::of(host, connected, services.pauses.get(Target::Host(host.id)).is_some())
    };
    hosts.iter().map(|planning| candidate(&planning.host)).collect()
}

/// The run of each host in the place of one for all.
fn parts(run: Run, hosts: &[Arc<Planning>], now: Timestamp) -> Vec<Run> {
    let repository_id = run.repository_id.unwrap_or_default();
    let with_policy = hosts.iter().filter(|planning| planning.groups.iter().any(|group| group.retention.is_some()));
    let of_host = |planning: &Arc<Planning>| {
        Run::of_maintenance(repository_id, &run.kind, Some(planning.host.id), run.due_at, now)
    };
    let mut rows: Vec<Run> = with_policy.map(of_host).collect();
    rows.push(run.with(Outcome::Skipped, "its agents can't forget for each other: each host forgets its own"));
    rows
}

/// Makes the job of a run on a host; the inner error says why there is none to make.
async fn begin(
    services: &Services,
    run: Run,
    host_id: Uuid,
    hosts: &[Arc<Planning>],
    entries: &[Entry],
    now: Timestamp,
) -> Result<Result<(), String>, NoLook> {
    let new = match planned(&run, host_id, hosts, entries, now) {
        Ok(new) => new,
        Err(why) => return Ok(Err(why)),
    };
    let submit = Submit { new, claim: Some(Claim { run, previous: None }), request: None, patience: Patience::REST };
    match services.dispatcher.send(submit).await.unwrap_or(Err(WriteError::Unknown)) {
        // Rejected: the host is gone since it was looked up, or another job has the run. The next look knows more.
        Ok(_) | Err(WriteError::Rejected(_)) => Ok(Ok(())),
        Err(error) => Err(error.into()),
    }
}

fn planned(
    run: &Run,
    host_id: Uuid,
    hosts: &[Arc<Planning>],
    entries: &[Entry],
    now: Timestamp,
) -> Result<NewJob, String> {
    let gone = || "the host is gone".to_owned();
    let Planning { host, repository, groups } =
        &**hosts.iter().find(|planning| planning.host.id == host_id).ok_or_else(gone)?;
    let repository = repository.as_ref().ok_or_else(gone)?;
    let kind: Kind = run.kind.parse().map_err(|_| format!("no such kind: {}", run.kind))?;
    let entry = entries.iter().find(|entry| entry.kind == run.kind);
    let mut wish = Wish::default();
    if kind == Kind::Check {
        let part = entry.and_then(|entry| part_of_check(entry.subset.as_deref(), entry.last_subset.as_deref()));
        wish.args.extend(part);
    }
    if kind == Kind::Forget && run.host_id.is_none() {
        wish.forget_groups = forget_groups(hosts.iter().map(|planning| (&planning.host, planning.groups.as_slice())));
        if wish.forget_groups.is_empty() {
            return Err("no source group of its hosts has a retention policy".to_owned());
        }
    }
    let cause = Cause { origin: Origin::Maintenance, requested_by: REQUESTED_BY_MAINTENANCE.to_owned(), at: now };
    let new = plan(kind, &wish, host, repository, groups, cause).map_err(|wrong| said(&wrong))?;
    Ok(NewJob { run_id: Some(run.id), scheduled_at: Some(run.due_at), ..new })
}
