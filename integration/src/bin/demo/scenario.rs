//! What the demo does, and what must come of it. Whatever does not fit ends the demo.

use crate::board::{Followed, follow, one_line};
use crate::files;
use crate::fleet::{Fleet, Group, Host};
use crate::screen::{Screen, bytes, count};
use crate::stop;
use fleet_integration::{Context, Failure, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// How long a projection may lag behind its job.
const LAG: Duration = Duration::from_secs(20);
/// Far more than the second backup of an image may add in which a few bytes changed.
const FEW_BYTES: i64 = 16 << 20;
/// Length of a lock's file name: a SHA-256 in hexadecimal.
const LOCK_NAME: usize = 64;

/// Plays it all.
pub(crate) fn play(fleet: &mut Fleet, screen: &Screen) -> Result<(), Failure> {
    screen.heading("Repositories are made when their first host connects");
    init(fleet, screen)?;
    screen.heading("First backup: this checkout, /usr/share/doc, odd names, a 1 GiB sparse file");
    let first = backups(fleet, screen)?;
    snapshots_are(fleet, 1)?;
    screen.heading("Second backup, after changes: only what is new is stored");
    let changed = change(fleet)?;
    let second = backups(fleet, screen)?;
    second_is_small(&first, &second, &changed)?;
    snapshots_are(fleet, 2)?;
    screen.heading("Forget: every source group keeps its last snapshot");
    each_host(fleet, screen, "forget")?;
    snapshots_are(fleet, 1)?;
    screen.heading("Prune, then check all data: once for each repository");
    each_repository(fleet, screen, &json!({"kind": "prune"}))?;
    prune_freed_space(fleet)?;
    each_repository(fleet, screen, &json!({"kind": "check", "args": ["100%"]}))?;
    screen.heading("Unlock: a restic that was killed has left a lock");
    unlock(fleet, screen)?;
    screen.heading("Restore with restic alone, and compare");
    restore(fleet, screen)?;
    fleet.must_run()
}

fn init(fleet: &Fleet, screen: &Screen) -> Result<(), Failure> {
    let mut inits = Vec::new();
    for host in &fleet.hosts {
        let path = format!("/v1/jobs?kind=init&host_id={}", host.id);
        let id = eventually(&format!("an init job of {}", host.name), LAG, || {
            let found = fleet.api.list(&path)?;
            let id = found.first().and_then(|job| job["id"].as_str().map(str::to_owned));
            id.ok_or_else(|| Failure::new("none"))
        })?;
        inits.push(followed(host, "init", id));
    }
    let jobs = follow(&fleet.api, screen, &inits, took)?;
    jobs.iter().try_for_each(|job| {
        succeeded(job)?;
        must(job["origin"] == "first_connect", "init's origin is first_connect", job)
    })?;
    never_two_at_once(fleet, &jobs)
}

/// Two racing `restic init` could destroy the shared repository.
fn never_two_at_once(fleet: &Fleet, inits: &[Value]) -> Result<(), Failure> {
    for repository in &fleet.repositories {
        let mut times: Vec<(&str, &str)> = inits
            .iter()
            .filter(|job| job["repository_id"] == repository.id.as_str())
            .filter_map(|job| Some((job["dispatched_at"].as_str()?, job["ended_at"].as_str()?)))
            .collect();
        times.sort_unstable();
        let apart = times.windows(2).all(|pair| parsed(pair[0].1) <= parsed(pair[1].0));
        must(apart, "one init after the other in a repository", &json!(times))?;
    }
    Ok(())
}

fn parsed(time: &str) -> Option<chrono::DateTime<chrono::FixedOffset>> {
    chrono::DateTime::parse_from_rfc3339(time).ok()
}

/// One backup of every source group; the jobs in the order of hosts and groups.
fn backups(fleet: &Fleet, screen: &Screen) -> Result<Vec<Value>, Failure> {
    let mut wanted = Vec::new();
    for (host, group) in groups(fleet) {
        let id = fleet.api.run_job(&host.id, &json!({"kind": "backup", "source_group": group.name}))?;
        wanted.push(followed(host, group.name, id));
    }
    let jobs = follow(&fleet.api, screen, &wanted, backup_summary)?;
    for ((host, group), job) in groups(fleet).zip(&jobs) {
        backup_is_right(group, job).context(format!("backup of {} on {}", group.name, host.name))?;
    }
    Ok(jobs)
}

fn groups(fleet: &Fleet) -> impl Iterator<Item = (&Host, &Group)> {
    fleet.hosts.iter().flat_map(|host| host.groups.iter().map(move |group| (host, group)))
}

fn backup_is_right(group: &Group, job: &Value) -> Result<(), Failure> {
    succeeded(job)?;
    let partial = group.unreadable > 0;
    must(job["partial"] == partial, &format!("partial is {partial}"), job)?;
    must(job["exit_code"] == if partial { 3 } else { 0 }, "the exit code tells partial from complete", job)?;
    let said = job["error"].as_str().is_some_and(|error| !error.is_empty());
    must(said == partial, "an error text if it is partial, and only then", job)?;
    must(job["stats"]["snapshot_id"].is_string(), "restic's summary names the snapshot", job)
}

/// Changes what is ours to change; the other folders stay as they are.
fn change(fleet: &Fleet) -> Result<files::Changed, Failure> {
    let find = |name| groups(fleet).find(|(_, group)| group.name == name).map(|(_, group)| &group.folder);
    let missing = || Failure::new("a source group of the demo is missing");
    files::change_sparse(find("sparse").ok_or_else(missing)?)?;
    files::change_odd(find("odd-names").ok_or_else(missing)?)
}

fn second_is_small(first: &[Value], second: &[Value], changed: &files::Changed) -> Result<(), Failure> {
    let of = |jobs: &[Value], group: &str| {
        jobs.iter().find(|job| job["source_group"] == group).map(|job| job["stats"].clone()).unwrap_or_default()
    };
    let docs = of(second, "docs");
    must(docs["files_new"] == 0 && docs["files_changed"] == 0, "nothing new in /usr/share/doc", &docs)?;
    must(docs["total_files_processed"] == of(first, "docs")["total_files_processed"], "all of it is there", &docs)?;
    let odd = of(second, "odd-names");
    let right = odd["files_new"] == changed.new && odd["files_changed"] == changed.changed;
    must(right, &format!("as many new and changed files as there are: {changed:?}"), &odd)?;
    let sparse = of(second, "sparse");
    must(sparse["files_changed"] == 1, "the image has changed", &sparse)?;
    must(sparse["data_added"].as_i64().is_some_and(|added| added < FEW_BYTES), "little of it is new", &sparse)
}

/// Coordinator and repositories agree that every source group has `each` snapshots.
fn snapshots_are(fleet: &Fleet, each: usize) -> Result<(), Failure> {
    for host in &fleet.hosts {
        let path = format!("/v1/hosts/{}/snapshots", host.id);
        eventually(&format!("{each} snapshots of each group of {}", host.name), LAG, || {
            let known = fleet.api.list(&path)?;
            let right = host.groups.iter().all(|group| tagged(&known, host.name, group.name) == each);
            must(right && known.len() == each * host.groups.len(), "as many as there are", &json!(known))
        })?;
    }
    for (index, repository) in fleet.repositories.iter().enumerate() {
        let there = repository.restic.snapshots()?;
        for (host, group) in groups(fleet).filter(|(host, _)| host.repository == index) {
            let found = tagged(&there, host.name, group.name);
            must(found == each, &format!("{each} snapshots of {} in {}", group.name, repository.name), &json!(there))?;
        }
    }
    Ok(())
}

fn tagged(snapshots: &[Value], host: &str, tag: &str) -> usize {
    let fits = |snapshot: &&Value| snapshot["hostname"] == host && snapshot["tags"] == json!([tag]);
    snapshots.iter().filter(fits).count()
}

fn each_host(fleet: &Fleet, screen: &Screen, kind: &str) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    for host in &fleet.hosts {
        wanted.push(followed(host, kind, fleet.api.run_job(&host.id, &json!({"kind": kind}))?));
    }
    follow(&fleet.api, screen, &wanted, took)?.iter().try_for_each(succeeded)
}

/// A job on the first host of each repository.
fn each_repository(fleet: &Fleet, screen: &Screen, job: &Value) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    for index in 0..fleet.repositories.len() {
        let host = first_host(fleet, index)?;
        let kind = job["kind"].as_str().unwrap_or_default();
        wanted.push(followed(host, kind, fleet.api.run_job(&host.id, job)?));
    }
    follow(&fleet.api, screen, &wanted, took)?.iter().try_for_each(succeeded)
}

fn first_host(fleet: &Fleet, repository: usize) -> Result<&Host, Failure> {
    let found = fleet.hosts.iter().find(|host| host.repository == repository);
    found.ok_or_else(|| Failure::new("a repository of the demo has no host"))
}

/// In the own repository the first random file went with its snapshot.
fn prune_freed_space(fleet: &Fleet) -> Result<(), Failure> {
    for repository in &fleet.repositories {
        stats_show(fleet, &repository.id, "a prune", |stats| stats["last_prune_at"].is_string())?;
    }
    let freed = |stats: &Value| stats["last_prune_freed_bytes"].as_i64().is_some_and(|freed| freed > FEW_BYTES / 2);
    stats_show(fleet, &fleet.repositories[1].id, "the old random file to be gone", freed)
}

fn stats_show(fleet: &Fleet, id: &str, what: &str, right: impl Fn(&Value) -> bool) -> Result<(), Failure> {
    eventually(&format!("statistics that show {what}"), LAG, || {
        let stats = fleet.api.get(&format!("/v1/repositories/{id}/stats"))?;
        must(right(&stats), what, &stats)
    })
}

fn unlock(fleet: &Fleet, screen: &Screen) -> Result<(), Failure> {
    let (host, repository) = (first_host(fleet, 1)?, &fleet.repositories[1]);
    leave_a_lock(fleet)?;
    let id = fleet.api.run_job(&host.id, &json!({"kind": "unlock"}))?;
    let jobs = follow(&fleet.api, screen, &[followed(host, "unlock", id)], took)?;
    jobs.iter().try_for_each(succeeded)?;
    let left = repository.restic.locks()?;
    must(left.is_empty(), "no lock stands", &json!(left))?;
    stats_show(fleet, &repository.id, "no lock", |stats| stats["lock_present"] == false)
}

/// A backup that waits for its input is killed: nothing of it is left but its lock.
fn leave_a_lock(fleet: &Fleet) -> Result<(), Failure> {
    let restic = &fleet.repositories[1].restic;
    let log = fleet.path("killed-restic.log");
    let mut backup = restic.command(&["backup", "--stdin", "--quiet"]);
    backup.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
    let mut child = backup.spawn()?;
    let folder = Path::new(&restic.repository).join("locks");
    let locked = eventually("restic's lock", LAG, || {
        stop::check()?;
        let said = fs::read_to_string(&log)?;
        must(child.try_wait()?.is_none(), "restic waits for its input", &json!(said))?;
        let locks = names(&folder)?;
        // While it is being written it has a longer name; killed then, restic would leave no lock.
        must(locks.iter().any(|name| name.len() == LOCK_NAME), "a lock is there", &json!(locks))
    });
    child.kill()?;
    let ended = child.wait()?;
    locked?;
    let (there, listed) = (names(&folder)?, restic.locks()?);
    let seen = json!({"files": there, "listed": listed, "restic": ended.to_string()});
    must(!listed.is_empty(), "a lock stands", &seen)
}

fn names(folder: &Path) -> Result<Vec<String>, Failure> {
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    Ok(fs::read_dir(folder)?.flatten().map(name).collect())
}

fn restore(fleet: &Fleet, screen: &Screen) -> Result<(), Failure> {
    let (host, group) = groups(fleet)
        .find(|(_, group)| group.name == "odd-names")
        .ok_or_else(|| Failure::new("the odd names are not in the demo"))?;
    let restic = &fleet.repositories[host.repository].restic;
    let snapshots = restic.snapshots()?;
    let snapshot = snapshots.iter().find(|snapshot| snapshot["tags"] == json!([group.name]));
    let id = snapshot.and_then(|snapshot| snapshot["id"].as_str()).unwrap_or_default();
    let target = fleet.path("restored");
    fs::create_dir(&target)?;
    if let Some(account) = &restic.account {
        account.own(&target)?;
    }
    restic.restore(id, &target)?;
    let restored = target.join(group.folder.strip_prefix("/")?);
    match files::difference(&group.folder, &restored)? {
        None => screen.done("odd-names", "every readable file came back byte for byte"),
        Some(difference) => return Err(Failure::new(format!("restored, but {difference}"))),
    }
    Ok(())
}

fn followed(host: &Host, what: &str, id: String) -> Followed {
    Followed { host: host.name.to_owned(), what: what.to_owned(), id }
}

fn succeeded(job: &Value) -> Result<(), Failure> {
    must(job["status"] == "succeeded", "the job succeeded", job)
}

/// An error that says what should hold and what is there instead.
fn must(holds: bool, what: &str, seen: &Value) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(format!("expected: {what}; found: {seen}"))) }
}

/// How long a job took, and what it freed if it says so.
fn took(job: &Value) -> String {
    let freed = job["stats"]["freed_bytes"].as_i64().map(|freed| format!(", {} freed", bytes(freed)));
    format!("{}{}", seconds(job), freed.unwrap_or_default())
}

/// Seconds from a job's start to its end.
pub(crate) fn seconds(job: &Value) -> String {
    let time = |field: &str| job[field].as_str().and_then(parsed);
    match (time("started_at"), time("finished_at")) {
        (Some(start), Some(end)) => format!("{:.1} s", (end - start).as_seconds_f64()),
        _ => String::new(),
    }
}

fn backup_summary(job: &Value) -> String {
    let stats = &job["stats"];
    let number = |field: &str| stats[field].as_i64().unwrap_or(0);
    let mut text = format!(
        "{}, {}; {} new, {}",
        count(number("total_files_processed"), "file"),
        bytes(number("total_bytes_processed")),
        bytes(number("data_added")),
        seconds(job)
    );
    if job["partial"] == true {
        text.push_str(&format!("\n      partial: {}", one_line(&job["error"], 64)));
    }
    text
}
