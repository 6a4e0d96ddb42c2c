//! Agents that go and come back, and a coordinator that is killed: what is sent again, and what is not.

mod support;

use fleet_integration::Sandbox;
use serde_json::{Value, json};
use support::{Host, backup, core, group, job_when, journalling, log_of, over, repository};

/// A host with an agent that keeps a journal, and a backup that was sent to it.
fn with_backup(sandbox: &Sandbox) -> (Host, String) {
    let repository = repository(sandbox);
    let mut host = Host::ready_as(sandbox, "web-1", &repository, &journalling("j", &[]));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let job = backup(&sandbox.api(), &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    (host, job)
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_run_that_was_never_accepted_is_sent_again() {
    let sandbox = Sandbox::start().unwrap();
    let (mut host, job) = with_backup(&sandbox);
    host.connect(&sandbox, &journalling("j", &[]));
    assert_eq!(host.run("backup"), job, "again, under the same id");
    // Its answer was on the way when the connection broke: it lists the job, so it has it.
    host.connect(&sandbox, &journalling("j", &[&job]));
    assert_eq!(host.runs_so_far(&sandbox.api()), nothing());
    let accepted = host.accept(&job);
    host.settled(accepted);
    assert!(sandbox.api().job(&job).unwrap()["accepted_at"].is_string());
}

#[test]
fn an_accepted_run_is_not_sent_again_and_what_comes_twice_counts_once() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (mut host, job) = with_backup(&sandbox);
    host.accept(&job);
    host.start(&job, "backup");
    host.log(&job, 0, "zero");
    let last = host.log(&job, 1, "one");
    host.settled(last);
    for round in 0..2 {
        // The acknowledgement was lost: all of it comes again, under the same numbers, and a little more.
        host.connect(&sandbox, &journalling("j", &[&job]));
        host.say_as(2, "command.result", json!({"job_id": job, "accepted": true}));
        host.say_as(3, "job.started", json!({"job_id": job, "kind": "backup", "started_at": "2026-03-01T02:00:00Z"}));
        for seq in 0..4 + round {
            host.log(&job, seq, ["zero", "one", "two", "three", "four"][usize::try_from(seq).unwrap()]);
        }
        let last = host.say("heartbeat", json!({"sent_at": "2026-03-01T02:00:00Z"}));
        host.settled(last);
        assert_eq!(host.runs_so_far(&api), nothing());
    }
    // Same journal, not listed: it is over, and its report is on the way.
    host.connect(&sandbox, &journalling("j", &[]));
    assert_eq!(host.runs_so_far(&api), nothing());
    assert_eq!(api.job(&job).unwrap()["status"], "running");
    let first = host.finish(&job, "succeeded", 3);
    host.settled(first);
    let ended = api.job(&job).unwrap();
    host.connect(&sandbox, &journalling("j", &[]));
    let again = host.finish(&job, "succeeded", 3);
    host.settled(again);
    assert_eq!(api.job(&job).unwrap(), ended);
    let expected = ["zero", "one", "two", "three", "four"];
    assert!(log_of(&api, &job).iter().map(|line| line.1.as_str()).eq(expected));
}

#[test]
fn nothing_is_repeated_to_an_agent_without_a_journal() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let mut host = Host::ready(&sandbox, "go-1", &repository(&sandbox));
    group(&api, &host.id, "docs", Value::Null);
    let job = backup(&api, &host.id, "docs");
    assert_eq!(host.run("backup"), job);
    host.connect(&sandbox, &core());
    assert_eq!(host.runs_so_far(&api), nothing(), "it may be running");
    assert_eq!(api.job(&job).unwrap()["status"], "queued");
    // It was running indeed.
    host.start(&job, "backup");
    host.finish(&job, "succeeded", 0);
    assert_eq!(over(&api, &job)["status"], "succeeded");
}

#[test]
fn a_reinstalled_agent_fails_what_its_journal_had() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let mut host = Host::ready_as(&sandbox, "web-1", &repository, &journalling("old", &[]));
    for name in ["accepted", "running", "sent"] {
        group(&api, &host.id, name, Value::Null);
    }
    let [accepted, running, sent] = ["accepted", "running", "sent"].map(|name| backup(&api, &host.id, name));
    host.accept(&accepted);
    let last = host.start(&running, "backup");
    host.settled(last);
    host.connect(&sandbox, &journalling("new", &[]));
    for job in [&accepted, &running] {
        let job = over(&api, job);
        assert_eq!(job["status"], "failed");
        assert!(job["error"].as_str().unwrap().contains("reinstalled"), "{job}");
    }
    assert_eq!(host.run("backup"), sent, "what was never accepted is sent to the new one");
    // Its lease is free again.
    host.finish(&sent, "succeeded", 0);
    let prune = api.run_job(&host.id, &json!({"kind": "prune"})).unwrap();
    assert_eq!(host.run("prune"), prune);
}

#[test]
fn a_cancel_reaches_an_agent_that_was_away() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (mut host, job) = with_backup(&sandbox);
    let started = host.start(&job, "backup");
    host.settled(started);
    host.disconnect();
    let asked = api.call("POST", &format!("/v1/jobs/{job}/cancel"), None, &[]).unwrap();
    assert_eq!((asked.status, &asked.json["status"]), (202, &json!("running")));
    host.connect(&sandbox, &journalling("j", &[&job]));
    assert_eq!(host.take("command.cancel")["job_id"], job.as_str());
    host.finish(&job, "cancelled", 130);
    assert_eq!(over(&api, &job)["status"], "cancelled");
}

#[test]
fn a_running_job_does_not_notice_that_the_coordinator_was_killed() {
    let mut sandbox = Sandbox::start().unwrap();
    let (mut host, job) = with_backup(&sandbox);
    host.start(&job, "backup");
    let last = host.log(&job, 0, "before");
    host.settled(last);
    let before = sandbox.api().job(&job).unwrap();
    sandbox.restart_with(&[]).unwrap();
    let api = sandbox.api();
    let found = api.job(&job).unwrap();
    for field in ["status", "created_at", "dispatched_at", "accepted_at", "started_at"] {
        assert_eq!(found[field], before[field], "{field}");
    }
    host.connect(&sandbox, &journalling("j", &[&job]));
    assert_eq!(host.runs_so_far(&api), nothing());
    host.say("job.progress", json!({"job_id": job, "percent_done": 0.5, "files_done": 5}));
    for seq in 0..3 {
        host.log(&job, seq, ["before", "after", "and on"][usize::try_from(seq).unwrap()]);
    }
    job_when(&api, &job, |job| job["progress"]["files_done"] == 5 && job["status"] == "running");
    host.finish(&job, "succeeded", 0);
    assert_eq!(over(&api, &job)["status"], "succeeded");
    assert!(log_of(&api, &job).iter().map(|line| line.1.as_str()).eq(["before", "after", "and on"]));
}

#[test]
fn what_was_queued_or_sent_survives_a_kill_and_goes_out_once() {
    let mut sandbox = Sandbox::start().unwrap();
    let (mut host, sent) = with_backup(&sandbox);
    let queued = sandbox.api().run_job(&host.id, &json!({"kind": "prune"})).unwrap();
    let last = sandbox.api().run_job(&host.id, &json!({"kind": "check"})).unwrap();
    let order = [&sent, &queued, &last];
    // Killed right after the 202, again and again.
    for _ in 0..2 {
        sandbox.restart_with(&[]).unwrap();
    }
    let api = sandbox.api();
    let waiting = api.job(&queued).unwrap();
    assert!(waiting["waiting_for"].as_str().is_some_and(|text| text.contains("offline")), "{waiting}");
    host.connect(&sandbox, &journalling("j", &[]));
    for (job, kind) in order.iter().zip(["backup", "prune", "check"]) {
        assert_eq!(&host.run(kind), *job);
        assert_eq!(host.runs_so_far(&api), nothing(), "one at a time, and once");
        host.finish(job, "succeeded", 0);
        over(&api, job);
    }
    assert_eq!(host.runs_so_far(&api), nothing());
    assert_eq!(api.list("/v1/jobs?status=queued").unwrap(), Vec::<Value>::new());
}

#[test]
fn an_agent_without_a_journal_is_not_asked_twice_after_a_kill() {
    let mut sandbox = Sandbox::start().unwrap();
    let mut host = Host::ready(&sandbox, "go-1", &repository(&sandbox));
    group(&sandbox.api(), &host.id, "docs", Value::Null);
    let sent = backup(&sandbox.api(), &host.id, "docs");
    host.run("backup");
    let queued = sandbox.api().run_job(&host.id, &json!({"kind": "prune"})).unwrap();
    sandbox.restart_with(&[]).unwrap();
    host.connect(&sandbox, &core());
    assert_eq!(host.runs_so_far(&sandbox.api()), nothing());
    host.finish(&sent, "succeeded", 0);
    assert_eq!(host.run("prune"), queued);
}

#[test]
fn two_agents_with_one_token_are_noticed_and_a_reinstalled_one_is_not_mistaken_for_that() {
    let sandbox = Sandbox::start().unwrap();
    let mut host = Host::ready_as(&sandbox, "web-1", &repository(&sandbox), &journalling("first", &[]));
    let path = format!("/v1/hosts/{}", host.id);
    host.connect(&sandbox, &journalling("reinstalled", &[]));
    assert_eq!(sandbox.api().get(&path).unwrap()["cloned_at"], Value::Null);
    host.connect(&sandbox, &journalling("first", &[]));
    assert!(sandbox.api().get(&path).unwrap()["cloned_at"].is_string(), "the first journal is still in use");
}
