//! More than the coordinator can write or serve at once: memory stays bounded, others are served, nothing is lost.

mod support;

use fleet_integration::{Coordinator, CoordinatorSettings, Crowd, Sandbox, eventually, restics};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{Host, backup, enroll_many, group, job_when, journalling, over};

/// What the coordinator may take at most, in KiB: 512 KiB wait in each session, and as much again on every step of the
/// way; the rest is what it takes at rest (a debug build), and the allocator's slack.
const MOST_KIB: u64 = 128 * 1024;
/// What a thousand agents may add to that, and an agent may take at most. docs/operations.md states these bounds.
const MOST_KIB_OF_A_SWARM: u64 = MOST_KIB + 1_000 * 64;
const MOST_KIB_OF_AN_AGENT: u64 = 128 * 1024;
/// A job that another host is asked for meanwhile must be with its agent after this time.
const USABLE: Duration = Duration::from_secs(5);
/// A thousand agents, and a job with a very large log.
const LONG: Duration = Duration::from_secs(180);

/// The coordinator has stayed within `most` KiB.
fn is_bounded(sandbox: &mut Sandbox, most: u64) {
    let peak = sandbox.coordinator.process().peak_kib().unwrap();
    eprintln!("the coordinator took {peak} KiB at most");
    assert!(peak < most, "the coordinator took {peak} KiB");
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
    let flood = thread::spawn(move || {
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
    is_bounded(&mut sandbox, MOST_KIB);
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
    is_bounded(&mut sandbox, MOST_KIB);
}

#[test]
fn a_thousand_agents_that_come_back_at_once_are_served() {
    const AGENTS: usize = 1_000;
    let mut sandbox = Sandbox::start().unwrap();
    let hosts = enroll_many(&sandbox, AGENTS);
    let address = sandbox.coordinator.address().to_owned();
    let crowd = Crowd::start(&address, hosts.clone()).unwrap();
    let all_there = |greetings: usize| {
        eventually("every agent to be greeted", LONG, || {
            let seen = (crowd.greeted(), crowd.greetings());
            if seen.0 == AGENTS && seen.1 >= greetings { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .unwrap();
    };
    all_there(AGENTS);
    // Each host initialises its repository first.
    eventually("every init to be over", LONG, || match sandbox.api().list("/v1/jobs?kind=init&status=succeeded") {
        Ok(jobs) if jobs.len() == AGENTS => Ok(()),
        seen => Err(format!("{:?}", seen.map(|jobs| jobs.len()))),
    })
    .unwrap();
    is_bounded(&mut sandbox, MOST_KIB_OF_A_SWARM);

    sandbox.coordinator.process().kill();
    let settings = CoordinatorSettings {
        database_url: Some(sandbox.database.url()),
        listen: Some(address),
        ..CoordinatorSettings::default()
    };
    sandbox.coordinator = Coordinator::start(&sandbox.path("coordinator"), &settings).unwrap();
    all_there(2 * AGENTS);
    let api = sandbox.api();
    assert_eq!(api.list("/v1/hosts?status=online").unwrap().len(), AGENTS);
    let jobs: Vec<String> =
        hosts.iter().step_by(20).map(|host| api.run_job(&host.id, &json!({"kind": "check"})).unwrap()).collect();
    for job in &jobs {
        assert_eq!(over(&api, job)["status"], "succeeded");
    }
    assert_eq!(crowd.jobs(), AGENTS + jobs.len(), "each was sent once");
    is_bounded(&mut sandbox, MOST_KIB_OF_A_SWARM);
}

/// Asks without a pause until it is `over`; gives how often.
fn hammer(over: &AtomicBool, ask: impl Fn(usize)) -> usize {
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        ask(asked);
        asked += 1;
    }
    asked
}

#[test]
fn rest_clients_in_a_loop_hold_up_no_agent() {
    const LINES: i64 = 10_000;
    let mut sandbox = Sandbox::start().unwrap();
    let (mut host, job) = running(&sandbox, "web-1");
    let (api, finished) = (sandbox.api(), AtomicBool::new(false));
    let status = |method: &str, path: &str, body: Option<&Value>| api.call(method, path, body, &[]).unwrap().status;
    let repository = |name: &str| json!({"name": name, "url": format!("/nowhere/{name}"), "password": "pw"});
    let large = json!({"name": "x".repeat(2 << 20)});
    let log = format!("/v1/jobs/{job}/logs");
    let create = |number: usize| {
        assert_eq!(status("POST", "/v1/repositories", Some(&repository(&format!("r{number}")))), 201);
    };
    let bad = |number: usize| match number % 4 {
        0 => assert_eq!(status("POST", "/v1/repositories", Some(&json!({"nonsense": true}))), 422),
        1 => assert_eq!(status("GET", "/v1/hosts?limit=x", None), 400),
        2 => assert_eq!(status("POST", "/v1/repositories", Some(&large)), 413),
        _ => assert_eq!(api.with_token("wrong").call("GET", "/v1/hosts", None, &[]).unwrap().status, 401),
    };
    let asked: Vec<usize> = thread::scope(|scope| {
        let read = scope.spawn(|| hammer(&finished, |_| assert_eq!(status("GET", "/v1/jobs?limit=500", None), 200)));
        let logs = scope.spawn(|| hammer(&finished, |_| assert_eq!(status("GET", &log, None), 200)));
        let write = scope.spawn(|| hammer(&finished, create));
        let bad = scope.spawn(|| hammer(&finished, bad));
        for seq in 0..LINES {
            host.log(&job, seq, "a line while others ask and ask");
        }
        let last = host.finish(&job, "succeeded", 0);
        host.settled(last);
        finished.store(true, Ordering::Relaxed);
        [read, logs, write, bad].into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(asked.iter().all(|asked| *asked > 0), "{asked:?}");
    assert_eq!(over(&api, &job)["status"], "succeeded");
    assert_eq!(stored(&sandbox, &job), (usize::try_from(LINES).unwrap(), true));
    is_bounded(&mut sandbox, MOST_KIB);
}

#[test]
fn a_real_agent_with_a_hook_that_floods_loses_no_line() {
    const LINES: usize = 200_000;
    const WIDE: usize = 20;
    let mut sandbox = Sandbox::start().unwrap();
    let restic = restics().unwrap().pop().unwrap();
    let (repository, _) = sandbox.repository("repository", &restic).unwrap();
    let (mut agent, host) = sandbox.agent("flooder", &repository, &restic).unwrap();
    let source = sandbox.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "content").unwrap();
    let api = sandbox.api();
    // A line of a million bytes, then many short ones, again and again; the numbers say whether any is missing.
    let each = LINES / WIDE;
    let hook = format!(
        "for first in $(seq 0 {each} {}); do printf '%06d.' $first; head -c 999993 /dev/zero | tr '\\0' x; echo; \
         seq -f %06.0f $((first + 1)) $((first + {each} - 1)); done",
        LINES - 1
    );
    let group = json!({"name": "docs", "includes": [source], "pre_hook": hook});
    api.create_source_group(&host, &group).unwrap();
    let began = Instant::now();
    let job = backup(&api, &host, "docs");
    let ended = api.finished_job(&job, LONG).unwrap();
    assert_eq!(ended["status"], "succeeded", "{ended}");
    eprintln!("{LINES} lines took {:?}", began.elapsed());
    let log = api.logs(&job).unwrap();
    assert!(log.iter().zip(0..).all(|(line, seq)| line["seq"] == json!(seq)), "a gap, or a line twice");
    let text = |line: &Value| line["payload"].as_str().unwrap().to_owned();
    let numbers: Vec<usize> = log.iter().filter_map(|line| text(line).get(..6)?.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(0..LINES), "{} lines of the hook", numbers.len());
    assert_eq!(log.iter().filter(|line| text(line).len() == 1_000_000).count(), WIDE);
    let peak = agent.process().peak_kib().unwrap();
    eprintln!("the agent took {peak} KiB at most");
    assert!(peak < MOST_KIB_OF_AN_AGENT, "the agent took {peak} KiB");
    is_bounded(&mut sandbox, MOST_KIB);
}
