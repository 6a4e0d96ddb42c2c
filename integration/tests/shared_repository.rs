//! Hosts that share a repository, with real agents and real restic: backups, forget, prune and check all want it at one
//! time, and no restic ever meets a lock. And whoever forgets for all of them finds each one's snapshots.

use fleet_integration::{Agent, AgentSettings, Api, Failure, Restic, Sandbox, eventually, restics};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
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
    for file in 0..200 {
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
    for _ in 0..3 {
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
            if open || list.is_empty() { Err(Failure::new(format!("{list:?}"))) } else { Ok(()) }
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

#[test]
fn a_forget_for_all_hosts_finds_the_snapshots_of_a_machine_that_was_renamed() {
    let restic = restics().unwrap().remove(0);
    let sandbox = Sandbox::start_with(&[("FLEET_MAINTENANCE_JITTER", "0s")]).unwrap();
    let api = sandbox.api();
    let (repository, real) = sandbox.repository("shared", &restic).unwrap();
    let (mut agent, id) = host(&sandbox, &repository, 0);
    let runner = host(&sandbox, &repository, 1);
    let run = |host: &str, body: Value| {
        let job = api.finished_job(&api.run_job(host, &body).unwrap(), LIMIT).unwrap();
        assert_eq!(job["status"], "succeeded", "{job}");
    };
    run(&id, json!({"kind": "backup", "source_group": "docs"}));
    run(&runner.1, json!({"kind": "backup", "source_group": "docs"}));
    agent.process().stop().unwrap();
    // By the name of the machine beside it, of all names.
    let settings = AgentSettings { hostname: "host-1".to_owned(), ..agent.settings().clone() };
    let _renamed = Agent::start(settings).unwrap();
    run(&id, json!({"kind": "backup", "source_group": "docs"}));
    assert_eq!(snapshots_of_each(&real)[..2], [2, 1]);

    let body = json!({"forget": {"cron": "0 0 1 1 *"}, "runner_host_id": runner.1});
    api.call("PUT", &format!("/v1/repositories/{repository}/maintenance"), Some(&body), &[]).unwrap().ok().unwrap();
    let due = "UPDATE maintenance SET next_due_at = date_trunc('second', now()) WHERE kind = 'forget' RETURNING kind";
    assert_eq!(sandbox.database.query(due).unwrap().len(), 1);
    eventually("the forget", LIMIT, || {
        let list = api.list(&format!("/v1/repositories/{repository}/runs"))?;
        let done = list.iter().any(|run| run["outcome"] == "succeeded");
        if done { Ok(()) } else { Err(Failure::new(format!("{list:?}"))) }
    })
    .unwrap();
    assert_eq!(snapshots_of_each(&real)[..2], [1, 1]);
}
