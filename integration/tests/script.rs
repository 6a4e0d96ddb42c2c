//! What this project is for: a script triggers a check on hundreds of hosts, loses its connections and its process at random,
//! meets a coordinator that is killed as well, repeats every request, and ends with exactly one job a host.

mod support;

use fleet_integration::{Crowd, Failure, Process, Sandbox, command, eventually, program};
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use support::enroll_many;

const HOSTS: usize = 500;
/// For how long things are killed; the last life of the script does what is left then.
const KILLING: Duration = Duration::from_secs(8);
/// How long the script and the coordinator live meanwhile, in milliseconds, at most.
const LIFE: u64 = 700;
/// Of so many kills one is the coordinator's.
const OF_COORDINATOR: u64 = 4;
const LIMIT: Duration = Duration::from_secs(120);

/// A number below `range`, another each time.
fn dice(state: &mut u64, range: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % range
}

#[test]
fn a_script_that_is_killed_at_random_makes_exactly_one_job_a_host() {
    let mut sandbox = Sandbox::start().unwrap();
    let hosts = enroll_many(&sandbox, HOSTS);
    let address = sandbox.coordinator.address().to_owned();
    let crowd = Crowd::start(&address, hosts.clone()).unwrap();
    let greeted = || match crowd.greeted() {
        HOSTS => Ok(()),
        some => Err(Failure::new(format!("{some} agents"))),
    };
    eventually("every agent to be greeted", LIMIT, greeted).unwrap();
    let token = json!({"name": "nightly", "scope": "operate"});
    let token = sandbox.api().post("/v1/tokens", &token).unwrap()["token"].as_str().unwrap().to_owned();
    let list = sandbox.path("hosts");
    fs::write(&list, hosts.iter().map(|host| format!("{}\n", host.id)).collect::<String>()).unwrap();
    let (url, said) = (sandbox.coordinator.url(), sandbox.path("script.log"));
    let run = || {
        let mut script = command(&program("script").unwrap(), None);
        script.arg(&url).arg(&list).env("TOKEN", &token);
        Process::start("script", script, said.clone()).unwrap()
    };

    let (began, mut seed) = (Instant::now(), u64::from(std::process::id()));
    let (mut lives, mut coordinators) = (1, 1);
    let mut script = run();
    while began.elapsed() < KILLING || coordinators == 1 {
        thread::sleep(Duration::from_millis(dice(&mut seed, LIFE)));
        if dice(&mut seed, OF_COORDINATOR) == 0 {
            sandbox.take_down();
            sandbox.bring_back().unwrap();
            coordinators += 1;
        } else {
            script.kill();
            script = run();
            lives += 1;
        }
        assert!(script.ended().is_none_or(|status| status.success()), "{}", script.tail(5));
    }
    let ended = script.wait(LIMIT).unwrap();
    assert!(ended.success(), "{}", script.tail(5));

    // Each host was always told of the same job, and there is no other.
    let mut told: HashMap<String, String> = HashMap::new();
    let output = script.output();
    for (host, job) in output.lines().filter_map(|line| line.split_once(' ')).filter(|(_, job)| job.len() == 36) {
        let first = told.entry(host.to_owned()).or_insert_with(|| job.to_owned());
        assert_eq!(first, job, "host {host} got two");
    }
    assert_eq!(told.len(), HOSTS);
    let jobs = sandbox.api().list("/v1/jobs?kind=check&limit=500").unwrap();
    assert_eq!(jobs.len(), HOSTS, "one job a host");
    for job in &jobs {
        assert_eq!(told.get(job["host_id"].as_str().unwrap()).map(String::as_str), job["id"].as_str());
        assert_eq!((&job["status"], &job["requested_by"]), (&json!("succeeded"), &json!("nightly")), "{job}");
    }
    let done = "SELECT count(*) FROM audit WHERE route = '/v1/hosts/{id}/jobs' AND outcome = 'done'";
    assert_eq!(
        sandbox.database.query(done).unwrap()[0][0].as_deref(),
        Some("500"),
        "and one row in the audit log for each"
    );
    eprintln!("{lives} lives of the script, {coordinators} of the coordinator, {:?}", began.elapsed());
}
