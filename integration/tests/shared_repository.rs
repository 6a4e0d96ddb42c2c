//! Hosts that share a repository, with real agents and real restic: backups, forget, prune and check all want it at one
//! time, and no restic ever meets a lock.

use fleet_integration::{Agent, Api, Failure, Restic, Sandbox, eventually, restics};
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);
const HOSTS: usize = 4;
/// What an agent writes into a job's log that waits for somebody else's lock.
const WAITS: &str = "fleet_waits_for_lock";

/// An agent with a source group of which one snapshot is kept; its host's id.
fn host(sandbox: &Sandbox, repository: &str, number: usize) -> (Agent, String) {
    let restic = restics().unwrap().remove(0);
    let (agent, host) = sandbox.agent(&format!("host-{number}"), repository, &restic).unwrap();
    let source = sandbox.path(&format!("source-{number}"));
    fs::create_dir(&source).unwrap();
    // Enough that a backup takes a moment.
    for file in 0..50 {
        fs::write(source.join(file.to_string()), vec![u8::try_from(number).unwrap(); 20_000 + file]).unwrap();
    }
    let group = json!({"name": "docs", "includes": [source.display().to_string()], "retention": {"keep_last": 1}});
    sandbox.api().create_source_group(&host, &group).unwrap();
    (agent, host)
}

/// The jobs of the repository, once there are so many and all are over.
fn all_over(api: &Api, count: usize) -> Vec<Value> {
    let look = || {
        let jobs = api.list("/v1/jobs")?;
        let open = jobs.iter().filter(|job| job["status"] == "queued" || job["status"] == "running");
        match (jobs.len() >= count, open.count()) {
            (true, 0) => Ok(jobs),
            (_, open) => Err(Failure::new(format!("{} jobs, {open} not over: {jobs:?}", jobs.len()))),
        }
    };
    eventually("all jobs to be over", LIMIT, look).unwrap()
}

/// How many snapshots of each host there are.
fn snapshots_of_each(real: &Restic) -> Vec<usize> {
    let there = real.snapshots().unwrap();
    let of = |number| there.iter().filter(|snapshot| snapshot["hostname"] == format!("host-{number}")).count();
    (0..HOSTS).map(of).collect()
}

#[test]
fn no_restic_meets_a_lock_while_all_want_the_repository() {
    let restic = restics().unwrap().remove(0);
    let sandbox = Sandbox::start_with(&[("FLEET_MAINTENANCE_JITTER", "0s")]).unwrap();
    let api = sandbox.api();
    let (repository, real) = sandbox.repository("shared", &restic).unwrap();
    let hosts: Vec<(Agent, String)> = (0..HOSTS).map(|number| host(&sandbox, &repository, number)).collect();
    all_over(&api, HOSTS);
    let maintenance = json!({
        "forget": {"cron": "0 0 1 1 *"}, "prune": {"cron": "0 0 1 1 *"}, "check": {"cron": "0 0 1 1 *", "subset": "1/7"},
        "runner_host_id": hosts[0].1,
    });
    api.call("PUT", &format!("/v1/repositories/{repository}/maintenance"), Some(&maintenance), &[])
        .unwrap()
        .ok()
        .unwrap();
    let mut count = HOSTS;
    for round in 1..=3 {
        for (_, host) in &hosts {
            for _ in 0..2 {
                api.run_job(host, &json!({"kind": "backup", "source_group": "docs"})).unwrap();
            }
        }
        let due = "UPDATE maintenance SET next_due_at = date_trunc('second', now()) RETURNING kind";
        assert_eq!(sandbox.database.query(due).unwrap().len(), 3);
        count += 2 * HOSTS + 3;
        let runs = format!("/v1/repositories/{repository}/runs");
        eventually("the maintenance", LIMIT, || {
            let list = api.list(&runs)?;
            let open = list.iter().any(|run| run["outcome"] == "expected" || run["outcome"] == "running");
            if open || list.len() < 3 * round { Err(Failure::new(format!("{list:?}"))) } else { Ok(()) }
        })
        .unwrap();
    }
    let jobs = all_over(&api, count);
    assert_eq!(jobs.len(), count);
    for job in &jobs {
        assert_eq!(job["status"], "succeeded", "{job}");
        let id = job["id"].as_str().unwrap();
        let log = api.logs(id).unwrap();
        assert!(
            !log.iter().any(|line| line["payload"].as_str().is_some_and(|text| text.contains(WAITS))),
            "{job} {log:?}"
        );
    }
    let checks: Vec<&Value> = jobs.iter().filter(|job| job["kind"] == "check").collect();
    assert_eq!(checks.len(), 3);
    // The last forget came before or after some backups; one more leaves one snapshot of each host, and only of its own group.
    let last = api.run_job(&hosts[0].1, &json!({"kind": "forget"})).unwrap();
    assert_eq!(api.finished_job(&last, LIMIT).unwrap()["status"], "succeeded");
    let left = snapshots_of_each(&real);
    assert_eq!(left[0], 1, "{left:?}");
    assert!(left[1..].iter().all(|count| *count >= 1), "{left:?}");
    assert!(real.run(&["check"]).unwrap().contains("no errors"));
}

/// Leaves the lock of a backup whose restic was killed.
fn leave_a_lock(real: &Restic) {
    let mut endless = real.command(&["backup", "--stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    eventually("its lock", LIMIT, || {
        let locks = real.locks()?;
        if locks.len() == 1 { Ok(()) } else { Err(Failure::new(format!("{locks:?}"))) }
    })
    .unwrap();
    endless.kill().unwrap();
    endless.wait().unwrap();
}

#[test]
fn the_lock_of_a_killed_restic_is_offered_for_an_unlock() {
    let restic = restics().unwrap().remove(0);
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (repository, real) = sandbox.repository("repository", &restic).unwrap();
    let (_agent, host) = host(&sandbox, &repository, 0);
    all_over(&api, 1);
    let ended = |kind: &str| api.finished_job(&api.run_job(&host, &json!({"kind": kind})).unwrap(), LIMIT).unwrap();
    let health = || api.get(&format!("/v1/repositories/{repository}")).unwrap()["health"].clone();
    leave_a_lock(&real);
    let prune = ended("prune");
    assert_eq!((&prune["status"], &prune["stats"]["lock"]["standing"]), (&json!("failed"), &json!("dead")), "{prune}");
    let found = health();
    let problem = &found["problems"][0];
    assert_eq!((&found["status"], &problem["type"]), (&json!("degraded"), &json!("stale_lock")), "{found}");
    assert_eq!((&problem["met_by_job_id"], &problem["unlock_host_id"]), (&prune["id"], &json!(host)));
    assert_eq!(real.locks().unwrap().len(), 1, "nobody removes it unasked");
    assert_eq!(ended("unlock")["status"], "succeeded");
    assert_eq!((health()["status"].as_str(), real.locks().unwrap().len()), (Some("ok"), 0));
    assert_eq!(ended("prune")["status"], "succeeded");
}

#[test]
fn a_forget_that_would_delete_too_much_waits_for_a_person_who_has_seen_the_list() {
    let restic = restics().unwrap().remove(0);
    let sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (repository, real) = sandbox.repository("repository", &restic).unwrap();
    let (_agent, host) = host(&sandbox, &repository, 0);
    all_over(&api, 1);
    for _ in 0..3 {
        let id = api.run_job(&host, &json!({"kind": "backup", "source_group": "docs"})).unwrap();
        assert_eq!(api.finished_job(&id, LIMIT).unwrap()["status"], "succeeded");
    }
    let ended = |body: &Value| api.finished_job(&api.run_job(&host, body).unwrap(), LIMIT).unwrap();
    let limit = json!({"forget_limit": {"snapshots": 1}});
    api.call("PUT", &format!("/v1/repositories/{repository}/maintenance"), Some(&limit), &[]).unwrap().ok().unwrap();
    let dry = ended(&json!({"kind": "forget", "dry_run": true}));
    assert_eq!((&dry["status"], &dry["stats"]["removed"]), (&json!("succeeded"), &json!(2)), "{dry}");
    let refused = ended(&json!({"kind": "forget"}));
    assert_eq!((&refused["status"], &refused["stats"]["removed"]), (&json!("failed"), &json!(2)), "{refused}");
    assert_eq!(real.snapshots().unwrap().len(), 3);
    // Neither of these was refused for what it would delete.
    for other in [&dry["id"], &json!("nope")] {
        let body = json!({"kind": "forget", "confirm": other});
        assert_eq!(api.call("POST", &format!("/v1/hosts/{host}/jobs"), Some(&body), &[]).unwrap().status, 409);
    }
    let confirmed = ended(&json!({"kind": "forget", "confirm": refused["id"]}));
    assert_eq!(confirmed["status"], "succeeded", "{confirmed}");
    assert_eq!(real.snapshots().unwrap().len(), 1);
}
