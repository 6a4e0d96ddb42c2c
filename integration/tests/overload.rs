//! An agent that says more than the coordinator can write: memory stays bounded, others are served, nothing is lost.

mod support;

use fleet_integration::Sandbox;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};
use support::{Host, backup, group, job_when, journalling, over};

/// What the coordinator may take at most, in KiB: 512 KiB wait in each session, and as much again on every step of the
/// way; the rest is what it takes at rest (a debug build), and the allocator's slack.
const MOST_KIB: u64 = 200 * 1024;
/// A job that another host is asked for meanwhile must be with its agent after this time.
const USABLE: Duration = Duration::from_secs(5);

/// The most memory that the coordinator ever had, in KiB.
fn peak_kib(sandbox: &mut Sandbox) -> u64 {
    let path = format!("/proc/{}/status", sandbox.coordinator.process().id());
    let status = fs::read_to_string(&path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A host with a journal, and a repository of its own that nobody ever opens.
fn connected(sandbox: &Sandbox, name: &str) -> Host {
    let repository = sandbox.api().create_repository(name, &format!("/nowhere/{name}"), "password").unwrap();
    Host::ready_as(sandbox, name, &repository, &journalling(name, &[]))
}

/// A host with a running backup.
fn running(sandbox: &Sandbox, name: &str) -> (Host, String) {
    let mut host = connected(sandbox, name);
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let job = backup(&sandbox.api(), &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    host.start(&job, "backup");
    (host, job)
}

/// How many lines the coordinator has of a job, and whether they are in order without a gap.
fn stored(sandbox: &Sandbox, job: &str) -> (usize, bool) {
    let lines = sandbox.api().logs(job).unwrap();
    let in_order = lines.iter().zip(0..).all(|(line, seq)| line["seq"] == json!(seq));
    (lines.len(), in_order)
}

#[test]
fn a_flood_of_lines_and_progress_disturbs_nobody() {
    const LINES: i64 = 60_000;
    let mut sandbox = Sandbox::start().unwrap();
    let (mut flooder, job) = running(&sandbox, "flooder");
    let mut other = connected(&sandbox, "other");
    let api = sandbox.api();
    let flood = std::thread::spawn(move || {
        let payload = "x".repeat(300);
        for seq in 0..LINES {
            flooder.log(&job, seq, &payload);
            flooder.say("job.progress", json!({"job_id": job, "percent_done": 0.5, "files_done": seq}));
        }
        flooder.finish(&job, "succeeded", 0);
        (flooder, job)
    });
    let mut slowest = Duration::ZERO;
    while !flood.is_finished() {
        let asked = Instant::now();
        let check = api.run_job(&other.id, &json!({"kind": "check"})).unwrap();
        assert_eq!(other.run("check"), check);
        slowest = slowest.max(asked.elapsed());
        other.accept(&check);
        other.start(&check, "check");
        other.finish(&check, "succeeded", 0);
        assert_eq!(over(&api, &check)["status"], "succeeded");
    }
    let (_flooder, job) = flood.join().unwrap();
    job_when(&api, &job, |job| job["status"] == "succeeded");
    assert_eq!(stored(&sandbox, &job), (usize::try_from(LINES).unwrap(), true));
    assert!(slowest < USABLE, "another host waited {slowest:?}");
    let peak = peak_kib(&mut sandbox);
    assert!(peak < MOST_KIB, "the coordinator took {peak} KiB");
}

#[test]
fn lines_of_a_megabyte_are_stored_whole_in_bounded_memory() {
    const LINES: i64 = 48;
    let mut sandbox = Sandbox::start().unwrap();
    let (mut host, job) = running(&sandbox, "wide");
    let payload = "0123456789abcdef".repeat(64 * 1024);
    for seq in 0..LINES {
        host.log(&job, seq, &payload);
    }
    let last = host.finish(&job, "succeeded", 0);
    host.settled(last);
    assert_eq!(stored(&sandbox, &job), (usize::try_from(LINES).unwrap(), true));
    let peak = peak_kib(&mut sandbox);
    assert!(peak < MOST_KIB, "the coordinator took {peak} KiB");
}
