//! What is wrong with a repository, as far as the coordinator knows: the part of it that no job fails for.

use crate::config::Maintenance;
use crate::db::hosts::Host;
use crate::db::maintenance::Entry;
use crate::db::repositories::Repository;
use crate::db::stale_locks::{Lock, StaleLock, Standing};
use crate::db::{hosts, maintenance, stale_locks, stats};
use chrono::TimeDelta;
use diesel_async::AsyncPgConnection;
use fleet_wire::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// How a repository is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok` or `degraded`.
    status: &'static str,
    problems: Vec<Trouble>,
}

impl Health {
    /// What is wrong, as REST shows it.
    pub(crate) fn problems(&self) -> serde_json::Value {
        // Texts, times and numbers always have a JSON form.
        serde_json::to_value(&self.problems).unwrap_or_default()
    }

    /// What is wrong, a word for each: the same as long as it is the same trouble.
    pub(crate) fn marks(&self) -> Vec<String> {
        let mark = |trouble: &Trouble| match (&trouble.lock, trouble.kind) {
            (Some(LockView { lock, .. }), kind) => format!("{kind} {}", lock.key()),
            // Its detail counts the minutes.
            (None, RUNNER_OFFLINE) => RUNNER_OFFLINE.to_owned(),
            (None, kind) => format!("{kind} {}", trouble.detail),
        };
        self.problems.iter().map(mark).collect()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct Trouble {
    #[serde(rename = "type")]
    kind: &'static str,
    detail: String,
    #[serde(flatten)]
    lock: Option<LockView>,
}

/// A lock that nobody seems to hold any more, and how it goes: an `unlock` job on this host, which only a person asks for.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = MetLock)]
struct LockView {
    lock: Lock,
    met_by_job_id: Uuid,
    met_at: Timestamp,
    unlock_host_id: Uuid,
}

/// What is known of one repository.
pub(crate) struct Known {
    runner: Option<Host>,
    entries: Vec<Entry>,
    /// What the last check has come to.
    check: Option<String>,
    locks: Vec<StaleLock>,
}

const RUNNER_OFFLINE: &str = "runner_offline";
/// The field of the stats that tells.
const CHECK_STATUS: &str = "last_check_status";
/// What it says of a sound repository.
const SOUND: &str = "ok";

/// Reads what is known of repositories, in their order.
///
/// # Errors
/// The database's.
pub(crate) async fn known(reader: &mut AsyncPgConnection, rows: &[Repository]) -> diesel::QueryResult<Vec<Known>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let runners: Vec<Uuid> = rows.iter().filter_map(|row| row.runner_host_id).collect();
    let runners = if runners.is_empty() { Vec::new() } else { hosts::find_many(reader, &runners).await? };
    let entries = maintenance::of_repositories(reader, &ids).await?;
    let checks = stats::newest_of(reader, &ids, CHECK_STATUS).await?;
    let locks = stale_locks::of_repositories(reader, &ids).await?;
    let of = |row: &Repository| Known {
        locks: locks.iter().filter(|lock| lock.repository_id == row.id).cloned().collect(),
        runner: runners.iter().find(|host| Some(host.id) == row.runner_host_id).cloned(),
        entries: entries.iter().filter(|entry| entry.repository_id == row.id).cloned().collect(),
        check: checks.get(&row.id).and_then(|value| value.as_str()).map(str::to_owned),
    };
    Ok(rows.iter().map(of).collect())
}

/// Judges what is known, for somebody who may hear of the hosts that pass `sees`. Pure.
pub(crate) fn judge(known: &Known, rules: &Maintenance, now: Timestamp, sees: impl Fn(Uuid) -> bool) -> Health {
    let mut problems = Vec::new();
    let mut wrong = |kind, detail: String| problems.push(Trouble { kind, detail, lock: None });
    if let Some(runner) = known.runner.as_ref().filter(|runner| !runner.online) {
        let away = now - runner.last_seen_at.unwrap_or(runner.created_at);
        if away > TimeDelta::from_std(rules.runner_offline).unwrap_or(TimeDelta::MAX) {
            let minutes = away.num_minutes();
            let name = if sees(runner.id) { runner.hostname.as_str() } else { "on another host" };
            wrong(RUNNER_OFFLINE, format!("its runner {name} is offline for {minutes} minutes"));
        }
    }
    for entry in &known.entries {
        if let Some(since) = entry.overdue_at.filter(|overdue| *overdue <= now) {
            wrong(
                "maintenance_overdue",
                format!("no {} has succeeded in time; it is overdue since {since}", entry.kind),
            );
        }
    }
    if let Some(found) = known.check.as_deref().filter(|found| *found != SOUND) {
        wrong("check_failed", format!("the last check found: {found}"));
    }
    problems.extend(known.locks.iter().map(|lock| if sees(lock.host_id) { of_lock(lock) } else { of_others_lock() }));
    Health { status: if problems.is_empty() { "ok" } else { "degraded" }, problems }
}

/// A lock that only an unlock on a host removes of which who asks may not hear.
fn of_others_lock() -> Trouble {
    let detail = "a job has met a stale lock of another host, and an unlock job on that host removes it".to_owned();
    Trouble { kind: "stale_lock", detail, lock: None }
}

fn of_lock(stale: &StaleLock) -> Trouble {
    let StaleLock { host_id, job_id, ref lock, met_at, .. } = *stale;
    let lock = &lock.0;
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "an unknown one".to_owned());
    let pid = lock.pid.map_or_else(|| "of an unknown number".to_owned(), |pid| pid.to_string());
    let since = lock.since.map(|since| format!(" since {since}")).unwrap_or_default();
    let why = match lock.standing {
        Standing::Dead => "that process is not running any more",
        Standing::Abandoned => "it was not renewed for half an hour",
        Standing::Held => "no job of that host is at work in this repository",
    };
    let detail = format!(
        "job {job_id} has met a lock that process {pid} on host {} holds as user {}{since}, and it is stale: {why}. \
         POST /v1/hosts/{host_id}/jobs {{\"kind\": \"unlock\"}} removes it, unless its process runs",
        known(&lock.hostname),
        known(&lock.username),
    );
    let lock = LockView { lock: lock.clone(), met_by_job_id: job_id, met_at, unlock_host_id: host_id };
    Trouble { kind: "stale_lock", detail, lock: Some(lock) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::json::Json;
    use chrono::DateTime;
    use std::time::Duration;

    fn at(minutes: i64) -> Timestamp {
        DateTime::from_timestamp(1_790_000_000 + minutes * 60, 0).expect("a time")
    }

    fn kinds(known: &Known) -> Vec<&'static str> {
        let rules = Maintenance { jitter: Duration::ZERO, runner_offline: Duration::from_secs(3600) };
        judge(known, &rules, at(0), |_| true).problems.into_iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn who_may_not_see_a_host_is_told_nothing_of_it() {
        let rules = Maintenance { jitter: Duration::ZERO, runner_offline: Duration::from_secs(3600) };
        let lock = Lock {
            hostname: Some("web-1".to_owned()),
            username: Some("root".to_owned()),
            pid: Some(7),
            since: None,
            standing: Standing::Dead,
            exclusive: true,
            id: None,
        };
        let stale = StaleLock {
            repository_id: Uuid::from_u128(2),
            host_id: Uuid::from_u128(1),
            job_id: Uuid::from_u128(3),
            lock: Json(lock),
            met_at: at(0),
        };
        let mut known = runner(false, at(-90));
        known.runner.as_mut().expect("one").hostname = "web-1".to_owned();
        known.locks.push(stale);
        let told = |sees: bool| serde_json::to_string(&judge(&known, &rules, at(0), |_| sees)).expect("JSON");
        let (whole, hidden) = (told(true), told(false));
        let host = Uuid::from_u128(1).to_string();
        assert!(whole.contains("web-1") && whole.contains(&host), "{whole}");
        assert!(!hidden.contains("web-1") && !hidden.contains(&host), "{hidden}");
        assert!(hidden.contains("runner_offline") && hidden.contains("stale_lock"), "{hidden}");
    }

    fn runner(online: bool, seen: Timestamp) -> Known {
        let host = Host { online, last_seen_at: Some(seen), ..Host::sample(Uuid::from_u128(1)) };
        Known { runner: Some(host), entries: Vec::new(), check: None, locks: Vec::new() }
    }

    #[test]
    fn a_runner_may_be_away_for_a_while() {
        assert_eq!(kinds(&runner(false, at(-60))), Vec::<&str>::new());
        assert_eq!(kinds(&runner(false, at(-61))), ["runner_offline"]);
        assert_eq!(kinds(&runner(true, at(-900))), Vec::<&str>::new());
    }

    #[test]
    fn a_check_that_found_errors_is_told() {
        let known =
            |check: &str| Known { runner: None, entries: Vec::new(), check: Some(check.to_owned()), locks: Vec::new() };
        assert_eq!(kinds(&known("ok")), Vec::<&str>::new());
        assert_eq!(kinds(&known("errors")), ["check_failed"]);
    }
}
