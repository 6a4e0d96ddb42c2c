//! Clocks that are wrong and reports that come late, twice and in any order: the record stays sensible.

mod support;

use chrono::{DateTime, SubsecRound, Utc};
use fleet_integration::{Coordinator, CoordinatorSettings, Sandbox};
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use support::{Host, backup, group, journalling, line, log_of, over, repository, until};

const STARTED: &str = "2026-03-01T02:00:00Z";
const FINISHED: &str = "2026-03-01T02:00:09Z";
const ZERO: &str = "0001-01-01T00:00:00Z";
const LINES: i64 = 30;

/// A host whose backups can be asked for.
fn host_with_group(sandbox: &Sandbox) -> Host {
    let host = Host::ready_as(sandbox, "web-1", &repository(sandbox), &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    host
}

/// A backup that was sent to the host.
fn sent(sandbox: &Sandbox, host: &mut Host) -> String {
    let job = backup(&sandbox.api(), &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    job
}

/// All that an agent says about a job, in order.
fn reports(job: &str) -> Vec<(&'static str, Value)> {
    let result = ("command.result", json!({"job_id": job, "accepted": true}));
    let started = ("job.started", json!({"job_id": job, "kind": "backup", "started_at": STARTED}));
    let lines = (0..LINES).map(|seq| ("log.stream", line(job, seq, &format!("line {seq}"))));
    let finished = json!({
        "job_id": job, "status": "succeeded", "exit_code": 3, "finished_at": FINISHED,
        "stats": {"files_new": 7}, "error": "one file could not be read",
    });
    [result, started].into_iter().chain(lines).chain([("job.finished", finished)]).collect()
}

/// The same in another order that `seed` stands for.
fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let place = |index: usize| {
        let mut hasher = DefaultHasher::new();
        (seed, index).hash(&mut hasher);
        hasher.finish()
    };
    let mut indexed: Vec<_> = items.drain(..).enumerate().collect();
    indexed.sort_by_key(|(index, _)| place(*index));
    indexed.into_iter().map(|(_, item)| item).collect()
}

/// What must come of [`reports`], whatever their order. The coordinator's own times are in order and of `today`.
fn is_whole(sandbox: &Sandbox, job: &str, before: Time, what: &str) {
    let record = over(&sandbox.api(), job);
    let expected = json!({
        "status": "succeeded", "partial": true, "exit_code": 3, "error": "one file could not be read",
        "stats": {"files_new": 7}, "started_at": STARTED, "finished_at": FINISHED, "lost_at": null,
        "released_at": null, "cancel_requested_at": null, "attempt": 1, "progress": null,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&record[field], value, "{what}: {field} of {record}");
    }
    own_times_are_in_order(&record, before);
    let lines: Vec<(i64, String)> = (0..LINES).map(|seq| (seq, format!("line {seq}"))).collect();
    assert_eq!(log_of(&sandbox.api(), job), lines, "{what}");
}

/// The times that the coordinator's clock gave.
fn own_times_are_in_order(record: &Value, before: Time) {
    let times = ["created_at", "dispatched_at", "accepted_at", "ended_at"].map(|field| time(&record[field]));
    assert!(times.is_sorted() && times[0] >= before && times[3] <= Utc::now(), "{before}, then {record}");
}

type Time = DateTime<Utc>;

fn time(value: &Value) -> Time {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no time: {value}"))
}

/// In microseconds, as the database keeps it.
fn now() -> Time {
    Utc::now().trunc_subsecs(6)
}

#[test]
fn any_order_and_any_repetition_make_the_same_record() {
    let sandbox = Sandbox::start().unwrap();
    let mut host = host_with_group(&sandbox);
    let before = now();
    for seed in 0..12 {
        let job = sent(&sandbox, &mut host);
        let twice = [reports(&job), reports(&job)].concat();
        // The ends are where it hurts: the outcome first, what it follows from last.
        let mut order = shuffled(twice, seed);
        match seed % 3 {
            0 => order.sort_by_key(|(kind, _)| *kind != "job.finished"),
            1 => order.sort_by_key(|(kind, _)| *kind == "command.result"),
            _ => {}
        }
        let last = order.into_iter().map(|(kind, payload)| host.say(kind, payload)).last().unwrap();
        host.settled(last);
        is_whole(&sandbox, &job, before, &format!("seed {seed}"));
    }
    let said = host.sent_so_far(&sandbox.api());
    let odd: Vec<_> = said.iter().filter(|envelope| envelope["type"] != "ack").collect();
    assert!(odd.is_empty(), "nothing was refused or cancelled, and no job was sent twice: {odd:?}");
}

#[test]
fn what_comes_after_a_restart_fills_the_gaps() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut host = host_with_group(&sandbox);
    let before = now();
    let job = sent(&sandbox, &mut host);
    // The outcome and every third line; all the rest comes to a coordinator that knows the job from its ledger only.
    let early = |(kind, payload): &(&str, Value)| {
        *kind == "job.finished" || payload["seq"].as_i64().is_some_and(|seq| seq % 3 == 0)
    };
    let (first, rest): (Vec<_>, Vec<_>) = reports(&job).into_iter().partition(early);
    let last = first.into_iter().map(|(kind, payload)| host.say(kind, payload)).last().unwrap();
    host.settled(last);
    sandbox.coordinator.process().kill();
    let settings = CoordinatorSettings { database_url: Some(sandbox.database.url()), ..CoordinatorSettings::default() };
    sandbox.coordinator = Coordinator::start(&sandbox.path("coordinator"), &settings).unwrap();
    host.connect(&sandbox, &journalling("j", &[]));
    // Everything again, for the acknowledgements were lost too.
    let again = shuffled([rest, reports(&job)].concat(), 1);
    let last = again.into_iter().map(|(kind, payload)| host.say(kind, payload)).last().unwrap();
    host.settled(last);
    is_whole(&sandbox, &job, before, "after a restart");
    // Its lease is free.
    let prune = sandbox.api().run_job(&host.id, &json!({"kind": "prune"})).unwrap();
    assert_eq!(host.run("prune"), prune);
}

#[test]
fn a_wrong_clock_is_kept_as_reported_and_decides_nothing() {
    let sandbox = Sandbox::start().unwrap();
    let mut host = host_with_group(&sandbox);
    let api = sandbox.api();
    let path = format!("/v1/hosts/{}", host.id);
    let mut jobs = Vec::new();
    for clock in ["1970-01-01T00:00:01Z", "2099-12-31T23:59:59Z", "9999-12-31T23:59:59Z", ZERO] {
        let before = now();
        host.say("heartbeat", json!({"sent_at": clock}));
        let job = sent(&sandbox, &mut host);
        host.accept(&job);
        host.say("job.started", json!({"job_id": job, "kind": "backup", "started_at": clock}));
        let mut line = line(&job, 0, "tick");
        line["ts"] = json!(clock);
        host.say("log.stream", line);
        let ended = json!({"job_id": job, "status": "succeeded", "exit_code": 0, "finished_at": clock});
        let last = host.say("job.finished", ended);
        host.settled(last);
        let record = over(&api, &job);
        assert_eq!(record["status"], "succeeded", "{record}");
        own_times_are_in_order(&record, before);
        let stored = &api.logs(&job).unwrap()[0]["ts"];
        for reported in [&record["started_at"], &record["finished_at"], stored] {
            // Go writes the zero time when it knows none: then the time of arrival stands for it.
            match clock {
                ZERO => assert!((before..=Utc::now()).contains(&time(reported)), "{record}"),
                clock => assert_eq!(reported, clock),
            }
        }
        let seen = until(&api, &path, |host| time(&host["last_seen_at"]) >= before);
        assert!(seen["status"] == "online" && time(&seen["last_seen_at"]) <= Utc::now(), "{seen}");
        jobs.insert(0, job);
    }
    // The list is by when the coordinator made them.
    let listed: Vec<Value> = api.list("/v1/jobs?kind=backup").unwrap();
    assert!(listed.iter().map(|job| &job["id"]).eq(jobs.iter()), "{listed:?}");
}
