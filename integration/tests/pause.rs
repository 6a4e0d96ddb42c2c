//! Pauses: nothing new is sent, what is due is skipped, and agents keep no schedule by themselves.

mod support;

use fleet_integration::{Api, Sandbox};
use serde_json::{Value, json};
use support::{Host, backup, group, job_when, journalling, over, repository, until};

fn pause(api: &Api, path: &str, reason: &str) {
    api.call("PUT", &format!("{path}/pause"), Some(&json!({"reason": reason})), &[]).unwrap().ok().unwrap();
}

fn go_on(api: &Api, path: &str) {
    api.call("DELETE", &format!("{path}/pause"), None, &[]).unwrap().ok().unwrap();
}

fn waits_for(api: &Api, job: &str) -> String {
    api.job(job).unwrap()["waiting_for"].as_str().unwrap_or_default().to_owned()
}

/// A host that keeps a journal, with the group docs and a schedule of it that does not fire while a test runs.
fn scheduled(sandbox: &Sandbox, repository: &str, retries: i64) -> (Host, String) {
    let api = sandbox.api();
    let host = Host::ready_as(sandbox, "web-1", repository, &journalling("j", &[]));
    let docs = json!({"name": "docs", "includes": ["/srv"], "retry_max": retries, "retry_backoff_seconds": 0});
    api.create_source_group(&host.id, &docs).unwrap();
    let schedule = json!({"cron": "0 0 1 1 *", "source_groups": ["docs"]});
    let made = api.post(&format!("/v1/hosts/{}/schedules", host.id), &schedule).unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    (host, id)
}

fn fire(host: &mut Host, schedule: &str) -> String {
    let job = uuid::Uuid::now_v7().to_string();
    let now = chrono::Utc::now().to_rfc3339();
    let fired = host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": now, "job_ids": [job]}));
    host.settled(fired);
    job
}

/// The one run of the host, once its outcome is this.
fn run_when(api: &Api, host: &str, outcome: &str) -> Value {
    let one = |list: &Value| list["items"].as_array().is_some_and(|all| all.len() == 1 && all[0]["outcome"] == outcome);
    until(api, &format!("/v1/hosts/{host}/runs"), one)["items"][0].clone()
}

/// What its agent was told of its schedule with the latest version of them.
fn told(host: &mut Host, api: &Api) -> Value {
    let version = api.get(&format!("/v1/hosts/{}", host.id)).unwrap()["schedule_version"].clone();
    loop {
        let set = host.take("schedule.set");
        if set["version"] == version {
            return set["schedules"][0]["enabled"].clone();
        }
    }
}

#[test]
fn a_paused_host_gets_nothing_but_an_unlock_and_its_schedule_stands_still() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let (mut host, schedule) = scheduled(&sandbox, &repository, 0);
    let mut other = Host::ready_as(&sandbox, "web-2", &repository, &journalling("k", &[]));
    group(&api, &other.id, "docs", Value::Null);
    let path = format!("/v1/hosts/{}", host.id);
    pause(&api, &path, "new disks");
    assert_eq!(told(&mut host, &api), json!(false));

    let check = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    assert_eq!(waits_for(&api, &check), "paused: the host, by admin: new disks");
    let waiting = backup(&api, &host.id, "docs");
    let unlock = api.run_job(&host.id, &json!({"kind": "unlock"})).unwrap();
    assert_eq!(host.run("unlock"), unlock);
    // It holds up nobody in its repository.
    let free = backup(&api, &other.id, "docs");
    assert_eq!(other.run("backup"), free);
    api.call("POST", &format!("/v1/jobs/{check}/cancel"), None, &[]).unwrap().ok().unwrap();
    assert_eq!(over(&api, &check)["status"], "cancelled");

    // An agent that has not heard of it fires all the same.
    fire(&mut host, &schedule);
    let run = run_when(&api, &host.id, "skipped");
    assert_eq!(run["reason"], "paused: the host, by admin: new disks");
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());

    go_on(&api, &path);
    assert_eq!(host.run("backup"), waiting);
    assert_eq!(told(&mut host, &api), json!(true));
}

#[test]
fn a_pause_of_the_fleet_outlives_the_coordinator() {
    let mut sandbox = Sandbox::start().unwrap();
    let repository = repository(&sandbox);
    let (mut host, _) = scheduled(&sandbox, &repository, 0);
    pause(&sandbox.api(), "/v1", "the network is moved");
    let job = backup(&sandbox.api(), &host.id, "docs");
    sandbox.restart_with(&[]).unwrap();
    let api = sandbox.api();
    host.open(&sandbox);
    host.hello(&journalling("j", &[]));
    assert_eq!(told(&mut host, &api), json!(false));
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
    assert_eq!(waits_for(&api, &job), "paused: the fleet, by admin: the network is moved");
    let late = api.run_job(&host.id, &json!({"kind": "check"})).unwrap();
    assert!(waits_for(&api, &late).starts_with("paused"));
    go_on(&api, "/v1");
    assert_eq!(host.run("backup"), job);
    job_when(&api, &late, |job| job["waiting_for"].as_str().is_some_and(|text| text.contains("in use")));
}

#[test]
fn what_fails_while_its_repository_is_paused_is_tried_again_once_it_goes_on() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let (mut host, schedule) = scheduled(&sandbox, &repository, 3);
    let job = fire(&mut host, &schedule);
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    pause(&api, &format!("/v1/repositories/{repository}"), "full");
    let failed = host.finish(&job, "failed", 1);
    host.settled(failed);
    // The next attempt is there, and waits.
    let list = until(&api, "/v1/jobs?origin=retry", |list| list["items"].as_array().is_some_and(|all| all.len() == 1));
    let attempt = list["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(waits_for(&api, &attempt), "paused: the repository, by admin: full");
    assert_eq!(host.runs_so_far(&api), Vec::<String>::new());
    go_on(&api, &format!("/v1/repositories/{repository}"));
    assert_eq!(host.run("backup"), attempt);
    assert_eq!(api.job(&attempt).unwrap()["retry_of"], json!(job));
}

#[test]
fn what_was_due_before_a_pause_is_held_however_long_that_takes_and_goes_when_it_ends() {
    let sandbox = Sandbox::start_with(&[("FLEET_QUEUED_LIMIT", "2s"), ("FLEET_MAINTENANCE_JITTER", "0s")]).unwrap();
    let api = sandbox.api();
    let repository = repository(&sandbox);
    let (mut host, schedule) = scheduled(&sandbox, &repository, 0);
    let path = format!("/v1/repositories/{repository}");
    let yearly = json!({"cron": "0 0 1 1 *"});
    let maintenance = json!({"prune": yearly, "check": yearly});
    api.call("PUT", &format!("{path}/maintenance"), Some(&maintenance), &[]).unwrap().ok().unwrap();
    let runs = format!("{path}/runs");
    let outcome = |list: &Value, kind: &str| {
        let items = list["items"].as_array().unwrap();
        items.iter().find(|run| run["kind"] == kind).map(|run| (run["outcome"].clone(), run["reason"].clone()))
    };
    let due = |kind: &str, when: &str| {
        let sql = format!("UPDATE maintenance SET next_due_at = {when} WHERE kind = '{kind}' RETURNING kind");
        assert_eq!(sandbox.database.query(&sql).unwrap().len(), 1);
    };
    pause(&api, &path, "new disks");
    // A prune was due before it, a check comes due in it; a firing from before it is told now.
    due("prune", "clock_timestamp() - interval '1 hour'");
    due("check", "clock_timestamp()");
    let list = until(&api, &runs, |list| outcome(list, "check").is_some_and(|(outcome, _)| outcome == "skipped"));
    assert_eq!(outcome(&list, "check").unwrap().1, "paused: the repository, by admin: new disks");
    let job = uuid::Uuid::now_v7().to_string();
    let before = (chrono::Utc::now() - chrono::TimeDelta::hours(1)).to_rfc3339();
    let fired = host.say("schedule.fire", json!({"schedule_id": schedule, "scheduled_at": before, "job_ids": [job]}));
    host.settled(fired);
    assert!(waits_for(&api, &job).starts_with("paused"));
    // What may not go for another reason has expired since: it has waited for less.
    let other = Host::ready(&sandbox, "web-2", &sandbox.api().create_repository("other", "/srv/other", "pw").unwrap());
    group(&api, &other.id, "docs", Value::Null);
    let offline = other.id.clone();
    drop(other);
    let expired = over(&api, &backup(&api, &offline, "docs"));
    assert!(expired["error"].as_str().unwrap().contains("expired"), "{expired}");
    assert_eq!(outcome(&api.get(&runs).unwrap(), "prune").unwrap().0, "expected");
    assert!(waits_for(&api, &job).starts_with("paused"));
    go_on(&api, &path);
    assert_eq!(host.run("backup"), job);
    host.accept(&job);
    host.finish(&job, "succeeded", 0);
    host.run("prune");
}

#[test]
fn what_an_agent_has_run_by_itself_meanwhile_is_adopted_all_the_same() {
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (mut host, schedule) = scheduled(&sandbox, &repository(&sandbox), 0);
    pause(&api, "/v1", "x");
    let job = fire(&mut host, &schedule);
    assert_eq!(run_when(&api, &host.id, "skipped")["job_id"], Value::Null);
    host.accept(&job);
    host.start(&job, "backup");
    let finished = host.finish(&job, "succeeded", 0);
    host.settled(finished);
    assert_eq!(run_when(&api, &host.id, "succeeded")["job_id"], json!(job));
    assert_eq!(api.job(&job).unwrap()["status"], "succeeded");
}
