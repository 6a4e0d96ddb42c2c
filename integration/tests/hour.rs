//! An hour of five hosts that share one repository on a REST server, compressed: real agents, real restic. Their schedules
//! fire each minute as they do; backups that are asked for come on top, and maintenance is made due again (in the database,
//! as its ticker would find it) as soon as it is over. No restic ever meets a lock, and the ledger knows of each run.
//!
//! The tests have a few rounds of it; `FLEET_TEST_HOUR_ROUNDS=20` plays the whole of it.

use chrono::{DateTime, TimeDelta, Utc};
use fleet_integration::{Agent, Api, Failure, RestServer, RestServerSettings, Restic, Sandbox, eventually, restics};
use serde_json::{Value, json};
use std::time::Duration;
use std::{env, fs};

const LIMIT: Duration = Duration::from_secs(300);
const HOSTS: usize = 5;
const ROUNDS: usize = 3;
/// What an agent, or restic of whatever version, says of somebody else's lock.
const OF_LOCKS: [&str; 3] = ["fleet_waits_for_lock", "already locked", "unable to create lock"];
const PASSWORD: &str = "password of shared";

/// A host with a group that its schedule backs up each minute, and one that is backed up when somebody asks.
fn host(sandbox: &Sandbox, repository: &str, number: usize) -> (Agent, String) {
    let restic = restics().unwrap().remove(0);
    let (agent, host) = sandbox.agent(&format!("host-{number}"), repository, &restic).unwrap();
    for group in ["scheduled", "asked"] {
        let source = sandbox.path(&format!("{group}-{number}"));
        fs::create_dir(&source).unwrap();
        for file in 0..20 {
            fs::write(source.join(file.to_string()), format!("{group} {number} {file} ").repeat(2_000)).unwrap();
        }
        let mut group = json!({"name": group, "includes": [source.display().to_string()]});
        if group["name"] == "asked" {
            group["retention"] = json!({"keep_last": 1});
        }
        sandbox.api().create_source_group(&host, &group).unwrap();
    }
    (agent, host)
}

/// Asks until nothing is open in a list of jobs or runs, and there are so many; gives the list.
fn settled(api: &Api, path: &str, field: &str, count: usize) -> Vec<Value> {
    let open = |item: &&Value| matches!(item[field].as_str(), Some("queued" | "running" | "expected" | "retrying"));
    let look = || {
        let list = api.list(path)?;
        match list.iter().find(open) {
            None if list.len() >= count => Ok(list),
            open => Err(Failure::new(format!("{} of {count}, open: {open:?}", list.len()))),
        }
    };
    eventually(path, LIMIT, look).unwrap()
}

/// When restic was at work on a job, by its host's clock, which is that of all here.
fn span(job: &Value) -> (DateTime<Utc>, DateTime<Utc>) {
    (time(&job["started_at"]), time(&job["finished_at"]))
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

/// Whether each kind of maintenance was at work alone, and some of it between two backups.
fn look_at_order(jobs: &[Value]) {
    let of = |kind: &'static str| jobs.iter().filter(move |job| job["kind"] == kind);
    for kind in ["forget", "prune", "check"] {
        for job in of(kind) {
            let (begin, end) = span(job);
            let beside =
                jobs.iter().find(|other| other["id"] != job["id"] && span(other).0 < end && begin < span(other).1);
            assert_eq!(beside, None, "beside {job}");
        }
        let between = |job: &Value| {
            let (begin, end) = span(job);
            of("backup").any(|backup| span(backup).1 <= begin) && of("backup").any(|backup| end <= span(backup).0)
        };
        assert!(of(kind).any(between), "no {kind} between two backups");
    }
}

#[test]
fn five_hosts_share_a_repository_for_an_hour_and_no_restic_meets_a_lock() {
    let rounds = env::var("FLEET_TEST_HOUR_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let variables = [("FLEET_MAINTENANCE_JITTER", "0s"), ("FLEET_DRAIN_AFTER", "2s")];
    let sandbox = Sandbox::start_with(&variables).unwrap();
    let api = sandbox.api();
    let server =
        RestServer::start(&sandbox.path("server"), &sandbox.path("data"), &RestServerSettings::default()).unwrap();
    let url = server.url("shared");
    let repository = api.create_repository("shared", &url, PASSWORD).unwrap();
    let hosts: Vec<(Agent, String)> = (0..HOSTS).map(|number| host(&sandbox, &repository, number)).collect();
    settled(&api, "/v1/jobs", "status", HOSTS);
    let mut schedules = Vec::new();
    for (_, host) in &hosts {
        let path = format!("/v1/hosts/{host}/schedules");
        let made = api.post(&path, &json!({"cron": "* * * * *", "source_groups": ["scheduled"]})).unwrap();
        schedules.push(format!("{path}/{}", made["id"].as_str().unwrap()));
    }
    let yearly = json!({"cron": "0 0 1 1 *"});
    let maintenance = json!({"forget": yearly, "prune": yearly, "check": {"cron": "0 0 1 1 *", "subset": "1/7"}});
    let path = format!("/v1/repositories/{repository}");
    api.call("PUT", &format!("{path}/maintenance"), Some(&maintenance), &[]).unwrap().ok().unwrap();
    let ask = || {
        for (_, host) in &hosts {
            api.run_job(host, &json!({"kind": "backup", "source_group": "asked"})).unwrap();
        }
    };
    for round in 1..=rounds {
        ask();
        let due = "UPDATE maintenance SET next_due_at = clock_timestamp() RETURNING kind";
        assert_eq!(sandbox.database.query(due).unwrap().len(), 3);
        // Once more while maintenance is at work, or over already.
        let runs = format!("{path}/runs");
        let begun = |list: Vec<Value>| match list.iter().filter(|run| run["outcome"] != "expected").count() {
            count if count > 3 * (round - 1) => Ok(()),
            _ => Err(Failure::new(format!("{list:?}"))),
        };
        eventually("maintenance to begin", LIMIT, || begun(api.list(&runs)?)).unwrap();
        ask();
        settled(&api, &runs, "outcome", 3 * round);
    }

    // The agents' own schedules have fired at least once; every minute of each is there and has succeeded.
    let mut scheduled = 0;
    for ((_, host), schedule) in hosts.iter().zip(schedules) {
        settled(&api, &format!("/v1/hosts/{host}/runs"), "outcome", 1);
        api.call("DELETE", &schedule, None, &[]).unwrap().ok().unwrap();
        let runs = settled(&api, &format!("/v1/hosts/{host}/runs"), "outcome", 1);
        assert!(
            runs.windows(2).all(|two| time(&two[0]["due_at"]) - time(&two[1]["due_at"]) == TimeDelta::minutes(1)),
            "{runs:?}"
        );
        let kept = |run: &Value| {
            let reason = run["reason"].as_str().unwrap_or_default();
            let in_order = reason.starts_with("still running") || reason == "the schedule was deleted";
            run["outcome"] == "succeeded" || (run["outcome"] == "skipped" && in_order)
        };
        assert!(runs.iter().all(kept) && runs.iter().any(|run| run["outcome"] == "succeeded"), "{runs:?}");
        scheduled += runs.iter().filter(|run| run["outcome"] == "succeeded").count();
    }
    let of_repository = api.list(&format!("{path}/runs")).unwrap();
    assert_eq!(of_repository.len(), 3 * rounds);
    assert!(of_repository.iter().all(|run| run["outcome"] == "succeeded"), "{of_repository:?}");

    let jobs = settled(&api, "/v1/jobs", "status", HOSTS + (2 * HOSTS + 3) * rounds + scheduled);
    for job in &jobs {
        assert_eq!((&job["status"], &job["error"]), (&json!("succeeded"), &Value::Null), "{job}");
        let log = api.logs(job["id"].as_str().unwrap()).unwrap();
        let of_lock = log.iter().find(|line| {
            line["payload"].as_str().is_some_and(|text| OF_LOCKS.iter().any(|of_lock| text.contains(of_lock)))
        });
        assert_eq!(of_lock, None, "{job}");
    }
    look_at_order(&jobs);
    assert_eq!(api.get(&path).unwrap()["health"]["problems"], json!([]));
    let real =
        Restic { program: restics().unwrap().remove(0), repository: url, password: PASSWORD.to_owned(), account: None };
    assert!(real.run(&["check", "--read-data"]).unwrap().contains("no errors"));
}
