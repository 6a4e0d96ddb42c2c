//! The real coordinator is away while the real agent's schedule has something due, with real restic.

use chrono::{DateTime, TimeDelta, Utc};
use fleet_integration::{Agent, Api, Failure, Sandbox, eventually, restics};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Reads `path` until it is as it should be.
fn until(api: &Api, path: &str, good: impl Fn(&Value) -> bool) -> Value {
    let look = || {
        let found = api.get(path)?;
        if good(&found) { Ok(found) } else { Err(Failure::new(found.to_string())) }
    };
    eventually(path, LIMIT, look).unwrap()
}

/// The same agent with a clock that is ahead, so that it is `shown`.
fn later(mut agent: Agent, shown: DateTime<Utc>) -> Agent {
    agent.process().kill();
    let mut settings = agent.settings().clone();
    let ahead = (shown - Utc::now()).num_seconds().to_string();
    settings.variables =
        vec![("FLEET_TEST_CLOCK_AHEAD".to_owned(), ahead), ("FLEET_LOCAL_RUN_AFTER".to_owned(), "1s".to_owned())];
    Agent::start(settings).unwrap()
}

#[test]
fn the_fleet_keeps_its_schedule_and_the_ledger_knows_it_afterwards() {
    let restic = restics().unwrap().remove(0);
    let mut sandbox = Sandbox::start().unwrap();
    let api = sandbox.api();
    let (repository, real) = sandbox.repository("repository", &restic).unwrap();
    let (agent, host) = sandbox.agent("alder", &repository, &restic).unwrap();
    let path = format!("/v1/hosts/{host}");
    until(&api, &path, |host| host["repository_initialized"] == true);
    let source = sandbox.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "what is to be kept").unwrap();
    api.create_source_group(&host, &json!({"name": "docs", "includes": [source.display().to_string()]})).unwrap();
    let schedule = json!({"cron": "0 2 * * *", "source_groups": ["docs"]});
    let schedule = api.post(&format!("{path}/schedules"), &schedule).unwrap();
    until(&api, &path, |host| host["applied_schedule_version"] == host["schedule_version"]);
    let due: DateTime<Utc> = schedule["next_runs"][0].as_str().unwrap().parse().unwrap();

    sandbox.take_down();
    let agent = later(agent, due + TimeDelta::minutes(10));
    let made = eventually("the snapshot of an agent that is on its own", LIMIT, || {
        let there = real.snapshots()?;
        if there.len() == 1 { Ok(there) } else { Err(Failure::new(format!("{there:?}"))) }
    });
    assert_eq!(made.unwrap()[0]["tags"], json!(["docs"]));

    sandbox.bring_back().unwrap();
    let api = sandbox.api();
    let runs = until(&api, &format!("{path}/runs"), |list| list["items"][0]["outcome"] == "succeeded");
    assert_eq!(runs["items"].as_array().unwrap().len(), 1, "{runs}");
    let run = &runs["items"][0];
    assert_eq!(run["due_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap(), due);
    let id = run["job_id"].as_str().unwrap();
    let job = api.job(id).unwrap();
    assert_eq!(
        (&job["status"], &job["origin"], &job["source_group"]),
        (&json!("succeeded"), &json!("schedule"), &json!("docs"))
    );
    assert!(job["stats"]["snapshot_id"].is_string(), "{job}");
    assert!(!api.logs(id).unwrap().is_empty());
    until(&api, &format!("{path}/snapshots"), |list| list["items"].as_array().is_some_and(|items| items.len() == 1));

    // The next one goes the ordinary way: in two minutes, and a clock may be ahead by as much.
    let mut agent = later(agent, Utc::now());
    agent.online(&api).unwrap();
    let due = Utc::now() + TimeDelta::minutes(2);
    let cron = due.format("%M %H * * *").to_string();
    let changed = json!({"cron": cron, "source_groups": ["docs"]});
    let path_of_schedule = format!("{path}/schedules/{}", schedule["id"].as_str().unwrap());
    api.call("PUT", &path_of_schedule, Some(&changed), &[]).unwrap().ok().unwrap();
    until(&api, &path, |host| host["applied_schedule_version"] == host["schedule_version"]);
    let mut agent = later(agent, due);
    agent.online(&api).unwrap();
    let runs = until(&api, &format!("{path}/runs"), |list| {
        list["items"]
            .as_array()
            .is_some_and(|items| items.len() == 2 && items.iter().all(|run| run["outcome"] == "succeeded"))
    });
    assert_ne!(runs["items"][0]["job_id"], runs["items"][1]["job_id"]);
    assert_eq!(real.snapshots().unwrap().len(), 2);
    assert_eq!(api.list("/v1/jobs?kind=backup").unwrap().len(), 2);
}
